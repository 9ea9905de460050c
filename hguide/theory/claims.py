"""Each checkable statement, the function that runs it, the test that holds it, and the verdict computed from it."""

from __future__ import annotations

from hguide.theory.claim import Claim
from hguide.theory.claims_derivation import SSG_DERIVATION

__all__ = ["CLAIMS", "Claim", "table"]

SSG_BANDS: tuple[Claim, ...] = (
    Claim(
        "SSG alg. 1",
        "the transforms of DSE are orthonormal: DCT, DFT, periodised orthogonal wavelets on even axes",
        "bands:orthonormality_error",
        "test_theory_bands.py::test_orthonormal_transforms",
        "bands:orthonormality_verdict",
    ),
    Claim(
        "SSG alg. 1, wavelets",
        "wavelets with PyWavelets' default border are orthonormal on every grid",
        "bands:frame_bounds",
        "test_theory_bands.py::test_wavelets_that_are_not_orthonormal",
        "bands:symmetric_wavelet_verdict",
    ),
    Claim(
        "SSG alg. 1",
        "L and H of the DCT and the DFT are orthogonal projectors with L + H = 1, the ones the prior uses",
        "bands:projector_errors",
        "test_theory_bands.py::test_projectors",
        "bands:projector_verdict",
    ),
    Claim(
        "SSG alg. 1, wavelets",
        "the low band of a wavelet with a symmetric border is an orthogonal projection",
        "bands:projector_errors",
        "test_theory_bands.py::test_projectors",
        "bands:oblique_wavelet_verdict",
    ),
    Claim(
        "SSG alg. 1, line 4",
        "copying the low block preserves the coarse structure verbatim (gain as printed)",
        "bands:verbatim_gap",
        "test_theory_bands.py::test_a_constant_is_not_kept_verbatim",
        "bands:verbatim_verdict",
    ),
    Claim(
        "SSG eq. 8 with alg. 1",
        "with the printed gain, SSG leaves low frequencies alone that a step repeats",
        "leakage:literal_low_gain",
        "test_theory_leakage.py::test_the_literal_gain_sharpens_what_is_repeated",
        "leakage:literal_gain_verdict",
    ),
    Claim(
        "SSG alg. 1",
        "a prior's error is attenuation + crosstalk + spurious energy, and nothing else",
        "leakage:energy_split",
        "test_theory_leakage.py::test_the_parts_add_up",
        "leakage:split_verdict",
    ),
    Claim(
        "SSG table 5, DSE with zero high band",
        "with the amplitude gain it is the ideal prior of a map that the coarse grid can hold, at every step",
        "leakage:schedule_leakage",
        "test_theory_leakage.py::test_the_ideal_prior",
        "leakage:zero_high_verdict",
    ),
    Claim(
        "SSG table 5, nearest",
        "nearest leaves more spurious high bands than linear, at every step of every schedule",
        "leakage:schedule_leakage",
        "test_theory_leakage.py::test_nearest_and_bilinear",
        "leakage:nearest_verdict",
    ),
    Claim(
        "SSG table 5, nearest",
        "spurious high bands are most of what is wrong with nearest",
        "prior_order:part_share",
        "test_theory_leakage.py::test_what_is_wrong_with_nearest_and_linear",
        "prior_order:nearest_part_verdict",
    ),
    Claim(
        "SSG table 5, linear",
        "what is wrong with linear is attenuation",
        "prior_order:part_share",
        "test_theory_leakage.py::test_what_is_wrong_with_nearest_and_linear",
        "prior_order:linear_part_verdict",
    ),
    Claim(
        "SSG table 5",
        "leakage orders the priors as FID does: DSE with the printed gain, 1/f^2 spectrum",
        "prior_order:predicted_order",
        "test_theory_leakage.py::test_the_order_of_table_5",
        "prior_order:literal_order_verdict",
    ),
    Claim(
        "SSG table 5",
        "leakage orders the priors as FID does: DSE with the amplitude gain, 1/f^2 spectrum",
        "prior_order:predicted_order",
        "test_theory_leakage.py::test_the_order_of_table_5",
        "prior_order:amplitude_order_verdict",
    ),
    Claim(
        "SSG eqs. 2-8 with alg. 1",
        "the prior of DSE, as printed, is the coarse posterior, so that D is the gradient of information",
        "coarse_posterior:posterior_gap",
        "test_theory_coarse_posterior.py::test_dse_is_nearer_than_linear_and_linear_than_nearest",
        "coarse_posterior:dse_verdict",
    ),
    Claim(
        "SSG alg. 1, line 4",
        "the exact coarse posterior keeps the amplitude of the map before",
        "coarse_posterior:posterior_gap",
        "test_theory_coarse_posterior.py::test_the_best_gain_is_the_least_squares_one",
        "coarse_posterior:flatness_verdict",
    ),
    Claim(
        "SSG table 5",
        "nearness to the exact coarse posterior orders the priors as FID does: printed gain, Gaussian pictures",
        "coarse_posterior:alignment_order",
        "test_theory_coarse_posterior.py::test_the_order_of_table_5",
        "coarse_posterior:order_verdict",
    ),
)

DYNAMICS: tuple[Claim, ...] = (
    Claim(
        "IGG, evenness and divergence",
        "evenness runs from 0 (one token) to 1 (even), divergence from 0 (equal) to 1 bit (disjoint)",
        "dynamics:evenness",
        "test_theory_dynamics.py::test_limits",
        "dynamics_limits:bounds_verdict",
    ),
    Claim(
        "IGG, raw and scaled diagnostics",
        "evenness and divergence compare raw with scaled guidance (a factor per step)",
        "dynamics_limits:scaling_gap",
        "test_theory_dynamics.py::test_invariances",
        "dynamics_limits:scaled_verdict",
    ),
    Claim(
        "IGG, evenness",
        "evenness does not depend on the gauge of the logits",
        "dynamics_limits:evenness_under_shift",
        "test_theory_dynamics.py::test_a_constant_makes_everything_even",
        "dynamics_limits:shift_verdict",
    ),
    Claim(
        "IGG eq. 5-6",
        "for a large signal of independent tokens IGG is CFG, at standard deviation 0.4",
        "dynamics_limits:distance_from_cfg",
        "test_theory_dynamics.py::test_limits_of_igg",
        "dynamics_limits:igg_large_verdict",
    ),
    Claim(
        "IGG eq. 5-6",
        "for a small signal IGG gives each token the mean of all",
        "dynamics_limits:distance_from_mean",
        "test_theory_dynamics.py::test_limits_of_igg",
        "dynamics_limits:igg_small_verdict",
    ),
    Claim(
        "SSG eq. 8, CFG, VPG, FDG",
        "linear guidance is gauge invariant: constants per token stay constants",
        "gauge:basis_error",
        "test_theory_gauge.py::test_linear_methods",
        "gauge:linear_verdict",
    ),
    Claim(
        "IGG eq. 5-6",
        "IGG on raw logits, as in its authors' code, is gauge invariant",
        "gauge:shift_error",
        "test_theory_gauge.py::test_counterexamples",
        "gauge:raw_igg_verdict",
    ),
    Claim(
        "IGG, APG, CFG-Zero*, TCFG, MAMBO-G, rescale",
        "they are gauge invariant with centred logits or log-probabilities",
        "gauge:gauge_table",
        "test_theory_gauge.py::test_fixed_gauges",
        "gauge:centred_verdict",
    ),
)

CLAIMS: tuple[Claim, ...] = (*SSG_DERIVATION, *SSG_BANDS, *DYNAMICS)


def table(claims: tuple[Claim, ...] = CLAIMS) -> str:
    """Claim -> function -> verdict, each check run now."""
    blocks = [f"{claim.equation}: {claim.statement}\n    {claim.function}\n    {claim.verdict()}" for claim in claims]
    return "\n".join(blocks)
