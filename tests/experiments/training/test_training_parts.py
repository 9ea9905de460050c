"""Perceptual distance, Muon, and the shipped recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hguide.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.


@pytest.fixture
def random_weights(tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    from hguide.experiments.training.perceptual import SqueezeNetFeatures

    torch.manual_seed(0)
    blank = SqueezeNetFeatures.__new__(SqueezeNetFeatures)
    blank._load = lambda path: None  # type: ignore[method-assign]
    SqueezeNetFeatures.__init__(blank, "none")
    save_file(dict(blank.state_dict()), str(tmp_path / "random.safetensors"))
    return tmp_path / "random.safetensors"


def test_perceptual_distance_is_zero_on_equal_images_and_grows_with_blur(random_weights: Path) -> None:
    from hguide.experiments.training.perceptual import PerceptualDistance

    distance = PerceptualDistance(random_weights, zoom=1.0)
    images = torch.rand(2, 3, 64, 64)
    softer = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    softest = torch.nn.functional.avg_pool2d(images, 7, 1, 3)
    assert distance(images, images).abs().max() == 0
    assert (distance(softer, images) > 0).all()
    assert distance(softest, images).mean() > distance(softer, images).mean()


def test_texture_is_the_distance_of_co_occurrences(random_weights: Path) -> None:
    from hguide.experiments.training.perceptual import PerceptualDistance

    distance = PerceptualDistance(random_weights, layers=(0, 4), zoom=1.0)
    x, y = torch.rand(2, 2, 3, 48, 48)
    expected = torch.zeros(2, dtype=torch.float64)
    for layer in (0, 4):
        units = []
        for images in (x, y):
            features = distance.network(images)[layer].double()
            units.append(features / (features.square().sum(1, keepdim=True) + 1e-4).sqrt())
        g, h = (torch.einsum("bchw,bdhw->bcd", unit, unit) / unit[0, 0].numel() for unit in units)
        expected += torch.linalg.matrix_norm(g - h).square() / 2
    found, texture = distance.with_texture(x, y)
    assert torch.allclose(texture.double(), expected, rtol=1e-4)
    assert torch.equal(found, distance(x, y))


def test_texture_does_not_see_the_order_of_positions() -> None:
    from hguide.experiments.training.perceptual import co_occurrence

    features = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    shuffled = features.flatten(2)[:, :, torch.randperm(24)].view(2, 5, 6, 4)
    assert torch.allclose(co_occurrence(features), co_occurrence(shuffled), atol=1e-12)


def test_perceptual_distance_without_weights_says_so(tmp_path: Path) -> None:
    from hguide.experiments.training.perceptual import PerceptualDistance

    with pytest.raises(CheckpointError, match="no SqueezeNet"):
        PerceptualDistance(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("shape", [(2, 8, 24), (3, 24, 8), (1, 16, 16)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape: tuple[int, int, int]) -> None:
    """Against the exact U V^T: equal directions, singular values pushed to between 0.6 and 1.25."""
    from hguide.experiments.training.muon import orthogonalise

    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    within = u.transpose(1, 2) @ orthogonalise(matrices) @ vh.transpose(1, 2)
    diagonal = torch.diagonal(within, dim1=1, dim2=2)
    assert ((diagonal > 0.6) & (diagonal < 1.25)).all()
    assert (within - torch.diag_embed(diagonal)).abs().max() < 0.05


def test_muon_moves_every_shape_by_adams_root_mean_square() -> None:
    from hguide.experiments.training.muon import Muon

    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(32, 32)), torch.nn.Parameter(torch.zeros(16, 4, 3, 3))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    Muon(parameters, lr=0.1).step()
    assert parameters[0].square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.25)
    assert parameters[1].square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.25)


@pytest.mark.parametrize(
    ("name", "module", "config"),
    [
        ("features", "features", "FeaturesConfig"),
        ("landuse_var_tokenizer", "tokenizer", "TokenizerTrainingConfig"),
        ("landuse_var_generator", "generator", "GeneratorTrainingConfig"),
    ],
)
def test_shipped_recipes_are_options_of_their_training(name: str, module: str, config: str) -> None:
    import importlib
    from importlib.resources import files

    import yaml

    text = (files("hguide.experiments.training") / "configs" / f"{name}.yaml").read_text()
    given = {"tokenizer": "weights"} if module == "generator" else {}
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in yaml.safe_load(text).items()}
    built = getattr(importlib.import_module(f"hguide.experiments.training.{module}"), config)(
        data="d", out="o", **given, **options
    )
    assert all(getattr(built, key) == value for key, value in options.items())


def test_importing_hguide_loads_no_lightning() -> None:
    import subprocess
    import sys

    code = "import sys, hguide, hguide.experiments.features; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tokenizer_starts_from_a_bundled_model_by_name(coded: Path, tmp_path: Path) -> None:
    import hguide
    from hguide.experiments.training.tokenizer import TokenizerTraining, TokenizerTrainingConfig

    config = TokenizerTrainingConfig(data=str(coded), out=str(tmp_path), init="landuse-var")
    training = TokenizerTraining(config)
    expected = hguide.load("landuse-var").tokenizer.state_dict()
    started = training.network.state_dict()
    assert started.keys() == expected.keys()
    assert all(torch.equal(started[key], expected[key]) for key in expected)
    assert (training.usage == 1).all()
    fresh = TokenizerTraining(TokenizerTrainingConfig(data=str(coded), out=str(tmp_path), vocabulary=64))
    assert (fresh.usage == 0).all()
