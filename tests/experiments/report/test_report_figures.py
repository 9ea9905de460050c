"""Figures: what is drawn, read from the axes rather than from pixels."""

from __future__ import annotations

import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import report_examples as examples
from PIL import Image

from hguide.experiments.report.cost_figure import cost_figure
from hguide.experiments.report.figure_style import axis_label, cell_styles, cut, styled
from hguide.experiments.report.figures import figure_files, figures, write_figures
from hguide.experiments.report.pareto_figure import pareto_figure, pareto_front
from hguide.experiments.report.series import series_over, swept
from hguide.experiments.report.spectra_figure import spectra_figure, spectra_panels
from hguide.experiments.report.sweep_figure import sweep_figure


def drawn(axes, label: str):
    """The line of a label."""
    return next(line for line in axes.get_lines() if line.get_label() == label)


def panel(figure, title: str):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


@pytest.fixture(autouse=True)
def _titles_at_the_left():
    with matplotlib.rc_context({"axes.titlelocation": "left", "text.parse_math": False}):
        yield


@pytest.mark.parametrize(
    ("x_higher", "y_higher", "expected"),
    [(True, True, [3, 2, 1]), (False, True, [0, 3]), (True, False, [1]), (False, False, [0, 4, 1])],
)
def test_the_front_by_hand(x_higher, y_higher, expected):
    points = [(0.0, 1.0), (4.0, 0.0), (3.0, 2.0), (2.0, 3.0), (1.0, 0.5)]
    assert pareto_front(points, x_higher, y_higher) == expected


def test_equal_points_are_both_on_the_front():
    assert pareto_front([(1.0, 1.0), (1.0, 1.0), (0.5, 1.0)], True, True) == [0, 1]


def test_pareto_points_bars_and_front():
    results = examples.eight()
    figure = pareto_figure(results, [("kd", "accuracy"), ("recall", "precision"), ("kd", "nothing")])
    left, right = figure.axes
    assert left.get_xlabel() == "KD, landuse-features  (←\N{NO-BREAK SPACE}better)"
    assert left.get_ylabel() == "accuracy  (better\N{NO-BREAK SPACE}↑)"
    assert right.get_xlabel() == "recall, landuse-features  (better\N{NO-BREAK SPACE}→)"
    bars = {each.get_label(): each for each in left.containers}
    # Cells that are partial, failed or missing have no place beside those with all images.
    assert list(bars) == list("ABCDE")
    b = results.cells[1].measures
    assert bars["B"].lines[0].get_xydata().tolist() == [[b["kd"].estimate, b["accuracy"].estimate]]
    horizontal = bars["B"].lines[2][0].get_segments()[0]
    assert horizontal[:, 0] == pytest.approx([b["kd"].low, b["kd"].high])
    vertical = bars["B"].lines[2][1].get_segments()[0]
    assert vertical[:, 1] == pytest.approx([b["accuracy"].low, b["accuracy"].high])
    e = results.cells[4].measures
    assert drawn(left, "front").get_xydata().tolist() == [[e["kd"].estimate, e["accuracy"].estimate]]
    front = drawn(right, "front")
    estimates = sorted((c.measures["recall"].estimate, c.measures["precision"].estimate) for c in results.cells[:5])
    assert front.get_xydata().tolist() == [list(each) for each in estimates]
    # Up to a point of the front, its own height is reached.
    assert front.get_drawstyle() == "steps-pre"
    assert {text.get_text() for text in left.texts} >= set("ABCDE")
    assert [text.get_text()[0] for text in figure.legends[0].get_texts()] == list("ABCDE")
    assert drawn(right, "floor of precision").get_ydata()[0] == results.floor["precision"].estimate


def test_pareto_joins_sweeps():
    results = examples.sweep()
    axes = pareto_figure(results, [("kd", "accuracy")]).axes[0]
    cells = [each for each in results.cells if each.axes["prior"] == "nearest" and each.status == "done"]
    expected = [[each.measures["kd"].estimate, each.measures["accuracy"].estimate] for each in cells]
    assert len(expected) == 4
    assert any(line.get_xydata().tolist() == expected for line in axes.get_lines())


def test_spectra():
    results = examples.eight()
    figure = spectra_figure(results)
    (axes,) = figure.axes
    cell = results.cells[2]
    line = drawn(axes, "C  cfg(3.0) | ssg(0.5, prior=bilinear)")
    assert line.get_xdata() == pytest.approx(cell.spectrum.frequency)
    assert line.get_ydata() == pytest.approx(cell.spectrum.ratio)
    baseline = drawn(axes, "A  cfg(3.0) (baseline)")
    assert baseline.get_color() == "#000000"
    assert np.unique(drawn(axes, "real images").get_ydata()).tolist() == [1.0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "spatial frequency (cycles per pixel)"
    # Several numbers to read the ratio by, though the panel spans less than a factor of two.
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.yaxis.get_majorticklocs()) >= 3


def test_spectra_of_a_sweep_have_a_panel_per_series():
    panels = spectra_panels(examples.sweep())
    assert [each.title for each in panels] == [
        "dse, linear, by strength",
        "nearest, linear, by strength",
        "dse, cosine, by strength",
    ]
    assert panels[1].labels == ("G  strength 0.25", "H  strength 0.5", "I  strength 1", "J  strength 1.5")


def test_series_by_hand():
    results = examples.sweep()
    series = series_over(results, "strength")
    assert [len(each.cells) for each in series] == [1, 5, 5, 5]
    assert series[1].values == (0.25, 0.5, 1.0, 1.5, 2.0)
    assert [each.label for each in series] == ["cfg(3.0)", "dse, linear", "nearest, linear", "dse, cosine"]
    assert swept(results, "temperature") == ()
    assert swept(examples.eight(), "strength") == ()


def test_a_series_is_named_by_its_guidance_where_guidances_differ():
    results = examples.sweep()
    template = "cfg(3.0) | ssg({strength}, prior={prior})"
    cells = tuple(
        replace(
            each,
            axes={**each.axes, "guidance": template if place < 11 else f"{template} | rescale"},
            varied=("guidance", "prior", "schedule", "strength"),
        )
        for place, each in enumerate(results.cells)
    )
    assert [each.label for each in swept(replace(results, cells=cells), "strength")] == [
        "cfg(3.0) | ssg(strength, prior=dse), linear",
        "cfg(3.0) | ssg(strength, prior=nearest), linear",
        "cfg(3.0) | ssg(strength, prior=dse) | rescale, cosine",
    ]
    # One series alone has nothing to be told from.
    (alone,) = swept(replace(results, cells=cells[:6], comparisons=()), "strength")
    assert alone.label == "cfg(3.0) | ssg(strength, prior=dse)"


def test_values_are_sorted_and_truth_values_are_no_numbers():
    results = examples.sweep()
    turned = replace(results, cells=results.cells[::-1])
    assert swept(turned, "strength")[0].values == (0.25, 0.5, 1.0, 1.5, 2.0)
    cells = tuple(replace(each, axes={**each.axes, "strength": True}) for each in results.cells)
    assert swept(replace(results, cells=cells), "strength") == ()


def test_sweep_lines_bands_and_baseline():
    results = examples.sweep()
    figure = sweep_figure(results, "strength")
    axes = panel(figure, "accuracy")
    line = drawn(axes, "nearest, linear")
    cells = [each for each in results.cells if each.axes["prior"] == "nearest" and each.status == "done"]
    assert line.get_xdata().tolist() == [0.25, 0.5, 1.0, 1.5]
    assert line.get_ydata() == pytest.approx([each.measures["accuracy"].estimate for each in cells])
    # One band per series, from the lower to the upper ends of the intervals.
    bands = axes.collections
    assert len(bands) == 3
    edges = bands[1].get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx(min(each.measures["accuracy"].low for each in cells))
    assert edges.max() == pytest.approx(max(each.measures["accuracy"].high for each in cells))
    baseline = drawn(axes, "baseline: cfg(3.0)")
    assert set(baseline.get_ydata()) == {results.cells[0].measures["accuracy"].estimate}
    assert drawn(axes, "real images").get_ydata()[0] == results.floor["accuracy"].estimate
    assert len([each for each in figure.axes if each.get_visible()]) == len(results.measures)
    assert sweep_figure(results, "temperature") is None


def test_lines_differ_in_more_than_colour():
    styles = cell_styles(examples.sweep()).values()
    kinds = {(each.colour, each.marker, str(each.dash)) for each in styles}
    assert len(kinds) == 4
    assert len({marker for _, marker, _ in kinds}) == len({dash for _, _, dash in kinds}) == 4


def test_costs():
    results = examples.eight()
    time, memory = cost_figure(results).axes
    cells = [each for each in results.cells if each.seconds_per_image is not None]
    assert [bar.get_width() for bar in time.patches] == pytest.approx([1000 * c.seconds_per_image for c in cells])
    assert [bar.get_width() for bar in memory.patches] == [c.peak_memory_mb for c in cells if c.peak_memory_mb]
    assert time.get_xlabel() == "time per image (ms, ← better)"
    assert [text.get_text() for text in memory.texts][-2:] == ["not measured", "not measured"]
    names = [text.get_text() for text in time.get_yticklabels()]
    assert names[0] == "A  cfg(3.0)"
    assert names[-1] == "G†  none"
    assert "54   (7 steps × 2 streams)" in time.texts[0].get_text()
    without = tuple(replace(each, seconds_per_image=None) for each in results.cells)
    assert cost_figure(replace(results, cells=without)) is None


def test_labels():
    results = examples.eight()
    assert axis_label(results, results.measures[8]) == "high band"
    assert cut("a" * 30, 10) == "aaaa… aaaa"
    assert cut("short", 10) == "short"
    assert len(cut("x" * 99, 41)) == 41


def test_figures_of_one_cell():
    results = examples.results_of((examples.cell("none", 1.0),))
    assert list(figures(results)) == ["pareto", "spectra", "costs"]
    empty = examples.results_of((examples.cell("none", 1.0, "missing"),))
    assert figures(empty) == {}


def _rooms(figure) -> list[tuple[float, float]]:
    """Inches of each panel; drawing warns, which is an error here, where a legend leaves the panels nothing."""
    figure.draw_without_rendering()
    size = figure.get_size_inches()
    places = [axes.get_position() for axes in figure.axes if axes.get_visible()]
    return [(each.width * size[0], each.height * size[1]) for each in places]


@pytest.mark.parametrize(("priors", "strengths"), [(40, 1), (2, 20), (20, 2)])
def test_forty_one_cells_leave_every_panel_its_room(priors, strengths):
    results = examples.many(priors, strengths)
    with styled():
        made = figures(results)
        assert set(made) == {"pareto", "spectra", "costs"} | ({"sweep_strength"} if strengths > 1 else set())
        alone = pareto_figure(results, [("kd", "accuracy")])
        for figure in (made["pareto"], made["spectra"], alone):
            for width, height in _rooms(figure):
                assert width > 3.0
                assert height > 2.5
        for name in {"costs", "sweep_strength"} & set(made):
            for width, height in _rooms(made[name]):
                assert min(width, height) > 1.2


def test_files_are_written_and_repeat_exactly(tmp_path):
    results = examples.results_of((examples.cell("none $x$", 1.0),))
    files = figure_files(results)
    paths = write_figures(files, tmp_path / "figures")
    assert sorted(path.name for path in paths) == sorted(
        f"{name}.{ending}" for name in ("pareto", "spectra", "costs") for ending in ("png", "svg")
    )
    for path in paths:
        assert path.stat().st_size > 2000
    picture = np.asarray(Image.open(io.BytesIO(files[0].png)).convert("L"))
    assert picture.std() > 5
    assert figure_files(results)[2].svg == files[2].svg
