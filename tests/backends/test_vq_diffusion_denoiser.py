"""The denoiser's layers against dense formulas, and its shapes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_vq_diffusion import CODES, DIM, GRID, WORDS, tiny_config, tiny_tokenizer_config

from hguide.backends.vq_diffusion import VQGAN, Denoiser
from hguide.backends.vq_diffusion.blocks import AdaptiveLayerNorm, Attention, ConvMLP, QuickGELU
from hguide.backends.vq_diffusion.denoiser import ContentEmbedding
from hguide.errors import ConfigError, ShapeError, StreamError


@torch.no_grad()
def test_positions_are_read_row_by_row_of_the_larger_table() -> None:
    embedding = ContentEmbedding(tiny_config())  # maps of 3 x 4, tables of 4 and 5
    tokens = torch.randint(CODES + 1, (2, 12), generator=torch.Generator().manual_seed(0))
    found = embedding(tokens)
    for i in range(12):
        row, column = divmod(i, 5)
        expected = embedding.emb.weight[tokens[:, i]] + (
            embedding.height_emb.weight[row] + embedding.width_emb.weight[column]
        )
        assert torch.equal(found[:, i], expected)


@torch.no_grad()
def test_adaptive_norm_and_its_mean_row() -> None:
    norm = AdaptiveLayerNorm(5, 8, mean_row=True)
    x = torch.randn(2, 3, 8)
    scale, shift = (norm.linear.weight @ F.silu(norm.emb.weight.mean(0)) + norm.linear.bias).chunk(2)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * (1 + scale) + shift
    found = norm(x, torch.tensor([5, 1]))
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    assert torch.allclose(found[1], norm(x, torch.tensor([1]))[1], atol=1e-6)
    assert not torch.allclose(found[1], expected[1], atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("context", [None, 6])
def test_attention_is_dense_attention(context: int | None) -> None:
    layer = Attention(8, 2, context)
    x = torch.randn(2, 5, 8)
    source = x if context is None else torch.randn(2, 4, context)
    q, k, v = (part(each) for part, each in ((layer.query, x), (layer.key, source), (layer.value, source)))
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        heads.append((q[..., h] @ k[..., h].mT / math.sqrt(4)).softmax(-1) @ v[..., h])
    expected = layer.proj(torch.cat(heads, dim=-1))
    found = layer(x) if context is None else layer(x, source)
    assert torch.allclose(found, expected, atol=1e-6)


@torch.no_grad()
def test_convolutional_mlp_sees_the_map_row_by_row() -> None:
    mlp = ConvMLP(4, 6, GRID)
    x = torch.randn(1, 12, 4)
    maps = x.reshape(1, *GRID, 4).permute(0, 3, 1, 2)
    hidden = mlp.conv1(maps)
    expected = mlp.conv2(hidden * torch.sigmoid(1.702 * hidden)).permute(0, 2, 3, 1).reshape(1, 12, 4)
    assert torch.allclose(mlp(x), expected, atol=1e-6)
    assert QuickGELU()(torch.tensor([0.0])).item() == 0.0


@torch.no_grad()
@pytest.mark.parametrize("condition", ["class", "text"])
def test_samples_do_not_see_each_other(condition: str) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(tiny_config(condition)).eval()
    tokens = torch.randint(CODES + 1, (3, 12))
    given = torch.tensor([0, 3, 1]) if condition == "class" else torch.randn(3, WORDS, DIM)
    together = denoiser(tokens, 4, given)
    assert together.shape == (3, 12, CODES)
    for i in range(3):
        assert torch.allclose(denoiser(tokens[i : i + 1], 4, given[i : i + 1])[0], together[i], atol=1e-5)
    assert not torch.allclose(denoiser(tokens, 5, given), together, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 15}, "width must be a multiple of heads"),
        ({"grid": (9, 9)}, "more tokens than the tables of positions"),
        ({"timesteps": 1}, "timesteps must be at least 2"),
        ({"codes": 0, "depth": -1}, "codes must be a positive integer.*depth must be"),
        ({"condition": "audio"}, "condition is 'class' or 'text'"),
        ({"classes": 0}, "classes must be a positive integer"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be a positive number"),
        ({"grid": (0, 4)}, "grid must be two positive integers"),
    ],
)
def test_configurations_that_cannot_work(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


# The tokenizer


@torch.no_grad()
@pytest.mark.parametrize("assignment", ["nearest", "logits"])
def test_codes_of_an_image_are_those_of_a_search(assignment: str) -> None:
    torch.manual_seed(0)
    tokenizer = VQGAN(tiny_tokenizer_config(assignment=assignment, codes=9)).eval()
    tokenizer.codes.copy_(torch.tensor([0, 2, 3, 4, 5, 7, 8, 10, 11]))
    images = torch.rand(2, 3, 6, 8) * 2 - 1
    latent = tokenizer.quant_conv(tokenizer.encoder(images)).permute(0, 2, 3, 1)
    if assignment == "nearest":
        rows = (latent[..., None, :] - tokenizer.codebook.weight).square().sum(-1).argmin(-1)
    else:
        rows = (latent @ tokenizer.assign.weight[:, :, 0, 0].T + tokenizer.assign.bias).argmax(-1)
    back = {row: k for k, row in enumerate(tokenizer.codes.tolist())}
    expected = torch.tensor([back.get(row, 0) for row in rows.flatten().tolist()]).view(2, *GRID)
    assert torch.equal(tokenizer.encode(images), expected)


@torch.no_grad()
def test_codes_decode_through_their_row_and_the_mask_as_the_mean() -> None:
    torch.manual_seed(0)
    tokenizer = VQGAN(tiny_tokenizer_config(codes=3)).eval()
    tokenizer.codes.copy_(torch.tensor([0, 5, 9]))
    book = tokenizer.codebook.weight
    rows = torch.stack([book[0], book[5], book[9], book[[0, 5, 9]].mean(0)]).T.reshape(1, 5, 2, 2)
    expected = tokenizer.decoder(tokenizer.post_quant_conv(rows)).clamp(-1, 1)
    assert torch.allclose(tokenizer.decode(torch.tensor([[[0, 1], [2, 3]]])), expected, atol=1e-6)


def test_tokenizers_refuse_what_they_cannot_do() -> None:
    with pytest.raises(StreamError, match="without its encoder"):
        VQGAN(tiny_tokenizer_config(encoder=False)).encode(torch.zeros(1, 3, 6, 8))
    with pytest.raises(ShapeError, match="multiples of 2"):
        VQGAN(tiny_tokenizer_config()).encode(torch.zeros(1, 3, 5, 8))
    with pytest.raises(ConfigError, match="codes at most vocabulary"):
        tiny_tokenizer_config(codes=99)
    with pytest.raises(ConfigError, match="assignment is 'nearest' or 'logits'"):
        tiny_tokenizer_config(assignment="argmin")
