"""What changes while HART samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.hart.transformer import Conditioning
from hguide.noise import Noise
from hguide.streams import Stream

__all__ = ["HARTState"]


@dataclass
class HARTState:
    """One run.

    Attributes:
        samples: b.
        streams: live streams, those used longest first, so that dropping one shortens the batch.
        last_use: last step index of each stream.
        conditioning: of all live rows, stream by stream.
        cache: keys and values of all live rows.
        noise: of the run.
        latent: f_hat.
        index: next scale.
        call: next call at the last scale.
        order: in which the places of the last scale are predicted, where that takes several calls.
        reduced: f_hat at the grid of the scale, as the scale began: what its inputs are made of.
        hidden: output of the last block per stream at the last scale, for the residual head.
    """

    samples: int
    streams: list[Stream]
    last_use: dict[Stream, int]
    conditioning: Conditioning
    cache: KeyValueCache
    noise: Noise
    latent: Float[Tensor, "b c H W"]
    index: int = 0
    call: int = 0
    order: Int[Tensor, "b l"] | None = None
    reduced: Float[Tensor, "b l c"] | None = None
    hidden: dict[Stream, Tensor] = field(default_factory=dict)

    def drop_unused(self, index: int) -> None:
        """Go on without the streams whose last use lies before step `index`; the cache keeps its size."""
        live = [stream for stream in self.streams if self.last_use[stream] >= index]
        if len(live) < len(self.streams):
            # A stream's cache is read by its own later steps, so it goes only after its last use.
            self.streams = live
            self.cache.keep(len(live) * self.samples)
            self.conditioning = self.conditioning.keep(len(live) * self.samples)
