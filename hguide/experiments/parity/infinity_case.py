"""A recorded run of Infinity replayed through the generator: its draws made again, its bits fed back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.infinity.bits import codes_of, gather_patches, spread_patches
from hguide.backends.infinity.generator import Infinity, InfinityState
from hguide.backends.text import TextEmbedding
from hguide.errors import ConfigError
from hguide.experiments.parity.infinity_model import InfinityModel, InfinityModels, grids_of
from hguide.experiments.parity.infinity_watch import Watched, watched
from hguide.experiments.parity.recording import Recording
from hguide.generator import Draw
from hguide.grids import Step
from hguide.guidance import CFG
from hguide.noise import RecordedNoise
from hguide.sampling import Prefix, Sampler
from hguide.streams import COND, UNCOND, Stream

__all__ = ["INPUT", "NO_PICTURES", "embeddings", "is_rounded", "replay_run"]

INPUT = "an input of the replay"
NO_PICTURES = "the tokenizer's weights are not there"
FED_BACK = "fed back: the rounding of this run decides them"
SETTINGS = ("model", "batch", "scale_schedule", "cfg_list", "tau_list", "cfg_insertion_layer", "g_seed")
NAMES = ((COND, "cond"), (UNCOND, "uncond"))


def is_rounded(settings: Mapping[str, Any]) -> bool:
    """Whether the attention to the text rounds to bfloat16 in a run, as the official program does by default."""
    return "rounded to bfloat16" in settings.get("note", "")


def embeddings(recording: Recording, name: str = "text") -> list[TextEmbedding]:
    """The texts of a run, cut out of the packed features `{name}_kv_compact`.

    Raises:
        ConfigError: they were not recorded, or their ends do not fit.
    """
    packed, ends = f"{name}_kv_compact", f"{name}_cu_seqlens_k"
    if packed not in recording or ends not in recording:
        raise ConfigError(f"{recording.case} has no {packed} to replay.")
    lengths = recording[ends].diff().tolist()
    if sum(lengths) != len(recording[packed]):
        raise ConfigError(f"{recording.case}: {ends} does not end at the {len(recording[packed])} rows of {packed}.")
    recording.leave(packed, INPUT)
    recording.leave(ends, INPUT)
    parts = recording[packed].split(lengths)
    return [TextEmbedding(part, torch.ones(len(part), dtype=torch.bool)) for part in parts]


@torch.no_grad()
def replay_run(recording: Recording, models: InfinityModels, settings: Mapping[str, Any]) -> None:
    """Replay a run and compare what was recorded of it.

    Each step draws its bits from the exponential noise of the recorded generator; the recorded bits are what goes on.

    Args:
        recording: of the run.
        models: of the folder.
        settings: of the run in config.json.

    Raises:
        ConfigError: a setting is missing.
    """
    missing = [name for name in SETTINGS if name not in settings]
    if missing:
        raise ConfigError(f"config.json states no {', '.join(missing)} for {recording.case}.")
    model = models.named(settings["model"])
    generator = _generator(model, settings)
    texts = embeddings(_text_source(recording, models, settings))
    negative = embeddings(recording, "neg") if "neg_kv_compact" in recording else None
    last = generator.count - 1
    streams = {COND: last, UNCOND: last} if any(w != 1.0 for w in settings["cfg_list"]) else {COND: last}
    with watched(generator.transformer) as seen:
        state = generator.begin(
            generator.conditions(texts, settings["batch"]), streams, _noise(generator, settings), negative
        )
    _compare_text(recording, seen, state)
    recording.compare("rope2d_cos_sin", state.rope)
    run = _Run(recording, generator, state, CFG(w=tuple(settings["cfg_list"][: generator.count])), settings)
    forced = _forced(recording, models, settings, generator)
    inputs: list[Tensor] = []
    while (step := generator.next_step(state)) is not None:
        seen = run.step(step, forced)
        inputs += [seen["word_embed.input"]] if step.index else []
    if "teacher_forced_logits" in recording:
        rows = [each.embedding for each in texts]
        found = generator.transformer(rows, torch.cat(inputs, dim=1), generator.schedule)
        recording.compare("teacher_forced_logits", found)
    _compare_image(recording, generator, state, model.has_pictures)


def _generator(model: InfinityModel, settings: Mapping[str, Any]) -> Infinity:
    (layer,) = settings["cfg_insertion_layer"]
    return model.generator(grids_of(settings["scale_schedule"]), settings.get("override", {})).with_options(
        cfg_layer=layer or None, cross_attention_dtype=torch.bfloat16 if is_rounded(settings) else None
    )


def _text_source(recording: Recording, models: InfinityModels, settings: Mapping[str, Any]) -> Recording:
    """The run itself, or the one that it repeats with other arithmetic."""
    if "text_kv_compact" in recording:
        return recording
    same = ("model", "batch", "text_lens", "g_seed")
    for name, other in models.config["cases"].items():
        path: Path = models.folder / f"{name}.safetensors"
        if path.is_file() and all(other.get(key) == settings.get(key) for key in same):
            found = Recording(name, read_state_dict(path))
            if "text_kv_compact" in found:
                return found
    raise ConfigError(f"{recording.case} has no text_kv_compact, nor has a run of the same texts.")


def _noise(generator: Infinity, settings: Mapping[str, Any]) -> RecordedNoise:
    """argmax_j p_j / e_j of two exponentials is a logistic threshold with the uniform e_0 / (e_0 + e_1)."""
    source, bits = torch.Generator().manual_seed(settings["g_seed"]), generator.channels.width
    draws = {}
    for scale in generator.scales:
        shape = (settings["batch"], scale.tokens, bits)
        pairs = torch.empty(settings["batch"] * scale.tokens * bits, 2).exponential_(1.0, generator=source).double()
        draws["uniform", scale.index, 0, "bit"] = (pairs[:, 0] / pairs.sum(1)).view(shape)
    return RecordedNoise(draws)


def _compare_text(recording: Recording, seen: Watched, state: InfinityState) -> None:
    """Texts of all rows packed one behind the other, as they were recorded."""
    mask = state.modulation.blocks[0].text_mask[:, 0, 0]
    recording.compare("text_normed", seen["text_norm"][mask])
    recording.compare("text_proj_ca", seen["text_proj_for_ca"][mask])
    recording.compare("sos_cond_BD", seen["text_proj_for_sos.ca"])
    recording.compare("shared_ada_lin", seen["shared_ada_lin"].unflatten(1, (1, 6, -1)))


def _forced(
    recording: Recording, models: InfinityModels, settings: Mapping[str, Any], generator: Infinity
) -> list[Tensor]:
    """Bits of an encoded picture that stand in for the first scales (`gt_leak` of them)."""
    count = settings.get("gt_leak", 0)
    encoded = models.folder / f"vae_roundtrip_{settings['model']}.safetensors"
    if not count:
        return []
    if not encoded.is_file():
        raise ConfigError(f"{recording.case}: {encoded.name} is not there, which holds the bits of its first scales.")
    pictures = read_state_dict(encoded)
    return [_tokens(pictures[f"s{k}.bits"], generator) for k in range(count)]


def _tokens(bits: Tensor, generator: Infinity) -> Tensor:
    """`(b, 1, H, W, d)` of the official program -> `(b, h, w, bits of a token)`."""
    maps = bits.squeeze(1).long()
    return gather_patches(maps) if generator.transformer.config.patchify else maps


@dataclass(frozen=True, eq=False)
class _Run:
    """A run being replayed."""

    recording: Recording
    generator: Infinity
    state: InfinityState
    guidance: CFG
    settings: Mapping[str, Any]

    def step(self, step: Step, forced: Sequence[Tensor]) -> Watched:
        """One step; what the parts of the network gave."""
        start, streams = f"s{step.index}", self.guidance.asks(COND, step)
        with watched(self.generator.transformer) as seen:
            predictions = self.generator.predict(self.state, step, streams, self.guidance.weights(COND, step))
        _compare_parts(self.recording, start, seen)
        in_layer = self.generator.cfg_layer is not None
        both = _two_channels(seen["head"], (COND,) if in_layer else streams, step)
        for stream, name in NAMES:
            if stream in both:
                self.recording.compare(f"{start}.logits_{name}", both[stream].flatten(1, 2))
        sampler = self._sampler(step, ())
        guided = both[COND] if in_layer else self.guidance.apply(both, step, {})[0]
        self.recording.compare(f"{start}.logits_guided", guided.flatten(1, 2) / sampler.at("temperature", step))
        differences = self.guidance.apply(predictions, step, {})[0]
        self.recording.compare(f"{start}.bit1_prob_filtered", sampler.bit_candidates(differences, step).sigmoid())
        self._draw(step, differences, forced)
        return seen

    def _sampler(self, step: Step, forced: Sequence[Tensor]) -> Sampler:
        filters = {name: self.settings.get(name, 0) for name in ("top_k", "top_p")}
        return Prefix(temperature=self.settings["tau_list"][step.index], tokens=forced, **filters)

    def _draw(self, step: Step, differences: Tensor, forced: Sequence[Tensor]) -> None:
        """The bits drawn, those that go on, and what they add up to."""
        start, generator, recording = f"s{step.index}", self.generator, self.recording
        if is_rounded(self.settings):
            recording.leave(f"{start}.bits_sampled", FED_BACK)
        else:
            own = generator.sample(self.state, step, differences, self._sampler(step, ()), {})
            recording.compare(f"{start}.bits_sampled", own.tokens.flatten(1, 2))
        draw = generator.sample(self.state, step, differences, self._sampler(step, forced), {})
        recording.compare(f"{start}.bits", self._positions(draw.tokens).unsqueeze(1))
        fed = self._fed(start, step)
        recording.compare(f"{start}.codes", codes_of(self._positions(fed)).unsqueeze(2))
        generator.advance(self.state, step, Draw(fed))
        recording.compare(f"{start}.summed_codes", self.state.latent.unsqueeze(2))

    def _fed(self, start: str, step: Step) -> Tensor:
        """The recorded bits, so that one wrong bit does not spoil all that follows."""
        if f"{start}.bits" in self.recording:
            return _tokens(self.recording[f"{start}.bits"], self.generator)
        if f"{start}.bits_sampled" not in self.recording:
            raise ConfigError(f"{self.recording.case} has no {start}.bits to replay.")
        return self.recording[f"{start}.bits_sampled"].long().unflatten(1, step.grid)

    def _positions(self, tokens: Tensor) -> Tensor:
        """Bits on the tokenizer's grid."""
        return spread_patches(tokens) if self.generator.transformer.config.patchify else tokens


def _two_channels(logits: Tensor, streams: Sequence[Stream], step: Step) -> dict[Stream, Tensor]:
    maps = logits.unflatten(1, step.grid).unflatten(0, (len(streams), -1))
    return dict(zip(streams, maps, strict=True))


def _compare_parts(recording: Recording, start: str, seen: Watched) -> None:
    parts = {"sa": "_sa_out", "ca": "_ca_out", "ffn": "_ffn_out"}
    recording.compare(f"{start}.block_in", seen["blocks.0.input"])
    for name, found in seen.items():
        match name.split("."):
            case ["blocks", block]:
                recording.compare(f"{start}.block{block}_out", found)
            case ["blocks", block, part] if part in parts:
                recording.compare(f"{start}.block{block}{parts[part]}", found)
    if "word_embed" in seen:
        recording.compare(f"{start}.next_input", seen["word_embed.input"])
        recording.compare(f"{start}.word_embed", seen["word_embed"])


def _compare_image(recording: Recording, generator: Infinity, state: InfinityState, has_pictures: bool) -> None:
    if not has_pictures:
        for name in ("image_float", "image_uint8_bgr_nhwc"):
            recording.leave(name, NO_PICTURES)
        return
    image = generator.decode(state)
    recording.compare("image_float", image * 2.0 - 1.0)
    recording.compare("image_uint8_bgr_nhwc", (image * 255.0).to(torch.uint8).permute(0, 2, 3, 1).flip(-1))
