"""What the parts of an Infinity transformer take and give, while a replay runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from hguide.backends.infinity.transformer import InfinityTransformer

__all__ = ["Watched", "watched"]

Watched = dict[str, Tensor]
"""Name of a part -> its output; `NAME.input` -> its input."""

_PARTS = ("text_norm", "text_proj_for_sos.ca", "text_proj_for_ca", "shared_ada_lin", "word_embed", "head")
_OF_BLOCK = ("", ".sa", ".ca", ".ffn")


@contextmanager
def watched(transformer: InfinityTransformer) -> Iterator[Watched]:
    """The last input and output of each part, of the forwards made inside."""
    seen: Watched = {}
    names = [*_PARTS, *(f"blocks.{j}{part}" for j in range(transformer.config.depth) for part in _OF_BLOCK)]
    hooks = [transformer.get_submodule(name).register_forward_hook(partial(_note, seen, name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _note(seen: Watched, name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
    if isinstance(given[0], Tensor):
        seen[f"{name}.input"] = given[0]
    seen[name] = output
