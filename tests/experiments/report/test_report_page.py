"""The page and the files of a report."""

from __future__ import annotations

import base64
import io
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_examples as examples
from PIL import Image

from hguide.cli import main
from hguide.errors import ConfigError
from hguide.experiments.ablation.store import Block, Store
from hguide.experiments.report.html_table import breakable, html_table
from hguide.experiments.report.measures_table import measures_table
from hguide.experiments.report.page import page as page_of
from hguide.experiments.report.picture_grid import picture_grid
from hguide.experiments.report.write import write_report

VOID = {"meta", "img", "wbr", "br", "link", "input"}
ROOT = Path(__file__).parents[3]


class Page(HTMLParser):
    """Checks that elements close in order; gathers what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    results = examples.eight()
    write_report(results, examples.DrawnImages(results), out, pictures=5)
    return out


@pytest.fixture(scope="module")
def html(written) -> str:
    return (written / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_files(written):
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{end}" for name in ("pareto", "spectra", "costs") for end in ("png", "svg")}
    assert names == {"report.html", "table.md", "table.tex", *figures}


def test_nothing_is_fetched(html, page):
    without_pictures = re.sub(r"base64,[\w+/=]+", "", html)
    assert len(without_pictures) < 120_000
    assert not re.search(r"https?:|//\w|url\(|@import|<link|<iframe|<object|fetch\(", without_pictures)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_the_figures_inside_ask_for_nothing(page):
    for each in page.all("img"):
        source = each["src"] or ""
        if source.startswith("data:image/svg"):
            svg = base64.b64decode(source.partition(",")[2]).decode()
            assert not re.search(r"(href|src)=\"(?!#)", svg)


def test_every_picture_has_words_and_links_have_targets(page):
    assert all(each.get("alt") for each in page.all("img") if "hidden" not in each)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {each["href"] for each in page.all("a")} <= {f"#{name}" for name in ids}


def test_every_cell_is_there_and_every_seed(page):
    results = examples.eight()
    for cell in results.cells:
        assert page.text.count(cell.label) >= 3
        assert cell.hash in page.text
        assert cell.guidance in page.text
    assert [each["data-name"] for each in page.all("button") if "data-name" in each] == [
        f"Seed {seed}, {examples.CLASSES[seed]}" for seed in range(5)
    ]
    pictures = [
        each for each in page.all("img") if (each["src"] or "").startswith("data:image/png") and "title" in each
    ]
    # All but the cell that was not run.
    assert len(pictures) == 5 * 7


def test_the_pictures_are_those_of_cell_and_seed(page):
    results = examples.eight()
    images = examples.DrawnImages(results)
    titles = {each["title"]: each["src"] for each in page.all("img") if "title" in each}
    for place, seed in ((0, 0), (3, 4), (6, 2)):
        cell = results.cells[place]
        uri = titles[f"Seed {seed}, {examples.CLASSES[seed]}, cell {'ABCDEFGH'[place]}: {cell.label}"]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode((uri or "").partition(",")[2]))))
        assert np.array_equal(pixels, images.image(cell.hash, seed))


def test_failed_cells_and_their_errors_are_shown(html, page):
    assert "probabilities contain NaN at step 4 <logits & 100 %>" in page.text
    assert "<logits" not in html
    assert "failed after 96 of 512 images" in page.text
    assert "partial, 320 of 512 images" in page.text
    assert "not run yet" in page.text


def test_provenance(page):
    results = examples.eight()
    for word in (results.config_hash, results.results_hash, "hguide ablate table5.yaml --out table5", "2.13.0"):
        assert word in page.text
    assert "prior: - nearest - bilinear - dse(gain=amplitude)" in page.text


def test_labels_cannot_break_the_page():
    evil = '<script>alert("x")</script> "quoted" & $x$ | \\ {y}'
    cells = (examples.cell("none", 1.0), replace(examples.cell(evil, 1.1), error=evil))
    results = examples.compared(examples.results_of(cells, title=evil, description=evil, config={"name": evil}))
    html = page_of(results, (), picture_grid(results, examples.DrawnImages(results), most=1))
    assert "<script>alert" not in html
    assert Page(html).text.count('<script>alert("x")</script>') >= 6


def test_marks_are_more_than_colour():
    html = html_table(measures_table(examples.eight()))
    assert '<td class="best" data-value="0.044' in html
    assert '<strong>0.045</strong><span class="unseen"> best</span><small>[0.042, 0.048]</small>' in html
    assert '<u>0.048</u><span class="unseen"> second</span>' in html
    assert 'data-better="high"' in html
    Page(html)


def test_minus_signs_and_breaks():
    assert breakable("a<b, dse(transform=haar)") == "a&lt;b, dse(<wbr>transform=haar)"
    results = examples.results_of((examples.cell("none", -1.0),))
    assert "−" in html_table(measures_table(results))


def test_one_cell_without_pictures():
    results = examples.results_of((examples.cell("none", 1.0),), floor={}, classes={}, description="")
    shown = Page(page_of(results, (), None))
    assert "No stored images were found" in shown.text
    assert "Differences from the baseline" not in shown.text
    assert "Cells that are not done" not in shown.text


def test_nothing_done_yet(tmp_path):
    results = examples.results_of((examples.cell("none", 1.0, "missing"),))
    paths = write_report(results, examples.DrawnImages(results), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.html", "table.md", "table.tex"]
    assert "not run yet" in Page(paths[0].read_text()).text


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make"):
        write_report(examples.eight(), None, tmp_path / "file" / "out")


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_budget_cuts_columns():
    results = examples.eight()
    images = examples.DrawnImages(results)
    whole = picture_grid(results, images)
    assert whole is not None
    assert whole.seeds == tuple(range(21))
    assert whole.rows[7] == (None,) * 21
    assert whole.note == "21 of 512 seeds, without loss."
    spent = [sum(len(row[place] or "") for row in whole.rows) for place in range(21)]
    part = picture_grid(results, images, budget=sum(spent[:9]))
    assert part is not None
    assert part.seeds == tuple(range(9))
    assert part.rows == tuple(row[:9] for row in whole.rows)


def test_a_small_budget_compresses_and_one_seed_is_always_shown():
    results = examples.eight()
    images = examples.DrawnImages(results)
    grid = picture_grid(results, images, budget=120_000)
    assert grid is not None
    assert "compressed (JPEG)" in grid.note
    assert (grid.rows[0][0] or "").startswith("data:image/jpeg;base64,")
    assert sum(len(uri or "") for row in grid.rows for uri in row) <= 120_000
    pixels = images.image(results.cells[0].hash, 0)
    assert np.abs(decoded(grid.rows[0][0] or "").astype(float) - pixels).mean() < 8
    tiny = picture_grid(results, images, budget=1)
    assert tiny is not None
    assert len(tiny.seeds) == 1


def test_large_pictures_are_halved():
    results = examples.eight()
    grid = picture_grid(results, examples.DrawnImages(results, side=600), most=1)
    assert grid is not None
    assert grid.size == (150, 150)
    assert decoded(grid.rows[0][0] or "").shape == (150, 150, 3)
    assert "reduced from 600 × 600 to 150 × 150 pixels" in grid.note


def test_class_names_only_where_the_rule_is_known():
    results = examples.results_of(examples.eight().cells, classes={"names": ["a", "b"], "rule": "as listed"})
    grid = picture_grid(results, examples.DrawnImages(results), most=2)
    assert grid is not None
    assert grid.names == ("", "")
    with pytest.raises(ConfigError, match="at least 1 seed"):
        picture_grid(results, examples.DrawnImages(results), most=0)


def test_the_command_reads_a_folder(tmp_path, capsys):
    results = examples.results_of((examples.cell("none", 1.0), examples.cell("cfg(3.0)", 1.1)))
    drawn, store = examples.DrawnImages(results), Store(tmp_path)
    results.write(tmp_path / "results.json")
    for cell in results.cells:
        images = np.stack([drawn.image(cell.hash, seed) for seed in range(3)])
        store.write_block(cell.hash, Block(images, (0, 1, 2), (0, 1, 2), 1.0))
    assert main(["report", str(tmp_path), "--pictures", "4"]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    shown = Page((tmp_path / "report.html").read_text())
    # Three seeds of two cells are stored; the fourth seed is nowhere.
    assert len([each for each in shown.all("img") if "title" in each]) == 6
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "cannot read results" in capsys.readouterr().err


def test_style_and_script_are_packaged():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["hguide"]
    assert {"**/*.css", "**/*.js"} <= set(patterns)
