"""Priors: the logits of the step before, carried to the grid of this one; and the matrix products that use them."""

from hguide.priors.base import LinearPrior, Prior, SeparablePrior, registry
from hguide.priors.compiled import Factors, Operator, operator
from hguide.priors.dse import DSE
from hguide.priors.lowpass import LowPass
from hguide.priors.operators import apply, extrapolate, extrapolate_rows
from hguide.priors.spatial import Area, Bicubic, Bilinear, Lanczos, Nearest, Spatial

registry.add("dse", DSE)
registry.add("lowpass", LowPass)
registry.add("nearest", Nearest)
registry.add("bilinear", Bilinear)
registry.add("bicubic", Bicubic)
registry.add("area", Area)
registry.add("lanczos", Lanczos)

__all__ = [
    "DSE",
    "Area",
    "Bicubic",
    "Bilinear",
    "Factors",
    "Lanczos",
    "LinearPrior",
    "LowPass",
    "Nearest",
    "Operator",
    "Prior",
    "SeparablePrior",
    "Spatial",
    "apply",
    "extrapolate",
    "extrapolate_rows",
    "operator",
    "registry",
]
