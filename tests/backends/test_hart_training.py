"""What HART is trained with: starting weights, the null condition of a batch, the residual head's loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_hart import DIM, SIDES, TOKENS, text, tiny_config, tiny_hart
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import hguide
from hguide.backends.hart import HART, HARTTransformer
from hguide.backends.hart.conditioning import conditioning_of, text_rows
from hguide.backends.hart.diffusion_schedule import respaced
from hguide.backends.hart.files import save
from hguide.backends.hart.initialise import initialise
from hguide.backends.hart.residual_head import ResidualHead
from hguide.backends.hart.residual_loss import residual_loss
from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.errors import CheckpointError

CHANNELS = 8


class Told(ResidualHead):
    """Answers what it is told."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__(CHANNELS, 4, 8, 1)
        self.answer = answer

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.answer


def case(seed: int = 0, m: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Condition, residual, timesteps and noise in float64."""
    random = torch.Generator().manual_seed(seed)
    condition = torch.randn(m, 4, generator=random, dtype=torch.float64)
    residual, noise = torch.randn(2, m, CHANNELS, generator=random, dtype=torch.float64)
    return condition, 0.2 * residual, torch.randint(1000, (m,), generator=random), noise


def test_the_loss_of_a_perfect_head_is_zero() -> None:
    condition, residual, timesteps, noise = case()
    answer = torch.cat([noise, -torch.ones_like(noise)], dim=-1)  # v = -1: the posterior's own variance
    found = residual_loss(Told(answer), condition.float(), residual, timesteps, noise)
    assert found.noise.item() == 0
    # float64 through 1/sqrt(A) of up to 2e4 at the noisy end.
    assert abs(found.variance.item()) < 1e-12


def test_the_loss_is_that_of_the_diffusion_by_definition() -> None:
    """Against the forward process written out with distributions, beta by beta."""
    condition, residual, timesteps, noise = case(1)
    timesteps[:2] = torch.tensor([0, 1])
    random = torch.Generator().manual_seed(2)
    eps = noise + 0.1 * torch.randn(noise.shape, generator=random, dtype=torch.float64)
    v = torch.randn(noise.shape, generator=random, dtype=torch.float64).clamp(-2, 2)
    found = residual_loss(Told(torch.cat([eps, v], -1)), condition.float(), residual, timesteps, noise)
    betas = torch.tensor(respaced(1000).betas, dtype=torch.float64)
    level = (1 - betas).cumprod(0)
    terms = []
    for row, t in enumerate(timesteps.tolist()):
        if t == 0:
            terms.append(torch.zeros(CHANNELS, dtype=torch.float64))
            continue
        start = residual[row] / 0.6
        noisy = level[t].sqrt() * start + (1 - level[t]).sqrt() * noise[row]
        guess = (noisy - (1 - level[t]).sqrt() * eps[row]) / level[t].sqrt()
        variance = betas[t] * (1 - level[t - 1]) / (1 - level[t])

        def mean(x: Tensor, t: int = t, noisy: Tensor = noisy) -> Tensor:
            ahead = level[t - 1].sqrt() * betas[t] * x + (1 - betas[t]).sqrt() * (1 - level[t - 1]) * noisy
            return ahead / (1 - level[t])

        part = (v[row] + 1) / 2
        own = (part * betas[t].log() + (1 - part) * variance.log()).exp()
        true = Normal(mean(start), variance.sqrt().expand(CHANNELS))
        terms.append(kl_divergence(true, Normal(mean(guess), own.sqrt())))
    torch.testing.assert_close(found.variance, torch.stack(terms).mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.noise, (eps - noise).square().mean())


def test_the_variance_term_does_not_move_the_noise() -> None:
    condition, residual, timesteps, noise = case(3)
    eps, v = (0.5 * noise).requires_grad_(), torch.zeros_like(noise).requires_grad_()
    found = residual_loss(Told(torch.cat([eps, v], -1)), condition.float(), residual, timesteps, noise)
    found.variance.backward()
    assert eps.grad is not None
    assert v.grad is not None
    assert eps.grad.abs().max() == 0
    assert v.grad[timesteps > 0].abs().min() > 0


@pytest.mark.parametrize("adaln", ["none", "linear", "table"])
def test_training_starts_at_the_uniform_distribution_and_noise_zero(adaln: str) -> None:
    model = initialise(HARTTransformer(tiny_config(adaln=adaln)), torch.Generator().manual_seed(0))
    again = initialise(HARTTransformer(tiny_config(adaln=adaln)), torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    lengths = sum(side * side for side in SIDES[1:])
    with torch.no_grad():
        conditioning = conditioning_of(model, *text_rows(model, [text(1), None]))
        logits, hidden = model(conditioning, torch.randn(2, lengths, CHANNELS))
        found = model.residual_head(torch.randn(5, CHANNELS), torch.ones(1), model.residual_head.embed(hidden[0, :5]))
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(24, (2 * (lengths + 1),)))
    assert entropy.item() == pytest.approx(math.log(24), abs=0.03)
    assert found.abs().max() == 0
    vectors = conditioning.blocks[0].vectors
    if vectors is not None:
        torch.testing.assert_close(vectors[:2, 1], torch.ones(2, 1, 32))  # gates of the null condition, biases zero


def test_dropped_rows_are_the_null_condition() -> None:
    model = tiny_hart(adaln="table").transformer
    given = [text(1), text(2, real=6), text(3, real=2)]
    batch = conditioning_of(
        model,
        torch.stack([each.embedding for each in given]),
        torch.stack([each.mask for each in given]),
        torch.tensor([False, True, False]),
    )
    one_by_one = conditioning_of(model, *text_rows(model, [given[0], None, given[2]]))
    assert torch.equal(batch.context, one_by_one.context)
    assert torch.equal(batch.positions, one_by_one.positions)
    assert batch.positions[1].tolist() == [0] * TOKENS
    assert batch.blocks[0].vectors is not None
    assert one_by_one.blocks[0].vectors is not None
    assert torch.equal(batch.blocks[0].vectors, one_by_one.blocks[0].vectors)


def with_tiny_text() -> HART:
    base = tiny_hart()
    torch.manual_seed(1)
    encoder = TinyTextEncoder(TinyTextConfig(DIM, TOKENS, heads=2)).eval()
    return HART(base.transformer, base.tokenizer, encoder, name="worded", classes=["farm", "harbor"])


def test_a_tiny_text_encoder_travels_in_the_file(tmp_path: Path) -> None:
    model = with_tiny_text()
    save(model, tmp_path / "worded.safetensors")
    loaded = hguide.load(tmp_path / "worded.safetensors")
    assert isinstance(loaded, HART)
    assert isinstance(loaded.text_encoder, TinyTextEncoder)
    assert isinstance(model.text_encoder, TinyTextEncoder)
    assert loaded.text_encoder.fingerprint == model.text_encoder.fingerprint
    images = hguide.generate(loaded, ["farm", 1], "cfg(1.5)", seeds=[0, 1])
    # A loaded decoder lies channels last, which sums in another order.
    wanted = hguide.generate(model, [0, "harbor"], "cfg(1.5)", seeds=[0, 1])
    torch.testing.assert_close(images, wanted, atol=1e-5, rtol=0)
    other = TinyTextEncoder(TinyTextConfig(DIM, TOKENS, heads=3)).eval()
    replaced = hguide.load(tmp_path / "worded.safetensors", text_encoder=other)
    assert isinstance(replaced, HART)
    assert replaced.text_encoder is other


def test_a_text_encoder_that_is_not_described_or_not_whole_is_refused(tmp_path: Path) -> None:
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    save(with_tiny_text(), tmp_path / "worded.safetensors")
    state = load_file(tmp_path / "worded.safetensors")
    with safe_open(str(tmp_path / "worded.safetensors"), "pt") as handle:
        facts = json.loads(handle.metadata()["hguide"])

    def spoiled(own: dict[str, Tensor], **changes: object) -> Path:
        path = tmp_path / "spoiled.safetensors"
        kept = {key: value for key, value in (facts | changes).items() if value is not None}
        save_file(own, str(path), {"hguide": json.dumps(kept)})
        return path

    with pytest.raises(CheckpointError, match=r"entries of no part .*: text_encoder\."):
        hguide.load(spoiled(state, text_encoder=None))
    with pytest.raises(CheckpointError, match="does not fit a HART model.*dim a multiple of heads"):
        hguide.load(spoiled(state, text_encoder={"dim": DIM, "heads": 5}))
    with pytest.raises(CheckpointError, match="does not fit a HART model.*'colour'"):
        hguide.load(spoiled(state, text_encoder={"colour": 1}))
    del state["text_encoder.positions"]
    with pytest.raises(CheckpointError, match="missing: positions"):
        hguide.load(spoiled(state))
