"""Commands of several jobs: `hguide train generator`, `hguide bench guidance`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hguide.errors import ConfigError, near_matches

__all__ = ["ClassJob", "FunctionJob", "choose"]


@dataclass(frozen=True)
class ClassJob:
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
        """Run the job, print what it returns."""
        cls = self._options()
        values = {each.name: getattr(options, each.name) for each in fields(cls) if each.init}
        return _shown(getattr(_imported(self.module), self.function)(cls(**values)))


@dataclass(frozen=True)
class FunctionJob:
    """A job whose options are the arguments of a function.

    Attributes:
        HELP: what it does.
        EXAMPLES: command lines.
        module: where it is found; imported only when the job is chosen.
        function: its name.
    """

    HELP: str
    EXAMPLES: str
    module: str
    function: str = "run"

    def add_arguments(self, parser: Any) -> None:
        """The arguments as options."""
        parser.add_function_arguments(getattr(_imported(self.module), self.function))

    def run(self, options: Any) -> int:
        """Run the job, print what it returns."""
        import inspect

        function = getattr(_imported(self.module), self.function)
        return _shown(function(**{name: getattr(options, name) for name in inspect.signature(function).parameters}))


Job = ClassJob | FunctionJob


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


def _shown(result: Any) -> int:
    """Print a result: a report by its text, anything else as it is; the exit code."""
    if result is not None:
        print(result.text() if hasattr(result, "text") else result)
    return 0 if getattr(result, "ok", True) else 1
