"""The recorded files of HART: which kind each of them is, and its replay."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.hart.rope import text_positions
from hguide.experiments.parity.folder import Folder, RecordedFile, read_json
from hguide.experiments.parity.hart_case import INPUT, replay_run
from hguide.experiments.parity.hart_manifest import compare_manifest, compare_schedule
from hguide.experiments.parity.hart_model import HARTModels
from hguide.experiments.parity.hart_tokenizer_case import replay_tokenizer
from hguide.experiments.parity.hart_tolerances import hart_tolerance
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison

__all__ = ["replay_file"]

UNKNOWN = "no such quantity in this kind of case"
_RUN = re.compile(r"case_([a-z]+)_run_(\w+)")


def replay_file(file: RecordedFile, folder: Folder, models: HARTModels) -> Iterator[Comparison]:
    """The comparisons of one file; its kind is told by its name, its settings by config.json.

    Args:
        file: to replay.
        folder: it lies in.
        models: of the folder, shared by its files.

    Raises:
        HGuideError: it cannot be replayed.
    """
    stem = file.path.stem
    if file.path.suffix == ".json":
        if "keys" in file.names:
            yield from compare_manifest(file.case, read_json(file.path))
        else:
            yield Comparison(file.case, "all", None, 0.0, "no kind of case", 1)
        return
    if stem.endswith("_weights"):
        yield Comparison(file.case, "all", None, 0.0, f"weights, {INPUT}", len(file.names))
        return
    recording = Recording(file.case, read_state_dict(file.path), hart_tolerance)
    try:
        _replay(recording, stem, models)
    except Exception:
        # What was compared before the error still counts; the error itself is the caller's to report.
        yield from recording.finish("the replay stopped")
        raise
    yield from recording.finish(UNKNOWN)


def _replay(recording: Recording, stem: str, models: HARTModels) -> None:
    run = _RUN.fullmatch(stem)
    if run is not None:
        replay_run(recording, models.case(run[1]), models.context, models.settings(run[1], run[2]))
    elif stem.startswith("tokenizer"):
        replay_tokenizer(recording, models.tokenizer)
    elif stem.startswith("diffusion_schedule"):
        compare_schedule(recording)
    elif stem == "context":
        for name in ("context", "context_mask"):
            recording.leave(name, INPUT)
        recording.compare("context_position_ids", text_positions(recording["context_mask"]))
