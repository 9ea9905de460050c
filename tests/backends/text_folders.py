"""Folders of small text encoders with random weights, as transformers writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ("<pad>", "</s>", "<unk>", "a", "cat", "dog", "many")
LETTERS = (*"abc", *(f"{letter}</w>" for letter in "abc"), "<|startoftext|>", "<|endoftext|>")


def _letters(folder: Path, vocabulary: tuple[str, ...]) -> None:
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _save(kind: Any, config: Any, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(config.hidden_size)
        kind(config).save_pretrained(folder)


def t5_folder(folder: Path, width: int = 16) -> Path:
    """A T5 encoder of two layers; its vocabulary ends each text with `</s>`."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    ends = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **ends).save_pretrained(folder)
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(vocab_size=len(WORDS), **sizes, feed_forward_proj="gated-gelu")
    _save(transformers.T5EncoderModel, config, folder)
    return folder


def qwen_folder(folder: Path, width: int = 16) -> Path:
    """A Qwen2 language model of one layer, of the letters a, b and c."""
    transformers = pytest.importorskip("transformers")
    _letters(folder, ("<|endoftext|>", "a", "b", "c", "Ġ"))
    sizes = {"hidden_size": width, "intermediate_size": 24, "num_hidden_layers": 1, "max_position_embeddings": 1024}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    _save(transformers.Qwen2Model, transformers.Qwen2Config(vocab_size=5, **sizes, **heads), folder)
    return folder


def clip_folder(folder: Path, width: int) -> Path:
    """A CLIP text tower of one layer, of the letters a, b and c."""
    transformers = pytest.importorskip("transformers")
    _letters(folder, LETTERS)
    transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    sizes = {"vocab_size": len(LETTERS), "hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 1}
    ends = {"bos_token_id": 6, "eos_token_id": 7, "pad_token_id": 7}
    _save(transformers.CLIPTextModel, transformers.CLIPTextConfig(**sizes, **ends, num_attention_heads=2), folder)
    return folder
