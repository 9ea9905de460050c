"""`hguide train`: the trainings of the bundled model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hguide.cli.jobs import Job, choose

TRAINING = "hguide.experiments.training"

JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "features": Job(
            "Train the feature network that measures and class accuracies stand on.",
            "hguide train features --data ucmerced96 --out runs/features",
            f"{TRAINING}.features",
            "FeaturesConfig",
        ),
        "tokenizer": Job(
            "Train the multi-scale tokenizer (VQVAE). The same command resumes.",
            "hguide train tokenizer --data ucmerced96 --out runs/tokenizer --minutes 60\n"
            "hguide train tokenizer --config tokenizer.yaml",
            f"{TRAINING}.tokenizer",
            "TokenizerTrainingConfig",
        ),
        "generator": Job(
            "Train the next-scale transformer on a trained tokenizer. The same command resumes.",
            "hguide train generator --data ucmerced96 --tokenizer runs/tokenizer/tokenizer.safetensors --out runs/var",
            f"{TRAINING}.generator",
            "GeneratorTrainingConfig",
        ),
        "hart": Job(
            "Train HART with its residual head and text encoder on a trained tokenizer. The same command resumes.",
            "hguide train hart --data ucmerced96 --tokenizer landuse-var --out runs/hart",
            f"{TRAINING}.hart",
            "HARTTrainingConfig",
        ),
        "infinity-tokenizer": Job(
            "Train the bitwise tokenizer (BSQ) of an Infinity model. The same command resumes.",
            "hguide train infinity-tokenizer --data ucmerced96 --out runs/infinity-tokenizer",
            f"{TRAINING}.bsq_tokenizer",
            "BSQTokenizerTrainingConfig",
        ),
        "infinity": Job(
            "Train Infinity with its text encoder on a trained bitwise tokenizer. The same command resumes.",
            "hguide train infinity --data ucmerced96 --tokenizer runs/infinity-tokenizer/tokenizer.safetensors "
            "--out runs/infinity",
            f"{TRAINING}.infinity",
            "InfinityTrainingConfig",
        ),
        "vqgan-tokenizer": Job(
            "Train the tokenizer of a VQ-Diffusion model: one map of codes. The same command resumes.",
            "hguide train vqgan-tokenizer --data ucmerced96 --init landuse-var --out runs/vqgan-tokenizer",
            f"{TRAINING}.vqgan_tokenizer",
            "VQGANTrainingConfig",
        ),
        "vq-diffusion": Job(
            "Train the denoiser of VQ-Diffusion on a trained tokenizer. The same command resumes.",
            "hguide train vq-diffusion --data ucmerced96 --tokenizer runs/vqgan-tokenizer/tokenizer.safetensors "
            "--out runs/vq-diffusion",
            f"{TRAINING}.vq_diffusion",
            "VQDiffusionTrainingConfig",
        ),
        "bundle": Job(
            "Join a trained tokenizer and a generator of any family into the one file that hguide.load reads.",
            "hguide train bundle --tokenizer runs/tokenizer/tokenizer.safetensors "
            "--generator runs/var/generator.safetensors --out my-var.safetensors",
            f"{TRAINING}.bundle",
            "BundleConfig",
        ),
        "evaluate": Job(
            "Measure a model on held-out scenes: reconstructions, and how the frozen classifier reads its samples.",
            "hguide train evaluate --data ucmerced96\n"
            "hguide train evaluate --data ucmerced96 --model my-var.safetensors --guidances \"['none', 'cfg(3.0)']\"",
            f"{TRAINING}.report",
            "EvaluationConfig",
        ),
        "reference": Job(
            "Compute the features of real crops that `hguide ablate` measures samples against.",
            "hguide train reference --data ucmerced96 --squeezenet squeezenet1_1.safetensors --out my.safetensors",
            f"{TRAINING}.reference",
            "ReferenceConfig",
        ),
    }
)


def chosen(arguments: Sequence[str]) -> tuple[Any, list[str], str]:
    """The training that was asked for."""
    return choose("train", JOBS, arguments)
