"""A few steps of each training: resumed, exported, evaluated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_scenes import CLASSES, small_tokenizer

from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.features import load_features
from hguide.experiments.training import data

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.


@pytest.mark.parametrize(("progress", "step", "expected"), [(0, 0, 0.1), (0, 9, 1.0), (0.5, 99, 0.5), (1, 99, 0.0)])
def test_learning_rate_warms_up_and_falls_to_zero(progress: float, step: int, expected: float) -> None:
    from hguide.experiments.training.fit import learning_rate_factor

    assert learning_rate_factor(progress, step, warmup=10) == pytest.approx(expected, abs=1e-12)


def test_features_train(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.features import FeaturesConfig, run

    config = FeaturesConfig(
        data=str(coded), out=str(tmp_path), accelerator="cpu", steps=2, epoch_steps=2, batch_size=6, crop=32,
        widths=(8, 8, 8), blocks=(1, 1, 1),
    )  # fmt: skip
    _, metadata = load_features(run(config))
    assert metadata["training"]["steps"] == 2
    assert metadata["training"]["train_scenes_sha256"] == data.load_scenes(coded, "train").hash
    assert 0 <= metadata["training"]["test_accuracy"] <= 1


def test_tokenizer_trains_and_leaves_metrics_pictures_and_weights(tokenizer_file: Path) -> None:
    from hguide.experiments.training.tokenizer import load_tokenizer

    network, metadata = load_tokenizer(tokenizer_file)
    assert network.config.patch_nums == (1, 4, 8)
    assert metadata["training"]["steps"] == 2
    line = json.loads((tokenizer_file.parent / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "codes_used", "test_psnr"} <= line.keys()
    assert list((tokenizer_file.parent / "pictures").glob("*.png"))


def test_decoder_alone_keeps_the_tokens(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    from hguide.backends.tokenizer_hash import tokenizer_hash
    from hguide.experiments.training.tokenizer import load_tokenizer, run

    before, _ = load_tokenizer(tokenizer_file)
    config = replace(small_tokenizer(coded, tmp_path), init=str(tokenizer_file), decoder_only=True)
    after, metadata = load_tokenizer(run(config))
    changed = {
        name.split(".")[0]
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"decoder", "post_quant_conv"}
    assert metadata["same_tokens_as"] == tokenizer_hash(before) != tokenizer_hash(after)
    with pytest.raises(ConfigError, match="give it with init"):
        run(replace(config, init=None, out=str(tmp_path / "other")))


def test_a_resumed_training_equals_an_unbroken_one(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    """A run cut after its first step, then resumed by the same call, ends with the same bits."""
    import lightning
    from safetensors.torch import load_file

    from hguide.experiments.training.tokenizer import TokenizerTraining, run

    config = small_tokenizer(coded, tmp_path)
    module = TokenizerTraining(config)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module)
    assert module.steps_done == 1
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, unbroken = load_file(run(config)), load_file(tokenizer_file)
    assert all(torch.equal(resumed[key], value) for key, value in unbroken.items())


def test_straight_through_gradient_reaches_encoder_and_codebook(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.tokenizer import TokenizerTraining

    module = TokenizerTraining(small_tokenizer(coded, tmp_path))
    module.loss(0)[0].backward()
    for part in (module.network.encoder.conv_in, module.network.quantize.embedding, module.network.decoder.conv_out):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().sum() > 0


def test_codes_out_of_use_restart_from_residuals(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.tokenizer import TokenizerTraining, quantise, residual_vectors

    module = TokenizerTraining(small_tokenizer(coded, tmp_path))
    images = torch.rand(2, 3, 16, 16)
    f = module.network.latent(images * 2 - 1).detach()
    tokens, latents = quantise(module.network, f)
    pool = residual_vectors(module.network, f, [each.detach() for each in latents])
    before = module.network.quantize.embedding.weight.detach().clone()
    module._follow_usage(f, tokens, [each.detach() for each in latents], step=20)
    changed = (module.network.quantize.embedding.weight != before).any(1)
    assert changed.any()
    restarted = module.network.quantize.embedding.weight[changed].detach()
    assert (restarted[:, None] == pool).all(2).any(1).all()


def test_generator_trains_exports_and_refuses_a_foreign_tokenizer(
    coded: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    from safetensors import safe_open

    from hguide.experiments.training import tokenizer
    from hguide.experiments.training.bundle import export
    from hguide.experiments.training.generator import GeneratorTrainingConfig, run

    config = GeneratorTrainingConfig(
        data=str(coded), out=str(tmp_path / "g"), tokenizer=str(tokenizer_file), accelerator="cpu",
        steps=2, epoch_steps=2, batch_size=4, crop=16, width=16, depth=1, heads=2, token_crops=8, precision="32-true",
    )  # fmt: skip
    weights = run(config)
    bundle = export(tokenizer_file, weights, tmp_path / "bundle.safetensors")
    with safe_open(str(bundle), "pt") as handle:
        metadata = json.loads(handle.metadata()["hguide"])
        keys = set(handle.keys())
        assert all(handle.get_tensor(key).dtype == torch.float16 for key in keys)
    assert metadata["family"] == "var"
    assert metadata["transformer"]["vocabulary"] == metadata["tokenizer"]["vocabulary"] == 16
    assert metadata["classes"] == list(CLASSES)
    assert metadata["training"]["generator"]["steps"] == 2
    assert {"tokenizer.decoder.conv_out.weight", "transformer.head.weight"} <= keys
    other = tokenizer.run(replace(small_tokenizer(coded, tmp_path / "other"), seed=1))
    with pytest.raises(CheckpointError, match="tokens of another tokenizer"):
        export(other, weights, tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()


def test_sampling_without_guidance_follows_the_class(coded: Path, tokenizer_file: Path) -> None:
    """A head that is certain draws that token at every scale, whatever the seed."""
    from hguide.backends.var.transformer import TransformerConfig, VARTransformer
    from hguide.experiments.training.sample import sample_images
    from hguide.experiments.training.tokenizer import load_tokenizer

    tokenizer, _ = load_tokenizer(tokenizer_file)
    shape = TransformerConfig((1, 4, 8), 1, 16, 2, 3, 16, 4, shared_adaln=True)
    network = VARTransformer(shape)
    torch.nn.init.zeros_(network.head.weight)
    with torch.no_grad():
        network.head.bias.copy_(torch.full((16,), -1e4).index_fill(0, torch.tensor(5), 0.0))
    drawn = sample_images(network, tokenizer, torch.tensor([0, 2]), 0.0, seed=1)
    maps = [torch.full((2, side, side), 5) for side in (1, 4, 8)]
    torch.testing.assert_close(drawn, tokenizer.decode(maps) * 0.5 + 0.5)


def test_evaluation_compares_reconstructions_with_their_originals(coded: Path, tokenizer_file: Path) -> None:
    from hguide.experiments.training.evaluate import evaluate_tokenizer
    from hguide.experiments.training.tokenizer import load_tokenizer

    class ByColour(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dummy = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            red = images[:, 0].mean((1, 2))
            return -(red[:, None] - torch.tensor([0.35, 0.59, 0.82])).abs()

    tokenizer, _ = load_tokenizer(tokenizer_file)
    measures = evaluate_tokenizer(tokenizer, data.load_scenes(coded, "test"), ByColour(), crops_per_scene=2)
    assert measures["crops"] == 18
    assert measures["accuracy_originals"] > 0.9
    assert measures["psnr"] > 5
    assert measures["accuracy_ratio"] == pytest.approx(
        measures["accuracy_reconstructions"] / measures["accuracy_originals"]
    )


def test_generator_trains_with_muon(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.generator import GeneratorTrainingConfig, run

    config = GeneratorTrainingConfig(
        data=str(coded), out=str(tmp_path), tokenizer=str(tokenizer_file), accelerator="cpu", optimizer="muon",
        steps=8, epoch_steps=8, batch_size=4, crop=16, width=16, depth=1, heads=2, token_crops=8,
        precision="32-true", warmup_steps=1, learning_rate=0.02,
    )  # fmt: skip
    run(config)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["train_loss"] < np.log(16)
