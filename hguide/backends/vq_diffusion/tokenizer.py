"""The image tokenizers of VQ-Diffusion: VQGANs with one map of codes (arXiv 2012.09841)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.conv_autoencoder import AutoencoderConfig, Decoder, Encoder
from hguide.backends.vq_diffusion.codebook_map import inverse
from hguide.errors import ConfigError, ShapeError, StreamError

__all__ = ["VQGAN", "TokenizerConfig"]

COMPARED_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of a tokenizer.

    Attributes:
        autoencoder: sizes of the encoder and the decoder.
        vocabulary: rows of the codebook.
        code_channels: channels of a code.
        codes: number of codes in use, those of the denoiser; `vocabulary` where all are.
        encoder: False for a tokenizer that only decodes.
        assignment: "nearest" code (taming's VQModel and the ITHQ tokenizer), or by "logits" of a convolution (Gumbel).
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    vocabulary: int = 4096
    code_channels: int = 128
    codes: int = 4096
    encoder: bool = True
    assignment: str = "nearest"

    def __post_init__(self) -> None:
        """Refuse sizes that no tokenizer can have.

        Raises:
            ConfigError: a size is not positive, more codes in use than there are, or an unknown assignment.
        """
        problems = []
        if min(self.vocabulary, self.code_channels, self.codes) < 1 or self.codes > self.vocabulary:
            problems.append(
                f"vocabulary, code_channels and codes must be positive, codes at most vocabulary; got "
                f"{self.vocabulary}, {self.code_channels} and {self.codes}"
            )
        if self.assignment not in ("nearest", "logits"):
            problems.append(f"assignment is 'nearest' or 'logits', got {self.assignment!r}")
        if problems:
            raise ConfigError("TokenizerConfig: " + "; ".join(problems) + ".")


class VQGAN(nn.Module):
    """Images in [-1, 1] to maps of codes and back, in the numbering of the denoiser."""

    codes: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        """Make the tokenizer.

        Args:
            config: its sizes.
        """
        super().__init__()
        self.config = config
        latent, channels = config.autoencoder.latent_channels, config.code_channels
        self.codebook = nn.Embedding(config.vocabulary, channels)
        self.register_buffer("codes", torch.arange(config.codes))
        self.post_quant_conv = nn.Conv2d(channels, latent, 1)
        self.decoder = Decoder(config.autoencoder)
        if config.encoder:
            self.encoder = Encoder(config.autoencoder)
            self.quant_conv = nn.Conv2d(latent, channels, 1)
            if config.assignment == "logits":
                self.assign = nn.Conv2d(channels, config.vocabulary, 1)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b h w"]:
        """Codes of images.

        A Gumbel tokenizer takes the code of the largest logit; the official program draws one, so that its codes
        differ from call to call. Rows of the codebook that are not in use become code 0, as in training.

        Args:
            images: in [-1, 1]; height and width multiples of the stride.

        Raises:
            StreamError: this tokenizer has no encoder.
            ShapeError: the size of the images is not a multiple of the stride.
        """
        if not self.config.encoder:
            raise StreamError("this tokenizer was stored without its encoder, so it cannot encode images.")
        stride = self.config.autoencoder.stride
        if images.shape[2] % stride or images.shape[3] % stride:
            raise ShapeError(
                f"Height and width of images must be multiples of {stride}, got {tuple(images.shape[2:])}."
            )
        latent = self.latent(images)
        rows = self.assign(latent).argmax(1) if self.config.assignment == "logits" else self.nearest(latent)
        return inverse(self.codes, self.config.vocabulary)[rows]

    def latent(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c h w"]:
        """What is assigned to codes: quant_conv(encoder(images)).

        Args:
            images: in [-1, 1].
        """
        return self.quant_conv(self.encoder(images))

    @torch.no_grad()
    def nearest(self, latent: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
        """Row of the codebook nearest to each position: argmin |z - e|^2 = |e|^2 - 2 z e + const.

        Args:
            latent: as `latent` gives it; compared some positions at a time to bound the memory.
        """
        book = self.codebook.weight
        places = latent.movedim(1, -1).flatten(0, 2)
        squares = book.square().sum(1)
        parts = places.split(max(COMPARED_AT_ONCE // len(book), 1))
        rows = torch.cat([torch.addmm(squares, part, book.T, alpha=-2.0).argmin(1) for part in parts])
        return rows.view(latent.shape[0], *latent.shape[2:])

    def decode(self, codes: Int[Tensor, "b h w"]) -> Float[Tensor, "b 3 height width"]:
        """Images in [-1, 1]: clamp(decoder(post_quant_conv(codebook[codes])), -1, 1).

        Args:
            codes: of the denoiser; its mask, one beyond them, shows as the mean of the codes in use.
        """
        masked = codes == self.config.codes
        rows = self.codes[codes.clamp(max=self.config.codes - 1)]
        # Not only where tokens are masked: to look would make the program wait for the device.
        latent = torch.where(masked.unsqueeze(-1), self.codebook(self.codes).mean(0), self.codebook(rows))
        return self.decoder(self.post_quant_conv(latent.movedim(-1, 1))).clamp(-1, 1)
