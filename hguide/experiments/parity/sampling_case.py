"""Recorded filters: what top-k and top-p leave of given logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hguide.errors import ConfigError
from hguide.experiments.parity.recording import Recording
from hguide.grids import Scale, Step
from hguide.sampling import Sampler

__all__ = ["replay_sampling"]

INPUT = "an input of the replay"


def replay_sampling(recording: Recording, cases: Mapping[str, Any]) -> None:
    """Filter recorded logits; recorded tokens must be among those kept (their random generator is another one).

    Args:
        recording: `X.logits`, `X.filtered`, `X.tokens` of each case X.
        cases: `{X: {"top_k": ..., "top_p": ...}}`.

    Raises:
        ConfigError: a case without settings.
    """
    for name, settings in cases.items():
        if f"{name}.logits" not in recording:
            continue
        missing = [key for key in ("top_k", "top_p") if key not in settings]
        if missing:
            raise ConfigError(f"{recording.case}: no {', '.join(missing)} for {name}.")
        logits = recording[f"{name}.logits"]
        recording.leave(f"{name}.logits", INPUT)
        step = Step(0, 1, 0, Scale(0, 1, logits.shape[1]))
        kept = Sampler(top_k=settings["top_k"], top_p=settings["top_p"]).candidates(logits, step)
        dense = kept.dense(logits.shape[-1])
        recording.compare(f"{name}.filtered", dense)
        if f"{name}.tokens" in recording:
            drawn = recording[f"{name}.tokens"].unsqueeze(-1)
            dropped = int((dense.gather(-1, drawn) == -torch.inf).sum())
            recording.judge(f"{name}.tokens", dropped, "not among the tokens that the filters keep")
