"""The guidance signal of a step: what is added to the logits, or what they are contrasted with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, near_matches
from hguide.generate import StepRecord
from hguide.generator import Binary, Categorical
from hguide.guidance.gauge import GAUGES, fix_gauge
from hguide.streams import COND, UNCOND

__all__ = ["SIGNALS", "check_signal", "guidance_signal", "signal_norms", "signal_peaks"]

SIGNALS: Mapping[str, str] = MappingProxyType(
    {
        "added": "guided less given logits",
        "contrast": "given less null logits",
        "scaled": "guided less null logits",
    }
)
"""Each signal, in words."""


def check_signal(kind: str, gauge: str) -> None:
    """Refuse unknown names.

    Raises:
        ConfigError: no such signal or gauge.
    """
    for what, name, known in (("signal", kind, SIGNALS), ("gauge", gauge, GAUGES)):
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}: {near_matches(name, known)}")


def guidance_signal(
    record: StepRecord, channels: Categorical | Binary, kind: str = "added", gauge: str = "centred"
) -> Float[Tensor, "b *place v"] | None:
    """n of a step, in float32 at least.

    Args:
        record: of the step.
        channels: of the generator; independent bits have no gauge, and keep theirs.
        kind: "added", the guided logits less those of the given condition: what all methods together change; or
            "contrast", the given logits less the null ones: IGG's n (arXiv 2509.23876), whatever the guidance makes
            of it; or "scaled", the guided logits less the null ones: what the guidance makes of n, (1 + t) n of CFG,
            (1 + r_k w) g of IGG. The source speaks of a raw and a scaled guidance; that the second is this one is
            *reconstructed*.
        gauge: of both logits before the difference: "raw" (IGG's authors' code), "centred" or "log_softmax".

    Returns:
        `(b, h, w, v)`, or `(b, n, v)` on a partial map; None where null logits are needed and the step has no null
        stream.
    """
    if kind != "added" and UNCOND not in record.predictions:
        return None
    first = record.predictions[COND] if kind == "contrast" else record.logits
    second = record.predictions[COND if kind == "added" else UNCOND]
    if first is second:
        return torch.zeros_like(first)
    fixed = "raw" if isinstance(channels, Binary) else gauge
    wide = torch.promote_types(first.dtype, torch.float32)
    return fix_gauge(first.to(wide), fixed) - fix_gauge(second.to(wide), fixed)


def signal_norms(signal: Float[Tensor, "b *place v"]) -> Float[Tensor, "b n"]:
    """|n_i|, the Euclidean norm of each token's signal over the channels."""
    return torch.linalg.vector_norm(signal, dim=-1).flatten(1)


def signal_peaks(signal: Float[Tensor, "b *place v"], channels: Categorical | Binary) -> Float[Tensor, "b n"]:
    """max_v n_iv of each token, from which evenness and divergence follow (`hguide.theory.dynamics.peaks`).

    A bit with the logit difference d has two channels, (-d/2, d/2), so its largest entry is |d|/2.
    """
    entries = signal.abs() / 2.0 if isinstance(channels, Binary) else signal
    return entries.amax(-1).flatten(1)
