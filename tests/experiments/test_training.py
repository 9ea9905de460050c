"""Data, feature network and the three trainings, on made-up scenes: a few steps each, in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.features import FeatureConfig, FeatureNetwork, load_features, save_features
from hguide.experiments.training import data

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.

CLASSES = ("beach", "forest", "river")
# float16 storage of weights below 1 in size: 2^-11 relative, through a few layers.
HALF_TOLERANCE = 2e-2


def code_differences(images: np.ndarray) -> np.ndarray:
    """The inverse of the documented decoder, written with plain loops over the axes' neighbours."""
    planes = images.transpose(0, 3, 1, 2).astype(np.int64)
    planes[:, 0] -= planes[:, 1]
    planes[:, 2] -= planes[:, 1]
    for axis in (2, 3):
        moved = np.zeros_like(planes)
        index = [slice(None)] * 4
        index[axis] = slice(1, None)
        before = [slice(None)] * 4
        before[axis] = slice(None, -1)
        moved[tuple(index)] = planes[tuple(before)]
        planes = planes - moved
    return (planes % 256).astype(np.uint8)


def picture(label: int, number: int, size: int = 96) -> np.ndarray:
    """A smooth made-up scene whose colour tells its class."""
    random = np.random.default_rng([label, number])
    ramp = np.linspace(0, 60, size)
    plane = ramp[:, None] * random.random() + ramp[None] * random.random() + random.normal(0, 4, (size, size))
    colour = np.array([60 + 60 * label, 150 - 40 * label, 90])
    return np.clip(plane[:, :, None] + colour, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six train scenes and three test scenes a class, difference coded."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        rows = [(label, number) for label in range(len(CLASSES)) for number in numbers]
        np.savez(
            folder / f"{split}.npz",
            coded=code_differences(np.stack([picture(*row) for row in rows])),
            labels=np.array([label for label, _ in rows], np.uint8),
            source=np.array([f"{CLASSES[label]}{number:02d}".encode() for label, number in rows]),
        )
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of ten TIFFs each, as the published archive has them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("archive")
    for label, name in enumerate(CLASSES):
        (folder / "Images" / name).mkdir(parents=True)
        for number in range(10):
            size = (130, 120) if number == 3 else (128, 128)
            scene = Image.fromarray(picture(label, number, 130)[: size[0], : size[1]])
            scene.save(folder / "Images" / name / f"{name}{number:02d}.tif")
    return folder


def test_decoding_equals_the_pictures_that_were_coded(coded: Path) -> None:
    scenes = data.load_scenes(coded, "train")
    expected = np.stack([picture(label, number) for label in range(3) for number in range(6)])
    assert np.array_equal(scenes.images.numpy(), expected)
    assert scenes.labels.tolist() == [label for label in range(3) for _ in range(6)]
    assert scenes.sources[0] == "beach00"


def test_hash_is_that_of_the_decoded_bytes(coded: Path) -> None:
    import hashlib

    expected = np.stack([picture(label, number) for label in range(3) for number in range(6, 9)])
    assert data.load_scenes(coded, "test").hash == hashlib.sha256(expected.tobytes()).hexdigest()


def test_archive_is_cropped_resized_and_split(archive: Path) -> None:
    from PIL import Image

    train, test = data.load_scenes(archive, "train"), data.load_scenes(archive, "test")
    assert train.classes == CLASSES
    assert len(train.labels) == 24
    assert len(test.labels) == 6
    assert not set(train.sources) & set(test.sources)
    both = dict(zip(train.sources + test.sources, torch.cat([train.images, test.images]), strict=True))
    odd = Image.fromarray(picture(1, 3, 130)[:130, :120]).crop((0, 5, 120, 125))
    assert np.array_equal(both["forest03"].numpy(), np.asarray(odd.resize((96, 96), Image.Resampling.LANCZOS)))


def test_split_is_the_documented_one() -> None:
    names = ("agricultural", "airplane", "baseballdiamond")
    test = data.split_files([[f"{name}{i:02d}" for i in range(100)] for name in names], "test")
    train = data.split_files([[f"{name}{i:02d}" for i in range(100)] for name in names], "train")
    numbers = [sorted(int(stem[-2:]) for stem in side) for side in test]
    assert numbers[0] == [2, 7, 8, 13, 16, 22, 24, 26, 30, 33, 53, 54, 55, 73, 75, 78, 86, 92, 93, 95]
    assert numbers[1] == [3, 7, 8, 9, 11, 14, 17, 19, 20, 31, 62, 65, 72, 73, 76, 80, 83, 86, 87, 94]
    assert numbers[2] == [6, 12, 13, 14, 15, 19, 22, 30, 42, 55, 56, 57, 60, 70, 71, 74, 78, 79, 80, 84]
    assert train[1] >= data.IDENTICAL
    assert all(not a & b and len(a | b) == 100 for a, b in zip(test, train, strict=True))


def test_a_folder_without_scenes_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no land-use scenes .*expected train\.npz"):
        data.load_scenes(tmp_path, "train")


def test_crops_come_from_their_scene_and_repeat_with_the_counter(coded: Path) -> None:
    scenes = data.load_scenes(coded, "train")
    crops, labels, index = data.random_crops(scenes, 12, 8, seed=3, counter=7)
    again, other = (data.random_crops(scenes, 12, 8, seed=3, counter=c)[0] for c in (7, 8))
    assert torch.equal(crops, again)
    assert not torch.equal(crops, other)
    assert torch.equal(labels, scenes.labels[index])
    for crop, scene in zip(crops, scenes.images[index], strict=True):
        windows = scene.permute(2, 0, 1).unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4)
        turned = [torch.rot90(crop, k, (1, 2)) for k in range(4)]
        turned += [each.flip(2) for each in turned]
        assert any((windows == each).all((2, 3, 4)).any() for each in turned)


def test_symmetries_are_eight_different_ones() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(8, 1, 3, 3)
    turned = data.symmetries(image, torch.arange(8))
    expected = {
        tuple(torch.rot90(m, k, (0, 1)).flatten().tolist()) for k in range(4) for m in (image[0, 0], image[0, 0].t())
    }
    assert {tuple(each.flatten().tolist()) for each in turned} == expected


def test_crops_larger_than_a_scene_are_refused(coded: Path) -> None:
    with pytest.raises(ConfigError, match="a crop of 97 pixels"):
        data.random_crops(data.load_scenes(coded, "train"), 1, 97, 0, 0)


def test_features_are_the_mean_of_their_map_and_scores_linear_in_them() -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureConfig(classes=3)).eval()
    images = torch.rand(2, 3, 64, 64)
    features = network.features(images)
    assert features.shape == (2, 48)
    torch.testing.assert_close(features, network.feature_map(images).mean((2, 3)))
    torch.testing.assert_close(network(images), features @ network.head.weight.T + network.head.bias)


def test_feature_weights_survive_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureConfig(classes=3)).eval()
    save_features(network, {"classes": list(CLASSES)}, tmp_path / "f.safetensors")
    loaded, metadata = load_features(tmp_path / "f.safetensors")
    images = torch.rand(2, 3, 64, 64)
    assert metadata["classes"] == list(CLASSES)
    torch.testing.assert_close(loaded(images), network(images), atol=HALF_TOLERANCE, rtol=HALF_TOLERANCE)


def test_bundled_features_are_small_and_know_how_good_they_are() -> None:
    from hguide.experiments.features import bundled_features

    network, metadata = load_features()
    assert network.config.features <= 64
    assert bundled_features().stat().st_size < 1_000_000
    assert metadata["training"]["test_accuracy"] >= 0.75
    assert len(metadata["classes"]) == network.config.classes == 21


def test_files_that_hold_no_features_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot read feature weights"):
        load_features(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(("progress", "step", "expected"), [(0, 0, 0.1), (0, 9, 1.0), (0.5, 99, 0.5), (1, 99, 0.0)])
def test_learning_rate_warms_up_and_falls_to_zero(progress: float, step: int, expected: float) -> None:
    from hguide.experiments.training.fit import learning_rate_factor

    assert learning_rate_factor(progress, step, warmup=10) == pytest.approx(expected, abs=1e-12)


def small_tokenizer(coded: Path, out: Path, **changes: object):  # type: ignore[no-untyped-def]
    from hguide.experiments.training.tokenizer import TokenizerTrainingConfig

    base = {"steps": 2, "epoch_steps": 2, "checkpoint_steps": 1, "batch_size": 2, "crop": 16, "precision": "32-true"}
    shape = {"channels": 32, "multipliers": (1, 1), "latent_channels": 4, "vocabulary": 16, "patch_nums": (1, 4, 8)}
    return TokenizerTrainingConfig(data=str(coded), out=str(out), accelerator="cpu", **(base | shape | changes))


@pytest.fixture(scope="module")
def tokenizer_file(coded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hguide.experiments.training.tokenizer import run

    return run(small_tokenizer(coded, tmp_path_factory.mktemp("tokenizer")))


def test_features_train(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.features import FeaturesConfig, run

    config = FeaturesConfig(
        data=str(coded), out=str(tmp_path), accelerator="cpu", steps=2, epoch_steps=2, batch_size=6, crop=32,
        widths=(8, 8, 8), blocks=(1, 1, 1),
    )  # fmt: skip
    _, metadata = load_features(run(config))
    assert metadata["training"]["steps"] == 2
    assert metadata["training"]["train_scenes_sha256"] == data.load_scenes(coded, "train").hash
    assert 0 <= metadata["training"]["test_accuracy"] <= 1


def test_tokenizer_trains_and_leaves_metrics_pictures_and_weights(tokenizer_file: Path) -> None:
    from hguide.experiments.training.tokenizer import load_tokenizer

    network, metadata = load_tokenizer(tokenizer_file)
    assert network.config.patch_nums == (1, 4, 8)
    assert metadata["training"]["steps"] == 2
    line = json.loads((tokenizer_file.parent / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "codes_used", "test_psnr"} <= line.keys()
    assert list((tokenizer_file.parent / "pictures").glob("*.png"))


def test_a_resumed_training_equals_an_unbroken_one(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    """A run cut after its first step, then resumed by the same call, ends with the same bits."""
    import lightning
    from safetensors.torch import load_file

    from hguide.experiments.training.tokenizer import TokenizerTraining, run

    config = small_tokenizer(coded, tmp_path)
    module = TokenizerTraining(config)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module)
    assert module.steps_done == 1
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, unbroken = load_file(run(config)), load_file(tokenizer_file)
    assert all(torch.equal(resumed[key], value) for key, value in unbroken.items())


def test_straight_through_gradient_reaches_encoder_and_codebook(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.tokenizer import TokenizerTraining

    module = TokenizerTraining(small_tokenizer(coded, tmp_path))
    module.loss(0)[0].backward()
    for part in (module.network.encoder.conv_in, module.network.quantize.embedding, module.network.decoder.conv_out):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().sum() > 0


def test_codes_out_of_use_restart_from_residuals(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.tokenizer import TokenizerTraining, quantise, residual_vectors

    module = TokenizerTraining(small_tokenizer(coded, tmp_path))
    images = torch.rand(2, 3, 16, 16)
    f = module.network.latent(images * 2 - 1).detach()
    tokens, latents = quantise(module.network, f)
    pool = residual_vectors(module.network, f, [each.detach() for each in latents])
    before = module.network.quantize.embedding.weight.detach().clone()
    module._follow_usage(f, tokens, [each.detach() for each in latents], step=20)
    changed = (module.network.quantize.embedding.weight != before).any(1)
    assert changed.any()
    restarted = module.network.quantize.embedding.weight[changed].detach()
    assert (restarted[:, None] == pool).all(2).any(1).all()


def test_generator_trains_exports_and_refuses_a_foreign_tokenizer(
    coded: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    from safetensors import safe_open

    from hguide.experiments.training import tokenizer
    from hguide.experiments.training.bundle import export
    from hguide.experiments.training.generator import GeneratorTrainingConfig, run

    config = GeneratorTrainingConfig(
        data=str(coded), out=str(tmp_path / "g"), tokenizer=str(tokenizer_file), accelerator="cpu",
        steps=2, epoch_steps=2, batch_size=4, crop=16, width=16, depth=1, heads=2, token_crops=8, precision="32-true",
    )  # fmt: skip
    weights = run(config)
    bundle = export(tokenizer_file, weights, tmp_path / "bundle.safetensors")
    with safe_open(str(bundle), "pt") as handle:
        metadata = json.loads(handle.metadata()["hguide"])
        keys = set(handle.keys())
        assert all(handle.get_tensor(key).dtype == torch.float16 for key in keys)
    assert metadata["family"] == "var"
    assert metadata["transformer"]["vocabulary"] == metadata["tokenizer"]["vocabulary"] == 16
    assert metadata["classes"] == list(CLASSES)
    assert metadata["training"]["generator"]["steps"] == 2
    assert {"tokenizer.decoder.conv_out.weight", "transformer.head.weight"} <= keys
    other = tokenizer.run(replace(small_tokenizer(coded, tmp_path / "other"), seed=1))
    with pytest.raises(CheckpointError, match="tokens of another tokenizer"):
        export(other, weights, tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()


def test_sampling_without_guidance_follows_the_class(coded: Path, tokenizer_file: Path) -> None:
    """A head that is certain draws that token at every scale, whatever the seed."""
    from hguide.backends.var.transformer import TransformerConfig, VARTransformer
    from hguide.experiments.training.sample import sample_images
    from hguide.experiments.training.tokenizer import load_tokenizer

    tokenizer, _ = load_tokenizer(tokenizer_file)
    shape = TransformerConfig((1, 4, 8), 1, 16, 2, 3, 16, 4, shared_adaln=True)
    network = VARTransformer(shape)
    torch.nn.init.zeros_(network.head.weight)
    with torch.no_grad():
        network.head.bias.copy_(torch.full((16,), -1e4).index_fill(0, torch.tensor(5), 0.0))
    drawn = sample_images(network, tokenizer, torch.tensor([0, 2]), 0.0, seed=1)
    maps = [torch.full((2, side, side), 5) for side in (1, 4, 8)]
    torch.testing.assert_close(drawn, tokenizer.decode(maps) * 0.5 + 0.5)


def test_evaluation_compares_reconstructions_with_their_originals(coded: Path, tokenizer_file: Path) -> None:
    from hguide.experiments.training.evaluate import evaluate_tokenizer
    from hguide.experiments.training.tokenizer import load_tokenizer

    class ByColour(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dummy = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            red = images[:, 0].mean((1, 2))
            return -(red[:, None] - torch.tensor([0.35, 0.59, 0.82])).abs()

    tokenizer, _ = load_tokenizer(tokenizer_file)
    measures = evaluate_tokenizer(tokenizer, data.load_scenes(coded, "test"), ByColour(), crops_per_scene=2)
    assert measures["crops"] == 18
    assert measures["accuracy_originals"] > 0.9
    assert measures["psnr"] > 5
    assert measures["accuracy_ratio"] == pytest.approx(
        measures["accuracy_reconstructions"] / measures["accuracy_originals"]
    )


def test_perceptual_distance_is_zero_on_equal_images_and_grows_with_blur(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from hguide.experiments.training.perceptual import PerceptualDistance, SqueezeNetFeatures

    torch.manual_seed(0)
    blank = SqueezeNetFeatures.__new__(SqueezeNetFeatures)
    blank._load = lambda path: None  # type: ignore[method-assign]
    SqueezeNetFeatures.__init__(blank, "none")
    save_file(dict(blank.state_dict()), str(tmp_path / "random.safetensors"))
    distance = PerceptualDistance(tmp_path / "random.safetensors", zoom=1.0)
    images = torch.rand(2, 3, 64, 64)
    softer = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    softest = torch.nn.functional.avg_pool2d(images, 7, 1, 3)
    assert distance(images, images).abs().max() == 0
    assert (distance(softer, images) > 0).all()
    assert distance(softest, images).mean() > distance(softer, images).mean()


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


def test_generator_trains_with_muon(coded: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.generator import GeneratorTrainingConfig, run

    config = GeneratorTrainingConfig(
        data=str(coded), out=str(tmp_path), tokenizer=str(tokenizer_file), accelerator="cpu", optimizer="muon",
        steps=8, epoch_steps=8, batch_size=4, crop=16, width=16, depth=1, heads=2, token_crops=8,
        precision="32-true", warmup_steps=1, learning_rate=0.02,
    )  # fmt: skip
    run(config)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["train_loss"] < np.log(16)


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
