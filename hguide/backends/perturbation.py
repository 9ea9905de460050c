"""Changed forward passes, each on the rows of its own streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.attention import attend
from hguide.backends.confidence import value_weights
from hguide.errors import StreamError
from hguide.grids import Grid
from hguide.streams import Perturbation, Stream

__all__ = ["KINDS", "PerturbedPass", "blur_matrix", "check_options", "layers_of"]

KINDS: dict[str, dict[str, float]] = {"pag": {}, "slg": {}, "seg": {"sigma": float("inf")}, "soft": {"step_norm": 1.0}}
"""The kinds served, with their options and defaults."""


def check_options(perturbation: Perturbation) -> None:
    """Refuse options that a kind does not have.

    Raises:
        StreamError: naming them.
    """
    unknown = [name for name, _ in perturbation.options if name not in KINDS[perturbation.kind]]
    if unknown:
        known = ", ".join(KINDS[perturbation.kind]) or "none"
        raise StreamError(f"the perturbation {perturbation.kind!r} has no option {unknown[0]!r} (options: {known}).")


def layers_of(perturbation: Perturbation, depth: int) -> frozenset[int]:
    """The blocks that a perturbation changes: those it names, else all for "soft", the middle third for the others.

    Args:
        perturbation: what is changed.
        depth: number of blocks.
    """
    if perturbation.layers:
        return frozenset(perturbation.layers)
    return frozenset(range(depth) if perturbation.kind == "soft" else range(depth // 3, depth - depth // 3))


def blur_matrix(grid: Grid, sigma: float) -> Float[Tensor, "l l"]:
    """Gaussian blur over a grid, cut at its border: rows proportional to exp(-|i - j|^2 / (2 sigma^2)), sum 1.

    Args:
        grid: (height, width), row-major.
        sigma: in tokens; 0 is the identity, infinity the mean over the grid.

    Returns:
        `(h w, h w)` float64.
    """
    axes = []
    for size in grid:
        place = torch.arange(size, dtype=torch.float64)
        weight = torch.exp((place[:, None] - place).square() / (-2.0 * max(sigma, 1e-3) ** 2))
        axes.append(weight / weight.sum(1, keepdim=True))
    return torch.kron(*axes)


@dataclass(frozen=True, eq=False)
class PerturbedPass:
    """The changes of one forward over the rows of several streams.

    Attributes:
        streams: of the rows, in order.
        samples: rows per stream.
        depth: number of blocks.
        grid: of the step.
        confidence: `(b, tokens so far)`, for "soft".
        blurs: matrix of each sigma met, made once per pass.
    """

    streams: Sequence[Stream]
    samples: int
    depth: int
    grid: Grid
    confidence: Tensor | None = None
    blurs: dict[float, Tensor] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether any stream is perturbed."""
        return any(stream.perturb is not None for stream in self.streams)

    def on_block(
        self, block: int, before: Float[Tensor, "rows l c"], after: Float[Tensor, "rows l c"]
    ) -> Float[Tensor, "rows l c"]:
        """Skip the block for the rows of "slg": its output is its input."""
        for change, rows in self._groups(block):
            if change is not None and change.kind == "slg":
                after[rows] = before[rows]
        return after

    def attend(
        self,
        block: int,
        queries: Float[Tensor, "rows heads new d"],
        keys: Float[Tensor, "rows heads total d"],
        values: Float[Tensor, "rows heads total d"],
        scale: float,
    ) -> Float[Tensor, "rows heads new d"]:
        """Softmax attention, changed where a stream asks for it.

        "pag": each new token attends to itself alone, so that its output is its own value. "seg": queries blurred
        over the grid of the step, as they enter the inner products (after normalisation), which blurs the attention
        logits. "soft": values of the tokens so far times `value_weights`.
        """
        parts = []
        for change, rows in self._groups(block):
            q, k, v = queries[rows], keys[rows], values[rows]
            kind = None if change is None else change.kind
            if change is not None and kind == "pag":
                parts.append(v[:, :, -q.shape[2] :].to(q.dtype))
                continue
            if change is not None and kind == "seg":
                q = self._blurred(q, _option(change, "sigma"))
            if change is not None and kind == "soft":
                v = self._softened(v, q.shape[2], _option(change, "step_norm") != 0.0)
            parts.append(attend(q, k, v, scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _blurred(self, queries: Tensor, sigma: float) -> Tensor:
        if sigma not in self.blurs:
            self.blurs[sigma] = blur_matrix(self.grid, sigma).to(queries.device, torch.float32)
        return (self.blurs[sigma] @ queries.float()).to(queries.dtype)

    def _softened(self, values: Tensor, new: int, step_norm: bool) -> Tensor:
        past = values.shape[2] - new
        if past == 0:
            return values
        assert self.confidence is not None
        weights = value_weights(self.confidence[:, :past], step_norm).to(values.dtype)
        weights = weights.repeat(values.shape[0] // weights.shape[0], 1)[:, None, :, None]
        return torch.cat([values[:, :, :past] * weights, values[:, :, past:]], dim=2)

    def _groups(self, block: int) -> Iterator[tuple[Perturbation | None, slice]]:
        """Runs of rows under the same change in a block."""
        first = 0
        for change, group in groupby(self._change(stream, block) for stream in self.streams):
            stop = first + len(list(group)) * self.samples
            yield change, slice(first, stop)
            first = stop

    def _change(self, stream: Stream, block: int) -> Perturbation | None:
        change = stream.perturb
        return change if change is not None and block in layers_of(change, self.depth) else None


def _option(perturbation: Perturbation, name: str) -> float:
    return dict(perturbation.options).get(name, KINDS[perturbation.kind][name])
