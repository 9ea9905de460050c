"""The parser of one command: jsonargparse with YAML files, defaults in the help and examples under it."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

__all__ = ["add_flag", "command_parser"]


class _Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Defaults and types in the help, examples as they are written."""


def command_parser(name: str, command: ModuleType | Any) -> ArgumentParser:
    """The parser of a command that has `HELP`, `EXAMPLES` and `add_arguments`."""
    examples = "\n".join(f"  {line}" for line in command.EXAMPLES.strip().splitlines())
    parser = ArgumentParser(
        prog=f"hguide {name}",
        description=command.HELP.strip(),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=_Formatter,
        exit_on_error=False,
        default_env=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with options; flags after it override.")
    command.add_arguments(parser)
    return parser


def add_flag(parser: Any, name: str, default: bool, text: str) -> None:
    """Add `--name` and `--no-name`."""
    parser.add_argument(f"--{name}", action=ActionYesNo(no_prefix="no-"), default=default, help=text)
