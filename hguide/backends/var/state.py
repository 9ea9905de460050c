"""What changes while VAR samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.var.transformer import Modulation
from hguide.noise import Noise
from hguide.streams import Stream

__all__ = ["VARState"]


@dataclass
class VARState:
    """One run.

    Attributes:
        samples: b.
        streams: live streams, those used longest first, so that dropping one shortens the batch.
        last_use: last step index of each stream.
        modulation: of all live rows, stream by stream.
        cache: keys and values of all live rows.
        noise: of the run.
        latent: f_hat `(b, c, H, W)`.
        index: next step.
        maps: latent map that each scale from 1 on took as input, `(b, c, h, w)`.
        confidence: `(b, tokens so far)` probability of the drawn tokens, where a stream needs it.
    """

    samples: int
    streams: list[Stream]
    last_use: dict[Stream, int]
    modulation: Modulation
    cache: KeyValueCache
    noise: Noise
    latent: Tensor
    index: int = field(default=0)
    maps: list[Tensor] = field(default_factory=list)
    confidence: Tensor | None = None

    def drop_unused(self, index: int) -> None:
        """Go on without the streams whose last use lies before step `index`; the cache keeps its size."""
        live = [stream for stream in self.streams if self.last_use[stream] >= index]
        if len(live) < len(self.streams):
            # A stream's cache is read by its own later steps, so it goes only after its last use.
            self.streams = live
            self.cache.keep(len(live) * self.samples)
            self.modulation = self.modulation.keep(len(live) * self.samples)
