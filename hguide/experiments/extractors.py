"""What measures need to know of each picture: features of frozen networks, and the power spectrum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from hguide.errors import CheckpointError
from hguide.experiments.features import FeatureNetwork, load_features
from hguide.experiments.measures.features_of import features_of
from hguide.experiments.measures.radial_power import luminance, radial_power
from hguide.experiments.measures.spatial_frechet_distance import spatial_features
from hguide.experiments.training.perceptual import SqueezeNetFeatures

__all__ = ["BATCH", "Extractor", "LanduseExtractor", "Projection", "SqueezeNetExtractor", "pooled_squeezenet"]

BATCH = 64
SQUEEZENET_SIZE = 128


@runtime_checkable
class Extractor(Protocol):
    """A frozen network and what is taken from it.

    Attributes:
        name: of the network.
        hash: sha256 of what its numbers follow from.
    """

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str: ...

    def arrays(self, images: UInt8[np.ndarray, "n H W 3"]) -> Mapping[str, np.ndarray]:
        """Arrays of n rows by name, from the bytes that are stored."""


@dataclass(frozen=True, eq=False)
class LanduseExtractor:
    """The frozen feature network of this project.

    Its arrays: "features" (n, 48), "spatial" (n, 64) of sFD, "logits" (n, classes), "power" (n, bins), the radial
    power of the luminance.

    Attributes:
        network: in evaluation mode.
        hash: sha256 of its file.
        classes: names, in the order of the class scores.
        name: in results.
    """

    network: FeatureNetwork
    hash: str
    classes: tuple[str, ...]
    name: str = "landuse-features"

    @classmethod
    def load(cls, path: str | Path | None = None) -> LanduseExtractor:
        """From a weights file, the bundled one by default."""
        network, about = load_features(path)
        name = "landuse-features" if path is None else Path(path).stem
        return cls(network, about["sha256"], tuple(about["classes"]), name)

    @torch.no_grad()
    def arrays(self, images: UInt8[np.ndarray, "n H W 3"]) -> dict[str, np.ndarray]:
        """Features, spatial features, class scores and power."""
        planes = _planes(images)
        maps = features_of(planes, self.network.feature_map, batch=BATCH)
        features = maps.mean((2, 3))
        logits = self.network.head(features)
        power = torch.cat([radial_power(luminance(part.float() / 255)) for part in planes.split(BATCH)])
        return {
            "features": features.numpy(),
            "spatial": spatial_features(maps).float().numpy(),
            "logits": logits.numpy(),
            "power": power.numpy(),
        }


@dataclass(frozen=True, eq=False)
class Projection:
    """A fixed linear map to few dimensions: (x - mean) basis.

    Attributes:
        mean: `(d,)`.
        basis: `(d, r)`, orthogonal columns of one length.
    """

    mean: Float[Tensor, " d"]
    basis: Float[Tensor, "d r"]

    @classmethod
    def principal(cls, rows: Float[Tensor, "n d"], dimensions: int) -> Projection:
        """The first principal axes of the rows, one scale for all, so that their mean variance is 1.

        The sign of each axis is such that its largest entry is positive.

        Args:
            rows: what the axes are of.
            dimensions: number of axes.
        """
        mean = rows.double().mean(0)
        centred = rows.double() - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / (len(rows) - 1))
        basis = vectors.flip(1)[:, :dimensions]
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        scale = values.flip(0)[:dimensions].mean().rsqrt()
        return cls(mean.float(), (basis * largest.sign() * scale).float())

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n r"]:
        """Rows in few dimensions."""
        return (rows - self.mean) @ self.basis

    @property
    def hash(self) -> str:
        """sha256 of its numbers."""
        return hashlib.sha256(self.mean.numpy().tobytes() + self.basis.contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class SqueezeNetExtractor:
    """SqueezeNet 1.1, given by path: its last map, averaged and projected. Its array: "features" (n, r).

    Attributes:
        network: in evaluation mode.
        projection: fixed with the reference, before any sample was seen.
        file_hash: sha256 of the weights file.
        name: in results.
    """

    network: SqueezeNetFeatures
    projection: Projection
    file_hash: str
    name: str = "squeezenet"

    @classmethod
    def load(cls, path: str | Path, projection: Projection) -> SqueezeNetExtractor:
        """From a weights file."""
        return cls(SqueezeNetFeatures(path), projection, file_hash(path))

    @property
    def hash(self) -> str:
        """Of weights and projection."""
        return hashlib.sha256(f"{self.file_hash} {self.projection.hash}".encode()).hexdigest()

    @torch.no_grad()
    def arrays(self, images: UInt8[np.ndarray, "n H W 3"]) -> dict[str, np.ndarray]:
        """Projected features."""
        return {"features": self.projection(pooled_squeezenet(self.network, images)).numpy()}


@torch.no_grad()
def pooled_squeezenet(network: SqueezeNetFeatures, images: UInt8[np.ndarray, "n H W 3"]) -> Float[Tensor, "n 512"]:
    """Spatial mean of SqueezeNet's last map, of pictures resized to 128x128 (bilinear)."""
    size = (SQUEEZENET_SIZE, SQUEEZENET_SIZE)

    def pooled(part: Tensor) -> Tensor:
        resized = F.interpolate(part, size=size, mode="bilinear", align_corners=False, antialias=True)
        return network(resized)[-1].mean((2, 3))

    return features_of(_planes(images), pooled, batch=BATCH)


def file_hash(path: str | Path) -> str:
    """sha256 of a file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}.") from error


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of several calls, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _planes(images: UInt8[np.ndarray, "n H W 3"]) -> UInt8[Tensor, "n 3 H W"]:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
