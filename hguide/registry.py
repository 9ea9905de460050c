"""One registry type for guidances, priors, schedules and backends."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from hguide.errors import RegistryError, near_matches

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names for classes of one kind.

    Three ways in: the decorator `@registry.register("name")`, a lazy `registry.add("name", "module:attr")`, or an
    entry point of the group `group` in another distribution (read at the first look-up that needs it). One class may
    come in by several of them.

    Args:
        kind: what the entries are, for messages ("guidance", "prior", ...).
        group: entry point group that plug-ins register under, or None.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, type[T] | str] = {}
        self._plugins_read = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Decorator that registers a class under `name`; raises as `add` does."""

        def decorate(cls: type[T]) -> type[T]:
            self.add(name, cls)
            return cls

        return decorate

    def add(self, name: str, entry: type[T] | str) -> None:
        """Register a class, or the place `"module:attr"` where it is found when first used.

        A class that is registered already, or whose place is, is no conflict: an entry point may name a module that
        registers the class itself, and a cell of a notebook may run twice.

        Raises:
            RegistryError: the name is taken by something else, or the text is not `module:attr`.
        """
        if isinstance(entry, str) and entry.count(":") != 1:
            raise RegistryError(f"a lazy {self.kind} is written 'module:attr', got {entry!r}.")
        known = self._entries.get(name)
        if known is not None and not _same(known, entry):
            raise RegistryError(
                f"{self.kind} {name!r} is registered already ({self.origin(name)}), so {_place(entry)} cannot be; "
                "choose another name."
            )
        if known is None or not isinstance(entry, str):
            self._entries[name] = entry

    def get(self, name: str) -> type[T]:
        """The class registered under `name`.

        Raises:
            RegistryError: no such name (near matches and the list are given), or its module cannot be imported.
        """
        if name not in self._entries:
            self._read_plugins()
        if name not in self._entries:
            raise RegistryError(f"unknown {self.kind} {name!r}: {near_matches(name, self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, attribute = entry.split(":")
            try:
                entry = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise RegistryError(f"{self.kind} {name!r} is registered as {module}:{attribute}: {error}") from error
            self._entries[name] = entry
        return entry

    def name_of(self, cls: type) -> str | None:
        """The name a class is registered under, plug-ins included, or None."""
        found = self._find(cls)
        if found is None:
            self._read_plugins()
            found = self._find(cls)
        return found

    def origin(self, name: str) -> str:
        """Where an entry comes from, as `module:attr`."""
        return _place(self._entries[name])

    def names(self) -> list[str]:
        """All names, plug-ins included, sorted."""
        self._read_plugins()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _find(self, cls: type) -> str | None:
        for name, entry in self._entries.items():
            if entry is cls or (isinstance(entry, str) and _same(entry, cls)):
                return name
        return None

    def _read_plugins(self) -> None:
        if self._plugins_read or self.group is None:
            return
        self._plugins_read = True
        for point in entry_points(group=self.group):
            self.add(point.name, point.value)


def _place(entry: type | str) -> str:
    return entry if isinstance(entry, str) else f"{entry.__module__}:{entry.__qualname__}"


def _same(known: type | str, entry: type | str) -> bool:
    """Whether two entries are one class, as far as their places tell."""
    (module, name), (other, name_there) = _place(known).split(":"), _place(entry).split(":")
    if isinstance(known, str) == isinstance(entry, str):
        return (module, name) == (other, name_there)
    # A package may name in its entry point what one of its modules defines.
    return name == name_there and module.partition(".")[0] == other.partition(".")[0]
