"""Training of the bundled VQ-Diffusion denoiser on precomputed codes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.vq_diffusion import Denoiser, DenoiserConfig, Inference, NoiseSchedule, VQDiffusion
from hguide.backends.vq_diffusion.inference import even_shares
from hguide.backends.vq_diffusion.initialise import initialise
from hguide.backends.vq_diffusion.training_loss import LossTerms, loss_terms, noisy_tokens, spread_timesteps
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.features import FeatureNetwork, bundled_features, load_features
from hguide.experiments.training.code_tokens import code_set
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.fit import TrainingModule, fit, training_device
from hguide.experiments.training.generated import sample_accuracy, sample_sheet
from hguide.experiments.training.parts import load_parts, write_parts
from hguide.experiments.training.run_config import RunConfig
from hguide.experiments.training.tokens import TokenSet
from hguide.experiments.training.vqgan_tokenizer import load_vqgan

__all__ = ["VQDiffusionTraining", "VQDiffusionTrainingConfig", "run"]

TEST_CROPS_PER_SCENE = 2
MEASURED_CROPS = 840
MEASURED_AT_ONCE = 105
SAMPLES_PER_CLASS = 4


@dataclass(frozen=True, kw_only=True)
class VQDiffusionTrainingConfig(RunConfig):
    """Options of VQ-Diffusion's training.

    Attributes:
        tokenizer: weights that the tokenizer's training wrote, or a bundle of the family.
        depth: blocks.
        width: channels.
        heads: attention heads.
        mlp_ratio: hidden width of the convolutional MLP over `width`.
        timesteps: T of the schedule.
        auxiliary_weight: lambda of the cross entropy of the clean tokens beside the variational bound.
        class_dropout: share of samples whose class is replaced by the learnt null class, for classifier-free guidance.
        token_crops: random crops of train scenes whose codes are computed once.
        sample_calls: network calls of a sample: equal shares of the tokens are revealed, the purest first (arXiv
            2205.16007, *reconstructed* shares). The bundle keeps this as its default. 0 runs the plain process of T
            calls.
        sample_cfg: guidance strength w of the sample grid; 1 is none.
    """

    tokenizer: str
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    depth: int = 6
    width: int = 192
    heads: int = 6
    mlp_ratio: float = 0.3333
    timesteps: int = 100
    auxiliary_weight: float = 5e-4
    class_dropout: float = 0.1
    token_crops: int = 33_600
    sample_calls: int = 25
    sample_cfg: float = 2.0


class VQDiffusionTraining(TrainingModule):
    """Variational bound of the reverse process, and the cross entropy of the clean tokens."""

    config: VQDiffusionTrainingConfig
    network: nn.ModuleDict
    average: nn.ModuleDict

    def __init__(self, config: VQDiffusionTrainingConfig) -> None:
        super().__init__(config)
        self.tokenizer, about = load_vqgan(config.tokenizer)
        self.tokenizer.to(training_device(config.accelerator))
        if tuple(about["classes"]) != self.train_scenes.classes:
            raise CheckpointError(
                f"{config.tokenizer}: trained on other classes ({', '.join(about['classes'][:3])}, ...) than those of "
                f"{config.data} ({', '.join(self.train_scenes.classes[:3])}, ...); train a tokenizer on these scenes."
            )
        self.shape = self._shape()
        self.schedule = NoiseSchedule(self.shape.timesteps, self.shape.codes)
        self.inference = self._inference()
        denoiser = initialise(Denoiser(self.shape), torch.Generator().manual_seed(config.seed))
        network = nn.ModuleDict({"denoiser": denoiser})
        if config.init:
            load_parts(network, config.init)
        self.set_network(network)
        self.judge: FeatureNetwork | None = load_features()[0] if bundled_features().is_file() else None
        self.train_tokens, self.test_tokens = self._tokens()

    def _shape(self) -> DenoiserConfig:
        config, stride = self.config, self.tokenizer.config.autoencoder.stride
        if config.crop % stride:
            raise ConfigError(f"crop must be a multiple of the tokenizer's stride {stride}, got {config.crop}.")
        grid = (config.crop // stride, config.crop // stride)
        return DenoiserConfig(
            condition="class",
            codes=self.tokenizer.config.codes,
            timesteps=config.timesteps,
            depth=config.depth,
            width=config.width,
            heads=config.heads,
            grid=grid,
            position_grid=grid,
            classes=len(self.train_scenes.classes),
            learned_null=True,
            mlp_ratio=config.mlp_ratio,
        )

    def _inference(self) -> Inference:
        if self.config.sample_calls == 0:
            return Inference()
        shares = even_shares(self.shape.timesteps, self.shape.length, self.config.sample_calls)
        return Inference(prior_rule=2, tokens_per_step=shares)

    def _tokens(self) -> tuple[TokenSet, TokenSet]:
        config, out = self.config, Path(self.config.out)
        half = config.precision == "bf16-mixed"

        def tokens(scenes: Scenes, count: int, seed: int, name: str) -> TokenSet:
            return code_set(self.tokenizer, scenes, count, config.crop, seed, out / f"{name}.safetensors", half)

        held_out = TEST_CROPS_PER_SCENE * len(self.test_scenes.labels)
        train = tokens(self.train_scenes, config.token_crops, config.seed, "tokens")
        return train, tokens(self.test_scenes, held_out, config.seed + 1, "test_tokens")

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates, those of VAR."""
        return 0.9, 0.95

    def is_inner(self, name: str) -> bool:
        """The matrices and kernels of the blocks, but for those that make scales and shifts."""
        return name.startswith("denoiser.blocks.") and ".ln" not in name

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """T (divergence + lambda entropy) of one batch, in nats a token."""
        config = self.config
        random = np.random.default_rng([config.seed, step, 1])
        index = torch.from_numpy(random.integers(0, len(self.train_tokens.labels), config.batch_size))
        terms = self._terms(self.network, self.train_tokens, index, config.class_dropout)
        logged = {"bound": terms.total(config.timesteps, 0.0), "entropy": terms.entropy.mean()}
        loss = terms.total(config.timesteps, config.auxiliary_weight)
        return loss, {name: value.detach() for name, value in logged.items()}

    def _terms(self, network: nn.ModuleDict, crops: TokenSet, index: Tensor, dropout: float) -> LossTerms:
        tokens, labels = crops.tokens[index].to(self.device), crops.labels[index].to(self.device)
        timesteps = spread_timesteps(len(index), self.shape.timesteps).to(self.device)
        noisy = noisy_tokens(tokens, timesteps, self.schedule)
        dropped = torch.rand(len(labels), device=self.device) < dropout
        labels = torch.where(dropped, self.shape.null_label, labels)
        logits = network["denoiser"](noisy, timesteps, labels)
        return loss_terms(logits, tokens, noisy, timesteps, self.schedule)

    def evaluate(self) -> dict[str, float]:
        """Held-out bound (also of train crops, to see memorising), and how the frozen classifier reads CFG samples."""
        measures = self.held_out()
        if self.judge is not None and self.judge.config.classes == len(self.train_scenes.classes):
            measures["sample_accuracy"] = sample_accuracy(
                self.model(), self.judge.to(self.device), self._guidance, SAMPLES_PER_CLASS
            )
        return measures

    def held_out(self) -> dict[str, float]:
        """The bound of the averaged weights on fixed crops with the same noise each time, in nats a token."""
        test, train = self._means(self.test_tokens), self._means(self.train_tokens)
        return {"test_loss": test["bound"], "train_loss": train["bound"], "test_entropy": test["entropy"]}

    @torch.no_grad()
    def _means(self, crops: TokenSet) -> dict[str, float]:
        # Each training step seeds anew, so this disturbs none.
        torch.manual_seed(self.config.seed)
        total = {"bound": 0.0, "entropy": 0.0}
        count = min(MEASURED_CROPS, len(crops.labels))
        for index in torch.arange(count).split(MEASURED_AT_ONCE):
            terms = self._terms(self.average, crops, index, 0.0)
            total["bound"] += terms.total(self.shape.timesteps, 0.0).item() * len(index) / count
            total["entropy"] += terms.entropy.mean().item() * len(index) / count
        return total

    def model(self) -> VQDiffusion:
        """The averaged weights as the generator that they will be."""
        denoiser = cast("Denoiser", self.average["denoiser"])
        classes = self.train_scenes.classes
        return VQDiffusion(denoiser, self.tokenizer, name="vq-diffusion", classes=classes, inference=self.inference)

    @property
    def _guidance(self) -> str:
        return f"cfg(w={self.config.sample_cfg})"

    def pictures(self) -> Float[Tensor, "rows columns 3 h w"]:
        """Two samples of every class, without guidance and with it."""
        return sample_sheet(self.model(), ("none", self._guidance))


def run(config: VQDiffusionTrainingConfig) -> Path:
    """Train (or resume) and write `generator.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    module = VQDiffusionTraining(config)
    fit(module)
    parts = {"denoiser": asdict(module.shape), "inference": asdict(module.inference)}
    path = Path(config.out) / "generator.safetensors"
    write_parts(module, "vq_diffusion", parts, tokenizer_hash(module.tokenizer), module.held_out(), path)
    return path
