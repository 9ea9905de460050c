"""The T5 encoder of Infinity: length, mask, end token, type, and what is loaded when."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from text_folders import t5_folder

from hguide.backends.infinity.text import T5TextEncoder
from hguide.backends.text import CachedTextEncoder, TextEncoder, embed
from hguide.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5_folder(tmp_path_factory.mktemp("t5"))


def encoder(folder: Path, **options: Any) -> T5TextEncoder:
    return T5TextEncoder(folder, **({"length": 6, "dtype": torch.float32} | options))


def test_a_prompt_is_padded_masked_and_ends_with_its_end_token(folder: Path) -> None:
    own = encoder(folder)
    assert isinstance(own, TextEncoder)
    embeddings, mask = own.encode(["a cat", "", "a dog a dog a dog a dog"])
    assert embeddings.shape == (3, 6, 16)
    assert embeddings.dtype == torch.float32
    assert mask.sum(1).tolist() == [3, 1, 6]  # words and the end token; cut at the length
    assert not embeddings[~mask].any()
    assert own.dim == 16


def test_padding_is_masked_in_the_encoder(folder: Path) -> None:
    """The features of a prompt are those of its tokens alone, and do not depend on other prompts."""
    own = encoder(folder)
    embeddings, mask = own.encode(["a cat"])
    bare = own.model(input_ids=torch.tensor([[3, 4, 1]])).last_hidden_state
    torch.testing.assert_close(embeddings[mask], bare[0], atol=1e-5, rtol=0)
    assert torch.equal(own.encode(["many dog", "a cat"])[0][1], embeddings[0])


def test_the_encoder_computes_in_half_precision_and_answers_in_float32(folder: Path) -> None:
    half = encoder(folder, dtype=torch.float16)
    assert next(half.model.parameters()).dtype == torch.float16
    embeddings, _ = half.encode(["a cat"])
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, encoder(folder).encode(["a cat"])[0], atol=2e-2, rtol=2e-2)
    assert T5TextEncoder(folder).dtype == torch.float16
    assert T5TextEncoder(folder).length == 512


def test_the_rules_of_the_official_call(folder: Path) -> None:
    """Seen by a vocabulary of our own that writes down how it is asked."""
    asked: list[Any] = []

    def vocabulary(prompts: list[str], **options: Any) -> dict[str, torch.Tensor]:
        asked.append((prompts, options))
        return {"input_ids": torch.tensor([[3, 1, 0, 0, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 0, 0, 0, 0]])}

    own = encoder(folder)
    own.__dict__["tokenizer"] = vocabulary
    _, mask = own.encode(["x", "y"])
    rules = {"max_length": 6, "padding": "max_length", "truncation": True, "return_tensors": "pt"}
    assert asked == [(["x"], rules), (["y"], rules)]  # one prompt at a time
    assert mask.sum(1).tolist() == [2, 2]


def test_known_prompts_do_not_load_the_encoder(folder: Path, tmp_path: Path) -> None:
    first = embed(CachedTextEncoder(encoder(folder), tmp_path), ["a cat"])
    later = encoder(folder)
    again = embed(CachedTextEncoder(later, tmp_path), ["a cat"])
    assert torch.equal(first[0].embedding, again[0].embedding)
    assert not {"model", "tokenizer"} & set(later.__dict__)
    assert encoder(folder, length=7).fingerprint != later.fingerprint


def test_what_cannot_be_loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="no such folder; pass the folder of a T5 encoder"):
        T5TextEncoder(tmp_path / "absent")
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        T5TextEncoder(folder, length=0)
    for part in ("dim", "tokenizer", "model"):
        with pytest.raises(CheckpointError, match=r"of a T5 (model|encoder) \("):
            getattr(T5TextEncoder(tmp_path), part)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'hguide\[text\]'"):
        encoder(folder).encode(["a cat"])


def test_code_in_the_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    (evil / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: d_model = 3\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for part in ("dim", "tokenizer"):
        with pytest.raises(CheckpointError, match=r"of a T5 model \("):
            getattr(T5TextEncoder(evil), part)
    assert not (tmp_path / "ran").exists()
