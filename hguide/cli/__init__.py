"""The command line: `hguide COMMAND`."""

from hguide.cli.main import main

__all__ = ["main"]
