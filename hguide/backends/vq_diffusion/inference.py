"""Which network calls a run makes: plain, fast and high-quality inference (arXiv 2205.16007)."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.errors import ConfigError

__all__ = ["Call", "Inference", "even_shares"]


@dataclass(frozen=True)
class Call:
    """One network call.

    Attributes:
        network: timestep given to the network.
        posterior: timestep at which the posterior is evaluated.
        reveal: masked tokens that the call reveals by a prior rule; 0 for a draw from the posterior.
    """

    network: int
    posterior: int
    reveal: int = 0


@dataclass(frozen=True)
class Inference:
    """How the reverse process is run; the defaults are the plain process.

    Args:
        speed: the official `infer_speed`. 1 visits every timestep; 2, 3, ... every second, third, ... and takes the
            one-step posterior at the timestep before the next visited one (an approximation, *stated*); below 1 is
            "high quality": a timestep reveals its tokens in several calls.
        prior_rule: 0 draws from the posterior; 1 and 2 reveal a fixed number of masked tokens per timestep instead,
            chosen at random or by purity, and never change a visible one; the last timestep draws from the posterior
            always. Below speed 1, rule 0 means 1.
        prior_weight: r of rule 2: tokens are drawn from softmax((1 + r purity) log p).
        tokens_per_step: the official `n_sample`, tokens revealed at each timestep, t = 0 first. By default an even
            share of the map (*reconstructed*: the official tables, for maps of 1024 tokens, are not in our sources).
        tokens_per_call: the official `prior_ps`, largest number of tokens revealed by one call; a leftover of one
            token joins the call before it. By default all of a timestep's; below speed 1, int(L // T * speed).

    Raises:
        ConfigError: an option out of range, or two that exclude each other; all at once.
    """

    speed: float = 1.0
    prior_rule: int = 0
    prior_weight: float = 0.0
    tokens_per_step: tuple[int, ...] | None = None
    tokens_per_call: int | None = None

    def __post_init__(self) -> None:
        if self.tokens_per_step is not None:
            object.__setattr__(self, "tokens_per_step", tuple(self.tokens_per_step))
        problems = self._problems()
        if problems:
            raise ConfigError("Inference: " + "; ".join(problems) + ".")

    def _problems(self) -> list[str]:
        found = []
        if not (0.0 < self.speed <= 1.0 or (self.speed >= 2.0 and self.speed == int(self.speed))):
            found.append(f"speed is in (0, 1], or 2, 3, ...; got {self.speed!r}")
        if self.prior_rule not in (0, 1, 2):
            found.append(f"prior_rule is 0, 1 or 2, got {self.prior_rule!r}")
        if not 0.0 <= self.prior_weight < float("inf"):
            found.append(f"prior_weight is a finite number >= 0, got {self.prior_weight!r}")
        if self.prior_weight and self.prior_rule != 2:
            found.append(f"prior_weight belongs to prior_rule 2, got rule {self.prior_rule}")
        if self.speed > 1.0 and self.prior_rule:
            found.append("a prior rule needs every timestep, so speed is at most 1")
        if not self.rule and (self.tokens_per_step is not None or self.tokens_per_call is not None):
            found.append("tokens_per_step and tokens_per_call belong to a prior rule or to a speed below 1")
        if self.tokens_per_call is not None and self.tokens_per_call < 1:
            found.append(f"tokens_per_call is at least 1, got {self.tokens_per_call}")
        if self.tokens_per_step is not None and min(self.tokens_per_step, default=-1) < 0:
            found.append(f"tokens_per_step are numbers >= 0, got {self.tokens_per_step}")
        return found

    @property
    def rule(self) -> int:
        """The prior rule in force."""
        return self.prior_rule or int(self.speed < 1.0)

    def calls(self, timesteps: int, length: int, start: int | None = None) -> tuple[tuple[Call, ...], ...]:
        """The network calls of each step of a run, noisiest first.

        Args:
            timesteps: T.
            length: tokens L of a map.
            start: number of timesteps of the run; all T by default.

        Raises:
            ConfigError: `tokens_per_step` lists another number of timesteps.
        """
        first = (timesteps if start is None else start) - 1
        if not self.rule:
            skip = max(int(self.speed) - 1, 0)
            visited = [*range(first, 0, -(skip + 1)), 0]
            return tuple((Call(t, t - skip if t > skip else t),) for t in visited)
        shares = self._shares(timesteps, length)
        return tuple(
            tuple(Call(t, t, n) for n in self._portions(shares[t], timesteps, length))
            if t and shares[t]
            else (Call(t, t),)
            for t in range(first, -1, -1)
            if t == 0 or shares[t]
        )

    def _shares(self, timesteps: int, length: int) -> tuple[int, ...]:
        if self.tokens_per_step is None:
            return tuple((t + 1) * length // timesteps - t * length // timesteps for t in range(timesteps))
        if len(self.tokens_per_step) != timesteps:
            raise ConfigError(
                f"Inference: tokens_per_step lists {len(self.tokens_per_step)} timesteps, the model has {timesteps}."
            )
        return self.tokens_per_step

    def _portions(self, share: int, timesteps: int, length: int) -> list[int]:
        most = self.tokens_per_call
        if most is None:
            most = max(int(length // timesteps * self.speed), 1) if self.speed < 1.0 else share
        portions = []
        while share > 0:
            take = min(share, most)
            take += int(share - take == 1)
            portions.append(take)
            share -= take
        return portions


def even_shares(timesteps: int, length: int, calls: int) -> tuple[int, ...]:
    """`tokens_per_step` of a run of few network calls: equal shares of the tokens at evenly spaced timesteps.

    The first is the noisiest timestep, the last is t = 0, whose share is what is still masked then.

    Args:
        timesteps: T.
        length: tokens L of a map.
        calls: number of network calls, at most T and at most L.

    Raises:
        ConfigError: more calls than timesteps or tokens, or none.
    """
    if not 1 <= calls <= min(timesteps, length):
        raise ConfigError(f"calls is from 1 to {min(timesteps, length)} (timesteps, tokens of a map), got {calls}.")
    shares = [0] * timesteps
    for j in range(calls):
        visited = timesteps - 1 - j * timesteps // calls if j + 1 < calls else 0
        shares[visited] = (j + 1) * length // calls - j * length // calls
    return tuple(shares)
