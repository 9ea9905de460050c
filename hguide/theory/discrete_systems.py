"""Small systems of random variables with finitely many states, every state listed: information without estimates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from hguide.errors import ConfigError, ShapeError, near_matches

__all__ = ["DiscreteSystem"]

Names = str | tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DiscreteSystem:
    """The joint distribution of a few named variables, as a table with one axis per variable.

    Entropies and informations are exact sums in nats; a state of probability 0 counts for nothing.

    Attributes:
        names: of the variables, in the order of the axes.
        table: probabilities, float64, which sum to 1.

    Raises:
        ShapeError: not one axis per name.
        ConfigError: a name twice, or a table that is no distribution.

    Example:
        >>> coin = DiscreteSystem(("a", "b"), torch.eye(2, dtype=torch.float64) / 2)
        >>> round(coin.information("a", "b"), 4)
        0.6931
    """

    names: tuple[str, ...]
    table: Float64[Tensor, "*states"]

    def __post_init__(self) -> None:
        if len(self.names) != self.table.dim():
            raise ShapeError(f"{len(self.names)} names {self.names} need as many axes, got {tuple(self.table.shape)}.")
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"the variables of a system have different names, got {self.names}.")
        total = float(self.table.sum())
        if not (bool((self.table >= 0).all()) and abs(total - 1.0) < 1e-9):
            raise ConfigError(f"a table of probabilities is >= 0 and sums to 1, but this one sums to {total!r}.")

    def marginal(self, *names: str) -> Float64[Tensor, "*states"]:
        """p(names), the axes in the order of the names.

        Raises:
            ConfigError: an unknown name.
        """
        axes = [self._axis(name) for name in names]
        others = [axis for axis in range(self.table.dim()) if axis not in axes]
        kept = sorted(axes)
        summed = self.table.sum(others) if others else self.table
        return summed.permute([kept.index(axis) for axis in axes])

    def entropy(self, variables: Names, given: Names = ()) -> float:
        """H(variables | given) = H(variables, given) - H(given), in nats."""
        inner = _as_tuple(given)
        return self._entropy((*_as_tuple(variables), *inner)) - self._entropy(inner)

    def information(self, a: Names, b: Names, given: Names = ()) -> float:
        """I(a; b | given) = H(a | given) - H(a | b, given), in nats."""
        return self.entropy(a, given) - self.entropy(a, (*_as_tuple(b), *_as_tuple(given)))

    def with_channel(self, name: str, of: Names, channel: Float64[Tensor, "*states new"]) -> DiscreteSystem:
        """The system with one more variable, drawn from p(name | of) and nothing else.

        Args:
            name: of the new variable, which becomes the last axis.
            of: what it is drawn from.
            channel: p(new | of), one axis per variable in `of`, then the states of the new one.

        Raises:
            ShapeError: the channel has other states than the variables.
        """
        known = _as_tuple(of)
        axes = [self._axis(one) for one in known]
        wanted = tuple(self.table.shape[axis] for axis in axes)
        if tuple(channel.shape[:-1]) != wanted:
            raise ShapeError(f"a channel of {known} starts with {wanted} states, got {tuple(channel.shape)}.")
        order = sorted(range(len(axes)), key=axes.__getitem__)
        spread = [self.table.shape[axis] if axis in axes else 1 for axis in range(self.table.dim())]
        rows = channel.permute(*order, len(axes)).reshape(*spread, channel.shape[-1])
        return DiscreteSystem((*self.names, name), self.table[..., None] * rows)

    def with_map(self, name: str, of: Names, states: Int64[Tensor, "*states"]) -> DiscreteSystem:
        """The system with one more variable that is a function of others.

        Args:
            name: of the new variable.
            of: what it is a function of.
            states: its state from 0 for each state of `of`, one axis per variable.
        """
        return self.with_channel(name, of, torch.nn.functional.one_hot(states).to(torch.float64))

    def _axis(self, name: str) -> int:
        if name not in self.names:
            raise ConfigError(f"unknown variable {name!r}: {near_matches(name, self.names)}")
        return self.names.index(name)

    def _entropy(self, names: tuple[str, ...]) -> float:
        table = self.marginal(*dict.fromkeys(names))
        return float(-torch.special.xlogy(table, table).sum())


def _as_tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
