"""A perceptual distance on a pretrained SqueezeNet 1.1 that is given by path."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hguide.errors import CheckpointError

__all__ = ["PerceptualDistance", "SqueezeNetFeatures", "co_occurrence"]

# BGR, 0..255: the convention these weights were trained with.
CHANNEL_MEAN = (104.0, 117.0, 123.0)
# Place in the published network, input channels, squeezed channels, channels of each expansion.
FIRES = (
    (3, 64, 16, 64),
    (4, 128, 16, 64),
    (6, 128, 32, 128),
    (7, 256, 32, 128),
    (9, 256, 48, 192),
    (10, 384, 48, 192),
    (11, 384, 64, 256),
    (12, 512, 64, 256),
)
POOLS = (2, 5, 8)


class Fire(nn.Module):
    """Squeeze to few channels, then expand by 1x1 and 3x3 convolutions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Both expansions of the squeezed map, joined."""
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNetFeatures(nn.Module):
    """SqueezeNet 1.1 up to its last fire module; keys as torchvision names them."""

    mean: Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {"0": nn.Conv2d(3, 64, 3, stride=2)}
        layers |= {str(place): Fire(inputs, squeeze, expand) for place, inputs, squeeze, expand in FIRES}
        self.features = nn.ModuleDict(layers)
        self.register_buffer("mean", torch.tensor(CHANNEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self._load(Path(path))
        self.requires_grad_(False).eval()

    def _load(self, path: Path) -> None:
        from safetensors.torch import load_file

        if not path.is_file():
            raise CheckpointError(
                f"no SqueezeNet 1.1 weights at {path}: give a safetensors file as docs/training.md describes it."
            )
        self.load_state_dict(load_file(str(path)))

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps after the first convolution and after each fire module, of RGB images in [0, 1]."""
        x = (images.flip(1) * 255 - self.mean).contiguous(memory_format=torch.channels_last)
        maps = []
        for place in range(13):
            if str(place) in self.features:
                x = self.features[str(place)](x)
                x = torch.relu(x) if place == 0 else x
                maps.append(x)
            elif place in POOLS:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return maps


def co_occurrence(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """Mean over positions of phi phi^T; of unit vectors, its trace is 1."""
    rows = features.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


class PerceptualDistance(nn.Module):
    """Mean over layers of the squared difference of unit feature vectors.

    d(x, y) = mean_l mean_(h,w) |phi_l(x) / |phi_l(x)| - phi_l(y) / |phi_l(y)||^2, after the form of LPIPS
    (arXiv 1801.03924, eq. 1) with all channel weights 1. Not LPIPS: neither its weights nor its network.

    Args:
        path: safetensors file of SqueezeNet 1.1 with torchvision's keys.
        layers: which maps, from 0 (first convolution) to 8 (last fire module).
        zoom: images are enlarged by this factor first, since the network was trained on larger pictures.
    """

    def __init__(self, path: str | Path, layers: tuple[int, ...] = (0, 2, 4, 6, 8), zoom: float = 2.0) -> None:
        super().__init__()
        self.network = SqueezeNetFeatures(path)
        self.layers = layers
        self.zoom = zoom

    def forward(self, x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Distance of each pair of images in [0, 1]; gradients flow to `x` only."""
        return self.with_texture(x, y)[0]

    def with_texture(
        self, x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Distance, and difference of texture, of each pair of images in [0, 1], from one pass of the network.

        texture(x, y) = mean_l |G_l(x) - G_l(y)|^2, G_l the mean over positions of phi phi^T with phi the unit feature
        vectors: which features occur together, and not where (after arXiv 1508.06576, eq. 4). A blurred
        reconstruction is near in the distance and far in texture.

        Args:
            x: images; gradients flow here.
            y: references.

        Returns:
            both `(b,)`.
        """
        with torch.no_grad():
            references = self._unit(y)
        pairs = [(mine.float(), theirs.float()) for mine, theirs in zip(self._unit(x), references, strict=True)]
        distances = [(mine - theirs).square().sum(1).mean((1, 2)) for mine, theirs in pairs]
        textures = [(co_occurrence(mine) - co_occurrence(theirs)).square().sum((1, 2)) for mine, theirs in pairs]
        return torch.stack(distances).mean(0), torch.stack(textures).mean(0)

    def _unit(self, images: Tensor) -> list[Tensor]:
        if self.zoom != 1:
            images = F.interpolate(images, scale_factor=self.zoom, mode="bilinear", align_corners=False)
        maps = self.network(images)
        return [maps[i] / (maps[i].square().sum(1, keepdim=True) + 1e-4).sqrt() for i in self.layers]
