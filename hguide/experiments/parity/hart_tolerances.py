"""How far a recomputed quantity of HART may lie from the recorded one, by the name of the tensor."""

from __future__ import annotations

import re

__all__ = ["hart_tolerance"]

_TABLE = (
    (r"x_in|logits|logits_cfg|block\d+_out|block0_attn_out|cond_BD|h|f_hat|f_hat_s\d+|f_hat_final|next_map", 2e-5),
    (r"next_map_s\d+|var_input|f|f_full|frest_before_last|encoder_out", 2e-5),
    (r"z", 2e-5),
    # The first diffusion step multiplies by 1/sqrt(alpha-bar), about 2e4, before it clamps.
    (r"x_t|net_out_raw|net_out_cfg|pred_xstart|mean|log_variance|out", 1e-4),
    (r"img|decoder_out_clamped|recon|recon_s\d+|last", 2e-5),
    (r"gumbel_tau", 1e-7),
    (r"cfg", 1e-12),
    (r"sqrt_recip_alphas_cumprod|sqrt_recipm1_alphas_cumprod", 1e-8),
    (r"alphas_cumprod|betas|posterior_\w+", 1e-12),
)
"""Pattern of the name after its prefix -> largest absolute difference, float32 on the CPU (schedules float64); what is
not here is exact: tokens, positions, counts, timesteps."""


def hart_tolerance(name: str) -> float:
    """Largest absolute difference that passes; 0 is exact.

    Args:
        name: of a recorded tensor, with its prefix (`s3.it0.diff.z`).
    """
    last = name.rsplit(".", 1)[-1]
    return next((tolerance for pattern, tolerance in _TABLE if re.fullmatch(pattern, last)), 0.0)
