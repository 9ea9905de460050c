"""Files of VQ-Diffusion: our own, official checkpoints, the diffusers format; and what is wrong with bad ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_vq_diffusion import CODES, STEPS, text, tiny_tokenizer_config, tiny_vq_diffusion
from torch import Tensor

import hguide
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.vq_diffusion import VQGAN, NoiseSchedule, VQDiffusion, files
from hguide.backends.vq_diffusion.codebook_map import codes_in_use
from hguide.errors import CheckpointError, ConfigError
from hguide.load import bundled_path

# Official files have group norms of 32 groups.
WIDE = AutoencoderConfig(channels=32, multipliers=(1, 2), blocks=1, latent_channels=6)
GRID = (3, 4)


def official_model(condition: str = "class", assignment: str = "nearest", **changes: object) -> VQDiffusion:
    small = tiny_vq_diffusion(condition, **changes)
    codes = small.denoiser.config.codes
    sizes = tiny_tokenizer_config(autoencoder=WIDE, assignment=assignment, vocabulary=codes, codes=codes)
    return VQDiffusion(small.denoiser, VQGAN(sizes), name="official")


def official_denoiser(model: VQDiffusion) -> dict[str, Tensor]:
    """`ckpt["ema"]`."""
    config = model.denoiser.config
    own = model.denoiser.state_dict()
    state = {key if key == "empty_text_embed" else f"transformer.{key}": value.clone() for key, value in own.items()}
    state |= {name: value.clone() for name, value in NoiseSchedule(config.timesteps, config.codes).logarithms.items()}
    state |= {"Lt_history": torch.zeros(STEPS), "Lt_count": torch.zeros(STEPS)}
    if config.condition == "text":
        state |= {"condition_emb.positional_embedding": torch.zeros(5, 6)}
        state["transformer.blocks.0.attn2.mask"] = torch.ones(1, 1, config.length, config.length)
    if "empty_text_embed" in state:
        state["empty_text_embed"] = state["empty_text_embed"].double()
    return state


def official_tokenizer(tokenizer: VQGAN, kind: str = "vq") -> dict[str, Tensor]:
    state = {}
    for key, value in tokenizer.state_dict().items():
        if ".qkv." in key:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                state[key.replace(".qkv.", f".{name}.")] = part.clone()
        elif key == "codebook.weight":
            names = {"vq": "embedding.weight", "gumbel": "embed.weight", "ema": "embedding"}
            state[f"quantize.{names[kind]}"] = value.clone()
        elif key.startswith("assign."):
            state[key.replace("assign.", "quantize.proj.")] = value.clone()
        elif key != "codes":
            state[key] = value.clone()
    return state


def whole_model(model: VQDiffusion, kind: str = "vq") -> dict[str, Tensor]:
    """`ckpt["model"]`: one more prefix, and the tokenizer with its codebook twice."""
    state = {f"transformer.{key}": value for key, value in official_denoiser(model).items()}
    for key, value in official_tokenizer(model.tokenizer, kind).items():
        part = "enc" if key.startswith(("encoder", "quant_conv")) else "dec"
        state[f"content_codec.{part}.{key}"] = value
        if key.startswith("quantize."):
            state[f"content_codec.enc.{key}"] = value.clone()
    return state


def assert_same(found: VQDiffusion, expected: VQDiffusion) -> None:
    for name in ("denoiser", "tokenizer"):
        a, b = getattr(found, name).state_dict(), getattr(expected, name).state_dict()
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    assert found.denoiser.config == expected.denoiser.config
    assert found.tokenizer.config == expected.tokenizer.config


@pytest.mark.parametrize("condition", ["class", "text"])
def test_our_file_holds_the_model(condition: str, tmp_path: Path) -> None:
    model = tiny_vq_diffusion(condition)
    files.save(model, tmp_path / "m.safetensors", facts={"note": "x"})
    found = hguide.load(tmp_path / "m.safetensors")
    assert isinstance(found, VQDiffusion)
    assert_same(found, model)
    assert found.name == "tiny"
    assert found.class_names == model.class_names
    files.save(model, tmp_path / "half.safetensors", dtype=torch.float16)
    half = files.load(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert half.denoiser.to_logits[1].weight.dtype == torch.bfloat16
    assert half.tokenizer.decoder.conv_in.weight.dtype == torch.float32
    given = 1 if condition == "class" else text(0)
    assert hguide.generate(half, given, "cfg(w=2.0)", seeds=[0]).isfinite().all()


def test_what_a_file_says_itself_is_not_told_again(tmp_path: Path) -> None:
    files.save(tiny_vq_diffusion(), tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="says itself what its tokenizer and heads is"):
        files.load(tmp_path / "m.safetensors", tokenizer="x.pth", heads=2)


def test_code_numbers_stay_whole_in_half_precision(tmp_path: Path) -> None:
    model = tiny_vq_diffusion(codes=CODES)
    model.tokenizer.codes = torch.arange(CODES) + 4001
    files.save(model, tmp_path / "m.safetensors", dtype=torch.float16)
    assert torch.equal(files.load(tmp_path / "m.safetensors").tokenizer.codes, torch.arange(CODES) + 4001)


# Official checkpoints


@pytest.mark.parametrize("learned", [True, False])
def test_official_class_checkpoint_gives_the_averaged_weights(learned: bool, tmp_path: Path) -> None:
    classes = 1000 if learned else 7
    model = official_model(classes=classes, learned_null=learned)
    other = {key: value + 1.0 for key, value in whole_model(model).items() if key.startswith("transformer.transformer")}
    path = tmp_path / "imagenet_pretrained.pth"
    content = {"last_epoch": 99, "model": whole_model(model) | other, "ema": official_denoiser(model)}
    torch.save(
        content | {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}}, path
    )
    found = hguide.load(path, heads=2, grid=GRID)
    assert isinstance(found, VQDiffusion)
    assert_same(found, model)


@pytest.mark.parametrize(("kind", "assignment"), [("vq", "nearest"), ("ema", "nearest"), ("gumbel", "logits")])
def test_official_text_checkpoint_of_the_whole_model(kind: str, assignment: str, tmp_path: Path) -> None:
    model = official_model("text", assignment)
    torch.save({"model": whole_model(model, kind)}, tmp_path / "ithq_learnable.pth")
    found = files.load(tmp_path / "ithq_learnable.pth", heads=2, grid=GRID)
    assert_same(found, model)


def test_grid_of_a_text_checkpoint_is_told_by_its_masks(tmp_path: Path) -> None:
    model = official_model("text", grid=(3, 3))
    torch.save({"model": whole_model(model)}, tmp_path / "m.pth")
    assert files.load(tmp_path / "m.pth", heads=2).denoiser.config.grid == (3, 3)


@pytest.mark.parametrize("kind", ["vq", "ema"])
def test_tokenizer_of_its_own_file(kind: str, tmp_path: Path) -> None:
    model = official_model(learned_null=False)
    torch.save({"ema": official_denoiser(model)}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"bare.pth: holds a denoiser and no tokenizer: pass tokenizer=PATH"):
        files.load(tmp_path / "bare.pth", heads=2, grid=GRID)
    wrapped = {"vq": "state_dict", "ema": "model"}[kind]
    state = official_tokenizer(model.tokenizer, kind) | {"loss.perceptual.weight": torch.zeros(2)}
    state |= (
        {"quantize.cluster_size": torch.zeros(2), "quantize.embedding_avg": torch.zeros(2)} if kind == "ema" else {}
    )
    torch.save({wrapped: state}, tmp_path / "vqgan.pth")
    assert_same(files.load(tmp_path / "bare.pth", tokenizer=tmp_path / "vqgan.pth", heads=2, grid=GRID), model)


def test_tokenizer_that_only_decodes(tmp_path: Path) -> None:
    tokenizer = official_model().tokenizer
    kept = {k: v for k, v in official_tokenizer(tokenizer).items() if not k.startswith(("encoder", "quant_conv"))}
    torch.save(kept, tmp_path / "decoder.pth")
    found = files.load_tokenizer(tmp_path / "decoder.pth")
    assert not found.config.encoder
    codes = torch.zeros(1, *GRID, dtype=torch.int64)
    assert torch.allclose(found.decode(codes), tokenizer.eval().decode(codes), atol=1e-6)


def test_published_tables_are_applied(tmp_path: Path) -> None:
    sizes = tiny_tokenizer_config(autoencoder=WIDE, vocabulary=16384, codes=16384, code_channels=2)
    torch.save(official_tokenizer(VQGAN(sizes)), tmp_path / "f16.pth")
    found = files.load_tokenizer(tmp_path / "f16.pth", 974)
    assert torch.equal(found.codes, codes_in_use(974, 16384))
    with pytest.raises(
        CheckpointError, match=r"f16.pth: the denoiser has 2887 codes and the tokenizer 16384: there is no"
    ):
        files.load_tokenizer(tmp_path / "f16.pth", 2887)


# What is wrong with files


def test_unused_masks_are_never_read(tmp_path: Path) -> None:
    state = official_denoiser(official_model("text"))
    # 1 TB if it were made: an expanded zero stands for it.
    state["transformer.blocks.0.attn2.mask"] = torch.zeros(1, 1, 1, 1).expand(1, 1, 1 << 19, 1 << 19)
    from hguide.backends.vq_diffusion.official_keys import denoiser_weights, mask_length

    assert mask_length(state) == 1 << 19
    assert not any("mask" in key for key in denoiser_weights(state))


def test_another_schedule_is_refused(tmp_path: Path) -> None:
    model = official_model()
    state = official_denoiser(model)
    state["log_cumprod_ct"] = state["log_cumprod_ct"] + 0.01
    torch.save({"ema": state, "model": whole_model(model)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"m.pth: log_cumprod_ct is not that of the schedule 'alpha1'"):
        files.load(tmp_path / "m.pth", heads=2, grid=GRID)


def test_wrong_families(tmp_path: Path) -> None:
    save_file({"pos_start": torch.zeros(1, 1, 4)}, tmp_path / "var.safetensors")
    with pytest.raises(CheckpointError, match=r"var.safetensors: These are not the weights of a VQ-Diffusion denoiser"):
        files.load(tmp_path / "var.safetensors")
    torch.save({"state_dict": {"encoder.conv_in.weight": torch.zeros(3)}}, tmp_path / "t.pth")
    with pytest.raises(
        CheckpointError, match=r"t.pth: These are not the weights of a VQGAN: .*embedding.weight' is missing"
    ):
        files.load_tokenizer(tmp_path / "t.pth")
    with pytest.raises(CheckpointError, match="describes a model of the family 'var', asked for 'vq_diffusion'"):
        files.load(bundled_path("landuse-var"))


def test_missing_and_cut_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent.pth: no such file"):
        files.load(tmp_path / "absent.pth")
    for part in "ab":
        (tmp_path / f"imagenet_learnable.pth_a{part}").write_bytes(b"x")
    joined = (
        r"released in parts \(imagenet_learnable.pth_aa, imagenet_learnable.pth_ab\); join them all first: cat imagen"
    )
    with pytest.raises(CheckpointError, match=joined):
        hguide.load(tmp_path / "imagenet_learnable.pth")
    with pytest.raises(CheckpointError, match="released in parts.*cat imagenet_learnable.pth_"):
        hguide.load(tmp_path / "imagenet_learnable.pth_aa")
    torch.save({"ema": official_denoiser(official_model())}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut.pth: damaged, cut short or no weights file"):
        files.load(tmp_path / "cut.pth")


def test_missing_weights_are_listed(tmp_path: Path) -> None:
    model = official_model()
    state = official_denoiser(model)
    del state["transformer.blocks.0.attn.key.bias"]
    torch.save({"ema": state, "model": whole_model(model)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"missing: blocks.0.attn.key.bias"):
        files.load(tmp_path / "m.pth", heads=2, grid=GRID)


# Memory

MEASURE = """
import sys, threading, time
from hguide.backends.vq_diffusion import files

def anonymous():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024

files.load(sys.argv[1], heads=2, grid=(3, 4))  # what the first load of any model takes is not its weights
start, peak, on = anonymous(), 0, True

def watch():
    global peak
    while on:
        peak = max(peak, anonymous())
        time.sleep(0.0005)

thread = threading.Thread(target=watch)
thread.start()
model = files.load(sys.argv[2], heads=2, grid=(3, 4))
on = False
thread.join()
states = (model.denoiser.state_dict(), model.tokenizer.state_dict())
print(max(peak, anonymous()) - start, sum(value.nbytes for state in states for value in state.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the memory of a process of Linux")
def test_loading_takes_the_memory_of_the_weights(tmp_path: Path) -> None:
    """70 MB of weights in a file that holds them twice, beside an optimiser's 70 MB and 64 MB of masks."""
    torch.save({"model": whole_model(official_model("text"))}, tmp_path / "small.pth")
    model = official_model("text", width=768, depth=2)
    averaged = official_denoiser(model)
    averaged["transformer.blocks.0.attn2.mask"] = torch.ones(1, 1, 4096, 4096)
    moments = {0: {"exp_avg": torch.zeros(70 << 18)}}
    torch.save({"model": whole_model(model), "ema": averaged, "optimizer": {"state": moments}}, tmp_path / "large.pth")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small.pth"), str(tmp_path / "large.pth")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken, weights = map(int, printed.split())
    assert 0.9 * weights < taken < 1.1 * weights


# The diffusers format

_RENAMED = (
    ("content_emb.", "latent_image_embedding."),
    ("blocks.", "transformer_blocks."),
    (".ln1_1.", ".norm2."),
    (".ln1.", ".norm1."),
    (".ln2.", ".norm3."),
    (".query.", ".to_q."),
    (".key.", ".to_k."),
    (".value.", ".to_v."),
    (".proj.", ".to_out.0."),
    (".mlp.0.", ".ff.net.0.proj."),
    (".mlp.2.", ".ff.net.2."),
    ("to_logits.0.", "norm_out."),
    ("to_logits.1.", "out."),
)


def diffusers_denoiser(model: VQDiffusion) -> dict[str, Tensor]:
    found = {}
    for key, value in model.denoiser.state_dict().items():
        for own, theirs in _RENAMED:
            key = key.replace(own, theirs)
        if key != "empty_text_embed":
            found[key] = value.contiguous()
    return found


def diffusers_tokenizer(tokenizer: VQGAN, old_names: bool) -> dict[str, Tensor]:
    found = {}
    top = len(tokenizer.decoder.up) - 1
    attention = {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"} if old_names else {}
    attention = attention or {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    for key, value in official_tokenizer(tokenizer).items():
        if re.search(r"\.(attn\.\d+|attn_1)\.", key):
            name = key.split(".")[-2]
            value = value[:, :, 0, 0] if key.endswith("weight") and name != "norm" else value
            key = key.replace(f".{name}.", f".{attention.get(name, 'group_norm')}.")
        else:
            key = key.replace("nin_shortcut", "conv_shortcut")
            key = re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", key)
        key = re.sub(r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets.", key)
        key = re.sub(r"\.down\.(\d+)\.attn\.", r".down_blocks.\1.attentions.", key)
        key = re.sub(r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0.", key)
        key = re.sub(r"\.up\.(\d+)\.", lambda match: f".up_blocks.{top - int(match[1])}.", key)
        key = re.sub(r"(up_blocks\.\d+)\.block\.", r"\1.resnets.", key)
        key = re.sub(r"(up_blocks\.\d+)\.attn\.", r"\1.attentions.", key)
        key = re.sub(r"(up_blocks\.\d+)\.upsample\.", r"\1.upsamplers.0.", key)
        for own, theirs in (("block_1", "resnets.0"), ("block_2", "resnets.1"), ("attn_1", "attentions.0")):
            key = key.replace(f".mid.{own}.", f".mid_block.{theirs}.")
        found[key] = value.contiguous()
    return found


def write_folder(folder: Path, model: VQDiffusion, old_names: bool = False) -> Path:
    def write(name: str, state: Mapping[str, Tensor], **facts: object) -> None:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(facts))
        if state:
            save_file(dict(state), folder / name / "diffusion_pytorch_model.safetensors")

    learned = model.denoiser.config.learned_null
    write("transformer", diffusers_denoiser(model), num_attention_heads=2, num_vector_embeds=CODES + 1)
    write("vqvae", diffusers_tokenizer(model.tokenizer, old_names))
    empty = {"embeddings": model.denoiser.empty_text_embed.detach()} if learned else {}
    write("learned_classifier_free_sampling_embeddings", empty, learnable=learned)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "VQDiffusionPipeline"}))
    return folder


@pytest.mark.parametrize("learned", [True, False])
def test_diffusers_folder(learned: bool, tmp_path: Path) -> None:
    # Its grid is that of the tables of positions.
    model = official_model(
        "text", learned_null=learned, grid=(3, 4), position_grid=(3, 4), text_length=5 if learned else 77
    )
    found = hguide.load(write_folder(tmp_path / "ithq", model, old_names=learned))
    assert isinstance(found, VQDiffusion)
    assert_same(found, model)
    assert found.text_encoder is None


def test_diffusers_folder_in_shards_and_what_may_lack(tmp_path: Path) -> None:
    model = official_model("text", grid=(3, 4), position_grid=(3, 4))
    folder = write_folder(tmp_path / "ithq", model)
    state = diffusers_denoiser(model)
    half = len(state) // 2
    parts = {"a.safetensors": dict(list(state.items())[:half]), "b.safetensors": dict(list(state.items())[half:])}
    for name, part in parts.items():
        save_file(part, folder / "transformer" / name)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    places = {key: name for name, part in parts.items() for key in part}
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert_same(files.load(folder), model)
    (folder / "transformer" / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 2 shards are missing beside it: b.safetensors"):
        files.load(folder)
    index.unlink()
    (folder / "transformer" / "a.safetensors").unlink()
    with pytest.raises(CheckpointError, match="transformer: no weights"):
        files.load(folder)
    (folder / "transformer" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config.json: missing, or not readable"):
        files.load(folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(CheckpointError, match="a folder of StableDiffusionPipeline, asked for VQDiffusionPipeline"):
        files.load(folder)
