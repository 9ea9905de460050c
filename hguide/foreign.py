"""Guidance in a sampling loop of your own, or of an official program: one line in place of the CFG line."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat, SupportsIndex

from torch import Tensor

from hguide.errors import ConfigError, ShapeError, StreamError
from hguide.generator import Binary, Categorical
from hguide.grids import Scale, Step
from hguide.guidance import Guidance, Identity, parse
from hguide.guidance.null_contrast import widened
from hguide.streams import COND, UNCOND

__all__ = ["Guide"]


class Guide:
    """Guided logits from the two maps that a next-scale sampling loop has: `logits = guide(cond, uncond, k)`.

    Its memory is its own: in-place filters on what it returned, or on what it was given, do no harm. k = 0 begins a
    new image, so nothing has to be reset between images. Autocast changes nothing about it.

    Logits must be finite: where both maps are -inf the difference that guidance is made of is NaN, and a prior or an
    attention spreads it. So mask after guiding, never before. A guide does not look for NaN or infinities, since that
    would make the program wait for a GPU at every scale; `torch.isfinite(logits).all()` in the loop does.

    Args:
        guidance: a `Guidance`, its text form, or None. It may ask for the given and the null stream.
        scales: side of each scale (the official `patch_nums`), or grids `(h, w)` or `(1, h, w)`, or `Scale`s; an array
            or tensor of whole numbers will do.
        channels: `Categorical(v)` or `Binary(bits)`; for `Binary` logits of 2 * bits channels (pairs per bit, as the
            official Infinity holds them) are taken and returned as well. None takes whatever comes.

    Raises:
        ConfigError: no guidance, scales or channels, or none that can work.
        ParseError: a text that cannot be read.
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
        guidance: Guidance | str | None,
        scales: Iterable[SupportsIndex | Iterable[SupportsIndex] | Scale],
        channels: Categorical | Binary | None = None,
    ) -> None:
        self.guidance = _guidance(guidance)
        self.scales = _scales(scales)
        if not isinstance(channels, Categorical | Binary | None):
            raise ConfigError(
                "Guide: channels is Categorical(v), Binary(bits), or None for whatever comes, "
                f"got {channels!r} ({type(channels).__name__})."
            )
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
        self._kind: tuple[Any, ...] = ()

    def __call__(
        self, cond: Tensor, uncond: Tensor | None, k: SupportsIndex, *, tau: SupportsFloat | None = None
    ) -> Tensor:
        """Guided logits of scale k.

        Args:
            cond: `(B, L, V)` logits under the condition, L = h * w of scale k.
            uncond: the same under the null condition, or None where the guidance does not ask for it.
            k: scale index, from 0, one after the other.
            tau: where the loop has divided both maps by a temperature already (Infinity): they are multiplied by it
                before and the result divided by it after.

        Returns:
            `(B, L, V)` in the dtype of `cond`, a tensor of its own.

        Raises:
            ConfigError: a skipped or repeated k, or a tau that is no temperature.
            ShapeError: what are no logits, maps of another size than scale k, such as partial maps, unequal maps, or
                maps of another batch, vocabulary, dtype or device than those of the scale before.
            StreamError: `uncond` is None but asked for.
        """
        step = self._begin(k)
        kind = self._checked(cond, uncond, step)
        factor = 1.0 if tau is None else _temperature(tau)
        asked = self.guidance.asks(COND, step)
        if uncond is None and UNCOND in asked:
            raise StreamError(
                f"Guide: {self.guidance} asks for the null stream at k = {step.index}, but uncond is None."
            )
        given = {COND: cond} if uncond is None else {COND: cond, UNCOND: uncond}
        maps = {stream: self._map(given[stream], step, factor) for stream in asked}
        guided, memory = self.guidance.apply(maps, step, self._memory)
        own = {tensor.untyped_storage().data_ptr() for tensor in given.values()}
        self._memory = {key: _owned(value, own) for key, value in memory.items()}
        self._next, self._kind = step.index + 1, kind
        guided = guided.clone() if guided.untyped_storage().data_ptr() in own else guided
        return self._logits(guided, cond, factor)

    def _begin(self, k: SupportsIndex) -> Step:
        """The step of scale k, where it is the next one or begins an image."""
        try:
            index = operator.index(k)
        except TypeError:
            raise ConfigError(f"Guide: k is the index of a scale, a whole number, got {k!r}.") from None
        if index == 0:
            self.reset()
        if index != self._next or index >= len(self.scales):
            raise ConfigError(
                f"Guide: scale {self._next} of {len(self.scales)} comes next, got k = {index}; k = 0 begins."
            )
        return self._step(index)

    def _checked(self, cond: Tensor, uncond: Tensor | None, step: Step) -> tuple[Any, ...]:
        """Batch, vocabulary, dtype and device of the logits, once they are found fit and as at the scale before."""
        _require_logits("cond", cond)
        tokens = step.scale.tokens
        if cond.dim() != 3 or cond.shape[1] != tokens:
            raise ShapeError(
                f"Guide: scale {step.index} is {step.scale.height}x{step.scale.width}, so logits are (B, {tokens}, V), "
                f"got {tuple(cond.shape)}; partial maps are not guided here."
            )
        batch, _, width = cond.shape
        if batch == 0 or width == 0:
            raise ShapeError(f"Guide: logits are of a sample and a channel at least, got {tuple(cond.shape)}.")
        if self.channels is not None and width != self.channels.width and not self._pairs(cond):
            raise ShapeError(f"Guide: expected {self.channels.width} channels, got {width}.")
        if uncond is not None:
            _require_match(cond, uncond)
        kind = (batch, width, cond.dtype, cond.device)
        if step.index > 0 and kind != self._kind:
            raise ShapeError(_changed(self._kind, kind, step.index))
        return kind

    def _step(self, k: int) -> Step:
        return Step(k, len(self.scales), 0, self.scales[k])

    def _pairs(self, logits: Tensor) -> bool:
        return isinstance(self.channels, Binary) and logits.shape[-1] == 2 * self.channels.bits

    def _map(self, logits: Tensor, step: Step, tau: float) -> Tensor:
        if self._pairs(logits):
            pairs = widened(logits).unflatten(-1, (-1, 2))
            logits = pairs[..., 1] - pairs[..., 0]
        if tau != 1.0:
            logits = widened(logits) * tau
        return logits.reshape(logits.shape[0], *step.grid, -1)

    def _logits(self, guided: Tensor, like: Tensor, tau: float) -> Tensor:
        guided = guided.flatten(1, 2)
        if tau != 1.0:
            guided = guided / tau
        if self._pairs(like):
            # Only the difference of a pair matters to the draw, so it is split evenly.
            guided = guided.div(2.0).unsqueeze(-1) * guided.new_tensor([-1.0, 1.0])
            guided = guided.flatten(-2)
        return guided.to(like.dtype)


def _guidance(guidance: Guidance | str | None) -> Guidance:
    if guidance is None:
        return Identity()
    if isinstance(guidance, str):
        return parse(guidance)
    if not isinstance(guidance, Guidance):
        raise ConfigError(
            f'Guide: guidance is a Guidance, its text form such as "cfg(1.5) | ssg(0.8)", or None, got {guidance!r}.'
        )
    return guidance


def _scales(scales: Any) -> tuple[Scale, ...]:
    plain = scales.tolist() if hasattr(scales, "tolist") else scales
    if isinstance(plain, str | bytes) or not isinstance(plain, Iterable):
        raise ConfigError(
            f"Guide: scales holds the side or grid of each scale, for instance (1, 2, 3, 4), got {scales!r}."
        )
    found = tuple(_scale(index, scale) for index, scale in enumerate(plain))
    if not found:
        raise ConfigError("Guide: scales is empty; give the side or grid of each scale.")
    return found


def _scale(index: int, scale: Any) -> Scale:
    sides = scale.grid if isinstance(scale, Scale) else _sides(scale)
    if len(sides) == 3 and sides[0] == 1:
        sides = sides[1:]
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(
            f"Guide: scale {index} is a side, a grid (h, w) or (1, h, w), in whole numbers from 1, got {scale!r}."
        )
    return Scale(index, *sides)


def _sides(scale: Any) -> tuple[int, ...]:
    """The whole numbers of a grid, or the side twice; none where it is neither."""
    plain = scale.tolist() if hasattr(scale, "tolist") else scale
    try:
        return (plain, plain) if isinstance(plain, int) else tuple(operator.index(side) for side in plain)
    except TypeError:
        return ()


def _temperature(tau: SupportsFloat) -> float:
    try:
        value = math.nan if isinstance(tau, str | bytes) else float(tau)
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    if not 0.0 < value < math.inf:
        raise ConfigError(f"Guide: tau is a positive temperature, one number per scale, got {tau!r}.")
    return value


def _require_logits(name: str, logits: Tensor) -> None:
    if not isinstance(logits, Tensor):
        raise ShapeError(f"Guide: {name} is a tensor of logits (B, L, V), got {type(logits).__name__}.")
    if not logits.is_floating_point():
        raise ShapeError(f"Guide: {name} holds logits, floating-point numbers, got {logits.dtype}; not tokens.")


def _require_match(cond: Tensor, uncond: Tensor) -> None:
    _require_logits("uncond", uncond)
    if uncond.shape != cond.shape:
        raise ShapeError(f"Guide: cond {tuple(cond.shape)} and uncond {tuple(uncond.shape)} differ in shape.")
    if uncond.device != cond.device:
        raise ShapeError(f"Guide: cond lies on {cond.device}, but uncond on {uncond.device}; move one to the other.")


def _changed(before: Sequence[Any], now: Sequence[Any], k: int) -> str:
    names = ("batch", "vocabulary", "dtype", "device")
    rows = zip(names, before, now, strict=True)
    changes = ", ".join(f"{name} {new} but {old} before" for name, old, new in rows if old != new)
    return (
        f"Guide: scale {k} has {changes}; batch, vocabulary, dtype and device stay within an image. Give the logits as "
        f"at scale {k - 1}, or begin another image with k = 0."
    )


def _owned(value: Any, foreign: set[int]) -> Any:
    """The remembered value, copied where it still lies in memory that the caller may overwrite."""
    if isinstance(value, Tensor):
        return value.clone() if value.untyped_storage().data_ptr() in foreign else value
    if isinstance(value, tuple):
        return tuple(_owned(item, foreign) for item in value)
    return value
