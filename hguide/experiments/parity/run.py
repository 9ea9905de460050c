"""`hguide parity DIR`: replay recorded runs of the official programs and compare every number."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hguide.errors import ConfigError, HGuideError, near_matches
from hguide.experiments.parity.folder import CONFIG, RECORDED, Folder, RecordedFile, read_json
from hguide.experiments.parity.report import Comparison, Report

__all__ = ["FAMILIES", "Family", "parity"]

ABSENT = "config.json has settings for it, but the file is not there"


@dataclass(frozen=True)
class Family:
    """The recorded files of one model family.

    Args:
        recognises: whether a folder's config.json is of this family; `{}` where the folder has none.
        files: the files, without ending, that a config.json has settings for.
        model: "module:name", made once per folder as `model(folder.path, folder.config)`.
        replay: "module:name", `replay(file, folder, model) -> comparisons`, called for each file.
    """

    recognises: Callable[[Mapping[str, Any]], bool]
    files: Callable[[Mapping[str, Any]], list[str]]
    model: str
    replay: str


def _is_var(config: Mapping[str, Any]) -> bool:
    # Files without a configuration (manifests, filters, the quantizer alone) are VAR's.
    return not config or {"vocab_size", "z_channels", "ch", "ch_mult", "patch_nums"} <= config.keys()


def _var_files(config: Mapping[str, Any]) -> list[str]:
    runs = [name for name, value in config.items() if isinstance(value, dict) and name not in ("sampling", "versions")]
    return ["case"] * ("sampling" in config) + runs


def _is_igg(config: Mapping[str, Any]) -> bool:
    runs = config.get("runs")
    return isinstance(runs, dict) and bool(runs) and all("w_igg" in each for each in runs.values())


def _is_hart(config: Mapping[str, Any]) -> bool:
    cases = config.get("cases")
    return isinstance(cases, dict) and any("num_sampling_steps" in each for each in cases.values())


def _hart_files(config: Mapping[str, Any]) -> list[str]:
    runs = [f"case_{case}_run_{run}" for case, runs in config.get("runs", {}).items() for run in runs]
    return ["context", "tokenizer_weights", *(f"case_{case}_weights" for case in config["cases"]), *runs]


def _is_infinity(config: Mapping[str, Any]) -> bool:
    models = config.get("models")
    return isinstance(models, dict) and any("codebook_dim" in each.get("vae", {}) for each in models.values())


def _infinity_files(config: Mapping[str, Any]) -> list[str]:
    weights = [each[part] for each in config["models"].values() for part in ("transformer_file", "vae_file")]
    return [*(Path(name).stem for name in weights), *config["cases"], *config.get("other_files", {})]


def _is_vq_diffusion(config: Mapping[str, Any]) -> bool:
    return bool(config) and all(isinstance(v, dict) and {"kind", "K", "T", "runs"} <= v.keys() for v in config.values())


def _vq_diffusion_files(config: Mapping[str, Any]) -> list[str]:
    return [f"{case}/run_{run['name']}" for case, settings in config.items() for run in settings["runs"]]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "var": Family(
            _is_var,
            _var_files,
            "hguide.experiments.parity.var_model:VARModel",
            "hguide.experiments.parity.var_folder:replay_file",
        ),
        "igg": Family(
            _is_igg,
            lambda config: ["case"],
            "hguide.experiments.parity.igg_case:IGGModels",
            "hguide.experiments.parity.igg_case:replay_file",
        ),
        "hart": Family(
            _is_hart,
            _hart_files,
            "hguide.experiments.parity.hart_model:HARTModels",
            "hguide.experiments.parity.hart_folder:replay_file",
        ),
        "infinity": Family(
            _is_infinity,
            _infinity_files,
            "hguide.experiments.parity.infinity_model:InfinityModels",
            "hguide.experiments.parity.infinity_folder:replay_file",
        ),
        "vq_diffusion": Family(
            _is_vq_diffusion,
            _vq_diffusion_files,
            "hguide.experiments.parity.vq_diffusion_model:VQDiffusionModel",
            "hguide.experiments.parity.vq_diffusion_folder:replay_file",
        ),
    }
)
"""Tried in this order; further families add an entry."""


def parity(directory: Path, *, only: Sequence[str] = ()) -> Report:
    """Replay every recorded case under a directory.

    Cases, sizes and settings come from the config.json of each folder; weights lie beside it or are drawn by the
    recipe. Each tensor found is compared, or listed as not compared with the reason.

    Args:
        directory: laid out like `golden/var`, or one folder of it.
        only: cases to replay (`adaln/case`), folders (`adaln`) or patterns of them; all by default.

    Returns:
        The report; `ok` is False where something misses or nothing was compared.

    Raises:
        ConfigError: no such directory, or `only` names no case.
    """
    from tqdm import tqdm

    directory = Path(directory)
    if not directory.is_dir():
        raise ConfigError(f"parity: {directory} is not a directory.")
    folders = _folders(directory, only)
    comparisons: list[Comparison] = []
    progress = tqdm(total=sum(len(each.files) for each in folders), unit="file", file=sys.stderr, disable=None)
    with progress:
        for folder in folders:
            for file, found in _replay(folder):
                comparisons.extend(found)
                progress.set_postfix_str(file.case, refresh=False)
                progress.update()
            comparisons.extend(Comparison(case, "all", None, 0.0, ABSENT, 0) for case in folder.absent)
    return Report(str(directory), tuple(comparisons))


def _folders(directory: Path, only: Sequence[str]) -> list[Folder]:
    paths = [path for path in sorted(directory.rglob("*")) if path.suffix in RECORDED and path.is_file()]
    files = [RecordedFile(path, path.relative_to(directory).with_suffix("").as_posix()) for path in paths]
    files = [file for file in files if not _is_settings(file.path)]
    unknown = [wanted for wanted in only if not any(_wanted(file.case, wanted) for file in files)]
    if unknown:
        raise ConfigError(f"parity: no case {unknown[0]!r} in {directory}: {near_matches(unknown[0], _cases(files))}")
    if only:
        files = [file for file in files if any(_wanted(file.case, wanted) for wanted in only)]
    folders = []
    for path in sorted({file.path.parent for file in files}):
        config = _config(path, directory)
        here = tuple(file for file in files if file.path.parent == path)
        folders.append(Folder(path, here, config, () if only else _absent(path, directory, config)))
    return folders


def _config(path: Path, directory: Path) -> dict[str, Any]:
    """Of the folder, or of the nearest folder above it inside the directory; empty where there is none."""
    above = [path, *path.parents]
    found = next((each / CONFIG for each in above[: above.index(directory) + 1] if (each / CONFIG).is_file()), None)
    config = {} if found is None else read_json(found)
    if not isinstance(config, dict):
        raise ConfigError(f"{found}: holds a {type(config).__name__}, expected an object of settings.")
    return config


def _absent(path: Path, directory: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    family = _family(config) if (path / CONFIG).is_file() else None
    stated = [] if family is None else family.files(config)
    prefix = path.relative_to(directory)
    return tuple((prefix / name).as_posix() for name in stated if not (path / f"{name}.safetensors").is_file())


def _family(config: Mapping[str, Any]) -> Family | None:
    return next((each for each in FAMILIES.values() if each.recognises(config)), None)


def _is_settings(path: Path) -> bool:
    return path.name == CONFIG or (path.suffix == ".json" and path.with_suffix(".safetensors").is_file())


def _wanted(case: str, wanted: str) -> bool:
    wanted = wanted.rstrip("/")
    return case == wanted or case.startswith(f"{wanted}/") or fnmatchcase(case, wanted)


def _cases(files: Sequence[RecordedFile]) -> list[str]:
    return [file.case for file in files] + sorted({file.case.rpartition("/")[0] for file in files} - {""})


def _replay(folder: Folder) -> Iterator[tuple[RecordedFile, list[Comparison]]]:
    family = _family(folder.config)
    if family is None:
        for file in folder.files:
            yield file, list(_guarded(file, _listed(file, "config.json describes no family known here")))
        return
    model = _load(family.model)(folder.path, folder.config)
    replay = _load(family.replay)
    for file in folder.files:
        yield file, list(_guarded(file, replay(file, folder, model)))


def _guarded(file: RecordedFile, comparisons: Iterator[Comparison]) -> Iterator[Comparison]:
    """The comparisons, and a miss in place of an error: files nobody vouches for may raise anything."""
    try:
        yield from comparisons
    except Exception as error:
        name = "" if isinstance(error, HGuideError) else f"{type(error).__name__}: "
        yield Comparison(file.case, "replay", math.inf, 0.0, f"{name}{error}", 0)


def _listed(file: RecordedFile, reason: str) -> Iterator[Comparison]:
    yield Comparison(file.case, "all", None, 0.0, reason, len(file.names))


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
