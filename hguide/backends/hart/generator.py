"""HART as a `ScaleGenerator` (arXiv 2410.10812)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.editing import Edit
from hguide.backends.hart.conditioning import checked_texts, conditioning_of, text_rows
from hguide.backends.hart.diffusion_schedule import respaced
from hguide.backends.hart.editing import keep_codes
from hguide.backends.hart.maskgit import positions_of, still_masked
from hguide.backends.hart.options import HARTOptions
from hguide.backends.hart.residual_diffusion import OnDiffusionStep, draw_residual, residual_weights
from hguide.backends.hart.smoothing import progress, soft_codes
from hguide.backends.hart.state import HARTState
from hguide.backends.hart.tokenizer import HARTTokenizer, HybridTokens
from hguide.backends.hart.transformer import HARTTransformer
from hguide.backends.rows import condition_rows, rows_of
from hguide.backends.run_bytes import TransformerSizes, decode_in_parts, run_bytes
from hguide.backends.text import TextEmbedding, TextEncoder, class_prompts
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.errors import ConfigError, ShapeError
from hguide.generator import Categorical, Draw, Prepared, ScaleGenerator, Serves
from hguide.graphs import captured_runs
from hguide.grids import Scale, Step
from hguide.memory import RunBytes
from hguide.noise import Noise
from hguide.sampling import Sampler
from hguide.streams import COND, Stream

__all__ = ["HART", "HARTState"]


class HART(ScaleGenerator):
    """A HART transformer with its hybrid tokenizer and residual head.

    A condition is a prompt, a `TextEmbedding`, or None for the null condition (zeros in place of the text). The first
    scale is predicted by the last text token; at the last scale a continuous residual is drawn for each token, guided
    by the weights of the guidance. `official_guidance` and `official_sampler` give the official settings.

    Args:
        transformer: predicts the logits of each scale and the residual; in evaluation mode.
        tokenizer: turns tokens and residuals into images; in evaluation mode.
        text_encoder: of prompts; without it conditions are embeddings.
        name: for messages and provenance.
        classes: prompts that may be given by their index; for models trained on class names.
        options: of the sampling loop.
    """

    serves = Serves(null=True)

    def __init__(
        self,
        transformer: HARTTransformer,
        tokenizer: HARTTokenizer,
        text_encoder: TextEncoder | None = None,
        *,
        name: str = "hart",
        classes: Sequence[str] = (),
        options: HARTOptions | None = None,
    ) -> None:
        config = transformer.config
        latent = tokenizer.config.autoencoder.latent_channels
        if (config.vocabulary, config.latent_channels) != (tokenizer.config.vocabulary, latent):
            raise ConfigError(
                f"{name}: the transformer has {config.vocabulary} tokens of {config.latent_channels} channels, "
                f"the tokenizer {tokenizer.config.vocabulary} of {latent}; they were not trained together."
            )
        if text_encoder is not None and text_encoder.dim != config.context_dim:
            raise ConfigError(
                f"{name}: the transformer takes text of {config.context_dim} channels, the text encoder gives "
                f"{text_encoder.dim}; they were not trained together."
            )
        self.name = name
        self.transformer = transformer.eval().requires_grad_(False)
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.text_encoder = text_encoder
        self.scales = tuple(Scale(k, h, w) for k, (h, w) in enumerate(config.grids))
        self.channels = Categorical(config.vocabulary)
        self.class_names = tuple(classes)
        self.class_count = len(classes) or None
        self.options = options or HARTOptions()
        self.edit: Edit | None = None

    @property
    def partial(self) -> bool:  # type: ignore[override]
        """True where the last scale takes several calls."""
        return self.options.maskgit_iterations > 1

    @cached_property
    def tokenizer_hash(self) -> str:
        """Of the tokenizer's weights."""
        return tokenizer_hash(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.transformer.head.weight.device

    def with_options(self, *, edit: Edit | None = None, graphs: bool = False, **changes: Any) -> HART:
        """The same model, sharing its weights, with other options.

        Args:
            edit: what is kept of a given picture (`Edit`, or `HybridEdit` to keep it exactly); None keeps nothing.
            graphs: capture whole runs as CUDA graphs, see `hguide.backends.var.VAR.with_options`.
            **changes: fields of `HARTOptions`; those that are not given, or None, stay.

        Raises:
            ConfigError: graphs of a model that is not on a CUDA device.
        """
        other = copy.copy(self)
        other.captured = captured_runs(self.name, self.device, graphs, self.captured)
        other.options = replace(self.options, **{name: value for name, value in changes.items() if value is not None})
        other.edit = None if edit is None else edit.to(self.device)
        return other

    def conditions(self, condition: Any, samples: int) -> list[Any]:
        """Prompts, text embeddings and None (the null condition), checked; a class number becomes its prompt.

        Raises:
            ConfigError: a prompt without a text encoder, an unknown class, or an embedding of another size.
        """
        found = class_prompts(self.name, super().conditions(condition, samples), self.class_names)
        # Prompts are encoded batch by batch, in `begin`; whether that is possible is known now.
        self._texts([each for each in found if not (isinstance(each, str) and self.text_encoder is not None)])
        return found

    def _texts(self, conditions: Sequence[Any]) -> list[TextEmbedding | None]:
        return checked_texts(self.name, conditions, self.text_encoder, self.transformer.config)

    def prepare(self, condition: Sequence[Any], negative: Any = None) -> Prepared:
        """The texts of the samples and of their null condition: one for all, or one for each."""
        texts = self._texts(self.conditions(list(condition), len(condition)))
        several = isinstance(negative, list | tuple)
        null = self._texts(self.conditions(negative, len(texts) if several else 1))
        return Prepared(len(texts), (*text_rows(self.transformer, texts), *text_rows(self.transformer, null)))

    def begin(
        self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None
    ) -> HARTState:
        """A new run: the text of all rows and an empty cache of the final size."""
        return self.begin_prepared(self.prepare(condition, negative), streams, noise)

    def begin_prepared(self, prepared: Prepared, streams: Mapping[Stream, int], noise: Noise) -> HARTState:
        """See `begin`."""
        config, weight, b = self.transformer.config, self.transformer.head.weight, prepared.samples
        live = sorted(streams, key=lambda stream: -streams[stream])
        texts = condition_rows(live, prepared.tensors[:3], prepared.tensors[3:])
        conditioning = conditioning_of(self.transformer, *texts)
        cache = KeyValueCache(
            config.depth,
            conditioning.rows,
            config.heads,
            config.length,
            config.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )
        shape = (b, self.tokenizer.config.autoencoder.latent_channels, *self.scales[-1].grid)
        latent = torch.zeros(shape, device=weight.device)
        return HARTState(b, live, dict(streams), conditioning, cache, noise, latent)

    def next_step(self, state: HARTState) -> Step | None:
        """One step per scale; the last scale's in `maskgit_iterations` calls."""
        if state.index == self.count:
            return None
        scale = self.scales[state.index]
        step = Step(state.index, self.count, state.call, scale)
        left = self._still_masked(state.index)
        if len(left) == 1:
            return step
        if state.order is None:
            state.order = state.noise.order(step, "order", scale.tokens).to(self.device)
        return replace(step, positions=positions_of(state.order, left, state.call))

    def _still_masked(self, index: int) -> tuple[int, ...]:
        last = index == self.count - 1
        return still_masked(self.scales[index].tokens, self.options.maskgit_iterations if last else 1)

    def predict(
        self, state: HARTState, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """All live streams in one forward; the head only for those asked for."""
        hidden = self._hidden(state, step)
        b = state.samples
        places = [state.streams.index(stream) for stream in streams]
        if step.index == self.count - 1 and self.options.residual:
            parts = hidden.split(b)
            state.hidden = {stream: parts[place] for stream, place in zip(streams, places, strict=True)}
        logits = self.transformer.forward_head(hidden, state.conditioning, rows_of(places, b, hidden.device))
        maps = logits.unflatten(0, (len(streams), b))
        if step.positions is None:
            maps = maps.unflatten(2, step.grid)
        return dict(zip(streams, maps, strict=True))

    def _hidden(self, state: HARTState, step: Step) -> Float[Tensor, "rows l c"]:
        """Output of the last block at the places of a step, all live streams; the cache moves on."""
        state.drop_unused(step.index)
        transformer, conditioning = self.transformer, state.conditioning
        if step.index == 0:
            inputs = transformer.first_input(conditioning)
        else:
            if step.call == 0 or state.reduced is None:
                reduced = self.tokenizer.quantize.next_map(state.latent, step.grid)
                state.reduced = reduced.flatten(2).transpose(1, 2)
            inputs = _at(state.reduced, step.positions)
            inputs = transformer.embed(inputs, step.index).repeat(len(state.streams), 1, 1)
        rotation = transformer.rotation(conditioning, step.index, step.positions)
        hidden = transformer.forward_blocks(inputs, conditioning, rotation, state.cache)
        return hidden[:, -1:] if step.index == 0 else hidden

    def sample(
        self, state: HARTState, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]
    ) -> Draw:
        """Draw tokens, and what stands in for their codes: a soft mix, the residual added, a kept picture."""
        kept = sampler.candidates(logits, step)
        tokens = sampler.draw(kept, state.noise, step)
        quantize, options = self.tokenizer.quantize, self.options
        residual = options.residual and step.index == self.count - 1
        if not options.more_smooth and not residual and self.edit is None:
            return Draw(tokens.reshape(logits.shape[:-1]))
        codes = quantize.embedding(tokens)
        if options.more_smooth:
            ratio = progress(step, options.hold_last)
            codes = soft_codes(kept, state.noise, step, ratio, quantize.embedding.weight)
        if residual:
            codes = codes + self.residual(state, step, tokens, weights).to(codes.dtype)
        if self.edit is not None:
            codes = keep_codes(self.edit, codes, step, quantize)
        embedding = codes.transpose(1, 2)
        if step.positions is None:
            embedding = embedding.unflatten(2, step.grid)
        return Draw(tokens.reshape(logits.shape[:-1]), embedding=embedding)

    def residual(
        self,
        state: HARTState,
        step: Step,
        tokens: Int[Tensor, "b n"],
        weights: Mapping[Stream, float],
        on_step: OnDiffusionStep | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The continuous residual of the last scale's tokens.

        Each stream's condition is its own hidden state with the codes of the drawn tokens (hard ones, under
        `more_smooth` too). A weight of a stream that does not live here counts for the given one.

        Args:
            state: of the run, after `predict`.
            step: of the last scale.
            tokens: drawn.
            weights: of the guidance.
            on_step: sees each step of the sampler.
        """
        codes = self.tokenizer.quantize.embedding(tokens)
        live = [COND, *(stream for stream in state.hidden if stream != COND)]
        others = [weights.get(stream, 0.0) for stream in live[1:]]
        strengths = residual_weights([1.0 - sum(others), *others], self.options.unguided_at_one)
        conditions = [self.transformer.residual_condition(state.hidden[stream], codes) for stream in live]
        schedule = respaced(self.transformer.config.diffusion_steps)
        head = self.transformer.residual_head
        return draw_residual(head, schedule, conditions, strengths, state.noise, step, on_step)

    def advance(self, state: HARTState, step: Step, draw: Draw) -> None:
        """f_hat += phi_k(up(codes)); at the last scale f_hat += codes at the places of the step."""
        codes = draw.embedding
        if codes is None:
            codes = self.tokenizer.quantize.embedding(draw.tokens).movedim(-1, 1)
        codes = codes.to(state.latent.dtype)
        if step.positions is None:
            grids = self.transformer.config.grids
            state.latent = self.tokenizer.add_scale(state.latent, codes, step.index, grids)
        else:
            places = step.positions[:, None].expand_as(codes)
            state.latent = state.latent.flatten(2).scatter_add(2, places, codes).view_as(state.latent)
        state.call = step.call + 1
        if state.call == len(self._still_masked(step.index)):
            state.index, state.call, state.hidden = step.index + 1, 0, {}

    def decode(self, state: HARTState) -> Float[Tensor, "b 3 H W"]:
        """(decoder(f_hat) clamped to [-1, 1] + 1) / 2, a few images at a time to bound the memory."""
        tokenizer = self.tokenizer
        dtype = tokenizer.post_quant_conv.weight.dtype
        return decode_in_parts(tokenizer.decode_latent, state.latent, tokenizer.config.autoencoder, dtype)

    def run_bytes(self, samples: int, streams: int) -> RunBytes:
        """Cache, text, the last step's feed-forward layer or logits, the decoder."""
        config = self.transformer.config
        sizes = TransformerSizes(
            depth=config.depth,
            width=config.width,
            feed_forward=(3 if config.ffn == "llama" else 2) * config.hidden,
            cached=config.length,
            last=config.lengths[-1],
            before=config.lengths[-2],
            channels=config.vocabulary,
            predicted=config.vocabulary,
            candidates=config.vocabulary,
            modulated=(0 if config.adaln == "none" else 6 * config.depth) + config.context_tokens,
            itemsize=self.transformer.head.weight.dtype.itemsize,
            autoencoder=self.tokenizer.config.autoencoder,
            grid=self.scales[-1].grid,
        )
        return run_bytes(sizes, samples, streams, self.device)

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> list[Int[Tensor, "b _ _"]]:
        """Tokens of images in [0, 1] of the model's own size; `encode_hybrid` also gives the continuous rest.

        Raises:
            ShapeError: images of another size.
        """
        return self.encode_hybrid(images).tokens

    def encode_hybrid(self, images: Float[Tensor, "b 3 H W"]) -> HybridTokens:
        """Tokens of images in [0, 1] and what the last scale's tokens stand for.

        Raises:
            ShapeError: images of another size.
        """
        stride = self.tokenizer.config.autoencoder.stride
        size = tuple(side * stride for side in self.scales[-1].grid)
        if tuple(images.shape[1:]) != (3, *size):
            raise ShapeError(f"{self.name}: images are (b, 3, {size[0]}, {size[1]}), got {tuple(images.shape)}.")
        weight = self.tokenizer.post_quant_conv.weight
        pixels = images.to(weight.device, weight.dtype) * 2.0 - 1.0
        return self.tokenizer.encode_hybrid(pixels, [scale.grid for scale in self.scales])


def _at(rows: Float[Tensor, "b l c"], positions: Int[Tensor, "b n"] | None) -> Float[Tensor, "b n c"]:
    if positions is None:
        return rows
    return rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[-1]))
