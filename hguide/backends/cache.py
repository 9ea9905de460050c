"""Keys and values of the tokens seen so far: allocated once, owned by the run."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, ShapeError

__all__ = ["KeyValueCache"]


class KeyValueCache:
    """Attention keys and values of all layers, `(rows, heads, length, head_dim)` each, written in place.

    One step appends its tokens layer by layer, then `advance` makes them part of the past; until then a step may be
    repeated, and an exception in the middle of one leaves the past as it was. The writes are in place, so what the
    cache returns is not for gradients: use a masked forward for those.

    The cache belongs to the state of a run, never to a module, so any number of runs may share one model.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        length: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        """Allocate `2 * layers * rows * heads * length * head_dim` numbers, not initialised.

        Args:
            layers: attention layers.
            rows: batch rows: samples times streams.
            heads: attention heads.
            length: tokens of the whole sequence.
            head_dim: channels of one head.
            dtype: type of storage; what is appended is cast to it.
            device: where the cache lives.

        Raises:
            ConfigError: where a size is negative.
        """
        sizes = {"layers": layers, "rows": rows, "heads": heads, "length": length, "head_dim": head_dim}
        negative = [f"{name}={size}" for name, size in sizes.items() if size < 0]
        if negative:
            raise ConfigError(f"KeyValueCache: sizes must not be negative, given {', '.join(negative)}.")
        shape = (rows, heads, length, head_dim)
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._shape = shape
        self._itemsize = dtype.itemsize
        self._end = 0

    @property
    def layers(self) -> int:
        """Attention layers."""
        return len(self._keys)

    @property
    def rows(self) -> int:
        """Batch rows still alive."""
        return self._shape[0]

    @property
    def length(self) -> int:
        """Tokens that fit."""
        return self._shape[2]

    @property
    def end(self) -> int:
        """Tokens that are part of the past."""
        return self._end

    @property
    def nbytes(self) -> int:
        """Bytes of the live rows at full length: `2 * layers * rows * heads * length * head_dim * itemsize`."""
        rows, heads, length, head_dim = self._shape
        return 2 * self.layers * rows * heads * length * head_dim * self._itemsize

    def append(
        self, layer: int, keys: Float[Tensor, "rows heads new d"], values: Float[Tensor, "rows heads new d"]
    ) -> tuple[Float[Tensor, "rows heads total d"], Float[Tensor, "rows heads total d"]]:
        """Write the tokens of this step behind the past of one layer.

        Args:
            layer: index of the layer.
            keys: `(rows, heads, new, head_dim)`.
            values: the same shape.

        Returns:
            Views of all keys and values of the layer, `(rows, heads, end + new, head_dim)`.

        Raises:
            ShapeError: where the tokens do not fit.
        """
        new = keys.shape[2]
        rows, heads, length, head_dim = self._shape
        if keys.shape != (rows, heads, new, head_dim) or values.shape != keys.shape:
            raise ShapeError(
                f"the cache holds (rows, heads, new, head_dim) = ({rows}, {heads}, *, {head_dim}), given keys "
                f"{tuple(keys.shape)} and values {tuple(values.shape)}: drop rows with keep(), or allocate anew."
            )
        stop = self._end + new
        if stop > length:
            raise ShapeError(f"the cache has room for {length} tokens, {self._end} are used, {new} more were given.")
        all_keys, all_values = self._keys[layer], self._values[layer]
        all_keys[:, :, self._end : stop] = keys
        all_values[:, :, self._end : stop] = values
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def advance(self, tokens: int) -> None:
        """Make the tokens appended to every layer part of the past.

        Args:
            tokens: how many tokens the step appended.

        Raises:
            ShapeError: where they exceed the room.
        """
        if not 0 <= tokens <= self.length - self._end:
            raise ShapeError(f"cannot advance by {tokens} tokens: {self._end} of {self.length} are used.")
        self._end += tokens

    def rewind(self, end: int) -> None:
        """Forget all tokens from position `end` on, so that a step can be taken again.

        Args:
            end: tokens that stay.

        Raises:
            ShapeError: where fewer are there.
        """
        if not 0 <= end <= self._end:
            raise ShapeError(f"cannot rewind to {end} tokens: only {self._end} are used.")
        self._end = end

    def keep(self, rows: int) -> None:
        """Drop the tail of the batch: streams after their last use. A view, nothing is copied.

        Args:
            rows: rows that stay, counted from the first.

        Raises:
            ShapeError: where fewer are alive.
        """
        if not 0 <= rows <= self.rows:
            raise ShapeError(f"cannot keep {rows} rows: {self.rows} are alive.")
        self._keys = [keys[:rows] for keys in self._keys]
        self._values = [values[:rows] for values in self._values]
        self._shape = (rows, *self._shape[1:])

    def part(self, first: int, stop: int) -> KeyValueCache:
        """Some rows as a cache of their own: the same storage, its own end, so that their past can be rewritten.

        Args:
            first: first row.
            stop: row behind the last.

        Raises:
            ShapeError: where these rows are not alive.
        """
        if not 0 <= first <= stop <= self.rows:
            raise ShapeError(f"cannot take the rows {first} to {stop}: {self.rows} are alive.")
        other = copy.copy(self)
        other._keys = [keys[first:stop] for keys in self._keys]
        other._values = [values[first:stop] for values in self._values]
        other._shape = (stop - first, *self._shape[1:])
        return other
