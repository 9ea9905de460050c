"""Recorded facts of Infinity: schedules, positions, rotation tables, names and shapes of state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from hguide.backends.infinity.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.infinity.official_keys import MASKS, tokenizer_key, transformer_key
from hguide.backends.infinity.rope import positions, rope_table
from hguide.backends.infinity.scale_schedule import published_ratios, published_schedule
from hguide.backends.infinity.tokenizer import InfinityTokenizer
from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison
from hguide.grids import Grid

__all__ = ["compare_manifest", "compare_positions", "compare_schedules", "replay_tables"]

PIXELS = 16  # per transformer token along each axis, in every released model
_SHOWN = 3
_TABLE = re.compile(r"r([\d.]+)_(?:1M_first(\d+)|([\dx-]+))_headdim(\d+)_mode(\d)")


def compare_schedules(case: str, content: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Comparison]:
    """Compare `{ratio: {size: {scales_image, pixel_hw, num_tokens}}}` with the published schedules of this package.

    Args:
        case: name of the file.
        content: of the JSON file.
    """
    ratios = {f"{ratio:.3f}" for ratio in published_ratios()}
    yield Comparison(case, "ratios", float(len(ratios ^ set(content))))
    for ratio, sizes in content.items():
        for size, recorded in sizes.items():
            found = published_schedule(size, float(ratio))
            height, width = found.grids[-1]
            own = {
                "scales_image": [[1, *grid] for grid in found.grids],
                "pixel_hw": [PIXELS * height, PIXELS * width],
                "num_tokens": sum(found.lengths),
            }
            wrong = [name for name, value in own.items() if recorded.get(name) != value]
            yield Comparison(case, f"{ratio}.{size}", float(len(wrong)), 0.0, ", ".join(wrong), len(own))
            if "scales_raw_t" in recorded:
                yield Comparison(
                    case, f"{ratio}.{size}.scales_raw_t", None, 0.0, "the time axis of videos; 1 for images"
                )


def compare_positions(case: str, content: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Comparison]:
    """Compare `{ratio: [{rows, cols}]}`, scale by scale of the largest pictures.

    Args:
        case: name of the file.
        content: of the JSON file.
    """
    for ratio, scales in content.items():
        schedule = published_schedule("1M", float(ratio))
        wrong = abs(len(scales) - len(schedule.grids))
        for recorded, grid in zip(scales, schedule.grids, strict=False):
            for name, side, end in zip(("rows", "cols"), grid, schedule.reference, strict=True):
                wrong += recorded[name] != positions(side, end).tolist()
        yield Comparison(case, ratio, float(wrong), tensors=2 * len(scales))


def replay_tables(recording: Recording) -> None:
    """Compare rotation tables, whose names tell ratio, grids, channels of a head and mode.

    Args:
        recording: `r1.5_1-2x1-3x2-6x4_headdim16_mode2` (grids, the last being the reference) or
            `r1.000_1M_first4_headdim128_mode2` (the first scales of a published schedule).
    """
    for name in recording.tensors:
        found = _TABLE.fullmatch(name)
        if found is None:
            recording.leave(name, "its name tells no grids")
            continue
        if found[2]:
            schedule = published_schedule("1M", float(found[1]))
            grids, reference = schedule.grids[: int(found[2])], schedule.reference
        else:
            grids = tuple(_grid(text) for text in found[3].split("-"))
            reference = grids[-1]
        recording.compare(name, rope_table(grids, reference, int(found[4]), int(found[5])))


def _grid(text: str) -> Grid:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def compare_manifest(case: str, manifest: Mapping[str, Sequence[int]]) -> Iterator[Comparison]:
    """Compare a state dict's names and shapes with those of the network made for them, on the meta device.

    Args:
        case: name of the file.
        manifest: `{official key: shape}`, buffers included.

    Raises:
        CheckpointError: no Infinity network has such weights.
    """
    recorded = {key: tuple(shape) for key, shape in manifest.items()}
    own, unused, renamed = _transformer(recorded) if "cfg_uncond" in recorded else _tokenizer(recorded)
    wrong = [key for key in own.keys() | renamed.keys() if own.get(key) != renamed.get(key)]
    shown = ", ".join(sorted(wrong)[:_SHOWN]) + (", ..." if len(wrong) > _SHOWN else "")
    yield Comparison(case, "keys and shapes", float(len(wrong)), 0.0, shown, len(renamed))
    if unused:
        yield Comparison(case, "buffers", None, 0.0, "zeros and numbers that nothing reads", len(unused))


Shapes = dict[str, tuple[int, ...]]


def _transformer(recorded: Shapes) -> tuple[Shapes, list[str], Shapes]:
    """Shapes of the network, buffers of the file, and the rest of it by the network's names."""
    token_bits = recorded["word_embed.weight"][1]
    # The published transformer of 56 bits per token has patches of 14.
    config = infer_transformer_config(recorded, 14 if token_bits == 56 else token_bits)
    with torch.device("meta"):
        module = InfinityTransformer(config)
    unused = [key for key in recorded if key.endswith("zero_k_bias")]
    per_chunk = config.depth // config.chunks
    renamed = {transformer_key(key, per_chunk): shape for key, shape in recorded.items() if key not in unused}
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}, unused, renamed


def _tokenizer(recorded: Shapes) -> tuple[Shapes, list[str], Shapes]:
    config = infer_tokenizer_config(recorded)
    with torch.device("meta"):
        module = InfinityTokenizer(config)
    unused = [key for key in recorded if key in MASKS]
    renamed = {tokenizer_key(key): shape for key, shape in recorded.items() if key not in unused}
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}, unused, renamed
