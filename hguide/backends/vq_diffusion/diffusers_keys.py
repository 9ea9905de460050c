"""The names of the diffusers format, as this package's or the official ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["denoiser_weights_of", "official_tokenizer"]

_DENOISER = (
    (r"^latent_image_embedding\.", "content_emb."),
    (r"^transformer_blocks\.", "blocks."),
    (r"\.norm1\.", ".ln1."),
    (r"\.norm2\.", ".ln1_1."),
    (r"\.norm3\.", ".ln2."),
    (r"\.to_q\.", ".query."),
    (r"\.to_k\.", ".key."),
    (r"\.to_v\.", ".value."),
    (r"\.to_out\.0\.", ".proj."),
    (r"\.ff\.net\.0\.proj\.", ".mlp.0."),
    (r"\.ff\.net\.2\.", ".mlp.2."),
    (r"^norm_out\.", "to_logits.0."),
    (r"^out\.", "to_logits.1."),
)
# Attention layers have had two sets of names over the versions of diffusers.
_TOKENIZER = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.attentions\.", r".down.\1.attn."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.upsamplers\.0\.", ".upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.(?:to_q|query)\.", ".q."),
    (r"\.(?:to_k|key)\.", ".k."),
    (r"\.(?:to_v|value)\.", ".v."),
    (r"\.(?:to_out\.0|proj_attn)\.", ".proj_out."),
)
_UP = re.compile(r"\.up_blocks\.(\d+)\.")
_LINEAR = re.compile(r".*\.(?:q|k|v|proj_out)\.weight")


def denoiser_weights_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `Transformer2DModel` of VQ-Diffusion by this package's names.

    Args:
        state: of the folder `transformer`.
    """
    return {_renamed(key, _DENOISER): value for key, value in state.items()}


def official_tokenizer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `VQModel` by the official names: its decoder counts its levels from the lowest resolution on.

    Args:
        state: of the folder `vqvae`.
    """
    top = max((int(found[1]) for key in state if (found := _UP.search(key))), default=0)
    result = {}
    for key, value in state.items():
        name = _renamed(_UP.sub(lambda found: f".up.{top - int(found[1])}.", key), _TOKENIZER)
        # diffusers holds 1x1 convolutions of attention as linear layers.
        result[name] = value[:, :, None, None] if _LINEAR.fullmatch(name) and value.ndim == 2 else value
    return result


def _renamed(key: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        key = re.sub(pattern, replacement, key)
    return key
