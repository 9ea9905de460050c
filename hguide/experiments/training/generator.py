"""Training of the bundled VAR transformer on precomputed tokens."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.initialise import initialise
from hguide.backends.var.transformer import TransformerConfig, VARTransformer
from hguide.experiments.features import FeatureNetwork, bundled_features, load_features
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.fit import TrainingModule, fit, training_device, training_metadata
from hguide.experiments.training.parts import weights_file
from hguide.experiments.training.run_config import RunConfig
from hguide.experiments.training.sample import sample_images
from hguide.experiments.training.tokenizer import load_tokenizer
from hguide.experiments.training.tokens import TokenSet, token_set, var_input

__all__ = ["GeneratorTraining", "GeneratorTrainingConfig", "run"]

TEST_CROPS_PER_SCENE = 2


@dataclass(frozen=True, kw_only=True)
class GeneratorTrainingConfig(RunConfig):
    """Options of the generator's training.

    Attributes:
        tokenizer: weights that the tokenizer's training wrote; or a bundle or bundled name, whose tokenizer is taken.
        depth: blocks.
        width: channels.
        heads: attention heads.
        class_dropout: share of samples whose class is replaced by "no class", for classifier-free guidance.
        token_crops: random crops of train scenes whose tokens are computed once.
        corruption: share of input tokens replaced at random while the targets stay, 0 for teacher forcing as published.
        sample_cfg: guidance strength of the sample grid.
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
    class_dropout: float = 0.1
    token_crops: int = 33_600
    corruption: float = 0.0
    sample_cfg: float = 2.0
    gate_scale: float = 0.1


class GeneratorTraining(TrainingModule):
    """Cross entropy of every token given its class and the coarser scales."""

    config: GeneratorTrainingConfig
    network: VARTransformer
    average: VARTransformer

    def __init__(self, config: GeneratorTrainingConfig) -> None:
        super().__init__(config)
        self.tokenizer, self.tokenizer_metadata = load_tokenizer(weights_file(config.tokenizer))
        self.tokenizer.to(training_device(config.accelerator))
        self.shape = TransformerConfig(
            patch_nums=self.tokenizer.config.patch_nums,
            depth=config.depth,
            width=config.width,
            heads=config.heads,
            classes=len(self.train_scenes.classes),
            vocabulary=self.tokenizer.config.vocabulary,
            latent_channels=self.tokenizer.config.autoencoder.latent_channels,
            shared_adaln=True,
        )
        network = initialise(
            VARTransformer(self.shape), torch.Generator().manual_seed(config.seed), gamma=config.gate_scale
        )
        if config.init:
            load_transformer_weights(network, config.init)
        self.set_network(network)
        self.judge: FeatureNetwork | None = load_features()[0] if bundled_features().is_file() else None
        self.train_tokens, self.test_tokens = self._tokens()

    def _tokens(self) -> tuple[TokenSet, TokenSet]:
        config, out = self.config, Path(self.config.out)
        half = config.precision == "bf16-mixed"

        def tokens(scenes: Scenes, count: int, seed: int, name: str) -> TokenSet:
            return token_set(self.tokenizer, scenes, count, config.crop, seed, out / f"{name}.safetensors", half)

        held_out = TEST_CROPS_PER_SCENE * len(self.test_scenes.labels)
        train = tokens(self.train_scenes, config.token_crops, config.seed, "tokens")
        return train, tokens(self.test_scenes, held_out, config.seed + 1, "test_tokens")

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates, those of VAR."""
        return 0.9, 0.95

    def is_inner(self, name: str) -> bool:
        """The matrices of the blocks."""
        return name.startswith("blocks.") and "ada_gss" not in name

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy over positions, in nats a token."""
        config = self.config
        random = np.random.default_rng([config.seed, step, 1])
        index = torch.from_numpy(random.integers(0, len(self.train_tokens.labels), config.batch_size))
        tokens = self.train_tokens.tokens[index].to(self.device)
        labels = self.train_tokens.labels[index].to(self.device)
        dropped = torch.rand(len(labels), device=self.device) < config.class_dropout
        labels = torch.where(dropped, self.shape.null_label, labels)
        inputs = tokens
        if config.corruption > 0:
            share = config.corruption * torch.rand(len(tokens), 1, device=self.device)
            replaced = torch.rand(tokens.shape, device=self.device) < share
            inputs = torch.where(replaced, torch.randint_like(tokens, self.shape.vocabulary), tokens)
        logits = self.network(labels, var_input(self.tokenizer, inputs))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        return loss, {}

    def evaluate(self) -> dict[str, float]:
        """Held-out loss (also of train crops, to see memorising), and how the frozen classifier reads CFG samples."""
        measures = {
            "test_loss": self._mean_loss(self.test_tokens),
            "train_loss": self._mean_loss(TokenSet(self.train_tokens.tokens[:840], self.train_tokens.labels[:840])),
        }
        if self.judge is not None:
            labels = torch.arange(len(self.train_scenes.classes)).repeat(8).to(self.device)
            images = self.samples(labels, self.config.sample_cfg)
            found = self.judge.to(self.device)(images).argmax(1)
            measures["sample_accuracy"] = (found == labels).float().mean().item()
        return measures

    def _mean_loss(self, tokens: TokenSet) -> float:
        total = 0.0
        for part, labels in zip(tokens.tokens.split(105), tokens.labels.split(105), strict=True):
            part = part.to(self.device)
            logits = self.average(labels.to(self.device), var_input(self.tokenizer, part))
            total += F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="sum").item()
        return total / tokens.tokens.numel()

    def samples(self, labels: Int[Tensor, " b"], strength: float) -> Float[Tensor, "b 3 h w"]:
        """Samples of the averaged weights under VAR's classifier-free guidance."""
        return sample_images(self.average, self.tokenizer, labels, strength, seed=0)

    def pictures(self) -> Float[Tensor, "rows columns 3 h w"]:
        """Two samples of every class, without guidance and with it."""
        classes = len(self.train_scenes.classes)
        labels = torch.arange(classes).repeat(2).to(self.device)
        size = self.tokenizer.config.image_size
        grids = [
            self.samples(labels, strength).view(2, classes, 3, size, size) for strength in (0.0, self.config.sample_cfg)
        ]
        return torch.cat(grids)


def load_transformer_weights(network: VARTransformer, path: str) -> None:
    """Take the transformer's weights from a bundled model by name, a bundle, or a file of `run`."""
    from safetensors.torch import load_file

    state = load_file(weights_file(path))
    prefix = "transformer." if any(key.startswith("transformer.") for key in state) else ""
    network.load_state_dict(
        {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    )


def run(config: GeneratorTrainingConfig) -> Path:
    """Train (or resume) the generator and write `generator.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    module = GeneratorTraining(config)
    fit(module)
    measured = {"test_loss": module._mean_loss(module.test_tokens)}
    path = Path(config.out) / "generator.safetensors"
    write_generator(module, measured, path)
    return path


def write_generator(module: GeneratorTraining, measured: dict[str, float], path: Path) -> None:
    """Write the averaged weights with what they belong to."""
    from safetensors.torch import save_file

    metadata = {
        "family": "var-transformer",
        "transformer": asdict(module.shape),
        "tokenizer_hash": tokenizer_hash(module.tokenizer),
        "training": training_metadata(module) | measured,
    }
    state = {key: value.float().contiguous().cpu() for key, value in module.average.state_dict().items()}
    save_file(state, str(path), {"hguide": json.dumps(metadata)})
