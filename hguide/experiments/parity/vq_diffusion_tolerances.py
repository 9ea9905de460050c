"""How far a recomputed quantity of VQ-Diffusion may lie from the recorded one, by the name of the tensor."""

from __future__ import annotations

import re

__all__ = ["vq_diffusion_tolerance"]

_TABLE = (
    # Strict, since the recorded texts are short vectors: little of what attention makes of them reaches the logits.
    (r"content_emb|block_\d+", 2e-5),
    (r"logits(_cond|_uncond)?", 5e-5),
    (r"log_x0_\w+|log_posterior|sample_in|out|mult_score", 2e-4),
    # On the scale of 0 to 255.
    (r"image|decode_image", 5e-3),
)
"""Pattern of the name after its prefix -> largest absolute difference, float32 on the CPU; what is not here is exact:
tokens, timesteps, counts, schedules, tables of codes."""


def vq_diffusion_tolerance(name: str) -> float:
    """Largest absolute difference that passes; 0 is exact.

    Args:
        name: of a recorded tensor, with its prefix (`debug.logits`).
    """
    last = name.rsplit(".", 1)[-1]
    return next((tolerance for pattern, tolerance in _TABLE if re.fullmatch(pattern, last)), 0.0)
