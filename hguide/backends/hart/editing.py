"""In- and out-painting with HART: codes of a given picture, and at the last scale its continuous rest, are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.editing import Edit
from hguide.backends.multiscale_quantizer import MultiScaleQuantizer
from hguide.errors import ShapeError
from hguide.grids import Step

__all__ = ["HybridEdit", "keep_codes"]


@dataclass(frozen=True, eq=False)
class HybridEdit(Edit):
    """An `Edit` whose picture also keeps its continuous rest, so that the kept part is exact.

    Args:
        tokens: see `Edit`.
        keep: see `Edit`.
        rest: `(1, c, H, W)`, as `HART.encode_hybrid` gives it.

    Raises:
        ShapeError: see `Edit`; or a rest on another grid than the last.

    *Reconstructed*: the official program has no editing; at scales before the last this is VAR's.
    """

    rest: Float[Tensor, "1 c H W"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if tuple(self.rest.shape[2:]) != tuple(self.keep.shape):
            raise ShapeError(
                f"HybridEdit: rest lies on {tuple(self.rest.shape[2:])}, keep on {tuple(self.keep.shape)}."
            )

    def to(self, device: torch.device) -> HybridEdit:
        """See `Edit`."""
        tokens = [each.to(device) for each in self.tokens]
        return replace(self, tokens=tokens, keep=self.keep.to(device), rest=self.rest.to(device))


def keep_codes(
    edit: Edit, codes: Float[Tensor, "b n c"], step: Step, quantize: MultiScaleQuantizer
) -> Float[Tensor, "b n c"]:
    """The picture's codes where it is kept, else `codes`; at the last scale the picture's rest where it has one.

    Args:
        edit: what is kept.
        codes: of the places that the step predicts, with their residual at the last scale.
        step: where in the run.
        quantize: of the tokenizer.

    Raises:
        ShapeError: the picture's tokens lie on other grids.
    """
    tokens = edit.tokens[step.index]
    if tuple(tokens.shape[1:]) != step.grid:
        raise ShapeError(
            f"Edit: the picture's tokens at step {step.index} lie on {tuple(tokens.shape[1:])}, the model's on "
            f"{step.grid}; encode the picture with the same model."
        )
    whole = isinstance(edit, HybridEdit) and step.index == step.count - 1
    own = edit.rest if isinstance(edit, HybridEdit) and whole else quantize.lookup(tokens.to(codes.device))
    rows = own.to(codes).flatten(2).transpose(1, 2)
    keep = edit.keep_at(step.grid).to(codes.device).flatten()[None, :, None]
    if step.positions is not None:
        places = step.positions
        rows, keep = rows[0][places], keep[0][places]
    return torch.where(keep, rows, codes)
