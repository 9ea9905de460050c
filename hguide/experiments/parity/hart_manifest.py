"""Names and shapes of HART's real-size state dicts, and its recorded diffusion schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from hguide.backends.hart.diffusion_schedule import respaced
from hguide.backends.hart.infer_config import (
    DISCRIMINATOR,
    STATISTIC,
    TOKENIZER,
    infer_tokenizer_config,
    infer_transformer_config,
)
from hguide.backends.hart.official_buffers import official_buffers
from hguide.backends.hart.tokenizer import HARTTokenizer
from hguide.backends.hart.transformer import HARTTransformer
from hguide.backends.hart.transformer_config import TransformerConfig
from hguide.experiments.parity.hart_model import on_meta
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison

__all__ = ["compare_manifest", "compare_schedule"]

Shapes = dict[str, tuple[int, ...]]
_SHOWN = 3
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "use_timestep_embed=false": {"level_embedding": "table"},
    "disable_aln=true+shared_aln=true (per block)": {"adaln": "table"},
    "disable_aln=false (per block)": {"adaln": "linear"},
}


def compare_manifest(case: str, content: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compare a state dict's names and shapes with those of the network made for them, on the meta device.

    Args:
        case: name of the file.
        content: `keys` (`{key: shape}`, buffers included), `_assumed_config`, and further facts that begin with `_`.

    Raises:
        CheckpointError: no HART network has such weights.
    """
    recorded: Shapes = {key: tuple(shape) for key, shape in content["keys"].items()}
    facts = content.get("_assumed_config", {})
    compare = _compare_tokenizer if f"{TOKENIZER}encoder.conv_in.weight" in recorded else _compare_transformer
    yield from compare(case, recorded, facts, content)


def _compare_tokenizer(
    case: str, recorded: Shapes, facts: Mapping[str, Any], content: Mapping[str, Any]
) -> Iterator[Comparison]:
    config, _ = infer_tokenizer_config(on_meta(recorded), facts)
    with torch.device("meta"):
        module = HARTTokenizer(config)
    own = {TOKENIZER + key: tuple(value.shape) for key, value in module.state_dict().items()}
    unused = {TOKENIZER + STATISTIC: "a statistic of the training, not read"}
    unused |= {
        key: "of the discriminator, which only training reads" for key in recorded if key.startswith(DISCRIMINATOR)
    }
    yield _compared(case, "keys and shapes", own, {k: v for k, v in recorded.items() if k not in unused})
    yield from (Comparison(case, key, None, 0.0, reason) for key, reason in unused.items() if key in recorded)
    if "_num_parameters_vae" in content:
        yield _counted(case, module, content["_num_parameters_vae"])


def _compare_transformer(
    case: str, recorded: Shapes, facts: Mapping[str, Any], content: Mapping[str, Any]
) -> Iterator[Comparison]:
    config = infer_transformer_config(on_meta(recorded), facts)
    module = _transformer(config)
    yield _compared(case, "keys and shapes", _shapes(module) | official_buffers(config), recorded)
    if "_num_parameters" in content:
        yield _counted(case, module, content["_num_parameters"])
    for name, keys in content.get("_alternative_keys", {}).items():
        if name not in _VARIANTS:
            yield Comparison(case, name, None, 0.0, "no such variant", len(keys))
            continue
        variant = _shapes(_transformer(replace(config, **_VARIANTS[name])))
        wanted = {key: tuple(shape) for key, shape in keys.items()}
        yield _compared(case, name, {key: variant[key] for key in wanted if key in variant}, wanted)


def compare_schedule(recording: Recording) -> None:
    """Compare the tables of a respaced diffusion.

    Args:
        recording: tables by name, and `timestep_map`.
    """
    schedule = respaced(recording["timestep_map"].numel())
    for each in fields(schedule):
        dtype = torch.int64 if each.name == "timestep_map" else torch.float64
        recording.compare(each.name, torch.tensor(getattr(schedule, each.name), dtype=dtype))


def _transformer(config: TransformerConfig) -> HARTTransformer:
    with torch.device("meta"):
        return HARTTransformer(config)


def _shapes(module: torch.nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _compared(case: str, quantity: str, own: Shapes, recorded: Shapes) -> Comparison:
    wrong = sorted(key for key in own.keys() | recorded.keys() if own.get(key) != recorded.get(key))
    shown = ", ".join(wrong[:_SHOWN]) + (", ..." if len(wrong) > _SHOWN else "")
    return Comparison(case, quantity, float(len(wrong)), 0.0, shown, len(recorded))


def _counted(case: str, module: torch.nn.Module, recorded: int) -> Comparison:
    found = sum(parameter.numel() for parameter in module.parameters())
    return Comparison(case, "number of parameters", float(abs(found - recorded)))
