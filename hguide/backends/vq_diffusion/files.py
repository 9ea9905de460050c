"""Reading and writing VQ-Diffusion models: hguide's own single file, official checkpoints, and diffusers folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.conv_autoencoder import channels_last_on_cpu
from hguide.backends.hub import HUB_ID, fetch
from hguide.backends.hub_folder import fetch_folder
from hguide.backends.model_file import described, filled, is_ours, read_parts, save_parts
from hguide.backends.text import TextEncoder
from hguide.backends.vq_diffusion.codebook_map import codes_in_use
from hguide.backends.vq_diffusion.denoiser import Denoiser
from hguide.backends.vq_diffusion.descriptions import described_denoiser, described_inference, described_tokenizer
from hguide.backends.vq_diffusion.diffusers_folder import MODEL_INDEX, read_folder
from hguide.backends.vq_diffusion.generator import VQDiffusion
from hguide.backends.vq_diffusion.infer_config import infer_denoiser_config, infer_tokenizer_config
from hguide.backends.vq_diffusion.official_keys import (
    check_schedule,
    denoiser_weights,
    mask_length,
    stored_tokenizer,
    tokenizer_weights,
    without_wrapper,
)
from hguide.backends.vq_diffusion.text import clip_text_encoder
from hguide.backends.vq_diffusion.tokenizer import VQGAN, TokenizerConfig
from hguide.errors import CheckpointError, ConfigError
from hguide.grids import Grid

__all__ = ["load", "load_folder", "load_official", "load_single", "load_tokenizer", "save"]

DENOISER = "denoiser."
TOKENIZER = "tokenizer."


def load(
    source: str | Path,
    *,
    file: str | None = None,
    tokenizer: str | Path | None = None,
    text_encoder: TextEncoder | str | Path | None = None,
    revision: str | None = None,
    heads: int | None = None,
    grid: Grid | None = None,
    graphs: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VQDiffusion:
    """A VQ-Diffusion model from files.

    Args:
        source: hguide's single file; an official checkpoint (its parts joined); or a folder or hub id of the diffusers
            format (microsoft/vq-diffusion-ithq).
        file: the checkpoint inside a folder.
        tokenizer: file of the tokenizer, where the checkpoint does not hold it.
        text_encoder: of prompts, or the folder of a CLIP text tower (openai/clip-vit-base-patch32); the diffusers
            format brings its own. Without one, conditions are `TextEmbedding`s.
        revision: of the hub repository.
        heads: number of heads of an official checkpoint, where it is not 16.
        grid: of the token map of an official checkpoint, where it is no published one.
        graphs: see `VQDiffusion.with_options`.
        device: where the model computes.
        dtype: of the denoiser; the tokenizer stays float32.

    Returns:
        The generator.

    Raises:
        CheckpointError: no usable weights; lists wrong or missing names.
        ConfigError: parts that do not belong together, or graphs of a model that is not on a CUDA device.
    """
    told = [name for name, value in (("tokenizer", tokenizer), ("heads", heads), ("grid", grid)) if value is not None]
    if file is None and _is_folder(source):
        _refuse_known(source, told)
        model = load_folder(fetch_folder(source, revision), dtype=dtype, device=device)
    else:
        path = fetch(_joined(source), file, revision)
        if is_ours(path):
            _refuse_known(path, told)
            model = load_single(path, dtype=dtype)
        else:
            beside = None if tokenizer is None else fetch(tokenizer)
            model = load_official(path, beside, heads=heads, grid=grid, dtype=dtype)
    model.denoiser.to(device)
    model.tokenizer.to(device)
    channels_last_on_cpu(model.tokenizer.decoder)
    if isinstance(text_encoder, str | Path):
        text_encoder = clip_text_encoder(text_encoder, device=device)
    options: dict[str, Any] = {} if text_encoder is None else {"text_encoder": text_encoder}
    return model.with_options(graphs=graphs, **options) if options or graphs else model


def load_single(path: Path, name: str | None = None, *, dtype: torch.dtype = torch.float32) -> VQDiffusion:
    """The model of a file that `save` wrote."""
    facts = described(path, "vq_diffusion")
    try:
        config, tokenizer_config = described_denoiser(facts), described_tokenizer(facts)
        inference = described_inference(facts)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description does not fit a VQ-Diffusion model: {error!r}.") from error
    weights, pictures = read_parts(path, DENOISER, TOKENIZER)
    return VQDiffusion(
        filled(lambda: Denoiser(config).to(dtype), weights),
        filled(lambda: VQGAN(tokenizer_config), pictures),
        name=name or facts.get("name", path.stem),
        classes=facts.get("classes", ()),
        inference=inference,
    )


def load_official(
    path: Path,
    tokenizer_path: Path | None = None,
    *,
    heads: int | None = None,
    grid: Grid | None = None,
    dtype: torch.dtype = torch.float32,
) -> VQDiffusion:
    """The model of an official checkpoint: the averaged weights ("ema") where it has them, and the tokenizer inside.

    Args:
        path: of the checkpoint.
        tokenizer_path: file of the tokenizer, where the checkpoint holds none.
        heads: see `load`.
        grid: see `load`.
        dtype: of the denoiser.

    Raises:
        CheckpointError: not such a checkpoint, or one without a tokenizer where none is given.
    """
    state = read_state_dict(path, ("ema", "model"))
    try:
        module = without_wrapper(state)
        weights = denoiser_weights(module)
        config = infer_denoiser_config(weights, heads=heads, grid=grid, length=mask_length(module))
        check_schedule(module, config)
        denoiser = filled(lambda: Denoiser(config).to(dtype), weights)
        codec = _codec(path, state) if tokenizer_path is None else None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if tokenizer_path is not None:
        return VQDiffusion(denoiser, load_tokenizer(tokenizer_path, config.codes), name=path.stem)
    if not codec:
        raise CheckpointError(f"{path}: holds a denoiser and no tokenizer: pass tokenizer=PATH.")
    return VQDiffusion(denoiser, _tokenizer(tokenizer_weights(codec), config.codes, path), name=path.stem)


def load_tokenizer(path: Path, codes: int | None = None) -> VQGAN:
    """The tokenizer of an official file: taming's VQModel or Gumbel one, or the ITHQ one.

    Args:
        path: of the file.
        codes: of the denoiser; all codes are in use by default.

    Raises:
        CheckpointError: not the weights of such a tokenizer, or no table tells which codes the denoiser means.
    """
    state = read_state_dict(path, ("state_dict", "model"))
    try:
        return _tokenizer(tokenizer_weights(state), codes, path)
    except CheckpointError as error:
        raise error if str(path) in str(error) else CheckpointError(f"{path}: {error}") from error


def load_folder(folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> VQDiffusion:
    """The model of a folder of the diffusers format.

    Args:
        folder: `transformer`, `vqvae`, `learned_classifier_free_sampling_embeddings`, and for prompts `text_encoder`
            and `tokenizer`.
        device: of the text encoder.
        dtype: of the denoiser.

    Raises:
        CheckpointError: not such a folder, or a part of it is missing or damaged.
    """
    parts = read_folder(folder)
    try:
        config = infer_denoiser_config(parts.denoiser, heads=parts.heads)
        denoiser = filled(lambda: Denoiser(config).to(dtype), parts.denoiser)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'transformer'}: {error}") from error
    tokenizer = _tokenizer(tokenizer_weights(parts.tokenizer), config.codes, folder / "vqvae")
    encoder = None
    if (folder / "text_encoder" / "config.json").is_file():
        encoder = clip_text_encoder(folder / "text_encoder", tokenizer=folder / "tokenizer", device=device)
    return VQDiffusion(denoiser, tokenizer, text_encoder=encoder, name=folder.name)


def save(
    model: VQDiffusion, path: Path, *, dtype: torch.dtype = torch.float32, facts: Mapping[str, Any] | None = None
) -> None:
    """Write denoiser, tokenizer, inference and description into one safetensors file, the text encoder left out.

    Args:
        model: to write.
        path: ends in `.safetensors`; replaced whole or not at all.
        dtype: of the stored weights; code numbers stay integers.
        facts: more to describe it (training, source), stored beside the configuration.
    """
    description = {
        **(facts or {}),
        "family": "vq_diffusion",
        "name": model.name,
        "classes": list(model.class_names),
        "denoiser": asdict(model.denoiser.config),
        "tokenizer": asdict(model.tokenizer.config),
        "inference": asdict(model.inference),
    }
    save_parts(path, {DENOISER: model.denoiser, TOKENIZER: model.tokenizer}, description, dtype)


def _tokenizer(weights: Mapping[str, Tensor], codes: int | None, path: Path) -> VQGAN:
    try:
        config = infer_tokenizer_config(weights, codes)
        whole = {**weights, "codes": codes_in_use(config.codes, config.vocabulary)}
        return filled(lambda: VQGAN(config), whole, _unneeded(config))
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _unneeded(config: TokenizerConfig) -> tuple[str, ...]:
    return () if config.encoder else ("quant_conv.*", "assign.*")


def _codec(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tokenizer in the checkpoint, which stands in its "model" also where "ema" gave the denoiser."""
    found = stored_tokenizer(state)
    if found:
        return found
    try:
        return stored_tokenizer(read_state_dict(path, ("model",)))
    except CheckpointError:
        return {}


def _refuse_known(source: str | Path, told: Sequence[str]) -> None:
    if told:
        raise ConfigError(f"{source}: says itself what its {' and '.join(told)} is; leave that out.")


def _is_folder(source: str | Path) -> bool:
    path = Path(source).expanduser()
    if path.exists():
        return (path / MODEL_INDEX).is_file() or (path / "transformer").is_dir()
    return HUB_ID.fullmatch(str(source)) is not None and not path.suffix


def _joined(source: str | Path) -> str | Path:
    """The source; released checkpoints come in parts, which must be joined first."""
    path = Path(source).expanduser()
    parts = sorted(each.name for each in path.parent.glob(f"{path.name}_a?")) if path.parent.is_dir() else []
    part = path if path.suffix.startswith(".pth_") else None
    if (parts and not path.exists()) or part is not None:
        whole = path.name if part is None else path.name.rpartition("_")[0]
        raise CheckpointError(
            f"{path}: released in parts ({', '.join(parts) or path.name}); join them all first: "
            f"cat {whole}_* > {whole}."
        )
    return source
