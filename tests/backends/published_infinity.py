"""The published files of Infinity, made of small models."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hguide.backends.infinity import Infinity

LONG = {"conv1": "conv1.conv", "conv2": "conv2.conv", "norm1": "norm1.norm", "norm2": "norm2.norm"}
State = dict[str, Tensor]


TOKENIZER_FILE = "infinity_vae_d16.pth"


def official_transformer(model: Infinity) -> State:
    """The state dict under the official names, buffers included."""
    chunks = model.transformer.config.chunks
    per_chunk = model.transformer.config.depth // chunks
    state: State = {}
    for key, value in model.transformer.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts = [
                "block_chunks",
                str(int(parts[1]) // per_chunk),
                "module",
                str(int(parts[1]) % per_chunk),
                *parts[2:],
            ]
        state[".".join(parts)] = value.clone()
        if key.endswith("v_bias"):
            state[".".join([*parts[:-1], "zero_k_bias"])] = torch.zeros_like(value)
    return state


def official_tokenizer(model: Infinity, long: bool) -> State:
    """The state dict under the official names, with the inner names or without."""
    state: State = {}
    for key, value in model.tokenizer.state_dict().items():
        parts = key.split(".")
        if long:
            inner = "norm" if "norm" in parts[-2] else "conv"
            parts = [*parts[:-1], inner, parts[-1]]
        state[".".join(parts)] = value.clone()
    return {**state, "quantizer.lfq.mask": torch.arange(4), "quantize.lfq.mask": torch.arange(4)}


def write_shards(folder: Path, state: State, suffix: str) -> Path:
    """Two shards and an index, as the 8B models have them."""
    folder.mkdir(exist_ok=True)
    names = list(state)
    files = {name: f"model-{1 + (place >= len(names) // 2):05d}-of-00002{suffix}" for place, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: state[name] for name in names if files[name] == file}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index
