"""What the transformers that predict scale by scale hold in memory, and how they decode within a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.grids import Grid
from hguide.memory import RunBytes

__all__ = ["TransformerSizes", "decode_in_parts", "decoder_bytes", "images_at_once", "run_bytes"]

_FLOAT = 4
# Maps of C channels that live while the feed-forward layer runs: the block's input and its sum with the attention's
# output, that output, the norm of the sum, the constants of the positions.
_BESIDE_FEED_FORWARD = 5
# A residual block holds its input, the first convolution of it, the activation of that, the second convolution, and
# the copy of its input that a convolution makes; the map that entered the level lives beside them.
_MAPS_OF_A_BLOCK = 5
# A draw over c candidates. On a CPU an int64 word of the hash and the float32 noise; on a device, with top-p, the
# sorted logits, their order, their probabilities, what is dropped, what is left and its noise.
_CPU_CANDIDATE, _DEVICE_CANDIDATE = 12, 25
# What the activations of decoded images may take. More at once is no faster on a CPU, whose caches hold less.
_CPU_DECODE, _DEVICE_DECODE = 256 << 20, 2 << 30


@dataclass(frozen=True)
class TransformerSizes:
    """What the memory of a run depends on.

    Attributes:
        depth: blocks.
        width: channels C.
        feed_forward: channels per token that are alive together inside the feed-forward layer.
        cached: tokens of the whole sequence.
        last: tokens of the largest step.
        before: tokens of the step before it.
        channels: logit channels v.
        predicted: channels that the head predicts, where they are more than v.
        candidates: choices of the draw per position.
        modulated: vectors of C channels per row that are computed once.
        itemsize: bytes of a weight and of an activation.
        autoencoder: of the decoder.
        grid: of the latent map.
    """

    depth: int
    width: int
    feed_forward: int
    cached: int
    last: int
    before: int
    channels: int
    predicted: int
    candidates: int
    modulated: int
    itemsize: int
    autoencoder: AutoencoderConfig
    grid: Grid


def run_bytes(sizes: TransformerSizes, samples: int, streams: int, device: torch.device) -> RunBytes:
    """The largest moments of a run: the feed-forward layer or the logits of the last step, or the decoder.

    Args:
        sizes: of the model.
        samples: b.
        streams: live at the last step, all of them asked for.
        device: where it runs, since decoding keeps within a limit of the device.
    """
    rows, c = samples * streams, sizes.width
    latent = samples * sizes.autoencoder.latent_channels * sizes.grid[0] * sizes.grid[1]
    block = rows * sizes.last * (_BESIDE_FEED_FORWARD * c + sizes.feed_forward) * sizes.itemsize
    logits = rows * sizes.last * (2 * c * sizes.itemsize + sizes.predicted * _FLOAT)
    if sizes.itemsize < _FLOAT:
        logits += rows * sizes.last * sizes.predicted * sizes.itemsize
    # The streams' maps, the combined one that is remembered, the guided one; then what updates or draws from it.
    a_map = samples * sizes.last * sizes.channels * _FLOAT
    maps = (streams + 2) * a_map
    update = samples * sizes.before * sizes.channels * _FLOAT
    draw = samples * sizes.last * sizes.candidates * (_CPU_CANDIDATE if device.type == "cpu" else _DEVICE_CANDIDATE)
    at_once = min(samples, images_at_once(sizes.autoencoder, sizes.grid, sizes.itemsize, device))
    pixels = _pixels(sizes.autoencoder, sizes.grid)
    return RunBytes(
        cache=2 * sizes.depth * rows * c * sizes.cached * sizes.itemsize,
        constants=rows * sizes.modulated * c * sizes.itemsize + 3 * latent * _FLOAT,
        step=max(block, logits, maps + max(update, draw)),
        decode=at_once * decoder_bytes(sizes.autoencoder, sizes.grid, sizes.itemsize)
        + 2 * samples * 3 * pixels * _FLOAT,
    )


def decoder_bytes(config: AutoencoderConfig, grid: Grid, itemsize: int) -> int:
    """Bytes that decoding one image takes at its largest level.

    Args:
        config: of the decoder.
        grid: of the latent map.
        itemsize: bytes of a number.
    """
    widths = config.widths
    levels = []
    for level, width in enumerate(widths):
        pixels = (grid[0] * grid[1] * config.stride**2) >> (2 * level)
        entering = widths[min(level + 1, len(widths) - 1)]
        levels.append(pixels * (entering + _MAPS_OF_A_BLOCK * width))
    return max(levels) * itemsize


def images_at_once(config: AutoencoderConfig, grid: Grid, itemsize: int, device: torch.device) -> int:
    """How many images to decode together so that they keep within the limit of the device; at least one."""
    limit = _CPU_DECODE if device.type == "cpu" else _DEVICE_DECODE
    return max(1, limit // decoder_bytes(config, grid, itemsize))


def decode_in_parts(
    decode: Callable[[Tensor], Tensor],
    latent: Float[Tensor, "b c h w"],
    config: AutoencoderConfig,
    dtype: torch.dtype,
) -> Float[Tensor, "b 3 height width"]:
    """Images in [0, 1] of latent maps, as many at a time as the memory limit allows.

    Args:
        decode: latent maps to images in [-1, 1].
        latent: of all images.
        config: of the decoder.
        dtype: of the decoder's weights.
    """
    grid = (latent.shape[-2], latent.shape[-1])
    at_once = images_at_once(config, grid, dtype.itemsize, latent.device)
    # Parts of one size where the number allows: kernels are chosen, or compiled, once.
    shares = latent.tensor_split(-(-latent.shape[0] // at_once))
    parts = [decode(part.to(dtype)).float().add_(1.0).div_(2.0) for part in shares]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pixels(config: AutoencoderConfig, grid: Grid) -> int:
    return grid[0] * grid[1] * config.stride**2
