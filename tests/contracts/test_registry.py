"""The registry, and the contract suites on every registered prior and schedule."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

import hguide
from hguide import priors, schedules
from hguide.errors import RegistryError
from hguide.registry import Registry
from hguide.testing import check_prior, check_schedule


class One:
    """An entry."""


def make() -> Registry[One]:
    registry: Registry[One] = Registry("thing", "tests.things")
    registry.register("one")(One)
    return registry


def test_names_classes_and_lazy_places() -> None:
    registry = make()
    registry.add("ordered", "collections:OrderedDict")
    from collections import OrderedDict

    assert registry.get("one") is One
    assert registry.origin("ordered") == "collections:OrderedDict"
    assert registry.get("ordered") is OrderedDict
    assert registry.name_of(One) == "one"
    assert list(registry) == ["one", "ordered"]
    assert "two" not in registry


def test_refusals() -> None:
    registry = make()
    with pytest.raises(RegistryError, match="'one' is registered already"):
        registry.add("one", One)
    with pytest.raises(RegistryError, match="unknown thing 'oen': did you mean 'one'. Known: one"):
        registry.get("oen")
    with pytest.raises(RegistryError, match="module:attr"):
        registry.add("bad", "module.attr")
    registry.add("gone", "collections:Nothing")
    with pytest.raises(RegistryError, match="registered as collections:Nothing"):
        registry.get("gone")


def test_entry_points_are_read_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("plugged", "collections:OrderedDict", group)]

    monkeypatch.setattr("hguide.registry.entry_points", entry_points)
    registry = make()
    registry.get("one")
    assert asked == []
    registry.get("plugged")
    assert asked == ["tests.things"]
    assert registry.names() == ["one", "plugged"]


@pytest.mark.parametrize("name", schedules.registry.names())
def test_every_registered_schedule_passes_the_contract(name: str) -> None:
    check_schedule(schedules.registry.get(name)())


@pytest.mark.parametrize("name", priors.registry.names())
def test_every_registered_prior_passes_the_contract(name: str) -> None:
    same = (((4, 5), (4, 5)), ((1, 1), (1, 1)))
    prior = priors.registry.get(name)()
    if name == "lowpass":
        check_prior(prior, same)
    else:
        check_prior(prior)


@pytest.mark.parametrize("transform", ["dct", "dft", "haar", "db2"])
@pytest.mark.parametrize("high", ["interpolated", "zero"])
def test_every_dse_passes_the_contract(transform: str, high: str) -> None:
    check_prior(priors.DSE(transform=transform, high=high))


def test_the_public_names_are_few_and_there() -> None:
    assert len(hguide.__all__) <= 25
    assert all(hasattr(hguide, name) for name in hguide.__all__)
