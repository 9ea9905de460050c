"""The bottleneck objective over bands: its chain rule, the additive form, and what filters can do to information.

Variables are named as in `hguide.theory.band_systems`: the picture x, its bands low and high, the token z, and for
the conditional statements the prefix.
"""

from __future__ import annotations

import torch

from hguide.theory.band_systems import coupled_bands, filtered_signals, signals, token_channel
from hguide.theory.discrete_systems import DiscreteSystem
from hguide.theory.verdict import Verdict, approximate, exact, false, vacuous

__all__ = [
    "additivity_gap",
    "additivity_gap_by_dependence",
    "additivity_verdict",
    "bottleneck_objective",
    "chain_rule_error",
    "chain_rule_verdict",
    "conditional_redundancy",
    "data_processing_loss",
    "data_processing_verdict",
    "detail_left",
    "identified_verdict",
    "independence_verdict",
    "prefix_chain_rule_error",
    "prefix_verdict",
    "redundancy_verdict",
]


def bottleneck_objective(system: DiscreteSystem, penalty: float, additive: bool = False) -> float:
    """I(z; high | low) - penalty I(z; low), or in its additive form I(z; high) - penalty I(z; low).

    What a step should tell (detail), less what it repeats (the coarse part). By the chain rule the first form is
    I(z; x) - (1 + penalty) I(z; low), a bottleneck in the usual sense.

    Args:
        system: holds "z", "low" and "high".
        penalty: weight of the redundancy, >= 0.
        additive: leave out the condition.

    Returns:
        Nats.

    Source: arXiv 2602.05534, eqs. 2-5; the split into these two terms is *reconstructed*.
    """
    told = system.information("z", "high", () if additive else "low")
    return told - penalty * system.information("z", "low")


def chain_rule_error(system: DiscreteSystem) -> float:
    """I(z; x) - I(z; low) - I(z; high | low): 0 for bands that are functions of x and together determine it.

    Exact because L + H = I: adding (low, high) to x, or x to (low, high), adds no entropy.

    Source: arXiv 2602.05534, eqs. 13-16 (appendix A), *reconstructed*.
    """
    by_band = system.information("z", "low") + system.information("z", "high", "low")
    return system.information("z", "x") - by_band


def prefix_chain_rule_error(system: DiscreteSystem) -> float:
    """I(z; x | prefix) - I(z; high | prefix): 0 where the prefix determines the low band.

    Given a prefix that settles the coarse part, all that a step can still tell is high band.

    Args:
        system: holds "prefix" too.

    Source: arXiv 2602.05534, eqs. 13-16 (appendix A: the deterministic condition), *reconstructed*.
    """
    return system.information("z", "x", "prefix") - system.information("z", "high", "prefix")


def conditional_redundancy(system: DiscreteSystem) -> float:
    """I(z; low | prefix): 0 for every z where the prefix determines the low band.

    Under that condition a penalty on the redundancy is vacuous: no guidance can lower or raise it. It says something
    only without the condition, I(z; low), or where the prefix leaves the low band open.

    Args:
        system: holds "prefix" too.

    Source: of this project, on arXiv 2602.05534, eqs. 2-5.
    """
    return system.information("z", "low", "prefix")


def additivity_gap(system: DiscreteSystem) -> float:
    """I(z; high | low) - I(z; high) = I(z; x) - [I(z; low) + I(z; high)]: the error of the additive form.

    Positive where the bands tell more together than alone (synergy), negative where they repeat each other.

    Source: arXiv 2602.05534, eqs. 17-19 (appendix B), *reconstructed*.
    """
    return system.information("z", "high", "low") - system.information("z", "high")


def additivity_gap_by_dependence(system: DiscreteSystem) -> float:
    """I(low; high | z) - I(low; high): the same gap, as the dependence of the bands with and without the token.

    So it lies in [-I(low; high), min(H(low), H(high))]. Independent bands make it >= 0 and nothing more: additivity
    needs I(low; high | z) = I(low; high), for instance bands independent both without and given the token.

    Source: arXiv 2602.05534, eqs. 17-19 (appendix B); this form of the error is of this project.
    """
    return system.information("low", "high", "z") - system.information("low", "high")


def data_processing_loss(system: DiscreteSystem, band: str) -> float:
    """I(z; x) - I(z; band) = I(z; x | band) >= 0: what a filter loses about the token; it can add nothing.

    0 where z depends on x through the band alone.

    Args:
        system: holds "z", "x" and the band.
        band: "low", "high", or any other function of x.

    Source: data-processing inequality; arXiv 2602.05534, appendices A and B, use it for the low- and the high-pass.
    """
    return system.information("z", "x") - system.information("z", band)


def detail_left(system: DiscreteSystem) -> float:
    """H(x | low) / H(x): the part of the picture that the low band leaves open, in [0, 1].

    Almost nothing for an exact filter on finitely many pictures: the few real numbers of the low band tell nearly all
    of them apart, so that I(z; high | low) is nearly 0 for any token. As information, the bands mean something only
    where they are read with limited precision or noise; continuous pictures with a density do not have this fault.

    Source: of this project, on arXiv 2602.05534, eqs. 2-5.
    """
    return system.entropy("x", "low") / system.entropy("x")


def chain_rule_verdict() -> Verdict:
    """Is the information of a token the sum of those of its bands, the second given the first?"""
    return exact(max(abs(chain_rule_error(system)) for system in _systems()), "largest error, nats")


def prefix_verdict() -> Verdict:
    """Given a prefix that settles the low band, is all that a token tells about the picture high band?"""
    return exact(max(abs(prefix_chain_rule_error(system)) for system in _systems()), "largest error, nats")


def redundancy_verdict() -> Verdict:
    """Does a penalty on the redundancy say anything, given a prefix that settles the low band?"""
    return vacuous(
        max(abs(conditional_redundancy(system)) for system in _systems()), "largest I(z; low | prefix) of any token"
    )


def additivity_verdict() -> Verdict:
    """How far is I(z; low) + I(z; high) from I(z; x) on the bands of smooth signals?"""
    return approximate(max(abs(additivity_gap(system)) for system in _systems()), "largest error, nats")


def independence_verdict() -> Verdict:
    """Are independent bands enough for additivity?"""
    return false(additivity_gap(coupled_bands(0.0, "sum")), "gap with independent bands, nats")


def data_processing_verdict() -> Verdict:
    """Can a filter add information about the token?"""
    losses = [data_processing_loss(system, band) for system in _systems() for band in ("low", "high")]
    return exact(max(0.0, -min(losses)), f"largest gain, nats; largest loss {max(losses):.3g}")


def identified_verdict() -> Verdict:
    """Is there detail beyond an exact low band of half the frequencies?"""
    return vacuous(detail_left(filtered_signals((0.0, 1.0), 6, kept=3)), "H(x | low) / H(x), 64 binary signals")


def _systems() -> list[DiscreteSystem]:
    """Signals of three pixels from independent to smooth, a token, and a prefix that settles the low band."""
    values = (0.0, 1.0, 2.0)
    token = token_channel(signals(values, 3), signals(values, 3)[::4], noise=0.5)
    systems = []
    for coupling in (0.0, 0.3, 1.0):
        system = filtered_signals(values, 3, kept=1, coupling=coupling).with_channel("z", "x", token)
        low = torch.eye(system.marginal("low").shape[0], dtype=torch.float64, device="cpu")
        # Two states for each low band: a prefix may hold noise of its own.
        systems.append(system.with_channel("prefix", "low", torch.repeat_interleave(low, 2, dim=1) / 2.0))
    return systems
