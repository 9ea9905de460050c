"""VAR as a `ScaleGenerator` (arXiv 2404.02905)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.confidence import needs_confidence, token_probability, with_confidence
from hguide.backends.editing import Edit
from hguide.backends.perturbation import KINDS, check_options
from hguide.backends.rows import condition_rows, rows_of
from hguide.backends.run_bytes import TransformerSizes, decode_in_parts, run_bytes
from hguide.backends.smoothing import soft_codes
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.compiled import with_compiled_blocks
from hguide.backends.var.forward import forward_streams
from hguide.backends.var.state import VARState
from hguide.backends.var.tokenizer import VARTokenizer
from hguide.backends.var.transformer import VARTransformer
from hguide.errors import ConfigError, ShapeError, near_matches
from hguide.generator import Categorical, Draw, Prepared, ScaleGenerator, Serves
from hguide.graphs import captured_runs
from hguide.grids import Scale, Step
from hguide.memory import RunBytes
from hguide.noise import Noise
from hguide.sampling import Candidates, Sampler
from hguide.streams import Stream
from hguide.transfer import on_device

__all__ = ["VAR", "VARState"]


class VAR(ScaleGenerator):
    """A VAR transformer with its tokenizer.

    Args:
        transformer: predicts the logits of each scale; in evaluation mode.
        tokenizer: turns tokens into images; in evaluation mode.
        name: for messages and provenance.
        classes: names of the classes; numbers where the model has none.
        more_smooth: put a soft mix of codes in place of the drawn code at every step (the official option; for
            pictures, never for measurements).
    """

    def __init__(
        self,
        transformer: VARTransformer,
        tokenizer: VARTokenizer,
        *,
        name: str = "var",
        classes: Sequence[str] = (),
        more_smooth: bool = False,
    ) -> None:
        config = transformer.config
        latent = tokenizer.config.autoencoder.latent_channels
        if (config.vocabulary, config.latent_channels) != (tokenizer.config.vocabulary, latent):
            raise ConfigError(
                f"{name}: the transformer has {config.vocabulary} tokens of {config.latent_channels} channels, "
                f"the tokenizer {tokenizer.config.vocabulary} of {latent}; they were not trained together."
            )
        self.name = name
        self.transformer = transformer.eval().requires_grad_(False)
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.scales = tuple(Scale(k, h, w) for k, (h, w) in enumerate(config.grids))
        self.channels = Categorical(config.vocabulary)
        self.class_count = config.classes
        self.class_names = tuple(classes)
        self.more_smooth = more_smooth
        self.edit: Edit | None = None
        self.decode_latent = tokenizer.decode_latent

    @property
    def serves(self) -> Serves:  # type: ignore[override]
        """Null, corrupted and perturbed streams; layers are blocks."""
        depth = self.transformer.config.depth
        return Serves(null=True, corruption=True, perturbations=frozenset(KINDS), layers=depth)

    @cached_property
    def tokenizer_hash(self) -> str:
        """Of the tokenizer's weights."""
        return tokenizer_hash(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.transformer.head.weight.device

    def with_options(
        self,
        *,
        more_smooth: bool | None = None,
        edit: Edit | None = None,
        compile: bool = False,
        graphs: bool = False,
    ) -> VAR:
        """The same model, sharing its weights, with other options.

        `compile` and `graphs` change the time of a run, `compile` also the last bits of its logits. What they have made
        is kept by the model that is returned: make it once and use it for all batches.

        Args:
            more_smooth: see the class; None keeps it.
            edit: what is kept of a given picture (`hguide.backends.var.keep_box`); None keeps nothing.
            compile: run the blocks and the decoder through `torch.compile`; False leaves them.
            graphs: capture whole runs, guidance, draws and decoder included, as CUDA graphs: one for each number of
                images, guidance and sampler, when it is first asked for, replayed by later batches; False leaves them.
                Runs with `on_step`, lenders, recorded tokens, corrupted or perturbed streams go on without. The graphs
                keep their memory between runs, so `batch_size` is a number.

        Raises:
            ConfigError: graphs of a model that is not on a CUDA device.
        """
        other = copy.copy(self)
        other.captured = captured_runs(self.name, self.device, graphs, self.captured)
        other.more_smooth = self.more_smooth if more_smooth is None else more_smooth
        other.edit = None if edit is None else edit.to(self.device)
        if compile:
            other.transformer = with_compiled_blocks(self.transformer)
            other.decode_latent = torch.compile(other.decode_latent)
        return other

    def conditions(self, condition: Any, samples: int) -> list[int]:
        """Class indices of classes given by index or name; None is the null class.

        Raises:
            ConfigError: an unknown class.
        """
        return [self._label(label) for label in super().conditions(condition, samples)]

    def _label(self, label: Any) -> int:
        classes = self.transformer.config.classes
        if label is None:
            return classes
        if isinstance(label, str):
            if label not in self.class_names:
                raise ConfigError(f"{self.name}: unknown class {label!r}: {near_matches(label, self.class_names)}")
            return self.class_names.index(label)
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
            raise ConfigError(f"{self.name}: a class is an integer from 0 to {classes - 1}, got {label!r}.")
        return label

    def prepare(self, condition: Sequence[Any], negative: Any = None) -> Prepared:
        """The labels of the samples, and those of their null condition."""
        null = [self._label(negative)] * len(condition)
        return Prepared(len(condition), (on_device(condition, self.device), on_device(null, self.device)))

    def begin(
        self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None
    ) -> VARState:
        """A new run: the modulation of all rows and an empty cache of the final size.

        Raises:
            StreamError: a perturbed stream with options that its kind does not have.
        """
        return self.begin_prepared(self.prepare(condition, negative), streams, noise)

    def begin_prepared(self, prepared: Prepared, streams: Mapping[Stream, int], noise: Noise) -> VARState:
        """See `begin`."""
        # Streams of one prefix lie together, so that it is rewritten in one pass.
        live = sorted(streams, key=lambda s: (-streams[s], s.prefix != "sampled", str(s.prefix)))
        for stream in live:
            if stream.perturb is not None:
                check_options(stream.perturb)
        samples = prepared.samples
        (labels,) = condition_rows(live, prepared.tensors[:1], prepared.tensors[1:])
        modulation, cache = self.transformer.modulation(labels), self._cache(len(labels))
        return VARState(samples, live, dict(streams), modulation, cache, noise, self._latent(samples))

    def _cache(self, rows: int) -> KeyValueCache:
        config, weight = self.transformer.config, self.transformer.head.weight
        sizes = (config.depth, rows, config.heads, config.length, config.head_dim)
        return KeyValueCache(*sizes, dtype=weight.dtype, device=weight.device)

    def _latent(self, samples: int) -> Float[Tensor, "b c H W"]:
        channels = self.tokenizer.config.autoencoder.latent_channels
        return torch.zeros(samples, channels, *self.scales[-1].grid, device=self.device)

    def next_step(self, state: VARState) -> Step | None:
        """One step per scale."""
        if state.index == self.count:
            return None
        return Step(state.index, self.count, 0, self.scales[state.index])

    def predict(
        self, state: VARState, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """All live streams in one forward; the head only for those asked for."""
        b = state.samples
        state.drop_unused(step.index)
        places = [state.streams.index(stream) for stream in streams]
        hidden = self._hidden(state, step)
        logits = self.transformer.forward_head(hidden, state.modulation, rows_of(places, b, hidden.device))
        maps = logits.unflatten(0, (len(streams), b)).unflatten(2, step.grid)
        return dict(zip(streams, maps, strict=True))

    def _hidden(self, state: VARState, step: Step) -> Float[Tensor, "rows l c"]:
        if 0 < step.index == len(state.maps) + 1:
            state.maps.append(self.tokenizer.quantize.next_map(state.latent, step.grid))
        return forward_streams(self.transformer, state, step)

    def sample(
        self, state: VARState, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]
    ) -> Draw:
        """Draw tokens; with `more_smooth` or an edit, the codes that stand in for theirs.

        Where a soft stream lives, the draw carries the probability of its tokens under the guided logits, before
        temperature and filters (*reconstructed*: SoftCFG's sources do not say which).
        """
        codes = None
        if not self.more_smooth and self.edit is None:
            tokens = sampler.categorical(logits, state.noise, step)
        else:
            kept = sampler.candidates(logits, step)
            tokens = sampler.draw(kept, state.noise, step).reshape(logits.shape[:-1])
            codes = self._codes(tokens, kept, state, step)
        confidence = token_probability(logits, tokens) if needs_confidence(state.streams) else None
        return Draw(tokens, embedding=codes, confidence=confidence)

    def _codes(self, tokens: Tensor, kept: Candidates, state: VARState, step: Step) -> Tensor:
        quantize = self.tokenizer.quantize
        codes = quantize.lookup(tokens)
        if self.more_smooth:
            codes = soft_codes(kept, state.noise, step, quantize.embedding.weight)
        if self.edit is not None:
            codes = self.edit.mix(codes, step, quantize)
        return codes

    def advance(self, state: VARState, step: Step, draw: Draw) -> None:
        """f_hat += phi_k(up(codes)).

        Raises:
            StreamError: a soft stream lives here, but the draw of another model carries no probability.
        """
        if needs_confidence(state.streams):
            state.confidence = with_confidence(state.confidence, draw)
        quantize = self.tokenizer.quantize
        codes = quantize.lookup(draw.tokens) if draw.embedding is None else draw.embedding
        state.latent = state.latent + quantize.contribution(codes, step.index, self.count, self.scales[-1].grid)
        state.index = step.index + 1

    def decode(self, state: VARState) -> Float[Tensor, "b 3 H W"]:
        """(decoder(f_hat) clamped to [-1, 1] + 1) / 2, a few images at a time to bound the memory."""
        tokenizer = self.tokenizer
        dtype = tokenizer.post_quant_conv.weight.dtype
        return decode_in_parts(self.decode_latent, state.latent, tokenizer.config.autoencoder, dtype)

    def run_bytes(self, samples: int, streams: int) -> RunBytes:
        """Cache, modulation, the last step's feed-forward layer or logits, the decoder."""
        config = self.transformer.config
        sizes = TransformerSizes(
            depth=config.depth,
            width=config.width,
            feed_forward=2 * config.hidden,
            cached=config.length,
            last=config.lengths[-1],
            before=config.lengths[-2] if len(config.lengths) > 1 else 0,
            channels=config.vocabulary,
            predicted=config.vocabulary,
            candidates=config.vocabulary,
            modulated=6 * config.depth + 2 + config.lengths[0],
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
        stride = self.tokenizer.config.autoencoder.stride
        size = tuple(side * stride for side in self.scales[-1].grid)
        if tuple(images.shape[1:]) != (3, *size):
            raise ShapeError(f"{self.name}: images are (b, 3, {size[0]}, {size[1]}), got {tuple(images.shape)}.")
        weight = self.tokenizer.post_quant_conv.weight
        pixels = images.to(weight.device, weight.dtype) * 2.0 - 1.0
        return self.tokenizer.encode(pixels, [scale.grid for scale in self.scales])
