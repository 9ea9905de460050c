"""A few steps of HART's training: losses fall, a cut run resumes, the bundle draws class names."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_hart import small_hart
from made_scenes import CLASSES, small_tokenizer

import hguide
from hguide.backends.hart import HART
from hguide.backends.tiny_text import TinyTextEncoder
from hguide.cli import main
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.training import data
from hguide.experiments.training.bundle import export
from hguide.experiments.training.hart import HARTTraining, HARTTrainingConfig, run
from hguide.experiments.training.hybrid_tokens import hybrid_reconstruct, hybrid_set, load_hart_tokenizer
from hguide.experiments.training.prompts import prompt_batch
from hguide.experiments.training.tokenizer import reconstruct

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.

GUIDANCE = "cfg(1.5) | ssg(0.5)"
# Decibels that the mean over crops may lose; a rest that is misplaced or goes through phi loses several.
LOSS = 0.1


@pytest.fixture(scope="module")
def weights(coded: Path, tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small_hart(coded, tokenizer_file, tmp_path_factory.mktemp("hart")))


@pytest.fixture(scope="module")
def bundle(tokenizer_file: Path, weights: Path) -> Path:
    return export(tokenizer_file, weights, weights.parent / "made-hart.safetensors")


def test_a_few_steps_lower_every_loss(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    config = small_hart(coded, tokenizer_file, tmp_path, steps=12, epoch_steps=12)
    before = HARTTraining(config).held_out()
    assert before["test_loss"] == pytest.approx(np.log(16), abs=0.02)  # the head starts near the uniform one
    assert before["test_noise"] == pytest.approx(1.0, abs=0.1)  # and the residual head at zero
    run(config)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["train_loss"] < before["train_loss"] - 0.05
    assert line["test_noise"] < before["test_noise"] - 0.02
    assert line["test_variance"] < before["test_variance"]
    assert list((tmp_path / "pictures").glob("*.png"))


def test_a_cut_run_resumes_to_the_same_bits(coded: Path, tokenizer_file: Path, weights: Path, tmp_path: Path) -> None:
    """Two steps, then two more by the same call, against four at once."""
    import lightning
    from safetensors.torch import load_file

    config = small_hart(coded, tokenizer_file, tmp_path)
    module = HARTTraining(config)
    # Muon and AdamW step once each, and Lightning counts both.
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=4, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module)
    assert module.steps_done == 2
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, unbroken = load_file(run(config)), load_file(weights)
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[key], value) for key, value in unbroken.items())


def test_every_part_learns_from_the_joint_loss(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    module = HARTTraining(small_hart(coded, tokenizer_file, tmp_path, text_dropout=0.0))
    with torch.no_grad():  # zeros at the start keep the first gradients from what lies before them
        for parameter in module.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.loss(0)[0].backward()
    silent = [name for name, p in module.network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_dropped_text_gives_the_encoder_no_gradient(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    module = HARTTraining(small_hart(coded, tokenizer_file, tmp_path, text_dropout=1.0))
    module.loss(0)[0].backward()
    grads = [p.grad for p in module.network["text_encoder"].parameters() if p.grad is not None]
    assert all(grad.abs().sum() == 0 for grad in grads)


def test_a_bundle_draws_class_names(bundle: Path) -> None:
    model = hguide.load(bundle)
    assert isinstance(model, HART)
    assert isinstance(model.text_encoder, TinyTextEncoder)
    assert (model.name, model.class_names, model.class_count) == ("made-hart", CLASSES, 3)
    assert model.conditions([0, "river", None, "a quiet sea"], 4) == ["beach", "river", None, "a quiet sea"]
    by_name = hguide.generate(model, "forest", GUIDANCE, seeds=[3, 4])
    assert tuple(by_name.shape) == (2, 3, 16, 16)
    assert torch.equal(by_name, hguide.generate(model, 1, GUIDANCE, seeds=[3, 4]))
    assert not torch.equal(by_name, hguide.generate(model, "river", GUIDANCE, seeds=[3, 4]))
    with pytest.raises(ConfigError, match="a class is a number from 0 to 2, got 3"):
        hguide.generate(model, 3, seeds=[0])


def test_a_bundle_is_the_averaged_weights_in_half_precision(bundle: Path, weights: Path, tokenizer_file: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(str(bundle), "pt") as handle:
        metadata = json.loads(handle.metadata()["hguide"])
    assert metadata["family"] == "hart"
    assert metadata["training"]["generator"]["steps"] == 4
    assert {"transformer", "text_encoder", "tokenizer"} <= metadata.keys()
    found, trained = load_file(bundle), load_file(weights)
    expected = trained | {f"tokenizer.{key}": value for key, value in load_file(tokenizer_file).items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value.half()) for key, value in expected.items())


def test_a_bundle_starts_another_training(coded: Path, bundle: Path, tmp_path: Path) -> None:
    """Its tokenizer and its weights; a second bundle of them belongs to the same tokenizer."""
    config = small_hart(coded, bundle, tmp_path, init=str(bundle), steps=1, learning_rate=0.0)
    module = HARTTraining(config)
    loaded = hguide.load(bundle)
    assert isinstance(loaded, HART)
    kept = loaded.transformer.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in module.network["transformer"].state_dict().items())
    again = export(bundle, run(config), tmp_path / "again.safetensors")
    assert hguide.load(again).tokenizer_hash == loaded.tokenizer_hash


def test_a_foreign_tokenizer_is_refused(coded: Path, weights: Path, tmp_path: Path) -> None:
    from hguide.experiments.training import tokenizer

    other = tokenizer.run(replace(small_tokenizer(coded, tmp_path / "other"), seed=1))
    with pytest.raises(CheckpointError, match="tokens of another tokenizer"):
        export(other, weights, tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()


def test_the_command_line_knows_the_classes(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    demo = ["demo", "--model", str(bundle), "--seeds", "0", "--guidances", f"none; {GUIDANCE}"]
    assert main([*demo, "--out", str(tmp_path / "demo")]) == 0
    record = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert record["classes"] == record["class_names"] == list(CLASSES)
    assert [row["images"] for row in record["results"]] == [3, 3]
    sample = ["sample", "--model", str(bundle), "--seeds", "0", "--out", str(tmp_path / "pngs")]
    assert main([*sample, "--classes", "beach,2"]) == 0
    assert sorted(file.name for file in (tmp_path / "pngs").iterdir()) == ["beach_000000.png", "river_000000.png"]
    capsys.readouterr()
    assert main([*sample, "--classes", "beech"]) == 2
    assert "unknown class 'beech': did you mean 'beach'" in capsys.readouterr().err
    repeated = ["sample", "--from", str(tmp_path / "pngs" / "beach_000000.png"), "--out", str(tmp_path / "again")]
    assert main(repeated) == 0
    assert "repeated bit for bit" in capsys.readouterr().out


def test_evaluation_measures_both_ways_back(bundle: Path) -> None:
    from hguide.experiments.training.report import _reconstructions

    model = hguide.load(bundle)
    assert isinstance(model, HART)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole, codes = _reconstructions(model).values()
    torch.testing.assert_close(whole(images), hybrid_reconstruct(model.tokenizer, images))
    assert not torch.allclose(whole(images), codes(images), atol=1e-3)
    with pytest.raises(ConfigError, match="toy has no tokenizer that is evaluated here"):
        _reconstructions(hguide.load("toy"))


def test_prompts_of_a_batch() -> None:
    torch.manual_seed(0)
    encoder = TinyTextEncoder()
    labels = torch.tensor([2, 0, 2])
    found = prompt_batch(encoder, CLASSES, labels, 0.0)
    alone, mask = encoder.encode(["river", "beach", "river"])
    torch.testing.assert_close(found.text, alone, atol=1e-6, rtol=0)
    assert torch.equal(found.mask, mask)
    assert not found.dropped.any()
    assert prompt_batch(encoder, CLASSES, labels, 1.0).dropped.all()
    many = prompt_batch(encoder, CLASSES, torch.zeros(2000, dtype=torch.int64), 0.1).dropped
    assert 130 < many.sum() < 270  # 200 expected, five standard deviations


def test_hybrid_sets_are_kept(coded: Path, tokenizer_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    tokenizer, scenes = load_hart_tokenizer(tokenizer_file), data.load_scenes(coded, "train")
    made = hybrid_set(tokenizer, scenes, 6, 16, 0, tmp_path / "kept.safetensors")
    assert tuple(made.rests.shape) == (6, 4, 8, 8)
    assert (made.rests.dtype, made.tokens.shape) == (torch.float16, (6, 1 + 16 + 64))
    crops, labels, _ = data.random_crops(scenes, 6, 16, 0, 0)
    whole = tokenizer.encode_hybrid(data.to_unit(crops) * 2 - 1)
    torch.testing.assert_close(made.rests.float(), whole.rest, atol=2e-3, rtol=2e-3)
    assert torch.equal(made.tokens[:, -64:].view(6, 8, 8), whole.tokens[-1])
    assert torch.equal(made.labels, labels)
    monkeypatch.setattr(type(tokenizer), "hybrid", None)  # the second time, nothing is encoded
    kept = hybrid_set(tokenizer, scenes, 6, 16, 0, tmp_path / "kept.safetensors")
    assert torch.equal(kept.rests, made.rests)
    assert torch.equal(kept.tokens, made.tokens)


def test_the_continuous_rest_is_at_least_as_good_as_tokens() -> None:
    """On the bundled tokenizer, which never saw it in training; textures with the spectrum of photographs."""
    tokenizer = load_hart_tokenizer("landuse-var")
    images = _textures(9, 64)

    def psnr(rebuilt: torch.Tensor) -> float:
        return float((-10 * (rebuilt - images).square().mean((1, 2, 3)).log10()).mean())

    continuous = psnr(hybrid_reconstruct(tokenizer, images))
    assert continuous >= psnr(reconstruct(tokenizer, images)) - LOSS
    # HART adds the last codes without phi, which the tokenizer was not trained for: the residual makes up for it.
    assert continuous > psnr(hybrid_reconstruct(tokenizer, images, residual=False)) + LOSS
    exact = tokenizer.decode_latent(tokenizer.latent(images * 2 - 1)) * 0.5 + 0.5
    torch.testing.assert_close(hybrid_reconstruct(tokenizer, images), exact, atol=1e-4, rtol=0)


def _textures(count: int, side: int) -> torch.Tensor:
    """Noise whose amplitude falls with the frequency, mostly grey."""
    random, axis = np.random.default_rng(0), np.fft.fftfreq(side)
    frequency = np.hypot(axis[:, None], axis[None])
    frequency[0, 0] = 1 / side
    found = np.fft.ifft2(np.fft.fft2(random.normal(size=(count, 3, side, side))) / frequency).real
    found = found - found.mean((1, 2, 3), keepdims=True)
    found = 0.8 * found.mean(1, keepdims=True) + 0.2 * found
    found = 0.45 + 0.15 * found / found.std((1, 2, 3), keepdims=True)
    return torch.from_numpy(found.clip(0, 1)).float()


def test_the_shipped_recipe_fits_the_wheel() -> None:
    """Its options are those of the training, and the model with landuse-var's tokenizer stays below 10 MB in half."""
    from dataclasses import fields

    from hguide.backends.hart import HARTTransformer, TransformerConfig
    from hguide.backends.tiny_text import TinyTextConfig
    from hguide.experiments.training.bundle import LARGEST_BYTES

    options = yaml.safe_load((files("hguide.experiments.training") / "configs" / "landuse_hart.yaml").read_text())
    assert options.keys() <= {each.name for each in fields(HARTTrainingConfig)}
    recipe = HARTTrainingConfig(data="d", out="o", tokenizer="t", **options)
    pictures = load_hart_tokenizer("landuse-var")
    shape = {name: options[name] for name in ("depth", "width", "heads", "hidden", "adaln")}
    head = {name: options[name] for name in ("residual_width", "residual_depth")}
    with torch.device("meta"):
        transformer = HARTTransformer(
            TransformerConfig(
                pictures.config.patch_nums,
                vocabulary=pictures.config.vocabulary,
                latent_channels=16,
                context_tokens=recipe.text_tokens,
                context_dim=recipe.text_dim,
                **shape,
                **head,
            )
        )
        encoder = TinyTextEncoder(TinyTextConfig(recipe.text_dim, recipe.text_tokens))
    parts = (pictures, transformer, encoder)
    assert sum(2 * value.numel() for part in parts for value in part.state_dict().values()) < LARGEST_BYTES
