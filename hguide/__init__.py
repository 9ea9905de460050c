"""Training-free, hierarchical guidance of generators that work coarse to fine."""

from hguide.errors import HGuideError
from hguide.foreign import Guide
from hguide.generate import StepRecord, generate
from hguide.generator import Binary, Categorical, Draw, ScaleGenerator, Serves
from hguide.grids import Scale, Step
from hguide.guidance import Guidance
from hguide.load import load
from hguide.noise import Noise
from hguide.priors import Prior
from hguide.sampling import Sampler
from hguide.schedules import Schedule
from hguide.streams import COND, UNCOND, Corruption, Perturbation, Stream

__version__ = "0.1.0"

__all__ = [
    "COND",
    "UNCOND",
    "Binary",
    "Categorical",
    "Corruption",
    "Draw",
    "Guidance",
    "Guide",
    "HGuideError",
    "Noise",
    "Perturbation",
    "Prior",
    "Sampler",
    "Scale",
    "ScaleGenerator",
    "Schedule",
    "Serves",
    "Step",
    "StepRecord",
    "Stream",
    "generate",
    "load",
]
