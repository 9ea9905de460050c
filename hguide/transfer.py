"""Small tensors onto a device without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["on_device"]


def on_device(values: Sequence[int], device: torch.device) -> Int[Tensor, " n"]:
    """Whole numbers as a tensor on a device.

    On CUDA the copy starts from pinned memory: one from ordinary memory would hold the program until all work that was
    given to the device before is done.

    Args:
        values: 64-bit signed integers.
        device: where they go.
    """
    found = torch.tensor(values, dtype=torch.int64)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)
