"""Starting weights for training a HART transformer from scratch."""

from __future__ import annotations

import math

import torch
from torch import nn

from hguide.backends.hart.transformer import HARTTransformer

__all__ = ["initialise"]

BACK_TO_STREAM = ("attn.proj.weight", "ffn.down_proj.weight", "ffn.fc2.weight")
GATES = 2


@torch.no_grad()
def initialise(
    model: HARTTransformer, generator: torch.Generator | None = None, *, adaln: float = 0.5, head: float = 0.02
) -> HARTTransformer:
    """Draw all weights: truncated normals of std s = sqrt(1 / (3 inputs)), that of the VAR paper for square layers.

    Biases are zero, norms one. Projections back to the residual stream are divided by sqrt(2 depth), so that its
    variance does not grow with depth. Gates start at one, so that modulated blocks start as those without. The head is
    scaled by `head`: the first loss is log V. Query scales start at ln 4. The blocks of the residual head start as the
    identity and its output as zero (arXiv 2212.09748, adaLN-Zero). *Reconstructed*: HART's own recipe is not published.

    Args:
        model: the network; its weights are overwritten.
        generator: source of the draws, on the device of the weights; the same generator state gives the same weights.
        adaln: scale of the layers that make scales and shifts of the text.
        head: scale of the head.

    Returns:
        The same network.
    """
    residual = 1 / math.sqrt(2 * model.config.depth)
    for name, parameter in model.named_parameters():
        if name.endswith("scale_mul_1H11"):
            parameter.fill_(math.log(4.0))
        elif name.endswith("scale_shift_table"):
            parameter.zero_()[:GATES] = 1.0
        elif name.startswith("blocks.") and name.endswith("ada_lin.1.bias"):
            parameter.zero_()[: GATES * model.config.width] = 1.0
        elif parameter.ndim == 1:
            # One-dimensional weights are those of norms.
            parameter.fill_(1.0 if name.endswith(".weight") else 0.0)
        else:
            std = math.sqrt(1 / (3 * parameter.shape[1]))
            nn.init.trunc_normal_(parameter, std=std, a=-2.0, b=2.0, generator=generator)
            if name.startswith("blocks.") and name.endswith(BACK_TO_STREAM):
                parameter.mul_(residual)
            elif "ada_lin" in name:
                parameter.mul_(adaln)
            elif name == "head.weight":
                parameter.mul_(head)
            elif name.startswith("diffloss.") and ("adaLN_modulation" in name or "final_layer" in name):
                parameter.zero_()
    return model
