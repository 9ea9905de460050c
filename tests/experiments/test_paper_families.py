"""Presets of several families on a small model of each: rows, what is not measurable here, what is exported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_infinity import SQUARE

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.hart import HART, HARTTokenizer, HARTTransformer
from hguide.backends.hart import TokenizerConfig as HARTTokenizerConfig
from hguide.backends.hart import TransformerConfig as HARTConfig
from hguide.backends.hart.files import save as save_hart
from hguide.backends.infinity import Infinity, InfinityTokenizer, InfinityTransformer
from hguide.backends.infinity import TokenizerConfig as InfinityTokenizerConfig
from hguide.backends.infinity import TransformerConfig as InfinityConfig
from hguide.backends.infinity.files import save as save_infinity
from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.backends.vq_diffusion import VQGAN, Denoiser, DenoiserConfig, TokenizerConfig, VQDiffusion
from hguide.backends.vq_diffusion.files import save as save_vq_diffusion
from hguide.errors import ConfigError
from hguide.experiments.paper.families import FAMILIES
from hguide.experiments.paper.preset import read_preset
from hguide.experiments.paper.run import PaperOptions, ablation_config, run_preset
from hguide.guidance import parse
from hguide.images import read_png
from hguide.load import family_of

CLASSES = ("beach", "forest", "river")
TEXT = TinyTextConfig(dim=24, tokens=12)


def hart(patch_nums: tuple[int, ...] = (1, 2, 4)) -> HART:
    shape = HARTConfig(
        patch_nums=patch_nums, depth=1, width=32, heads=2, hidden=48, vocabulary=24, latent_channels=8,
        context_tokens=TEXT.tokens, context_dim=TEXT.dim, residual_width=16, residual_depth=1, diffusion_steps=2,
    )  # fmt: skip
    pictures = HARTTokenizerConfig(AutoencoderConfig(32, (1, 1, 1, 1), 1, 8), 24, patch_nums)
    return HART(HARTTransformer(shape), HARTTokenizer(pictures), TinyTextEncoder(TEXT), name="tiny", classes=CLASSES)


def infinity() -> Infinity:
    shape = InfinityConfig(
        depth=1, width=32, heads=2, bits=4, text_channels=TEXT.dim, text_length=TEXT.tokens, text_heads=4
    )
    pictures = InfinityTokenizerConfig(AutoencoderConfig(24, (1, 1, 1, 1), 1, 4, 24, attention=False))
    parts = InfinityTransformer(shape), InfinityTokenizer(pictures), SQUARE
    return Infinity(*parts, text_encoder=TinyTextEncoder(TEXT), name="tiny", classes=CLASSES)


def vq_diffusion() -> VQDiffusion:
    autoencoder = AutoencoderConfig(channels=8, multipliers=(1, 1, 1, 1), blocks=1, latent_channels=6, groups=4)
    pictures = TokenizerConfig(autoencoder=autoencoder, vocabulary=12, code_channels=5, codes=12)
    shape = DenoiserConfig(
        condition="class", classes=3, codes=12, timesteps=3, depth=1, width=16, heads=2, mlp_ratio=2.0,
        grid=(4, 4), position_grid=(4, 4), learned_null=True,
    )  # fmt: skip
    return VQDiffusion(Denoiser(shape), VQGAN(pictures), name="tiny", classes=CLASSES)


MAKERS = {
    "hart": (hart, save_hart),
    "infinity": (infinity, save_infinity),
    "vq_diffusion": (vq_diffusion, save_vq_diffusion),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family, and pictures of their size."""
    made = tmp_path_factory.mktemp("families")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for family, (make, save) in MAKERS.items():
            save(make(), made / f"{family}.safetensors")
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.savez(made / "real.npz", arr_0=pictures)
    return made


def options(folder: Path, preset: str, family: str, out: Path) -> PaperOptions:
    model, reference = str(folder / f"{family}.safetensors"), str(folder / "real.npz")
    small = {"seeds": "0-5", "replicates": 3, "block": 6, "settings": "bundled"}
    return PaperOptions(preset, model, out, reference=reference, **small)


@pytest.mark.parametrize(
    ("preset", "family"),
    [("ssg-table4", "hart"), ("ssg-table6", "infinity"), ("ssg-table7", "vq_diffusion")],
)
def test_a_preset_runs_on_a_model_of_its_family(folder, tmp_path, preset, family):
    asked = options(folder, preset, family, tmp_path)
    assert family_of(asked.model) == family
    table = run_preset(asked, lambda line: None)
    assert table.ok, [cell.error for cell in table.results.cells]
    assert [str(parse(cell.guidance)) for cell in table.results.cells] == [
        cell.guidance for cell in table.results.cells
    ]
    text = (tmp_path / "paper.md").read_text()
    for row in read_preset(preset, family=family).rows:
        for model, values in row.reported.items():
            assert all(f"{model}: {value:g}" in text for value in values.values())
    elsewhere = table.preset.reported.get("elsewhere", {})
    for column, tool in elsewhere.items():
        assert f"| CFG + SSG | {column} |" in text
        assert f"not measurable here: {tool} on exports/CFG-SSG" in text
    assert (tmp_path / "exports").exists() == bool(elsewhere)


def test_exports_are_the_pictures_and_their_prompts(folder, tmp_path):
    table = run_preset(options(folder, "ssg-table4", "hart", tmp_path), lambda line: None)
    lines = [json.loads(line) for line in (tmp_path / "exports" / "CFG" / "prompts.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [*CLASSES, *CLASSES]
    stored = np.load(tmp_path / "cells" / table.results.cells[0].hash / "block_000000.npz")["images"]
    assert (read_png(tmp_path / "exports" / "CFG" / lines[4]["file_name"])[0] == stored[4]).all()


@pytest.mark.parametrize("family", [*FAMILIES])
def test_every_family_has_a_pair_of_table_8(family):
    for published in (False, True):
        preset = read_preset("ssg-table8", family=family, published=published)
        base, guided = (parse(row.guidance) for row in preset.rows)
        assert str(guided).startswith(f"{base} | ssg(")
        config = ablation_config(preset, PaperOptions("ssg-table8", "model", Path(), prompts="a"))
        assert config["sampler"] == (dict(FAMILIES[family].sampler) if published else {})
        assert config["prompts"] == "a"


def test_other_families_and_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="ssg-table7 is of models of vq_diffusion.*not one of var"):
        run_preset(PaperOptions("ssg-table7", "landuse-var", tmp_path), lambda line: None)
    with pytest.raises(ConfigError, match="unknown settings 'bundeld': did you mean 'bundled'"):
        run_preset(PaperOptions("ssg-table8", "landuse-var", tmp_path, settings="bundeld"), lambda line: None)


class NotedTextEncoder(TinyTextEncoder):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(TEXT)
        self.prompts: list[str] = []

    def encode(self, prompts):
        self.prompts += prompts
        return super().encode(prompts)


def test_a_figure_takes_the_prompts_and_the_options_of_loading(folder, tmp_path):
    encoder, prompts = NotedTextEncoder(), tmp_path / "prompts.txt"
    prompts.write_text("a pier\na dune\n")
    given = replace(
        options(folder, "ssg-fig4a", "hart", tmp_path), prompts=str(prompts), load={"text_encoder": encoder}
    )
    table = run_preset(given, lambda line: None)
    assert {*encoder.prompts} >= {"a pier", "a dune"}
    assert not {*encoder.prompts} & {*CLASSES}
    assert {place for place, *_ in table.values} == {"1x1 to 2x2", "2x2 to 4x4"}
    with pytest.raises(
        ConfigError, match="hart are loaded without an option 'text_encodr': did you mean 'text_encoder'"
    ):
        run_preset(replace(given, load={"text_encodr": "FOLDER"}), lambda line: None)


def test_completion_takes_a_prompt_per_class_of_its_pictures(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_hart(hart((1, 2, 8)), tmp_path / "hart.safetensors")
    rng = np.random.default_rng(0)
    coded = rng.integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)
    np.savez(tmp_path / "test.npz", coded=coded, labels=[0, 1, 1], source=np.array([b"a00", b"b00", b"b01"]))
    (tmp_path / "classes.json").write_text(json.dumps(["beach", "forest"]))
    encoder, prompts = NotedTextEncoder(), tmp_path / "prompts.txt"
    prompts.write_text("a shore\na wood\n")
    given = PaperOptions(
        "ssg-fig2", str(tmp_path / "hart.safetensors"), tmp_path / "out", settings="bundled", data=tmp_path,
        prompts=str(prompts), load={"text_encoder": encoder}, replicates=3,
    )  # fmt: skip
    run_preset(given, lambda line: None)
    assert {each for each in encoder.prompts if each} == {"a shore", "a wood"}
    text = (tmp_path / "out" / "paper.md").read_text()
    assert "| 2 of 3 | CFG + SSG | distance | only drawn; value not available | " in text
    assert "distance on the bundled feature network for LPIPS; " in text
    prompts.write_text("a\nb\nc\n")
    with pytest.raises(ConfigError, match=r"one per class of theirs \(2, in the order beach, forest.*got 3"):
        run_preset(given, lambda line: None)
