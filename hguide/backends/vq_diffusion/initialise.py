"""Starting weights for training a VQ-Diffusion denoiser from scratch."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hguide.backends.vq_diffusion.denoiser import Denoiser

__all__ = ["initialise"]

BACK_TO_STREAM = ("attn.proj.weight", "attn1.proj.weight", "attn2.proj.weight", "mlp.conv2.weight", "mlp.2.weight")
TIMESTEP_TABLES = ("ln1.emb.weight", "ln1_1.emb.weight")
CLASS_TABLE = "ln2.emb.weight"


@torch.no_grad()
def initialise(
    model: Denoiser, generator: torch.Generator | None = None, *, adaln: float = 0.5, head: float = 0.02
) -> Denoiser:
    """Draw all weights: truncated normals of std s = sqrt(1 / (3 inputs)).

    Biases are zero, norms one. Projections back to the residual stream are divided by the square root of their number,
    so that its variance does not grow with depth. Tables of classes are standard normals. Those of timesteps start as
    waves, sqrt(2) cos and sin of t at geometric frequencies, so that neighbouring timesteps start alike: each row is
    trained by its own timestep alone, one sample in T. The layers between tables and norms are scaled by `adaln`. The
    head is scaled by `head`: the first loss is log K. *Reconstructed*: the official recipe is not in our sources.

    Args:
        model: the network; its weights are overwritten.
        generator: source of the draws, on the device of the weights; the same generator state gives the same weights.
        adaln: scale of the layers that make scales and shifts of timestep and class.
        head: scale of the head.

    Returns:
        The same network.
    """
    parts = 2 if model.config.condition == "class" else 3
    residual = 1 / math.sqrt(parts * model.config.depth)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            # One-dimensional weights are those of norms.
            parameter.fill_(1.0 if name.endswith(".weight") else 0.0)
        elif name.endswith(TIMESTEP_TABLES):
            parameter.copy_(waves(*parameter.shape))
        elif name.endswith(CLASS_TABLE) or name == "empty_text_embed":
            parameter.normal_(generator=generator)
        else:
            std = math.sqrt(1 / (3 * parameter[0].numel()))
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std, generator=generator)
            if name.startswith("blocks.") and name.endswith(BACK_TO_STREAM):
                parameter.mul_(residual)
            elif ".linear." in name:
                parameter.mul_(adaln)
            elif name == "to_logits.1.weight":
                parameter.mul_(head)
    return model


def waves(rows: int, channels: int) -> Float[Tensor, "rows channels"]:
    """sqrt(2) cos(t f) and sqrt(2) sin(t f) of row t, f from 1 down to 1 / (10 rows) in geometric steps."""
    half = -(-channels // 2)
    frequencies = (10.0 * rows) ** -torch.linspace(0.0, 1.0, half)
    angles = torch.arange(rows).unsqueeze(1) * frequencies
    return math.sqrt(2.0) * torch.cat([angles.cos(), angles.sin()], dim=1)[:, :channels]
