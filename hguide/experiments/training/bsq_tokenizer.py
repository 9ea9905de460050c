"""Training of the tokenizer of the bundled Infinity model: signs over scales (BSQ) in place of a codebook."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hguide.backends.checkpoints import load_into, read_metadata, read_state_dict
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.infinity.bits import MultiScaleBits, quantize
from hguide.backends.infinity.files import described_schedule, described_tokenizer
from hguide.backends.infinity.scale_schedule import ScaleSchedule
from hguide.backends.infinity.tokenizer import InfinityTokenizer, TokenizerConfig
from hguide.errors import CheckpointError
from hguide.experiments.training.bit_usage import bit_usage, entropy_penalty, shares_of_ones
from hguide.experiments.training.data import crop_centres, to_unit
from hguide.experiments.training.parts import weights_file
from hguide.experiments.training.reconstruction import (
    ReconstructionConfig,
    ReconstructionTraining,
    train_tokenizer,
)
from hguide.grids import Grid

__all__ = [
    "BSQTokenizerTraining",
    "BSQTokenizerTrainingConfig",
    "TrainedTokenizer",
    "load_bsq_tokenizer",
    "reconstruct_from_bits",
    "run",
    "take_weights",
]

FAMILY = "infinity-tokenizer"
RUNNING = 0.99
REBUILT_AT_ONCE = 60


@dataclass(frozen=True, kw_only=True)
class BSQTokenizerTrainingConfig(ReconstructionConfig):
    """Options of the bitwise tokenizer's training; `latent_channels` is the number of bits of a position.

    `init` takes a tokenizer or bundle of this family, or one of VAR ("landuse-var"): its encoder and decoder.

    Attributes:
        entropy_weight: weight of `entropy_penalty`; 0 leaves it out. Signs of what coarser scales left over come out
            balanced by themselves (see bit_entropy in the metrics), so it is a remedy and not part of the recipe.
    """

    entropy_weight: float = 0.0

    def network(self) -> TokenizerConfig:
        """Shape of the tokenizer. Groups of the norms are free here: the published 32 would lose the mean colour."""
        return TokenizerConfig(
            AutoencoderConfig(
                self.channels, tuple(self.multipliers), self.blocks, self.latent_channels, self.groups, attention=False
            )
        )

    def schedule(self) -> ScaleSchedule:
        """The grids of the scales."""
        return ScaleSchedule(tuple((side, side) for side in self.patch_nums))


@dataclass(frozen=True, eq=False)
class TrainedTokenizer:
    """A tokenizer with the grids that it was trained for.

    Attributes:
        network: in evaluation mode.
        schedule: the grids.
        classes: names, in label order.
        metadata: of its file.
    """

    network: InfinityTokenizer
    schedule: ScaleSchedule
    classes: tuple[str, ...]
    metadata: dict


class BSQTokenizerTraining(ReconstructionTraining):
    """Reconstruction + perceptual + commitment loss through a straight-through estimate of the signs of all scales.

    f + (F - f).detach() with F the sum of all scales' codes. To pass gradients through each sign one by one gives the
    same gradient: a scale takes away from the remainder what it adds to the sum, and the last has the latent's grid.
    """

    config: BSQTokenizerTrainingConfig
    network: InfinityTokenizer
    average: InfinityTokenizer

    def __init__(self, config: BSQTokenizerTrainingConfig) -> None:
        super().__init__(config)
        torch.manual_seed(config.seed)
        network = InfinityTokenizer(config.network())
        if config.init:
            take_weights(network, config.init)
        self.grids = config.schedule().grids
        self.start(network)
        self.register_buffer("ones", torch.full((len(self.grids), config.latent_channels), 0.5))
        self.ones: Tensor

    def is_inner(self, name: str) -> bool:
        """All but the layers at the pixels."""
        return not name.startswith(("encoder.conv_in", "decoder.conv_out"))

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch of crops."""
        config = self.config
        target = self.batch(step)
        f = self.network.latent(target * 2 - 1).float()
        found = signs(f.detach(), self.grids)
        straight = f + (found.sums[-1] - f).detach()
        decoded = self.network.decoder(straight).float() * 0.5 + 0.5
        commitment = torch.stack([F.mse_loss(f, total) for total in found.sums]).mean()
        terms = [config.commitment * commitment]
        if config.entropy_weight > 0:
            terms.append(config.entropy_weight * entropy_penalty(remainders(f, found.sums, self.grids)))
        loss, logged = self.total_loss(decoded, target, terms)
        self.ones.lerp_(shares_of_ones(found.bits), 1 - RUNNING)
        return loss, logged | {"commitment": commitment.detach()} | bit_usage(self.ones)

    def rebuild(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1] through the bits of the averaged weights and back."""
        return reconstruct_from_bits(self.average, self.grids, images)

    def evaluate(self) -> dict[str, float]:
        """PSNR, perceptual distance and use of the bits, on the centre crops of the test scenes."""
        images = to_unit(crop_centres(self.test_scenes, self.config.crop)).to(self.device)
        parts = [signs(self.average.latent(part * 2 - 1).float(), self.grids) for part in images.split(REBUILT_AT_ONCE)]
        weights = torch.tensor([len(part.sums[0]) / len(images) for part in parts], device=self.device)
        shares = (torch.stack([shares_of_ones(part.bits) for part in parts]) * weights[:, None, None]).sum(0)
        usage = {f"test_{name}": value.item() for name, value in bit_usage(shares).items()}
        return super().evaluate() | usage


def signs(f: Float[Tensor, "b d H W"], grids: Sequence[Grid]) -> MultiScaleBits:
    """Bits and accumulated codes of each scale, in float32."""
    with torch.autocast(f.device.type, enabled=False):
        return quantize(f, grids)


def remainders(
    f: Float[Tensor, "b d H W"], sums: Sequence[Float[Tensor, "b d H W"]], grids: Sequence[Grid]
) -> list[Float[Tensor, "b d _ _"]]:
    """What each scale takes the signs of, with gradients to f: f less the codes before, area-reduced to the grid."""
    before = [torch.zeros_like(sums[0]), *sums[:-1]]
    with torch.autocast(f.device.type, enabled=False):
        return [F.interpolate(f - past, size=grid, mode="area") for past, grid in zip(before, grids, strict=True)]


@torch.no_grad()
def reconstruct_from_bits(
    network: InfinityTokenizer, grids: Sequence[Grid], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] through bits and back."""
    parts = []
    for part in images.split(REBUILT_AT_ONCE):
        total = signs(network.latent(part * 2 - 1).float(), grids).sums[-1]
        parts.append(network.decode_latent(total).float() * 0.5 + 0.5)
    return torch.cat(parts)


@torch.no_grad()
def take_weights(network: InfinityTokenizer, given: str) -> None:
    """Start from trained weights: all of a tokenizer of this family; encoder and decoder of one of VAR.

    VAR has attention at the lowest resolution, which is left out, and 3x3 convolutions around the quantizer. These are
    folded into the layers next to them as the sums of their kernels, which do the same to a map without detail: the
    encoder's last W becomes S_q W, the decoder's first W S_p. With another number of channels than bits, both layers
    keep their fresh weights.

    Args:
        network: to set.
        given: file of a tokenizer or bundle, or a bundled name.

    Raises:
        CheckpointError: weights that do not fit.
    """
    state = read_state_dict(weights_file(given))
    prefix = "tokenizer." if any(key.startswith("tokenizer.") for key in state) else ""
    state = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    if "quant_conv.weight" in state:
        state = without_quantizer(state, network)
    load_into(network, state)


def without_quantizer(state: Mapping[str, Tensor], network: InfinityTokenizer) -> dict[str, Tensor]:
    """A VAR tokenizer's encoder and decoder as this family has them; see `take_weights`."""
    kept = {
        key: value for key, value in state.items() if key.startswith(("encoder.", "decoder.")) and ".attn" not in key
    }
    if len(state["quant_conv.bias"]) != network.config.bits:
        fresh = ("encoder.conv_out.", "decoder.conv_in.")
        return kept | {key: value for key, value in network.state_dict().items() if key.startswith(fresh)}
    before, after = state["quant_conv.weight"].sum((2, 3)), state["post_quant_conv.weight"].sum((2, 3))
    last, first = kept["encoder.conv_out.weight"], kept["decoder.conv_in.weight"]
    return kept | {
        "encoder.conv_out.weight": torch.einsum("om,mihw->oihw", before, last),
        "encoder.conv_out.bias": before @ kept["encoder.conv_out.bias"] + state["quant_conv.bias"],
        "decoder.conv_in.weight": torch.einsum("omhw,mi->oihw", first, after),
        "decoder.conv_in.bias": first.sum((2, 3)) @ state["post_quant_conv.bias"] + kept["decoder.conv_in.bias"],
    }


def run(config: BSQTokenizerTrainingConfig) -> Path:
    """Train (or resume) the tokenizer and write `tokenizer.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    about = {"family": FAMILY, "tokenizer": asdict(config.network()), "schedule": asdict(config.schedule())}
    return train_tokenizer(BSQTokenizerTraining(config), about)


def load_bsq_tokenizer(path: str | Path) -> TrainedTokenizer:
    """The tokenizer that `run` wrote, or that of an Infinity bundle, by path or bundled name.

    Raises:
        CheckpointError: the file holds neither.
    """
    file = weights_file(path)
    try:
        metadata = json.loads(read_metadata(file)["hguide"])
        fits = metadata["family"] in (FAMILY, "infinity")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: carries no description of a tokenizer.") from error
    if not fits:
        raise CheckpointError(
            f"{path}: describes {metadata['family']!r}, not the tokenizer of an Infinity model: "
            "give the file that `hguide train infinity-tokenizer` wrote."
        )
    network = InfinityTokenizer(described_tokenizer(metadata))
    take_weights(network, str(path))
    return TrainedTokenizer(
        network.eval().requires_grad_(False), described_schedule(metadata), tuple(metadata["classes"]), metadata
    )
