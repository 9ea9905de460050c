"""VQ-Diffusion in folders of the diffusers format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from published_vq_diffusion import (
    assert_same,
    official_model,
    official_tokenizer,
)
from safetensors.torch import save_file
from tiny_vq_diffusion import CODES
from torch import Tensor

import hguide
from hguide.backends.vq_diffusion import VQGAN, VQDiffusion, files
from hguide.errors import CheckpointError

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
