"""Trust regions: what each divergence costs, and what each makes of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hguide.theory.figures.style import BLACK, BLUE, GREEN, GREY, RED, panels
from hguide.theory.fisher import variance_under
from hguide.theory.random_tokens import random_tokens
from hguide.theory.trust_regions import Direction, expected_optimum, penalty

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORWARD: tuple[Direction, str, str] = ("forward", "SSG", BLUE)
REVERSE: tuple[Direction, str, str] = ("reverse", "ssg_kl", RED)


def figure() -> Figure:
    """The penalties along one direction; the factor on a token's probability under either."""
    drawn, ((left, right),) = panels(1, 2, (9.0, 3.6))
    logits, contrast = random_tokens(1, 64)
    sizes = torch.logspace(-2, 1.5, 60, dtype=torch.float64, device="cpu")
    change = sizes[:, None] * contrast
    base = logits.expand_as(change)
    squared = change.square().sum(-1)
    for cost, colour, line, label in (
        (0.5 * squared, BLACK, "-", "|d|²/2, SSG's penalty"),
        (0.25 * squared, GREY, ":", "|d|²/4, bound of both"),
        (penalty(base + change, base, "forward"), BLUE, "-", "KL(q' || q)"),
        (penalty(base + change, base, "reverse"), RED, "--", "KL(q || q')"),
        (0.5 * variance_under(base, change), GREEN, "-.", "dᵀFd/2, Fisher"),
    ):
        left.plot(sizes.numpy(), cost.numpy(), color=colour, linestyle=line, label=label)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("size of the step d = size · D")
    left.set_ylabel("penalty (nats)")
    # A token among many: its own tilt varies, the rest of the distribution stays.
    tilts = np.linspace(-6.0, 3.0, 91)
    rest = torch.linspace(-0.5, 0.5, 99, dtype=torch.float64, device="cpu")
    for share, line in ((1e-2, "-"), (1e-6, "--")):
        one = torch.tensor([np.log(share / (1.0 - share) * 99.0)], dtype=torch.float64, device="cpu")
        token = torch.cat((one, torch.zeros(99, dtype=torch.float64, device="cpu")))
        for direction, name, colour in (FORWARD, REVERSE):
            factors = []
            for tilt in tilts:
                change = torch.cat((torch.tensor([tilt], dtype=torch.float64, device="cpu"), rest))
                guided = expected_optimum(token, change, 1.0, direction)
                factors.append(float(guided.softmax(-1)[0] / token.softmax(-1)[0]))
            right.plot(tilts, factors, color=colour, linestyle=line, label=f"{name}, q = {share:g}")
    right.set_yscale("log")
    right.set_xlabel("β D of the token; of the others within ±0.5")
    right.set_ylabel("q' / q of the token")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
    return drawn
