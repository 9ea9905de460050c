"""Model families, one folder each, and their registry."""

from hguide.generator import ScaleGenerator
from hguide.registry import Registry

__all__ = ["registry"]

registry: Registry[ScaleGenerator] = Registry("backend", "hguide.backends")
registry.add("hart", "hguide.backends.hart.generator:HART")
registry.add("infinity", "hguide.backends.infinity.generator:Infinity")
registry.add("switti", "hguide.backends.switti.generator:Switti")
registry.add("toy", "hguide.backends.toy.generator:ToyGenerator")
registry.add("var", "hguide.backends.var.generator:VAR")
registry.add("vq_diffusion", "hguide.backends.vq_diffusion.generator:VQDiffusion")
