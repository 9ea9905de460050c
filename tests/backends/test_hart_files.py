"""HART files: the published layout, shards, our own file, what is refused, and the memory that loading takes."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_hart import DIM, SIDES, TOKENS, text, tiny_config, tiny_hart
from torch import Tensor

import hguide
from hguide.backends.checkpoints import read_state_dict
from hguide.backends.hart import HART, HARTTransformer
from hguide.backends.hart.files import load, load_pair, load_single, save
from hguide.backends.hart.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.hart.official_buffers import official_buffers, without_buffers
from hguide.backends.text import CachedTextEncoder
from hguide.errors import CheckpointError, ConfigError
from hguide.generate import generate

GOLDEN = Path(__file__).parents[1] / "golden" / "hart"
# A loaded decoder lies channels last, which sums in another order.
LAST_BITS = 1e-5


def official_state(model: HART) -> dict[str, Tensor]:
    """With the buffers that official files carry."""
    config = model.transformer.config
    state = {key: value.clone() for key, value in model.transformer.state_dict().items()}
    state |= {key: torch.zeros(shape) for key, shape in official_buffers(config).items()}
    levels = [torch.full((count,), k) for k, count in enumerate(config.lengths)]
    return state | {"lvl_1L": torch.cat(levels)[None]}


def official_tokenizer(model: HART) -> dict[str, Tensor]:
    state = {f"vae.{key}": value.clone() for key, value in model.tokenizer.state_dict().items()}
    return state | {"vae.quantize.ema_vocab_hit_SV": torch.zeros(7, 24), "disc.main.0.weight": torch.zeros(3)}


def official_config(**changes: Any) -> dict[str, Any]:
    sizes = {"depth": 1, "embed_dim": 32, "num_heads": 2, "context_token": TOKENS, "context_dim": DIM}
    kinds = {"attn_l2_norm": True, "mlp_type": "llama", "disable_aln": True, "shared_aln": False, "norm_eps": 1e-6}
    text_kinds = {"use_context_norm": True, "use_timestep_embed": True, "attn_type": "llama"}
    residual = {"diff_width": 16, "diff_depth": 1, "num_sampling_steps": "2"}
    return {"patch_nums": list(SIDES), **sizes, **kinds, **text_kinds, **residual, **changes}


@pytest.fixture(scope="module")
def hart() -> HART:
    return tiny_hart()


@pytest.fixture(scope="module")
def published(hart: HART, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "hart-tiny"
    (folder / "llm").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    torch.save(official_state(hart), folder / "llm" / "ema_model.bin")
    save_file(official_state(tiny_hart(seed=1)), folder / "llm" / "model.safetensors")
    (folder / "llm" / "config.json").write_text(json.dumps(official_config()))
    torch.save(official_tokenizer(hart), folder / "tokenizer" / "pytorch_model.bin")
    pictures = {"vocab_size": 24, "v_patch_nums": list(SIDES), "quantizer_type": "var_hybrid", "quant_resi": 0.5}
    (folder / "tokenizer" / "config.json").write_text(json.dumps(pictures))
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of the published folder, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "hart-tiny"))


def image(model: Any) -> Tensor:
    return generate(model, text(1), "cfg", seeds=[1])


def one_line(raised: pytest.ExceptionInfo[BaseException]) -> None:
    assert "\n" not in str(raised.value)


# Reading


def test_the_published_folder_gives_the_averaged_weights(hart: HART, published: Path) -> None:
    model = hguide.load(published)
    assert isinstance(model, HART)
    assert model.name == "hart-tiny"
    assert model.transformer.config == hart.transformer.config
    assert model.tokenizer_hash == hart.tokenizer_hash
    assert torch.allclose(image(model), image(hart), atol=LAST_BITS)
    assert torch.allclose(image(hguide.load(published / "llm")), image(hart), atol=LAST_BITS)
    plain = hguide.load(published, ema=False)
    assert not torch.allclose(image(plain), image(hart), atol=1e-2)


def test_a_wrapped_file_and_a_tokenizer_elsewhere(hart: HART, published: Path, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": official_state(hart)}, tmp_path / "trained.pth")
    wrapped = hguide.load(
        tmp_path / "trained.pth", family="hart", tokenizer=published / "tokenizer" / "pytorch_model.bin"
    )
    # No config.json beside it: the buffer tells schedule and text, the number of diffusion steps is the default.
    assert wrapped.transformer.config.patch_nums == SIDES
    assert wrapped.transformer.config.context_tokens == TOKENS
    assert wrapped.transformer.config.diffusion_steps == 8


def test_shards_are_put_together(hart: HART, folder: Path) -> None:
    state = official_state(hart)
    names = sorted(state)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    (folder / "llm" / "model.safetensors").unlink()
    for file, own in parts.items():
        save_file({name: state[name] for name in own}, folder / "llm" / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "llm" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.allclose(image(hguide.load(folder, ema=False)), image(hart), atol=LAST_BITS)
    (folder / "llm" / "model-2-of-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2-of-2\.safetensors") as raised:
        hguide.load(folder, ema=False)
    one_line(raised)


def test_a_saved_model_is_the_same_model(hart: HART, tmp_path: Path) -> None:
    named = HART(hart.transformer, hart.tokenizer, name="tiny", classes=["farm", "harbor"])
    save(named, tmp_path / "tiny.safetensors", facts={"training": {"seed": 3}})
    loaded = hguide.load(tmp_path / "tiny.safetensors")
    assert (loaded.name, loaded.class_names) == ("tiny", ("farm", "harbor"))
    assert torch.allclose(image(loaded), image(hart), atol=LAST_BITS)
    with safe_open(tmp_path / "tiny.safetensors", "pt") as file:
        assert json.loads(file.metadata()["hguide"])["training"] == {"seed": 3}
    save(named, tmp_path / "half.safetensors", dtype=torch.float16)
    half = hguide.load(tmp_path / "half.safetensors")
    assert isinstance(half, HART)
    assert half.transformer.head.weight.dtype == torch.float32
    mixed = hguide.load(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert isinstance(mixed, HART)
    assert mixed.transformer.head.weight.dtype == torch.bfloat16
    assert mixed.tokenizer.quantize.embedding.weight.dtype == torch.float32


def test_sizes_are_read_off_the_golden_weights() -> None:
    settings = json.loads((GOLDEN / "config.json").read_text())
    state = read_state_dict(GOLDEN / "case_c_weights.safetensors")
    config = infer_transformer_config(state, settings["cases"]["c"])
    assert (config.adaln, config.ffn, config.l2_norm, config.context_norm) == ("table", "llama", False, False)
    alone = infer_transformer_config(state, {"num_heads": 2})
    assert (alone.patch_nums, alone.context_tokens) == ((1, 2, 3, 5), 10)
    with pytest.raises(CheckpointError, match="do not tell the number of heads"):
        infer_transformer_config(state)
    with pytest.raises(CheckpointError, match="do not tell their schedule"):
        infer_transformer_config({key: value for key, value in state.items() if key != "lvl_1L"})
    given = infer_transformer_config(
        {**state, "lvl_1L": torch.empty(1, 48, device="meta")}, {"num_heads": 2}, (1, 2, 3, 5)
    )
    assert given.context_tokens == 10


# What is refused, each in one line


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "llm" / "ema_model.bin").unlink(), "no ema_model.bin; pass ema=False"),
        (lambda f: cut(f / "llm" / "ema_model.bin"), r"ema_model\.bin: damaged, cut short or no weights file"),
        (lambda f: cut(f / "tokenizer" / "pytorch_model.bin"), r"pytorch_model\.bin: damaged, cut short"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer's folder is not at .*tokenizer: pass tokenizer=PATH"),
        (lambda f: (f / "tokenizer" / "pytorch_model.bin").unlink(), r"no weights .*; it holds config\.json"),
        (lambda f: (f / "llm" / "config.json").write_text("{"), r"config\.json: not readable as JSON"),
    ],
)
def test_missing_and_damaged_files(folder: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as raised:
        hguide.load(folder)
    one_line(raised)


def test_the_weights_of_other_families(folder: Path, published: Path, tmp_path: Path) -> None:
    var = GOLDEN.parent / "var" / "adaln" / "weights_var.safetensors"
    with pytest.raises(
        CheckpointError, match="not the weights of a HART transformer: 'context_embed.weight'"
    ) as raised:
        hguide.load(var, family="hart", tokenizer=published / "tokenizer")
    one_line(raised)
    vae = GOLDEN.parent / "var" / "adaln" / "weights_vae.safetensors"
    with pytest.raises(CheckpointError, match="not the weights of a HART tokenizer, whose names begin") as raised:
        hguide.load(published, tokenizer=vae)
    one_line(raised)
    save_file({"a": torch.zeros(1)}, tmp_path / "var.safetensors", {"hguide": json.dumps({"family": "var"})})
    with pytest.raises(CheckpointError, match="of the family 'var', asked for 'hart'"):
        load(tmp_path / "var.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {"hguide": json.dumps({"family": "hart"})})
    with pytest.raises(CheckpointError, match="its description does not fit a HART model"):
        load_single(tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_a_tokenizer_of_another_model(hart: HART, folder: Path) -> None:
    state = official_tokenizer(hart)
    state["vae.quantize.embedding.weight"] = torch.zeros(25, 8)
    torch.save(state, folder / "tokenizer" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="24 tokens of 8 channels, the tokenizer 25 of 8; they were not") as raised:
        hguide.load(folder)
    one_line(raised)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 2, "embed_dim": 48}, "depth is 2, the weights have 1; embed_dim is 48, the weights have 32"),
        ({"mlp_type": "gpt2"}, "mlp_type is 'gpt2', the weights have 'llama'"),
        ({"disable_aln": False}, "mean 'linear' modulation, the weights have 'none'"),
        ({"use_timestep_embed": False}, "use_timestep_embed is False"),
        ({"attn_type": "gpt2"}, "attn_type = 'gpt2' is not supported"),
        ({"num_sampling_steps": "ddim8"}, "'ddim8' is not supported"),
        ({"patch_nums": [1, 2, 3]}, "attn_bias_for_masking has shape"),
    ],
)
def test_a_config_that_contradicts_the_weights(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "llm" / "config.json").write_text(json.dumps(official_config(**changes)))
    with pytest.raises(CheckpointError, match=message) as raised:
        hguide.load(folder)
    one_line(raised)


def test_a_tokenizer_of_another_kind(published: Path) -> None:
    state = read_state_dict(published / "tokenizer" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="double_decoder = True is not supported"):
        infer_tokenizer_config(state, {"double_decoder": True})
    assert infer_tokenizer_config(state, {"quant_resi": 0.25})[0].residual_ratio == 0.25


def test_missing_and_wrong_weights_are_listed(hart: HART, folder: Path) -> None:
    state = official_state(hart)
    del state["head_nm.ada_lin.1.bias"]
    state["blocks.0.ffn.up_proj.weight"] = torch.zeros(3, 3)
    torch.save(state, folder / "llm" / "ema_model.bin")
    with pytest.raises(CheckpointError, match=r"head_nm.ada_lin.1.bias[\s\S]*blocks.0.ffn.up_proj.weight"):
        hguide.load(folder)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("lvl_1L", lambda t: t.flip(1), "other patch_nums"),
        ("blocks.0.attn.zero_k_bias", lambda t: t + 1, "zero_k_bias is not zero"),
        ("attn_bias_for_masking", lambda t: t[:, :, 1:], "attn_bias_for_masking has shape"),
    ],
)
def test_buffers_of_another_network_are_refused(
    hart: HART, key: str, change: Callable[[Tensor], Tensor], message: str
) -> None:
    state = official_state(hart)
    state[key] = change(state[key])
    with pytest.raises(CheckpointError, match=message):
        without_buffers(state, hart.transformer.config)


def test_a_text_encoder_needs_a_word_on_the_instruction(published: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": DIM}))
    with pytest.raises(ConfigError, match="pass system_prompt=FILE .*, or system_prompt=None"):
        hguide.load(published, text_encoder=tmp_path)
    with pytest.raises(ConfigError, match="not the instruction"):
        hguide.load(published, text_encoder=tmp_path, system_prompt="You are\nhelpful.")
    with pytest.raises(ConfigError, match="pass text_encoder too"):
        hguide.load(published, system_prompt=None)
    model = hguide.load(published, text_encoder=tmp_path, system_prompt=None, cache=tmp_path / "texts")
    assert isinstance(model.text_encoder, CachedTextEncoder)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": DIM + 1}))
    with pytest.raises(ConfigError, match=f"text of {DIM} channels, the text encoder gives {DIM + 1}"):
        hguide.load(published, text_encoder=tmp_path, system_prompt=None)


# Memory


def _resident() -> tuple[int, int]:
    """Bytes of this process that only it has, and all that it has, pages of mapped files included."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if line.count(":") == 1)
    anonymous, mapped = (1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssFile"))
    return anonymous, anonymous + mapped


def _peaks(action: Callable[[], Any]) -> tuple[Any, int, int]:
    """The result of an action, and how much both sizes grew at most."""
    before = _resident()
    seen, done = [before], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(_resident())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = action()
        seen.append(_resident())
    finally:
        done.set()
        watcher.join()
    return result, max(each[0] for each in seen) - before[0], max(each[1] for each in seen) - before[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["ema_model.bin", "model.safetensors"])
def test_loading_takes_the_memory_of_the_weights_and_never_reads_the_mask(folder: Path, hart: HART, name: str) -> None:
    """A file whose mask is several times as large as its weights."""
    config = tiny_config(patch_nums=(1, 2, 64), width=256, heads=4, hidden=1024, depth=2)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in HARTTransformer(config).state_dict().items()}
    state = {key: torch.full(shape, 0.01) for key, shape in (shapes | official_buffers(config)).items()}
    state |= {key: torch.zeros(256) for key in state if key.endswith("zero_k_bias")}
    state["lvl_1L"] = torch.cat([torch.full((count,), k) for k, count in enumerate(config.lengths)])[None]
    mask = state["attn_bias_for_masking"].nbytes
    weights = sum(state[key].nbytes for key in shapes)
    path = folder / "llm" / name
    path.unlink()
    torch.save(state, path) if name.endswith(".bin") else save_file(state, path)
    sizes = {"depth": 2, "embed_dim": 256, "num_heads": 4, "patch_nums": [1, 2, 64]}
    (path.parent / "config.json").write_text(json.dumps(official_config(**sizes)))
    del state
    pictures = folder / "tokenizer" / "pytorch_model.bin"
    model, own, all_pages = _peaks(lambda: load_pair(path, pictures))
    assert model.transformer.config == config.__class__(**{**vars(config), "diffusion_steps": 2})
    slack = 4 * 2**20
    assert mask > 4 * weights
    assert own <= 1.1 * weights + slack
    assert all_pages <= 2.1 * weights + slack < mask
