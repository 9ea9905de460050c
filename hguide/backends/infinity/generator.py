"""Infinity as a `ScaleGenerator` (arXiv 2412.04431)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.editing import Edit
from hguide.backends.infinity.bits import codes_of, enlarge, gather_patches, next_map, spread_patches
from hguide.backends.infinity.conditions import named_classes, rows_of_text
from hguide.backends.infinity.forward import forward_streams
from hguide.backends.infinity.layer_cfg import check_layer, mix_after
from hguide.backends.infinity.scale_schedule import ScaleSchedule
from hguide.backends.infinity.state import InfinityState
from hguide.backends.infinity.text_pooling import PaddedText, pad
from hguide.backends.infinity.tokenizer import InfinityTokenizer
from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.backends.perturbation import check_options
from hguide.backends.rows import condition_rows, rows_of
from hguide.backends.run_bytes import TransformerSizes, decode_in_parts, run_bytes
from hguide.backends.text import TextEncoder, text_conditions
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.errors import ConfigError, ShapeError
from hguide.generator import Binary, Draw, Prepared, ScaleGenerator, Serves
from hguide.graphs import captured_runs
from hguide.grids import Grid, Scale, Step
from hguide.memory import RunBytes
from hguide.noise import Noise
from hguide.sampling import Sampler
from hguide.streams import COND, Stream

__all__ = ["GuidanceGrid", "Infinity", "InfinityState"]

PERTURBATIONS = frozenset({"pag", "slg", "seg"})
"""Not "soft": values weighted by the probability of their token, which independent bits don't have."""

GuidanceGrid = Literal["transformer", "tokenizer"]
"""The grid on which guidance sees the bits of a model with patches."""

# Tokens. Texts of a captured run are as long as one of a few, so that a prompt finds a run of its length captured.
_TEXT_MULTIPLE = 64


class Infinity(ScaleGenerator):
    """An Infinity transformer with its tokenizer.

    Logits are the bit differences l1 - l0. A condition is a prompt, a `TextEmbedding`, or a class number where the
    model has classes. The null stream is the learnt unconditional text, as long as the prompt; a negative prompt, one
    for all samples or one for each, takes its place. Corrupted prefixes are served without `cfg_layer` alone, since
    a layer that mixes streams leaves none of them a past of its own.

    Args:
        transformer: predicts the bits of each scale; in evaluation mode.
        tokenizer: turns bits into images; in evaluation mode.
        schedule: the grids of the scales.
        text_encoder: of prompts; without one, conditions are `TextEmbedding`s.
        name: for messages and provenance.
        classes: prompts that a class number stands for; none for a model of free text.
        cfg_layer: -m mixes the hidden states of the streams after block depth - m by the guidance's linear weights, in
            place of the logits (the official `cfg_insertion_layer`): then all streams share one map of logits, so that
            `cfg(w=3)` acts there and nowhere else, and SSG after it as always. A lender gets no weights and mixes
            nothing.
        guidance_grid: for a model with patches: "transformer" shows guidance maps of its tokens with 4 d bits each,
            "tokenizer" maps of twice the side with d bits. It changes what SSG does.
        cross_attention_dtype: that attention to the text rounds to. The official program rounds to bfloat16 there even
            where all else is float32; by default nothing is rounded.

    Raises:
        ConfigError: parts that were not trained together, or options that cannot work; all at once.
    """

    def __init__(
        self,
        transformer: InfinityTransformer,
        tokenizer: InfinityTokenizer,
        schedule: ScaleSchedule,
        *,
        text_encoder: TextEncoder | None = None,
        name: str = "infinity",
        classes: Sequence[str] = (),
        cfg_layer: int | None = None,
        guidance_grid: GuidanceGrid = "transformer",
        cross_attention_dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.transformer = transformer.eval().requires_grad_(False)
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.text_encoder = text_encoder
        self.class_names = tuple(classes)
        self.class_count = len(self.class_names) or None
        self.schedule = schedule
        self.cfg_layer = cfg_layer
        self.guidance_grid: GuidanceGrid = guidance_grid
        self.cross_attention_dtype = cross_attention_dtype
        self.edit: Edit | None = None
        self._check()
        self._set_maps()

    def _check(self) -> None:
        config, problems = self.transformer.config, []
        if config.bits != self.tokenizer.config.bits:
            problems.append(
                f"the transformer has {config.bits} bits per tokenizer position, the tokenizer "
                f"{self.tokenizer.config.bits}; they were not trained together"
            )
        if len(self.schedule.grids) > config.levels:
            problems.append(f"the schedule has {len(self.schedule.grids)} scales, the model {config.levels} levels")
        if self.text_encoder is not None and self.text_encoder.dim != config.text_channels:
            problems.append(
                f"the text encoder has {self.text_encoder.dim} channels, the transformer takes {config.text_channels}"
            )
        if self.guidance_grid not in ("transformer", "tokenizer"):
            problems.append(f"guidance_grid is 'transformer' or 'tokenizer', got {self.guidance_grid!r}")
        if problems:
            raise ConfigError(f"{self.name}: {'; '.join(problems)}.")
        check_layer(self.cfg_layer, config.depth)

    def _set_maps(self) -> None:
        """Scales and channels as guidance sees them."""
        config, spread = self.transformer.config, self._spreads
        grids = self.tokenizer_grids if spread else self.schedule.grids
        self.scales = tuple(Scale(k, h, w) for k, (h, w) in enumerate(grids))
        self.channels = Binary(config.bits if spread else config.token_bits)

    @property
    def serves(self) -> Serves:  # type: ignore[override]
        """Null and perturbed streams; corrupted prefixes unless a layer mixes the streams. Layers are blocks."""
        depth = self.transformer.config.depth
        return Serves(null=True, corruption=self.cfg_layer is None, perturbations=PERTURBATIONS, layers=depth)

    @property
    def _spreads(self) -> bool:
        return self.transformer.config.patchify and self.guidance_grid == "tokenizer"

    @property
    def tokenizer_grids(self) -> tuple[Grid, ...]:
        """(height, width) of each scale in tokenizer positions: twice the transformer's with patches."""
        factor = 2 if self.transformer.config.patchify else 1
        return tuple((factor * h, factor * w) for h, w in self.schedule.grids)

    @property
    def image_size(self) -> Grid:
        """Height and width of the images in pixels."""
        height, width = self.tokenizer_grids[-1]
        return height * self.tokenizer.config.stride, width * self.tokenizer.config.stride

    @cached_property
    def tokenizer_hash(self) -> str:
        """Of the tokenizer's weights."""
        return tokenizer_hash(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the transformer lies."""
        return self.transformer.head.weight.device

    def with_options(self, **options: Any) -> Infinity:
        """The same model, sharing its weights, with other options.

        Args:
            **options: `schedule`, `text_encoder`, `cfg_layer`, `guidance_grid`, `cross_attention_dtype` or `name`, see
                the class; `edit`, a `hguide.backends.var.Edit` whose kept bits stand in for drawn ones; `graphs`, which
                captures whole runs as CUDA graphs, see `hguide.backends.var.VAR.with_options`. What is not named stays.

        Raises:
            ConfigError: an unknown option, or one that cannot work.
        """
        graphs = options.pop("graphs", False)
        known = ("schedule", "text_encoder", "cfg_layer", "guidance_grid", "cross_attention_dtype", "edit", "name")
        unknown = [option for option in options if option not in known]
        if unknown:
            raise ConfigError(f"{self.name}: no option {unknown[0]!r}; there are {', '.join(known)}, graphs.")
        other = copy.copy(self)
        other.captured = captured_runs(self.name, self.device, graphs, self.captured)
        for option, value in options.items():
            setattr(other, option, value.to(self.device) if isinstance(value, Edit) else value)
        other._check()
        other._set_maps()
        return other

    def conditions(self, condition: Any, samples: int) -> list[Any]:
        """Prompts and text embeddings, checked; a class number becomes its prompt.

        Raises:
            ConfigError: a prompt without a text encoder, an embedding of another width, or no condition at all.
        """
        found = named_classes(self.name, super().conditions(condition, samples), self.class_names)
        others = [each for each in found if not (isinstance(each, str) and self.text_encoder is not None)]
        # Prompts are encoded batch by batch, in `begin`; whether that is possible is known now.
        text_conditions(self.name, others, self.text_encoder, self.transformer.config.text_channels)
        return found

    def prepare(self, condition: Sequence[Any], negative: Any = None) -> Prepared:
        """The texts of the samples and of their null condition, padded to one of few lengths.

        Raises:
            ConfigError: a text that the model cannot take.
        """
        return self._padded(condition, negative, _TEXT_MULTIPLE)

    def _padded(self, condition: Sequence[Any], negative: Any, multiple: int = 1) -> Prepared:
        b = len(condition)
        given = self._texts(condition)
        null = [self.transformer.null_text(text.shape[0]) for text in given]
        if negative is not None:
            null = self._texts(self.conditions(negative, b))
        both = pad([*given, *null], multiple)
        return Prepared(b, (both.features[:b], both.mask[:b], both.features[b:], both.mask[b:]))

    def begin(
        self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None
    ) -> InfinityState:
        """A new run: what depends on the texts, and an empty cache of the final size.

        Raises:
            ConfigError: a text that the model cannot take.
            StreamError: a perturbed stream with options that its kind does not have.
        """
        return self.begin_prepared(self._padded(condition, negative), streams, noise)

    def begin_prepared(self, prepared: Prepared, streams: Mapping[Stream, int], noise: Noise) -> InfinityState:
        """See `begin`."""
        config, b = self.transformer.config, prepared.samples
        # Streams of one prefix lie together, so that it is rewritten in one pass.
        live = sorted(streams, key=lambda s: (-streams[s], s.prefix != "sampled", str(s.prefix)))
        for stream in live:
            if stream.perturb is not None:
                check_options(stream.perturb)
        texts = PaddedText(*condition_rows(live, prepared.tensors[:2], prepared.tensors[2:]))
        cache = KeyValueCache(
            config.depth,
            b * len(live),
            config.heads,
            sum(self.schedule.lengths),
            config.head_dim,
            dtype=self.transformer.compute_dtype,
            device=self.device,
        )
        modulation = self.transformer.modulation(texts, self.cross_attention_dtype)
        latent = torch.zeros((b, config.bits, *self.tokenizer_grids[-1]), device=self.device)
        rope = self.transformer.rope(self.schedule)
        return InfinityState(b, live, dict(streams), modulation, cache, rope, noise, latent)

    def _texts(self, condition: Sequence[Any]) -> list[Float[Tensor, "_ ct"]]:
        width = self.transformer.config.text_channels
        found = text_conditions(self.name, condition, self.text_encoder, width)
        return rows_of_text(self.name, [each for each in found if each is not None], self.transformer)

    def next_step(self, state: InfinityState) -> Step | None:
        """One step per scale."""
        if state.index == self.count:
            return None
        return Step(state.index, self.count, 0, self.scales[state.index])

    def predict(
        self, state: InfinityState, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """Bit differences; all live streams in one forward, the head only for those asked for.

        Where `cfg_layer` mixed the hidden states, the logits of the given stream stand for every stream, so that
        linear guidance on the logits changes nothing more.
        """
        state.drop_unused(step.index)
        depth, b = self.transformer.config.depth, state.samples
        mix = mix_after(self.cfg_layer, depth, state.streams, b, weights)
        if 0 < step.index == len(state.maps) + 1:
            state.maps.append(self._input(state, step.index))
        hidden = forward_streams(self.transformer, self.schedule, state, step, mix)
        places = [state.streams.index(stream) for stream in ((COND,) if mix is not None else streams)]
        logits = self.transformer.forward_head(hidden, state.modulation, rows_of(places, b, hidden.device))
        differences = (logits[..., 1::2] - logits[..., ::2]).float()
        maps = self._shown(differences.unflatten(1, self.schedule.grids[step.index])).unflatten(0, (len(places), b))
        if mix is None:
            return dict(zip(streams, maps, strict=True))
        return {stream: maps[0].clone() for stream in streams}

    def _input(self, state: InfinityState, k: int) -> Float[Tensor, "b l c"]:
        """What the input of scale k is made of: the sum of the codes so far on its grid."""
        maps = next_map(state.latent, self.tokenizer_grids[k]).permute(0, 2, 3, 1)
        return (gather_patches(maps) if self.transformer.config.patchify else maps).flatten(1, 2)

    def _shown(self, maps: Float[Tensor, "b h w c"]) -> Float[Tensor, "b gh gw gc"]:
        """Maps of the transformer as guidance sees them."""
        return spread_patches(maps) if self._spreads else maps

    def _positions(self, tokens: Int[Tensor, "b gh gw gc"]) -> Int[Tensor, "b h w d"]:
        """Bits as guidance saw them, on the tokenizer's grid."""
        return spread_patches(tokens) if self.transformer.config.patchify and not self._spreads else tokens

    def sample(
        self, state: InfinityState, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]
    ) -> Draw:
        """Draw every bit on its own, or take it from the picture of an edit."""
        bits = sampler.bits(logits, state.noise, step)
        return Draw(bits if self.edit is None else self.edit.mix_bits(bits, step))

    def advance(self, state: InfinityState, step: Step, draw: Draw) -> None:
        """F += enlarge((2 bit - 1) / sqrt(d))."""
        codes = codes_of(self._positions(draw.tokens)) if draw.embedding is None else draw.embedding
        state.latent = state.latent + enlarge(codes, self.tokenizer_grids[-1])
        state.index = step.index + 1

    def decode(self, state: InfinityState) -> Float[Tensor, "b 3 H W"]:
        """(decoder(F) clamped to [-1, 1] + 1) / 2, a few images at a time to bound the memory."""
        tokenizer = self.tokenizer
        dtype = tokenizer.decoder.conv_in.weight.dtype
        return decode_in_parts(tokenizer.decode_latent, state.latent, tokenizer.config.autoencoder, dtype)

    def run_bytes(self, samples: int, streams: int) -> RunBytes:
        """Cache, modulation and the longest text, the last step's feed-forward layer or logits, the decoder."""
        config, lengths = self.transformer.config, self.schedule.lengths
        sizes = TransformerSizes(
            depth=config.depth,
            width=config.width,
            feed_forward=2 * config.mlp_width,
            cached=sum(lengths),
            last=lengths[-1],
            before=lengths[-2] if len(lengths) > 1 else 0,
            channels=config.token_bits,
            predicted=2 * config.token_bits,
            candidates=config.token_bits,
            modulated=6 * config.depth + 2 * config.depth * config.text_length,
            itemsize=self.transformer.compute_dtype.itemsize,
            autoencoder=self.tokenizer.config.autoencoder,
            grid=self.tokenizer_grids[-1],
        )
        return run_bytes(sizes, samples, streams, self.device)

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> list[Int[Tensor, "b _ _ _"]]:
        """Bits of images in [0, 1] of the schedule's own size, on the grid that guidance sees.

        Raises:
            ShapeError: images of another size.
        """
        size = self.image_size
        if tuple(images.shape[1:]) != (3, *size):
            raise ShapeError(f"{self.name}: images are (b, 3, {size[0]}, {size[1]}), got {tuple(images.shape)}.")
        weight = self.tokenizer.decoder.conv_in.weight
        bits = self.tokenizer.encode(images.to(weight.device, weight.dtype) * 2.0 - 1.0, self.tokenizer_grids)
        gathers = self.transformer.config.patchify and not self._spreads
        return [gather_patches(each) if gathers else each for each in bits]
