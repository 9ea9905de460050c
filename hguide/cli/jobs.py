"""Commands of several jobs: `hguide train generator`, `hguide bench guidance`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hguide.errors import ConfigError, near_matches

__all__ = ["Job", "choose"]


@dataclass(frozen=True)
class Job:
    """A job whose options are the fields of a dataclass.

    Attributes:
        HELP: what it does.
        EXAMPLES: command lines.
        module: where it is found; imported only when the job is chosen.
        options: name of the dataclass.
        function: name of the function that takes it.
    """

    HELP: str
    EXAMPLES: str
    module: str
    options: str
    function: str = "run"

    def _options(self) -> Any:
        return getattr(_imported(self.module), self.options)

    def add_arguments(self, parser: Any) -> None:
        """The fields as options."""
        parser.add_class_arguments(self._options())

    def run(self, options: Any) -> int:
        """Run the job, print what it returns; lines of progress go to stderr."""
        cls = self._options()
        values = {each.name: getattr(options, each.name) for each in fields(cls) if each.init}
        function = getattr(_imported(self.module), self.function)
        extra = {"progress": _progress} if "progress" in inspect.signature(function).parameters else {}
        return _shown(function(cls(**values), **extra))


def choose(command: str, jobs: Mapping[str, Job], arguments: Sequence[str]) -> tuple[Job | None, list[str], str]:
    """The job that the first argument names, the arguments after it, and both names; None after printing the help.

    Raises:
        ConfigError: no such job.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        wide = max(map(len, jobs))
        lines = [f"  {name:<{wide}}  {' '.join(job.HELP.split())}" for name, job in jobs.items()]
        print("\n".join([f"usage: hguide {command} JOB [options]", "", "jobs:", *lines]))
        print(f"\n`hguide {command} JOB --help` lists the options of a job.")
        return None, [], command
    name, *rest = arguments
    if name not in jobs:
        raise ConfigError(f"unknown job {name!r}: {near_matches(name, jobs)}")
    return jobs[name], rest, f"{command} {name}"


def _imported(module: str) -> Any:
    return importlib.import_module(module)


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


def _shown(result: Any) -> int:
    """Print a result: a report by its text, anything else as it is; the exit code."""
    if result is not None:
        print(result.text() if hasattr(result, "text") else result)
    return 0 if getattr(result, "ok", True) else 1
