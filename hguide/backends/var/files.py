"""Reading and writing VAR models: hguide's own single file, and the published pair of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.conv_autoencoder import channels_last_on_cpu
from hguide.backends.hub import OFFICIAL_FILES, fetch
from hguide.backends.model_file import described, filled, is_ours, part, read_parts, save_parts
from hguide.backends.patch_nums import checked_patch_nums
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.generator import VAR
from hguide.backends.var.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.var.official_buffers import without_buffers
from hguide.backends.var.tokenizer import UNUSED_KEYS, VARTokenizer, described_tokenizer
from hguide.backends.var.transformer import TransformerConfig, VARTransformer
from hguide.errors import CheckpointError, ConfigError

__all__ = ["load", "load_pair", "load_single", "save"]

TRANSFORMER = "transformer."
TOKENIZER = "tokenizer."
TOKENIZER_FILE = "vae_ch160v4096z32.pth"


def load(
    source: str | Path,
    *,
    file: str | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    patch_nums: tuple[int, ...] | None = None,
    heads: int | None = None,
    compile: bool = False,
    graphs: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VAR:
    """A VAR model from files.

    Args:
        source: hguide's single file; or the transformer's file, folder, official name or hub id.
        file: the transformer's file inside a folder or hub repository.
        tokenizer: the tokenizer's file; by default the published one, beside the transformer or in its repository. For
            a file of ours that holds a transformer alone, the file whose tokenizer it takes.
        revision: of the hub repository.
        patch_nums: the schedule, where the weights do not tell it.
        heads: number of heads, where the weights do not tell it; another number than they tell is refused.
        compile: see `VAR.with_options`.
        graphs: see `VAR.with_options`.
        device: where the model computes.
        dtype: of the transformer; the tokenizer and the latent stay float32 where that is wider.

    Returns:
        The generator.

    Raises:
        CheckpointError: no usable weights; lists wrong or missing names.
        ConfigError: patch_nums that are none, or graphs of a model that is not on a CUDA device.
    """
    patch_nums = checked_patch_nums(patch_nums)
    path = fetch(source, file, revision)
    if is_ours(path):
        model = load_single(path, tokenizer=tokenizer, dtype=dtype)
    else:
        other = tokenizer if tokenizer is not None else _tokenizer_beside(source, path, patch_nums, heads)
        beside = fetch(other, None, revision)
        model = load_pair(path, beside, patch_nums=patch_nums, heads=heads, dtype=dtype)
    model.transformer.to(device)
    model.tokenizer.to(device)
    channels_last_on_cpu(model.tokenizer.decoder)
    return model.with_options(compile=compile, graphs=graphs) if compile or graphs else model


def load_single(
    path: Path,
    name: str | None = None,
    tokenizer: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> VAR:
    """The model of a file that `save` wrote.

    Args:
        path: of the file.
        name: of the model; the file's own by default.
        tokenizer: where the file holds a transformer alone, the file of ours with its tokenizer; by default that of
            the model which it names, beside it.
        dtype: of the transformer; the tokenizer's is float32.

    Raises:
        CheckpointError: no such file, another description, or a tokenizer that the transformer was not trained on.
    """
    facts = described(path, "var")
    shares = "tokenizer_of" in facts
    try:
        config = _transformer_config(facts["transformer"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description does not fit a VAR model: {error!r}.") from error
    weights, *pictures = read_parts(path, *((TRANSFORMER,) if shares else (TRANSFORMER, TOKENIZER)))
    transformer = filled(lambda: VARTransformer(config).to(dtype), weights)
    found = _shared_tokenizer(path, facts, tokenizer) if shares else _tokenizer(path, facts, *pictures)
    return VAR(transformer, found, name=name or facts.get("name", path.stem), classes=facts.get("classes", ()))


def load_pair(
    transformer_path: Path,
    tokenizer_path: Path,
    *,
    patch_nums: tuple[int, ...] | None = None,
    heads: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> VAR:
    """The model of a transformer's and a tokenizer's file with the published names; sizes are read off the weights."""
    state = _transformer_weights(transformer_path)
    config = infer_transformer_config(state, patch_nums, heads)
    transformer = filled(lambda: VARTransformer(config).to(dtype), without_buffers(state, config))
    pictures = read_state_dict(tokenizer_path, ("vae_local",))
    sizes = infer_tokenizer_config(pictures, config.patch_nums)
    tokenizer = filled(lambda: VARTokenizer(sizes), pictures, UNUSED_KEYS)
    return VAR(transformer, tokenizer, name=transformer_path.stem)


def save(
    model: VAR,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    facts: Mapping[str, Any] | None = None,
    tokenizer_of: str | None = None,
) -> None:
    """Write transformer, tokenizer and description into one safetensors file.

    Args:
        model: to write.
        path: ends in `.safetensors`; replaced whole or not at all.
        dtype: of the stored weights.
        facts: more to describe it (training, source), stored beside the configuration.
        tokenizer_of: name of a model with the same tokenizer: the file then holds the transformer alone and takes the
            tokenizer from NAME.safetensors beside it.
    """
    parts = {TRANSFORMER: model.transformer, **({} if tokenizer_of else {TOKENIZER: model.tokenizer})}
    description = {
        **(facts or {}),
        "family": "var",
        "name": model.name,
        "classes": list(model.class_names),
        "transformer": asdict(model.transformer.config),
        "tokenizer": asdict(model.tokenizer.config),
    }
    if tokenizer_of:
        description |= {"tokenizer_of": tokenizer_of, "tokenizer_hash": tokenizer_hash(model.tokenizer)}
    save_parts(path, parts, description, dtype)


def _transformer_weights(path: Path) -> dict[str, Tensor]:
    return read_state_dict(path, ("var_wo_ddp",))


def _transformer_config(facts: Mapping[str, Any]) -> TransformerConfig:
    return TransformerConfig(**{**facts, "patch_nums": tuple(facts["patch_nums"])})


def _tokenizer(path: Path, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> VARTokenizer:
    """The tokenizer of a file that holds one."""
    try:
        config = described_tokenizer(facts["tokenizer"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description does not fit a VAR model: {error!r}.") from error
    return filled(lambda: VARTokenizer(config), weights)


def _shared_tokenizer(path: Path, facts: Mapping[str, Any], given: str | Path | None) -> VARTokenizer:
    """The tokenizer of another file of ours, for a file that holds a transformer alone."""
    owner = str(facts["tokenizer_of"])
    if Path(owner).name != owner:
        raise CheckpointError(f"{path}: its description is damaged: {owner!r} is no name of a model.")
    other = path.with_name(f"{owner}.safetensors") if given is None else Path(given).expanduser()
    if not other.is_file():
        raise CheckpointError(
            f"{path} holds a transformer alone, with the tokenizer of {owner}, but there is no {other}: put that file "
            "beside it, or pass tokenizer=PATH."
        )
    tokenizer = _tokenizer(other, described(other, "var"), part(read_state_dict(other), TOKENIZER))
    if tokenizer_hash(tokenizer) != facts["tokenizer_hash"]:
        raise CheckpointError(
            f"{path} was trained on the tokenizer of another {owner} than {other}: its tokens mean other things."
        )
    return tokenizer


def _tokenizer_beside(
    source: str | Path, path: Path, patch_nums: tuple[int, ...] | None, heads: int | None
) -> str | Path:
    beside = path.with_name(TOKENIZER_FILE)
    if beside.is_file():
        return beside
    if Path(source).expanduser().exists():
        # A file that is no transformer needs no tokenizer: what is wrong with it comes first.
        infer_transformer_config(_transformer_weights(path), patch_nums, heads)
        raise CheckpointError(
            f"{path} holds a transformer; its tokenizer ({TOKENIZER_FILE}) is not beside it: pass tokenizer=PATH."
        )
    return next(name for name, (_, file) in OFFICIAL_FILES.items() if file == TOKENIZER_FILE)
