"""Power spectra and their change from step to step, on signals whose spectra are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError, NumericalError, ShapeError
from hguide.experiments.measures.frequency_change import FrequencyChangeMeter
from hguide.experiments.measures.power_spectrum import BANDS, PowerSpectrumRatio, band_statistic, power_ratio
from hguide.experiments.measures.radial_power import bin_frequencies, luminance, radial_power

EXACT = 1e-11
QUICK = settings(derandomize=True, deadline=None, max_examples=20)


def noise(seed: int, count: int = 6, size: tuple[int, int] = (32, 32), channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.1, (count, channels, *size)))


def wave(cycles: int, size: int = 32) -> torch.Tensor:
    row = torch.cos(2 * torch.pi * cycles * torch.arange(size).double() / size)
    return row.expand(1, 1, size, size)


def ratio_of(sample: torch.Tensor, reference: torch.Tensor, **options: int) -> PowerSpectrumRatio:
    measure = PowerSpectrumRatio(**options)
    measure.update(sample, real=False)
    measure.update(reference, real=True)
    return measure


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (12, 20), (20, 20)])
def test_power_by_loops(size: tuple[int, int]) -> None:
    field = noise(0, 1, size, 2)[0]
    bins = min(size) // 2
    window = np.outer(scipy.signal.windows.hann(size[0], sym=False), scipy.signal.windows.hann(size[1], sym=False))
    held: list[list[float]] = [[] for _ in range(bins)]
    for channel in field.numpy():
        power = np.abs(np.fft.fft2((channel - channel.mean()) * window)) ** 2
        for u, v in np.ndindex(size):
            a, b = min(u, size[0] - u) / size[0], min(v, size[1] - v) / size[1]
            place = int(np.ceil(round(2 * np.hypot(a, b) * bins, 9))) - 1
            if 0 <= place < bins:
                held[place].append(power[u, v])
    found = radial_power(field[None])[0]
    np.testing.assert_allclose(found.numpy(), [np.mean(each) for each in held], rtol=EXACT)


def test_a_wave_lies_in_its_bin() -> None:
    power = radial_power(wave(5), window=False)[0]
    assert power.argmax() == 4
    assert bin_frequencies(16)[4] == 5 / 16
    assert power[4] > 0.999 * power.sum()
    windowed = radial_power(wave(5))[0]
    # The window spreads a line over its neighbours, hypot(6, 1) beyond bin 5, and no further.
    assert windowed[3:7].sum() > (1 - EXACT) * windowed.sum()
    assert windowed.argmax() == 4


def test_constants_have_no_power() -> None:
    assert radial_power(torch.full((1, 1, 16, 16), 0.7)).max() < 1e-20


def test_doubled_amplitude_is_four_times_the_power() -> None:
    x = noise(0)
    found = ratio_of(2 * x + 0.3, x).compute()
    torch.testing.assert_close(found.ratio, torch.full((16,), 4.0, dtype=torch.float64))
    assert found.bands == pytest.approx({"low": 4, "middle": 4, "high": 4})


def test_white_noise_is_flat() -> None:
    power = radial_power(noise(0, 64, channels=1)).mean(0)
    # 64 pictures with at least 4 frequencies in a bin, neighbours correlated by the window.
    assert (power / power.mean() - 1).abs().max() < 0.25


def test_low_pass() -> None:
    x = noise(1, 16)
    spectrum = torch.fft.fft2(x)
    axis = torch.fft.fftfreq(32).abs()
    keep = ((axis[:, None].square() + axis[None].square()).sqrt() <= 0.125).double()
    found = ratio_of(torch.fft.ifft2(spectrum * keep).real, x).compute()
    assert found.bands["low"] == pytest.approx(1, abs=0.15)
    assert found.bands["middle"] < 0.1
    assert found.bands["high"] < 1e-3
    assert (found.ratio[:3] - 1).abs().max() < 0.1


def test_luminance() -> None:
    weights = luminance(torch.eye(3).view(3, 3, 1, 1)).flatten()
    torch.testing.assert_close(weights, torch.tensor([0.299, 0.587, 0.114]).double(), rtol=1e-7, atol=0)


@given(st.integers(0, 10_000), st.integers(1, 4))
@QUICK
def test_parts_make_the_whole(seed: int, parts: int) -> None:
    x, y = noise(seed, 8), noise(seed + 1, 8)
    whole = ratio_of(x, y).compute()
    left, right = PowerSpectrumRatio(), PowerSpectrumRatio()
    for part, (some, real) in enumerate(zip(x.chunk(parts), y.chunk(parts), strict=True)):
        side = left if part % 2 else right
        side.update(some, real=False)
        side.update(real, real=True)
    left.merge(right)
    torch.testing.assert_close(left.compute().ratio, whole.ratio)
    turned = ratio_of(x.transpose(2, 3), y.transpose(2, 3)).compute()
    torch.testing.assert_close(turned.ratio, whole.ratio)
    rows = radial_power(luminance(x)), radial_power(luminance(y))
    weights = torch.from_numpy(np.random.default_rng(seed).integers(1, 3, 8)).double()
    repeated = rows[0].repeat_interleave(weights.long(), 0).mean(0)
    wanted = power_ratio(repeated, rows[1].mean(0)).bands
    for band in BANDS:
        found = band_statistic(*rows, band)(weights, torch.ones(8).double())
        assert found == pytest.approx(wanted[band], rel=EXACT)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="got 2 in the sample and 3 in the reference"):
        ratio_of(noise(0, 2), noise(0, 3)).compute()
    with pytest.raises(NumericalError, match="no power up to the frequencies"):
        ratio_of(noise(0), torch.zeros(6, 3, 32, 32)).compute()
    with pytest.raises(ConfigError, match="4x4 does not fill 9 radial bins"):
        radial_power(noise(0, 1, (4, 4)), 9)


def steps_of(amplitudes: list[dict[int, float]]) -> list[torch.Tensor]:
    """Maps with a wave of given amplitude at each number of cycles."""
    return [torch.stack([a * wave(c)[0] for c, a in each.items()]).sum(0)[None] for each in amplitudes]


def test_change_of_log_magnitude() -> None:
    steps = steps_of([{2: 1.0, 6: 1e-3}, {2: 1.5, 6: 1.0}, {2: 1.5, 6: 3.0}])
    meter = FrequencyChangeMeter([(4, 4), (8, 8), (32, 32)], window=False)
    meter.update(steps)
    found = meter.compute()
    assert found.change[0, 1] == pytest.approx(np.log(1.5), rel=1e-9)
    assert found.change[0, 5] == pytest.approx(np.log(1e3), rel=1e-9)
    assert found.change[1, 1] == pytest.approx(0, abs=1e-9)
    assert found.change[1, 5] == pytest.approx(np.log(3), rel=1e-9)
    assert found.nyquist.tolist() == [4 / 32, 8 / 32]
    # Two of sixteen bins lie at or below 4/32 of Nyquist.
    torch.testing.assert_close(found.below[0], found.change[0, :2].mean())
    torch.testing.assert_close(found.above[0], found.change[0, 2:].mean())


def test_detail_added_above_the_previous_nyquist() -> None:
    coarse = torch.nn.functional.interpolate(noise(0, 16, (4, 4)), (32, 32), mode="bicubic")
    fine = coarse + noise(1, 16)
    meter, left, right = (FrequencyChangeMeter([(4, 4), (32, 32)]) for _ in range(3))
    meter.update([coarse, fine])
    left.update([coarse[:5], fine[:5]])
    right.update([coarse[5:], fine[5:]])
    left.merge(right)
    found = meter.compute()
    assert found.above[0] > 2 > 0.5 > found.below[0].abs()
    torch.testing.assert_close(left.compute().change, found.change)
    assert left.count == 16


def test_one_position_has_no_bin_below() -> None:
    meter = FrequencyChangeMeter([(1, 1), (32, 32)])
    meter.update([torch.zeros(2, 3, 32, 32), noise(0, 2)])
    found = meter.compute()
    assert torch.isfinite(found.change).all()
    assert found.below.isnan().all()


def test_refusals_of_changes() -> None:
    meter = FrequencyChangeMeter([(4, 4), (32, 32)])
    with pytest.raises(ConfigError, match="at least one run"):
        meter.compute()
    with pytest.raises(ConfigError, match="2 scales, got 1 maps"):
        meter.update([noise(0)])
    with pytest.raises(ShapeError, match="one shape"):
        meter.update([noise(0), noise(0, 6, (16, 16))])
    meter.update([noise(0), noise(1)])
    with pytest.raises(ShapeError, match="16x16 after maps of 32x32"):
        meter.update([noise(0, 6, (16, 16))] * 2)
    with pytest.raises(ConfigError, match="cannot be merged"):
        meter.merge(FrequencyChangeMeter([(4, 4), (16, 16)]))
    with pytest.raises(ConfigError, match="two scales, got 1"):
        FrequencyChangeMeter([(4, 4)])
