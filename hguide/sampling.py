"""From guided logits to tokens: temperature, top-k, top-p, and Gumbel-max over the kept candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.grids import Step
from hguide.noise import Noise
from hguide.schedules import Schedule
from hguide.selection import ascending, largest

__all__ = ["Candidates", "Prefix", "Replay", "Sampler"]

Setting = float | Schedule | Sequence[float]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The tokens that the filters kept.

    Attributes:
        values: `(b, n, c)` logits after temperature; -inf where dropped.
        channels: `(b, n, c)` token ids of the columns, or None where column i is token i.
    """

    values: Tensor
    channels: Tensor | None

    def dense(self, width: int) -> Float[Tensor, "b n v"]:
        """The logits over all `width` tokens, -inf where dropped."""
        if self.channels is None:
            return self.values
        full = self.values.new_full((*self.values.shape[:-1], width), -math.inf)
        return full.scatter_(-1, self.channels, self.values)

    def count(self) -> Int[Tensor, "b n"]:
        """Number of tokens kept at each position."""
        return (self.values > -math.inf).sum(-1)


@dataclass(frozen=True)
class Sampler:
    """Temperature, then top-k, then top-p, then a draw.

    Ties at the thresholds of top-k and top-p are kept, and the most probable token always survives top-p, as in the
    official VAR, HART and Infinity samplers (arXiv 2404.02905, code), where top-p cuts inside ties.

    Args:
        temperature: divides the logits; a positive number, a schedule, one number per step, or a function from the
            filtered logits `(b, n, c)` to a temperature `(b, n, 1)` that is applied after the filters.
        top_k: number of most probable tokens kept; 0 keeps all. That of a schedule is rounded down, to 1 at least.
        top_p: probability mass kept, in [0, 1]; 0 keeps all.
    """

    temperature: Setting | Callable[[Tensor], Tensor] = 1.0
    top_k: Setting = 0
    top_p: Setting = 0.0

    def __post_init__(self) -> None:
        problems: list[str] = []
        for name in ("temperature", "top_k", "top_p"):
            value = getattr(self, name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, name, value)
            if isinstance(value, Schedule) or (name == "temperature" and callable(value)):
                continue
            for number in value if isinstance(value, tuple) else (value,):
                if problem := _problem(name, number):
                    problems.append(problem)
                elif name == "top_k" and number != int(number):
                    problems.append(f"top_k is a whole number, got {number!r}")
        if problems:
            raise ConfigError("Sampler: " + "; ".join(problems) + ".")

    def at(self, name: str, step: Step) -> float:
        """The number that `temperature`, `top_k` or `top_p` has at a step.

        Raises:
            ConfigError: a schedule leaves the range there, a list has another length, or the number follows the logits.
        """
        value: Any = getattr(self, name)
        if isinstance(value, Schedule):
            number = value(step)
            if problem := _problem(name, number):
                raise ConfigError(f"Sampler: {problem} at step {step.index} from {value}.")
            return max(1, math.floor(number)) if name == "top_k" and number > 0 else number
        if isinstance(value, tuple):
            if len(value) != step.count:
                raise ConfigError(f"Sampler: {name} lists {len(value)} numbers, the generator has {step.count} steps.")
            return value[step.index]
        if callable(value):
            raise ConfigError(
                "Sampler: a temperature that depends on the logits needs categorical ones; independent bits take a "
                "number, a schedule, or one number per step."
            )
        return value

    def candidates(self, logits: Tensor, step: Step) -> Candidates:
        """The tokens kept at each position.

        Args:
            logits: `(b, h, w, v)` or `(b, n, v)`; left as they are.
            step: where in the run.

        Raises:
            ConfigError: top_k larger than the number of tokens.
        """
        flat = logits.reshape(logits.shape[0], -1, logits.shape[-1])
        if not callable(self.temperature) or isinstance(self.temperature, Schedule):
            temperature = self.at("temperature", step)
            if temperature != 1.0:
                flat = flat / temperature
        kept = _filtered(flat, int(self.at("top_k", step)), float(self.at("top_p", step)))
        if callable(self.temperature) and not isinstance(self.temperature, Schedule):
            kept = Candidates(kept.values / self.temperature(kept.values), kept.channels)
        return kept

    def draw(self, kept: Candidates, noise: Noise, step: Step, purpose: str = "token") -> Int[Tensor, "b n"]:
        """One token per position by Gumbel-max: argmax of logits + Gumbel noise of the token's own id."""
        channels = kept.values.shape[-1] if kept.channels is None else kept.channels
        gumbel = noise.gumbel(step, purpose, _places(kept.values, step), channels)
        best = gumbel.add_(kept.values).argmax(-1, keepdim=True)
        chosen = best if kept.channels is None else kept.channels.gather(-1, best)
        return chosen.squeeze(-1)

    def categorical(self, logits: Tensor, noise: Noise, step: Step, purpose: str = "token") -> Int[Tensor, "*shape"]:
        """Filter and draw: tokens of the shape of `logits` without its channels."""
        return self.draw(self.candidates(logits, step), noise, step, purpose).reshape(logits.shape[:-1])

    def bits(self, differences: Tensor, noise: Noise, step: Step, purpose: str = "bit") -> Int[Tensor, "*shape"]:
        """Independent bits from logit differences d = l1 - l0, drawn from d / temperature.

        The two-channel rule with a shared Gumbel per channel is a logistic threshold: bit = d/tau + logistic > 0.

        Args:
            differences: `(b, h, w, bits)` or `(b, n, bits)`.
            noise: of the run.
            step: where in the run.
            purpose: of the draw.
        """
        kept = self.bit_candidates(differences, step)
        uniform = noise.uniform(step, purpose, _places(kept, step), kept.shape[-1])
        drawn = kept + torch.logit(uniform) > 0
        return drawn.to(torch.int64).reshape(differences.shape)

    def bit_candidates(self, differences: Tensor, step: Step) -> Float[Tensor, "b n bits"]:
        """d / temperature, infinite where one value of a bit is left; sigmoid of it is the probability of a 1.

        top_k = 1 keeps the likelier value, and both where they are equal; a larger top_k keeps both. top_p drops a
        value whose probability is at most 1 - top_p, never the likelier one.

        Args:
            differences: `(b, h, w, bits)` or `(b, n, bits)`; left as they are.
            step: where in the run.

        Raises:
            ConfigError: a temperature that depends on the logits, or lists another number of steps.
        """
        flat = differences.reshape(differences.shape[0], -1, differences.shape[-1]) / self.at("temperature", step)
        likelier = torch.where(flat > 0, math.inf, -math.inf)
        if int(self.at("top_k", step)) == 1:
            flat = torch.where(flat == 0, flat, likelier)
        top_p = float(self.at("top_p", step))
        if top_p > 0.0:
            flat = torch.where(torch.sigmoid(-flat.abs()) <= 1.0 - top_p, likelier, flat)
        return flat


def _problem(name: str, number: object) -> str | None:
    """What is wrong with a setting's number, or None."""
    if isinstance(number, bool) or not isinstance(number, Real):
        return f"{name} is a number, a list of one number per step, or a schedule, got {number!r}"
    if name == "temperature":
        return None if 0.0 < float(number) < math.inf else f"temperature is positive and finite, got {number!r}"
    if name == "top_k":
        return None if 0.0 <= float(number) < math.inf else f"top_k is 0 (all) or a number of tokens, got {number!r}"
    return None if 0.0 <= float(number) <= 1.0 else f"top_p is from 0 to 1, got {number!r}"


@dataclass(frozen=True, eq=False)
class Replay(Sampler):
    """Replays recorded tokens in place of drawing; the filters stay those of a `Sampler`.

    Args:
        tokens: recorded tokens by step index (a sequence) or by (index, call) (a mapping).
    """

    tokens: Any = field(default=(), kw_only=True)

    def _recorded(self, step: Step, shape: Sequence[int], device: torch.device) -> Tensor:
        try:
            key = (step.index, step.call) if isinstance(self.tokens, dict) else step.index
            tokens = torch.as_tensor(self.tokens[key], dtype=torch.int64, device=device)
        except (KeyError, IndexError):
            raise ShapeError(f"no recorded tokens for step {step.index}, call {step.call}.") from None
        if tokens.numel() != math.prod(shape):
            raise ShapeError(
                f"recorded tokens of step {step.index} have shape {tuple(tokens.shape)}, asked for {tuple(shape)}."
            )
        return tokens.reshape(tuple(shape))

    def draw(self, kept: Candidates, noise: Noise, step: Step, purpose: str = "token") -> Int[Tensor, "b n"]:
        """The recorded tokens."""
        return self._recorded(step, kept.values.shape[:-1], kept.values.device)

    def categorical(self, logits: Tensor, noise: Noise, step: Step, purpose: str = "token") -> Int[Tensor, "*shape"]:
        """The recorded tokens."""
        return self._recorded(step, logits.shape[:-1], logits.device)

    def bits(self, differences: Tensor, noise: Noise, step: Step, purpose: str = "bit") -> Int[Tensor, "*shape"]:
        """The recorded bits."""
        return self._recorded(step, differences.shape, differences.device)


@dataclass(frozen=True, eq=False)
class Prefix(Replay):
    """The given tokens at the first steps (teacher forcing), draws at those after: completion of a picture.

    Args:
        tokens: of the first steps, one map per step, as `generator.encode(images)[:n]` gives them.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tokens, dict):
            raise ConfigError("Prefix: tokens are a sequence of maps, one for each of the first steps.")

    def draw(self, kept: Candidates, noise: Noise, step: Step, purpose: str = "token") -> Int[Tensor, "b n"]:
        """The given tokens, or drawn ones."""
        rule = Replay.draw if step.index < len(self.tokens) else Sampler.draw
        return rule(self, kept, noise, step, purpose)

    def categorical(self, logits: Tensor, noise: Noise, step: Step, purpose: str = "token") -> Int[Tensor, "*shape"]:
        """The given tokens, or drawn ones."""
        rule = Replay.categorical if step.index < len(self.tokens) else Sampler.categorical
        return rule(self, logits, noise, step, purpose)

    def bits(self, differences: Tensor, noise: Noise, step: Step, purpose: str = "bit") -> Int[Tensor, "*shape"]:
        """The given bits, or drawn ones."""
        rule = Replay.bits if step.index < len(self.tokens) else Sampler.bits
        return rule(self, differences, noise, step, purpose)


def _places(flat: Tensor, step: Step) -> int | Tensor:
    """What tells positions apart in the noise: the place in the full map, also on partial maps."""
    return flat.shape[1] if step.positions is None else step.positions


def _filtered(logits: Float[Tensor, "b n v"], k: int, p: float) -> Candidates:
    """Top-k where k is not 0, then top-p where p is not 0."""
    width = logits.shape[-1]
    if k > width:
        raise ConfigError(f"Sampler: top_k = {k} but there are {width} tokens; use at most that, or 0 for all.")
    k %= width
    if logits.device.type != "cpu":
        return _filtered_without_waiting(logits, k, p)
    kept = Candidates(logits, None) if k == 0 else _top_k(logits, k)
    return kept if p == 0.0 else _top_p(kept, p)


def _filtered_without_waiting(logits: Float[Tensor, "b n v"], k: int, p: float) -> Candidates:
    """The same for all tokens in one sort: nobody has to know how many tie with the k-th, so nobody waits for it."""
    if p == 0.0:
        if k == 0:
            return Candidates(logits, None)
        threshold = logits.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
        return Candidates(logits.masked_fill(logits < threshold, -math.inf), None)
    values, channels = ascending(logits)
    if k > 0:
        values.masked_fill_(values < values[..., -k, None], -math.inf)
    return Candidates(_without_tail(values, p), channels)


def _top_k(logits: Float[Tensor, "b n v"], k: int) -> Candidates:
    """The k largest logits per position, in no order, and whatever ties with the smallest of them."""
    values, channels, tied = largest(logits, k)
    if not tied:
        return Candidates(values, channels)
    threshold = values.amin(-1, keepdim=True)
    most = int((logits >= threshold).sum(-1).max())
    values, channels = logits.topk(most, dim=-1)
    return Candidates(values.masked_fill(values < threshold, -math.inf), channels)


def _top_p(kept: Candidates, p: float) -> Candidates:
    """Top-p of what is kept."""
    values, order = ascending(kept.values)
    channels = order if kept.channels is None else kept.channels.gather(-1, order)
    values = _without_tail(values, p)
    # No noise for what every position drops.
    least = int((values == -math.inf).sum(-1).min())
    return Candidates(values[..., least:], channels[..., least:])


def _without_tail(ordered: Float[Tensor, "b n c"], p: float) -> Float[Tensor, "b n c"]:
    """Drop the least probable tokens whose cumulated probability is at most 1 - p.

    The last one always stays, and so does what ties with the least probable one that stays: the order of equal logits
    is the sort's own affair, and differs between processors.
    """
    cumulated = ordered.softmax(-1).cumsum_(-1)
    dropped = torch.searchsorted(cumulated, cumulated.new_full((*cumulated.shape[:-1], 1), 1.0 - p), right=True)
    smallest = ordered.gather(-1, dropped.clamp_(max=ordered.shape[-1] - 1))
    return ordered.masked_fill(ordered < smallest, -math.inf)
