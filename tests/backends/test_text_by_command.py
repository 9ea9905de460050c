"""Text encoders of every family, given on the command line as to `hguide.load`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from text_folders import clip_folder, qwen_folder, t5_folder
from tiny_hart import tiny_hart
from tiny_infinity import TEXT_CHANNELS, tiny_infinity
from tiny_switti import CHANNELS, tiny_switti
from tiny_vq_diffusion import tiny_vq_diffusion

import hguide
from hguide.backends.hart.files import save as save_hart
from hguide.backends.infinity.files import save as save_infinity
from hguide.backends.switti.files import save as save_switti
from hguide.backends.vq_diffusion.files import save as save_vq_diffusion
from hguide.cli import main
from hguide.images import read_png, to_uint8

Made = tuple[Path, list[str], Mapping[str, Any]]


def _hart(root: Path) -> Made:
    save_hart(tiny_hart(context_tokens=300, context_dim=16), root / "m.safetensors")
    folder = qwen_folder(root / "qwen")
    given = ["--load.text_encoder", str(folder), "--load.system_prompt", "null"]
    return root / "m.safetensors", given, {"text_encoder": folder, "system_prompt": None}


def _infinity(root: Path) -> Made:
    model = tiny_infinity()
    save_infinity(model, root / "m.safetensors")
    folder = t5_folder(root / "t5", TEXT_CHANNELS)
    return root / "m.safetensors", ["--load.text_encoder", str(folder)], {"text_encoder": folder}


def _switti(root: Path) -> Made:
    save_switti(tiny_switti(text_tokens=77, pooled_channels=8), root / "m.safetensors")
    pair = clip_folder(root / "small", CHANNELS - 8), clip_folder(root / "large", 8)
    given = ["--load", f'{{"text_encoder": ["{pair[0]}", "{pair[1]}"]}}']
    return root / "m.safetensors", given, {"text_encoder": pair}


def _vq_diffusion(root: Path) -> Made:
    save_vq_diffusion(tiny_vq_diffusion("text", text_length=77, text_channels=16), root / "m.safetensors")
    folder = clip_folder(root / "clip", 16)
    return root / "m.safetensors", ["--load.text_encoder", str(folder)], {"text_encoder": folder}


FAMILIES = {"hart": _hart, "infinity": _infinity, "switti": _switti, "vq_diffusion": _vq_diffusion}


@pytest.fixture(params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    make: Callable[[Path], Made] = FAMILIES[request.param]
    with torch.random.fork_rng():
        return make(tmp_path)


def sample(path: Path, out: Path, *arguments: str) -> int:
    return main(["sample", "--model", str(path), "--out", str(out), "--prompts", "a", "--seeds", "3", *arguments])


def last_logits(model: Any, prompt: str) -> torch.Tensor:
    found: list[torch.Tensor] = []
    hguide.generate(model, prompt, seeds=[3], on_step=lambda record: found.append(record.logits.clone()))
    return found[-1]


def test_prompts_reach_the_encoder_that_the_command_names(made: Made, tmp_path: Path) -> None:
    path, given, options = made
    asked = (*given, "--guidance", "cfg(w=2)")
    assert sample(path, tmp_path / "out", *asked) == 0
    (picture,) = (tmp_path / "out").iterdir()
    model = hguide.load(path, **options)
    (pixels,) = to_uint8(hguide.generate(model, "a", "cfg(w=2)", seeds=[3]))
    assert (read_png(picture)[0] == pixels).all()
    assert not torch.equal(last_logits(model, "a"), last_logits(model, "cab"))
    assert read_png(picture)[1]["condition"] == "a"
    # The picture names its encoder, so that it can be repeated; the same command finds it there.
    assert main(["sample", "--from", str(picture), "--out", str(tmp_path / "again")]) == 0
    assert sample(path, tmp_path / "out", *asked) == 0


def test_prompts_without_an_encoder_say_how_one_is_given(made: Made, tmp_path: Path, capsys: Any) -> None:
    path, *_ = made
    assert sample(path, tmp_path / "out", "--guidance", "none") == 2
    assert "needs a text encoder, but none was given" in (said := capsys.readouterr().err)
    assert "--load.text_encoder FOLDER" in said
    assert not (tmp_path / "out").exists()


def test_options_that_are_none_of_the_family_or_stand_by_themselves(tmp_path: Path, capsys: Any) -> None:
    path, *_ = _infinity(tmp_path)
    for given, said in (
        (["--load.text_encodr", "T5"], "models of infinity are loaded without an option 'text_encodr': did you mean"),
        (["--load.tokenizer", "vae.pth"], "load: tokenizer is an option by itself: --tokenizer vae.pth"),
        (["--load.text_encoder", str(tmp_path / "absent")], f"{tmp_path / 'absent'}: no such folder"),
    ):
        assert sample(path, tmp_path / "out", *given) == 2
        assert said in capsys.readouterr().err


def test_a_demo_and_a_trace_of_prompts(tmp_path: Path) -> None:
    path, given, _ = _infinity(tmp_path)
    asked = ["--model", str(path), *given, "--seeds", "0"]
    demo = [*asked, "--classes", "cat,dog", "--guidances", "none; cfg(w=2)", "--out", str(tmp_path / "demo")]
    assert main(["demo", *demo]) == 0
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["classes"] == ["cat", "dog"]
    trace = [*asked, "--prompts", "many cat", "--guidance", "cfg(w=2)", "--pictures", "0"]
    assert main(["trace", *trace, "--out", str(tmp_path / "trace")]) == 0
    record = json.loads((tmp_path / "trace" / "trace.json").read_text())
    assert record["samples"][0]["condition"] == "many cat"
    assert record["model"]["load"] == {"text_encoder": given[1]}
