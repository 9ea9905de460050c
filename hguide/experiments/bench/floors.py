"""What no implementation of SSG's update can beat: its bytes at the memory's rate, its operations at the GEMM's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hguide.experiments.bench.timing import Job, Timing, measure
from hguide.grids import Grid

__all__ = ["Product", "Rates", "peak_rates", "products", "read_rate", "traffic"]

# A product of this many operations runs at its full rate; larger ones are measured on a part of the channels. Factors
# are measured on as many channels as keep the map between the two products in the cache of a core: the quickest of the
# sizes that were tried. A GPU needs more of both to be busy.
_CPU_OPERATIONS, _DEVICE_OPERATIONS = 5e8, 1e12
_CPU_WORKSPACE, _DEVICE_WORKSPACE = 1 << 20, 256 << 20
_FEWEST_CHANNELS = 128
# Of the rates on large operands.
_CPU_ELEMENTS, _DEVICE_ELEMENTS = 8_000_000, 256_000_000
_CPU_READ = 64_000_000
_CPU_SIDE, _DEVICE_SIDE = 1024, 8192


@dataclass(frozen=True)
class Rates:
    """What the machine reaches on large operands.

    Attributes:
        bandwidth: bytes per second of a read-read-write.
        gemm: operations per second of a square product.
    """

    bandwidth: float
    gemm: float


@dataclass(frozen=True)
class Product:
    """A matrix product to be measured for its rate.

    Attributes:
        job: the product, on `operations` operations.
        operations: of one call.
        whole: operations of the update that it stands for.
    """

    job: Job
    operations: float
    whole: float

    def whole_of(self, timing: Timing) -> Timing:
        """`whole / rate`, the rate being `operations / time`."""
        share = self.whole / self.operations
        return Timing(timing.ms * share, timing.quickest_ms * share, timing.samples)


def traffic(buffers: tuple[torch.Tensor, torch.Tensor, torch.Tensor], elements: int) -> Job:
    """A read-read-write of `elements` elements altogether.

    Args:
        buffers: flat; a third of `elements` is used of each.
        elements: that the update reads and writes.

    Returns:
        The job; its time is `bytes / bandwidth` at this very size.
    """
    first, second, third = (buffer[: max(1, elements // 3)] for buffer in buffers)
    return lambda: torch.add(first, second, out=third)


def products(
    source: Grid, target: Grid, channels: int, batch: int, terms: int, *, device: torch.device, dtype: torch.dtype
) -> Mapping[str, tuple[Product, ...]]:
    """The products that the update cannot do without, in each of its forms.

    "dense": `(HW, hw) @ (hw, v)`, 2 b HW hw v operations. "factors": `(T W, w) @ (w, v)` for each row of the map,
    then `(H, h T) @ (h T, W v)`: 2 b T h W (w + H) v operations. The operands lie in memory as in the update: a
    product per sample, channels last; but for P, whose rows follow each other here and are aligned there on CUDA.

    Args:
        source: `(h, w)`.
        target: `(H, W)`.
        channels: v.
        batch: b.
        terms: T, the number of separable terms of the prior.
        device: where they run.
        dtype: of the operands.

    Returns:
        By form, the products whose times add up.
    """
    (height, width), (rows, columns) = source, target

    def product(m: int, k: int, n: int, count: int, share: float) -> Product:
        left = torch.rand(m, k, device=device, dtype=dtype).expand(count, m, k)
        right = torch.rand(count, k, n, device=device, dtype=dtype)
        out = torch.empty(count, m, n, device=device, dtype=dtype)
        operations = 2.0 * count * m * k * n
        if count == 1:
            return Product(lambda: torch.mm(left[0], right[0], out=out[0]), operations, share * operations)
        return Product(lambda: torch.bmm(left, right, out=out), operations, share * operations)

    cpu = device.type == "cpu"
    most, workspace = (_CPU_OPERATIONS, _CPU_WORKSPACE) if cpu else (_DEVICE_OPERATIONS, _DEVICE_WORKSPACE)
    every = 2.0 * rows * columns * height * width * channels
    part = _channels(channels, most * channels / every)
    samples = max(1, min(batch, int(most / every)))
    dense = product(rows * columns, height * width, part, samples, batch * channels / (samples * part))

    between = terms * height * columns
    part = _channels(channels, min(most / (2.0 * between * (width + rows)), workspace / (4 * between)))
    share = batch * channels / part
    across = product(terms * columns, width, part, height, share)
    down = product(rows, height * terms, columns * part, 1, share)
    return {"dense": (dense,), "factors": (across, down)}


def peak_rates(device: torch.device, dtype: torch.dtype, *, repeat: int) -> Rates:
    """The machine's rates on large operands: of a read-read-write beyond any cache, and of a square product.

    Args:
        device: to measure.
        dtype: of the operands.
        repeat: samples.

    Returns:
        Both rates.
    """
    elements, side = (_CPU_ELEMENTS, _CPU_SIDE) if device.type == "cpu" else (_DEVICE_ELEMENTS, _DEVICE_SIDE)
    # Random numbers: zeros compute faster than any data will, and untouched pages of a CPU share one cache line.
    first, second, third = (torch.rand(elements, device=device, dtype=dtype) for _ in range(3))
    left, right, out = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(3))
    jobs: dict[str, Job] = {
        "traffic": traffic((first, second, third), 3 * elements),
        "gemm": lambda: torch.mm(left, right, out=out),
    }
    found = measure(jobs, device, repeat=repeat, budget_s=2.0)
    size = 3 * elements * first.element_size()
    return Rates(size / found["traffic"].ms * 1e3, 2.0 * side**3 / found["gemm"].ms * 1e3)


def read_rate(device: torch.device, dtype: torch.dtype, *, repeat: int) -> float:
    """Bytes per second of a read that writes nothing: what a step needs that reads each weight once."""
    elements = _CPU_READ if device.type == "cpu" else _DEVICE_ELEMENTS
    numbers = torch.rand(elements, device=device, dtype=dtype)
    return elements * dtype.itemsize / measure({"read": numbers.sum}, device, repeat=repeat)["read"].ms * 1e3


def _channels(channels: int, wanted: float) -> int:
    """As many channels as wanted, but not so few that the product becomes another one."""
    return min(channels, max(_FEWEST_CHANNELS, int(wanted)))
