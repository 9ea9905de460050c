"""One-off guidance from a function, for research."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Step
from hguide.guidance.base import Method, Predictor
from hguide.streams import UNCOND, Stream

__all__ = ["FromCallable", "from_callable"]


@dataclass(frozen=True)
class FromCallable(Method):
    """A guidance given by a function; see `from_callable`."""

    function: Callable[..., Tensor] = lambda base, step: base
    others: tuple[Stream, ...] = ()
    name: str = "function"

    def changes(self, stream: Stream) -> bool:
        """Not the streams it contrasts with."""
        return stream not in self.others

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The streams the function was declared with."""
        return self.others

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """What the function returns."""
        logits = f(stream)
        guided = self.function(logits, *(f(other) for other in self.others), step=step)
        if not isinstance(guided, Tensor) or guided.shape != logits.shape:
            got = tuple(guided.shape) if isinstance(guided, Tensor) else type(guided).__name__
            raise ConfigError(f"{self.name}: the function returns logits of shape {tuple(logits.shape)}, got {got}.")
        return guided, None

    def __str__(self) -> str:
        return f"<{self.name}>"


def from_callable(
    function: Callable[..., Tensor], asks: Sequence[Stream] = (UNCOND,), *, start: float = 0.0, stop: float = 1.0
) -> FromCallable:
    """A guidance from a function of logits, to be composed like any other.

    Args:
        function: called as `function(given, *others, step=step)` with channel-last logits; returns guided logits of
            the same shape and must not change its inputs.
        asks: the streams given as `others`.
        start: part of the run at which it begins.
        stop: part of the run at which it ends.

    Returns:
        The guidance. It has no text form; registered classes have.

    Example:
        >>> from hguide.guidance import from_callable
        >>> cfg3 = from_callable(lambda given, null, step: null + 3.0 * (given - null))
        >>> str(cfg3 | cfg3)
        '<<lambda>> | <<lambda>>'
    """
    name = getattr(function, "__name__", type(function).__name__)
    return FromCallable(function=function, others=tuple(asks), name=name, start=start, stop=stop)
