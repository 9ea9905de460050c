"""Training of the bundled Infinity: transformer and text encoder together, on precomputed latents."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hguide.backends.infinity import Infinity, InfinityTransformer, TransformerConfig
from hguide.backends.infinity.bits import Replace
from hguide.backends.infinity.initialise import initialise
from hguide.backends.infinity.training_inputs import random_flips, training_inputs
from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.errors import CheckpointError
from hguide.experiments.features import FeatureNetwork, bundled_features, load_features
from hguide.experiments.training.bsq_tokenizer import load_bsq_tokenizer
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.fit import TrainingModule, fit, training_device
from hguide.experiments.training.generated import sample_accuracy, sample_sheet
from hguide.experiments.training.latents import LatentSet, latent_set
from hguide.experiments.training.parts import load_parts, write_parts
from hguide.experiments.training.prompts import PromptBatch, prompt_batch
from hguide.experiments.training.run_config import RunConfig

__all__ = ["InfinityTraining", "InfinityTrainingConfig", "bit_loss", "run"]

TEST_CROPS_PER_SCENE = 2
MEASURED_CROPS = 840
MEASURED_AT_ONCE = 105
SAMPLES_PER_CLASS = 8
INNER = ("transformer.blocks.", "text_encoder.layers.")


@dataclass(frozen=True, kw_only=True)
class InfinityTrainingConfig(RunConfig):
    """Options of Infinity's training.

    Attributes:
        tokenizer: weights that the bitwise tokenizer's training wrote, a bundle of the family, or a bundled name.
        depth: blocks.
        width: channels.
        heads: attention heads.
        hidden: channels of the feed-forward layers.
        text_heads: heads of the text pooling.
        text_tokens: bytes that the text encoder reads of a prompt; class names are the prompts.
        text_dim: channels of the text encoder.
        text_dropout: share of samples whose text is replaced by the learnt unconditional one, for classifier-free
            guidance.
        flip_strength: largest share of bits that self-correction flips in the inputs of an image's scale; 0 for teacher
            forcing.
        balance_scales: weigh a token by sqrt(area of the last scale / area of its own), so that coarse scales, which
            decide the class, count more than their few tokens do.
        latent_crops: random crops of train scenes whose latents are computed once.
        sample_cfg: guidance strength w of the sample grid; 1 is none.
        gate_scale: scale of the first weights of the residual gates (short trainings start faster from larger ones).
    """

    tokenizer: str
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    depth: int = 6
    width: int = 192
    heads: int = 6
    hidden: int = 576
    text_heads: int = 4
    text_tokens: int = 24
    text_dim: int = 64
    text_dropout: float = 0.1
    flip_strength: float = 0.3
    balance_scales: bool = False
    latent_crops: int = 67_200
    sample_cfg: float = 2.0
    gate_scale: float = 0.1


class InfinityTraining(TrainingModule):
    """Two-way cross entropy of every bit, given the text and the coarser scales with some of their bits flipped."""

    config: InfinityTrainingConfig
    network: nn.ModuleDict
    average: nn.ModuleDict

    def __init__(self, config: InfinityTrainingConfig) -> None:
        super().__init__(config)
        trained = load_bsq_tokenizer(config.tokenizer)
        if trained.classes != self.train_scenes.classes:
            raise CheckpointError(
                f"{config.tokenizer}: trained on other classes ({', '.join(trained.classes[:3])}, ...) than those of "
                f"{config.data} ({', '.join(self.train_scenes.classes[:3])}, ...); train a tokenizer on these scenes."
            )
        self.tokenizer, self.schedule = trained.network, trained.schedule
        self.tokenizer.to(training_device(config.accelerator))
        self.shape = self._shape()
        torch.manual_seed(config.seed)
        text_encoder = TinyTextEncoder(TinyTextConfig(config.text_dim, config.text_tokens))
        transformer = initialise(
            InfinityTransformer(self.shape), torch.Generator().manual_seed(config.seed), gamma=config.gate_scale
        )
        network = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
        if config.init:
            load_parts(network, config.init)
        self.set_network(network)
        self.judge: FeatureNetwork | None = load_features()[0] if bundled_features().is_file() else None
        self.train_set, self.test_set = self._sets()

    def _shape(self) -> TransformerConfig:
        config = self.config
        return TransformerConfig(
            depth=config.depth,
            width=config.width,
            heads=config.heads,
            bits=self.tokenizer.config.bits,
            text_channels=config.text_dim,
            text_length=config.text_tokens,
            text_heads=config.text_heads,
            levels=len(self.schedule.grids),
            hidden=config.hidden,
        )

    def _sets(self) -> tuple[LatentSet, LatentSet]:
        config, out = self.config, Path(self.config.out)
        half = config.precision == "bf16-mixed"

        def encoded(scenes: Scenes, count: int, seed: int, name: str) -> LatentSet:
            return latent_set(self.tokenizer, scenes, count, config.crop, seed, out / f"{name}.safetensors", half)

        held_out = TEST_CROPS_PER_SCENE * len(self.test_scenes.labels)
        train = encoded(self.train_scenes, config.latent_crops, config.seed, "latents")
        return train, encoded(self.test_scenes, held_out, config.seed + 1, "test_latents")

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates, those of VAR."""
        return 0.9, 0.95

    def is_inner(self, name: str) -> bool:
        """The matrices of the blocks, the text encoder's among them."""
        return name.startswith(INNER) and "ada_gss" not in name

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy in nats a bit."""
        config = self.config
        random = np.random.default_rng([config.seed, step, 1])
        index = torch.from_numpy(random.integers(0, len(self.train_set.labels), config.batch_size))
        flip = None
        if config.flip_strength > 0:
            source = torch.Generator(self.device).manual_seed(int(random.integers(2**62)))
            flip = random_flips(source, config.flip_strength)
        return self._loss(self.network, self.train_set.rows(index, self.device), config.text_dropout, flip), {}

    def _loss(self, network: nn.ModuleDict, batch: LatentSet, dropout: float, flip: Replace | None) -> Tensor:
        transformer = cast("InfinityTransformer", network["transformer"])
        encoder = cast("TinyTextEncoder", network["text_encoder"])
        with torch.autocast(self.device.type, enabled=False):
            given = training_inputs(batch.latents, self.schedule.grids, flip=flip)
        prompts = prompt_batch(encoder, self.train_scenes.classes, batch.labels, dropout)
        with self._attention():
            logits = transformer(texts_of(transformer, prompts), given.inputs, self.schedule)
        return bit_loss(logits, given.targets, self.schedule.lengths if self.config.balance_scales else None)

    def _attention(self) -> AbstractContextManager[None]:
        # On a CPU the fused attention's backward costs more than all it saves: a whole step takes a fifth longer.
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def evaluate(self) -> dict[str, float]:
        """Held-out loss (also of train crops, to see memorising), and how the frozen classifier reads CFG samples."""
        measures = self.held_out()
        if self.judge is not None and self.judge.config.classes == len(self.train_scenes.classes):
            measures["sample_accuracy"] = sample_accuracy(
                self.model(), self.judge.to(self.device), self._guidance, SAMPLES_PER_CLASS
            )
        return measures

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Losses of the averaged weights on fixed crops, without flips, in nats a bit."""
        return {"test_loss": self._mean_loss(self.test_set), "train_loss": self._mean_loss(self.train_set)}

    def _mean_loss(self, crops: LatentSet) -> float:
        total, count = 0.0, min(MEASURED_CROPS, len(crops.labels))
        for index in torch.arange(count).split(MEASURED_AT_ONCE):
            batch = crops.rows(index, self.device)
            total += self._loss(self.average, batch, 0.0, None).item() * len(index) / count
        return total

    def model(self) -> Infinity:
        """The averaged weights as the generator that they will be."""
        transformer = cast("InfinityTransformer", self.average["transformer"])
        encoder = cast("TinyTextEncoder", self.average["text_encoder"])
        classes = self.train_scenes.classes
        return Infinity(
            transformer, self.tokenizer, self.schedule, text_encoder=encoder, name="infinity", classes=classes
        )

    @property
    def _guidance(self) -> str:
        return f"cfg(w={self.config.sample_cfg})"

    def pictures(self) -> Float[Tensor, "rows columns 3 h w"]:
        """Two samples of every class, without guidance and with it."""
        return sample_sheet(self.model(), ("none", self._guidance))


def texts_of(transformer: InfinityTransformer, prompts: PromptBatch) -> list[Float[Tensor, "_ ct"]]:
    """The text of each sample without padding; where dropped, as much of the learnt unconditional text."""
    # Slices, since a mask's length is known to the device alone.
    found = [text[:length] for text, length in zip(prompts.text, prompts.lengths, strict=True)]
    return [
        transformer.null_text(len(text)) if dropped else text
        for text, dropped in zip(found, prompts.dropped.tolist(), strict=True)
    ]


def bit_loss(
    logits: Float[Tensor, "b l two_bits"], targets: Int[Tensor, "b l bits"], lengths: tuple[int, ...] | None = None
) -> Float[Tensor, ""]:
    """Mean over bits of -log softmax([l0, l1])[bit] = log(1 + exp(-+(l1 - l0))).

    Args:
        logits: channel 2i is bit i = 0, channel 2i + 1 is bit i = 1.
        targets: the bits.
        lengths: tokens of each scale, to weigh a token by sqrt(tokens of the last scale / of its own), normalised to a
            mean of 1; by default all weigh the same.

    Source: arXiv 2412.04431, code.
    """
    differences = (logits[..., 1::2] - logits[..., ::2]).float()
    losses = F.binary_cross_entropy_with_logits(differences, targets.float(), reduction="none")
    if lengths is None:
        return losses.mean()
    areas = torch.tensor(lengths, device=logits.device)
    weights = (areas[-1] / areas).sqrt().repeat_interleave(areas)
    return (losses.mean((0, 2)) * weights / weights.mean()).mean()


def run(config: InfinityTrainingConfig) -> Path:
    """Train (or resume) and write `generator.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    module = InfinityTraining(config)
    fit(module)
    encoder = cast("TinyTextEncoder", module.average["text_encoder"])
    parts = {
        "transformer": asdict(module.shape),
        "text_encoder": asdict(encoder.config),
        "schedule": asdict(module.schedule),
    }
    path = Path(config.out) / "generator.safetensors"
    write_parts(module, "infinity", parts, tokenizer_hash(module.tokenizer), module.held_out(), path)
    return path
