"""Whether what a run computes is finite: bad numbers stop a run before they become a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from hguide.errors import NumericalError
from hguide.grids import Step
from hguide.streams import Stream

__all__ = ["check_all_finite", "check_finite"]


def check_finite(guided: Tensor, predictions: Mapping[Stream, Tensor], step: Step) -> None:
    """Look at the guided logits of a step.

    Args:
        guided: of any shape.
        predictions: raw logits per stream, which are blamed where they are the cause.
        step: for the message.

    Raises:
        NumericalError: NaN or infinity among them; names the step and the stream.
    """
    # A sum reads the map once and writes nothing; any NaN or infinity survives in it.
    if torch.isfinite(guided.sum(dtype=torch.float32)) or torch.isfinite(guided).all():
        return
    sources = [str(stream) for stream, logits in predictions.items() if not torch.isfinite(logits).all()]
    blame = f"the model's logits of stream ({sources[0]})" if sources else "the guided logits; lower the strength"
    raise NumericalError(f"step {step.index}, call {step.call}: not finite in {blame}.")


def check_all_finite(steps: Sequence[Step | None], finite: Bool[Tensor, " steps"] | None) -> None:
    """Look at the end of a run at what its device found at each step.

    Args:
        steps: in their order; None stands for the images.
        finite: whether each was finite; None where there is nothing to look at.

    Raises:
        NumericalError: names the first that was not.
    """
    if finite is None or all(found := finite.tolist()):
        return
    step = steps[found.index(False)]
    if step is None:
        raise NumericalError("the decoded images are not finite: load the model with a wider dtype, or anew.")
    raise NumericalError(
        f"step {step.index}, call {step.call}: not finite in the model's logits or in the guided ones; lower the "
        "strength, or load the model with a wider dtype."
    )
