"""Reading and writing Switti models: the published layout, what is refused, memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_memory import memory_of_loading, reads_proc
from safetensors.torch import load_file, save_file
from tiny_switti import SIDES, TOKENS, text, tiny_switti
from torch import Tensor

import hguide
from hguide.backends.switti import SCHEDULES, Switti
from hguide.backends.switti.files import load, load_single, save
from hguide.backends.switti.infer_config import infer_transformer_config, without_buffers
from hguide.errors import CheckpointError, ConfigError
from hguide.generate import generate

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = {"depth": 2, "rope": True, "rope_theta": 10000, "rope_size": 128, "use_swiglu_ffn": True, "use_crop_cond": True}
# A loaded decoder lies channels last, which sums in another order.
LAST_BITS = 1e-5


def published_state(model: Switti) -> dict[str, Tensor]:
    """The published names, buffers included; the share of the crop in another shape than here."""
    config = model.transformer.config
    state = {key: value.clone().contiguous() for key, value in model.transformer.state_dict().items()}
    state |= {key: value[None] for key, value in state.items() if key.endswith("crop_cond_scales")}
    levels = torch.cat([torch.full((count,), k) for k, count in enumerate(config.lengths)])
    return state | {"lvl_1L": levels[None], "attn_bias_for_masking": torch.zeros(1, 1, len(levels), len(levels))}


def published_tokenizer(model: Switti) -> dict[str, Tensor]:
    state = {key: value.clone().contiguous() for key, value in model.tokenizer.state_dict().items()}
    return state | {"quantize.ema_vocab_hit_SV": torch.zeros(3, 24)}


@pytest.fixture(scope="module")
def switti() -> Switti:
    return wide()


def wide(**changes: Any) -> Switti:
    """Heads of 64 channels, as published; the text of the published length."""
    return tiny_switti(width=64, heads=1, text_tokens=77, **changes)


def long_text(seed: int) -> Any:
    given = text(seed)
    rows = torch.cat([given.embedding[:-1], torch.zeros(77 - TOKENS, 12), given.embedding[-1:]])
    mask = torch.cat([given.mask[:-1], torch.zeros(77 - TOKENS, dtype=torch.bool), given.mask[-1:]])
    return type(given)(rows, mask)


@pytest.fixture(scope="module")
def published(switti: Switti, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    for name, state in (("Switti-tiny", published_state(switti)), ("VQVAE-Switti", published_tokenizer(switti))):
        (root / name).mkdir()
        save_file(state, root / name / "model.safetensors")
    (root / "Switti-tiny" / "config.json").write_text(json.dumps({**FACTS, "use_ar": False}))
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "root"))


def image(model: Any) -> Tensor:
    return generate(model, long_text(1), "cfg", seeds=[1])


def test_the_published_folders_give_the_model(switti: Switti, published: Path) -> None:
    switti.null_text = long_text(99)
    options = {"patch_nums": SIDES, "null_text": switti.null_text}
    model = hguide.load(published / "Switti-tiny", **options)
    assert isinstance(model, Switti)
    assert model.name == "Switti-tiny"
    assert model.transformer.config == switti.transformer.config
    assert model.tokenizer_hash == switti.tokenizer_hash
    assert torch.allclose(image(model), image(switti), atol=LAST_BITS)
    assert torch.allclose(
        image(hguide.load(published / "Switti-tiny" / "model.safetensors", **options)), image(switti), atol=LAST_BITS
    )
    half = load(published / "Switti-tiny", dtype=torch.bfloat16, **options)
    assert half.transformer.head.weight.dtype == torch.bfloat16
    assert half.tokenizer.quantize.embedding.weight.dtype == torch.float32
    assert torch.equal(half.transformer.crop_embed.weight, switti.transformer.crop_embed.weight)
    assert image(half).isfinite().all()


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model = tiny_switti(autoregressive=True)
    save(model, tmp_path / "tiny.safetensors", facts={"note": 1})
    found = hguide.load(tmp_path / "tiny.safetensors", null_text=model.null_text)
    assert isinstance(found, Switti)
    assert found.transformer.config == model.transformer.config
    wanted = generate(model, text(1), "cfg", seeds=[1])
    assert torch.allclose(generate(found, text(1), "cfg", seeds=[1]), wanted, atol=LAST_BITS)
    save(model, tmp_path / "half.safetensors", dtype=torch.bfloat16)
    half = load(tmp_path / "half.safetensors").transformer
    assert torch.equal(half.crop_embed.weight, model.transformer.crop_embed.weight)
    assert torch.equal(half.head.weight, model.transformer.head.weight.bfloat16().float())
    save_file({"a": torch.zeros(1)}, tmp_path / "o.safetensors", {"hguide": json.dumps({"family": "var"})})
    with pytest.raises(CheckpointError, match="of the family 'var', asked for 'switti'"):
        load(tmp_path / "o.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "o.safetensors", {"hguide": json.dumps({"family": "switti"})})
    with pytest.raises(CheckpointError, match="its description does not fit a Switti model"):
        load_single(tmp_path / "o.safetensors")


def test_the_schedule_and_the_attention_are_told(switti: Switti) -> None:
    state = {key: value for key, value in published_state(switti).items() if key != "lvl_1L"}
    state["lvl_embed.weight"] = torch.zeros(10, 64)
    config = infer_transformer_config(state, {"use_ar": True, "reso": 512})
    assert (config.patch_nums, config.autoregressive, config.heads) == (SCHEDULES[512], True, 1)
    assert infer_transformer_config(state, {"use_ar": False, "reso": 256}).patch_nums == SCHEDULES[256]
    counted = infer_transformer_config({**state, "lvl_1L": torch.zeros(1, 2240)}, {"use_ar": False})
    assert counted.patch_nums == SCHEDULES[512]
    with pytest.raises(CheckpointError, match="The weights have 10 scales"):
        infer_transformer_config(state, {"use_ar": True, "reso": 1024})
    with pytest.raises(CheckpointError, match="do not tell their schedule"):
        infer_transformer_config(state, {"use_ar": True})
    with pytest.raises(CheckpointError, match="reso is one of 256, 512, 1024, config.json has 300"):
        infer_transformer_config(state, {"use_ar": True, "reso": 300})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


MODEL, TOKENIZER = Path("Switti-tiny/model.safetensors"), Path("VQVAE-Switti/model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / MODEL).unlink(), r"Switti-tiny: no weights .*; it holds config\.json"),
        (lambda r: cut(r / MODEL), r"model\.safetensors: damaged, cut short or no weights file"),
        (lambda r: cut(r / TOKENIZER), r"VQVAE-Switti/model\.safetensors: damaged, cut short"),
        (lambda r: shutil.rmtree(r / "VQVAE-Switti"), "tokenizer's folder is not at .*VQVAE-Switti: pass tokenizer="),
        (lambda r: (r / MODEL).with_name("config.json").write_text("{"), r"config\.json: not readable as JSON"),
        (lambda r: (r / MODEL).with_name("config.json").unlink(), r"put the official config\.json \(use_ar\) beside"),
        (
            lambda r: (r / MODEL).with_name("config.json").write_text(json.dumps({**FACTS, "use_ar": 0, "depth": 3})),
            "depth is 3, they have 2",
        ),
        (
            lambda r: (r / MODEL).with_name("config.json").write_text(json.dumps({"use_ar": False, "rope": False})),
            "rope = False is not supported",
        ),
        (lambda r: rewrite(r / MODEL, lambda s: s.update(lvl_1L=s["lvl_1L"].flip(1))), "belongs to other patch_nums"),
        (
            lambda r: shutil.copy(GOLDEN / "var" / "adaln" / "weights_var.safetensors", r / MODEL),
            "not the weights of a Switti transformer: '.*' is missing",
        ),
        (
            lambda r: shutil.copy(GOLDEN / "infinity" / "plain_vae.safetensors", r / TOKENIZER),
            "not the weights of a VAR tokenizer",
        ),
        (
            lambda r: rewrite(r / TOKENIZER, lambda s: s.update({"quantize.embedding.weight": torch.zeros(25, 8)})),
            "24 tokens of 8 channels, the tokenizer 25 of 8; they were not",
        ),
    ],
)
def test_what_cannot_be_loaded_says_so_in_one_line(root: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(root)
    with pytest.raises((CheckpointError, ConfigError), match=message) as raised:
        hguide.load(root / "Switti-tiny", patch_nums=SIDES)
    assert "\n" not in str(raised.value)


def test_a_missing_shard(switti: Switti, root: Path) -> None:
    state = published_state(switti)
    names = sorted(state)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    (root / MODEL).unlink()
    for file, own in parts.items():
        save_file({name: state[name] for name in own}, root / "Switti-tiny" / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (root / "Switti-tiny" / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = hguide.load(root / "Switti-tiny", patch_nums=SIDES)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.transformer.parameters(), switti.transformer.parameters(), strict=True)
    )
    (root / "Switti-tiny" / "model-2-of-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing.*model-2-of-2\.safetensors") as raised:
        hguide.load(root / "Switti-tiny", patch_nums=SIDES)
    assert "\n" not in str(raised.value)


def test_wrong_names_and_shapes_are_listed(root: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        del state["blocks.1.ffn.up_proj.weight"]
        state["blocks.0.attn.proj.bias"] = torch.zeros(3)

    rewrite(root / MODEL, change)
    with pytest.raises(CheckpointError, match=r"missing: blocks.1.ffn.up_proj.weight[\s\S]*blocks.0.attn.proj.bias"):
        hguide.load(root / "Switti-tiny", patch_nums=SIDES)
    state = {"blocks.0.crop_cond_scales": torch.zeros(3)}
    with pytest.raises(CheckpointError, match="crop_cond_scales has 3 numbers, expected 1 or 32"):
        without_buffers(state, tiny_switti().transformer.config)


def test_text_encoders_come_in_pairs(root: Path) -> None:
    with pytest.raises(ConfigError, match="Switti has two text encoders"):
        load(root / "Switti-tiny", text_encoder=root)
    with pytest.raises(ConfigError, match="pass text_encoder too"):
        load(root / "Switti-tiny", cache=root)


@pytest.mark.slow
@reads_proc
def test_loading_takes_the_memory_of_the_weights_and_never_reads_the_mask(root: Path) -> None:
    """A mask of 21 MB beside 54 MB of weights."""
    sides = (1, 2, 48)
    folders = []
    for name, width in (("Switti-small", 64), ("Switti-large", 512)):
        model = tiny_switti(patch_nums=sides, width=width, heads=width // 64, text_tokens=77, hidden=4 * width)
        folders.append(root / name)
        folders[-1].mkdir()
        save_file(published_state(model), folders[-1] / "model.safetensors")
        (folders[-1] / "config.json").write_text(json.dumps({**FACTS, "use_ar": True}))
    options = f"family='switti', patch_nums=(1, 2, 48), tokenizer={str(root / TOKENIZER)!r}"
    taken, weights = memory_of_loading(*folders, options)
    assert 0.9 * weights < taken < 1.1 * weights
