"""Figures and file of a trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hguide
from hguide import Binary, Sampler
from hguide.backends.toy import ToyGenerator
from hguide.experiments.trace.curves import curves_figure
from hguide.experiments.trace.document import SCHEMA, document, text
from hguide.experiments.trace.figure_style import write_figure
from hguide.experiments.trace.heat_maps import heat_figure, upsampled
from hguide.experiments.trace.records import StepRow, TraceOptions, Tracer
from hguide.experiments.trace.summary import QUANTITIES, summarise

OPTIONS = TraceOptions()


def rows_of(toy: ToyGenerator, guidance: str, options: TraceOptions = OPTIONS, seeds: int = 2) -> list[list[StepRow]]:
    tracer = Tracer(toy.channels, Sampler(), options, pictures=2)
    hguide.generate(toy, 1, guidance, seeds=range(seeds), on_step=tracer)
    return tracer.take()


def words(figure: object) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "toy", [ToyGenerator(), ToyGenerator(channels=Binary(6), calls=3)], ids=["tokens", "bits in parts"]
)
def test_png_and_svg(toy: ToyGenerator, tmp_path: Path) -> None:
    rows = rows_of(toy, "cfg(2.0) | ssg(0.5)")
    figures = {
        "curves": curves_figure(summarise(rows), OPTIONS, toy.channels, "title", "below"),
        "heat": heat_figure(rows, ["a", "b"], "title", "below"),
    }
    for name, figure in figures.items():
        png, svg = write_figure(figure, tmp_path / name, dpi=40)
        with Image.open(png) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len({tuple(pixel) for pixel in pixels[::3, ::3].reshape(-1, 3).tolist()}) > 50
        assert svg.read_text().startswith("<?xml")
        assert "title" in svg.read_text()
    assert "nothing" not in words(figures["curves"])


def test_the_svg_of_equal_numbers_is_equal(tmp_path: Path) -> None:
    rows = rows_of(ToyGenerator(), "cfg(2.0)")
    figures = [heat_figure(rows, ["a", "b"], "title", "below") for _ in range(2)]
    one, other = (write_figure(figure, tmp_path / str(i), dpi=20)[1].read_bytes() for i, figure in enumerate(figures))
    assert one == other


def test_where_nothing_is_added_the_figure_says_so() -> None:
    toy = ToyGenerator()
    rows = rows_of(toy, "none")
    figure = curves_figure(summarise(rows), OPTIONS, toy.channels, "title", "below")
    assert words(figure).count("the guidance adds nothing") == 3
    assert heat_figure(rows, ["a", "b"], "title", "below") is None
    looked_at = TraceOptions(signal="contrast")
    rows = rows_of(toy, "ssg", looked_at)
    figure = curves_figure(summarise(rows), looked_at, toy.channels, "title", "below")
    assert words(figure).count("no step has a null stream") == 3
    assert heat_figure(rows, ["a", "b"], "title", "below") is None


def test_one_step_and_one_sample() -> None:
    toy = ToyGenerator(grids=((3, 3),))
    rows = rows_of(toy, "cfg(w=2.0)", seeds=1)
    figure = curves_figure(summarise(rows), OPTIONS, toy.channels, "title", "below")
    assert "no step has a map before it" in words(figure)
    assert "not defined at any step" in words(figure)  # the divergence from the step before
    assert heat_figure(rows, ["a"], "title", "below") is not None


def test_many_steps_are_thinned_out() -> None:
    toy = ToyGenerator(grids=((4, 4),) * 30, drift=(0.0,) * 30)
    rows = rows_of(toy, "cfg(2.0)", seeds=1)
    figure = heat_figure(rows, ["a"], "title", "below")
    titles = [axes.get_title() for axes in figure.axes]
    assert len([title for title in titles if title]) == 12
    curves = curves_figure(summarise(rows), OPTIONS, toy.channels, "title", "below")
    assert all(len(axes.get_xticks()) <= 15 for axes in curves.axes)


@pytest.mark.parametrize(("grid", "size"), [((1, 1), (4, 6)), ((2, 3), (4, 6)), ((3, 3), (8, 8)), ((5, 7), (32, 32))])
def test_upsampled_by_the_centres(grid: tuple[int, int], size: tuple[int, int]) -> None:
    heat = np.random.default_rng(0).random(grid)
    found = upsampled(heat, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            assert found[y, x] == heat[int((y + 0.5) / size[0] * grid[0]), int((x + 0.5) / size[1] * grid[1])]


def test_the_document_is_whole_and_finite() -> None:
    rows = rows_of(ToyGenerator(calls=3), "cfg(2.0) | ssg(0.5)")
    labels = [{"condition": 1, "name": "class 1", "seed": seed} for seed in (0, 1)]
    content = document(rows, labels, OPTIONS, {"guidance": "cfg(2.0) | ssg(0.5)"})
    read = json.loads(text(content), parse_constant=lambda word: pytest.fail(f"{word} in the file"))
    assert read == json.loads(json.dumps(content))
    assert read["schema"] == SCHEMA == "hguide.trace/1"
    assert read["looked_at"]["prior"] == "dse"
    assert set(read["quantities"]) == {*QUANTITIES, "bands", "heat"}
    assert [step["grid"] for step in read["steps"]] == [[1, 1], [2, 2], [3, 3], [5, 5], [8, 8], [8, 8], [8, 8]]
    for sample, label in zip(read["samples"], labels, strict=True):
        assert {key: sample[key] for key in label} == label
        for step, row in zip(sample["steps"], rows[label["seed"]], strict=True):
            assert set(step) == {"index", "call", "grid", "tokens", "bands", "heat", *QUANTITIES}
            assert [len(step["heat"]), len(step["heat"][0])] == step["grid"]
            assert step["strength"] == row.strength
    assert read["samples"][0]["steps"][-1]["heat"] != read["samples"][1]["steps"][-1]["heat"]
    assert None in read["samples"][0]["steps"][-1]["heat"][0] + read["samples"][0]["steps"][-1]["heat"][1]


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        text({"value": float("nan")})
