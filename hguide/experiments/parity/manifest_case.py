"""Names and shapes of real-size state dicts, and which shared convolution refines which scale."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hguide.backends.multiscale_quantizer import phi_index
from hguide.backends.var.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.var.official_buffers import official_buffers
from hguide.backends.var.tokenizer import UNUSED_KEYS, VARTokenizer
from hguide.backends.var.transformer import VARTransformer
from hguide.experiments.parity.report import Comparison

__all__ = ["compare_manifest", "compare_phi_index"]

Shape = tuple[int, ...]
_SHOWN = 3
_NAMED = re.compile(r"_d(\d+)")
_PHI = re.compile(r"n(\d+)_K(\d+)")


def compare_manifest(case: str, manifest: Mapping[str, Sequence[int]]) -> Iterator[Comparison]:
    """Compare a state dict's names and shapes with those of the network made for them, on the meta device.

    Args:
        case: name of the file; `d16` in it states the depth.
        manifest: `{key: shape}`, buffers included.

    Raises:
        CheckpointError: no VAR network has such weights.
    """
    recorded = {key: tuple(shape) for key, shape in manifest.items()}
    state = {key: torch.empty(shape, device="meta") for key, shape in recorded.items()}
    unused = [key for key in UNUSED_KEYS if key in recorded]
    own = _transformer(state) if "pos_1LC" in state else _tokenizer(state)
    wrong = [key for key in own.keys() | recorded.keys() - set(unused) if own.get(key) != recorded.get(key)]
    wrong += [f"depth {each}" for each in _depths(own) if (named := _NAMED.search(case)) and each != int(named[1])]
    shown = ", ".join(sorted(wrong)[:_SHOWN]) + (", ..." if len(wrong) > _SHOWN else "")
    yield Comparison(case, "keys and shapes", float(len(wrong)), 0.0, shown, len(recorded) - len(unused))
    for key in unused:
        yield Comparison(case, key, None, 0.0, "a statistic of the training, not read")


def _depths(shapes: Mapping[str, Shape]) -> set[int]:
    """The number of blocks, where there are any."""
    blocks = {int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")}
    return {len(blocks)} if blocks else set()


def _transformer(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    config = infer_transformer_config(state)
    with torch.device("meta"):
        module = VARTransformer(config)
    return {key: tuple(value.shape) for key, value in module.state_dict().items()} | official_buffers(config)


def _tokenizer(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    config = infer_tokenizer_config(state)
    with torch.device("meta"):
        module = VARTokenizer(config)
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def compare_phi_index(case: str, content: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compare the recorded choice of convolutions, `index[n{n}_K{K}][k]`, with `phi_index`.

    Args:
        case: name of the file.
        content: of the JSON file.
    """
    for name, indices in content["index"].items():
        match = _PHI.fullmatch(name)
        if match is None:
            yield Comparison(case, f"index.{name}", None, 0.0, "not named n{convolutions}_K{scales}")
            continue
        own = phi_index(int(match[2]), int(match[1]))
        differ = sum(a != b for a, b in zip(own, indices, strict=False)) + abs(len(own) - len(indices))
        yield Comparison(case, f"index.{name}", float(differ))
    for name in content:
        if name not in ("index", "note"):
            yield Comparison(case, name, None, 0.0, "seen through the indices alone")
