"""What the text encoders of all families share: embeddings, conditions, and the cache on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hguide.backends.text import (
    CachedTextEncoder,
    TextEmbedding,
    TextEncoder,
    class_prompts,
    embed,
    folder_fingerprint,
    text_conditions,
)
from hguide.errors import CheckpointError, ConfigError, ShapeError


class Letters:
    """Embeds the letters of a prompt; counts what it is asked."""

    dim = 3

    def __init__(self, fingerprint: str = "letters", factor: float = 1.0) -> None:
        self.fingerprint, self.factor = fingerprint, factor
        self.asked: list[list[str]] = []

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        self.asked.append(list(prompts))
        codes = torch.tensor([[float(ord(c)) for c in prompt[:5].ljust(5)] for prompt in prompts])
        return self.factor * codes[:, :, None].expand(-1, -1, 3), codes != ord(" ")


def test_prompts_are_encoded_once_and_alone() -> None:
    encoder = Letters()
    found = embed(encoder, ["ab", "c", "ab"])
    assert encoder.asked == [["ab"], ["c"]]
    assert found[0] is found[2]
    assert found[1].mask.tolist() == [True, False, False, False, False]
    assert isinstance(encoder, TextEncoder)
    assert isinstance(CachedTextEncoder(encoder, "folder"), TextEncoder)


def test_conditions_are_prompts_embeddings_or_none() -> None:
    own = TextEmbedding(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool))
    found = text_conditions("model", ["ab", own, None], Letters(), 3)
    assert found[0] is not None
    assert found[0].embedding[0, 0] == ord("a")
    assert found[1] is own
    assert found[2] is None
    assert text_conditions("model", [own, None], None, 3) == [own, None]
    with pytest.raises(ConfigError, match="model: the prompt 'ab' needs a text encoder.*TextEmbedding"):
        text_conditions("model", ["ab"], None, 3)
    with pytest.raises(ConfigError, match="model: takes text embeddings of 4 channels, got 3"):
        text_conditions("model", [own], None, 4)
    with pytest.raises(ConfigError, match="model: a condition is a prompt, a TextEmbedding or None, got 7"):
        text_conditions("model", [7], None, 3)


def test_embeddings_are_checked() -> None:
    for embedding, mask in (
        (torch.zeros(2, 3), torch.ones(3, dtype=torch.bool)),
        (torch.zeros(2), torch.ones(2, dtype=torch.bool)),
        (torch.zeros(2, 3), torch.ones(2)),
    ):
        with pytest.raises((ShapeError, TypeError), match=r"\(tokens, dim\)|violates|type"):
            TextEmbedding(embedding, mask)


def test_a_known_prompt_does_not_ask_the_encoder(tmp_path: Path) -> None:
    encoder = Letters()
    first = CachedTextEncoder(encoder, tmp_path / "texts").encode(["ab", "c"])
    again = CachedTextEncoder(Letters(), tmp_path / "texts")
    second = again.encode(["c", "ab"])
    assert again.encoder.asked == []
    assert torch.equal(first[0].flip(0), second[0])
    assert torch.equal(first[1].flip(0), second[1])
    assert encoder.asked == [["ab"], ["c"]]
    assert len(list((tmp_path / "texts").iterdir())) == 2


def test_another_encoder_has_its_own_embeddings(tmp_path: Path) -> None:
    one = CachedTextEncoder(Letters(), tmp_path).encode(["ab"])[0]
    other = CachedTextEncoder(Letters("others", 2.0), tmp_path).encode(["ab"])[0]
    assert torch.equal(other, 2 * one)


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    cached = CachedTextEncoder(Letters(), tmp_path)
    wanted = cached.encode(["ab"])[0]
    path = cached.path("ab")
    path.write_bytes(path.read_bytes()[:40])
    assert torch.equal(cached.encode(["ab"])[0], wanted)
    again = CachedTextEncoder(Letters(), tmp_path)
    assert torch.equal(again.encode(["ab"])[0], wanted)
    assert again.encoder.asked == []


def test_fingerprints_see_every_file_and_rule(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub" / "weights.bin").write_bytes(b"1234")
    seen = {folder_fingerprint(tmp_path), folder_fingerprint(tmp_path, "300")}
    (tmp_path / "sub" / "weights.bin").write_bytes(b"1235")
    seen.add(folder_fingerprint(tmp_path))
    (tmp_path / "sub" / "weights.bin").rename(tmp_path / "weights.bin")
    seen.add(folder_fingerprint(tmp_path))
    assert len(seen) == 4
    assert folder_fingerprint(tmp_path) in seen
    with pytest.raises(CheckpointError, match="no such folder"):
        folder_fingerprint(tmp_path / "nowhere")


def test_class_numbers_become_prompts() -> None:
    given = [1, "a lake", None, True, 0]
    assert class_prompts("g", given, ("farm", "harbor")) == ["harbor", "a lake", None, True, "farm"]
    assert class_prompts("g", given, ()) == given
    for wrong in (2, -1):
        with pytest.raises(ConfigError, match=f"g: a class is a number from 0 to 1, got {wrong}"):
            class_prompts("g", [wrong], ("farm", "harbor"))
