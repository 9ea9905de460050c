"""What happens around the steps of a training: progress on stderr, checkpoints, and quiet from Lightning."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning

__all__ = ["Progress", "Saver", "interruptible", "quiet"]


class Progress(lightning.Callback):
    """A progress bar on stderr (stdout is for results), counted from the start of the run and not of the session."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Open the bar where the run stands."""
        from tqdm import tqdm

        config = pl_module.config
        total = None if config.minutes else config.steps
        self.bar = tqdm(total=total, initial=pl_module.steps_done, unit="step", file=sys.stderr, mininterval=1.0)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step on."""
        self.bar.set_postfix_str(f"{pl_module.progress:.0%} loss {pl_module.averages['loss']:.4f}", refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Close the bar, so that the message that follows has a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()


class Saver(lightning.Callback):
    """A checkpoint every so many steps, each in place of the one before."""

    # Lightning's own counts steps of optimisers, of which Muon has two, and warns at length about manual optimisation.

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time."""
        if pl_module.steps_done % self.every == 0:
            trainer.save_checkpoint(self.path, weights_only=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, add-ons and itself; all is as before at the end."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The averaged weights are in evaluation mode on purpose.
            warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode")
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.* is deprecated")
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends in KeyboardInterrupt; Lightning makes it an exit with code 1, and is deaf to the next one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from stop
