"""Reading and writing Infinity models: official layouts, wrong and damaged files, and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_memory import memory_of_loading, reads_proc
from published_infinity import TOKENIZER_FILE, official_tokenizer, official_transformer, write_shards
from safetensors.torch import load_file
from tiny_infinity import SQUARE, LetterEncoder, text, tiny_infinity

import hguide
from hguide.backends.infinity import Infinity, InfinityTransformer, ScaleSchedule, TransformerConfig
from hguide.backends.infinity.files import save
from hguide.backends.infinity.published_files import load_published, load_tokenizer
from hguide.errors import CheckpointError, ConfigError
from hguide.generate import generate

GOLDEN = Path(__file__).parents[1] / "golden" / "infinity"
# A loaded decoder lies channels last, which sums in another order.
LAST_BITS = 1e-5


@pytest.fixture(scope="module")
def model() -> Infinity:
    # Sixteen bits per token: the tokenizer beside it has a published name.
    return tiny_infinity(True)


@pytest.fixture
def folder(model: Infinity, tmp_path: Path) -> Path:
    """The published pair of files."""
    torch.save(official_transformer(model), tmp_path / "infinity_tiny.pth")
    vae = {"vae": official_tokenizer(model, long=True), "ema": {"encoder.conv_in.conv.weight": torch.zeros(1)}}
    torch.save(vae, tmp_path / TOKENIZER_FILE)
    return tmp_path


def assert_same(found: Any, model: Infinity) -> None:
    wanted = generate(model, text(5), "cfg(w=3) | ssg", seeds=[3])
    assert torch.allclose(generate(found, text(5), "cfg(w=3) | ssg", seeds=[3]), wanted, atol=LAST_BITS)
    assert found.tokenizer_hash == model.tokenizer_hash


# Layouts


def test_a_saved_model_is_the_same_model(model: Infinity, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    wide = model.with_options(schedule=ScaleSchedule(((1, 1), (1, 2), (2, 4)), (4, 8)))
    save(wide, path, facts={"training": {"seed": 3}})
    loaded = hguide.load(path)
    assert isinstance(loaded, Infinity)
    assert (loaded.name, loaded.schedule) == ("tiny", wide.schedule)
    assert_same(loaded, wide)
    assert_same(hguide.load(path, schedule=SQUARE), model)
    half = hguide.load(path, dtype=torch.bfloat16)
    assert half.transformer.compute_dtype == torch.bfloat16
    assert half.transformer.head.weight.dtype == torch.float32


def test_classes_are_saved(tmp_path: Path) -> None:
    save(tiny_infinity(classes=["beach", "river"]), tmp_path / "m.safetensors")
    loaded = hguide.load(tmp_path / "m.safetensors", text_encoder=LetterEncoder())
    assert loaded.class_names == ("beach", "river")
    assert generate(loaded, [0, 1], seeds=[0, 1]).shape == (2, 3, 16, 16)


def test_the_published_pair_is_found(model: Infinity, folder: Path) -> None:
    assert_same(hguide.load(folder / "infinity_tiny.pth", schedule=SQUARE), model)
    assert_same(hguide.load(folder, family="infinity", file="infinity_tiny.pth", schedule=SQUARE), model)
    published = hguide.load(folder / "infinity_tiny.pth", size="0.06M", aspect=2.0)
    assert (published.scales[-1].grid, published.schedule.reference) == ((22, 11), (90, 45))


@pytest.mark.parametrize("long", [True, False])
def test_both_spellings_of_the_tokenizer(model: Infinity, tmp_path: Path, long: bool) -> None:
    torch.save({"vae": official_tokenizer(model, long)}, tmp_path / "vae.pth")
    found = load_tokenizer(tmp_path / "vae.pth")
    for key, value in model.tokenizer.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)


def test_training_checkpoints_and_old_files(model: Infinity, folder: Path) -> None:
    state = official_transformer(model)
    for key in list(state):
        if key.endswith("scale_mul_1H11"):
            state[key] = state[key].reshape(1, 1, -1, 1)  # of the private attention kernel
    state |= {"lvl_1L": torch.zeros(1, 30), "attn_bias_for_masking": torch.zeros(1, 1, 30, 30)}
    torch.save({"epoch": 1, "trainer": {"gpt_fsdp": state}}, folder / "infinity_trained.pth")
    assert_same(hguide.load(folder / "infinity_trained.pth", schedule=SQUARE), model)
    through = {
        key.replace("block_chunks.0.module.0", "blocks.0").replace("block_chunks.1.module.0", "blocks.1"): value
        for key, value in state.items()
    }
    torch.save(through, folder / "infinity_through.pth")
    assert_same(hguide.load(folder / "infinity_through.pth", schedule=SQUARE), model)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(model: Infinity, folder: Path, suffix: str) -> None:
    index = write_shards(folder / "infinity_8b_weights", official_transformer(model), suffix)
    assert_same(hguide.load(index.parent, schedule=SQUARE), model)
    assert_same(hguide.load(index, schedule=SQUARE, tokenizer=folder / TOKENIZER_FILE), model)
    assert hguide.load(index.parent, schedule=SQUARE).name == "infinity_8b_weights"
    assert hguide.load(index.parent).image_size == (256, 256)  # 64 tokens, patches of 2 positions of 2 pixels
    index.parent.rename(folder / "infinity_8b_512x512_weights")
    assert hguide.load(folder / "infinity_8b_512x512_weights").image_size == (128, 128)


def test_prompts_are_remembered(folder: Path, tmp_path: Path) -> None:
    encoder = LetterEncoder()
    for _ in range(2):
        loaded = hguide.load(
            folder / "infinity_tiny.pth", schedule=SQUARE, text_encoder=encoder, cache=tmp_path / "cache"
        )
        generate(loaded, "a cat", "cfg(w=3)", seeds=[0])
    assert encoder.calls == ["a cat"]
    with pytest.raises(ConfigError, match="pass text_encoder too"):
        hguide.load(folder / "infinity_tiny.pth", cache=tmp_path)
    with pytest.raises(CheckpointError, match="no such folder; pass the folder of a T5 encoder"):
        hguide.load(folder / "infinity_tiny.pth", text_encoder=tmp_path / "absent")


@pytest.mark.parametrize("published", [True, False])
def test_cfg_inside_a_layer_is_an_option_of_loading(
    model: Infinity, folder: Path, tmp_path: Path, published: bool
) -> None:
    path, options = folder / "infinity_tiny.pth", {"schedule": SQUARE}
    if not published:
        path, options = tmp_path / "own.safetensors", {}
        save(model, path)
    inside = hguide.load(path, cfg_layer=-2, **options)
    assert inside.cfg_layer == -2
    image = generate(inside, text(5), "cfg(w=3)", seeds=[3])
    wanted = generate(model.with_options(cfg_layer=-2), text(5), "cfg(w=3)", seeds=[3])
    assert torch.allclose(image, wanted, atol=LAST_BITS)
    assert not torch.allclose(image, generate(model, text(5), "cfg(w=3)", seeds=[3]), atol=1e-2)
    assert hguide.load(path, **options).cfg_layer is None
    with pytest.raises(ConfigError, match=r"cfg_layer is a number from -1 .* to -2 .*got -3"):
        hguide.load(path, cfg_layer=-3, **options)


# Memory


@pytest.mark.slow
@reads_proc
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_the_memory_of_the_weights(folder: Path, dtype: str) -> None:
    """Shards of 176 MB of weights, and 200 MB of buffers that nothing needs."""
    small = tiny_infinity(True)
    config = TransformerConfig(depth=4, width=768, heads=8, bits=4, text_channels=64, patchify=True, chunks=2)
    state = official_transformer(Infinity(InfinityTransformer(config), small.tokenizer, SQUARE))
    state["attn_bias_for_masking"] = torch.empty(1, 1, 7071, 7071)
    index = write_shards(folder / "infinity_8b_weights", state, ".bin")
    del state
    options = f"family='infinity', dtype=torch.{dtype}, size='0.06M'"
    taken, weights = memory_of_loading(folder / "infinity_tiny.pth", index.parent, options)
    assert 0.9 * weights < taken < 1.1 * weights


def test_loading_reads_published_files_alone(model: Infinity, folder: Path) -> None:
    found = load_published(folder / "infinity_tiny.pth", schedule=SQUARE, dtype=torch.float16)
    assert found.transformer.compute_dtype == torch.float16
    assert all(not value.is_meta for value in found.transformer.state_dict().values())
    assert load_file(GOLDEN / "plain_transformer.safetensors")["word_embed.weight"].shape == (64, 8)
