"""HART models of the sizes that a config.json states, with the weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import load_into, read_state_dict
from hguide.backends.hart.generator import HART
from hguide.backends.hart.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.hart.official_buffers import without_buffers
from hguide.backends.hart.tokenizer import HARTTokenizer
from hguide.backends.hart.transformer import HARTTransformer
from hguide.errors import ConfigError

__all__ = ["HARTModels"]


@dataclass(frozen=True, eq=False)
class HARTModels:
    """The networks of a folder, each made when first asked for.

    Args:
        folder: where the weights lie.
        config: `tokenizer` and `cases`, official names of the sizes -> values.
    """

    folder: Path
    config: Mapping[str, Any]
    made: dict[str, HART] = field(default_factory=dict)

    @cached_property
    def tokenizer(self) -> HARTTokenizer:
        """The tokenizer that all cases share.

        Raises:
            CheckpointError: its weights are missing, or do not fit the settings.
        """
        state = read_state_dict(self.folder / "tokenizer_weights.safetensors")
        config, own = infer_tokenizer_config(state, self.config["tokenizer"])
        module = HARTTokenizer(config)
        load_into(module, own)
        return module.eval().requires_grad_(False)

    def case(self, name: str) -> HART:
        """The generator of a case.

        Raises:
            ConfigError: there are no settings for it.
            CheckpointError: its weights are missing, or do not fit the settings.
        """
        if name not in self.config["cases"]:
            raise ConfigError(f"{self.folder}: config.json has no case {name!r}.")
        if name not in self.made:
            state = read_state_dict(self.folder / f"case_{name}_weights.safetensors")
            config = infer_transformer_config(state, self.config["cases"][name])
            module = HARTTransformer(config)
            load_into(module, without_buffers(state, config))
            self.made[name] = HART(module, self.tokenizer, name=name)
        return self.made[name]

    @cached_property
    def context(self) -> dict[str, Tensor]:
        """The recorded text: `context`, `context_mask`, `context_position_ids`."""
        return read_state_dict(self.folder / "context.safetensors")

    def settings(self, case: str, run: str) -> Mapping[str, Any]:
        """The arguments of a run.

        Raises:
            ConfigError: there are none.
        """
        try:
            return self.config["runs"][case][run]
        except KeyError:
            raise ConfigError(f"{self.folder}: config.json has no run {run!r} of case {case!r}.") from None


def on_meta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict of these shapes without content."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
