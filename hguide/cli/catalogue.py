"""What can be named on a command line: models, guidances, priors, schedules, backends."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hguide.errors import RegistryError
from hguide.registry import Registry

__all__ = ["KINDS", "first_line", "models", "registries", "stream_cost"]

KINDS = ("models", "guidances", "priors", "schedules", "backends")


def registries() -> Mapping[str, Registry[Any]]:
    """Kind -> registry."""
    from hguide import backends, priors, schedules
    from hguide.guidance import registry

    return MappingProxyType(
        {
            "guidances": registry,
            "priors": priors.registry,
            "schedules": schedules.registry,
            "backends": backends.registry,
        }
    )


def models() -> dict[str, str]:
    """Model name -> one line."""
    from hguide.backends.hub import OFFICIAL_FILES
    from hguide.load import BUNDLED, bundled_path

    found = {}
    for name, family in BUNDLED.items():
        path = bundled_path(name)
        size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "weights not in this installation"
        found[name] = f"Bundled, of the family {family}: {size}."
    for name, (repository, file) in OFFICIAL_FILES.items():
        found[name] = f"Published weights {file} of {repository}."
    return found


def stream_cost(name: str) -> str:
    """How many streams a guidance with its defaults predicts at a step, by itself and after `cfg`."""
    from hguide.grids import Scale, Step
    from hguide.guidance import CFG, registry
    from hguide.streams import COND

    try:
        method = registry.get(name)()
    except RegistryError:
        return "not usable here"
    step = Step(1, 3, 0, Scale(1, 2, 2))
    alone, after = (len(each.asks(COND, step)) for each in (method, CFG() | method))
    return f"{alone} stream{'s' * (alone > 1)}, {after} after cfg"


def first_line(registry: Registry[Any], name: str) -> str:
    """The first line of an entry's docstring; the reason where its module cannot be imported."""
    try:
        text = inspect.getdoc(registry.get(name)) or ""
    except RegistryError as error:
        return str(error)
    return text.strip().split("\n", 1)[0]
