"""`hguide paper`: a table or figure of a paper, reported beside measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hguide.cli.parser import add_flag
from hguide.errors import CheckpointError, ConfigError, near_matches

HELP = """
Runs a table or figure of the SSG or IGG paper on a model and writes what the paper reports beside what is measured
here, and what differs (model, data, measures). Without a preset it lists them. The same command run again goes on
where it stopped. Presets are ablations: their folder holds config.yaml, results.json and the images as `hguide ablate`
leaves them. With a published checkpoint the paper's own settings apply, and --npz writes the images for its evaluator.
"""
EXAMPLES = """
hguide paper
hguide paper ssg-table5 --model landuse-var --seeds 0-511 --devices 2 --out table5
hguide paper ssg-table5 --parameters '{"beta": 0.5}' --out table5-half
hguide paper ssg-table4 --model landuse-hart --out hart
hguide paper ssg-fig2 --data ucmerced96 --out completion
hguide paper ssg-table1 --model var-d16 --reference imagenet.npz --seeds 0-49999 --npz --device cuda --out table1
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide paper`."""
    parser.add_argument("preset", type=str, nargs="?", default=None, help="name; none lists them.")
    parser.add_argument("--model", type=str, default="landuse-var", help="bundled name, file, folder or hub id.")
    parser.add_argument("--out", type=str | None, default=None, help="folder; paper/PRESET.")
    parser.add_argument("--seeds", type=str, default="0-511", help="of each row: numbers and ranges.")
    parser.add_argument("--parameters", type=dict[str, float], default={}, help="of the preset, in place of its own.")
    parser.add_argument(
        "--settings", type=str, default="auto", help="bundled, published, or auto: by the model's name."
    )
    parser.add_argument("--prompts", type=str | None, default=None, help="of text models: a file with one per line.")
    parser.add_argument("--load", type=dict[str, Any], default={}, help="options of hguide.load: a text encoder.")
    parser.add_argument(
        "--reference", type=str, default="bundled", help="file of train reference, or .npz of pictures."
    )
    parser.add_argument("--repeat-features", type=str | None, default=None, help="SqueezeNet, as a second network.")
    parser.add_argument("--data", type=str | None, default=None, help="folder of real scenes, for completion.")
    add_flag(parser, "npz", False, "also each row's images as one .npz, for the papers' evaluators.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda.")
    parser.add_argument("--devices", type=int, default=1, help="processes per machine.")
    parser.add_argument("--num-nodes", type=int, default=1, help="machines.")


def run(options: Any) -> int:
    """List the presets, or run one."""
    from hguide.experiments.paper.preset import PRESETS, read_preset

    if options.preset is None:
        for name in PRESETS:
            preset = read_preset(name)
            print(f"{name:<12} {preset.title} ({preset.source})")
        return 0
    from hguide import lists
    from hguide.cli.options import checked_device, writable_folder
    from hguide.experiments.paper.run import PaperOptions, run_preset

    if min(options.devices, options.num_nodes) < 1:
        raise ConfigError(f"devices and num-nodes are at least 1, got {options.devices} and {options.num_nodes}.")
    lists.seeds(options.seeds)
    _check_model(options.model)
    settings = PaperOptions(
        preset=options.preset,
        model=options.model,
        out=writable_folder(options.out or f"paper/{options.preset}"),
        seeds=options.seeds,
        parameters=options.parameters,
        settings=options.settings,
        prompts=options.prompts,
        load=options.load,
        reference=options.reference,
        repeat_features=options.repeat_features,
        data=None if options.data is None else Path(options.data).expanduser(),
        npz=options.npz,
        device=checked_device(options.device),
        devices=options.devices,
        num_nodes=options.num_nodes,
        command=" ".join(["hguide", *sys.argv[1:]]),
    )
    table = run_preset(settings, lambda line: print(line, file=sys.stderr))
    if table is None:
        return 0
    print(table.text())
    return 0 if table.ok else 1


def _check_model(name: str) -> None:
    """Refuse a name that nothing answers to, before a model of that name is asked what only some models need."""
    from hguide.backends import registry
    from hguide.backends.hub import OFFICIAL_FILES, WEIGHTS
    from hguide.load import BUNDLED

    of_the_hub = "/" in name and not name.startswith((".", "/", "~")) and not name.endswith(WEIGHTS)
    known = (*BUNDLED, *OFFICIAL_FILES)
    if name not in known and name not in registry and not of_the_hub and not Path(name).expanduser().exists():
        raise CheckpointError(f"{name}: no such model, file or folder: {near_matches(name, known)}")
