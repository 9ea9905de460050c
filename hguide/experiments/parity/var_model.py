"""A VAR model of the sizes that a config.json states, with the weights beside it or those of the recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from hguide.backends.checkpoints import load_into, read_state_dict
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var.generator import VAR
from hguide.backends.var.official_buffers import without_buffers
from hguide.backends.var.tokenizer import UNUSED_KEYS, TokenizerConfig, VARTokenizer
from hguide.backends.var.transformer import TransformerConfig, VARTransformer
from hguide.errors import ConfigError
from hguide.experiments.parity.recipe import recipe_weights

__all__ = ["VARModel"]

M = TypeVar("M", bound=nn.Module)

_FIXED = {"quant_conv_ks": 3, "using_znorm": False, "in_channels": 3, "double_z": False}
_TOKENIZER_SIZES = ("vocab_size", "z_channels", "ch", "ch_mult", "num_res_blocks", "patch_nums")
_TRANSFORMER_SIZES = ("patch_nums", "depth", "embed_dim", "num_heads", "num_classes", "vocab_size", "z_channels")


@dataclass(frozen=True, eq=False)
class VARModel:
    """The networks of a folder, each made when first asked for.

    Args:
        folder: where weights may lie.
        config: official names of the sizes -> values.
    """

    folder: Path
    config: Mapping[str, Any]

    @property
    def has_transformer(self) -> bool:
        """Whether the configuration describes a transformer."""
        return "depth" in self.config

    @cached_property
    def generator(self) -> VAR:
        """Transformer and tokenizer behind the contract of all generators."""
        return VAR(self.transformer, self.tokenizer, name=self.folder.name)

    @cached_property
    def transformer(self) -> VARTransformer:
        """The transformer, in evaluation mode.

        Raises:
            ConfigError: a size is missing.
            CheckpointError: the weights beside the configuration do not fit it.
        """
        _require(self.config, _TRANSFORMER_SIZES)
        config = TransformerConfig(
            patch_nums=tuple(self.config["patch_nums"]),
            depth=self.config["depth"],
            width=self.config["embed_dim"],
            heads=self.config["num_heads"],
            classes=self.config["num_classes"],
            vocabulary=self.config["vocab_size"],
            latent_channels=self.config["z_channels"],
            shared_adaln=self.config.get("shared_aln", False),
            l2_norm=self.config.get("attn_l2_norm", True),
            mlp_ratio=self.config.get("mlp_ratio", 4.0),
            eps=self.config.get("norm_eps", 1e-6),
        )
        with torch.device("meta"):
            module = VARTransformer(config)
        path = self.weights_path("var")
        if path is None:
            return _by_recipe(module, self._seed("var"))
        load_into(module, without_buffers(read_state_dict(path), config))
        return module.eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> VARTokenizer:
        """The tokenizer, in evaluation mode.

        Raises:
            ConfigError: a size is missing, or an option is set that no published tokenizer has.
            CheckpointError: the weights beside the configuration do not fit it.
        """
        _require(self.config, _TOKENIZER_SIZES)
        other = [name for name, value in _FIXED.items() if self.config.get(name, value) != value]
        if other:
            raise ConfigError(f"{self.folder}: only {', '.join(f'{n} = {_FIXED[n]}' for n in other)} is supported.")
        sizes = AutoencoderConfig(
            channels=self.config["ch"],
            multipliers=tuple(self.config["ch_mult"]),
            blocks=self.config["num_res_blocks"],
            latent_channels=self.config["z_channels"],
        )
        config = TokenizerConfig(
            autoencoder=sizes,
            vocabulary=self.config["vocab_size"],
            patch_nums=tuple(self.config["patch_nums"]),
            convolutions=self.config.get("share_quant_resi", 4),
            residual_ratio=self.config.get("quant_resi", 0.5),
        )
        with torch.device("meta"):
            module = VARTokenizer(config)
        path = self.weights_path("vae")
        if path is None:
            return _by_recipe(module, self._seed("vae"))
        load_into(module, read_state_dict(path), UNUSED_KEYS)
        return module.eval().requires_grad_(False)

    def weights_path(self, part: str) -> Path | None:
        """The file of weights of a part, `var` or `vae`; None where none is stored and the recipe gives them."""
        path = self.folder / self.config.get(f"{part}_weights", f"weights_{part}.safetensors")
        return path if path.is_file() else None

    def _seed(self, part: str) -> int:
        name = f"{part}_seed"
        if name not in self.config:
            raise ConfigError(f"{self.folder}: no weights_{part}.safetensors, nor a {name} to draw them by.")
        return int(self.config[name])


def _by_recipe(module: M, seed: int) -> M:
    # Assigned, not copied: a full-size network fits the memory once, not twice.
    weights = recipe_weights({name: tuple(value.shape) for name, value in module.state_dict().items()}, seed)
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)


def _require(config: Mapping[str, Any], names: Collection[str]) -> None:
    missing = [name for name in names if name not in config]
    if missing:
        raise ConfigError(f"config.json lacks {', '.join(missing)}.")
