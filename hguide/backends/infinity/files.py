"""Reading and writing Infinity models: hguide's own single file, and the published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hguide.backends.conv_autoencoder import AutoencoderConfig, channels_last_on_cpu
from hguide.backends.hub import fetch
from hguide.backends.infinity.generator import Infinity
from hguide.backends.infinity.published_files import load_published, transformer_path
from hguide.backends.infinity.scale_schedule import ScaleSchedule, published_schedule
from hguide.backends.infinity.tokenizer import InfinityTokenizer, TokenizerConfig
from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.backends.infinity.transformer_config import TransformerConfig
from hguide.backends.model_file import described, filled, is_ours, read_parts, save_parts
from hguide.backends.text import CachedTextEncoder, TextEncoder
from hguide.backends.tiny_text import TEXT_ENCODER, TinyTextConfig, TinyTextEncoder, saved_tiny_text
from hguide.errors import CheckpointError, ConfigError

__all__ = ["described_schedule", "described_tokenizer", "load", "load_single", "save"]

TRANSFORMER = "transformer."
TOKENIZER = "tokenizer."
PAIRS: Mapping[str, str] = {"infinity-2b": "infinity-vae-d32reg"}
"""Short name of a transformer on the hub -> that of its tokenizer."""


def load(
    source: str | Path,
    *,
    file: str | None = None,
    tokenizer: str | Path | None = None,
    text_encoder: TextEncoder | str | Path | None = None,
    cache: str | Path | None = None,
    revision: str | None = None,
    size: str | None = None,
    aspect: float = 1.0,
    schedule: ScaleSchedule | None = None,
    cfg_layer: int | None = None,
    level_every_chunk: bool = False,
    rope_mode: int = 2,
    graphs: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Infinity:
    """An Infinity model from files.

    Args:
        source: hguide's single file; or the transformer's file, folder of shards, official name or hub id.
        file: the transformer's file inside a folder or hub repository.
        tokenizer: the tokenizer's file; by default the published one beside the transformer.
        text_encoder: of prompts, or the folder of a T5 encoder (google/flan-t5-xl). Without one, and without a tiny one
            in hguide's single file, conditions are `TextEmbedding`s.
        cache: folder that remembers embeddings of prompts.
        revision: of the hub repository.
        size: of the pictures in megapixels: "0.06M", "0.25M", "0.60M" or "1M". Released models were trained for one
            size each, which is the default: "0.25M" for files named 512x512, else "1M".
        aspect: height over width; the nearest published ratio is taken.
        schedule: the grids, in place of `size` and `aspect`.
        cfg_layer: -m mixes the hidden states after block depth - m by the guidance's linear weights, in place of the
            logits; see `Infinity`.
        level_every_chunk: not told by the weights; no released model has it.
        rope_mode: not told by the weights; 2 in released models.
        graphs: see `Infinity.with_options`.
        device: where the model computes.
        dtype: of the transformer's blocks and its cache; text, norms, residual, logits and tokenizer stay float32.

    Returns:
        The generator.

    Raises:
        CheckpointError: no usable weights; lists wrong or missing names.
        ConfigError: options that cannot work.
    """
    if schedule is not None and (size is not None or aspect != 1.0):
        raise ConfigError("give a schedule, or size and aspect, not both.")
    path = transformer_path(source, file, revision)
    trained = "0.25M" if "512x512" in f"{path.parent.name}/{path.name}" else "1M"
    if is_ours(path):
        model = load_single(path, dtype=dtype)
        if schedule is not None or size is not None or aspect != 1.0:
            model = model.with_options(schedule=schedule or published_schedule(size or trained, aspect))
    else:
        other = tokenizer if tokenizer is not None else PAIRS.get(str(source))
        beside = None if other is None else fetch(other, None, revision)
        model = load_published(
            path,
            beside,
            schedule=schedule or published_schedule(size or trained, aspect),
            dtype=dtype,
            level_every_chunk=level_every_chunk,
            rope_mode=rope_mode,
        )
    model.transformer.to(device)
    model.tokenizer.to(device)
    channels_last_on_cpu(model.tokenizer.decoder)
    if isinstance(model.text_encoder, TinyTextEncoder):
        model.text_encoder.to(device)
    options: dict[str, Any] = {} if cfg_layer is None else {"cfg_layer": cfg_layer}
    encoder = _text_encoder(text_encoder, cache, device)
    if encoder is not None:
        options["text_encoder"] = encoder
    return model.with_options(graphs=graphs, **options) if options or graphs else model


def load_single(path: Path, name: str | None = None, *, dtype: torch.dtype = torch.float32) -> Infinity:
    """The model of a file that `save` wrote."""
    facts = described(path, "infinity")
    try:
        config = TransformerConfig(**facts["transformer"])
        tokenizer_config, schedule = described_tokenizer(facts), described_schedule(facts)
        text_config = TinyTextConfig(**facts["text_encoder"]) if facts.get("text_encoder") else None
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description does not fit an Infinity model: {error!r}.") from error
    weights, pictures, *texts = read_parts(path, TRANSFORMER, TOKENIZER, *((TEXT_ENCODER,) if text_config else ()))
    return Infinity(
        filled(lambda: InfinityTransformer(config).cast_blocks(dtype), weights),
        filled(lambda: InfinityTokenizer(tokenizer_config), pictures),
        schedule,
        text_encoder=None if text_config is None else saved_tiny_text(text_config, *texts),
        name=name or facts.get("name", path.stem),
        classes=facts.get("classes", ()),
    )


def described_tokenizer(facts: Mapping[str, Any]) -> TokenizerConfig:
    """Sizes of the tokenizer, from the description of a file of ours."""
    autoencoder = {**facts["tokenizer"]["autoencoder"]}
    autoencoder["multipliers"] = tuple(autoencoder["multipliers"])
    return TokenizerConfig(AutoencoderConfig(**autoencoder))


def described_schedule(facts: Mapping[str, Any]) -> ScaleSchedule:
    """The grids of the scales, from the description of a file of ours."""
    grids = tuple(tuple(grid) for grid in facts["schedule"]["grids"])
    return ScaleSchedule(grids, tuple(facts["schedule"]["rope_grid"]))


def save(
    model: Infinity, path: Path, *, dtype: torch.dtype = torch.float32, facts: Mapping[str, Any] | None = None
) -> None:
    """Write transformer, tokenizer, a tiny text encoder and the description into one safetensors file.

    A text encoder of another kind is not in it.

    Args:
        model: to write.
        path: ends in `.safetensors`; replaced whole or not at all.
        dtype: of the stored weights.
        facts: more to describe it (training, source), stored beside the configuration.
    """
    parts: dict[str, nn.Module] = {TRANSFORMER: model.transformer, TOKENIZER: model.tokenizer}
    encoder = model.text_encoder if isinstance(model.text_encoder, TinyTextEncoder) else None
    if encoder is not None:
        parts[TEXT_ENCODER] = encoder
    description = {
        **(facts or {}),
        "family": "infinity",
        "name": model.name,
        "classes": list(model.class_names),
        "transformer": asdict(model.transformer.config),
        "tokenizer": asdict(model.tokenizer.config),
        "schedule": asdict(model.schedule),
    }
    if encoder is not None:
        description["text_encoder"] = asdict(encoder.config)
    save_parts(path, parts, description, dtype)


def _text_encoder(
    given: TextEncoder | str | Path | None, cache: str | Path | None, device: torch.device | str
) -> TextEncoder | None:
    if given is None:
        if cache is not None:
            raise ConfigError("cache remembers what a text encoder says: pass text_encoder too.")
        return None
    if isinstance(given, str | Path):
        from hguide.backends.infinity.text import T5TextEncoder

        given = T5TextEncoder(given, device=device)
    return given if cache is None else CachedTextEncoder(given, cache)
