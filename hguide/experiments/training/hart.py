"""Training of the bundled HART: transformer, residual head and text encoder together, on precomputed tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hguide.backends.hart import HART, HARTTransformer, TransformerConfig
from hguide.backends.hart.conditioning import conditioning_of
from hguide.backends.hart.diffusion_schedule import TRAINED_STEPS
from hguide.backends.hart.initialise import initialise
from hguide.backends.hart.residual_loss import residual_loss
from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.experiments.features import FeatureNetwork, bundled_features, load_features
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.fit import TrainingModule, fit, training_device
from hguide.experiments.training.generated import sample_accuracy, sample_sheet
from hguide.experiments.training.hybrid_tokens import HybridSet, hybrid_set, load_hart_tokenizer
from hguide.experiments.training.parts import load_parts, write_parts
from hguide.experiments.training.prompts import prompt_batch
from hguide.experiments.training.run_config import RunConfig
from hguide.experiments.training.tokens import var_input

__all__ = ["HARTTraining", "HARTTrainingConfig", "run"]

TEST_CROPS_PER_SCENE = 2
MEASURED_CROPS = 840
MEASURED_AT_ONCE = 105
SAMPLES_PER_CLASS = 8
INNER = ("transformer.blocks.", "transformer.diffloss.net.res_blocks.", "text_encoder.layers.")
MODULATION = ("ada_lin", "adaLN_modulation", "scale_shift_table")


@dataclass(frozen=True, kw_only=True)
class HARTTrainingConfig(RunConfig):
    """Options of HART's training.

    Attributes:
        tokenizer: weights that the tokenizer's training wrote, a bundle, or a bundled name.
        depth: blocks.
        width: channels.
        heads: attention heads.
        hidden: channels of the feed-forward layers.
        adaln: how the text modulates the blocks: "none", "linear" or "table".
        residual_width: channels of the residual head.
        residual_depth: blocks of the residual head.
        text_tokens: bytes that the text encoder reads of a prompt; class names are the prompts.
        text_dim: channels of the text encoder.
        text_dropout: share of samples whose text is replaced by the null condition, for classifier-free guidance.
        token_crops: random crops of train scenes whose tokens and rests are computed once.
        noise_draws: noise levels and noises drawn for each token of the last scale.
        residual_weight: of the residual head's loss beside the cross entropy.
        sample_cfg: guidance strength of the sample grid.
    """

    tokenizer: str
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    depth: int = 6
    width: int = 192
    heads: int = 6
    hidden: int = 512
    adaln: str = "table"
    residual_width: int = 128
    residual_depth: int = 3
    text_tokens: int = 24
    text_dim: int = 64
    text_dropout: float = 0.1
    token_crops: int = 33_600
    noise_draws: int = 4
    residual_weight: float = 1.0
    sample_cfg: float = 3.0


class HARTTraining(TrainingModule):
    """Cross entropy of the tokens of all scales, and the diffusion loss of what the last scale's tokens leave over.

    All places of the last scale are trained at once, as they are drawn by default; official training keeps a random
    part of them, for drawing in several calls.
    """

    config: HARTTrainingConfig
    network: nn.ModuleDict
    average: nn.ModuleDict

    def __init__(self, config: HARTTrainingConfig) -> None:
        super().__init__(config)
        self.tokenizer = load_hart_tokenizer(config.tokenizer)
        self.tokenizer.to(training_device(config.accelerator))
        self.shape = self._shape()
        torch.manual_seed(config.seed)
        text_encoder = TinyTextEncoder(TinyTextConfig(config.text_dim, config.text_tokens))
        transformer = initialise(HARTTransformer(self.shape), torch.Generator().manual_seed(config.seed))
        network = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
        if config.init:
            load_parts(network, config.init)
        self.set_network(network)
        self.judge: FeatureNetwork | None = load_features()[0] if bundled_features().is_file() else None
        self.train_set, self.test_set = self._sets()

    def _shape(self) -> TransformerConfig:
        config, pictures = self.config, self.tokenizer.config
        return TransformerConfig(
            patch_nums=pictures.patch_nums,
            depth=config.depth,
            width=config.width,
            heads=config.heads,
            hidden=config.hidden,
            vocabulary=pictures.vocabulary,
            latent_channels=pictures.autoencoder.latent_channels,
            context_tokens=config.text_tokens,
            context_dim=config.text_dim,
            adaln=config.adaln,
            pooling="avg",
            residual_width=config.residual_width,
            residual_depth=config.residual_depth,
        )

    def _sets(self) -> tuple[HybridSet, HybridSet]:
        config, out = self.config, Path(self.config.out)
        half = config.precision == "bf16-mixed"

        def encoded(scenes: Scenes, count: int, seed: int, name: str) -> HybridSet:
            return hybrid_set(self.tokenizer, scenes, count, config.crop, seed, out / f"{name}.safetensors", half)

        held_out = TEST_CROPS_PER_SCENE * len(self.test_scenes.labels)
        train = encoded(self.train_scenes, config.token_crops, config.seed, "hybrid_tokens")
        return train, encoded(self.test_scenes, held_out, config.seed + 1, "test_hybrid_tokens")

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates, those of VAR."""
        return 0.9, 0.95

    def is_inner(self, name: str) -> bool:
        """The matrices of the blocks, the residual head's and the text encoder's among them."""
        return name.startswith(INNER) and not any(part in name for part in MODULATION)

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy in nats a token, plus the residual head's two terms."""
        config = self.config
        random = np.random.default_rng([config.seed, step, 1])
        index = torch.from_numpy(random.integers(0, len(self.train_set.labels), config.batch_size))
        terms = self._terms(self.network, self.train_set.rows(index, self.device), config.text_dropout)
        loss = terms["entropy"] + config.residual_weight * (terms["noise"] + terms["variance"])
        return loss, {name: value.detach() for name, value in terms.items()}

    def _terms(self, network: nn.ModuleDict, batch: HybridSet, dropout: float) -> dict[str, Float[Tensor, ""]]:
        transformer = cast("HARTTransformer", network["transformer"])
        encoder = cast("TinyTextEncoder", network["text_encoder"])
        prompts = prompt_batch(encoder, self.train_scenes.classes, batch.labels, dropout)
        conditioning = conditioning_of(transformer, prompts.text, prompts.mask, prompts.dropped)
        logits, hidden = transformer(conditioning, var_input(self.tokenizer, batch.tokens))
        entropy = F.cross_entropy(logits.flatten(0, 1), batch.tokens.flatten())
        rests = batch.rests.flatten(2).transpose(1, 2)
        last = rests.shape[1]
        codes = self.tokenizer.quantize.embedding(batch.tokens[:, -last:])
        condition = transformer.residual_condition(hidden[:, -last:], codes)
        draws = self.config.noise_draws
        residual = (rests - codes).flatten(0, 1).repeat(draws, 1)
        timesteps = torch.randint(TRAINED_STEPS, (len(residual),), device=residual.device)
        noise = torch.randn_like(residual)
        condition = condition.flatten(0, 1).repeat(draws, 1)
        found = residual_loss(transformer.residual_head, condition, residual, timesteps, noise)
        return {"entropy": entropy, "noise": found.noise, "variance": found.variance}

    def evaluate(self) -> dict[str, float]:
        """Held-out losses (also of train crops, to see memorising), and how the frozen classifier reads CFG samples."""
        measures = self.held_out()
        if self.judge is not None and self.judge.config.classes == len(self.train_scenes.classes):
            guidance = f"cfg({self.config.sample_cfg})"
            measures["sample_accuracy"] = sample_accuracy(self.model(), self.judge, guidance, SAMPLES_PER_CLASS)
        return measures

    def held_out(self) -> dict[str, float]:
        """Losses of the averaged weights on fixed crops, with the same noise each time."""
        test, train = self._mean_terms(self.test_set), self._mean_terms(self.train_set)
        named = {"test_loss": test["entropy"], "train_loss": train["entropy"]}
        return named | {f"test_{name}": test[name] for name in ("noise", "variance")}

    @torch.no_grad()
    def _mean_terms(self, crops: HybridSet) -> dict[str, float]:
        # Each training step seeds anew, so this disturbs none.
        torch.manual_seed(self.config.seed)
        total: dict[str, float] = {}
        count = min(MEASURED_CROPS, len(crops.labels))
        for index in torch.arange(count).split(MEASURED_AT_ONCE):
            for name, value in self._terms(self.average, crops.rows(index, self.device), 0.0).items():
                total[name] = total.get(name, 0.0) + value.item() * len(index) / count
        return total

    def model(self) -> HART:
        """The averaged weights as the generator that they will be."""
        transformer = cast("HARTTransformer", self.average["transformer"])
        encoder = cast("TinyTextEncoder", self.average["text_encoder"])
        return HART(transformer, self.tokenizer, encoder, name="hart", classes=self.train_scenes.classes)

    def pictures(self) -> Float[Tensor, "rows columns 3 h w"]:
        """Two samples of every class, without guidance and with it."""
        return sample_sheet(self.model(), ("none", f"cfg({self.config.sample_cfg})"))


def run(config: HARTTrainingConfig) -> Path:
    """Train (or resume) and write `generator.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    module = HARTTraining(config)
    fit(module)
    encoder = cast("TinyTextEncoder", module.average["text_encoder"])
    parts = {"transformer": asdict(module.shape), "text_encoder": asdict(encoder.config)}
    path = Path(config.out) / "generator.safetensors"
    write_parts(module, "hart", parts, tokenizer_hash(module.tokenizer), module.held_out(), path)
    return path
