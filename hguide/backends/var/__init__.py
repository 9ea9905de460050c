"""VAR: visual autoregressive modelling by next-scale prediction (arXiv 2404.02905)."""

from hguide.backends.editing import Edit, box_mask
from hguide.backends.var.generator import VAR, VARState
from hguide.backends.var.tokenizer import TokenizerConfig, VARTokenizer
from hguide.backends.var.transformer import TransformerConfig, VARTransformer

__all__ = [
    "VAR",
    "Edit",
    "TokenizerConfig",
    "TransformerConfig",
    "VARState",
    "VARTokenizer",
    "VARTransformer",
    "box_mask",
]
