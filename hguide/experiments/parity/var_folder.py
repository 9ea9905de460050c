"""The recorded files of VAR: which kind each of them is, and its replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.experiments.parity.folder import Folder, RecordedFile, read_json
from hguide.experiments.parity.manifest_case import compare_manifest, compare_phi_index
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.report import Comparison
from hguide.experiments.parity.sampling_case import replay_sampling
from hguide.experiments.parity.tokenizer_case import replay_quantizer, replay_tokenizer
from hguide.experiments.parity.var_case import replay_run
from hguide.experiments.parity.var_model import VARModel

__all__ = ["replay_file"]

CHECK = "check."
TOKENIZER = "vae."
UNKNOWN = "no such quantity in this kind of case"


def replay_file(file: RecordedFile, folder: Folder, model: VARModel) -> Iterator[Comparison]:
    """The comparisons of one file; its kind is told by the names in it, its settings by config.json.

    Args:
        file: to replay.
        folder: it lies in.
        model: of the folder, shared by its files.

    Raises:
        HGuideError: it cannot be replayed.
    """
    if file.path.suffix == ".json":
        yield from _json(file)
        return
    if file.path.name.startswith("weights"):
        yield Comparison(file.case, "all", None, 0.0, "weights, an input of the replay", len(file.names))
        return
    recording = Recording(file.case, read_state_dict(file.path))
    try:
        _replay(recording, file, folder.config, model)
    except Exception:
        # What was compared before the error still counts; the error itself is the caller's to report.
        yield from recording.finish("the replay stopped")
        raise
    yield from recording.finish(UNKNOWN)


def _json(file: RecordedFile) -> Iterator[Comparison]:
    content = read_json(file.path)
    if "index" in file.names and file.path.stem == "phi_index":
        yield from compare_phi_index(file.case, content)
    elif "pos_1LC" in file.names or "encoder.conv_in.weight" in file.names:
        yield from compare_manifest(file.case, content)
    else:
        yield Comparison(file.case, "all", None, 0.0, "no kind of case", 1)


def _replay(recording: Recording, file: RecordedFile, config: Mapping[str, Any], model: VARModel) -> None:
    stem = file.path.stem
    sampling = file.path.with_suffix(".json")
    if sampling.is_file():
        replay_sampling(recording, read_json(sampling))
        return
    if "quantize.embedding.weight" in recording:
        replay_quantizer(recording, config.get("quant_resi", 0.5))
        return
    if not config:
        for name in recording.tensors:
            recording.leave(name, "no config.json beside it")
        return
    _compare_weights(recording, model)
    if "labels" in recording and model.has_transformer:
        replay_run(recording, model, {**_stated_labels(config, stem), **config.get(stem, config.get("sampling", {}))})
    elif "image" in recording:
        replay_tokenizer(recording, model.tokenizer, config.get(stem, {}))


def _stated_labels(config: Mapping[str, Any], stem: str) -> dict[str, Any]:
    """The labels that the configuration states at its top belong to the run without settings of its own."""
    return {"labels": config["labels"]} if "labels" in config and stem not in config else {}


def _compare_weights(recording: Recording, model: VARModel) -> None:
    """`check.KEY`: the first values of a weight, or all of them; `check.vae.KEY` where there is a transformer too."""
    for name in [name for name in recording.tensors if name.startswith(CHECK)]:
        key = name.removeprefix(CHECK)
        own: dict[str, Tensor] = {}
        if key.startswith(TOKENIZER) or not model.has_transformer:
            own, key = model.tokenizer.state_dict(), key.removeprefix(TOKENIZER)
        else:
            own = model.transformer.state_dict()
        if key not in own:
            recording.leave(name, "no such weight")
        else:
            recorded = recording[name]
            found = own[key] if own[key].shape == recorded.shape else own[key].flatten()[: recorded.numel()]
            recording.compare(name, found)
