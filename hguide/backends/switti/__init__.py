"""Switti: text to image by scales without attention to the past (arXiv 2412.01819). Parity is unproven."""

from hguide.backends.switti.generator import Switti, SwittiOptions, SwittiState
from hguide.backends.switti.official import official_guidance, official_sampler
from hguide.backends.switti.transformer import SwittiTransformer
from hguide.backends.switti.transformer_config import SCHEDULES, TransformerConfig

__all__ = [
    "SCHEDULES",
    "Switti",
    "SwittiOptions",
    "SwittiState",
    "SwittiTransformer",
    "TransformerConfig",
    "official_guidance",
    "official_sampler",
]
