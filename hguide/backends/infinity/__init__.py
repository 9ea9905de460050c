"""Infinity: bitwise visual autoregressive modelling from text (arXiv 2412.04431)."""

from hguide.backends.infinity.generator import Infinity, InfinityState
from hguide.backends.infinity.scale_schedule import ScaleSchedule, published_schedule
from hguide.backends.infinity.tokenizer import InfinityTokenizer, TokenizerConfig
from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.backends.infinity.transformer_config import TransformerConfig

__all__ = [
    "Infinity",
    "InfinityState",
    "InfinityTokenizer",
    "InfinityTransformer",
    "ScaleSchedule",
    "TokenizerConfig",
    "TransformerConfig",
    "published_schedule",
]
