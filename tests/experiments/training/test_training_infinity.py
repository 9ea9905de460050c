"""Infinity's training: its loss, its texts, resuming, and the way from the training's files to pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lightning
import pytest
import torch
import torch.nn.functional as F
from made_bits import BITS, SIDES, small_bsq, small_infinity
from made_scenes import CLASSES
from safetensors.torch import load_file

import hguide
from hguide.backends.infinity import Infinity
from hguide.backends.infinity.bits import codes_of, enlarge
from hguide.backends.tiny_text import TinyTextEncoder
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.training import bsq_tokenizer
from hguide.experiments.training.bundle import export
from hguide.experiments.training.fit import fit
from hguide.experiments.training.infinity import InfinityTraining, bit_loss, run, texts_of
from hguide.experiments.training.prompts import PromptBatch

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.

TOKENS = sum(side * side for side in SIDES)


@pytest.fixture(scope="module")
def bits_file(coded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bsq_tokenizer.run(small_bsq(coded, tmp_path_factory.mktemp("bsq")))


@pytest.fixture(scope="module")
def generator_file(coded: Path, bits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small_infinity(coded, tmp_path_factory.mktemp("infinity"), bits_file))


@pytest.fixture
def module(coded: Path, bits_file: Path, tmp_path: Path) -> InfinityTraining:
    return InfinityTraining(small_infinity(coded, tmp_path, bits_file))


def test_loss_is_the_two_way_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, TOKENS, 2 * BITS), torch.randint(2, (3, TOKENS, BITS))
    pairs = logits.unflatten(2, (BITS, 2))
    entropies = F.cross_entropy(pairs.flatten(0, 2), targets.flatten(), reduction="none").view(3, TOKENS, BITS)
    torch.testing.assert_close(bit_loss(logits, targets), entropies.mean())
    weights = torch.tensor([4.0] * 1 + [2.0] * 4 + [1.0] * 16)
    expected = (entropies.mean((0, 2)) * weights).sum() / weights.sum()
    torch.testing.assert_close(bit_loss(logits, targets, (1, 4, 16)), expected)


def test_the_first_loss_is_that_of_knowing_nothing(module: InfinityTraining) -> None:
    loss, _ = module.loss(0)
    assert loss.item() == pytest.approx(math.log(2), abs=0.02)
    loss.backward()
    transformer, encoder = module.network["transformer"], module.network["text_encoder"]
    for parameter in (transformer.head.weight, encoder.byte_embed.weight, encoder.positions):
        assert parameter.grad.abs().sum() > 0


def test_dropped_texts_are_the_unconditional_one_of_their_length(module: InfinityTraining) -> None:
    transformer = module.network["transformer"]
    text, mask = torch.randn(2, 8, 16), torch.arange(8) < torch.tensor([[5], [3]])
    kept, dropped = texts_of(transformer, PromptBatch(text, mask, torch.tensor([False, True]), (5, 3)))
    assert torch.equal(kept, text[0, :5])
    assert torch.equal(dropped, transformer.cfg_uncond[:3])


def test_a_step_repeats_and_flips_follow_it(module: InfinityTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    from hguide.experiments.training import infinity

    seen = []
    real = infinity.training_inputs

    def kept(*args, **options):  # type: ignore[no-untyped-def]
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(infinity, "training_inputs", kept)
    for step in (0, 0, 1):
        module.loss(step)
    with torch.no_grad():
        module.held_out()
    assert torch.equal(seen[0].inputs, seen[1].inputs)
    assert not torch.equal(seen[0].inputs, seen[2].inputs)
    rows = module.test_set.rows(torch.arange(18), torch.device("cpu"))
    plain = real(rows.latents, module.schedule.grids)
    assert torch.equal(seen[3].inputs, plain.inputs)
    assert torch.equal(seen[3].targets, plain.targets)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_few_steps_lower_the_bits_loss(coded: Path, bits_file: Path, tmp_path: Path, optimizer: str) -> None:
    config = small_infinity(
        coded, tmp_path, bits_file, steps=25, epoch_steps=25, checkpoint_steps=25, learning_rate=0.02,
        optimizer=optimizer, precision="bf16-mixed",
    )  # fmt: skip
    module = InfinityTraining(config)
    fit(module)
    with torch.no_grad():
        after = module._mean_loss(module.train_set)
    assert after < 0.6
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"test_loss", "train_loss", "loss"} <= line.keys()
    assert list((tmp_path / "pictures").glob("*.png"))


def test_a_resumed_bits_training_equals_an_unbroken_one(
    coded: Path, bits_file: Path, generator_file: Path, tmp_path: Path
) -> None:
    module = InfinityTraining(small_infinity(coded, tmp_path, bits_file))
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module)
    assert module.steps_done == 1
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, unbroken = load_file(run(small_infinity(coded, tmp_path, bits_file))), load_file(generator_file)
    assert all(torch.equal(resumed[key], value) for key, value in unbroken.items())


def test_bundle_loads_and_generates_from_class_names(
    coded: Path, bits_file: Path, generator_file: Path, tmp_path: Path
) -> None:
    bundle = export(bits_file, generator_file, tmp_path / "small-infinity.safetensors")
    assert all(value.dtype == torch.float16 for value in load_file(bundle).values())
    model = hguide.load(bundle)
    assert isinstance(model, Infinity)
    assert isinstance(model.text_encoder, TinyTextEncoder)
    assert (model.name, model.class_names, model.image_size) == ("small-infinity", CLASSES, (16, 16))
    guidance = "cfg(w=2) | ssg(0.5)"
    named = hguide.generate(model, ["river", "beach"], guidance, seeds=[0, 1])
    assert named.shape == (2, 3, 16, 16)
    assert torch.equal(hguide.generate(model, [2, 0], guidance, seeds=[0, 1]), named)
    with pytest.raises(ConfigError, match="a class is a number from 0 to 2"):
        hguide.generate(model, 3, guidance, seeds=[0])
    more = InfinityTraining(small_infinity(coded, tmp_path / "more", bundle, init=str(bundle)))
    for key, value in more.network["text_encoder"].state_dict().items():
        assert torch.equal(value, model.text_encoder.state_dict()[key])


def test_weights_are_those_that_were_trained(bits_file: Path, generator_file: Path, tmp_path: Path) -> None:
    """The bundle's logits are those of the files before it, up to float16."""
    model = hguide.load(export(bits_file, generator_file, tmp_path / "m.safetensors"))
    assert isinstance(model, Infinity)
    before, after = load_file(generator_file), model.transformer.state_dict()
    for key, value in after.items():
        assert torch.equal(value, before[f"transformer.{key}"].half().float())


def test_evaluation_rebuilds_through_the_bits(bits_file: Path, generator_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.report import _reconstructions, _side

    model = hguide.load(export(bits_file, generator_file, tmp_path / "m.safetensors"))
    assert isinstance(model, Infinity)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    total = sum(enlarge(codes_of(bits), (SIDES[-1], SIDES[-1])) for bits in model.encode(images))
    wanted = model.tokenizer.decode_latent(total) * 0.5 + 0.5
    torch.testing.assert_close(_reconstructions(model)["reconstructions"](images), wanted)
    assert _side(model) == 16


def test_a_foreign_tokenizer_is_refused(
    coded: Path, bits_file: Path, generator_file: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    other = bsq_tokenizer.run(small_bsq(coded, tmp_path / "other", seed=1))
    with pytest.raises(CheckpointError, match="tokens of another tokenizer"):
        export(other, generator_file, tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match="tokens of another tokenizer"):
        export(tokenizer_file, generator_file, tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()
    with pytest.raises(CheckpointError, match="'var-tokenizer', not the tokenizer of an Infinity model"):
        InfinityTraining(small_infinity(coded, tmp_path / "var", tokenizer_file))


def test_the_shipped_size_stays_below_ten_megabytes() -> None:
    """Parameters of the shipped recipe, counted without memory."""
    from importlib.resources import files

    import yaml

    from hguide.backends.infinity import InfinityTokenizer, InfinityTransformer, TransformerConfig
    from hguide.backends.tiny_text import TinyTextConfig
    from hguide.experiments.training.bsq_tokenizer import BSQTokenizerTrainingConfig
    from hguide.experiments.training.bundle import LARGEST_BYTES
    from hguide.experiments.training.infinity import InfinityTrainingConfig

    def recipe(name: str) -> dict[str, object]:
        text = (files("hguide.experiments.training") / "configs" / f"{name}.yaml").read_text()
        return {key: tuple(v) if isinstance(v, list) else v for key, v in yaml.safe_load(text).items()}

    given, made = recipe("landuse_infinity_tokenizer"), recipe("landuse_infinity")
    pictures = BSQTokenizerTrainingConfig(data="d", out="o", **given)  # type: ignore[arg-type]
    config = InfinityTrainingConfig(data="d", out="o", tokenizer="t", **made)  # type: ignore[arg-type]
    assert all(getattr(pictures, key) == value for key, value in given.items())
    assert all(getattr(config, key) == value for key, value in made.items())
    assert pictures.network().stride * pictures.patch_nums[-1] == config.crop == 64
    shape = TransformerConfig(
        depth=config.depth, width=config.width, heads=config.heads, hidden=config.hidden, text_heads=config.text_heads,
        bits=pictures.latent_channels, text_channels=config.text_dim, text_length=config.text_tokens,
        levels=len(pictures.patch_nums),
    )  # fmt: skip
    with torch.device("meta"):
        networks = (
            InfinityTokenizer(pictures.network()),
            InfinityTransformer(shape),
            TinyTextEncoder(TinyTextConfig(config.text_dim, config.text_tokens)),
        )
    size = sum(2 * value.numel() for network in networks for value in network.state_dict().values())
    assert size < 0.98 * LARGEST_BYTES
