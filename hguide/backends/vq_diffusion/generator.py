"""VQ-Diffusion as a `ScaleGenerator` (arXiv 2111.14822, 2205.16007)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.editing import Edit
from hguide.backends.text import TextEncoder
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.vq_diffusion.conditions import class_number, labels, texts
from hguide.backends.vq_diffusion.denoiser import Denoiser
from hguide.backends.vq_diffusion.inference import Call, Inference
from hguide.backends.vq_diffusion.log_probabilities import log_probabilities
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.backends.vq_diffusion.posterior import posterior
from hguide.backends.vq_diffusion.purity import revealed, selection_score, sharpened
from hguide.backends.vq_diffusion.run_bytes import run_bytes
from hguide.backends.vq_diffusion.start import Start
from hguide.backends.vq_diffusion.state import VQDiffusionState
from hguide.backends.vq_diffusion.tokenizer import VQGAN
from hguide.backends.vq_diffusion.truncation import filtered
from hguide.errors import ConfigError, ShapeError
from hguide.generator import Categorical, Draw, Prepared, ScaleGenerator, Serves
from hguide.graphs import captured_runs
from hguide.grids import Scale, Step
from hguide.memory import RunBytes
from hguide.noise import Noise
from hguide.sampling import Candidates, Sampler
from hguide.streams import Stream

__all__ = ["VQDiffusion", "VQDiffusionState"]

DECODED_AT_ONCE = 16
_OPTIONS = ("text_encoder", "inference", "start", "edit", "name")


class VQDiffusion(ScaleGenerator):
    """A VQ-Diffusion denoiser with its tokenizer.

    Every step shares one grid: step k is a timestep of the reverse process, noisiest first, and `Step.visible` tells
    the tokens that are no longer masked. Logits are log p(x0 | x_t) over the K codes, float64 softmax, clamped to
    [-70, 0]; guidance acts on them. `sample` normalises and clamps what it is given, filters it (`top_p` is the
    truncation rate of "top{r}r"), forms the posterior and draws; its tokens are x_{t-1}, index K being the mask.

    Args:
        denoiser: predicts the clean tokens; in evaluation mode.
        tokenizer: turns tokens into images; in evaluation mode.
        text_encoder: of prompts, for a text model; without one, conditions are `TextEmbedding`s.
        name: for messages and provenance.
        classes: names of the classes; for a text model, prompts that a class number stands for.
        inference: which network calls a run makes.

    Raises:
        ConfigError: parts that were not trained together.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: VQGAN,
        *,
        text_encoder: TextEncoder | None = None,
        name: str = "vq-diffusion",
        classes: Sequence[str] = (),
        inference: Inference | None = None,
    ) -> None:
        config = denoiser.config
        self.name = name
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.text_encoder = text_encoder
        self.class_names = tuple(classes)
        self.class_count = config.classes if config.condition == "class" else len(self.class_names) or None
        self.schedule = NoiseSchedule(config.timesteps, config.codes)
        self.channels = Categorical(config.codes)
        self.inference = inference or Inference()
        self.start: Start | None = None
        self.edit: Edit | None = None
        self._check()
        self._set_steps()

    def _check(self) -> None:
        config, problems = self.denoiser.config, []
        if self.tokenizer.config.codes != config.codes:
            problems.append(
                f"the denoiser has {config.codes} codes, the tokenizer {self.tokenizer.config.codes}; they were not "
                "trained together"
            )
        if self.text_encoder is not None and config.condition == "class":
            problems.append("a class model takes no text encoder")
        if self.text_encoder is not None and self.text_encoder.dim != config.text_channels:
            problems.append(
                f"the text encoder has {self.text_encoder.dim} channels, the denoiser takes {config.text_channels}"
            )
        if self.edit is not None and tuple(self.edit.keep.shape) != config.grid:
            problems.append(f"the edit lies on a grid of {tuple(self.edit.keep.shape)}, the model's is {config.grid}")
        if problems:
            raise ConfigError(f"{self.name}: {'; '.join(problems)}.")

    def _set_steps(self) -> None:
        config = self.denoiser.config
        first = None if self.start is None else self.start.timesteps(config.timesteps)
        self.calls = self.inference.calls(config.timesteps, config.length, first)
        self.scales = tuple(Scale(k, *config.grid) for k in range(len(self.calls)))

    @property
    def serves(self) -> Serves:  # type: ignore[override]
        """The null stream, unless it would need a text encoder that is not there."""
        config = self.denoiser.config
        return Serves(null=config.condition == "class" or config.learned_null or self.text_encoder is not None)

    def starts_like(self, other: ScaleGenerator) -> bool:
        """Whether `other` has the same edit and start, which fill the first map."""
        return isinstance(other, VQDiffusion) and (self.edit, self.start) == (other.edit, other.start)

    @cached_property
    def tokenizer_hash(self) -> str:
        """Of the tokenizer's weights and the codes in use."""
        return tokenizer_hash(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the denoiser lies."""
        return self.denoiser.device

    def with_options(self, **options: Any) -> VQDiffusion:
        """The same model, sharing its weights, with other options.

        Args:
            **options: `inference`, `text_encoder`, `name`, see the class; `start`, a `Start`; `edit`, a
                `hguide.backends.var.Edit` whose kept tokens stand from the first step on; `graphs`, which captures
                whole runs as CUDA graphs, see `hguide.backends.var.VAR.with_options`. What is not named stays.

        Raises:
            ConfigError: an unknown option, or one that cannot work.
        """
        graphs = options.pop("graphs", False)
        unknown = [option for option in options if option not in _OPTIONS]
        if unknown:
            raise ConfigError(f"{self.name}: no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}, graphs.")
        other = copy.copy(self)
        other.captured = captured_runs(self.name, self.device, graphs, self.captured)
        for option, value in options.items():
            # Else they stay the very ones that were given, by which a lender is told to begin as this model does.
            moved = other.captured is not None and isinstance(value, Edit | Start)
            setattr(other, option, value.to(self.device) if moved else value)
        other._check()
        other._set_steps()
        return other

    def conditions(self, condition: Any, samples: int) -> list[Any]:
        """Class numbers of a class model; prompts and text embeddings of a text model. None is the null condition.

        Raises:
            ConfigError: an unknown class, a prompt without a text encoder, or an embedding of another size.
        """
        given = super().conditions(condition, samples)
        if self.denoiser.config.condition == "class":
            return [class_number(self.name, each, self.class_names, self.denoiser.config.classes) for each in given]
        found = [self._prompt(each) for each in given]
        # Prompts are encoded batch by batch, in `begin`; whether that is possible is known now.
        others = [each for each in found if each is not None and not (isinstance(each, str) and self.text_encoder)]
        if others:
            texts(self.name, others, self.text_encoder, self.denoiser)
        return found

    def _prompt(self, condition: Any) -> Any:
        if isinstance(condition, int) and self.class_names:
            return self.class_names[class_number(self.name, condition, self.class_names, len(self.class_names))]
        return condition

    def prepare(self, condition: Sequence[Any], negative: Any = None) -> Prepared:
        """Labels or texts of the samples, and of their null condition where there is one."""
        return self._prepared(condition, negative, self.serves.null)

    def _prepared(self, condition: Sequence[Any], negative: Any, with_null: bool) -> Prepared:
        b = len(condition)
        found = [self._condition(condition)]
        if with_null:
            found.append(self._condition([None] * b if negative is None else self.conditions(negative, b)))
        return Prepared(b, tuple(found))

    def begin(
        self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None
    ) -> VQDiffusionState:
        """A new run: all tokens masked, but for a start or an edit."""
        with_null = any(stream.condition == "null" for stream in streams)
        return self.begin_prepared(self._prepared(condition, negative, with_null), streams, noise)

    def begin_prepared(self, prepared: Prepared, streams: Mapping[Stream, int], noise: Noise) -> VQDiffusionState:
        """See `begin`."""
        b, config = prepared.samples, self.denoiser.config
        found = dict(zip(("given", "null"), prepared.tensors, strict=False))
        tokens = torch.full((b, config.length), config.mask, device=self.device)
        if self.start is not None:
            first = Step(0, self.count, 0, self.scales[0])
            tokens = self.start.noisy(b, config.grid, self.schedule, noise, first, self.device)
        return VQDiffusionState(self._kept(tokens), found, noise)

    def _condition(self, condition: Sequence[Any]) -> Tensor:
        if self.denoiser.config.condition == "text":
            return texts(self.name, condition, self.text_encoder, self.denoiser)
        null = self.denoiser.config.null_label
        return labels([null if each is None else each for each in condition], self.denoiser)

    def _kept(self, tokens: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """The tokens, those of the edit's picture where it is kept."""
        if self.edit is None:
            return tokens
        own = self.edit.tokens[-1].flatten(1).to(tokens.device)
        return torch.where(self.edit.keep.flatten().to(tokens.device), own, tokens)

    def call(self, step: Step) -> Call:
        """The network call of a step: its timesteps, and how many tokens it reveals.

        Raises:
            ConfigError: a lender whose inference makes fewer calls than that of the run.
        """
        calls = self.calls[step.index]
        if step.call >= len(calls):
            raise ConfigError(
                f"{self.name}: makes {len(calls)} calls at step {step.index}, the run makes more; a lender needs the "
                "same inference as the model it is lent to."
            )
        return calls[step.call]

    def next_step(self, state: VQDiffusionState) -> Step | None:
        """One step per network call; several of one index where a timestep reveals its tokens in parts."""
        if state.index == self.count:
            return None
        visible = state.tokens != self.denoiser.config.mask
        return Step(state.index, self.count, state.call, self.scales[state.index], visible=visible)

    def predict(
        self, state: VQDiffusionState, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """log p(x0 | x_t) of all streams in one forward."""
        condition = torch.cat([state.conditions[stream.condition] for stream in streams])
        tokens = state.tokens.repeat(len(streams), 1)
        logits = self.denoiser(tokens, self.call(step).network, condition)
        maps = log_probabilities(logits).unflatten(1, step.grid).chunk(len(streams))
        return dict(zip(streams, maps, strict=True))

    def sample(
        self, state: VQDiffusionState, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]
    ) -> Draw:
        """Draw x_{t-1} by Gumbel-max over the K codes and the mask."""
        log_x0 = filtered(logits.flatten(1, 2), sampler, step)
        distribution = self.distribution(state, step, log_x0)
        tokens = sampler.draw(Candidates(distribution, None), state.noise, step)
        return Draw(self._kept(tokens).view(logits.shape[:-1]))

    def distribution(
        self, state: VQDiffusionState, step: Step, log_x0: Float[Tensor, "b l c"]
    ) -> Float[Tensor, "b l c"]:
        """Log-probabilities of x_{t-1}: the posterior, or by a prior rule those of the chosen positions alone.

        Args:
            state: of the run.
            step: where in the run.
            log_x0: log p(x0 | x_t) as `filtered` gives it.
        """
        call = self.call(step)
        if not call.reveal:
            return posterior(log_x0, state.tokens, call.posterior, self.schedule)
        score = selection_score(log_x0, state.tokens != self.denoiser.config.mask, self.inference.rule)
        exponential = state.noise.exponential(step, "select", score.shape[1], 1)
        chosen, _ = revealed(score, call.reveal, exponential)
        drawn = sharpened(log_x0, self.inference.prior_weight)
        # The other positions keep their token for sure, so that one draw gives the whole map.
        channels = torch.arange(log_x0.shape[-1], device=log_x0.device)
        own = torch.where(state.tokens.unsqueeze(-1) == channels, 0.0, -torch.inf)
        return torch.where(chosen.unsqueeze(-1), drawn, own)

    def advance(self, state: VQDiffusionState, step: Step, draw: Draw) -> None:
        """Take x_{t-1}."""
        state.tokens = draw.tokens.flatten(1)
        last = step.call + 1 == len(self.calls[step.index])
        state.index, state.call = (step.index + 1, 0) if last else (step.index, step.call + 1)

    def decode(self, state: VQDiffusionState) -> Float[Tensor, "b 3 H W"]:
        """(decoder(codes) clamped to [-1, 1] + 1) / 2, a few images at a time; masked tokens show as the mean code."""
        maps = state.tokens.unflatten(1, self.denoiser.config.grid)
        parts = [self.tokenizer.decode(part) for part in maps.split(DECODED_AT_ONCE)]
        return torch.cat(parts).float().add_(1.0).div_(2.0)

    def run_bytes(self, samples: int, streams: int) -> RunBytes:
        """The softmax or the posterior of a step, or the decoder."""
        itemsize = self.denoiser.content_emb.emb.weight.dtype.itemsize
        sizes = (self.denoiser.config, self.tokenizer.config.autoencoder, itemsize)
        return run_bytes(*sizes, samples, streams, DECODED_AT_ONCE)

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> list[Int[Tensor, "b h w"]]:
        """Clean tokens of images in [0, 1] of the model's own size: the same map for every step.

        Raises:
            ShapeError: images of another size.
            StreamError: the tokenizer was stored without its encoder.
        """
        stride = self.tokenizer.config.autoencoder.stride
        height, width = (side * stride for side in self.denoiser.config.grid)
        if tuple(images.shape[1:]) != (3, height, width):
            raise ShapeError(f"{self.name}: images are (b, 3, {height}, {width}), got {tuple(images.shape)}.")
        weight = self.tokenizer.post_quant_conv.weight
        tokens = self.tokenizer.encode(images.to(weight.device, weight.dtype) * 2.0 - 1.0)
        return [tokens] * self.count
