"""A small bitwise tokenizer's training, and that of a small Infinity on it."""

from __future__ import annotations

from pathlib import Path

from hguide.experiments.training.bsq_tokenizer import BSQTokenizerTrainingConfig
from hguide.experiments.training.infinity import InfinityTrainingConfig

BITS = 4
SIDES = (1, 2, 4)
COMMON = {"steps": 2, "epoch_steps": 2, "checkpoint_steps": 1, "crop": 16, "precision": "32-true", "accelerator": "cpu"}


def small_bsq(coded: Path, out: Path, **changes: object) -> BSQTokenizerTrainingConfig:
    shape = {"channels": 16, "multipliers": (1, 1, 1), "groups": 4, "latent_channels": BITS, "patch_nums": SIDES}
    options = {**COMMON, "batch_size": 2, **shape, **changes}
    return BSQTokenizerTrainingConfig(data=str(coded), out=str(out), **options)  # type: ignore[arg-type]


def small_infinity(coded: Path, out: Path, tokenizer: Path, **changes: object) -> InfinityTrainingConfig:
    shape = {"depth": 1, "width": 16, "heads": 2, "hidden": 32, "text_heads": 2, "text_dim": 16, "text_tokens": 8}
    options = {**COMMON, "batch_size": 6, "latent_crops": 12, "warmup_steps": 1, **shape, **changes}
    return InfinityTrainingConfig(data=str(coded), out=str(out), tokenizer=str(tokenizer), **options)  # type: ignore[arg-type]
