"""What a run of Infinity is conditioned on: the text of each row, its tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.backends.text import TextEmbedding, class_prompts
from hguide.errors import ConfigError, near_matches

__all__ = ["named_classes", "rows_of_text"]


def named_classes(name: str, conditions: Sequence[Any], classes: Sequence[str]) -> list[Any]:
    """Class numbers as the names that are their prompts; everything else as it is.

    Args:
        name: of the generator, for messages.
        conditions: one per sample.
        classes: prompts by class number; empty for a model of free text.

    Raises:
        ConfigError: a number that is no class.
    """
    found = class_prompts(name, conditions, classes)
    if any(each is None for each in found):
        raise ConfigError(
            f"{name}: None is no condition, because the unconditional text takes its length from a prompt; "
            + (f"give a class. {near_matches('', classes)}" if classes else "give a prompt, the empty one '' included.")
        )
    return found


def rows_of_text(
    name: str, conditions: Sequence[TextEmbedding], transformer: InfinityTransformer
) -> list[Float[Tensor, "_ ct"]]:
    """The tokens of each text, without padding, where the transformer lies.

    Args:
        name: of the generator, for messages.
        conditions: one per sample.
        transformer: that takes them.

    Raises:
        ConfigError: a text without tokens, or with more than the transformer was trained with.
    """
    limit, weight = transformer.config.text_length, transformer.cfg_uncond
    texts = [each.embedding[each.mask].to(weight.device, weight.dtype) for each in conditions]
    wrong = [text.shape[0] for text in texts if not 1 <= text.shape[0] <= limit]
    if wrong:
        raise ConfigError(f"{name}: a text has 1 to {limit} tokens, got {wrong[0]}; cut the prompt.")
    return texts
