"""Switti as a `ScaleGenerator` (arXiv 2412.01819).

Parity with the official program is unproven: no recording of it exists. The network follows notes on the
official program; what these left open is marked *reconstructed* where it stands.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.editing import Edit
from hguide.backends.rows import condition_rows, rows_of
from hguide.backends.run_bytes import TransformerSizes, decode_in_parts, run_bytes
from hguide.backends.smoothing import soft_codes
from hguide.backends.switti.state import SwittiState
from hguide.backends.switti.transformer import SwittiTransformer
from hguide.backends.text import TextEmbedding, TextEncoder, text_conditions
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.tokenizer import VARTokenizer
from hguide.errors import ConfigError, ShapeError
from hguide.generator import Categorical, Draw, Prepared, ScaleGenerator, Serves
from hguide.graphs import captured_runs
from hguide.grids import Scale, Step
from hguide.memory import RunBytes
from hguide.noise import Noise
from hguide.sampling import Sampler
from hguide.streams import Stream

__all__ = ["Switti", "SwittiOptions", "SwittiState"]


@dataclass(frozen=True)
class SwittiOptions:
    """How Switti makes tokens into a latent map.

    Args:
        more_smooth: put a soft mix of codes in place of the drawn code (for pictures, never for measurements).
        smooth_start: first scale at which it does.
        smooth_stop: first scale at which it no longer does; the official program stops where guidance is off. None for
            no such scale.
    """

    more_smooth: bool = False
    smooth_start: int = 0
    smooth_stop: int | None = None


class Switti(ScaleGenerator):
    """A Switti transformer with VAR's tokenizer.

    Parity with the official program is unproven. A condition is a prompt or a `TextEmbedding` as `SwittiTextEncoder`
    makes it: a row per token, then one row with the pooled text. The null stream is the empty prompt, or a negative
    one.

    Args:
        transformer: predicts the logits of each scale; in evaluation mode.
        tokenizer: turns tokens into images; in evaluation mode.
        text_encoder: of prompts; without it conditions are embeddings.
        name: for messages and provenance.
        null_text: the empty prompt's embedding, which the null stream needs where there is no text encoder.
        options: of the sampling loop.

    Raises:
        ConfigError: parts that were not trained together.
    """

    def __init__(
        self,
        transformer: SwittiTransformer,
        tokenizer: VARTokenizer,
        text_encoder: TextEncoder | None = None,
        *,
        name: str = "switti",
        null_text: TextEmbedding | None = None,
        options: SwittiOptions | None = None,
    ) -> None:
        config = transformer.config
        latent = tokenizer.config.autoencoder.latent_channels
        if (config.vocabulary, config.latent_channels) != (tokenizer.config.vocabulary, latent):
            raise ConfigError(
                f"{name}: the transformer has {config.vocabulary} tokens of {config.latent_channels} channels, "
                f"the tokenizer {tokenizer.config.vocabulary} of {latent}; they were not trained together."
            )
        if text_encoder is not None and text_encoder.dim != config.text_channels:
            raise ConfigError(
                f"{name}: the transformer takes text of {config.text_channels} channels, the text encoder gives "
                f"{text_encoder.dim}; they were not trained together."
            )
        self.name = name
        self.transformer = transformer.eval().requires_grad_(False)
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.text_encoder = text_encoder
        self.null_text = null_text
        self.scales = tuple(Scale(k, h, w) for k, (h, w) in enumerate(config.grids))
        self.channels = Categorical(config.vocabulary)
        self.options = options or SwittiOptions()
        self.edit: Edit | None = None

    @property
    def serves(self) -> Serves:  # type: ignore[override]
        """The null stream, unless there is nothing that could encode the empty prompt."""
        return Serves(null=self.text_encoder is not None or self.null_text is not None)

    @cached_property
    def tokenizer_hash(self) -> str:
        """Of the tokenizer's weights."""
        return tokenizer_hash(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.transformer.head.weight.device

    def with_options(self, *, edit: Edit | None = None, graphs: bool = False, **changes: Any) -> Switti:
        """The same model, sharing its weights, with other options.

        Args:
            edit: what is kept of a given picture (`hguide.backends.var.Edit`); None keeps nothing.
            graphs: capture whole runs as CUDA graphs, see `hguide.backends.var.VAR.with_options`.
            **changes: fields of `SwittiOptions`; those that are not given stay.

        Raises:
            ConfigError: graphs of a model that is not on a CUDA device.
        """
        other = copy.copy(self)
        other.captured = captured_runs(self.name, self.device, graphs, self.captured)
        other.options = replace(self.options, **changes)
        other.edit = None if edit is None else edit.to(self.device)
        return other

    def conditions(self, condition: Any, samples: int) -> list[Any]:
        """Prompts, text embeddings and None (the null condition), checked.

        Raises:
            ConfigError: a prompt without a text encoder, an embedding of another size, or None without an empty prompt.
        """
        found = super().conditions(condition, samples)
        # Prompts are encoded batch by batch, in `begin`; whether that is possible is known now.
        self._texts([each for each in found if not (self.text_encoder is not None and isinstance(each, str | None))])
        return found

    def _texts(self, conditions: Sequence[Any]) -> list[TextEmbedding]:
        config = self.transformer.config
        empty = "" if self.null_text is None else self.null_text
        given = [empty if each is None else each for each in conditions]
        found = text_conditions(self.name, given, self.text_encoder, config.text_channels)
        texts = [each for each in found if each is not None]
        wrong = [each.mask.shape[0] for each in texts if each.mask.shape[0] != config.text_tokens + 1]
        if wrong:
            raise ConfigError(
                f"{self.name}: takes {config.text_tokens} text tokens and one row of the pooled text, "
                f"got {wrong[0]} rows."
            )
        return texts

    def prepare(self, condition: Sequence[Any], negative: Any = None) -> Prepared:
        """The texts of the samples, and of their null condition where there is one."""
        return self._prepared(condition, negative, self.serves.null)

    def _prepared(self, condition: Sequence[Any], negative: Any, with_null: bool) -> Prepared:
        texts = self._texts(self.conditions(list(condition), len(condition)))
        given = self._stacked(texts)
        null = self._stacked(self._texts(self.conditions(negative, len(texts)))) if with_null else given
        return Prepared(len(texts), (*given, *null))

    def _stacked(self, texts: Sequence[TextEmbedding]) -> tuple[Tensor, Tensor]:
        weight = self.transformer.head.weight
        embeddings = torch.stack([text.embedding.to(weight) for text in texts])
        return embeddings, torch.stack([text.mask.to(weight.device) for text in texts])

    def begin(
        self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None
    ) -> SwittiState:
        """A new run: the text of all rows, and an empty cache of the final size where scales see those before them."""
        with_null = any(stream.condition == "null" for stream in streams)
        return self.begin_prepared(self._prepared(condition, negative, with_null), streams, noise)

    def begin_prepared(self, prepared: Prepared, streams: Mapping[Stream, int], noise: Noise) -> SwittiState:
        """See `begin`."""
        config, weight, b = self.transformer.config, self.transformer.head.weight, prepared.samples
        live = sorted(streams, key=lambda stream: -streams[stream])
        text, mask = condition_rows(live, prepared.tensors[:2], prepared.tensors[2:])
        cache = None
        if config.autoregressive:
            sizes = (config.depth, b * len(live), config.heads, config.length, config.head_dim)
            cache = KeyValueCache(*sizes, dtype=weight.dtype, device=weight.device)
        latent = torch.zeros((b, config.latent_channels, *self.scales[-1].grid), device=weight.device)
        pooled = text[:, -1, : config.pooled_channels]
        conditioning = self.transformer.conditioning(text[:, :-1], pooled, mask[:, :-1])
        return SwittiState(b, live, dict(streams), conditioning, cache, noise, latent)

    def next_step(self, state: SwittiState) -> Step | None:
        """One step per scale."""
        if state.index == self.count:
            return None
        return Step(state.index, self.count, 0, self.scales[state.index])

    def predict(
        self, state: SwittiState, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """All live streams in one forward; the head only for those asked for."""
        state.drop_unused(step.index)
        transformer, b, k = self.transformer, state.samples, step.index
        if k == 0:
            inputs = state.conditioning.start
        else:
            reduced = self.tokenizer.quantize.next_map(state.latent, step.grid)
            inputs = transformer.embed(reduced, k).repeat(len(state.streams), 1, 1)
        hidden = transformer.forward_blocks(inputs, state.conditioning, k, state.cache)
        places = [state.streams.index(stream) for stream in streams]
        logits = transformer.forward_head(hidden, state.conditioning, rows_of(places, b, hidden.device))
        maps = logits.unflatten(0, (len(streams), b)).unflatten(2, step.grid)
        return dict(zip(streams, maps, strict=True))

    def sample(
        self, state: SwittiState, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]
    ) -> Draw:
        """Draw tokens; with `more_smooth` or an edit, the codes that stand in for theirs.

        Where the official program smooths, it mixes all codes, not only those that the filters keep, and draws no
        tokens; here they are drawn, for those who look.
        """
        options, quantize = self.options, self.tokenizer.quantize
        stop = self.count if options.smooth_stop is None else options.smooth_stop
        smooth = options.more_smooth and options.smooth_start <= step.index < stop
        if not smooth and self.edit is None:
            return Draw(sampler.categorical(logits, state.noise, step))
        kept = sampler.candidates(logits, step)
        tokens = sampler.draw(kept, state.noise, step).reshape(logits.shape[:-1])
        if smooth:
            every = replace(sampler, top_k=0, top_p=0.0).candidates(logits, step)
            codes = soft_codes(every, state.noise, step, quantize.embedding.weight)
        else:
            codes = quantize.lookup(tokens)
        return Draw(tokens, embedding=codes if self.edit is None else self.edit.mix(codes, step, quantize))

    def advance(self, state: SwittiState, step: Step, draw: Draw) -> None:
        """f_hat += phi_k(up(codes))."""
        quantize = self.tokenizer.quantize
        codes = quantize.lookup(draw.tokens) if draw.embedding is None else draw.embedding
        state.latent = state.latent + quantize.contribution(codes, step.index, self.count, self.scales[-1].grid)
        state.index = step.index + 1

    def decode(self, state: SwittiState) -> Float[Tensor, "b 3 H W"]:
        """(decoder(f_hat) clamped to [-1, 1] + 1) / 2, a few images at a time to bound the memory."""
        tokenizer = self.tokenizer
        dtype = tokenizer.post_quant_conv.weight.dtype
        return decode_in_parts(tokenizer.decode_latent, state.latent, tokenizer.config.autoencoder, dtype)

    def run_bytes(self, samples: int, streams: int) -> RunBytes:
        """Keys and values, modulation, the last step's feed-forward layer or logits, the decoder."""
        config = self.transformer.config
        sizes = TransformerSizes(
            depth=config.depth,
            width=config.width,
            feed_forward=3 * config.hidden,
            cached=config.text_tokens + (config.length if config.autoregressive else 0),
            last=config.lengths[-1],
            before=config.lengths[-2] if len(config.lengths) > 1 else 0,
            channels=config.vocabulary,
            predicted=config.vocabulary,
            candidates=config.vocabulary,
            modulated=6 * config.depth + 3,
            itemsize=self.transformer.head.weight.dtype.itemsize,
            autoencoder=self.tokenizer.config.autoencoder,
            grid=self.scales[-1].grid,
        )
        return run_bytes(sizes, samples, streams, self.device)

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> list[Int[Tensor, "b _ _"]]:
        """Tokens of images in [0, 1] of the model's own size.

        Raises:
            ShapeError: images of another size.
        """
        size = self.scales[-1].height * self.tokenizer.config.autoencoder.stride
        if tuple(images.shape[1:]) != (3, size, size):
            raise ShapeError(f"{self.name}: images are (b, 3, {size}, {size}), got {tuple(images.shape)}.")
        weight = self.tokenizer.post_quant_conv.weight
        pixels = images.to(weight.device, weight.dtype) * 2.0 - 1.0
        return self.tokenizer.encode(pixels, [scale.grid for scale in self.scales])
