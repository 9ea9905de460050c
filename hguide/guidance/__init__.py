"""Guidance methods, their composition, their registry and their text form."""

from hguide.guidance.apg import APG
from hguide.guidance.autoguidance import AutoGuidance
from hguide.guidance.base import Guidance, LinearMethod, Memory, Method, Predictor, combine, registry
from hguide.guidance.cfg import CFG
from hguide.guidance.cfg_zero import CFGZero
from hguide.guidance.compose import Chain, Identity, Sum, add, chain
from hguide.guidance.family import Family
from hguide.guidance.fdg import FDG
from hguide.guidance.function import FromCallable, from_callable
from hguide.guidance.igg import IGG
from hguide.guidance.kl_ssg import SSGKL
from hguide.guidance.mambo import MAMBOG
from hguide.guidance.pag import PAG
from hguide.guidance.parse import parse, parse_prior, parse_schedule, text_of
from hguide.guidance.rescale import Rescale
from hguide.guidance.seg import SEG
from hguide.guidance.slg import SLG
from hguide.guidance.soft_cfg import SoftCFG
from hguide.guidance.ssg import SSG
from hguide.guidance.tcfg import TCFG
from hguide.guidance.vpg import VPG

registry.add("cfg", CFG)
registry.add("ssg", SSG)
registry.add("ssg_kl", SSGKL)
registry.add("igg", IGG)
registry.add("apg", APG)
registry.add("fdg", FDG)
registry.add("cfg_zero", CFGZero)
registry.add("tcfg", TCFG)
registry.add("mambo", MAMBOG)
registry.add("rescale", Rescale)
registry.add("family", Family)
registry.add("vpg", VPG)
registry.add("autoguidance", AutoGuidance)
registry.add("pag", PAG)
registry.add("slg", SLG)
registry.add("seg", SEG)
registry.add("softcfg", SoftCFG)

__all__ = [
    "APG",
    "CFG",
    "FDG",
    "IGG",
    "MAMBOG",
    "PAG",
    "SEG",
    "SLG",
    "SSG",
    "SSGKL",
    "TCFG",
    "VPG",
    "AutoGuidance",
    "CFGZero",
    "Chain",
    "Family",
    "FromCallable",
    "Guidance",
    "Identity",
    "LinearMethod",
    "Memory",
    "Method",
    "Predictor",
    "Rescale",
    "SoftCFG",
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
