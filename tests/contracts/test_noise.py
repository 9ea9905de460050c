"""Noise: what it depends on, its distributions, recorded draws."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from hguide import noise
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Scale, Step
from hguide.noise import RecordedNoise, SeededNoise

STEP = Step(2, 5, 0, Scale(2, 4, 4))
KINDS = ("uniform", "normal", "exponential", "gumbel")


def splitmix(seed: int, index: int, call: int, purpose: int, position: int, channel: int) -> int:
    """The documented hash, in Python integers."""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    key = mix((seed + golden) & mask)
    for word in (index, call, purpose):
        key = mix((key + (word + 1) * golden) & mask)
    return mix((key + ((position << 32) + channel) * golden) & mask)


def test_bits_are_the_documented_hash() -> None:
    import zlib

    noise = SeededNoise([0, 12345, 2**63 - 1])
    uniform = noise.uniform(STEP, "token", 6, 9).double()
    for b, seed in enumerate(noise.seeds):
        for position in range(6):
            for channel in range(9):
                bits = splitmix(seed, 2, 0, zlib.crc32(b"token"), position, channel) >> 41
                assert uniform[b, position, channel].item() == (bits + 0.5) / 2**23


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_its_batch(kind: str) -> None:
    many = getattr(SeededNoise([3, 1, 4]), kind)(STEP, "token", 16, 11)
    alone = getattr(SeededNoise([1]), kind)(STEP, "token", 16, 11)
    assert torch.equal(many[1:2], alone)


@pytest.mark.parametrize("kind", ["uniform", "normal", "gumbel"])
def test_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    draw = getattr(SeededNoise([5, 6]), kind)
    strided = torch.arange(2 * 3 * 11).view(2, 11, 3).transpose(1, 2)
    whole = draw(STEP, "token", 9, 13), draw(STEP, "token", torch.tensor([[4, 1, 0], [7, 8, 2]]), strided)
    monkeypatch.setattr(noise, "_STRETCH", 7)
    assert torch.equal(draw(STEP, "token", 9, 13), whole[0])
    assert torch.equal(draw(STEP, "token", torch.tensor([[4, 1, 0], [7, 8, 2]]), strided.contiguous()), whole[1])


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_token_ids_and_positions_are_places(kind: str) -> None:
    noise = SeededNoise([3, 1])
    full = getattr(noise, kind)(STEP, "token", 16, 11)
    positions = torch.tensor([[5, 2, 9], [0, 15, 7]])
    channels = torch.tensor([7, 0, 10, 3]).expand(2, 3, 4)
    part = getattr(noise, kind)(STEP, "token", positions, channels)
    wanted = full.gather(1, positions[..., None].expand(-1, -1, 11)).gather(2, channels)
    assert torch.equal(part, wanted)


@pytest.mark.parametrize(
    "other",
    [
        (Step(3, 5, 0, STEP.scale), "token", 0),
        (Step(2, 5, 1, STEP.scale), "token", 0),
        (STEP, "smooth", 0),
        (STEP, "token", 1),
    ],
)
def test_step_call_purpose_and_seed_all_matter(other: tuple[Step, str, int]) -> None:
    step, purpose, seed = other
    base = SeededNoise([0]).uniform(STEP, "token", 16, 64)
    changed = SeededNoise([seed]).uniform(step, purpose, 16, 64)
    assert abs(torch.corrcoef(torch.stack([base.flatten(), changed.flatten()]))[0, 1]) < 0.15
    assert not torch.equal(base, changed)


def test_count_does_not_matter() -> None:
    more = Step(2, 9, 0, STEP.scale)
    assert torch.equal(SeededNoise([0]).uniform(STEP, "t", 4, 4), SeededNoise([0]).uniform(more, "t", 4, 4))


@pytest.mark.parametrize(
    ("kind", "distribution"),
    [("uniform", stats.uniform), ("normal", stats.norm), ("exponential", stats.expon), ("gumbel", stats.gumbel_r)],
)
def test_distributions(kind: str, distribution: stats.rv_continuous) -> None:
    draws = getattr(SeededNoise(range(20)), kind)(STEP, "token", 64, 128).flatten().double().numpy()
    # 163,840 draws: a wrong law of any practical size gives p far below this.
    assert stats.kstest(draws, distribution.cdf).pvalue > 1e-3


def test_neighbours_are_not_correlated() -> None:
    draws = SeededNoise(range(40)).uniform(STEP, "token", 32, 32).double() - 0.5
    for axis in range(3):
        product = (draws.narrow(axis, 1, draws.shape[axis] - 1) * draws.narrow(axis, 0, draws.shape[axis] - 1)).mean()
        assert abs(product.item() * 12) < 5 / draws.numel() ** 0.5


def test_uniforms_never_reach_zero_or_one() -> None:
    draws = SeededNoise(range(64)).uniform(STEP, "token", 64, 512)
    assert draws.min() >= 2.0**-24
    assert draws.max() <= 1 - 2.0**-24
    assert torch.isfinite(SeededNoise(range(64)).gumbel(STEP, "token", 64, 512)).all()


def test_order_is_a_permutation_per_sample() -> None:
    order = SeededNoise([1, 2]).order(STEP, "order", 20)
    assert torch.equal(order.sort(dim=1).values, torch.arange(20).expand(2, 20))
    assert not torch.equal(order[0], order[1])
    assert torch.equal(order[1:], SeededNoise([2]).order(STEP, "order", 20))


@pytest.mark.parametrize("seeds", [[], [-1], [2**63]])
def test_bad_seeds(seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="seed"):
        SeededNoise(seeds)


def test_recorded_noise_replays_and_says_what_is_missing() -> None:
    draws = torch.rand(2, 4, 6)
    noise = RecordedNoise({("exponential", 2, 0, "smooth"): draws})
    assert torch.equal(noise.exponential(STEP, "smooth", 4, 6), draws)
    assert torch.equal(noise.gumbel(STEP, "smooth", 4, 6), -draws.log())
    channels = torch.tensor([5, 1]).expand(2, 4, 2)
    assert torch.equal(noise.exponential(STEP, "smooth", 4, channels), draws[..., [5, 1]])
    with pytest.raises(ShapeError, match=r"no recorded draw for \('normal', 2, 0, 'smooth'\)"):
        noise.normal(STEP, "smooth", 4, 6)
    with pytest.raises(ShapeError, match="has 4 positions, asked for 5"):
        noise.gumbel(STEP, "smooth", 5, 6)
    with pytest.raises(ShapeError, match="has 6 channels, asked for 7"):
        noise.gumbel(STEP, "smooth", 4, 7)
