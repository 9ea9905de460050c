"""A generator with a known optimum: small enough to read on one page, complete enough to exercise every contract."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError
from hguide.generator import Binary, Categorical, Draw, ScaleGenerator, Serves
from hguide.grids import Grid, Scale, Step
from hguide.noise import Noise
from hguide.priors import DSE, Prior
from hguide.sampling import Sampler
from hguide.streams import Corruption, Stream

__all__ = ["ToyGenerator", "ToyState"]


@dataclass
class ToyState:
    """One run of a `ToyGenerator`."""

    labels: list[int]
    negative: int
    noise: Noise
    last_use: dict[Stream, int]
    index: int = 0
    call: int = 0
    order: Tensor | None = None
    tokens: list[Tensor] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    raw: dict[Stream, Tensor] = field(default_factory=dict)
    partial: Tensor | None = None


class ToyGenerator(ScaleGenerator):
    """True logits t_k plus the drift that guidance should undo.

    The model predicts l_k = (1 - a_k) t_k + a_k P l_{k-1}: it repeats a part a_k of what the step before said.
    Scaled Spatial Guidance with beta_k = a_k / (1 - a_k) (`optimal_strength`) and the same prior P returns t_k exactly.
    t_k depends on the class and, through `coupling`, on the tokens of the scale before.

    Args:
        grids: of the scales.
        channels: `Categorical(v)` or `Binary(bits)`; 16 tokens by default.
        classes: number of classes; the null condition is one more.
        drift: a_k per scale; the first is 0.
        prior: P.
        coupling: weight of the tokens before in t_k.
        calls: network calls at the last scale; more than one predicts a random part of its map at each call.
        residual: add a continuous residual at the last scale, mixed by the guidance's weights.
        seed: of the tables; generators of other seeds are other models of the same tokens.
    """

    serves: ClassVar[Serves] = Serves(null=True, corruption=True, perturbations=frozenset({"halved"}))

    def __init__(
        self,
        grids: Sequence[Grid] = ((1, 1), (2, 2), (3, 3), (5, 5), (8, 8)),
        channels: Categorical | Binary | None = None,
        classes: int = 4,
        drift: Sequence[float] | None = None,
        prior: Prior | None = None,
        coupling: float = 1.0,
        calls: int = 1,
        residual: bool = False,
        seed: int = 0,
    ) -> None:
        self.name = "toy"
        self.scales = tuple(Scale(k, h, w) for k, (h, w) in enumerate(grids))
        self.channels = channels = channels or Categorical(16)
        self.classes = self.class_count = classes
        self.drift = tuple(drift) if drift is not None else (0.0,) + (0.4,) * (len(grids) - 1)
        if len(self.drift) != self.count or self.drift[0] != 0.0 or not all(0 <= a < 1 for a in self.drift):
            raise ConfigError(f"drift has one number in [0, 1) per scale, the first 0; got {self.drift}.")
        self.prior = prior or DSE()
        self.coupling = coupling
        self.calls = calls
        self.residual = residual
        self.seed = seed
        draw = torch.Generator().manual_seed(seed)
        self.tables = [torch.randn(classes + 1, h, w, channels.width, generator=draw) * 2.0 for h, w in grids]
        self.palette = torch.rand(channels.width, 3, generator=torch.Generator().manual_seed(7))

    @property
    def partial(self) -> bool:  # type: ignore[override]
        """True where the last scale takes several calls."""
        return self.calls > 1

    @property
    def tokenizer_hash(self) -> str:
        """Of the palette."""
        return hashlib.sha256(self.palette.numpy().tobytes()).hexdigest()

    @property
    def optimal_strength(self) -> tuple[float, ...]:
        """beta_k = a_k / (1 - a_k), with which Scaled Spatial Guidance over `prior` returns the true logits."""
        return tuple(part / (1.0 - part) for part in self.drift)

    def conditions(self, condition: Any, samples: int) -> list[int]:
        """Class indices from 0 to classes - 1."""
        labels = super().conditions(condition, samples)
        for label in labels:
            if not isinstance(label, int) or not 0 <= label < self.classes:
                raise ConfigError(f"toy: a class is an integer from 0 to {self.classes - 1}, got {label!r}.")
        return labels

    def begin(
        self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None
    ) -> ToyState:
        """A new run."""
        null = self.classes if negative is None else self.conditions(negative, 1)[0]
        return ToyState(list(condition), null, noise, dict(streams))

    def next_step(self, state: ToyState) -> Step | None:
        """One step per scale; `calls` steps at the last."""
        if state.index == self.count:
            return None
        scale = self.scales[state.index]
        step = Step(state.index, self.count, state.call, scale)
        if self.calls == 1 or state.index < self.count - 1:
            return step
        if state.order is None:
            state.order = state.noise.order(Step(state.index, self.count, 0, scale), "order", scale.tokens)
        positions = state.order.tensor_split(self.calls, dim=1)[state.call]
        return Step(state.index, self.count, state.call, scale, positions=positions)

    def truth(self, state: ToyState, step: Step, stream: Stream) -> Float[Tensor, "b h w v"]:
        """The logits t_k that a model without drift would predict."""
        labels = [state.negative if stream.condition == "null" else label for label in state.labels]
        true = self.tables[step.index][labels]
        if step.index > 0:
            tokens = state.tokens[step.index - 1]
            if isinstance(stream.prefix, Corruption):
                tokens = _corrupted(tokens, stream.prefix, state.noise, step)
            true = true + self.coupling * self.prior(self._features(tokens), step.grid, step)
        return true * 0.5 if stream.perturb is not None else true

    def predict(
        self, state: ToyState, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """l_k = (1 - a_k) t_k + a_k P l_{k-1}."""
        if step.call == 0:
            # A live stream that is not asked for keeps its own history, as a cache would.
            live = [stream for stream, last in state.last_use.items() if last >= step.index]
            state.raw = {stream: self._predict(state, step, stream) for stream in live}
        rows = {stream: state.raw[stream] for stream in streams}
        if step.positions is None:
            return {stream: logits.clone() for stream, logits in rows.items()}
        places = step.positions[..., None].expand(-1, -1, self.channels.width)
        return {stream: logits.flatten(1, 2).gather(1, places) for stream, logits in rows.items()}

    def sample(
        self, state: ToyState, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]
    ) -> Draw:
        """Draw tokens; at the last scale a residual may come with them."""
        draw = sampler.bits if isinstance(self.channels, Binary) else sampler.categorical
        tokens = draw(logits, state.noise, step)
        if not self.residual or step.index < self.count - 1:
            return Draw(tokens)
        heads = {s: torch.tensor(state.labels) if s.condition == "given" else state.negative for s in weights}
        mixed = sum(weight * torch.as_tensor(heads[s], dtype=torch.float32) for s, weight in weights.items())
        noise = state.noise.normal(step, "residual", tokens[0].numel() // self._width(), 3) * 0.01
        return Draw(tokens, embedding=noise.transpose(1, 2) + 0.01 * torch.as_tensor(mixed).reshape(-1, 1, 1))

    def advance(self, state: ToyState, step: Step, draw: Draw) -> None:
        """Take the tokens into the run."""
        tokens = draw.tokens
        if step.positions is not None:
            shape = (len(state.labels), step.scale.tokens, self._width())
            whole = state.partial if state.partial is not None else torch.zeros(shape, dtype=torch.int64)
            rows = tokens.reshape(shape[0], -1, self._width())
            state.partial = whole.scatter(1, step.positions[..., None].expand_as(rows), rows)
            state.call += 1
            if state.call < self.calls:
                return
            tokens = state.partial.reshape(shape[0], *step.grid, -1)
            tokens = tokens if isinstance(self.channels, Binary) else tokens[..., 0]
        state.tokens.append(tokens)
        image = self._features(tokens).softmax(-1) @ self.palette
        if draw.embedding is not None and step.positions is None:
            image = image + draw.embedding.transpose(1, 2).reshape(image.shape)
        state.images.append(image.permute(0, 3, 1, 2))
        state.index, state.call = state.index + 1, 0

    def decode(self, state: ToyState) -> Float[Tensor, "b 3 H W"]:
        """The mean colour over the scales so far, at four times the last grid."""
        size = [4 * side for side in self.scales[-1].grid]
        if not state.images:
            return torch.full((len(state.labels), 3, *size), 0.5)
        maps = [F.interpolate(image, size=size, mode="nearest") for image in state.images]
        return torch.stack(maps).mean(0).clamp(0.0, 1.0)

    def _width(self) -> int:
        return self.channels.bits if isinstance(self.channels, Binary) else 1

    def _features(self, tokens: Tensor) -> Float[Tensor, "b h w v"]:
        if isinstance(self.channels, Binary):
            return tokens.float() * 2.0 - 1.0
        return F.one_hot(tokens, self.channels.width).float() * 4.0

    def _predict(self, state: ToyState, step: Step, stream: Stream) -> Tensor:
        true = self.truth(state, step, stream)
        if step.index == 0:
            return true
        part = self.drift[step.index]
        return (1.0 - part) * true + part * self.prior(state.raw[stream], step.grid, step)


def _corrupted(tokens: Tensor, corruption: Corruption, noise: Noise, step: Step) -> Tensor:
    """A part of the positions takes the token of another position of the same map."""
    flat = tokens.reshape(tokens.shape[0], tokens.shape[1] * tokens.shape[2], -1)
    chosen = noise.uniform(step, "corrupt", flat.shape[1], 1) < corruption.proportion
    source = noise.order(step, "corrupt-from", flat.shape[1])[..., None].expand_as(flat)
    return torch.where(chosen, flat.gather(1, source), flat).reshape(tokens.shape)
