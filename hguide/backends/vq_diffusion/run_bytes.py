"""What a run of VQ-Diffusion holds in memory."""

from __future__ import annotations

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.run_bytes import decoder_bytes
from hguide.backends.vq_diffusion.denoiser_config import DenoiserConfig
from hguide.memory import RunBytes

__all__ = ["run_bytes"]

_FLOAT, _DOUBLE = torch.float32.itemsize, torch.float64.itemsize
# Maps that live together in the attention of a block; in its MLP those of the width and of the hidden width.
_ATTENTION, _MLP_WIDTH, _MLP_HIDDEN = 6, 3, 3
# Of the posterior and the draw, per position and code.
_DRAW = 22


def run_bytes(
    config: DenoiserConfig, tokenizer: AutoencoderConfig, itemsize: int, samples: int, streams: int, at_once: int
) -> RunBytes:
    """The largest moments of a run: the float64 softmax of all streams, the posterior, a block, or the decoder.

    Args:
        config: of the denoiser, which has no cache.
        tokenizer: of the decoder.
        itemsize: bytes of a weight and of an activation.
        samples: b.
        streams: all of them asked for.
        at_once: images decoded together.
    """
    logits, rows = samples * config.length * config.codes, samples * streams * config.length
    # What the step before left: the streams' maps, the guided one, the remembered one.
    held = (streams + 2) * logits * _FLOAT
    softmax = streams * logits * (itemsize + 2 * _DOUBLE)
    widest = max(_ATTENTION * config.width, _MLP_WIDTH * config.width + _MLP_HIDDEN * config.hidden)
    image = 3 * config.length * tokenizer.stride**2 * _FLOAT
    decoded = min(samples, at_once) * decoder_bytes(tokenizer, config.grid, itemsize)
    return RunBytes(
        cache=0,
        constants=samples * config.length * torch.int64.itemsize,
        step=held + max(softmax, logits * _DRAW, rows * widest * itemsize),
        decode=decoded + 2 * samples * image,
    )
