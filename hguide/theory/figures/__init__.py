"""The figures of `docs/theory.md`: drawn by `hguide theory`, one file per figure or kind of figure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["FIGURES"]

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "additivity": "hguide.theory.figures.additivity:figure",
        "gradient-claim": "hguide.theory.figures.gradient_claim:figure",
        "trust-regions": "hguide.theory.figures.trust_regions:figure",
        "sampling-effect": "hguide.theory.figures.sampling_effect:figure",
        "effect-on-model": "hguide.theory.figures.effect_on_model:figure",
        "bands": "hguide.theory.figures.bands:figure",
        "leakage-nearest": "hguide.theory.figures.leakage:nearest",
        "leakage-bilinear": "hguide.theory.figures.leakage:bilinear",
        "leakage-bicubic": "hguide.theory.figures.leakage:bicubic",
        "leakage-lanczos": "hguide.theory.figures.leakage:lanczos",
        "leakage-area": "hguide.theory.figures.leakage:area",
        "leakage-dse": "hguide.theory.figures.leakage:dse_literal",
        "leakage-dse-amplitude": "hguide.theory.figures.leakage:dse_amplitude",
        "leakage-dse-zero": "hguide.theory.figures.leakage:dse_zero",
        "leakage-dse-dft": "hguide.theory.figures.leakage:dse_dft",
        "leakage-dse-haar": "hguide.theory.figures.leakage:dse_haar",
        "table-5": "hguide.theory.figures.table_5:figure",
        "coarse-posterior": "hguide.theory.figures.coarse_posterior:figure",
        "literal-gain": "hguide.theory.figures.literal_gain:figure",
        "estimators": "hguide.theory.figures.estimators:figure",
        "dynamics": "hguide.theory.figures.dynamics:figure",
        "gauge": "hguide.theory.figures.gauge:figure",
    }
)
"""Name -> "module:function"; each takes nothing, returns a `matplotlib.figure.Figure` and keeps no state."""
