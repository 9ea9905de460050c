"""A tokenizer and a training of VQ-Diffusion, made small."""

from __future__ import annotations

from pathlib import Path

PACE = {"steps": 2, "epoch_steps": 2, "checkpoint_steps": 1, "warmup_steps": 1, "learning_rate": 0.02}
WHERE = {"crop": 16, "precision": "32-true", "accelerator": "cpu"}


def small_vqgan(coded: Path, out: Path, **changes: object):  # type: ignore[no-untyped-def]
    from hguide.experiments.training.vqgan_tokenizer import VQGANTrainingConfig

    shape = {"channels": 8, "multipliers": (1, 1, 1), "latent_channels": 4, "vocabulary": 16, "code_channels": 4}
    options = PACE | WHERE | shape | {"batch_size": 2, "learning_rate": 1e-3} | changes
    return VQGANTrainingConfig(data=str(coded), out=str(out), **options)


def small_vq_diffusion(coded: Path, out: Path, tokenizer: Path, **changes: object):  # type: ignore[no-untyped-def]
    from hguide.experiments.training.vq_diffusion import VQDiffusionTrainingConfig

    shape = {"width": 16, "depth": 1, "heads": 2, "mlp_ratio": 1.0, "timesteps": 10, "sample_calls": 4}
    options = PACE | WHERE | shape | {"batch_size": 4, "token_crops": 8} | changes
    return VQDiffusionTrainingConfig(data=str(coded), out=str(out), tokenizer=str(tokenizer), **options)
