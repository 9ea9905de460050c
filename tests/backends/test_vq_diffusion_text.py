"""CLIP's text tower: what the denoiser is given of a prompt. The towers here are tiny and random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hguide.backends.text import CachedTextEncoder, TextEncoder, embed
from hguide.backends.vq_diffusion import CLIPTextEncoder, clip_text_encoder
from hguide.errors import CheckpointError

START, END, LENGTH, WIDTH = 58, 59, 8, 12


class FakeTokenizer:
    """Letters as tokens between start and end; over-long texts keep their end, as CLIP's own does."""

    def __call__(self, texts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        assert truncation
        rows = [[START, *(ord(c) - ord("a") + 1 for c in each)] for each in texts]
        return {"input_ids": [[*row[: max_length - 1], END] for row in rows]}


def tower() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2}
    rest = {"num_attention_heads": 2, "max_position_embeddings": LENGTH, "bos_token_id": START, "eos_token_id": END}
    return CLIPTextModel(CLIPTextConfig(**sizes, **rest, pad_token_id=END)).eval().requires_grad_(False)


def encoder(model: torch.nn.Module) -> CLIPTextEncoder:
    return CLIPTextEncoder(lambda: (model, FakeTokenizer()), WIDTH, lambda: "files", length=LENGTH)


def by_hand(model: torch.nn.Module, tokens: list[int]) -> Tensor:
    hidden = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    return hidden / hidden.norm(dim=-1, keepdim=True)


def test_tokens_are_padded_with_zero_and_vectors_have_length_one() -> None:
    model = tower()
    found, mask = encoder(model).encode(["Ab", ""])
    assert isinstance(encoder(model), TextEncoder)
    assert found.dtype == torch.float32
    assert torch.allclose(found[0], by_hand(model, [START, 1, 2, END, 0, 0, 0, 0]), atol=1e-5)
    assert torch.allclose(found[1], by_hand(model, [START, END, 0, 0, 0, 0, 0, 0]), atol=1e-5)
    assert torch.allclose(found.norm(dim=-1), torch.ones(2, LENGTH), atol=1e-5)
    assert mask.tolist() == [[True] * 4 + [False] * 4, [True] * 2 + [False] * 6]


def test_an_end_token_as_padding_would_be_seen() -> None:
    model = tower()
    (found,), _ = encoder(model).encode(["ab"])
    other = by_hand(model, [START, 1, 2, END, END, END, END, END])
    assert torch.allclose(found[:4], other[:4], atol=1e-5)  # the tower looks back only
    assert not torch.allclose(found[4:], other[4:], atol=1e-2)


def test_long_prompts_keep_their_end() -> None:
    model = tower()
    (found,), (mask,) = encoder(model).encode(["abcdefghijkl"])
    assert torch.allclose(found, by_hand(model, [START, 1, 2, 3, 4, 5, 6, END]), atol=1e-5)
    assert bool(mask.all())


def test_the_hidden_states_are_those_after_the_final_norm() -> None:
    model = tower()
    norm = next(module for name, module in model.named_modules() if name.endswith("final_layer_norm"))
    seen: list[Tensor] = []
    hook = norm.register_forward_hook(lambda module, given, output: seen.append(output))
    (found,), _ = encoder(model).encode(["abc"])
    hook.remove()
    assert torch.allclose(found, torch.nn.functional.normalize(seen[0][0], dim=-1), atol=1e-6)


def test_embeddings_are_kept_on_disk(tmp_path: Path) -> None:
    cached = CachedTextEncoder(encoder(tower()), tmp_path)
    first = embed(cached, ["ab"])[0]
    never = CLIPTextEncoder(lambda: pytest.fail("loaded"), WIDTH, lambda: "files", length=LENGTH)
    assert torch.equal(embed(CachedTextEncoder(never, tmp_path), ["ab"])[0].embedding, first.embedding)
    assert encoder(tower()).fingerprint == never.fingerprint
    assert CLIPTextEncoder(lambda: None, WIDTH, lambda: "files", length=9).fingerprint != never.fingerprint


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no CLIP text encoder: its config.json is missing"):
        clip_text_encoder(tmp_path)
    tower().save_pretrained(tmp_path)
    found = clip_text_encoder(tmp_path)
    assert found.dim == WIDTH
    assert found.fingerprint == clip_text_encoder(tmp_path).fingerprint
    with pytest.raises(CheckpointError, match="transformers cannot load the text encoder"):
        found.encode(["ab"])  # there is no vocabulary in the folder
