"""Features of many images, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["features_of"]


@torch.no_grad()
def features_of(
    images: Float[Tensor, "n 3 H W"] | UInt8[Tensor, "n 3 H W"],
    network: Callable[[Tensor], Tensor],
    batch: int = 256,
    device: torch.device | str | None = None,
) -> Float[Tensor, "n ..."]:
    """Features of images, on the CPU.

    Args:
        images: in [0, 1], or bytes, which are divided by 255.
        network: maps images in [0, 1] to features: a module in eval mode, or a method of one, such as
            `FeatureNetwork.features`, `.feature_map` or `.forward`.
        batch: images per call.
        device: where the network is; by default where its parameters are, or the images if it has none.

    Returns:
        `(n, ...)` as the network gives them.

    Raises:
        ConfigError: no images, an impossible batch, or a network in training mode, whose features would depend on
            the batch.
    """
    if batch < 1 or not len(images):
        raise ConfigError(f"features need at least one image and a batch of at least 1, got {len(images)} and {batch}.")
    module = getattr(network, "__self__", network)
    if isinstance(module, torch.nn.Module):
        if module.training:
            raise ConfigError(f"{type(module).__name__} is in training mode; call .eval() first.")
        parameter = next(module.parameters(), None)
        device = device or (None if parameter is None else parameter.device)
    device = device or images.device
    scale = 255 if images.dtype == torch.uint8 else 1
    parts = (part.to(device).float() / scale for part in images.split(batch))
    return torch.cat([network(part).detach().cpu() for part in parts])
