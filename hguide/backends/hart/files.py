"""Reading and writing HART models: hguide's own single file, and the published folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from hguide.backends.conv_autoencoder import channels_last_on_cpu
from hguide.backends.hart.generator import HART
from hguide.backends.hart.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.hart.official_buffers import without_buffers
from hguide.backends.hart.text import official_instruction, qwen_text_encoder
from hguide.backends.hart.tokenizer import HARTTokenizer
from hguide.backends.hart.transformer import HARTTransformer
from hguide.backends.hart.transformer_config import TransformerConfig
from hguide.backends.hub_folder import fetch_folder
from hguide.backends.model_file import config_beside, described, filled, is_ours, read_parts, save_parts
from hguide.backends.patch_nums import checked_patch_nums
from hguide.backends.text import CachedTextEncoder, TextEncoder
from hguide.backends.tiny_text import TEXT_ENCODER, TinyTextConfig, TinyTextEncoder, saved_tiny_text
from hguide.backends.var.tokenizer import described_tokenizer
from hguide.backends.weights_folder import find_weights, read_weights
from hguide.errors import CheckpointError, ConfigError

__all__ = ["REPOSITORY", "load", "load_pair", "load_single", "save"]

REPOSITORY = "mit-han-lab/hart-0.7b-1024px"
TRANSFORMER = "transformer."
TOKENIZER = "tokenizer."
EMA = "ema_model.bin"
WRAPPED = ("ema", "model", "module", "state_dict", "trainer")
DOWNLOADED = ("llm/*", "tokenizer/*")
UNSET: Final = "unset"


def load(
    source: str | Path,
    *,
    tokenizer: str | Path | None = None,
    ema: bool = True,
    text_encoder: TextEncoder | str | Path | None = None,
    system_prompt: str | Path | None = UNSET,
    cache: str | Path | None = None,
    revision: str | None = None,
    patch_nums: tuple[int, ...] | None = None,
    graphs: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> HART:
    """A HART model from files.

    Args:
        source: hguide's single file; or the published folder (with `llm` and `tokenizer` in it), its `llm` folder, a
            file of the transformer's weights, or the hub id.
        tokenizer: the tokenizer's folder or file; by default the folder beside `llm`.
        ema: take the averaged weights of a folder (`ema_model.bin`), as the official programs do.
        text_encoder: of prompts: a folder or hub id of the published Qwen2, or any `TextEncoder`; None for the one
            that hguide's own file may carry, else conditions are embeddings.
        system_prompt: the instruction that the official program puts in front of each prompt, as text or file
            (`official_instruction`); None for none, which the model was not trained with.
        cache: folder that remembers embeddings of prompts.
        revision: of the hub repository.
        patch_nums: the schedule, where neither the weights nor a config.json tells it.
        graphs: see `HART.with_options`.
        device: where the model computes.
        dtype: of the transformer and the text encoder; the tokenizer and the latent stay float32.

    Raises:
        CheckpointError: no usable weights; lists wrong or missing names.
        ConfigError: a text encoder without a statement on the instruction, or another instruction; patch_nums that are
            none; graphs of a model that is not on a CUDA device.
    """
    encoder = _text_encoder(text_encoder, system_prompt, cache, device, dtype)
    patch_nums = checked_patch_nums(patch_nums)
    path = Path(source).expanduser()
    if is_ours(path):
        model = load_single(path, encoder, dtype=dtype)
    else:
        if not path.is_file():
            folder = fetch_folder(source, revision, DOWNLOADED)
            path = _transformer_file(folder / "llm" if (folder / "llm").is_dir() else folder, ema)
        pictures = _tokenizer_file(path, tokenizer)
        model = load_pair(path, pictures, encoder, patch_nums=patch_nums, dtype=dtype)
    model.transformer.to(device)
    model.tokenizer.to(device)
    channels_last_on_cpu(model.tokenizer.decoder)
    if isinstance(model.text_encoder, TinyTextEncoder):
        model.text_encoder.to(device)
    return model.with_options(graphs=True) if graphs else model


def load_pair(
    transformer_path: Path,
    tokenizer_path: Path,
    text_encoder: TextEncoder | None = None,
    *,
    patch_nums: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> HART:
    """The model of a transformer's and a tokenizer's weights with the published names.

    Sizes are read off the weights; a config.json beside them must agree. Files are mapped, and what the model does not
    need of them (buffers, the discriminator) is never read.

    Args:
        transformer_path: a file, or the index of shards.
        tokenizer_path: the same.
        text_encoder: of prompts.
        patch_nums: the schedule, where nothing else tells it.
        dtype: of the transformer.

    Raises:
        CheckpointError: no usable weights.
    """
    state = read_weights(transformer_path, WRAPPED)
    config = infer_transformer_config(state, config_beside(transformer_path), patch_nums)
    transformer = filled(lambda: HARTTransformer(config).to(dtype), without_buffers(state, config))
    pictures = read_weights(tokenizer_path, WRAPPED)
    tokenizer_config, own = infer_tokenizer_config(pictures, config_beside(tokenizer_path))
    tokenizer = filled(lambda: HARTTokenizer(tokenizer_config), own)
    folder = transformer_path.parent
    name = folder.parent.name if folder.name == "llm" else transformer_path.stem
    return HART(transformer, tokenizer, text_encoder, name=name)


def load_single(path: Path, text_encoder: TextEncoder | None = None, *, dtype: torch.dtype = torch.float32) -> HART:
    """The model of a file that `save` wrote, with the text encoder in it where no other is given."""
    facts = described(path, "hart")
    try:
        text = TinyTextConfig(**facts["text_encoder"]) if "text_encoder" in facts else None
        config = TransformerConfig(**{**facts["transformer"], "patch_nums": tuple(facts["transformer"]["patch_nums"])})
        tokenizer_config = described_tokenizer(facts["tokenizer"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description does not fit a HART model: {error!r}.") from error
    weights, pictures, *texts = read_parts(path, TRANSFORMER, TOKENIZER, *((TEXT_ENCODER,) if text else ()))
    transformer = filled(lambda: HARTTransformer(config).to(dtype), weights)
    tokenizer = filled(lambda: HARTTokenizer(tokenizer_config), pictures)
    name = facts.get("name", path.stem)
    own_encoder = None if text is None else saved_tiny_text(text, *texts)
    encoder = own_encoder if text_encoder is None else text_encoder
    return HART(transformer, tokenizer, encoder, name=name, classes=facts.get("classes", ()))


def save(
    model: HART, path: Path, *, dtype: torch.dtype = torch.float32, facts: Mapping[str, Any] | None = None
) -> None:
    """Write transformer, tokenizer and description into one safetensors file.

    A tiny text encoder goes into it too; any other stays outside.

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
        "family": "hart",
        "name": model.name,
        "classes": list(model.class_names),
        "transformer": asdict(model.transformer.config),
        "tokenizer": asdict(model.tokenizer.config),
        **({} if encoder is None else {"text_encoder": asdict(encoder.config)}),
    }
    save_parts(path, parts, description, dtype)


def _text_encoder(
    given: TextEncoder | str | Path | None,
    system_prompt: str | Path | None,
    cache: str | Path | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> TextEncoder | None:
    if given is None:
        if system_prompt != UNSET or cache is not None:
            raise ConfigError("system_prompt and cache belong to a text encoder: pass text_encoder too.")
        return None
    if isinstance(given, str | Path):
        if system_prompt == UNSET:
            raise ConfigError(
                "HART was trained with an instruction in front of each prompt, which is not part of this package: pass "
                "system_prompt=FILE with its text (official hart/utils/constants.py), or system_prompt=None to go "
                "without it."
            )
        instruction = None if system_prompt is None else official_instruction(system_prompt)
        folder = fetch_folder(given)
        given = qwen_text_encoder(folder, system_prompt=instruction, device=device, dtype=dtype)
    elif system_prompt != UNSET:
        raise ConfigError("system_prompt belongs to a folder of Qwen2; an encoder of your own brings its own.")
    return given if cache is None else CachedTextEncoder(given, cache)


def _transformer_file(folder: Path, ema: bool) -> Path:
    if not ema:
        return find_weights(folder)
    if (folder / EMA).is_file():
        return folder / EMA
    raise CheckpointError(f"{folder}: no {EMA}; pass ema=False for the weights that are not averaged.")


def _tokenizer_file(transformer_path: Path, given: str | Path | None) -> Path:
    """The tokenizer's weights: as given, or of the folder `../tokenizer`, as in the published layout."""
    if given is not None:
        path = Path(given).expanduser()
        return path if path.is_file() else find_weights(path)
    beside = transformer_path.parent.parent / "tokenizer"
    if beside.is_dir():
        return find_weights(beside)
    raise CheckpointError(
        f"{transformer_path} holds a transformer; its tokenizer's folder is not at {beside}: pass tokenizer=PATH."
    )
