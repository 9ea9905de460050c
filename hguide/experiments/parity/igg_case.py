"""Recorded runs of IGG on VAR: the guidance of its authors' code, on the networks of a folder of VAR nearby."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.var.generator import VAR
from hguide.errors import ConfigError
from hguide.experiments.parity.folder import Folder, RecordedFile, read_json
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison
from hguide.experiments.parity.var_case import tokens_by_scale
from hguide.experiments.parity.var_model import VARModel
from hguide.grids import Step
from hguide.guidance import CFG, IGG, Guidance
from hguide.noise import RecordedNoise
from hguide.sampling import Replay
from hguide.streams import COND, UNCOND

__all__ = ["IGGModels", "replay_file"]

NAMES = ((COND, "cond"), (UNCOND, "uncond"))
UNKNOWN = "no such quantity in a run of IGG"


@dataclass(frozen=True, eq=False)
class IGGModels:
    """The networks of the runs, which lie in folders of VAR: in `../var/NAME`, or `../NAME`.

    Args:
        folder: of the runs.
        config: its settings.
    """

    folder: Path
    config: Mapping[str, Any]
    made: dict[str, VARModel] = field(default_factory=dict)

    def named(self, name: str) -> VARModel:
        """The networks of a folder.

        Raises:
            ConfigError: there is no such folder, or its scales or its vocabulary are not those of the runs.
        """
        if name not in self.made:
            parent = self.folder.resolve().parent
            places = [parent / "var" / name, parent / name]
            found = next((place for place in places if (place / "config.json").is_file()), None)
            if found is None:
                raise ConfigError(
                    f"{self.folder}: the weights {name!r} lie neither in {places[0]} nor in {places[1]}; put the "
                    "recorded folder of VAR there."
                )
            config = read_json(found / "config.json")
            for size in ("patch_nums", "vocab_size"):
                if config.get(size) != self.config.get(size):
                    raise ConfigError(f"{found}: {size} is {config.get(size)}, the runs have {self.config.get(size)}.")
            self.made[name] = VARModel(found, config)
        return self.made[name]


@torch.no_grad()
def replay_file(file: RecordedFile, folder: Folder, models: IGGModels) -> Iterator[Comparison]:
    """The comparisons of a file, run by run.

    Args:
        file: tensors named `RUN.s{k}.QUANTITY`.
        folder: it lies in; its settings list the runs.
        models: of the folder.

    Raises:
        HGuideError: a run cannot be replayed.
    """
    tensors = read_state_dict(file.path) if file.path.suffix == ".safetensors" else {}
    runs: Mapping[str, Mapping[str, Any]] = folder.config["runs"]
    for run in dict.fromkeys([*runs, *(name.partition(".")[0] for name in tensors)]):
        own = {name.removeprefix(f"{run}."): tensor for name, tensor in tensors.items() if name.startswith(f"{run}.")}
        recording = Recording(file.case, own)
        try:
            if run in runs:
                _replay(recording, runs[run], models)
        except Exception:
            yield from _of_run(run, recording.finish("the replay stopped"))
            raise
        yield from _of_run(run, recording.finish(UNKNOWN))


def _of_run(run: str, comparisons: list[Comparison]) -> Iterator[Comparison]:
    return (replace(each, quantity=f"{run}.{each.quantity}") for each in comparisons)


def _replay(recording: Recording, settings: Mapping[str, Any], models: IGGModels) -> None:
    generator = models.named(settings["weights"]).generator
    guidance = _guidance(settings)
    tokens = tokens_by_scale(recording, generator)
    sampler = Replay(top_k=settings["top_k"], top_p=settings["top_p"], tokens=tokens)
    scale = settings["logit_scale"] or 1.0
    last = generator.count - 1
    labels = settings["labels"]
    state = generator.begin(generator.conditions(labels, len(labels)), {COND: last, UNCOND: last}, RecordedNoise({}))
    memory: Mapping[Any, Any] = {}
    while (step := generator.next_step(state)) is not None:
        weights = guidance.weights(COND, step)
        predicted = dict(generator.predict(state, step, (COND, UNCOND), weights))
        for stream, name in NAMES:
            predicted[stream] = scale * predicted[stream]
            recording.compare(f"s{step.index}.{name}", predicted[stream].flatten(1, 2))
        # Where two tokens compete for a third, the softmax over inner products turns a rounding of the network's
        # logits into thirty times as much: as the tokens of other runs are fed back, so are the logits here.
        predicted = {
            stream: recording.tensors.get(f"s{step.index}.{name}", predicted[stream]).view_as(predicted[stream])
            for stream, name in NAMES
        }
        guided, memory = guidance.apply(predicted, step, memory)
        recording.compare(f"s{step.index}.ground", IGG().grounded(predicted[COND] - predicted[UNCOND]).flatten(1, 2))
        recording.compare(f"s{step.index}.guided", guided.flatten(1, 2))
        _compare_tokens(recording, generator, step, sampler, guided)
        generator.advance(state, step, generator.sample(state, step, guided, sampler, weights))


def _guidance(settings: Mapping[str, Any]) -> Guidance:
    """IGG alone, IGG with CFG, or CFG alone."""
    contrast, grounded = settings["w_cfg"], settings["w_igg"]
    return CFG(contrast) if grounded is None else IGG(grounded, cfg=contrast)


def _compare_tokens(recording: Recording, generator: VAR, step: Step, sampler: Replay, guided: Tensor) -> None:
    """Recorded tokens are fed back, so that what can be wrong with them is that the filters drop them."""
    dense = sampler.candidates(guided, step).dense(generator.channels.width)
    recorded = recording[f"s{step.index}.tokens"]
    dropped = dense.gather(-1, recorded.unsqueeze(-1)).squeeze(-1) == -torch.inf
    recording.judge(f"s{step.index}.tokens", int(dropped.sum()), "not among the tokens that the filters keep")
