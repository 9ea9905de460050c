"""Editing and completion with every family: kept tokens in a run, and `hguide edit` from a file to PNGs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from text_folders import clip_folder
from tiny_hart import tiny_hart
from tiny_infinity import TEXT_CHANNELS, text, tiny_infinity
from tiny_switti import CHANNELS, tiny_switti
from tiny_switti import text as tiny_switti_text
from tiny_vq_diffusion import tiny_vq_diffusion

from hguide.backends.hart import files as hart_files
from hguide.backends.infinity import files as infinity_files
from hguide.backends.switti import files as switti_files
from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.backends.var import Edit, box_mask
from hguide.backends.vq_diffusion import files as vq_diffusion_files
from hguide.cli import main
from hguide.errors import ShapeError
from hguide.generate import StepRecord, generate
from hguide.images import read_png, write_png

FAMILIES = ("hart", "infinity", "infinity-patches", "switti", "switti-autoregressive", "vq_diffusion")


@pytest.mark.parametrize(("patchify", "grid"), [(False, "transformer"), (True, "transformer"), (True, "tokenizer")])
def test_infinity_keeps_the_bits_of_the_picture(patchify: bool, grid: Any) -> None:
    model = tiny_infinity(patchify, guidance_grid=grid)
    image = torch.rand(1, 3, *model.image_size, generator=torch.Generator().manual_seed(5))
    own = model.encode(image)
    side = own[-1].shape[1]
    keep = torch.zeros(side, side, dtype=torch.bool)
    keep[:, : side // 2] = True
    edited = model.with_options(edit=Edit(own, keep))
    records: list[StepRecord] = []
    generate(edited, text(5), "cfg(w=3) | ssg", seeds=[0, 1], on_step=records.append)
    assert len(records) == model.count
    for record, bits in zip(records, own, strict=True):
        drawn = record.draw.tokens
        if bits.shape[1] * bits.shape[2] <= 3:  # VAR's rule: small maps are kept whole
            assert torch.equal(drawn, bits.expand_as(drawn))
        elif bits.shape[1] % 2 == 0:
            half = bits.shape[1] // 2
            assert torch.equal(drawn[:, :, :half], bits[:, :, :half].expand_as(drawn[:, :, :half]))
            assert not torch.equal(drawn[:, :, half:], bits[:, :, half:].expand_as(drawn[:, :, half:]))
    assert model.edit is None
    whole = generate(model.with_options(edit=Edit(own, torch.ones_like(keep))), text(5), seeds=[0, 1])
    assert torch.equal(whole[0], whole[1])
    other = Edit([torch.zeros(1, 5, 5, 4, dtype=torch.int64)] * 4, torch.ones(5, 5, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"step 0 lie on \(5, 5, 4\), the model's on"):
        generate(model.with_options(edit=other), text(5), seeds=[0])


@pytest.mark.parametrize("inside", [True, False], ids=["outpaint", "inpaint"])
@pytest.mark.parametrize("autoregressive", [True, False])
def test_switti_keeps_the_codes_of_the_picture(autoregressive: bool, inside: bool) -> None:
    model = tiny_switti(autoregressive=autoregressive)
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    own = model.encode(image)
    keep = box_mask((4, 4), (0, 0, 1, 0.5), inside=inside)
    records: list[StepRecord] = []
    edited = model.with_options(edit=Edit(own, keep))
    generate(edited, tiny_switti_text(5), "cfg(w=3) | ssg", seeds=[0, 1], on_step=records.append)
    codes = records[-1].draw.embedding
    wanted = model.tokenizer.quantize.lookup(own[-1])
    assert torch.equal(codes[..., keep], wanted[..., keep].expand(2, -1, -1))
    assert not torch.equal(codes[..., ~keep], wanted[..., ~keep].expand(2, -1, -1))
    assert torch.equal(records[0].draw.embedding, model.tokenizer.quantize.lookup(own[0]).expand(2, -1, -1, -1))


def test_maps_of_more_than_one_picture_are_refused() -> None:
    maps = [torch.zeros(2, 2, 2, 4, dtype=torch.int64)]
    with pytest.raises(ShapeError, match=r"tokens are \(1, h, w\) or \(1, h, w, bits\) maps of one picture"):
        Edit(maps, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"keep is a mask on the last grid \(2, 2\), got \(2, 3\)"):
        Edit([maps[0][:1]], box_mask((2, 3), (0, 0, 1, 1), inside=True))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file of a tiny model of each family."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    encoder = TinyTextEncoder(TinyTextConfig(dim=TEXT_CHANNELS, tokens=12, heads=2)).eval()
    hart_files.save(tiny_hart(), folder / "hart.safetensors")
    infinity_files.save(tiny_infinity(text_encoder=encoder), folder / "infinity.safetensors")
    infinity_files.save(tiny_infinity(True, text_encoder=encoder), folder / "infinity-patches.safetensors")
    texts = {"text_tokens": 77, "pooled_channels": 8}
    switti_files.save(tiny_switti(**texts), folder / "switti.safetensors")
    switti_files.save(tiny_switti(**texts, autoregressive=True), folder / "switti-autoregressive.safetensors")
    clip_folder(folder / "small", CHANNELS - 8)
    clip_folder(folder / "large", 8)
    vq_diffusion_files.save(tiny_vq_diffusion(grid=(4, 4)), folder / "vq_diffusion.safetensors")
    return {family: str(folder / f"{family}.safetensors") for family in FAMILIES}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    write_png(path, np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    return str(path)


def edit(model: str, picture: str, out: Path, *arguments: str) -> list[np.ndarray]:
    label = ["--class", "a harbor"] if "infinity" in model else []
    if "switti" in model:
        towers = json.dumps([str(Path(model).with_name(name)) for name in ("small", "large")])
        label = ["--class", "a", "--load.text_encoder", towers]
    common = ["--model", model, "--out", str(out), "--seeds", "0-1", "--guidance", "cfg(w=2) | ssg(0.5)"]
    assert main(["edit", picture, *common, *label, *arguments]) == 0
    return [read_png(out / f"edit_00000{seed}.png")[0] for seed in (0, 1)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_edits_and_completes_from_the_command_line(
    family: str, models: dict[str, str], picture: str, tmp_path: Path
) -> None:
    model = models[family]
    kept = edit(model, picture, tmp_path / "kept", "--outpaint", "--box", "0,0,1,1")
    assert (kept[0] == kept[1]).all()
    outside = edit(model, picture, tmp_path / "outside", "--outpaint", "--box", "0,0,1,0.5")
    assert (outside[0] != outside[1]).any()
    made = edit(model, picture, tmp_path / "made", "--box", "0,0,1,0.5")
    assert (made[0] != made[1]).any()
    completed = edit(model, picture, tmp_path / "completed", "--prefix", "2")
    assert (completed[0] != completed[1]).any()
    text = read_png(tmp_path / "completed" / "edit_000001.png")[1]
    assert (text["edit"], text["prefix"], text["seed"]) == ("complete", "2", "1")
    assert read_png(tmp_path / "completed" / "sheet.png")[0].ndim == 3


def test_prefixes_that_are_none(models: dict[str, str], picture: str, tmp_path: Path, capsys: Any) -> None:
    for arguments, message in (
        (["--prefix", "6"], "tiny has 6 steps: --prefix is from 1 to 5, got 6"),
        (["--prefix", "1", "--outpaint"], "give one of --inpaint, --outpaint and --prefix"),
    ):
        assert main(["edit", picture, "--model", models["vq_diffusion"], "--out", str(tmp_path / "o"), *arguments]) == 2
        assert message in capsys.readouterr().err
