"""The registry, and the contract suites on every registered prior and schedule."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import hguide
from hguide import priors, schedules
from hguide.errors import RegistryError
from hguide.registry import Registry
from hguide.testing import check_prior, check_schedule


class One:
    """An entry."""


class Two:
    """Another."""


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
    with pytest.raises(RegistryError, match="'one' is registered already .*:One., so .*:Two cannot be; choose another"):
        registry.add("one", Two)
    with pytest.raises(RegistryError, match="'one' is registered already .*:One., so collections:OrderedDict cannot"):
        registry.add("one", "collections:OrderedDict")
    with pytest.raises(RegistryError, match="'one' is registered already .*:One., so elsewhere:One cannot"):
        registry.add("one", "elsewhere:One")
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


PLUGIN = """
from tests_of_plugins import registry

@registry.register("contrast")
class Contrast:
    pass
"""


@pytest.fixture
def plugged(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[One]]:
    """A registry, and a package `plugin` whose module `contrast` registers what an entry point names as well."""
    registry = make()
    monkeypatch.setitem(sys.modules, "tests_of_plugins", type(sys)("tests_of_plugins"))
    sys.modules["tests_of_plugins"].registry = registry  # type: ignore[attr-defined]
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "contrast.py").write_text(PLUGIN)
    (tmp_path / "plugin" / "__init__.py").write_text("from plugin.contrast import Contrast\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("plugin", "plugin.contrast"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    point = EntryPoint("contrast", request.param, "tests.things")
    monkeypatch.setattr("hguide.registry.entry_points", lambda group: [point])
    yield registry
    for module in ("plugin", "plugin.contrast"):
        sys.modules.pop(module, None)


PLACES = pytest.mark.parametrize("plugged", ["plugin.contrast:Contrast", "plugin:Contrast"], indirect=True)


@PLACES
def test_a_module_behind_an_entry_point_may_register_the_class_itself(plugged: Registry[One]) -> None:
    assert plugged.names() == ["contrast", "one"]
    found = plugged.get("contrast")
    assert found is sys.modules["plugin.contrast"].Contrast
    assert plugged.name_of(found) == "contrast"


@PLACES
@pytest.mark.parametrize("read_before", [False, True])
def test_importing_the_module_first_or_after_the_entry_points_is_the_same(
    plugged: Registry[One], read_before: bool
) -> None:
    if read_before:
        plugged.names()
    contrast = importlib.import_module("plugin.contrast")
    assert plugged.names() == ["contrast", "one"]
    assert plugged.get("contrast") is contrast.Contrast


@pytest.mark.parametrize("plugged", ["plugin.other:Contrast"], indirect=True)
def test_a_class_named_by_an_entry_point_alone_has_its_name(plugged: Registry[One]) -> None:
    other = type("Contrast", (), {"__module__": "plugin.other", "__qualname__": "Contrast"})
    assert plugged.name_of(other) == "contrast"
    assert plugged.name_of(Two) is None


@pytest.mark.parametrize("plugged", ["plugin.contrast:Other"], indirect=True)
def test_an_entry_point_and_a_decorator_that_disagree_are_refused(plugged: Registry[One]) -> None:
    plugged.names()
    with pytest.raises(RegistryError, match="already .plugin.contrast:Other., so plugin.contrast:Contrast cannot be"):
        plugged.get("contrast")


def test_a_class_that_is_defined_anew_takes_the_place_of_the_old_one() -> None:
    registry = make()
    registry.add("one", One)
    anew = type("One", (), {"__module__": One.__module__, "__qualname__": One.__qualname__})
    registry.register("one")(anew)
    assert registry.get("one") is anew
    registry.add("one", registry.origin("one"))
    assert registry.get("one") is anew  # A place never takes that of the class itself.


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
