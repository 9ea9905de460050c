"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hguide.cli.parser import add_flag
from hguide.errors import ConfigError

if TYPE_CHECKING:
    from hguide.generator import ScaleGenerator
    from hguide.guidance import Guidance
    from hguide.sampling import Sampler

__all__ = [
    "Dtype",
    "add_model",
    "add_sampling",
    "batch_size_of",
    "checked_device",
    "load_model",
    "new_file",
    "sampler_of",
    "writable_folder",
]

Dtype = Literal["float32", "bfloat16", "float16"]
Setting = float | list[float] | str


def add_model(parser: Any, default: str = "landuse-var") -> None:
    """Which model, where, in which precision."""
    parser.add_argument("--model", type=str, default=default, help="bundled name, file, folder or hub id.")
    parser.add_argument("--tokenizer", type=str | None, default=None, help="the tokenizer's file, where it is another.")
    parser.add_argument(
        "--load", type=dict[str, Any], default={}, help="options of hguide.load, as --load.text_encoder FOLDER or JSON."
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps.")
    parser.add_argument("--dtype", type=Dtype, default="float32", help="of the network.")


def add_sampling(
    parser: Any, *, batch_size: int, temperature: Setting = 1.0, top_k: Setting = 0, top_p: Setting = 0.0
) -> None:
    """How tokens are drawn, how many images at once."""
    each = "a number, one number per step, or a schedule as text"
    warmth = f'divides the logits; {each}, or "entropy(...)"'
    parser.add_argument("--temperature", type=Setting, default=temperature, help=f"{warmth}.")
    parser.add_argument("--top-k", type=Setting, default=top_k, help=f"most probable tokens kept, 0 for all; {each}.")
    parser.add_argument("--top-p", type=Setting, default=top_p, help=f"probability mass kept, 0 for all; {each}.")
    parser.add_argument("--batch-size", type=int | Literal["auto"], default=batch_size, help="images at once, or auto.")
    add_flag(
        parser,
        "deterministic",
        False,
        "one image at a time: bit-equal whatever else is sampled (else a token near a tie may differ).",
    )


def load_model(options: Any) -> ScaleGenerator:
    """The generator that the options of `add_model` name.

    Raises:
        ConfigError: an option of `hguide.load` that the model's family does not have, or one with an option of its own
            here.
    """
    import torch

    from hguide.load import load

    own = [name for name in ("tokenizer", "device", "dtype") if name in options.load]
    if own:
        raise ConfigError(f"load: {own[0]} is an option by itself: --{own[0]} {options.load[own[0]]}.")
    extra = {**options.load, **({"tokenizer": options.tokenizer} if options.tokenizer else {})}
    return load(options.model, device=checked_device(options.device), dtype=getattr(torch, options.dtype), **extra)


def checked_device(name: str) -> Any:
    """The device of a name, tried out; "auto" takes the fastest there is.

    Raises:
        ConfigError: it cannot be used here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason[:160]}); use --device auto or cpu.") from error
    return device


def sampler_of(options: Any) -> Sampler:
    """The sampler that the options of `add_sampling` describe."""
    if options.batch_size != "auto" and options.batch_size < 1:
        raise ConfigError(f"batch-size is at least 1, or auto, got {options.batch_size}.")
    from hguide.provenance import sampler_from

    return sampler_from({name: getattr(options, name) for name in ("temperature", "top_k", "top_p")})


def batch_size_of(
    options: Any,
    generator: ScaleGenerator,
    guidances: Sequence[Guidance],
    models: Mapping[str, ScaleGenerator] | None = None,
    *,
    wanted: int,
) -> int:
    """The number that the options give, or with "auto" as many images as fit whatever the guidance."""
    if options.batch_size != "auto":
        return options.batch_size
    from hguide.memory import automatic_batch_size
    from hguide.plan import plan

    lives = [plan(generator, each, negative=getattr(options, "negative", None), models=models) for each in guidances]
    return min(automatic_batch_size(generator, live, models, wanted=wanted) for live in lives)


def writable_folder(folder: str | Path) -> Path:
    """The folder, which need not be there yet; that files can be written to it is tried before any work is done.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    import tempfile

    path = Path(folder).expanduser()
    above = next(each for each in (path, *path.absolute().parents) if each.exists() or each.is_symlink())
    try:
        with tempfile.TemporaryFile(dir=above):
            return path
    except OSError as error:
        raise ConfigError(f"cannot write to the folder {path}: {error.strerror or error}.") from error


def new_file(path: str | Path, suffix: str, overwrite: bool) -> Path:
    """A file that is to be written, in a folder that can be written to.

    Raises:
        ConfigError: another ending, a file that is there already without `overwrite`, or no such folder.
    """
    file = Path(path).expanduser()
    if file.suffix != suffix:
        raise ConfigError(f"the file to write ends in {suffix}, got {file}.")
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} is there already; choose another name, or --overwrite.")
    if not file.parent.is_dir():
        raise ConfigError(f"the folder {file.parent} is not there.")
    writable_folder(file.parent)
    return file
