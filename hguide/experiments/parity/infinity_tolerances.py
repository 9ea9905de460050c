"""How far a recomputed quantity of Infinity may lie from the recorded one, by the name of the tensor."""

from __future__ import annotations

import re

__all__ = ["rounded_tolerance_of", "tolerance_of"]

_TABLE = (
    (r"logits_(cond|uncond)|teacher_forced_logits|(clean|noisy)_logits", 2e-5),
    (r"logits_guided", 1e-4),
    (r"bit1_prob_filtered", 5e-5),  # a quarter of the guided logits' at most, and room for the exponential
    (r"codes|next_input|summed_codes|summed_from_bits|quant_z|var_input_area|\w*x_BLC_wo_prefix", 1e-5),
    (r"block\w*|word_embed|text_normed|text_proj_ca|sos_cond_BD|shared_ada_lin|enc_h", 5e-5),
    (r"image_float|recon", 5e-5),
    (r"image_uint8_bgr_nhwc", 1.0),  # truncated to whole numbers
    (r"rope2d_cos_sin|r[\d.]+_\S+_headdim\d+_mode\d", 1e-6),
)
"""Pattern of the name after its prefix -> largest absolute difference, float32 on the CPU; what is not here is exact:
bits, positions, lengths."""

_ROUNDED_LOGITS = 2e-2


def tolerance_of(name: str) -> float:
    """Largest absolute difference that passes; 0 is exact.

    Args:
        name: of a recorded tensor, with its prefix (`s3.logits_cond`).
    """
    last = re.sub(r"^s\d+\.", "", name)
    return next((tolerance for pattern, tolerance in _TABLE if re.fullmatch(pattern, last)), 0.0)


def rounded_tolerance_of(name: str) -> float:
    """The same for runs whose cross attention rounds to bfloat16: a sum that ends near a tie rounds either way."""
    return _ROUNDED_LOGITS if "logits" in name else tolerance_of(name)
