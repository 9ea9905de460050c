"""CFG turned off for a part of the run: the null stream is really gone, in the network and in its cache."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hguide import COND, UNCOND, Stream
from hguide.backends.toy import ToyGenerator
from hguide.backends.var import VAR
from hguide.cli import main
from hguide.cli.catalogue import stream_cost
from hguide.generate import generate
from hguide.guidance import registry


def work_per_step(var: VAR, guidance: str, samples: int = 2) -> list[int]:
    """Floating point operations of the network at each step."""
    totals = [0]
    with FlopCounterMode(display=False) as counter:
        generate(var, 3, guidance, seeds=range(samples), on_step=lambda _: totals.append(counter.get_total_flops()))
    return [after - before for before, after in pairwise(totals)]


def test_after_the_turn_off_the_network_does_the_work_of_no_guidance(var: VAR) -> None:
    plain, whole, half = (work_per_step(var, text) for text in ("none", "cfg(3.0)", "cfg(3.0, stop=0.5)"))
    assert half[2:] == plain[2:]
    assert half[1] == whole[1] > 1.8 * plain[1]
    assert all(both > 1.8 * one for both, one in zip(whole[1:], plain[1:], strict=True))


@pytest.mark.parametrize("text", ["cfg(3.0, stop=0.5)", "igg(stop=0.5)", "apg(stop=0.5)", "fdg(stop=0.5) | ssg(0.5)"])
def test_the_rows_of_the_null_stream_leave_the_cache(var: VAR, text: str) -> None:
    rows: list[int] = []

    class Watched(VAR):
        def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> Any:
            logits = super().predict(state, step, streams, weights)
            rows.append(state.cache.rows)
            return logits

    generate(Watched(var.transformer, var.tokenizer), 3, text, seeds=[1, 2, 3])
    assert rows == [6, 6, 3, 3]


def test_a_late_turn_on_needs_the_stream_from_the_start_but_not_its_head(var: VAR) -> None:
    plain, whole, late = (work_per_step(var, text) for text in ("none", "cfg(w=3.0)", "cfg(w=3.0, start=0.5)"))
    assert late[2:] == whole[2:]
    assert plain[0] < late[0] < whole[0]


def test_off_the_given_logits_are_drawn_from_as_they_are(var: VAR) -> None:
    records: list[Any] = []
    generate(var, 3, "cfg(3.0, stop=0.5)", seeds=[1], on_step=records.append)
    for record in records[2:]:
        assert set(record.predictions) == {COND}
        assert torch.equal(record.logits, record.predictions[COND])


class Counted(ToyGenerator):
    """Notes which streams are predicted at each step."""

    def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> Any:
        self.seen.append(tuple(streams))
        return super().predict(state, step, streams, weights)

    seen: list[tuple[Stream, ...]]


def test_predictions_are_counted_by_step() -> None:
    toy = Counted()
    toy.seen = []
    generate(toy, 1, "cfg(3.0, start=0.4, stop=0.8)", seeds=[0])
    assert toy.seen == [(COND,), (COND,), (COND, UNCOND), (COND, UNCOND), (COND,)]


def test_the_list_shows_the_cost_of_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "guidance"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "guidances:"
    assert [line.split()[0] for line in lines[1:]] == registry.names()
    assert all(stream_cost(line.split()[0]) in line for line in lines[1:])
    assert main(["list", "prior"]) == 0
    assert capsys.readouterr().out.startswith("priors:")


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("ssg", "1 stream, 2 after cfg"),
        ("cfg", "2 streams, 2 after cfg"),
        ("igg", "2 streams, 2 after cfg"),
        ("vpg", "2 streams, 4 after cfg"),
        ("autoguidance", "2 streams, 4 after cfg"),
        ("pag", "2 streams, 4 after cfg"),
        ("softcfg", "2 streams, 3 after cfg"),
    ],
)
def test_costs(name: str, cost: str) -> None:
    assert stream_cost(name) == cost
