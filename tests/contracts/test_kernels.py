"""Kernels are used where they compile, and nothing breaks where they do not."""

from __future__ import annotations

import sys
import types

import pytest

from hguide.kernels import kernels


def module(name: str, trial: object) -> types.ModuleType:
    made = types.ModuleType(name)
    made.trial = trial  # type: ignore[attr-defined]
    return made


def test_without_triton_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("hguide.noise_kernel", "hguide.priors.update_kernel", "hguide.priors.update_tma_kernel"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        kernels.cache_clear()
        assert kernels(name) is None
    kernels.cache_clear()


def test_a_machine_that_cannot_compile_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial() -> None:
        raise RuntimeError("Failed to find C compiler.\nSet CC.")

    monkeypatch.setitem(sys.modules, "broken_kernels", module("broken_kernels", trial))
    with pytest.warns(UserWarning, match=r"broken_kernels does not compile here \(Failed to find C compiler"):
        assert kernels("broken_kernels") is None
    assert kernels("broken_kernels") is None


def test_kernels_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    working = module("working_kernels", lambda: tried.append(1))
    monkeypatch.setitem(sys.modules, "working_kernels", working)
    assert kernels("working_kernels") is working
    assert kernels("working_kernels") is working
    assert tried == [1]
