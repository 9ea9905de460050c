"""VAR's streams written out: the whole sequence in one pass without a cache, dense attention, one change at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hguide.backends.corruption import corrupt
from hguide.backends.var import VAR
from hguide.grids import Scale, Step
from hguide.noise import Noise
from hguide.streams import COND, Corruption, Perturbation, Stream


def perturbed(kind: str, layers: tuple[int, ...] = (), **options: float) -> Stream:
    return COND.perturbed(Perturbation(kind, layers, tuple(options.items())))


def step_of(var: VAR, k: int) -> Step:
    return Step(k, var.count, 0, var.scales[k])


def inputs_of(var: VAR, labels: Tensor, maps: Sequence[Tensor], k: int, prefix: Any, noise: Noise) -> list[Tensor]:
    """Input embeddings of the scales 0 to k of a stream at step k."""
    transformer = var.transformer
    clean = [transformer.modulation(labels).start]
    clean += [transformer.embed(maps[j - 1], j) for j in range(1, k + 1)]
    if not isinstance(prefix, Corruption):
        return clean
    starts = transformer.config.starts
    return [
        x
        if j == k and not prefix.queries
        else corrupt(x, prefix, noise, step_of(var, k if prefix.redraw else j), starts[j])
        for j, x in enumerate(clean)
    ]


def dense_logits(
    var: VAR,
    stream: Stream,
    labels: Tensor,
    maps: Sequence[Tensor],
    k: int,
    noise: Noise,
    layers: Sequence[int] = (),
    confidence: Tensor | None = None,
) -> Tensor:
    """Logits of step k, `(b, h, w, v)`."""
    transformer = var.transformer
    change = stream.perturb
    modulation = transformer.modulation(labels)
    scales = var.scales[: k + 1]
    x = torch.cat(inputs_of(var, labels, maps, k, stream.prefix, noise), dim=1)
    for i, block in enumerate(transformer.blocks):
        kind = change.kind if change is not None and i in layers else ""

        def attention(q: Tensor, key: Tensor, value: Tensor, scale: float, kind: str = kind) -> Tensor:
            return _attention(q, key, value, scale, kind, change, scales, confidence)

        new = block(x, modulation.blocks[i], attention)
        x = x if kind == "slg" else new
    logits = transformer.forward_head(x[:, -scales[-1].tokens :], modulation)
    return logits.unflatten(1, scales[-1].grid)


def _attention(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    kind: str,
    change: Perturbation | None,
    scales: Sequence[Scale],
    confidence: Tensor | None,
) -> Tensor:
    if kind == "pag":
        return value
    options = dict(change.options) if change is not None else {}
    found, start = [], 0
    for each in scales:
        stop = start + each.tokens
        mine = q[:, :, start:stop]
        if kind == "seg":
            mine = _blurred(mine, each.grid, options["sigma"])
        values = value[:, :, :stop]
        if kind == "soft":
            assert confidence is not None
            so_far = confidence[:, :start]
            total = so_far.sum(1, keepdim=True) if options["step_norm"] else torch.ones(1)
            weights = torch.cat([1 - so_far / total, torch.ones(len(q), each.tokens)], dim=1)
            values = values * weights[:, None, :, None]
        found.append((mine @ key[:, :, :stop].transpose(2, 3) * scale).softmax(-1) @ values)
        start = stop
    return torch.cat(found, dim=2)


def _blurred(q: Tensor, grid: tuple[int, int], sigma: float) -> Tensor:
    height, width = grid
    result = torch.empty_like(q)
    for y in range(height):
        for x in range(width):
            mean, total = torch.zeros_like(q[:, :, 0]), 0.0
            for v in range(height):
                for u in range(width):
                    weight = math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * sigma**2))
                    mean, total = mean + weight * q[:, :, v * width + u], total + weight
            result[:, :, y * width + x] = mean / total
    return result
