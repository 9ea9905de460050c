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
    entry point of the group `group` in another distribution (read at the first look-up that needs it).

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
        """Decorator that registers a class under `name`.

        Raises:
            RegistryError: the name is taken.
        """

        def decorate(cls: type[T]) -> type[T]:
            self.add(name, cls)
            return cls

        return decorate

    def add(self, name: str, entry: type[T] | str) -> None:
        """Register a class, or the place `"module:attr"` where it is found when first used.

        Raises:
            RegistryError: the name is taken, or the text is not `module:attr`.
        """
        if name in self._entries:
            raise RegistryError(
                f"{self.kind} {name!r} is registered already ({self.origin(name)}); choose another name."
            )
        if isinstance(entry, str) and entry.count(":") != 1:
            raise RegistryError(f"a lazy {self.kind} is written 'module:attr', got {entry!r}.")
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
        """The name a class is registered under, or None."""
        place = f"{cls.__module__}:{cls.__qualname__}"
        return next((name for name, entry in self._entries.items() if entry is cls or entry == place), None)

    def origin(self, name: str) -> str:
        """Where an entry comes from, as `module:attr`."""
        entry = self._entries[name]
        return entry if isinstance(entry, str) else f"{entry.__module__}:{entry.__qualname__}"

    def names(self) -> list[str]:
        """All names, plug-ins included, sorted."""
        self._read_plugins()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _read_plugins(self) -> None:
        if self._plugins_read or self.group is None:
            return
        self._plugins_read = True
        for point in entry_points(group=self.group):
            self.add(point.name, point.value)
