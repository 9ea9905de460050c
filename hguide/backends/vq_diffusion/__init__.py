"""VQ-Diffusion: discrete diffusion over the tokens of a VQGAN (arXiv 2111.14822, 2205.16007)."""

from hguide.backends.vq_diffusion.denoiser import Denoiser, DenoiserConfig
from hguide.backends.vq_diffusion.generator import VQDiffusion, VQDiffusionState
from hguide.backends.vq_diffusion.inference import Inference
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.backends.vq_diffusion.start import Start
from hguide.backends.vq_diffusion.text import CLIPTextEncoder, clip_text_encoder
from hguide.backends.vq_diffusion.tokenizer import VQGAN, TokenizerConfig

__all__ = [
    "VQGAN",
    "CLIPTextEncoder",
    "Denoiser",
    "DenoiserConfig",
    "Inference",
    "NoiseSchedule",
    "Start",
    "TokenizerConfig",
    "VQDiffusion",
    "VQDiffusionState",
    "clip_text_encoder",
]
