"""Whole runs as CUDA graphs: captured once, replayed for every later batch of the same size, guidance and sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.errors import ConfigError
from hguide.generator import Prepared
from hguide.grids import Step
from hguide.noise import SeededNoise
from hguide.priors.compiled import Operator, holding

__all__ = ["Capture", "CapturedRuns", "CudaCapture", "Outcome", "captured_runs"]

Capture = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]
"""`work -> (replay, result)`: `replay()` does the work again and leaves its outcome in the tensors of `result`."""

_MOST_RUNS = 32


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run leaves.

    Attributes:
        images: `(b, 3, H, W)`.
        steps: whose guided logits nobody has looked at yet; None stands for the images.
        finite: whether they are finite, one value for each; None without steps.
    """

    images: Float[Tensor, "b 3 H W"]
    steps: tuple[Step | None, ...] = ()
    finite: Bool[Tensor, " steps"] | None = None


Work = Callable[[Prepared, SeededNoise], Outcome]


class CudaCapture:
    """Captures work into CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """Capture `work`, which reads and writes tensors that stay where they are, and may run any number of times.

        Args:
            work: kernels on the current device only: nothing that waits for the device.

        Raises:
            ConfigError: the work waits for the device, or moves something to it.
        """
        # Libraries choose kernels and set up workspaces in their first calls, which a capture does not allow.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            work()
            with _waiting_refused():
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with holding() as held, torch.cuda.graph(graph, pool=self._pool):
            result = work()
        # The graph reads priors where they lie: they must live as long as it does.
        return partial(_replay, graph, tuple(held)), result


@contextmanager
def _waiting_refused() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, that it does not see all of them.
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"graphs=True: this run cannot be captured, since a part of it waits for the device ({reason}); sample "
            "with a model without graphs."
        ) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _replay(graph: torch.cuda.CUDAGraph, held: tuple[Operator, ...]) -> None:
    graph.replay()


@dataclass(frozen=True, eq=False)
class _CapturedRun:
    conditions: Prepared
    noise: SeededNoise
    replay: Callable[[], object]
    outcome: Outcome


def captured_runs(
    name: str, device: torch.device, wanted: bool, before: CapturedRuns | None = None
) -> CapturedRuns | None:
    """Where a model with other options keeps its captured runs; None where it captures none.

    Args:
        name: of the model, for messages.
        device: where it lies.
        wanted: whether runs are to be captured from now on.
        before: those of the model whose options are changed; runs captured with other options are of no use.

    Raises:
        ConfigError: wanted of a model that is not on a CUDA device.
    """
    if wanted and device.type != "cuda":
        raise ConfigError(
            f"{name}: graphs=True needs a CUDA device, the model lies on {device}: load it with device='cuda', or "
            "leave graphs out."
        )
    if before is not None:
        return CapturedRuns(before.capture)
    return CapturedRuns(CudaCapture()) if wanted else None


class CapturedRuns:
    """The captured runs of one model; the latest are kept, with their images, as long as the model lives."""

    def __init__(self, capture: Capture) -> None:
        """None captured yet.

        Args:
            capture: makes a graph of work; replaced in tests.
        """
        self.capture = capture
        self._runs: dict[Hashable, _CapturedRun] = {}

    def outcome(self, key: Hashable, conditions: Prepared, noise: SeededNoise, work: Work) -> Outcome:
        """What `work(conditions, noise)` would give, in new tensors.

        Args:
            key: equal for calls whose work differs in the contents of `conditions` and `noise` alone.
            conditions: of the run; conditions of other shapes have a capture of their own.
            noise: of the run.
            work: a whole run.
        """
        key = (key, conditions.samples, *((each.shape, each.dtype) for each in conditions.tensors))
        if key not in self._runs:
            own = replace(conditions, tensors=tuple(each.clone() for each in conditions.tensors))
            drawn = SeededNoise(noise.seeds, noise.device)
            self._runs[key] = _CapturedRun(own, drawn, *self.capture(lambda: work(own, drawn)))
            if len(self._runs) > _MOST_RUNS:
                del self._runs[next(iter(self._runs))]
        run = self._runs[key]
        for held, given in zip(run.conditions.tensors, conditions.tensors, strict=True):
            held.copy_(given)
        run.noise.keys.copy_(noise.keys)
        run.replay()
        # The next batch writes to the same place.
        finite = run.outcome.finite
        return Outcome(run.outcome.images.clone(), run.outcome.steps, None if finite is None else finite.clone())
