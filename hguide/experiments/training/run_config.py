"""Options that every training has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hguide.errors import ConfigError

__all__ = ["RunConfig"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Options that every training has.

    Attributes:
        data: folder of the scenes (see `data.load_scenes`).
        out: folder for checkpoints, pictures, metrics and the weights; the same folder resumes.
        seed: everything random follows from it and from the step number.
        batch_size: crops per step.
        crop: side of a crop in pixels.
        steps: length of the training; the learning rate reaches zero at its end.
        minutes: if given, the schedule follows the clock (all sessions of the run added up) where that is ahead of the
            steps, so that a training fits its time on any machine; the steps done are recorded.
        epoch_steps: steps between two looks at the held-out scenes (metrics, sample grid).
        checkpoint_steps: steps between checkpoints.
        learning_rate: peak value.
        warmup_steps: linear warm-up.
        weight_decay: of matrices and kernels; never of biases, norms and embeddings.
        ema_decay: averaging of the weights; ramps up as (1 + n) / (10 + n).
        gradient_clip: largest gradient norm.
        optimizer: "adamw", or "muon" for the inner matrices and kernels with AdamW for the rest.
        precision: of matrix products and convolutions, as Lightning names it; weights stay float32.
        accelerator: as Lightning names it.
        threads: CPU threads, None for torch's choice.
        init: weights to start from, None for fresh ones.
    """

    data: str
    out: str
    seed: int = 0
    batch_size: int = 64
    crop: int = 64
    steps: int = 10_000
    minutes: float | None = None
    epoch_steps: int = 500
    checkpoint_steps: int = 250
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    gradient_clip: float = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    accelerator: str = "auto"
    threads: int | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "crop", "steps", "epoch_steps", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
