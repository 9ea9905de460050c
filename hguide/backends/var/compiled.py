"""A transformer whose blocks run through `torch.compile`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from hguide.backends.var.transformer import VARTransformer

__all__ = ["with_compiled_blocks"]


def with_compiled_blocks(transformer: VARTransformer) -> VARTransformer:
    """The same transformer, sharing its weights; what each block does around the softmax attention is compiled.

    The two halves of a block are compiled once for all blocks, rows and grids (sizes are symbolic), when they are first
    called. The attention between them, with its cache, is a library's kernel and stays as it is.

    Args:
        transformer: stays as it is.
    """
    other = copy.copy(transformer)
    other._modules = {**transformer._modules, "blocks": nn.ModuleList(map(_compiled, transformer.blocks))}
    return other


def _compiled(block: nn.Module) -> nn.Module:
    twin: Any = copy.copy(block)
    twin.before = torch.compile(twin.before, dynamic=True)
    twin.after = torch.compile(twin.after, dynamic=True)
    return twin
