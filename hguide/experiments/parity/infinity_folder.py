"""The recorded files of Infinity: which kind each of them is, and its replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hguide.backends.checkpoints import read_state_dict
from hguide.experiments.parity.folder import Folder, RecordedFile, read_json
from hguide.experiments.parity.infinity_case import is_rounded, replay_run
from hguide.experiments.parity.infinity_facts import (
    compare_manifest,
    compare_positions,
    compare_schedules,
    replay_tables,
)
from hguide.experiments.parity.infinity_model import InfinityModels
from hguide.experiments.parity.infinity_tokenizer_case import replay_tokenizer, replay_training
from hguide.experiments.parity.infinity_tolerances import rounded_tolerance_of, tolerance_of
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison

__all__ = ["replay_file"]

UNKNOWN = "no such quantity in this kind of case"
WEIGHTS = "weights, an input of the replay"


def replay_file(file: RecordedFile, folder: Folder, models: InfinityModels) -> Iterator[Comparison]:
    """The comparisons of one file; its kind is told by config.json or by the names in it.

    Args:
        file: to replay.
        folder: it lies in.
        models: of the folder, shared by its files.

    Raises:
        HGuideError: it cannot be replayed.
    """
    if file.path.suffix == ".json":
        yield from _json(file)
        return
    if file.path.name in _weight_files(folder.config):
        yield Comparison(file.case, "all", None, 0.0, WEIGHTS, len(file.names))
        return
    settings = folder.config["cases"].get(file.path.stem, {})
    tolerance = rounded_tolerance_of if is_rounded(settings) else tolerance_of
    recording = Recording(file.case, read_state_dict(file.path), tolerance)
    try:
        _replay(recording, file, folder.config, models)
    except Exception:
        # What was compared before the error still counts; the error itself is the caller's to report.
        yield from recording.finish("the replay stopped")
        raise
    yield from recording.finish(UNKNOWN)


def _weight_files(config: Mapping[str, Any]) -> set[str]:
    return {model[part] for model in config["models"].values() for part in ("transformer_file", "vae_file")}


def _json(file: RecordedFile) -> Iterator[Comparison]:
    content = read_json(file.path)
    match file.path.stem:
        case "scale_schedules":
            yield from compare_schedules(file.case, content)
        case "rope_positions":
            yield from compare_positions(file.case, content)
        case name if name.startswith("manifest"):
            yield from compare_manifest(file.case, content)
        case _:
            yield Comparison(file.case, "all", None, 0.0, "no kind of case", 1)


def _replay(recording: Recording, file: RecordedFile, config: Mapping[str, Any], models: InfinityModels) -> None:
    stem = file.path.stem
    if stem in config["cases"]:
        replay_run(recording, models, config["cases"][stem])
    elif stem in config.get("other_files", {}):
        model = models.named(config["other_files"][stem])
        replay = replay_tokenizer if "enc_h" in recording else replay_training
        replay(recording, model)
    elif stem == "rope_tables":
        replay_tables(recording)
