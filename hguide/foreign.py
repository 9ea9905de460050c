"""Guidance in a sampling loop of your own, or of an official program: one line in place of the CFG line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hguide.errors import ConfigError, ShapeError, StreamError
from hguide.generator import Binary, Categorical
from hguide.grids import Grid, Scale, Step
from hguide.guidance import Guidance, parse
from hguide.streams import COND, UNCOND

__all__ = ["Guide"]


class Guide:
    """Guided logits from the two maps that a next-scale sampling loop has: `logits = guide(cond, uncond, k)`.

    Its memory is its own: in-place filters on what it returned, or on what it was given, do no harm. k = 0 begins a
    new image, so nothing has to be reset between images.

    Args:
        guidance: a `Guidance` or its text form. It may ask for the given and the null stream.
        scales: side of each scale (the official `patch_nums`), or `(h, w)` grids, or `Scale`s.
        channels: `Categorical(v)` or `Binary(bits)`; for `Binary` logits of 2 * bits channels (pairs per bit, as the
            official Infinity holds them) are taken and returned as well. None takes whatever comes.

    Raises:
        StreamError: the guidance asks for other streams (a corrupted prefix, another model, a changed forward pass),
            which no function of two maps can give.

    Example:
        >>> import torch
        >>> from hguide import Guide
        >>> guide = Guide("cfg(1.5) | ssg(0.8)", scales=(1, 2))
        >>> for k, side in enumerate((1, 2)):
        ...     logits = guide(torch.randn(2, side * side, 8), torch.randn(2, side * side, 8), k)
        >>> tuple(logits.shape)
        (2, 4, 8)
    """

    def __init__(
        self,
        guidance: Guidance | str,
        scales: Sequence[int | Grid | Scale],
        channels: Categorical | Binary | None = None,
    ) -> None:
        self.guidance = parse(guidance) if isinstance(guidance, str) else guidance
        self.scales = tuple(_scale(index, scale) for index, scale in enumerate(scales))
        if not self.scales:
            raise ConfigError("Guide: scales is empty; give the side or grid of each scale.")
        self.channels = channels
        for scale in self.scales:
            for stream in self.guidance.asks(COND, self._step(scale.index)):
                if stream not in (COND, UNCOND):
                    raise StreamError(
                        f"Guide: {self.guidance} asks for the stream ({stream}), but a loop over two maps has only "
                        "the given and the null condition; use hguide.generate with an adapter that serves it."
                    )
        self.reset()

    def reset(self) -> None:
        """Forget the image so far; k = 0 does so by itself."""
        self._memory: dict[Any, Any] = {}
        self._next = 0

    def __call__(self, cond: Tensor, uncond: Tensor | None, k: int, *, tau: float | None = None) -> Tensor:
        """Guided logits of scale k.

        Args:
            cond: `(B, L, V)` logits under the condition, L = h * w of scale k.
            uncond: the same under the null condition, or None where the guidance does not ask for it.
            k: scale index, from 0, one after the other.
            tau: where the loop has divided both maps by a temperature already (Infinity): they are multiplied by it
                before and the result divided by it after.

        Returns:
            `(B, L, V)`, a tensor of its own.

        Raises:
            ConfigError: a skipped or repeated k.
            ShapeError: maps of another size than scale k, such as partial maps, or unequal maps.
            StreamError: `uncond` is None but asked for.
        """
        if k == 0:
            self.reset()
        if not 0 <= k < len(self.scales) or k != self._next:
            raise ConfigError(f"Guide: scale {self._next} of {len(self.scales)} comes next, got k = {k}; k = 0 begins.")
        step = self._step(k)
        asked = self.guidance.asks(COND, step)
        if uncond is None and UNCOND in asked:
            raise StreamError(f"Guide: {self.guidance} asks for the null stream at k = {k}, but uncond is None.")
        if uncond is not None and uncond.shape != cond.shape:
            raise ShapeError(f"Guide: cond {tuple(cond.shape)} and uncond {tuple(uncond.shape)} differ in shape.")
        given = {COND: cond} if uncond is None else {COND: cond, UNCOND: uncond}
        maps = {stream: self._map(given[stream], step, tau) for stream in asked}
        guided, memory = self.guidance.apply(maps, step, self._memory)
        own = {tensor.untyped_storage().data_ptr() for tensor in given.values()}
        self._memory = {key: _owned(value, own) for key, value in memory.items()}
        self._next = k + 1
        guided = guided.clone() if guided.untyped_storage().data_ptr() in own else guided
        return self._logits(guided, cond, tau)

    def _step(self, k: int) -> Step:
        return Step(k, len(self.scales), 0, self.scales[k])

    def _pairs(self, logits: Tensor) -> bool:
        return isinstance(self.channels, Binary) and logits.shape[-1] == 2 * self.channels.bits

    def _map(self, logits: Tensor, step: Step, tau: float | None) -> Tensor:
        height, width = step.grid
        if logits.dim() != 3 or logits.shape[1] != height * width:
            raise ShapeError(
                f"Guide: scale {step.index} is {height}x{width}, so logits are (B, {height * width}, V), "
                f"got {tuple(logits.shape)}; partial maps are not guided here."
            )
        if self._pairs(logits):
            pairs = logits.reshape(*logits.shape[:2], -1, 2)
            logits = pairs[..., 1] - pairs[..., 0]
        elif self.channels is not None and logits.shape[-1] != self.channels.width:
            raise ShapeError(f"Guide: expected {self.channels.width} channels, got {logits.shape[-1]}.")
        if tau is not None:
            if not 0.0 < tau < math.inf:
                raise ConfigError(f"Guide: tau is a positive temperature, got {tau}.")
            logits = logits * tau
        return logits.reshape(logits.shape[0], height, width, -1)

    def _logits(self, guided: Tensor, like: Tensor, tau: float | None) -> Tensor:
        guided = guided.flatten(1, 2)
        if tau is not None:
            guided = guided / tau
        if self._pairs(like):
            # Only the difference of a pair matters to the draw, so it is split evenly.
            guided = guided.div(2.0).unsqueeze(-1) * guided.new_tensor([-1.0, 1.0])
            guided = guided.flatten(-2)
        return guided


def _scale(index: int, scale: int | Grid | Scale) -> Scale:
    if isinstance(scale, Scale):
        return Scale(index, scale.height, scale.width)
    height, width = (scale, scale) if isinstance(scale, int) else scale
    return Scale(index, height, width)


def _owned(value: Any, foreign: set[int]) -> Any:
    """The remembered value, copied where it still lies in memory that the caller may overwrite."""
    if isinstance(value, Tensor):
        return value.clone() if value.untyped_storage().data_ptr() in foreign else value
    if isinstance(value, tuple):
        return tuple(_owned(item, foreign) for item in value)
    return value
