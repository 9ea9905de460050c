"""CUDA graphs of VAR's steps: captured once per step and streams, replayed for every later batch of the same shape."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.var.transformer import VARTransformer
from hguide.grids import Step

__all__ = ["Capture", "CapturedRun", "CapturedRuns", "CudaCapture", "rows_of"]

Result = TypeVar("Result")
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]
"""`work -> (replay, result)`: `replay()` does the work again and leaves its outcome in the tensors of `result`."""

_WARM_UPS = 2


class CudaCapture:
    """Captures work into CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Result]) -> tuple[Callable[[], object], Result]:
        """Capture `work`, which reads and writes tensors that stay where they are, and may run any number of times.

        Args:
            work: kernels on the current device only: nothing that waits for the device.
        """
        # Libraries choose kernels and set up workspaces in their first calls, which a capture does not allow.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = work()
        return graph.replay, result


class CapturedRun:
    """The tensors of runs with one number of samples and streams, at fixed places, and the graphs that work on them.

    One run at a time uses it. A step is captured when it is first reached, once for each tuple of streams asked for;
    until then nothing but the cache and the modulation takes memory.

    Attributes:
        cache: keys and values of all rows, of full length.
        modulation: of all rows.
    """

    def __init__(
        self,
        transformer: VARTransformer,
        cache: KeyValueCache,
        latent: Float[Tensor, "b c H W"],
        next_map: Callable[[Tensor, Any], Tensor],
        decode: Callable[[Tensor], Tensor],
        capture: Capture,
    ) -> None:
        """Take over the tensors of a run that has not begun.

        Args:
            transformer: the network.
            cache: empty, of all rows.
            latent: a map of the run's shape, whose place is used from now on.
            next_map: the latent map reduced to a grid.
            decode: images of latent maps.
            capture: makes a graph of work; replaced in tests.
        """
        self._transformer, self._latent, self._next_map, self._decode = transformer, latent, next_map, decode
        self._capture = capture
        self.cache = cache
        cache.advance(cache.length)
        self._labels = torch.zeros(cache.rows, dtype=torch.int64, device=latent.device)
        self._modulate, self.modulation = capture(lambda: transformer.modulation(self._labels))
        self._captured: dict[Hashable, tuple[Callable[[], object], Tensor]] = {}

    def begin(self, labels: Tensor) -> None:
        """Compute the modulation of a run.

        Args:
            labels: class of each row.
        """
        self._labels.copy_(labels, non_blocking=True)
        self._modulate()

    def logits(
        self, step: Step, latent: Float[Tensor, "b c H W"], live: int, places: Sequence[int]
    ) -> Float[Tensor, "n l v"]:
        """Logits of a step, in a new tensor.

        Args:
            step: where in the run.
            latent: f_hat before the step.
            live: streams that still live, the first of all.
            places: of the streams asked for among them.
        """
        b = latent.shape[0]
        key = (step.index, live, tuple(places))
        return self._replayed(key, latent, lambda: self._step(step, b * live, rows_of(places, b, latent)))

    def decoded(self, latent: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 3 height width"]:
        """Images of a latent map, in a new tensor."""
        return self._replayed("decode", latent, lambda: self._decode(self._latent))

    def _step(self, step: Step, rows: int, asked: slice | Tensor) -> Tensor:
        transformer, k = self._transformer, step.index
        modulation, cache = self.modulation.part(0, rows), self.cache.part(0, rows)
        cache.rewind(transformer.config.starts[k])
        if k == 0:
            inputs = transformer.first_input(modulation)
        else:
            embedded = transformer.embed(self._next_map(self._latent, step.grid), k)
            inputs = embedded.repeat(rows // embedded.shape[0], 1, 1)
        return transformer.forward_head(transformer.forward_blocks(inputs, modulation, cache), modulation, asked)

    def _replayed(self, key: Hashable, latent: Tensor, work: Callable[[], Tensor]) -> Tensor:
        self._latent.copy_(latent)
        if key not in self._captured:
            self._captured[key] = self._capture(work)
        replay, result = self._captured[key]
        replay()
        # The next batch writes to the same place.
        return result.clone()


class CapturedRuns:
    """The captured runs of a model: each belongs to one state at a time, so that runs may interleave.

    They are kept, with their memory, as long as the model lives.
    """

    def __init__(self, capture: Capture) -> None:
        """None captured yet.

        Args:
            capture: makes a graph of work.
        """
        self.capture = capture
        self._idle: dict[Hashable, list[CapturedRun]] = {}

    def take(self, key: Hashable, make: Callable[[Capture], CapturedRun]) -> CapturedRun:
        """An idle run of that shape, or a new one."""
        idle = self._idle.setdefault(key, [])
        return idle.pop() if idle else make(self.capture)

    def give_back_with(self, state: object, key: Hashable, run: CapturedRun) -> None:
        """Make the run idle again when nobody holds `state` any more."""
        end = weakref.finalize(state, self._idle[key].append, run)
        end.atexit = False


def rows_of(places: Sequence[int], samples: int, like: Tensor) -> slice | Tensor:
    """The rows of the streams at `places`: a slice where they are neighbours in order, else indices on the device."""
    first = places[0]
    if list(places) == list(range(first, first + len(places))):
        return slice(first * samples, (first + len(places)) * samples)
    return torch.cat([torch.arange(p * samples, (p + 1) * samples, device=like.device) for p in places])
