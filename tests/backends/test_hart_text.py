"""HART's rules around its language model, on a small random Qwen2 and a tokenizer of letters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hguide.backends.hart import text as hart_text
from hguide.backends.hart.text import QwenTextEncoder, official_instruction, qwen_text_encoder
from hguide.errors import CheckpointError, ConfigError

WIDTH, TOKENS, PAD = 16, 7, 0


class Letters:
    """One token per letter; pads on either side."""

    pad_token_id = PAD

    def __init__(self, side: str = "right") -> None:
        self.side = side

    def __call__(
        self, text: str | list[str], *, max_length: int, truncation: bool, return_tensors: str, **options: Any
    ):
        assert truncation
        assert return_tensors == "pt"
        rows = [[ord(c) % 30 + 1 for c in each][:max_length] for each in ([text] if isinstance(text, str) else text)]
        if options.get("padding") == "max_length":
            pads = [[PAD] * (max_length - len(row)) for row in rows]
            right = self.side == "right"
            rows = [row + pad if right else pad + row for row, pad in zip(rows, pads, strict=True)]
        return {"input_ids": torch.tensor(rows)}


@pytest.fixture(scope="module")
def model() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=40,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    return transformers.Qwen2Model(config).eval()


def encoder(model: Any, system: str | None, side: str = "right") -> QwenTextEncoder:
    return QwenTextEncoder(
        lambda: (model, Letters(side)), WIDTH, lambda: "tiny", system_prompt=system, max_tokens=TOKENS
    )


@torch.no_grad()
def by_hand(model: Any, tokens: Sequence[int], mask: Sequence[bool]) -> torch.Tensor:
    output = model(
        input_ids=torch.tensor([list(tokens)]),
        attention_mask=torch.tensor([list(mask)]).long(),
        output_hidden_states=True,
    )
    return output.hidden_states[-1][0]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("system", [None, "say:"])
def test_the_model_sees_the_instruction_then_the_padded_prompt(model: Any, side: str, system: str | None) -> None:
    prompts = ["abc", "defghijkl"]  # the second is cut
    found, mask = encoder(model, system, side).encode(prompts)
    assert tuple(found.shape) == (2, TOKENS, WIDTH)
    assert found.dtype == torch.float32
    assert mask.sum(1).tolist() == [3, TOKENS]
    assert mask[0].tolist() == ([True] * 3 + [False] * 4 if side == "right" else [False] * 4 + [True] * 3)
    head = [] if system is None else [ord(c) % 30 + 1 for c in system]
    for row, prompt in enumerate(prompts):
        letters = [ord(c) % 30 + 1 for c in prompt][:TOKENS]
        pads = [PAD] * (TOKENS - len(letters))
        tokens = letters + pads if side == "right" else pads + letters
        wanted = by_hand(model, head + tokens, [True] * len(head) + [t != PAD for t in tokens])[len(head) :]
        if system is None and side == "left":
            # Where nothing may be seen, padding in front is whatever the attention makes of no key at all.
            torch.testing.assert_close(found[row][mask[row]], wanted[mask[row]], atol=1e-5, rtol=0)
        else:
            torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=0)


def test_padding_is_not_zeroed_and_the_instruction_is_read(model: Any) -> None:
    plain, mask = encoder(model, None).encode(["abc"])
    instructed, _ = encoder(model, "say:").encode(["abc"])
    assert plain[0][~mask[0]].abs().min() > 0
    assert not torch.allclose(plain, instructed, atol=1e-3)


def test_nothing_is_loaded_before_the_first_prompt() -> None:
    def load() -> tuple[Any, Any]:
        raise AssertionError("loaded")

    lazy = QwenTextEncoder(load, WIDTH, lambda: "tiny", system_prompt=None)
    assert lazy.dim == WIDTH
    assert len(lazy.fingerprint) == 64
    with pytest.raises(AssertionError, match="loaded"):
        lazy.encode(["a"])


def test_fingerprints_see_the_rules(model: Any) -> None:
    encoders = [encoder(model, None), encoder(model, "say:"), encoder(model, "say :")]
    longer = QwenTextEncoder(lambda: (None, None), WIDTH, lambda: "tiny", system_prompt=None, max_tokens=8)
    assert len({each.fingerprint for each in (*encoders, longer)}) == 4


def test_the_instruction_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"not the instruction.*12 characters, expected 705 of sha256 424f7aa7b111"):
        official_instruction("two\nlines...")
    with pytest.raises(ConfigError, match="a text of 705 characters or a file"):
        official_instruction(tmp_path / "nowhere.txt")
    instruction = "Given a prompt:\nUser Prompt:\n"
    monkeypatch.setattr(hart_text, "INSTRUCTION_SHA256", hashlib.sha256(instruction.encode()).hexdigest())
    assert official_instruction(instruction) == instruction
    for written in (instruction, instruction[:-1], instruction + "\n"):
        (tmp_path / "instruction.txt").write_text(written)
        assert official_instruction(tmp_path / "instruction.txt") == instruction
        assert official_instruction(str(tmp_path / "instruction.txt")) == instruction


def test_a_folder_of_the_published_layout_is_loaded(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    made = qwen_text_encoder(tmp_path, system_prompt=None)
    assert made.dim == WIDTH
    assert made.fingerprint == qwen_text_encoder(tmp_path, system_prompt=None).fingerprint
    with pytest.raises(CheckpointError, match=r"without vocabulary \(tokenizer.json or vocab.json\)"):
        made.encode(["a"])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="transformers cannot load the text encoder"):
        made.encode(["a"])
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="config.json is missing or states no hidden_size"):
        qwen_text_encoder(tmp_path, system_prompt=None)
    with pytest.raises(CheckpointError, match="config.json is missing"):
        qwen_text_encoder(tmp_path / "nowhere", system_prompt=None)
