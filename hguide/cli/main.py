"""From the command line to a command, and from errors to one message and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hguide.errors import ConfigError, HGuideError, near_matches

__all__ = ["COMMANDS", "main"]

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "the main job: the same seeds without guidance, with CFG and with CFG + SSG, and the numbers",
        "sample": "one PNG per class and seed, with its settings inside; repeats a PNG exactly",
        "edit": "in-painting, out-painting and class edits of a picture",
        "trace": "what guidance does at each step: evenness, divergence, entropy, heat maps",
        "list": "models, guidances, priors, schedules and backends",
        "show": "what an entry of the list is: options, values, losses, training",
        "convert": "published weights into one safetensors file",
        "parity": "compare with recorded numbers of the official implementations",
        "train": "train the bundled model's tokenizer, generator or feature network",
        "ablate": "a table of cells from a YAML file: sample, measure with intervals, resume",
        "validate": "check the YAML file of an ablation",
        "report": "the report of an ablation: page, tables and figures, written again",
        "paper": "a table or figure of the SSG or IGG paper: what is reported beside what is measured here",
        "theory": "the figures of the theory page, and which claims of the papers hold",
        "bench": "measure what guidance costs",
    }
)
"""Command -> what it is for, in the order of the help."""

FAILED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 for a result that does not hold (parity, a repetition that differs), 2 for an error that
        one message explains, 130 after an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in arguments
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        from hguide import __version__

        print(__version__)
        return 0
    try:
        return _run(name, [each for each in arguments[1:] if each != "--traceback"])
    except (HGuideError, argparse.ArgumentError) as error:
        if traceback:
            raise
        print(f"hguide {name}: {_message(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        if traceback:
            raise
        print("\ninterrupted; the files that were finished are whole.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`hguide list | head`); Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise ConfigError(f"unknown command: {near_matches(name, COMMANDS)}")
    from hguide.cli.parser import command_parser

    command: Any = importlib.import_module(f"hguide.cli.commands.{name}")
    if hasattr(command, "chosen"):
        # A command of several jobs; their options are dataclass fields, which are spelled with underscores.
        command, arguments, name = command.chosen(_spelled(arguments, "_"))
    else:
        arguments = _spelled(arguments, "-")
    if command is None:
        return 0
    parser = command_parser(name, command)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return command.run(options) or 0


def _spelled(arguments: list[str], between: str) -> list[str]:
    """Options with one sign between their words, so that --batch-size and --batch_size are the same."""
    found = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option.startswith("--") and option != "--print_config":
            # What follows a point is a key of a mapping, as --load.text_encoder, and stays as it is.
            name, point, key = option[2:].partition(".")
            option = "--" + name.replace("-", between).replace("_", between) + point + key
        found.append(option + equals + value)
    return found


def _message(error: Exception) -> str:
    if isinstance(error, argparse.ArgumentError):
        return " ".join(line.strip() for line in str(error).splitlines())
    return str(error).strip()


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hguide COMMAND [options]",
            "",
            "Training-free, hierarchical guidance of generators that work coarse to fine.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help    this text; `hguide COMMAND --help` for the options of a command",
            "  --version     the version",
            "  --traceback   after a command: show where in the code an error comes from",
            "",
            "Results go to stdout, progress to stderr. `--config FILE.yaml` reads options that flags then override.",
        ]
    )
