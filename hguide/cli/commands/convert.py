"""`hguide convert`: published weights into one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hguide.cli.options import Dtype
from hguide.cli.parser import add_flag

if TYPE_CHECKING:
    from hguide.backends.var import VAR

HELP = """
Reads a VAR model (published .pth files, a training checkpoint that wraps them, a file of ours or a bundled model by
its name) and writes transformer, tokenizer and description into one safetensors file that `hguide.load` takes. Nothing
in the source is executed; the file appears whole or not at all.
"""
EXAMPLES = """
hguide convert var_d16.pth var_d16.safetensors --tokenizer vae_ch160v4096z32.pth
hguide convert var-d16 var_d16.safetensors --dtype float16
hguide convert landuse-var landuse_var.safetensors --dtype float16
hguide convert small.safetensors landuse-var-weak.safetensors --dtype float16 --tokenizer-of landuse-var
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide convert`."""
    parser.add_argument("source", type=str, help="file, folder, bundled or official name, or hub id.")
    parser.add_argument("out", type=str, help="file to write; ends in .safetensors.")
    parser.add_argument("--tokenizer", type=str | None, default=None, help="its file; beside the source by default.")
    parser.add_argument("--dtype", type=Dtype, default="float32", help="of the stored weights.")
    parser.add_argument(
        "--tokenizer-of",
        type=str | None,
        default=None,
        help="leave the tokenizer out: the file then takes that of NAME.safetensors beside it.",
    )
    add_flag(parser, "overwrite", False, "replace the file.")


def run(options: Any) -> None:
    """Load, write, say what was written."""
    import torch

    from hguide.cli.options import new_file
    from hguide.provenance import model_hash, versions

    out = new_file(options.out, ".safetensors", options.overwrite)
    from hguide.backends.var.files import save

    model = _loaded(options)
    found = model_hash(model)
    facts = {"source": {"name": options.source, "hash": found, "versions": versions()}}
    about = {**_training(options.source), **facts}
    save(model, out, dtype=getattr(torch, options.dtype), facts=about, tokenizer_of=options.tokenizer_of)
    size = f"{out.stat().st_size / 1e6:.1f} MB, {options.dtype}"
    print(f"{out}: {model.name}, {size}, hash of the source {found}")


def _loaded(options: Any) -> VAR:
    from hguide.backends.var.files import load
    from hguide.errors import CheckpointError, ConfigError, near_matches
    from hguide.load import BUNDLED, bundled_path

    name = options.source
    if name in BUNDLED:
        if BUNDLED[name] != "var":
            raise ConfigError(
                f"{name} is a model of the family {BUNDLED[name]!r}, of which nothing is converted: "
                f"it is one file already, {bundled_path(name)}."
            )
        return load(bundled_path(name), tokenizer=options.tokenizer)
    try:
        return load(name, tokenizer=options.tokenizer)
    except CheckpointError as error:
        if "/" in name or Path(name).expanduser().exists():
            raise
        raise CheckpointError(f"{error} Bundled models: {near_matches(name, BUNDLED)}") from None


def _training(source: str) -> dict[str, Any]:
    """The training that a file of ours carries, so that a change of dtype does not lose it."""
    import json

    from hguide.backends.checkpoints import read_metadata
    from hguide.load import BUNDLED, bundled_path

    path = bundled_path(source) if source in BUNDLED else Path(source).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    facts = json.loads(read_metadata(path).get("hguide", "{}"))
    return {"training": facts["training"]} if "training" in facts else {}
