"""Muon: momentum whose matrices are orthogonalised, for kernels of convolutions and weights of linear layers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalise"]

# Quintic Newton-Schulz coefficients of Jordan et al. (2024), "Muon": steep at zero, so five steps suffice.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalise(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """About U V^T of each matrix's singular value decomposition U S V^T, by X <- a X + b X X^T X + c (X X^T)^2 X.

    Args:
        matrices: any stack of matrices.

    Returns:
        The same shape in float32; singular values lie in about 0.7 to 1.2.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)).bfloat16()
    for _ in range(STEPS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) orthogonalise(g + m b), b <- m b + g.

    The factor gives the updates the usual root mean square of Adam's (arXiv 2502.16982), so that Adam's learning rates
    and decays carry over. Kernels count as matrices of output channels by everything else. Matrices of one shape are
    orthogonalised together.

    Args:
        parameters: of two or more dimensions.
        lr: learning rate.
        weight_decay: decoupled decay.
        momentum: m.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
            for shape, parameters in shapes.items():
                self._update(group, shape, parameters)
        return loss

    def _update(self, group: dict[str, Any], shape: tuple[int, int], parameters: list[nn.Parameter]) -> None:
        momentum = group["momentum"]
        looks_ahead = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].mul_(momentum).add_(parameter.grad)
            looks_ahead.append((parameter.grad + momentum * state["momentum"]).reshape(shape))
        directions = orthogonalise(torch.stack(looks_ahead))
        scale = 0.2 * max(shape) ** 0.5 * group["lr"]
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction.reshape(parameter.shape), alpha=-scale)
