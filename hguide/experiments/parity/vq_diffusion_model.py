"""The VQ-Diffusion model of a folder of recorded runs, of the sizes that its settings state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import load_into, read_state_dict
from hguide.backends.text import TextEmbedding
from hguide.backends.vq_diffusion.denoiser import Denoiser
from hguide.backends.vq_diffusion.generator import VQDiffusion
from hguide.backends.vq_diffusion.infer_config import infer_denoiser_config, infer_tokenizer_config
from hguide.backends.vq_diffusion.inference import Inference
from hguide.backends.vq_diffusion.official_keys import check_schedule, denoiser_weights, tokenizer_weights
from hguide.backends.vq_diffusion.tokenizer import VQGAN
from hguide.errors import ConfigError

__all__ = ["VQDiffusionModel"]


@dataclass(frozen=True, eq=False)
class VQDiffusionModel:
    """The networks of a folder, each made when first asked for.

    Args:
        folder: where the weights lie; its name is that of its settings.
        config: settings of all folders.
    """

    folder: Path
    config: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of this folder.

        Raises:
            ConfigError: there are none.
        """
        if self.folder.name not in self.config:
            raise ConfigError(f"{self.folder}: config.json has no settings {self.folder.name!r}.")
        return self.config[self.folder.name]

    def run(self, name: str) -> Mapping[str, Any]:
        """The settings of a run.

        Raises:
            ConfigError: there are none.
        """
        found = [run for run in self.settings["runs"] if run["name"] == name]
        if not found:
            raise ConfigError(f"{self.folder}: config.json has no run {name!r}.")
        return found[0]

    @cached_property
    def generator(self) -> VQDiffusion:
        """Denoiser and tokenizer behind the contract of all generators.

        Raises:
            CheckpointError: the weights do not fit the settings.
        """
        return VQDiffusion(self.denoiser, self.tokenizer, name=self.folder.name)

    def with_inference(self, settings: Mapping[str, Any]) -> VQDiffusion:
        """The generator of a run.

        Args:
            settings: of the run, by their official names.
        """
        inference = Inference(
            speed=float(settings.get("infer_speed", 1)),
            prior_rule=settings.get("prior_rule", 0),
            prior_weight=float(settings.get("prior_weight", 0)),
            tokens_per_step=settings.get("n_sample") and tuple(settings["n_sample"]),
            tokens_per_call=settings.get("prior_ps"),
        )
        return self.generator.with_options(inference=inference)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The denoiser, in evaluation mode."""
        state = read_state_dict(self.folder / "weights.safetensors")
        weights = denoiser_weights(state)
        settings = self.settings
        config = infer_denoiser_config(weights, heads=settings["n_head"], grid=tuple(settings["grid"]))
        stated = (settings["kind"], settings["K"], settings["T"], settings["n_layer"], settings["n_embd"])
        found = (config.condition, config.codes, config.timesteps, config.depth, config.width)
        if stated != found:
            raise ConfigError(f"{self.folder}: config.json states {stated}, the weights are of {found}.")
        check_schedule(state, config)
        with torch.device("meta"):
            module = Denoiser(config)
        load_into(module, weights)
        return module.eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> VQGAN:
        """The tokenizer, in evaluation mode, with the recorded table of codes where there is one."""
        weights = tokenizer_weights(read_state_dict(self.folder / "vqgan.safetensors"))
        config = infer_tokenizer_config(weights, self.settings["K"])
        codes = self.fixtures.get("quantize_to_full", torch.arange(config.codes))
        with torch.device("meta"):
            module = VQGAN(config)
        load_into(module, {**weights, "codes": codes})
        return module.eval().requires_grad_(False)

    @cached_property
    def fixtures(self) -> dict[str, Tensor]:
        """The recorded inputs that all runs share."""
        return read_state_dict(self.folder / "fixtures.safetensors")

    def conditions(self, settings: Mapping[str, Any]) -> list[Any]:
        """Labels of a run, or the recorded embeddings of its texts.

        Args:
            settings: of the run.
        """
        if "labels" in settings:
            return self.generator.conditions(list(settings["labels"]), len(settings["labels"]))
        rows = self.fixtures["cond_emb"].float()
        return [TextEmbedding(row, torch.ones(len(row), dtype=torch.bool)) for row in rows]
