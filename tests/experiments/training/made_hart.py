"""A training of HART, made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hguide.experiments.training.hart import HARTTrainingConfig


def small_hart(coded: Path, tokenizer: Path, out: Path, **changes: Any) -> HARTTrainingConfig:
    run_options = {"steps": 4, "epoch_steps": 4, "batch_size": 4, "crop": 16, "precision": "32-true", "token_crops": 8}
    learning = {"optimizer": "muon", "warmup_steps": 1, "learning_rate": 0.01}
    shape = {"width": 16, "depth": 1, "heads": 2, "hidden": 16, "residual_width": 16, "residual_depth": 1}
    text = {"text_tokens": 8, "text_dim": 16}
    return HARTTrainingConfig(
        data=str(coded), tokenizer=str(tokenizer), out=str(out), accelerator="cpu",
        **(run_options | learning | shape | text | changes),
    )  # fmt: skip
