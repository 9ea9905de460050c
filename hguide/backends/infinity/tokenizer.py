"""The image tokenizer of Infinity: a convolutional autoencoder without attention around signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.conv_autoencoder import AutoencoderConfig, Decoder, Encoder
from hguide.backends.infinity.bits import quantize
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Grid

__all__ = ["InfinityTokenizer", "TokenizerConfig", "groups_of"]

GROUPS = 32
ODD_GROUPS = 24


def groups_of(widths: Sequence[int]) -> int:
    """Groups of the published tokenizers' norms: 32, or 24 for widths that are no multiples of 32.

    Args:
        widths: of all levels.

    Raises:
        ConfigError: widths of both kinds, which no published tokenizer has.
    """
    found = {GROUPS if width % GROUPS == 0 else ODD_GROUPS for width in widths}
    if len(found) != 1 or any(width % group for width in widths for group in found):
        raise ConfigError(
            f"the widths {list(widths)} of a tokenizer are all multiples of {GROUPS}, or all of {ODD_GROUPS} alone."
        )
    return found.pop()


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of a tokenizer; the defaults are those of the published one with 32 bits.

    Attributes:
        autoencoder: sizes of encoder and decoder; its latent channels are the bits.

    Raises:
        ConfigError: an autoencoder with attention.
    """

    autoencoder: AutoencoderConfig = field(
        default_factory=lambda: AutoencoderConfig(128, (1, 2, 4, 4, 4), 2, 32, attention=False)
    )

    def __post_init__(self) -> None:
        if self.autoencoder.attention:
            raise ConfigError("the autoencoder of an Infinity tokenizer has no attention: pass attention=False.")

    @property
    def bits(self) -> int:
        """Bits d of one position."""
        return self.autoencoder.latent_channels

    @property
    def stride(self) -> int:
        """Pixels per position along each axis."""
        return self.autoencoder.stride


class InfinityTokenizer(nn.Module):
    """Images in [-1, 1] to bit maps and back.

    Source: arXiv 2412.04431, section 3.1; code.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        """Make the tokenizer.

        Args:
            config: its sizes.
        """
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.autoencoder)
        self.decoder = Decoder(config.autoencoder)

    def latent(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d h w"]:
        """The encoder's output.

        Args:
            images: in [-1, 1].

        Raises:
            ShapeError: the size of the images is not a multiple of the stride.
        """
        stride = self.config.stride
        height, width = images.shape[-2:]
        if height % stride or width % stride:
            raise ShapeError(f"Height and width of images must be multiples of {stride}, got {height} x {width}.")
        return self.encoder(images)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 height width"], grids: Sequence[Grid]) -> list[Int[Tensor, "b _ _ d"]]:
        """Bits of images.

        Args:
            images: in [-1, 1].
            grids: of the scales on the tokenizer's grid, the last being the latent's.

        Returns:
            `(b, h, w, d)` int64 per scale.

        Raises:
            ShapeError: the images do not fit the grids.
        """
        return quantize(self.latent(images), grids).bits

    def decode_latent(self, total: Float[Tensor, "b d h w"]) -> Float[Tensor, "b 3 height width"]:
        """Images of a sum of codes: clamp(decoder(F), -1, 1).

        Args:
            total: sum of the enlarged codes of all scales, or of the first ones for a coarse image.
        """
        return self.decoder(total).clamp(-1, 1)
