"""The effect of SSG on what a model samples, step by step, beside the formulas for small beta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hguide.errors import ConfigError
from hguide.generate import StepRecord, generate
from hguide.generator import Categorical, ScaleGenerator
from hguide.guidance import SSG, Guidance, Identity
from hguide.theory.fisher import divergence
from hguide.theory.sampling_effect import divergence_series, entropy_change, entropy_series, temperature_share

__all__ = ["StepEffect", "effect_on_model"]


@dataclass(frozen=True)
class StepEffect:
    """What SSG did at one step, over the tokens of all samples.

    Attributes:
        index: of the step.
        beta: strength there.
        change: mean change of entropy, nats.
        first: the same by the series to first order.
        second: to second order.
        divergence: mean KL from the distribution before SSG, nats.
        quadratic: mean of beta^2 Var(D) / 2.
        share: quartiles of `temperature_share`.
        rising: part of the tokens whose entropy rises.
    """

    index: int
    beta: float
    change: float
    first: float
    second: float
    divergence: float
    quadratic: float
    share: tuple[float, float, float]
    rising: float


def effect_on_model(
    generator: ScaleGenerator,
    condition: Sequence[Any],
    seeds: Sequence[int],
    ssg: SSG,
    before: Guidance | None = None,
) -> list[StepEffect]:
    """Run `before | ssg` and compare the logits of each step without and with SSG.

    Args:
        generator: with categorical logits and full maps.
        condition: one per seed.
        seeds: of the samples.
        ssg: whose effect is measured.
        before: linear guidance in front of it, such as CFG; none by default.

    Returns:
        One effect per step at which SSG acts.

    Raises:
        ConfigError: channels that are not categorical; or `before` is not linear, so that the logits before SSG are
            not known.
    """
    if not isinstance(generator.channels, Categorical):
        raise ConfigError(f"the effect is measured per categorical token, but the channels are {generator.channels}.")
    before = Identity() if before is None else before
    if not before.linear:
        raise ConfigError(f"the guidance before SSG must be linear to be told from it, got {before}.")
    effects: list[StepEffect] = []

    def measure(record: StepRecord) -> None:
        beta = ssg.beta(record.step) if ssg.on(record.step) else 0.0
        base = torch.zeros_like(record.logits, dtype=torch.float64)
        for stream, weight in record.weights.items():
            base.add_(record.predictions[stream], alpha=weight)
        moved = record.logits.double() - base
        if beta > 0.0 and float(moved.abs().max()) > 1e-4:
            effects.append(_effect(record.step.index, beta, base, moved / beta))

    generate(generator, condition, before | ssg, seeds=seeds, on_step=measure)
    return effects


def _effect(index: int, beta: float, base: Tensor, contrast: Tensor) -> StepEffect:
    change = entropy_change(base, contrast, beta)
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device=base.device)
    low, middle, high = temperature_share(base, contrast).nan_to_num().flatten().quantile(levels).tolist()
    return StepEffect(
        index=index,
        beta=beta,
        change=float(change.mean()),
        first=float(entropy_series(base, contrast, beta, order=1).mean()),
        second=float(entropy_series(base, contrast, beta).mean()),
        divergence=float(divergence(base + beta * contrast, base).mean()),
        quadratic=float(divergence_series(base, contrast, beta).mean()),
        share=(low, middle, high),
        rising=float((change > 0.0).double().mean()),
    )
