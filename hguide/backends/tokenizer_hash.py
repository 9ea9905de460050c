"""Fingerprints of tokenizers: whether the tokens of two models mean the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["tokenizer_hash", "weights_hash"]


def tokenizer_hash(tokenizer: nn.Module) -> str:
    """A fingerprint of a tokenizer's weights: equal hashes mean that tokens are interchangeable.

    Args:
        tokenizer: any module.

    Returns:
        SHA-256 over names, shapes and float32 bytes of the state dict in the order of the names, as hex digits.
    """
    return weights_hash(tokenizer.state_dict())


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """`tokenizer_hash` of a state dict, which needs no module."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
