"""Starting weights for training an Infinity transformer from scratch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hguide.backends.infinity.transformer import InfinityTransformer

__all__ = ["initialise"]


@torch.no_grad()
def initialise(
    model: InfinityTransformer,
    generator: torch.Generator | None = None,
    *,
    gamma: float = 1e-3,
    adaln: float = 0.5,
    head: float = 0.02,
) -> InfinityTransformer:
    """Draw all weights, as for VAR: truncated normals of std s = sqrt(1/(3C)).

    Biases are zero, norms' weights one. Projections back to the residual stream are divided by sqrt(2 depth). The
    condition layers are scaled by `adaln`, and by `gamma` where they make the gates, so that every block starts close
    to the identity. The head is scaled by `head`: the first loss is log 2 per bit. Query scales start at ln 4.

    Args:
        model: the network; its weights are overwritten.
        generator: source of the draws, on the device of the weights; the same generator state gives the same weights.
        gamma: scale of the gates.
        adaln: scale of the other condition weights.
        head: scale of the head.

    Returns:
        The same network.
    """
    std = math.sqrt(1 / (3 * model.config.width))
    residual = 1 / math.sqrt(2 * model.config.depth)
    for name, parameter in model.named_parameters():
        if name.endswith("scale_mul_1H11"):
            parameter.fill_(math.log(4.0))
        elif parameter.ndim == 1:
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        else:
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std, generator=generator)
        if name == "head.weight":
            parameter.mul_(head)
        elif name.startswith("blocks.") and name.endswith(("sa.proj.weight", "ca.proj.weight", "ffn.fc2.weight")):
            parameter.mul_(residual)
        elif name.endswith(("ada_lin.1.weight", "ada_gss")):
            gates = _gates(name, parameter, model.config.width)
            parameter.mul_(adaln)
            gates.mul_(gamma / adaln)
    return model


def _gates(name: str, parameter: Tensor, width: int) -> Tensor:
    """The part of a condition weight that makes gamma1 and gamma2; the head's layer has none."""
    if name.endswith("ada_gss"):
        return parameter[:, :, :2]
    return parameter[:0] if name.startswith("head_nm") else parameter[: 2 * width]
