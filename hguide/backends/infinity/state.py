"""What changes while Infinity samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.infinity.transformer import Modulation
from hguide.noise import Noise
from hguide.streams import Stream

__all__ = ["InfinityState"]


@dataclass
class InfinityState:
    """One run.

    Attributes:
        samples: b.
        streams: live streams, those used longest first, so that dropping one shortens the batch.
        last_use: last step index of each stream.
        modulation: of all live rows, stream by stream.
        cache: keys and values of all live rows.
        rope: rotation of all tokens of the run.
        noise: of the run.
        latent: sum of the enlarged codes so far, `(b, d, H, W)`.
        index: next step.
        maps: bits that the input of each scale from 1 on was made of, `(b, l, token bits)`.
    """

    samples: int
    streams: list[Stream]
    last_use: dict[Stream, int]
    modulation: Modulation
    cache: KeyValueCache
    rope: Tensor
    noise: Noise
    latent: Tensor
    index: int = 0
    maps: list[Tensor] = field(default_factory=list)

    def drop_unused(self, index: int) -> None:
        """Go on without the streams whose last use lies before step `index`; the cache keeps its size."""
        live = [stream for stream in self.streams if self.last_use[stream] >= index]
        if len(live) < len(self.streams):
            # A stream's cache is read by its own later steps, so it goes only after its last use.
            self.streams = live
            self.cache.keep(len(live) * self.samples)
            self.modulation = self.modulation.keep(len(live) * self.samples)
