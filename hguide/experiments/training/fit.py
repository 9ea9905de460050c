"""What every training of hguide shares: options, the learning rate, averaged weights, checkpoints and resuming."""

from __future__ import annotations

import copy
import json
import math
import platform
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from hguide.errors import NumericalError
from hguide.experiments.training.callbacks import Progress, Saver, interruptible, quiet
from hguide.experiments.training.data import Scenes, load_scenes
from hguide.experiments.training.muon import Muon
from hguide.experiments.training.resume import check_options, last_checkpoint, read_checkpoint, write_options
from hguide.experiments.training.run_config import RunConfig

__all__ = ["RunConfig", "TrainingModule", "fit", "learning_rate_factor", "training_device", "training_metadata"]


def learning_rate_factor(progress: float, step: int, warmup: int) -> float:
    """Linear warm-up times a half cosine from 1 to 0: min(1, (step + 1) / warmup) (1 + cos(pi progress)) / 2."""
    return min(1.0, (step + 1) / max(warmup, 1)) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


class TrainingModule(lightning.LightningModule, ABC):
    """A training whose every step depends on its number only, so that a run killed at any point resumes.

    Subclasses set `network`, then implement `loss`, `evaluate` and `pictures`. The optimiser steps are taken here
    (Lightning's manual optimisation), because the learning rate may follow the clock.
    """

    network: nn.Module
    average: nn.Module

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        # Before all else: what comes next takes long, and the generators' writes the crops' tokens into `out`.
        check_options(config)
        self.config = config
        self.automatic_optimization = False
        self.steps_done = 0
        self.seconds = 0.0
        self.train_scenes: Scenes = load_scenes(config.data, "train")
        self.test_scenes: Scenes = load_scenes(config.data, "test")
        self.scenes_hash = self.train_scenes.hash
        self.averages: dict[str, float] = {}
        self._clock: float | None = None

    def set_network(self, network: nn.Module) -> None:
        """Take the network to train and start its averaged copy."""
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()

    @abstractmethod
    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one step, and the quantities to log."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Held-out measures of the averaged weights."""

    def pictures(self) -> Tensor | None:
        """A grid `(rows, columns, 3, h, w)` in [0, 1] to look at after each epoch, or None."""
        return None

    @property
    def progress(self) -> float:
        """Share of the schedule that lies behind, in [0, 1]."""
        by_steps = self.steps_done / self.config.steps
        by_clock = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(by_steps, by_clock))

    def configure_optimizers(self) -> torch.optim.Optimizer | list[torch.optim.Optimizer]:
        """AdamW, or Muon for the inner matrices; weight decay on matrices and kernels only."""
        config = self.config
        named = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim >= 2 and min(p.shape[:2]) > 1 and self.is_inner(name)]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        if config.optimizer == "muon":
            adam = torch.optim.AdamW(rest, lr=config.learning_rate, betas=self.betas, weight_decay=0.0)
            return [Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay), adam]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=self.betas)

    def is_inner(self, name: str) -> bool:
        """Whether a matrix lies inside the network; embeddings, codebooks, first and last layers do not."""
        return True

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates."""
        return 0.9, 0.99

    def on_fit_start(self) -> None:
        """Bring the scenes to where the network trains, so that crops are cut there."""
        self.train_scenes = self.train_scenes.to(self.device)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        """Step counters only: each step draws its own crops."""
        return torch.utils.data.DataLoader(list(range(self.config.epoch_steps)), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One optimiser step; its randomness follows from the seed and the step number."""
        config, step = self.config, self.steps_done
        torch.manual_seed(config.seed * 1_000_003 + step)
        factor = learning_rate_factor(self.progress, step, config.warmup_steps)
        loss, logged = self.loss(step)
        if not torch.isfinite(loss):
            raise NumericalError(
                f"the loss is {loss.item()} at step {step}: train with a lower learning_rate "
                f"(now {config.learning_rate}) into another out."
            )
        self.optimise(loss, factor)
        self._average_weights()
        self._count(logged | {"loss": loss.detach()})

    def optimise(self, loss: Tensor, factor: float) -> None:
        """Backward, clip, step."""
        found = self.optimizers()
        optimisers = found if isinstance(found, list) else [found]
        for optimiser in optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * factor
        self.manual_backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        for optimiser in optimisers:
            optimiser.step()

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
        for kept, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            kept.lerp_(weight, 1 - decay)
        for mean, value in zip(self.average.buffers(), self.network.buffers(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _count(self, logged: dict[str, Tensor]) -> None:
        self.steps_done += 1
        now = time.monotonic()
        self.seconds += now - self._clock if self._clock is not None else 0.0
        self._clock = now
        # One transfer for all: each would wait for the device.
        values = torch.stack([value.detach().float() for value in logged.values()]).tolist()
        for name, value in zip(logged, values, strict=True):
            self.averages[name] = 0.98 * self.averages.get(name, value) + 0.02 * value
        if self._trainer is not None:
            self.trainer.should_stop = self.progress >= 1.0

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._clock = time.monotonic()

    def on_train_epoch_end(self) -> None:
        """Measure on held-out scenes and write the metrics and the pictures."""
        self.report()

    @torch.no_grad()
    def report(self) -> None:
        """Write one line of metrics and one grid of pictures."""
        out = Path(self.config.out)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16-mixed"):
            held_out = self.evaluate()
            grid = self.pictures()
        line = {
            "step": self.steps_done,
            "seconds": round(self.seconds, 1),
            "crops_per_second": round(self.steps_done * self.config.batch_size / max(self.seconds, 1e-9), 1),
            **{name: round(value, 5) for name, value in (self.averages | held_out).items()},
        }
        with (out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if grid is not None:
            save_grid(grid, out / "pictures" / f"step_{self.steps_done:06d}.png")
        self._clock = time.monotonic()

    def reported(self) -> bool:
        """Whether the metrics have a line of this step: a run may be killed between its last checkpoint and that."""
        file = Path(self.config.out) / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return any(line.startswith(f'{{"step": {self.steps_done},') for line in lines)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counters, and what tells the scenes from others."""
        counters = {"steps": self.steps_done, "seconds": self.seconds, "averages": dict(self.averages)}
        checkpoint["hguide"] = {**counters, "scenes": self.scenes_hash}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters."""
        kept = checkpoint["hguide"]
        self.steps_done, self.seconds, self.averages = kept["steps"], kept["seconds"], dict(kept["averages"])


def training_device(accelerator: str) -> torch.device:
    """Where a training under this accelerator computes: what is encoded before it starts is encoded there too."""
    return lightning.Fabric(accelerator=accelerator, devices=1).device


def save_grid(grid: Tensor, path: Path) -> None:
    """Write `(rows, columns, 3, h, w)` pictures in [0, 1] as one PNG."""
    from einops import rearrange
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = rearrange(grid.float().clamp(0, 1), "r c k h w -> (r h) (c w) k")
    Image.fromarray((sheet * 255).round().byte().cpu().numpy()).save(path)


def fit(module: TrainingModule) -> None:
    """Train to the end of the schedule, from the last checkpoint in `out` where there is one.

    Where that is at the end already, the module takes its weights and nothing is trained.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another network, tokenizer or other scenes.
    """
    config = module.config
    last = last_checkpoint(config)
    kept = read_checkpoint(last, module, module.scenes_hash) if last.is_file() else None
    Path(config.out).mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    write_options(config)
    if kept is not None:
        module.on_load_checkpoint(kept)
    finished = kept is not None and module.progress >= 1.0
    if kept is not None and finished:
        module.load_state_dict(kept["state_dict"])
        print(f"nothing left to train: {config.out} has done its {module.steps_done} steps.", file=sys.stderr)
    else:
        _train(module, last, resumes=kept is not None)
    # Lightning leaves the module on the CPU; what is measured at the end is measured where it was trained.
    module.to(training_device(config.accelerator))
    if finished and not module.reported():
        module.report()


def _train(module: TrainingModule, last: Path, *, resumes: bool) -> None:
    config = module.config
    with quiet(), interruptible():
        trainer = lightning.Trainer(
            accelerator=config.accelerator,
            devices=1,
            max_epochs=-1,
            max_steps=-1,
            precision=config.precision,
            callbacks=[Progress(), Saver(last, config.checkpoint_steps)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            benchmark=True,
        )
        trainer.fit(module, ckpt_path=str(last) if resumes else None, weights_only=True)
        trainer.save_checkpoint(last, weights_only=False)


def training_metadata(module: TrainingModule) -> dict[str, Any]:
    """What is needed to repeat a training: seed, data hash, versions, steps, recipe."""
    recipe = asdict(module.config)
    return {
        "seed": module.config.seed,
        "steps": module.steps_done,
        "minutes": round(module.seconds / 60, 1),
        "train_scenes_sha256": module.train_scenes.hash,
        "test_scenes_sha256": module.test_scenes.hash,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "machine": platform.machine(),
        "recipe": {name: _recorded(value) for name, value in recipe.items() if name not in ("data", "out")},
    }


def _recorded(value: Any) -> Any:
    """A file by its name alone: where it lay on somebody's disk is nobody's business."""
    return Path(value).name if isinstance(value, str) and "/" in value else value
