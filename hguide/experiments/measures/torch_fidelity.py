"""torch-fidelity on exported pictures, under its own names; an optional extra."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from hguide.errors import ConfigError

__all__ = ["torch_fidelity_scores"]


def torch_fidelity_scores(sample: str | Path, reference: str | Path, *, cuda: bool = False) -> dict[str, float]:
    """What torch-fidelity (0.4 or later) says of two folders of PNG files.

    Its network and its weights are not this project's: its numbers never stand in one table with KD, FD and sFD, and
    its names are kept, with "torch-fidelity: " in front. Its first input is the sample: precision counts pictures of
    the sample.

    Args:
        sample: folder of generated pictures; sub-folders are read too.
        reference: folder of real pictures.
        cuda: run its network on the GPU.

    Raises:
        ConfigError: a folder is missing, or the package cannot be imported, with the reason.
    """
    for folder in (sample, reference):
        if not Path(folder).is_dir():
            raise ConfigError(f"torch-fidelity reads folders of PNG files, and {folder} is none.")
    found = _imported().calculate_metrics(
        input1=str(sample),
        input2=str(reference),
        cuda=cuda,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        samples_find_deep=True,
        verbose=False,
    )
    return {f"torch-fidelity: {name}": float(value) for name, value in found.items()}


def _imported() -> Any:
    try:
        return import_module("torch_fidelity")
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            "torch-fidelity scores need the packages torch-fidelity>=0.4 and torchvision, whose import failed: "
            f"{error}. Install them with 'pip install torch-fidelity'; torchvision must be the release and the build "
            "(CPU or CUDA) that belongs to the installed torch. KD, FD and sFD need neither."
        ) from error
