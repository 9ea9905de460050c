"""The image tokenizer of VAR: encoder, multi-scale quantizer, decoder (arXiv 2404.02905, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.conv_autoencoder import AutoencoderConfig, Decoder, Encoder
from hguide.backends.multiscale_quantizer import MultiScaleQuantizer
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Grid

__all__ = ["UNUSED_KEYS", "TokenizerConfig", "VARTokenizer", "described_tokenizer"]

UNUSED_KEYS = ("quantize.ema_vocab_hit_SV",)
"""State-dict entries of published tokenizers that only their training reads."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of a tokenizer; the defaults are VAR's published one at 256 pixels.

    Attributes:
        autoencoder: sizes of the encoder and the decoder.
        vocabulary: number of codes.
        patch_nums: side of each scale's square token map, the last being the latent's.
        convolutions: number of shared refining convolutions phi.
        residual_ratio: weight of the convolution in phi.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    vocabulary: int = 4096
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    convolutions: int = 4
    residual_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Refuse sizes that no tokenizer can have.

        Raises:
            ConfigError: a size is not positive, or the schedule shrinks at its end.
        """
        if self.vocabulary < 1 or self.convolutions < 1:
            raise ConfigError(
                f"vocabulary and convolutions must be positive, got {self.vocabulary} and {self.convolutions}."
            )
        if not self.patch_nums or min(self.patch_nums) < 1 or max(self.patch_nums) != self.patch_nums[-1]:
            raise ConfigError(
                f"patch_nums must be positive, its last entry (the latent's side) the largest; got {self.patch_nums}."
            )

    @property
    def grids(self) -> tuple[Grid, ...]:
        """(h, w) of each scale."""
        return tuple((side, side) for side in self.patch_nums)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.patch_nums[-1] * self.autoencoder.stride


def described_tokenizer(facts: Mapping[str, Any]) -> TokenizerConfig:
    """The sizes in the description of a file: those of `dataclasses.asdict`, after JSON.

    Raises:
        KeyError, TypeError: entries that are missing or unknown.
        ConfigError: sizes that no tokenizer can have.
    """
    autoencoder = {**facts["autoencoder"], "multipliers": tuple(facts["autoencoder"]["multipliers"])}
    rest = {**facts, "patch_nums": tuple(facts["patch_nums"]), "autoencoder": AutoencoderConfig(**autoencoder)}
    return TokenizerConfig(**rest)


class VARTokenizer(nn.Module):
    """Images in [-1, 1] to token maps and back; state-dict keys are those of the published file."""

    def __init__(self, config: TokenizerConfig) -> None:
        """Make the tokenizer.

        Args:
            config: its sizes.
        """
        super().__init__()
        self.config = config
        channels = config.autoencoder.latent_channels
        self.encoder = Encoder(config.autoencoder)
        self.decoder = Decoder(config.autoencoder)
        self.quantize = MultiScaleQuantizer(config.vocabulary, channels, config.convolutions, config.residual_ratio)
        self.quant_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def latent(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c h w"]:
        """The continuous latent map f = quant_conv(encoder(images)).

        Args:
            images: in [-1, 1]; height and width multiples of the stride.

        Returns:
            f, one position per stride x stride pixels.

        Raises:
            ShapeError: the size of the images is not a multiple of the stride.
        """
        stride = self.config.autoencoder.stride
        height, width = images.shape[-2:]
        if height % stride or width % stride:
            raise ShapeError(f"Height and width of images must be multiples of {stride}, got {height} x {width}.")
        return self.quant_conv(self.encoder(images))

    @torch.no_grad()
    def encode(
        self, images: Float[Tensor, "b 3 height width"], grids: Sequence[Grid] | None = None
    ) -> list[Int[Tensor, "b _ _"]]:
        """Token maps of images.

        Args:
            images: in [-1, 1].
            grids: (h, w) of each scale, the last being the latent's; None for the tokenizer's own schedule.

        Returns:
            int64 token maps, one per scale.

        Raises:
            ShapeError: the images do not fit the schedule.
        """
        return self.quantize.encode(self.latent(images), self.config.grids if grids is None else grids)

    def decode_latent(self, f_hat: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Images of a latent map: clamp(decoder(post_quant_conv(f_hat)), -1, 1).

        Args:
            f_hat: accumulated latent map, quantised or not.

        Returns:
            images in [-1, 1]; the gradient is zero where the clamp acts.
        """
        return self.decoder(self.post_quant_conv(f_hat)).clamp(-1, 1)

    def decode(
        self, tokens: Sequence[Int[Tensor, "b _ _"]], grids: Sequence[Grid] | None = None
    ) -> Float[Tensor, "b 3 height width"]:
        """Images of token maps.

        Args:
            tokens: token maps of all scales, or of the first ones only for a coarse image.
            grids: (h, w) of every scale of the schedule; None for the tokenizer's own.

        Returns:
            images in [-1, 1].

        Raises:
            ShapeError: the token maps are not those of the schedule.
        """
        return self.decode_latent(self.quantize.accumulate(tokens, self.config.grids if grids is None else grids))
