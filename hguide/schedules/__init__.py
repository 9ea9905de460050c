"""Schedules: the strength of a guidance at a step. They read `step.index` (k) and `step.count` (K), nothing else."""

from hguide.schedules.base import Schedule, registry, strength_at
from hguide.schedules.constant import Constant
from hguide.schedules.cosine import Cosine
from hguide.schedules.exponential import Exponential
from hguide.schedules.linear import Linear
from hguide.schedules.power import Power
from hguide.schedules.ramp import Ramp
from hguide.schedules.table import Table

registry.add("constant", Constant)
registry.add("linear", Linear)
registry.add("cosine", Cosine)
registry.add("ramp", Ramp)
registry.add("power", Power)
registry.add("exponential", Exponential)
registry.add("table", Table)

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Linear",
    "Power",
    "Ramp",
    "Schedule",
    "Table",
    "registry",
    "strength_at",
]
