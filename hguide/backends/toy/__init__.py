"""A generator with a known optimum, for tests, examples and science in seconds."""

from hguide.backends.toy.generator import ToyGenerator, ToyState

__all__ = ["ToyGenerator", "ToyState"]
