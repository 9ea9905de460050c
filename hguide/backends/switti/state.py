"""What changes while Switti samples."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.switti.transformer import Conditioning
from hguide.noise import Noise
from hguide.streams import Stream

__all__ = ["SwittiState"]


@dataclass
class SwittiState:
    """One run.

    Attributes:
        samples: b.
        streams: live streams, those used longest first, so that dropping one shortens the batch.
        last_use: last step index of each stream.
        conditioning: of all live rows, stream by stream.
        cache: keys and values of all live rows; None where a scale sees itself alone.
        noise: of the run.
        latent: f_hat.
        index: next scale.
    """

    samples: int
    streams: list[Stream]
    last_use: dict[Stream, int]
    conditioning: Conditioning
    cache: KeyValueCache | None
    noise: Noise
    latent: Float[Tensor, "b c H W"]
    index: int = 0

    def drop_unused(self, index: int) -> None:
        """Go on without the streams whose last use lies before step `index`; the cache keeps its size."""
        live = [stream for stream in self.streams if self.last_use[stream] >= index]
        if len(live) < len(self.streams):
            self.streams = live
            self.conditioning = self.conditioning.keep(len(live) * self.samples)
            if self.cache is not None:
                self.cache.keep(len(live) * self.samples)
