"""Runs on the meta device, where nothing is computed: what would wait for a real device cannot be done at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hguide import COND, Guidance, Sampler, ScaleGenerator
from hguide.generator import Prepared
from hguide.noise import SeededNoise
from hguide.plan import plan

_OF_NUMBERS = (torch.tensor, torch.as_tensor, torch.from_numpy)


class NothingNew(TorchFunctionMode):
    """Refuses tensors made of Python's numbers, which are moved to the device."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func not in _OF_NUMBERS, f"{func} of {args}"
        return func(*args, **(kwargs or {}))


class NothingMoves(TorchDispatchMode):
    """Refuses tensors moved between devices; reading a number off the meta device raises by itself."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        before, after = ({each.device.type for each in tensors(part)} for part in ([args, kwargs], result))
        assert func is not torch.ops.aten._to_copy.default or before == after, f"{before} to {after}"
        return result


def tensors(part: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        yield from tensors(list(part.values()))
    elif isinstance(part, list | tuple):
        for each in part:
            yield from tensors(each)


@torch.no_grad()
def run_on_meta(model: ScaleGenerator, conditions: Sequence[Any], guidance: Guidance, sampler: Sampler) -> Tensor:
    """From `begin_prepared` to `decode`, with all weights, conditions and noise on the meta device."""
    prepared = model.prepare(conditions)
    for part in ("transformer", "denoiser", "tokenizer"):
        if hasattr(model, part):
            getattr(model, part).to("meta")
    prepared = Prepared(prepared.samples, tuple(each.to("meta") for each in prepared.tensors))
    noise = SeededNoise(range(prepared.samples), "meta")

    def run() -> Tensor:
        state, memory = model.begin_prepared(prepared, plan(model, guidance), noise), {}
        while (step := model.next_step(state)) is not None:
            weights = guidance.weights(COND, step)
            predictions = model.predict(state, step, guidance.asks(COND, step), weights)
            guided, memory = guidance.apply(predictions, step, memory)
            model.advance(state, step, model.sample(state, step, guided, sampler, weights))
        return model.decode(state)

    run()  # Priors are compiled in the first run, which is not captured.
    with NothingNew(), NothingMoves():
        return run()
