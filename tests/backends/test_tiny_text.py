"""The tiny text encoder keeps the promises of the text encoder protocol."""

from __future__ import annotations

import pytest
import torch

from hguide.backends.text import TextEncoder
from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.errors import ConfigError


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TinyTextEncoder(TinyTextConfig(dim=16, tokens=8, heads=2)).eval()


def test_it_is_a_text_encoder_with_masked_padding(encoder):
    assert isinstance(encoder, TextEncoder)
    embeddings, mask = encoder.encode(["forest", "sea"])
    assert embeddings.shape == (2, 8, 16)
    assert mask.sum(1).tolist() == [6, 3]
    assert torch.equal(embeddings[~mask], torch.zeros(7, 16))


def test_padding_and_case_change_nothing_and_order_of_letters_does(encoder):
    alone, _ = encoder.encode(["sea"])
    beside, _ = encoder.encode(["longer text than eight", " Sea "])
    torch.testing.assert_close(alone[0], beside[1], rtol=0, atol=1e-6)
    swapped, _ = encoder.encode(["aes"])
    assert (alone - swapped).abs().max() > 1e-3
    longer = TinyTextEncoder(TinyTextConfig(dim=16, tokens=12, heads=2)).eval()
    state = encoder.state_dict() | {"positions": torch.cat([encoder.positions.data, torch.ones(4, 16)])}
    longer.load_state_dict(state)
    torch.testing.assert_close(longer.encode(["sea"])[0][0, :3], alone[0, :3], rtol=0, atol=1e-6)


def test_the_fingerprint_follows_the_weights(encoder):
    before = encoder.fingerprint
    assert encoder.fingerprint == before
    with torch.no_grad():
        encoder.positions[0, 0] += 1e-3
    assert encoder.fingerprint != before


def test_gradients_reach_the_bytes(encoder):
    encoder(*encoder.tokenise(["sea"])).square().sum().backward()
    found = encoder.byte_embed.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert found == sorted(ord(letter) + 1 for letter in "sea")


def test_empty_prompts_and_impossible_sizes_are_refused(encoder):
    with pytest.raises(ConfigError, match="must not be empty"):
        encoder.encode(["sea", "  "])
    with pytest.raises(ConfigError, match="multiple of heads"):
        TinyTextConfig(dim=10, heads=4)
