"""The real pictures that samples are measured against: their features, scenes and labels."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.checkpoints import save_safetensors
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.extractors import Extractor, Projection
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.floor import even_rows
from hguide.grids import Grid

__all__ = [
    "Crops",
    "Reference",
    "bundled_reference",
    "for_networks",
    "load_reference",
    "reference_of_images",
    "save_reference",
]

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise on files that are no archives, cut short or made up."""

ARRAYS = ("features", "spatial", "power", "squeezenet")


@dataclass(frozen=True, eq=False)
class Crops:
    """Rows of real pictures, one per crop.

    Attributes:
        arrays: "features", "spatial", "power" and, where it was computed, "squeezenet": `(n, d)`.
        scenes: of each crop.
        labels: class of each crop, None where classes are unknown.
    """

    arrays: Mapping[str, Float[Tensor, "n d"]]
    scenes: Int[Tensor, " n"]
    labels: Int[Tensor, " n"] | None = None

    @property
    def count(self) -> int:
        """Number of crops."""
        return len(self.scenes)

    @property
    def scene_count(self) -> int:
        """Number of distinct scenes."""
        return len(self.scenes.unique())

    def clusters(self) -> Clusters:
        """Crops of a scene are drawn as one; the scenes of each class keep their number where each has two."""
        if self.labels is None or not _at_least_two(self.scenes, self.labels):
            return Clusters.of(self.scenes)
        return Clusters.of(self.scenes, self.labels)

    def spread(self, count: int, classes: Int[Tensor, " count"] | None = None, seed: int = 0) -> Crops:
        """That many crops, within a class one of each scene before a second of any.

        Args:
            count: crops wanted.
            classes: of the samples they are compared with: as many crops of each class. By default, and where the
                reference has no classes, the classes have equal shares.
            seed: of the choice.

        Raises:
            ConfigError: there are not so many, or not so many of a class.
        """
        labels = torch.zeros_like(self.scenes) if self.labels is None else self.labels
        names = labels.unique().tolist()
        shares = {name: count // len(names) + (place < count % len(names)) for place, name in enumerate(names)}
        if classes is not None and self.labels is not None:
            shares = {int(name): int((classes == name).sum()) for name in classes.unique()}
        chosen = []
        for name, share in shares.items():
            rows = torch.nonzero(labels == name).flatten()
            if share > len(rows):
                of_class = "" if self.labels is None else f" of class {name}"
                raise ConfigError(
                    f"{share} crops{of_class} are asked for, the reference has {len(rows)}: counts must be equal, so "
                    "measure fewer images, or give a larger reference."
                )
            if share:
                chosen.append(rows[even_rows(Clusters.of(self.scenes[rows]), share, seed)])
        return self.rows(torch.cat(chosen).sort().values)

    def rows(self, chosen: Int[Tensor, " m"]) -> Crops:
        """Some of the crops."""
        labels = None if self.labels is None else self.labels[chosen]
        return Crops({name: each[chosen] for name, each in self.arrays.items()}, self.scenes[chosen], labels)


def _at_least_two(ids: Int[Tensor, " n"], strata: Int[Tensor, " n"]) -> bool:
    return all(len(ids[strata == each].unique()) > 1 for each in strata.unique())


@dataclass(frozen=True, eq=False)
class Reference:
    """Crops of train scenes, which samples are compared with, and of test scenes, which give the floor.

    Attributes:
        name: of the data.
        hash: sha256 of the file.
        train: what samples are compared with.
        test: other real pictures, for the floor; None where there are none.
        size: height and width of the pictures.
        networks: array -> sha256 of the network's file.
        projection: of the "squeezenet" array, where the file has it.
        about: how it was made.
    """

    name: str
    hash: str
    train: Crops
    test: Crops | None
    size: Grid
    networks: Mapping[str, str]
    projection: Projection | None
    about: Mapping[str, Any]


def bundled_reference() -> Path:
    """Where the wheel keeps the reference of the bundled model's data."""
    return Path(str(files("hguide.experiments") / "weights" / "reference.safetensors"))


def save_reference(path: str | Path, train: Crops, test: Crops, projection: Projection | None, about: Any) -> None:
    """Write both sides: features in float16, power as float16 logarithms, `about` as JSON in the metadata."""
    state: dict[str, Tensor] = {}
    for side, crops in (("train", train), ("test", test)):
        for name, rows in crops.arrays.items():
            state[f"{side}.{name}"] = (rows.log() if name == "power" else rows).half().contiguous()
        state[f"{side}.scenes"] = crops.scenes.to(torch.int16)
        assert crops.labels is not None
        state[f"{side}.labels"] = crops.labels.to(torch.uint8)
    if projection is not None:
        state |= {"projection.mean": projection.mean, "projection.basis": projection.basis.contiguous()}
    if not all(torch.isfinite(each).all() for each in state.values()):
        raise ConfigError("the reference has numbers that float16 cannot hold.")
    save_safetensors(Path(path), state, {"hguide": json.dumps({"family": "reference", **about})})


def load_reference(path: str | Path | None = None) -> Reference:
    """A reference that `hguide train reference` wrote.

    Args:
        path: of the file, None for the bundled one.

    Raises:
        CheckpointError: the file is missing or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    file = bundled_reference() if path is None else Path(path).expanduser()
    try:
        with safe_open(str(file), "pt") as handle:
            about = json.loads((handle.metadata() or {}).get("hguide", "null"))
            state = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a mapping.
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read the reference {file}: {error}") from error
    if not isinstance(about, dict) or about.get("family") != "reference":
        raise CheckpointError(f"{file} is no reference (its metadata names no family 'reference').")
    try:
        train, test = (_side(state, name) for name in ("train", "test"))
        mean, basis = state.get("projection.mean"), state.get("projection.basis")
        projection = None if mean is None or basis is None else Projection(mean, basis)
        size = (int(about["size"]), int(about["size"]))
        name, networks = str(about["name"]), dict(about["networks"])
    except KeyError as error:
        raise CheckpointError(f"the reference {file} has no {error}.") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the reference {file} does not describe itself as it should: {error}.") from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Reference(name, digest, train, test, size, networks, projection, about)


def _side(state: Mapping[str, Tensor], side: str) -> Crops:
    arrays = {name: state[f"{side}.{name}"].float() for name in ARRAYS if f"{side}.{name}" in state}
    arrays["power"] = arrays["power"].double().exp()
    return Crops(arrays, state[f"{side}.scenes"].long(), state[f"{side}.labels"].long())


def reference_of_images(path: str | Path, extractors: Mapping[str, Extractor]) -> Reference:
    """A reference of your own pictures: every picture is a scene, classes are unknown, there is no floor.

    Args:
        path: `.npz` whose `arr_0` is `(n, H, W, 3)` uint8, as ADM's evaluator reads it.
        extractors: "landuse" and, for the repeat, "squeezenet"; without the first, crops are counted and have no
            arrays.

    Raises:
        ConfigError: another file, or a damaged one.
    """
    file = Path(path).expanduser()
    try:
        # Opened here, because numpy leaves a damaged archive open.
        with file.open("rb") as content, np.load(content, allow_pickle=False) as archive:
            images = archive["arr_0"]
    except UNREADABLE as error:
        raise ConfigError(f"{file}: expected an .npz with pictures in arr_0 ({error}).") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) < 2:
        raise ConfigError(f"{file}: arr_0 is (n, H, W, 3) uint8, got {images.shape} {images.dtype}.")
    arrays, networks = {}, {}
    if "landuse" in extractors:
        found = extractors["landuse"].arrays(images)
        arrays = {name: torch.from_numpy(found[name]) for name in ("features", "spatial", "power")}
        networks["features"] = extractors["landuse"].hash
    if "squeezenet" in extractors:
        arrays["squeezenet"] = torch.from_numpy(extractors["squeezenet"].arrays(images)["features"])
        networks["squeezenet"] = extractors["squeezenet"].hash
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    crops = Crops(arrays, torch.arange(len(images)))
    size = (int(images.shape[1]), int(images.shape[2]))
    return Reference(file.stem, digest, crops, None, size, networks, None, {"images": len(images)})


def for_networks(reference: Reference, features: str, squeezenet: str | None) -> Reference:
    """The reference, checked to be of the networks in use; "squeezenet" rows left out where they are not asked for.

    Args:
        reference: as loaded.
        features: hash of the feature network.
        squeezenet: hash of the repeat's weights and projection, or None.

    Raises:
        ConfigError: it was computed with other networks.
    """
    wanted = {"features": features} | ({} if squeezenet is None else {"squeezenet": squeezenet})
    for name, network in wanted.items():
        if reference.networks.get(name) != network:
            raise ConfigError(
                f"the reference {reference.name!r} was computed with another network for {name!r} "
                f"({str(reference.networks.get(name))[:12]}, not {network[:12]}): compute it again with "
                "`hguide train reference`, or give pictures with `reference: FILE.npz`."
            )
    if squeezenet is not None or "squeezenet" not in reference.train.arrays:
        return reference
    sides = [
        None if side is None else replace(side, arrays={k: v for k, v in side.arrays.items() if k != "squeezenet"})
        for side in (reference.train, reference.test)
    ]
    assert sides[0] is not None
    return replace(reference, train=sides[0], test=sides[1])
