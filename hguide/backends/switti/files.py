"""Reading and writing Switti models: the published folders, and hguide's own single file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hguide.backends.conv_autoencoder import channels_last_on_cpu
from hguide.backends.hub_folder import fetch_folder
from hguide.backends.model_file import config_beside, described, filled, is_ours, read_parts, save_parts
from hguide.backends.patch_nums import checked_patch_nums
from hguide.backends.switti.crop import FourierEmbedding
from hguide.backends.switti.generator import Switti
from hguide.backends.switti.infer_config import infer_transformer_config, without_buffers
from hguide.backends.switti.text import switti_text_encoder
from hguide.backends.switti.transformer import SwittiTransformer
from hguide.backends.switti.transformer_config import TransformerConfig
from hguide.backends.text import CachedTextEncoder, TextEmbedding, TextEncoder
from hguide.backends.var.infer_config import infer_tokenizer_config
from hguide.backends.var.tokenizer import UNUSED_KEYS, VARTokenizer, described_tokenizer
from hguide.backends.weights_folder import find_weights, read_weights
from hguide.errors import CheckpointError, ConfigError

__all__ = ["TOKENIZER_REPOSITORY", "load", "load_pair", "load_single", "save"]

TOKENIZER_REPOSITORY = "yresearch/VQVAE-Switti"
TRANSFORMER = "transformer."
TOKENIZER = "tokenizer."
CROP_FREQUENCIES = "crop_embed.weight"
DOWNLOADED = ("*.json", "*.safetensors")


def load(
    source: str | Path,
    *,
    tokenizer: str | Path | None = None,
    text_encoder: TextEncoder | Sequence[str | Path] | str | Path | None = None,
    null_text: TextEmbedding | None = None,
    cache: str | Path | None = None,
    revision: str | None = None,
    patch_nums: tuple[int, ...] | None = None,
    graphs: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Switti:
    """A Switti model from files. Parity with the official program is unproven (see `hguide.backends.switti`).

    Args:
        source: hguide's single file; or the published folder (config.json, model.safetensors), a file in it, or the hub
            id ("yresearch/Switti").
        tokenizer: folder, file or hub id of the tokenizer; by default the folder VQVAE-Switti beside the model's, or
            for a hub id its repository.
        text_encoder: of prompts: the folders of CLIP ViT-L/14 and ViT-bigG/14, or any `TextEncoder` with their layout;
            without one conditions are embeddings.
        null_text: the empty prompt's embedding, which the null stream needs where there is no text encoder.
        cache: folder that remembers embeddings of prompts.
        revision: of the hub repository.
        patch_nums: the schedule, where neither the weights nor config.json tells it.
        graphs: see `Switti.with_options`.
        device: where the model computes.
        dtype: of the transformer and the text encoder; the tokenizer and the latent stay float32.

    Raises:
        CheckpointError: no usable weights; lists wrong or missing names.
        ConfigError: one text encoder in place of two, or a cache without any; patch_nums that are none; graphs of a
            model that is not on a CUDA device.
    """
    encoder = _text_encoder(text_encoder, cache, device, dtype)
    patch_nums = checked_patch_nums(patch_nums)
    path = Path(source).expanduser()
    if is_ours(path):
        model = load_single(path, encoder, dtype=dtype)
    else:
        if not path.is_file():
            path = find_weights(fetch_folder(source, revision, DOWNLOADED))
        model = load_pair(path, _tokenizer_file(source, path, tokenizer), encoder, patch_nums=patch_nums, dtype=dtype)
    model.null_text = null_text
    model.transformer.to(device)
    model.tokenizer.to(device)
    channels_last_on_cpu(model.tokenizer.decoder)
    return model.with_options(graphs=True) if graphs else model


def load_pair(
    transformer_path: Path,
    tokenizer_path: Path,
    text_encoder: TextEncoder | None = None,
    *,
    patch_nums: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Switti:
    """The model of a transformer's and a tokenizer's weights with the published names.

    Args:
        transformer_path: a file with config.json beside it, or the index of shards.
        tokenizer_path: the same.
        text_encoder: of prompts.
        patch_nums: the schedule, where nothing else tells it.
        dtype: of the transformer.

    Raises:
        CheckpointError: no usable weights.
    """
    state = read_weights(transformer_path)
    config = infer_transformer_config(state, config_beside(transformer_path), patch_nums=patch_nums)
    transformer = filled(lambda: _transformer(config, dtype), without_buffers(state, config))
    pictures = read_weights(tokenizer_path)
    tokenizer_config = infer_tokenizer_config(pictures, config.patch_nums)
    tokenizer = filled(lambda: VARTokenizer(tokenizer_config), pictures, UNUSED_KEYS)
    return Switti(transformer, tokenizer, text_encoder, name=transformer_path.parent.name or "switti")


def load_single(path: Path, text_encoder: TextEncoder | None = None, *, dtype: torch.dtype = torch.float32) -> Switti:
    """The model of a file that `save` wrote."""
    facts = described(path, "switti")
    try:
        config = TransformerConfig(**{**facts["transformer"], "patch_nums": tuple(facts["transformer"]["patch_nums"])})
        tokenizer_config = described_tokenizer(facts["tokenizer"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description does not fit a Switti model: {error!r}.") from error
    weights, pictures = read_parts(path, TRANSFORMER, TOKENIZER)
    transformer = filled(lambda: _transformer(config, dtype), weights)
    tokenizer = filled(lambda: VARTokenizer(tokenizer_config), pictures)
    return Switti(transformer, tokenizer, text_encoder, name=facts.get("name", path.stem))


def save(
    model: Switti, path: Path, *, dtype: torch.dtype = torch.float32, facts: Mapping[str, Any] | None = None
) -> None:
    """Write transformer, tokenizer and description into one safetensors file; the text encoder stays outside.

    Args:
        model: to write.
        path: ends in `.safetensors`; replaced whole or not at all.
        dtype: of the stored weights; the frequencies of the crop keep their own.
        facts: more to describe it, stored beside the configuration.
    """
    parts = {TRANSFORMER: model.transformer, TOKENIZER: model.tokenizer}
    description = {
        **(facts or {}),
        "family": "switti",
        "name": model.name,
        "transformer": asdict(model.transformer.config),
        "tokenizer": asdict(model.tokenizer.config),
    }
    save_parts(path, parts, description, dtype, (TRANSFORMER + CROP_FREQUENCIES,))


def _transformer(config: TransformerConfig, dtype: torch.dtype) -> SwittiTransformer:
    """The network in a type; the frequencies of the crop in float32 where that is wider."""
    module = SwittiTransformer(config).to(dtype)
    for part in module.modules():
        if isinstance(part, FourierEmbedding):
            part.to(torch.promote_types(dtype, torch.float32))
    return module


def _text_encoder(
    given: TextEncoder | Sequence[str | Path] | str | Path | None,
    cache: str | Path | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> TextEncoder | None:
    if given is None:
        if cache is not None:
            raise ConfigError("cache belongs to a text encoder: pass text_encoder too.")
        return None
    folders = given if isinstance(given, tuple | list) else None
    if isinstance(given, str | Path) or (folders is not None and len(folders) != 2):
        raise ConfigError(
            "Switti has two text encoders: pass text_encoder=(FOLDER of ViT-L/14, FOLDER of ViT-bigG/14)."
        )
    if folders is not None:
        first, second = (fetch_folder(each) for each in folders)
        given = switti_text_encoder(first, second, device=device, dtype=dtype)
    assert isinstance(given, TextEncoder)
    return given if cache is None else CachedTextEncoder(given, cache)


def _tokenizer_file(source: str | Path, path: Path, given: str | Path | None) -> Path:
    if given is not None:
        other = Path(given).expanduser()
        return other if other.is_file() else find_weights(fetch_folder(given, None, DOWNLOADED))
    beside = path.parent.parent / TOKENIZER_REPOSITORY.split("/")[1]
    if beside.is_dir():
        return find_weights(beside)
    if Path(source).expanduser().exists():
        raise CheckpointError(
            f"{path} holds a transformer; its tokenizer's folder is not at {beside}: pass tokenizer=PATH."
        )
    return find_weights(fetch_folder(TOKENIZER_REPOSITORY, None, DOWNLOADED))
