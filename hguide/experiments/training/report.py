"""What a trained model is worth: held-out reconstructions, and its samples as the frozen classifier reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.hart import HART
from hguide.backends.infinity import Infinity
from hguide.backends.var import VAR
from hguide.backends.vq_diffusion import VQDiffusion
from hguide.errors import ConfigError
from hguide.experiments.features import FeatureNetwork, load_features
from hguide.experiments.training.bsq_tokenizer import reconstruct_from_bits
from hguide.experiments.training.data import load_scenes
from hguide.experiments.training.evaluate import evaluate_reconstructions
from hguide.experiments.training.hybrid_tokens import hybrid_reconstruct
from hguide.experiments.training.perceptual import PerceptualDistance
from hguide.experiments.training.tokenizer import reconstruct
from hguide.experiments.training.vqgan_tokenizer import reconstruct_from_codes
from hguide.generate import generate
from hguide.generator import ScaleGenerator
from hguide.load import load
from hguide.sampling import Sampler

__all__ = ["Evaluation", "EvaluationConfig", "run"]

Rebuild = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Options of the evaluation.

    Attributes:
        data: folder of the scenes.
        model: bundled name or file.
        guidances: sampled and classified, one after the other with the same seeds.
        seeds_per_class: images of each class and guidance.
        top_k: of the sampler; 0 keeps all.
        top_p: of the sampler; 0 keeps all.
        squeezenet: safetensors of SqueezeNet 1.1 for the perceptual distance; None leaves it out.
        out: JSON file, besides the output.
    """

    data: str
    model: str = "landuse-var"
    guidances: tuple[str, ...] = ("none", "cfg(1.5)", "cfg(3.0)", "cfg(3.0) | ssg(0.5)")
    seeds_per_class: int = 10
    top_k: int = 0
    top_p: float = 0.0
    squeezenet: str | None = None
    out: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Results by name; accuracies of samples carry a 95 % interval (Wilson)."""

    results: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The results as JSON."""
        return json.dumps(self.results, indent=2)


def run(config: EvaluationConfig) -> Evaluation:
    """Measure, print progress by guidance, write the JSON if asked for."""
    model = load(config.model)
    rebuilt = _reconstructions(model)
    scenes = load_scenes(config.data, "test")
    classifier, about = load_features()
    if tuple(about["classes"]) != model.class_names:
        raise ConfigError(f"{config.model} has other classes than the classifier: {', '.join(model.class_names)}.")
    distance = PerceptualDistance(config.squeezenet, zoom=1.0) if config.squeezenet else None
    results: dict[str, Any] = {"model": model.name, "classifier": about["sha256"], "test_scenes": scenes.hash}
    for name, rebuild in rebuilt.items():
        results[name] = evaluate_reconstructions(rebuild, _side(model), model.device, scenes, classifier, distance)
    sampler = Sampler(top_k=config.top_k, top_p=config.top_p)
    originals = results["reconstructions"]["accuracy_originals"]
    results["samples"] = {}
    for guidance in config.guidances:
        accuracy, images = _accuracy(model, classifier, guidance, sampler, config.seeds_per_class)
        low, high = _wilson(accuracy, images)
        entry = {
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "images": images,
            "ratio": accuracy / originals if originals else None,
        }
        results["samples"][guidance] = entry
    evaluation = Evaluation(results)
    if config.out is not None:
        Path(config.out).write_text(evaluation.text() + "\n")
    return evaluation


def _reconstructions(model: ScaleGenerator) -> Mapping[str, Rebuild]:
    """What is measured of a family's tokenizer: images in [0, 1] to what the best generator could make of them."""
    if isinstance(model, VAR):
        return {"reconstructions": partial(reconstruct, model.tokenizer)}
    if isinstance(model, HART):
        whole = partial(hybrid_reconstruct, model.tokenizer)
        return {"reconstructions": whole, "reconstructions_without_residual": partial(whole, residual=False)}
    if isinstance(model, Infinity):
        return {"reconstructions": partial(reconstruct_from_bits, model.tokenizer, model.tokenizer_grids)}
    if isinstance(model, VQDiffusion):
        return {"reconstructions": partial(reconstruct_from_codes, model.tokenizer)}
    raise ConfigError(f"{model.name} has no tokenizer that is evaluated here; give a model of another family.")


def _side(model: ScaleGenerator) -> int:
    """Side of the model's pictures."""
    if isinstance(model, Infinity):
        return model.image_size[0]
    if isinstance(model, VQDiffusion):
        return model.denoiser.config.grid[0] * model.tokenizer.config.autoencoder.stride
    assert isinstance(model, VAR | HART)
    return model.tokenizer.config.image_size


@torch.no_grad()
def _accuracy(
    model: ScaleGenerator, classifier: FeatureNetwork, guidance: str, sampler: Sampler, per_class: int
) -> tuple[float, int]:
    assert model.class_count is not None
    labels = [label for label in range(model.class_count) for _ in range(per_class)]
    images: Tensor = generate(model, labels, guidance, sampler, seeds=range(len(labels)), batch_size=42)
    right = classifier(images.cpu()).argmax(1) == torch.tensor(labels)
    return right.float().mean().item(), len(labels)


def _wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return centre - half, centre + half
