"""Guidance methods, their composition, their registry and their text form."""

from hguide.guidance.base import Guidance, LinearMethod, Memory, Method, Predictor, combine, registry
from hguide.guidance.cfg import CFG
from hguide.guidance.compose import Chain, Identity, Sum, add, chain
from hguide.guidance.function import FromCallable, from_callable
from hguide.guidance.parse import parse, parse_prior, parse_schedule, text_of
from hguide.guidance.ssg import SSG

registry.add("cfg", CFG)
registry.add("ssg", SSG)

__all__ = [
    "CFG",
    "SSG",
    "Chain",
    "FromCallable",
    "Guidance",
    "Identity",
    "LinearMethod",
    "Memory",
    "Method",
    "Predictor",
    "Sum",
    "add",
    "chain",
    "combine",
    "from_callable",
    "parse",
    "parse_prior",
    "parse_schedule",
    "registry",
    "text_of",
]
