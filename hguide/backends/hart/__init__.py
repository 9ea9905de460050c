"""HART: hybrid autoregressive transformer, next-scale tokens with a continuous residual (arXiv 2410.10812)."""

from hguide.backends.hart.editing import HybridEdit
from hguide.backends.hart.generator import HART, HARTState
from hguide.backends.hart.official import official_guidance, official_sampler
from hguide.backends.hart.options import HARTOptions
from hguide.backends.hart.tokenizer import HARTTokenizer, HybridTokens, TokenizerConfig
from hguide.backends.hart.transformer import HARTTransformer
from hguide.backends.hart.transformer_config import TransformerConfig

__all__ = [
    "HART",
    "HARTOptions",
    "HARTState",
    "HARTTokenizer",
    "HARTTransformer",
    "HybridEdit",
    "HybridTokens",
    "TokenizerConfig",
    "TransformerConfig",
    "official_guidance",
    "official_sampler",
]
