"""The recorded files of VQ-Diffusion: which kind each of them is, and its replay."""

from __future__ import annotations

from collections.abc import Iterator

from hguide.backends.checkpoints import read_state_dict
from hguide.experiments.parity.folder import Folder, RecordedFile, read_json
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison
from hguide.experiments.parity.vq_diffusion_fixtures import compare_maps, compare_schedules, replay_fixtures
from hguide.experiments.parity.vq_diffusion_manifest import compare_manifest
from hguide.experiments.parity.vq_diffusion_model import VQDiffusionModel
from hguide.experiments.parity.vq_diffusion_run import INPUT, replay_run
from hguide.experiments.parity.vq_diffusion_tolerances import vq_diffusion_tolerance

__all__ = ["replay_file"]

RUN = "run_"
WEIGHTS = ("weights", "vqgan")
UNKNOWN = "no such quantity in this kind of case"


def replay_file(file: RecordedFile, folder: Folder, model: VQDiffusionModel) -> Iterator[Comparison]:
    """The comparisons of one file; its kind is told by its name, its settings by config.json.

    Args:
        file: to replay.
        folder: it lies in.
        model: of the folder, shared by its files.

    Raises:
        HGuideError: it cannot be replayed.
    """
    if file.path.suffix == ".json":
        if "shapes" in file.names:
            yield from compare_manifest(file.case, read_json(file.path))
        else:
            yield Comparison(file.case, "all", None, 0.0, "no kind of case", 1)
        return
    if file.path.stem in WEIGHTS:
        yield Comparison(file.case, "all", None, 0.0, f"weights, {INPUT}", len(file.names))
        return
    recording = Recording(file.case, read_state_dict(file.path), vq_diffusion_tolerance)
    try:
        _replay(recording, file.path.stem, model)
    except Exception:
        # What was compared before the error still counts; the error itself is the caller's to report.
        yield from recording.finish("the replay stopped")
        raise
    yield from recording.finish(UNKNOWN)


def _replay(recording: Recording, stem: str, model: VQDiffusionModel) -> None:
    if stem.startswith(RUN):
        replay_run(recording, model, model.run(stem.removeprefix(RUN)))
    elif stem == "fixtures":
        replay_fixtures(recording, model)
    elif stem == "schedules":
        compare_schedules(recording)
    elif stem == "codebook_maps":
        compare_maps(recording)
