"""How far a recomputed quantity may lie from the recorded one, by the name of the tensor."""

from __future__ import annotations

import re

__all__ = ["tolerance_of"]

_TABLE = (
    # Raw logits of a full-size network, of which only parts or sums were recorded.
    (r"logits_(cond|uncond)_(sub|lse)", 1e-4),
    (r"logits_cfg|logits_filtered", 5e-4),
    # Strict: the looser 1e-4 would not see a layer norm with another epsilon.
    (r"logits(_cond|_uncond)?|block\d+_out", 5e-5),
    (r"image(_\w+)?|recon|recon_from_tokens|decode_f|grad_f_hat", 1e-4),
    (r"grad_loss", 1e-4),
    (r"soft_weights|x_in|h|f_hat|f_hat_last|next_map|f|var_input", 1e-5),
    (r"tau", 1e-12),
    # IGG on VAR: logits, and what its attention makes of their differences.
    (r"cond|uncond", 5e-5),
    (r"ground|guided", 2e-4),
)
"""Pattern of the name after its prefix -> largest absolute difference, float32 on the CPU; what is not here is exact:
tokens, masks, counts, indices, weights."""


def tolerance_of(name: str) -> float:
    """Largest absolute difference that passes; 0 is exact.

    Args:
        name: of a recorded tensor, with its prefix (`s3.logits_cond`).
    """
    last = name.rsplit(".", 1)[-1]
    if name.startswith("check."):
        return 0.0
    return next((tolerance for pattern, tolerance in _TABLE if re.fullmatch(pattern, last)), 0.0)
