"""The Infinity models that a config.json describes, with the weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.infinity.generator import Infinity
from hguide.backends.infinity.published_files import load_tokenizer, load_transformer
from hguide.backends.infinity.scale_schedule import ScaleSchedule
from hguide.backends.infinity.tokenizer import InfinityTokenizer, TokenizerConfig, groups_of
from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.backends.infinity.transformer_config import TransformerConfig
from hguide.errors import CheckpointError, ConfigError
from hguide.grids import Grid

__all__ = ["InfinityModel", "InfinityModels", "grids_of"]

_FIXED = {
    "mlp_ratio": 4,
    "norm_eps": 1e-6,
    "rms_norm": False,
    "shared_aln": True,
    "head_aln": True,
    "head_depth": 1,
    "nm0": False,
    "cos_attn": True,
    "tau_attn": 1,
    "swiglu": False,
    "cross_attn_layer_scale": -1,
    "rand_uncond": False,
    "use_bit_label": 1,
    "rope2d_each_sa_layer": 1,
    "fused_norm": True,
}
"""Options of the official constructor that all released models share, and that this package does not have."""


@dataclass(frozen=True, eq=False)
class InfinityModels:
    """The models of a folder, each made when first asked for.

    Args:
        folder: where the weights lie.
        config: content of its config.json.
    """

    folder: Path
    config: Mapping[str, Any]
    made: dict[str, InfinityModel] = field(default_factory=dict)

    def named(self, name: str) -> InfinityModel:
        """A model of the configuration.

        Raises:
            ConfigError: it describes no such model.
        """
        models = self.config.get("models", {})
        if name not in models:
            raise ConfigError(f"{self.folder}: config.json describes no model {name!r}, only {', '.join(models)}.")
        return self.made.setdefault(name, InfinityModel(self.folder, name, models[name]))


@dataclass(frozen=True, eq=False)
class InfinityModel:
    """One transformer with its tokenizer.

    Args:
        folder: where the weights lie.
        name: of the model.
        config: its part of config.json.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]

    @property
    def has_pictures(self) -> bool:
        """Whether the tokenizer's weights are there; bits need none."""
        return (self.folder / self.config["vae_file"]).is_file()

    @property
    def patchify(self) -> bool:
        """Whether a token holds 2 x 2 tokenizer positions."""
        return bool(self.config["transformer"]["apply_spatial_patchify"])

    def generator(self, grids: tuple[Grid, ...], override: Mapping[str, Any]) -> Infinity:
        """The model on the grids of a run.

        Args:
            grids: in transformer tokens.
            override: options of the transformer that differ in this run.
        """
        return Infinity(self.transformer(override), self.tokenizer, self.schedule(grids), name=self.name)

    def schedule(self, grids: tuple[Grid, ...]) -> ScaleSchedule:
        """The grids of a run with positions counted on the largest picture of their ratio."""
        sizes = self.config["scale_schedules_by_h_div_w"]
        height, width = grids[-1]
        ratio = min(sizes, key=lambda text: abs(float(text) - height / width))
        return ScaleSchedule(grids, grids_of(sizes[ratio]["1M"])[-1])

    def transformer(self, override: Mapping[str, Any] | None = None) -> InfinityTransformer:
        """The transformer, checked against the configuration.

        Raises:
            ConfigError: an option that no released model has.
            CheckpointError: weights of another shape than the configuration says.
        """
        stated = {**self.config["transformer"], **(override or {})}
        other = [name for name, value in _FIXED.items() if stated.get(name, value) != value]
        if other:
            raise ConfigError(f"{self.folder}: only {', '.join(f'{n} = {_FIXED[n]}' for n in other)} is supported.")
        found = load_transformer(
            self.folder / self.config["transformer_file"],
            self.config["vae"]["codebook_dim"],
            level_every_chunk=not stated["add_lvl_embeding_only_first_block"],
            rope_mode=stated["rope2d_normalized_by_hw"],
        )
        wanted = TransformerConfig(
            depth=stated["depth"],
            width=stated["embed_dim"],
            heads=stated["num_heads"],
            bits=self.config["vae"]["codebook_dim"],
            text_channels=stated["text_channels"],
            patchify=self.patchify,
            text_length=stated["text_maxlen"],
            text_heads=stated["text_pool_num_heads"],
            chunks=stated["block_chunks"],
            levels=found.config.levels,
            hidden=stated["ffn_hidden"],
            level_every_chunk=not stated["add_lvl_embeding_only_first_block"],
            rope_mode=stated["rope2d_normalized_by_hw"],
        )
        if found.config != wanted:
            raise CheckpointError(f"{self.folder}: the weights of {self.name} are of {found.config}, not of {wanted}.")
        return found.eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> InfinityTokenizer:
        """The tokenizer; with weights of no meaning where `has_pictures` is False.

        Raises:
            ConfigError: an encoder and a decoder of different widths, which no released tokenizer has.
            CheckpointError: weights of another shape than the configuration says.
        """
        sizes = self.config["vae"]
        if sizes["encoder_ch_mult"] != sizes["decoder_ch_mult"]:
            raise ConfigError(f"{self.folder}: only equal widths of encoder and decoder are supported.")
        multipliers = tuple(sizes["encoder_ch_mult"])
        groups = groups_of([sizes["base_ch"] * each for each in multipliers])
        wanted = TokenizerConfig(
            AutoencoderConfig(
                sizes["base_ch"], multipliers, sizes["num_res_blocks"], sizes["codebook_dim"], groups, attention=False
            )
        )
        if not self.has_pictures:
            with torch.device("meta"):
                return InfinityTokenizer(wanted).eval().requires_grad_(False)
        found = load_tokenizer(self.folder / self.config["vae_file"])
        if found.config != wanted:
            raise CheckpointError(f"{self.folder}: the tokenizer of {self.name} is {found.config}, not {wanted}.")
        return found.eval().requires_grad_(False)


def grids_of(schedule: Any) -> tuple[Grid, ...]:
    """`[[1, h, w], ...]` as (h, w) grids."""
    return tuple((int(h), int(w)) for _, h, w in schedule)
