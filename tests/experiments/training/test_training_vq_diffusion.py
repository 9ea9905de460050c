"""VQ-Diffusion's trainings: a few steps, resumed, joined, loaded, sampled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_codes import small_vq_diffusion, small_vqgan
from made_scenes import CLASSES, small_tokenizer

from hguide.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.


@pytest.fixture(scope="module")
def vqgan_file(coded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hguide.experiments.training.vqgan_tokenizer import run

    return run(small_vqgan(coded, tmp_path_factory.mktemp("vqgan")))


@pytest.fixture(scope="module")
def denoiser_file(coded: Path, vqgan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hguide.experiments.training.vq_diffusion import run

    return run(small_vq_diffusion(coded, tmp_path_factory.mktemp("denoiser"), vqgan_file))


def cut_after_one_step(module, out: Path) -> None:  # type: ignore[no-untyped-def]
    """Train one step and leave the checkpoint that a killed run leaves."""
    import lightning

    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module)
    assert module.steps_done == 1
    trainer.save_checkpoint(out / "last.ckpt")


def same_weights(one: Path, other: Path) -> bool:
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], value) for key, value in second.items())


# The tokenizer


def test_tokenizer_trains_and_is_read_back(vqgan_file: Path) -> None:
    from hguide.experiments.training.vqgan_tokenizer import codes_of, load_vqgan, reconstruct_from_codes

    network, metadata = load_vqgan(vqgan_file)
    assert metadata["training"]["steps"] == 2
    assert metadata["classes"] == list(CLASSES)
    assert network.codes.tolist() == list(range(16))
    line = json.loads((vqgan_file.parent / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "codes", "codes_used", "test_psnr"} <= line.keys()
    images = torch.rand(3, 3, 16, 24)
    codes = codes_of(network, images)
    assert torch.equal(codes, network.encode(images * 2 - 1))
    torch.testing.assert_close(reconstruct_from_codes(network, images), network.decode(codes) * 0.5 + 0.5)


def test_a_resumed_tokenizer_equals_an_unbroken_one(coded: Path, vqgan_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.vqgan_tokenizer import VQGANTraining, run

    config = small_vqgan(coded, tmp_path)
    cut_after_one_step(VQGANTraining(config), tmp_path)
    assert same_weights(run(config), vqgan_file)


def test_gradient_passes_the_quantiser_straight_through(coded: Path, tmp_path: Path) -> None:
    """The encoder receives the decoder's gradient at the codes, besides what codebook and commitment terms add."""
    from hguide.experiments.training.vqgan_tokenizer import VQGANTraining

    module = VQGANTraining(small_vqgan(coded, tmp_path, commitment=0.0))
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(_: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            value = inputs[0] if name == "codes" else output
            value.retain_grad()
            seen[name] = value

        return hook

    module.network.post_quant_conv.register_forward_hook(keep("codes"))
    module.network.quant_conv.register_forward_hook(keep("latent"))
    module.loss(0)[0].backward()
    assert seen["codes"].grad is not None
    assert seen["codes"].grad.abs().sum() > 0
    assert torch.equal(seen["latent"].grad, seen["codes"].grad)
    assert not torch.equal(seen["latent"], seen["codes"])
    assert module.network.codebook.weight.grad.abs().sum() > 0


def test_codes_start_at_latents_and_restart_there(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.vqgan_tokenizer import VQGANTraining, latent_vectors

    module = VQGANTraining(small_vqgan(coded, tmp_path))
    book = module.network.codebook.weight
    assert len(book.unique(dim=0)) == 16
    latent = module.network.latent(torch.rand(2, 3, 16, 16)).detach()
    pool = latent_vectors(latent)
    assert torch.equal(pool[1], latent[0, :, 0, 1])
    codes = torch.zeros(2, 4, 4, dtype=torch.int64)
    module.usage.copy_(torch.cat([torch.ones(8), torch.zeros(8)]))
    before = book.detach().clone()
    module._follow_usage(latent, codes, step=21)
    assert torch.equal(book, before)
    module._follow_usage(latent, codes, step=20)
    assert torch.equal(book[:8], before[:8])
    assert (book[8:, None] == pool).all(2).any(1).all()
    assert (module.usage[8:] == 1).all()


def test_training_starts_from_the_weights_of_var(coded: Path, tmp_path: Path) -> None:
    from hguide.experiments.training import tokenizer
    from hguide.experiments.training.vqgan_tokenizer import VQGANTraining

    source = tokenizer.run(small_tokenizer(coded, tmp_path / "var", steps=1, epoch_steps=1))
    var, _ = tokenizer.load_tokenizer(source)
    shape = {"channels": 32, "multipliers": (1, 1)}
    network = VQGANTraining(small_vqgan(coded, tmp_path / "vq", init=str(source), **shape)).network
    for name in ("encoder", "decoder"):
        own, given = network.get_submodule(name).state_dict(), var.get_submodule(name).state_dict()
        assert all(torch.equal(own[key], given[key]) for key in given)
    flat = torch.ones(1, 4, 5, 5) * torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(network.quant_conv(flat)[..., 2, 2], var.quant_conv(flat)[..., 2, 2])
    torch.testing.assert_close(network.post_quant_conv(flat)[..., 2, 2], var.post_quant_conv(flat)[..., 2, 2])
    with pytest.raises(CheckpointError, match="wrong shape"):
        VQGANTraining(small_vqgan(coded, tmp_path / "other", init=str(source), channels=16, multipliers=(1, 1)))


def test_training_starts_from_its_own_weights(coded: Path, vqgan_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.vqgan_tokenizer import VQGANTraining, load_vqgan

    given, _ = load_vqgan(vqgan_file)
    own = VQGANTraining(small_vqgan(coded, tmp_path, init=str(vqgan_file), seed=5)).network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in given.state_dict().items())


# The denoiser


def test_a_few_steps_lower_the_held_out_bound(coded: Path, vqgan_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.vq_diffusion import VQDiffusionTraining, run

    changes = {"steps": 40, "epoch_steps": 40, "optimizer": "muon", "batch_size": 8, "ema_decay": 0.5}
    config = small_vq_diffusion(coded, tmp_path, vqgan_file, **changes)
    start = VQDiffusionTraining(config).held_out()
    run(config)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["test_loss"] < 0.8 * start["test_loss"]
    assert line["test_entropy"] < 0.8 * start["test_entropy"]
    assert list((tmp_path / "pictures").glob("*.png"))


def test_muon_turns_the_matrices_of_the_blocks_only(coded: Path, vqgan_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.vq_diffusion import VQDiffusionTraining

    module = VQDiffusionTraining(small_vq_diffusion(coded, tmp_path, vqgan_file))
    inner = {name for name, _ in module.network.named_parameters() if module.is_inner(name)}
    kinds = {name.split(".", 3)[-1].rsplit(".", 1)[0] for name in inner}
    assert kinds == {f"attn.{part}" for part in ("query", "key", "value", "proj")} | {"mlp.conv1", "mlp.conv2"}


def test_a_resumed_denoiser_equals_an_unbroken_one(
    coded: Path, vqgan_file: Path, denoiser_file: Path, tmp_path: Path
) -> None:
    from hguide.experiments.training.vq_diffusion import VQDiffusionTraining, run

    config = small_vq_diffusion(coded, tmp_path, vqgan_file)
    cut_after_one_step(VQDiffusionTraining(config), tmp_path)
    assert same_weights(run(config), denoiser_file)


def test_all_samples_without_class_train_the_null_row(coded: Path, vqgan_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.vq_diffusion import VQDiffusionTraining

    module = VQDiffusionTraining(small_vq_diffusion(coded, tmp_path, vqgan_file, class_dropout=1.0))
    module.loss(0)[0].backward()
    gradient = module.network["denoiser"].blocks[0].ln2.emb.weight.grad
    assert (gradient.abs().sum(1) > 0).tolist() == [False] * len(CLASSES) + [True]


def test_the_pair_is_joined_loaded_and_sampled_by_class_name(
    vqgan_file: Path, denoiser_file: Path, tmp_path: Path
) -> None:
    import hguide
    from hguide.experiments.training.bundle import export
    from hguide.experiments.training.vqgan_tokenizer import load_vqgan

    bundle = export(vqgan_file, denoiser_file, tmp_path / "small.safetensors")
    model = hguide.load(bundle)
    assert model.class_names == CLASSES
    assert model.name == "small"
    assert model.count == 4
    assert model.tokenizer.codes.tolist() == list(range(16))
    assert model.denoiser.config.null_label == len(CLASSES)
    guidance = "cfg(w=1.5) | ssg(0.5, prior=lowpass(0.5))"
    images = hguide.generate(model, ["forest", "beach"], guidance, seeds=[0, 1])
    assert images.shape == (2, 3, 16, 16)
    assert torch.equal(images, hguide.generate(model, [1, 0], guidance, seeds=[0, 1]))
    # So little was learnt that only much guidance changes a draw.
    plain, much = (hguide.generate(model, [1, 0], text, seeds=[0, 1]) for text in ("none", "cfg(w=60)"))
    assert not torch.equal(plain, much)
    again, _ = load_vqgan(bundle)
    assert torch.equal(again.codebook.weight, model.tokenizer.codebook.weight)


def test_a_saved_model_keeps_its_inference(vqgan_file: Path, denoiser_file: Path, tmp_path: Path) -> None:
    import hguide
    from hguide.backends.vq_diffusion import Inference
    from hguide.backends.vq_diffusion.files import save
    from hguide.experiments.training.bundle import export

    model = hguide.load(export(vqgan_file, denoiser_file, tmp_path / "small.safetensors"))
    plain = model.with_options(inference=Inference(speed=2.0))
    save(plain, tmp_path / "plain.safetensors")
    assert hguide.load(tmp_path / "plain.safetensors").inference == plain.inference
    assert plain.count == 6


def test_wrong_tokenizers_are_refused(
    coded: Path, vqgan_file: Path, denoiser_file: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    from hguide.experiments.training.bundle import export
    from hguide.experiments.training.vq_diffusion import VQDiffusionTraining
    from hguide.experiments.training.vqgan_tokenizer import run

    with pytest.raises(CheckpointError, match="describes 'var-tokenizer', not the tokenizer of a VQ-Diffusion"):
        VQDiffusionTraining(small_vq_diffusion(coded, tmp_path, tokenizer_file))
    other = run(small_vqgan(coded, tmp_path / "other", seed=1))
    with pytest.raises(CheckpointError, match="tokens of another tokenizer"):
        export(other, denoiser_file, tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()
    with pytest.raises(ConfigError, match="multiple of the tokenizer's stride 4, got 18"):
        VQDiffusionTraining(small_vq_diffusion(coded, tmp_path, vqgan_file, crop=18))


def test_reconstructions_are_measured_at_the_models_size(vqgan_file: Path, denoiser_file: Path, tmp_path: Path) -> None:
    import hguide
    from hguide.experiments.training.bundle import export
    from hguide.experiments.training.report import _reconstructions, _side

    model = hguide.load(export(vqgan_file, denoiser_file, tmp_path / "small.safetensors"))
    images = torch.rand(2, 3, _side(model), _side(model))
    rebuilt = _reconstructions(model)["reconstructions"](images)
    torch.testing.assert_close(rebuilt, model.tokenizer.decode(model.encode(images)[0]) * 0.5 + 0.5)


def test_codes_are_computed_once(coded: Path, vqgan_file: Path, tmp_path: Path) -> None:
    from hguide.experiments.training.code_tokens import code_set
    from hguide.experiments.training.data import load_scenes, random_crops, to_unit
    from hguide.experiments.training.vqgan_tokenizer import load_vqgan

    network, _ = load_vqgan(vqgan_file)
    scenes = load_scenes(coded, "train")
    first = code_set(network, scenes, 5, 16, 0, tmp_path / "codes.safetensors")
    crops, labels, _ = random_crops(scenes, 5, 16, 0, 0)
    assert torch.equal(first.tokens, network.encode(to_unit(crops) * 2 - 1).flatten(1))
    assert torch.equal(first.labels, labels)
    written = (tmp_path / "codes.safetensors").stat().st_mtime_ns
    assert torch.equal(code_set(network, scenes, 5, 16, 0, tmp_path / "codes.safetensors").tokens, first.tokens)
    assert (tmp_path / "codes.safetensors").stat().st_mtime_ns == written
    assert code_set(network, scenes, 5, 32, 0, tmp_path / "codes.safetensors").tokens.shape == (5, 64)


@pytest.mark.parametrize(
    ("name", "module", "config"),
    [
        ("landuse_vqdiffusion_tokenizer", "vqgan_tokenizer", "VQGANTrainingConfig"),
        ("landuse_vqdiffusion", "vq_diffusion", "VQDiffusionTrainingConfig"),
    ],
)
def test_shipped_recipes_of_vq_diffusion_are_options(name: str, module: str, config: str) -> None:
    import importlib
    from importlib.resources import files

    import yaml

    text = (files("hguide.experiments.training") / "configs" / f"{name}.yaml").read_text()
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in yaml.safe_load(text).items()}
    given = {} if "tokenizer" in module else {"tokenizer": "weights"}
    built = getattr(importlib.import_module(f"hguide.experiments.training.{module}"), config)(
        data="d", out="o", **given, **options
    )
    assert all(getattr(built, key) == value for key, value in options.items())


def test_the_shipped_recipe_fits_into_ten_megabytes() -> None:
    from hguide.backends.vq_diffusion import VQGAN, Denoiser, DenoiserConfig
    from hguide.experiments.training.bundle import LARGEST_BYTES
    from hguide.experiments.training.vq_diffusion import VQDiffusionTrainingConfig
    from hguide.experiments.training.vqgan_tokenizer import VQGANTrainingConfig

    own = VQDiffusionTrainingConfig(data="d", out="o", tokenizer="t")
    pictures = VQGANTrainingConfig(data="d", out="o").network()
    shape = DenoiserConfig(
        "class", pictures.codes, own.timesteps, own.depth, own.width, own.heads, (8, 8), (8, 8), 21, True,
        mlp_ratio=own.mlp_ratio,
    )  # fmt: skip
    with torch.device("meta"):
        parts = [Denoiser(shape), VQGAN(pictures)]
    halves = sum(2 * parameter.numel() for part in parts for parameter in part.parameters())
    assert halves + 8 * pictures.codes < LARGEST_BYTES - 20_000
