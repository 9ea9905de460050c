"""The official files of VQ-Diffusion, made of small models."""

from __future__ import annotations

import torch
from tiny_vq_diffusion import STEPS, tiny_tokenizer_config, tiny_vq_diffusion
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.vq_diffusion import VQGAN, NoiseSchedule, VQDiffusion

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
