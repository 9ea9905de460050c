"""Bytes, PNG files, and the hash of a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hguide.backends.toy import ToyGenerator
from hguide.cli.sheet import Row, labelled_sheet
from hguide.cli.strip import heat_colours
from hguide.errors import ConfigError
from hguide.images import read_image, read_png, to_uint8, write_png
from hguide.provenance import model_hash


def test_every_byte_survives_and_the_nearest_is_taken():
    bytes_ = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert (to_uint8(bytes_.float() / 255)[0, ..., 0] == bytes_[0, 0].numpy()).all()
    values = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert np.abs(to_uint8(values)[0].transpose(2, 0, 1) - 255 * values[0].numpy()).max() <= 0.5 + 1e-4


def test_png_round_trip(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels, {"guidance": "cfg(1.5) | ssg — ü"})
    found, text = read_png(tmp_path / "a.png")
    assert (found == pixels).all()
    assert text == {"guidance": "cfg(1.5) | ssg — ü"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        write_png(tmp_path / "nowhere" / "a.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        write_png(tmp_path / "folder", np.zeros((2, 2, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_pictures_are_cut_to_their_centre(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "wide.png", (8, 8)).min() == 1.0
    gray = Image.fromarray(np.full((9, 9), 51, np.uint8))
    gray.save(tmp_path / "gray.png")
    found = read_image(tmp_path / "gray.png", (4, 6))
    assert found.shape == (1, 3, 4, 6)
    assert torch.allclose(found, torch.tensor(0.2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_of_16_bits_is_rescaled(suffix, tmp_path):
    values = np.array([[0, 128, 257, 32896], [65535, 65280, 1000, 129]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    found = read_image(tmp_path / f"deep.{suffix}", (2, 4))[0]
    assert (found * 255).round().int().tolist() == [np.rint(values / 257).astype(int).tolist()] * 3


def test_integers_of_32_bits_are_read_where_16_suffice(tmp_path):
    file = tmp_path / "wide.tif"
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(file)
    assert read_image(file, (1, 2))[0, 0].tolist() == [[0.0, 1.0]]
    Image.fromarray(np.array([[-1, 65536]], np.int32)).save(file)
    with pytest.raises(ConfigError, match="integers from -1 to 65536, which do not tell.*PNG of 8 or 16 bits"):
        read_image(file, (1, 2))


def test_floats_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ConfigError, match="its pixels are floats.*scale them to 0-255"):
        read_image(tmp_path / "f.tif", (4, 4))


def test_what_is_transparent_is_laid_over_white(tmp_path):
    pixels = np.array([[[200, 10, 40, 0], [200, 10, 40, 255], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    found = read_image(tmp_path / "clear.png", (1, 3))[0].permute(1, 2, 0)[0] * 255
    assert found.round().int().tolist() == [[255, 255, 255], [200, 10, 40], [204, 204, 204]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([9, 9, 9, 70, 80, 90])
    palette.save(tmp_path / "palette.png", transparency=0)
    found = read_image(tmp_path / "palette.png", (1, 2))[0].permute(1, 2, 0)[0] * 255
    assert found.round().int().tolist() == [[255, 255, 255], [70, 80, 90]]


def test_model_hash_follows_the_weights():
    one, same, other = ToyGenerator(), ToyGenerator(), ToyGenerator(seed=1)
    assert model_hash(one) == model_hash(same) != model_hash(other)
    same.tables[2][0, 0, 0, 0] += 1e-3
    assert model_hash(one) != model_hash(same)


@pytest.mark.parametrize("count", [1, 3, 12, 23])
def test_sheet_shows_every_cell_once(count):
    """Cells of one colour each, none of them the colours of text: every one is found whole."""
    colours = [(200, index * 9 % 256, 60 + index) for index in range(2 * count)]
    cells = np.array(colours, np.uint8).reshape(2, count, 1, 1, 3).repeat(16, 2).repeat(16, 3)
    rows = [Row("no guidance", ("accuracy 0.5",), cells[0]), Row("a very long guidance | that(wraps)", (), cells[1])]
    sheet = labelled_sheet("title", "subtitle", rows, [f"class {index}\nseed 0" for index in range(count)])
    for colour in colours:
        assert (sheet == np.array(colour, np.uint8)).all(-1).sum() == 128 * 128


def test_heat_colours_run_from_dark_to_light():
    brightness = heat_colours(np.linspace(0, 2, 9).reshape(1, 9), 2.0).astype(int).sum(-1)[0]
    assert (np.diff(brightness) > 0).all()
    assert (heat_colours(np.zeros((2, 2)), 0.0) == heat_colours(np.zeros((2, 2)), 1.0)).all()
