"""The feature network that measures stand on: a small land-use classifier, trained by this project and then frozen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hguide.backends.checkpoints import load_into, save_safetensors
from hguide.errors import CheckpointError, ConfigError

__all__ = ["FeatureConfig", "FeatureNetwork", "bundled_features", "load_features", "save_features"]


@dataclass(frozen=True)
class FeatureConfig:
    """Shape of the network.

    Attributes:
        classes: number of classes.
        features: size of the penultimate layer, at most 64.
        widths: channels at 1/2, 1/4 and 1/8 of the resolution.
        blocks: residual blocks at each.
    """

    classes: int = 21
    features: int = 48
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: tuple[int, ...] = (1, 2, 1)

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ConfigError(
                f"FeatureConfig: a width and a number of blocks per level, got {self.widths}, {self.blocks}."
            )


class _Block(nn.Module):
    """y = relu(skip(x) + BN(conv(relu(BN(conv(x))))))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        keep = stride == 1 and inputs == outputs
        self.skip: nn.Module = nn.Identity() if keep else _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class FeatureNetwork(nn.Module):
    """A residual classifier of 64x64 aerial crops whose features are the mean of an 8x8 map.

    The features are linear in the map (spatial mean) and the class scores are linear in the features, so that a
    Frechet distance on the features, a spatial one on the map and the classifier speak of the same thing.
    """

    def __init__(self, config: FeatureConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FeatureConfig()
        first = config.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 4, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        layers: list[nn.Module] = []
        width = first
        for level, (outputs, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            for block in range(count):
                layers.append(_Block(width, outputs, 2 if level > 0 and block == 0 else 1))
                width = outputs
        self.body = nn.Sequential(*layers)
        self.project = nn.Conv2d(width, config.features, 1)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(config.features, config.classes)

    def feature_map(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b features h w"]:
        """Feature map at 1/8 of the resolution, of images in [0, 1]."""
        return self.project(self.body(self.stem((images - 0.475) / 0.2)))

    def features(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b features"]:
        """Penultimate features of images in [0, 1]: the spatial mean of `feature_map`."""
        return self.feature_map(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b classes"]:
        """Class scores (logits) of images in [0, 1]."""
        return self.head(self.dropout(self.features(images)))


def bundled_features() -> Path:
    """Where the wheel keeps the frozen network."""
    return Path(str(files("hguide.experiments") / "weights" / "features.safetensors"))


def load_features(path: str | Path | None = None) -> tuple[FeatureNetwork, dict[str, Any]]:
    """The frozen feature network and its metadata.

    Args:
        path: another weights file, None for the bundled one.

    Returns:
        The network in float32 and eval mode, and a dictionary with "sha256" (of the file), "classes" (names) and
        "training" (how it was trained and how well it does on held-out crops).

    Raises:
        CheckpointError: the file is missing or damaged, holds something else, or weights of another network; lists the
            keys that do not fit.
    """
    from safetensors import SafetensorError, safe_open

    file = bundled_features() if path is None else Path(path).expanduser()
    try:
        with safe_open(str(file), "pt") as handle:
            metadata = json.loads((handle.metadata() or {}).get("hguide", "null"))
            state = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a mapping.
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"cannot read feature weights from {file}: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("family") != "features":
        raise CheckpointError(f"{file} holds no feature network (its metadata names no family 'features').")
    network = _described(metadata, file)
    try:
        load_into(network, state)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    metadata["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return network.eval().requires_grad_(False), metadata


def _described(metadata: dict[str, Any], file: Path) -> FeatureNetwork:
    """The network that the metadata describes, without memory: sizes of a damaged file may be any."""
    shape, classes = metadata.get("network"), metadata.get("classes")
    try:
        if not isinstance(shape, dict):
            raise ValueError(f"no shape of the network under 'network', but {shape!r}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}
        config = FeatureConfig(**values)
        if not isinstance(classes, list) or len(classes) != config.classes:
            raise ValueError(f"not the names of {config.classes} classes under 'classes', but {classes!r}")
        with torch.device("meta"):
            return FeatureNetwork(config)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file}: its metadata does not describe a feature network ({reason[:200]}).") from error


def save_features(network: FeatureNetwork, metadata: dict[str, Any], path: str | Path) -> None:
    """Write the network in float16 with its metadata, whole or not at all.

    Args:
        network: to write.
        metadata: plain values; "classes" are the names of its classes.
        path: of the file; its folder is made where it is missing.
    """
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    text = json.dumps({"family": "features", "network": asdict(network.config), **metadata})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(path, state, {"hguide": text})
