"""Reading and writing Infinity models: official layouts, wrong and damaged files, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_infinity import SQUARE, LetterEncoder, text, tiny_infinity
from torch import Tensor

import hguide
from hguide.backends.infinity import Infinity, InfinityTransformer, ScaleSchedule, TransformerConfig
from hguide.backends.infinity.files import load_single, save
from hguide.backends.infinity.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.infinity.published_files import load_published, load_tokenizer
from hguide.errors import CheckpointError, ConfigError
from hguide.generate import generate

GOLDEN = Path(__file__).parents[1] / "golden" / "infinity"
LONG = {"conv1": "conv1.conv", "conv2": "conv2.conv", "norm1": "norm1.norm", "norm2": "norm2.norm"}
TOKENIZER_FILE = "infinity_vae_d16.pth"
State = dict[str, Tensor]


def official_transformer(model: Infinity) -> State:
    """The state dict under the official names, buffers included."""
    chunks = model.transformer.config.chunks
    per_chunk = model.transformer.config.depth // chunks
    state: State = {}
    for key, value in model.transformer.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts = [
                "block_chunks",
                str(int(parts[1]) // per_chunk),
                "module",
                str(int(parts[1]) % per_chunk),
                *parts[2:],
            ]
        state[".".join(parts)] = value.clone()
        if key.endswith("v_bias"):
            state[".".join([*parts[:-1], "zero_k_bias"])] = torch.zeros_like(value)
    return state


def official_tokenizer(model: Infinity, long: bool) -> State:
    """The state dict under the official names, with the inner names or without."""
    state: State = {}
    for key, value in model.tokenizer.state_dict().items():
        parts = key.split(".")
        if long:
            inner = "norm" if "norm" in parts[-2] else "conv"
            parts = [*parts[:-1], inner, parts[-1]]
        state[".".join(parts)] = value.clone()
    return {**state, "quantizer.lfq.mask": torch.arange(4), "quantize.lfq.mask": torch.arange(4)}


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
    assert torch.equal(generate(found, text(5), "cfg(w=3) | ssg", seeds=[3]), wanted)
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


def write_shards(folder: Path, state: State, suffix: str) -> Path:
    """Two shards and an index, as the 8B models have them."""
    folder.mkdir(exist_ok=True)
    names = list(state)
    files = {name: f"model-{1 + (place >= len(names) // 2):05d}-of-00002{suffix}" for place, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: state[name] for name in names if files[name] == file}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


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
    assert torch.equal(image, generate(model.with_options(cfg_layer=-2), text(5), "cfg(w=3)", seeds=[3]))
    assert not torch.equal(image, generate(model, text(5), "cfg(w=3)", seeds=[3]))
    assert hguide.load(path, **options).cfg_layer is None
    with pytest.raises(ConfigError, match=r"cfg_layer is a number from -1 .* to -2 .*got -3"):
        hguide.load(path, cfg_layer=-3, **options)


# What cannot be loaded


def test_a_missing_shard(model: Infinity, folder: Path) -> None:
    index = write_shards(folder / "infinity_8b_weights", official_transformer(model), ".bin")
    (index.parent / "model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing.*model-00002-of-00002.bin") as error:
        hguide.load(index.parent)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="no such file"):
        hguide.load(index.parent / "other.index.json", family="infinity")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file(model: Infinity, folder: Path, suffix: str) -> None:
    path = folder / f"infinity_cut{suffix}"
    state = official_transformer(model)
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=f"infinity_cut{suffix}: damaged, cut short") as error:
        hguide.load(path, family="infinity")
    assert "\n" not in str(error.value)
    pictures = folder / TOKENIZER_FILE
    pictures.write_bytes(pictures.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=f"{TOKENIZER_FILE}: damaged, cut short"):
        hguide.load(folder / "infinity_tiny.pth")


def changed(folder: Path, change: Callable[[State], Any]) -> Path:
    path = folder / "infinity_changed.pth"
    state = torch.load(folder / "infinity_tiny.pth", weights_only=True)
    change(state)
    torch.save(state, path)
    return path


def test_missing_unexpected_and_misshapen_weights(folder: Path) -> None:
    def change(state: State) -> None:
        del state["head_nm.ada_lin.1.bias"]
        state["block_chunks.1.module.0.ffn.fc1.bias"] = torch.zeros(3)
        state["extra"] = torch.zeros(1)

    with pytest.raises(CheckpointError, match="infinity_changed.pth: The weights do not fit the model") as error:
        hguide.load(changed(folder, change))
    for part in ("missing: head_nm.ada_lin.1.bias", "unexpected: extra", "blocks.1.ffn.fc1.bias"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("cfg_uncond"), "not the weights of an Infinity transformer: 'cfg_uncond' is missing"),
        (lambda s: s["block_chunks.0.module.0.sa.zero_k_bias"].add_(1), "zero_k_bias is not zero"),
        (lambda s: s.update({"cfg_uncond": torch.zeros(3)}), "'cfg_uncond' .* has 2 dimensions, found"),
        (lambda s: s.update({"block_chunks.1.module.5.ada_gss": torch.zeros(1)}), "has 3 blocks, which 2 chunks of 6"),
    ],
)
def test_transformers_that_are_none(folder: Path, change: Callable[[State], Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        hguide.load(changed(folder, change))
    assert "\n" not in str(error.value)


def test_other_families(folder: Path, tmp_path: Path) -> None:
    var = Path(__file__).parents[1] / "golden" / "var" / "adaln"
    with pytest.raises(CheckpointError, match="not the weights of an Infinity transformer: 'cfg_uncond' is missing"):
        hguide.load(var / "weights_var.safetensors", family="infinity")
    with pytest.raises(CheckpointError, match="not the weights of an Infinity tokenizer: .* a codebook or attention"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=var / "weights_vae.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of an Infinity tokenizer: 'encoder.conv_in.weight'"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=folder / "infinity_tiny.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "o.safetensors", {"hguide": json.dumps({"family": "var"})})
    with pytest.raises(CheckpointError, match="of the family 'var', asked for 'infinity'"):
        hguide.load(tmp_path / "o.safetensors", family="infinity")
    save_file({"a": torch.zeros(1)}, tmp_path / "o.safetensors", {"hguide": json.dumps({"family": "infinity"})})
    with pytest.raises(CheckpointError, match="its description does not fit an Infinity model"):
        load_single(tmp_path / "o.safetensors")


def test_a_missing_or_mismatched_tokenizer(model: Infinity, folder: Path) -> None:
    (folder / TOKENIZER_FILE).rename(folder / "vae.pth")
    with pytest.raises(
        CheckpointError, match=r"its tokenizer \(infinity_vae_d16.pth\) is not beside it: pass tokenizer="
    ):
        hguide.load(folder / "infinity_tiny.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=folder / "absent.pth")
    other = tiny_infinity(bits=6)
    torch.save({"vae": official_tokenizer(other, long=True)}, folder / "six.pth")
    with pytest.raises(CheckpointError, match="16 bits per token, the tokenizer 6: they were not trained together"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=folder / "six.pth")


def test_options_that_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match="give a schedule, or size and aspect, not both"):
        hguide.load(folder / "infinity_tiny.pth", schedule=SQUARE, size="1M")


# Sizes


def meta(name: str) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((GOLDEN / f"manifest_{name}.json").read_text())
    return shapes


@pytest.mark.parametrize(
    ("name", "bits", "depth", "width", "heads", "chunks", "patchify"),
    [
        ("2b", 32, 32, 2048, 16, 8, False),
        ("8b", 14, 40, 3584, 28, 8, True),
        ("layer12_d16", 16, 12, 768, 8, 4, False),
    ],
)
def test_published_transformers_are_recognised(
    name: str, bits: int, depth: int, width: int, heads: int, chunks: int, patchify: bool
) -> None:
    config = infer_transformer_config(meta(name), bits)
    assert (config.depth, config.width, config.heads, config.chunks) == (depth, width, heads, chunks)
    assert (config.patchify, config.text_channels, config.text_length, config.levels) == (patchify, 2048, 512, 15)
    assert (config.pool_heads, config.mlp_width) == (16, 4 * width)


def test_published_tokenizers_are_recognised() -> None:
    plain, patches = infer_tokenizer_config(meta("vae_d32")), infer_tokenizer_config(meta("vae_d56_f8_14_patchify"))
    assert (plain.bits, plain.stride, plain.autoencoder.multipliers) == (32, 16, (1, 2, 4, 4, 4))
    assert (patches.bits, patches.stride, patches.autoencoder.multipliers) == (14, 8, (1, 2, 4, 4))
    assert (plain.autoencoder.channels, plain.autoencoder.blocks, plain.autoencoder.groups) == (128, 2, 32)


# Memory

MEASURE = """
import sys, threading, time
import torch
from hguide.backends.infinity import files

def anonymous():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024

def load(source):
    return files.load(source, dtype=getattr(torch, sys.argv[3]), size="0.06M")

load(sys.argv[1])  # what the first load of any model takes is not its weights
start, peak, on = anonymous(), 0, True

def watch():
    global peak
    while on:
        peak = max(peak, anonymous())
        time.sleep(0.0005)

thread = threading.Thread(target=watch)
thread.start()
model = load(sys.argv[2])
on = False
thread.join()
print(max(peak, anonymous()) - start, sum(value.nbytes for value in model.transformer.state_dict().values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the memory of a process of Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_the_memory_of_the_weights(folder: Path, dtype: str) -> None:
    """Shards of 176 MB of weights, and 200 MB of buffers that nothing needs."""
    small = tiny_infinity(True)
    config = TransformerConfig(depth=4, width=768, heads=8, bits=4, text_channels=64, patchify=True, chunks=2)
    state = official_transformer(Infinity(InfinityTransformer(config), small.tokenizer, SQUARE))
    state["attn_bias_for_masking"] = torch.empty(1, 1, 7071, 7071)
    index = write_shards(folder / "infinity_8b_weights", state, ".bin")
    del state
    command = [sys.executable, "-c", MEASURE, str(folder / "infinity_tiny.pth"), str(index.parent), dtype]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken, weights = map(int, printed.split())
    assert 0.9 * weights < taken < 1.1 * weights


def test_loading_reads_published_files_alone(model: Infinity, folder: Path) -> None:
    found = load_published(folder / "infinity_tiny.pth", schedule=SQUARE, dtype=torch.float16)
    assert found.transformer.compute_dtype == torch.float16
    assert all(not value.is_meta for value in found.transformer.state_dict().values())
    assert load_file(GOLDEN / "plain_transformer.safetensors")["word_embed.weight"].shape == (64, 8)
