"""The contract that every generator meets, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, StreamError
from hguide.grids import Scale, Step
from hguide.memory import RunBytes
from hguide.noise import Noise
from hguide.streams import Stream

if TYPE_CHECKING:
    from hguide.graphs import CapturedRuns
    from hguide.sampling import Sampler

__all__ = ["Binary", "Categorical", "Draw", "Prepared", "ScaleGenerator", "Serves"]


@dataclass(frozen=True)
class Categorical:
    """Logits over `size` tokens."""

    size: int

    @property
    def width(self) -> int:
        """Number of logit channels v."""
        return self.size


@dataclass(frozen=True)
class Binary:
    """Logits of `bits` independent bits: the differences l1 - l0, one channel per bit."""

    bits: int

    @property
    def width(self) -> int:
        """Number of logit channels v."""
        return self.bits


@dataclass(frozen=True, eq=False)
class Draw:
    """What a step drew.

    Attributes:
        tokens: `(b, h, w)` int64, or `(b, n)` on a partial map; `(b, h, w, bits)` for `Binary` channels.
        embedding: `(b, c, h, w)` put in place of the codebook rows (soft codes, residuals, edits), or None.
        confidence: `(b, h, w)` probability of the drawn tokens, where a stream needs it, or None.
    """

    tokens: Tensor
    embedding: Tensor | None = None
    confidence: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Conditions of a batch as tensors on the device, all that a captured run reads of them.

    Attributes:
        samples: b.
        tensors: of the given and of the null condition. The run reads them where they lie; later batches of the same
            shapes and dtypes are written over them.
    """

    samples: int
    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return self.samples


@dataclass(frozen=True)
class Serves:
    """Which streams a generator serves beside the given condition.

    Args:
        null: the null condition.
        corruption: corrupted prefixes.
        perturbations: kinds of changed forward passes.
        layers: number of blocks that a perturbation may name; None where it names none.
    """

    null: bool = True
    corruption: bool = False
    perturbations: frozenset[str] = field(default_factory=frozenset)
    layers: int | None = None

    def refusal(self, stream: Stream) -> str | None:
        """Why `stream` is not served, or None where it is."""
        if stream.condition == "null" and not self.null:
            return "it has no null condition"
        if stream.prefix != "sampled" and not self.corruption:
            return "it serves no corrupted prefix"
        if stream.perturb is not None and stream.perturb.kind not in self.perturbations:
            known = ", ".join(sorted(self.perturbations)) or "none"
            return f"it serves no perturbation {stream.perturb.kind!r} (served: {known})"
        return None if stream.perturb is None else self._layers_refusal(stream.perturb.layers)

    def _layers_refusal(self, layers: tuple[int, ...]) -> str | None:
        beyond = [layer for layer in layers if not 0 <= layer < (self.layers or 0)]
        if not beyond:
            return None
        if self.layers is None:
            return f"its perturbations take no layers, asked for {', '.join(map(str, layers))}"
        return f"it has the layers 0 to {self.layers - 1}, asked for {', '.join(map(str, beyond))}"


class ScaleGenerator(ABC):
    """A model that predicts a map of logits per step, coarse to fine.

    A run is: `begin`, then for each step of `next_step`: `predict`, `sample`, `advance`; then `decode`. Everything
    that changes lives in the state that `begin` returns, never on the generator, so runs may interleave and an
    exception leaves nothing behind.

    Attributes:
        name: for messages and provenance.
        scales: the map of each step index.
        channels: `Categorical(v)` or `Binary(bits)`.
        serves: the streams it can predict.
        partial: True where some steps predict a partial map.
        lockstep: False where the steps depend on the sample, so that samples run one at a time.
        class_count: number of classes of the given condition, or None where it is something else (a prompt).
        class_names: their names, empty where they have none.
        tokenizer_hash: equal for generators whose tokens mean the same; lenders must agree.
        captured: where whole runs are kept as CUDA graphs, by families that have `prepare` and `begin_prepared`. From
            there to `decode` nothing waits for the device.
    """

    serves: ClassVar[Serves] = Serves()
    partial: ClassVar[bool] = False
    lockstep: ClassVar[bool] = True

    name: str
    scales: tuple[Scale, ...]
    channels: Categorical | Binary
    class_count: int | None = None
    class_names: tuple[str, ...] = ()
    captured: CapturedRuns | None = None

    @property
    def count(self) -> int:
        """Number of steps K."""
        return len(self.scales)

    @property
    @abstractmethod
    def tokenizer_hash(self) -> str:
        """Hash of what gives tokens their meaning."""

    @property
    def device(self) -> torch.device:
        """Where the generator computes."""
        return torch.device("cpu")

    def starts_like(self, other: ScaleGenerator) -> bool:
        """Whether a run of the two begins with the same map: what a lender must do."""
        return True

    def run_bytes(self, samples: int, streams: int) -> RunBytes | None:
        """Predicted memory of a run beside the weights; None where the family does not tell.

        Args:
            samples: b.
            streams: live to the end of the run.
        """
        return None

    def conditions(self, condition: Any, samples: int) -> list[Any]:
        """One checked condition per sample.

        Args:
            condition: one condition for all samples (a class index, a prompt), or a sequence of one per sample.
            samples: number of samples.

        Raises:
            ConfigError: another number of conditions than samples.
        """
        if isinstance(condition, Tensor | np.ndarray | np.generic):
            condition = condition.tolist()
        if not isinstance(condition, Sequence) or isinstance(condition, str):
            return [condition] * samples
        condition = [each.item() if isinstance(each, np.generic) else each for each in condition]
        if len(condition) != samples:
            raise ConfigError(
                f"{samples} seeds but {len(condition)} conditions: give one condition, or one for each seed."
            )
        return list(condition)

    @abstractmethod
    def begin(self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None) -> Any:
        """The state of a new run.

        Args:
            condition: one condition per sample.
            streams: each stream the run will ask for, with the last step index at which it does. A live stream that
                a step does not ask for still fills its cache; after its last index it is not computed any more.
            noise: all randomness of the run.
            negative: content of the null streams in place of the model's own null condition.
        """

    def prepare(self, condition: Sequence[Any], negative: Any = None) -> Prepared:
        """The conditions of a run on the device, for `begin_prepared`; see `begin`.

        Raises:
            ConfigError: this family captures no runs.
        """
        raise ConfigError(f"{self.name} captures no runs: it has no prepare and begin_prepared.")

    def begin_prepared(self, prepared: Prepared, streams: Mapping[Stream, int], noise: Noise) -> Any:
        """As `begin`, from conditions on the device, without waiting for it: all that changes between captured runs.

        Raises:
            ConfigError: this family captures no runs.
        """
        raise ConfigError(f"{self.name} captures no runs: it has no prepare and begin_prepared.")

    @abstractmethod
    def next_step(self, state: Any) -> Step | None:
        """The next step, the same for all samples of the run, or None at the end."""

    @abstractmethod
    def predict(
        self, state: Any, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        """Raw logits of each stream asked for, before temperature and filters; once per (step, call).

        Args:
            state: of this run.
            step: as given by `next_step`.
            streams: asked for at this step, each served by this generator.
            weights: the guidance's linear weights per stream; they sum to 1.

        Returns:
            `(b, h, w, v)` float32 per stream, or `(b, n, v)` on a partial map; new tensors that the loop may keep.
        """

    @abstractmethod
    def sample(self, state: Any, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]) -> Draw:
        """Draw from guided logits through the sampler; `logits` are left as they are."""

    @abstractmethod
    def advance(self, state: Any, step: Step, draw: Draw) -> None:
        """Take the draw into the state, before the next step."""

    @abstractmethod
    def decode(self, state: Any) -> Float[Tensor, "b 3 H W"]:
        """The images of a run, in [0, 1]; in the middle of a run, what is known so far."""

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Tokens of images in [0, 1], one `(b, h, w)` map per scale, where the family can.

        Raises:
            StreamError: this family has no encoder.
        """
        raise StreamError(f"{self.name} cannot encode images into tokens.")
