"""Files of weights: what is read, what is refused and how it is said."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hguide.backends.checkpoints import check_keys, load_into, read_metadata, read_state_dict, save_safetensors
from hguide.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
STATE = OrderedDict(weight=torch.arange(6.0).view(2, 3), bias=torch.tensor([1.0, -1.0]), index=torch.tensor([3, 4]))


def same(state, wanted):
    assert list(state) == list(wanted)
    for name, value in wanted.items():
        assert state[name].dtype == value.dtype
        assert state[name].equal(value)


def one_line(raised):
    assert "\n" not in str(raised.value)


class Hostile:
    """Runs a command when unpickled by an unguarded reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


# Reading


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_files_are_read(tmp_path, suffix, zipped):
    path = tmp_path / f"weights{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    same(read_state_dict(path), STATE)


def test_safetensors_are_read(tmp_path):
    save_file(dict(STATE), tmp_path / "weights.safetensors")
    state = read_state_dict(str(tmp_path / "weights.safetensors"))
    same(dict(sorted(state.items())), dict(sorted(STATE.items())))


def test_parameters_come_back_as_plain_tensors(tmp_path):
    torch.save({"weight": nn.Parameter(torch.ones(2))}, tmp_path / "w.pth")
    value = read_state_dict(tmp_path / "w.pth")["weight"]
    assert not value.requires_grad


@pytest.mark.parametrize(
    ("names", "wanted"),
    [(("var_wo_ddp",), 1.0), (("vae_local",), 2.0), (("absent", "vae_local"), 2.0), (("vae_local", "var_wo_ddp"), 2.0)],
)
def test_training_checkpoints_are_unwrapped_by_name(tmp_path, names, wanted):
    parts = {"var_wo_ddp": {"x": torch.tensor(1.0)}, "vae_local": {"x": torch.tensor(2.0)}, "config": {"lr": 0.1}}
    torch.save({"epoch": 3, "args": {"depth": 16}, "trainer": parts}, tmp_path / "ar-ckpt-last.pth")
    assert read_state_dict(tmp_path / "ar-ckpt-last.pth", names)["x"] == wanted


def test_a_wrapped_state_dict_of_another_name_is_refused_with_what_there_is(tmp_path):
    torch.save({"trainer": {"var_wo_ddp": dict(STATE)}, "model": dict(STATE)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"asked for 'ema'.*holds trainer\.var_wo_ddp, model") as raised:
        read_state_dict(tmp_path / "w.pth", ["ema"])
    one_line(raised)
    with pytest.raises(CheckpointError, match=r"at the top level.*holds trainer\.var_wo_ddp"):
        read_state_dict(tmp_path / "w.pth")


# Refusing


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, zipped, nested):
    path, trace = tmp_path / "weights.pth", tmp_path / "executed"
    payload = {"weight": torch.ones(2), "x": Hostile(trace)} if nested else Hostile(trace)
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"refused, it asks to run or build '\w+\.system'") as raised:
        read_state_dict(path)
    one_line(raised)
    assert not trace.exists()


def test_a_bare_hostile_pickle_is_refused_and_nothing_runs(tmp_path):
    trace = tmp_path / "executed"
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Hostile(trace)))
        with pytest.raises(CheckpointError) as raised:
            read_state_dict(tmp_path / name)
        one_line(raised)
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"refused.*torch\.nn\.modules\.linear\.Linear") as raised:
        read_state_dict(tmp_path / "module.pth")
    one_line(raised)


def test_a_torchscript_archive_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(1, 1)).save(tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="TorchScript") as raised:
            read_state_dict(tmp_path / "w.pt")
    one_line(raised)


def test_the_readers_advice_to_drop_the_guard_is_not_passed_on(tmp_path):
    torch.save({"x": Hostile(tmp_path / "executed")}, tmp_path / "w.pth")
    (tmp_path / "v.pth").write_bytes(pickle.dumps({"x": 1}, protocol=0))
    for name in ("w.pth", "v.pth"):
        with pytest.raises(CheckpointError) as raised:
            read_state_dict(tmp_path / name)
        assert "False" not in str(raised.value)


def zipped_bytes():
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    return buffer.getvalue()


def unzipped_bytes():
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def safetensors_bytes(folder):
    save_file(dict(STATE), folder / "whole.safetensors")
    return (folder / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("kind", ["zipped", "unzipped", "safetensors"])
def test_truncated_files_are_refused_in_one_line(tmp_path, kind, part):
    whole = {"zipped": zipped_bytes, "unzipped": unzipped_bytes}.get(kind, lambda: safetensors_bytes(tmp_path))()
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(CheckpointError, match="damaged, cut short or no weights file") as raised:
        read_state_dict(path)
    one_line(raised)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_an_error_page_in_place_of_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_text("<!DOCTYPE html><html>404 Not Found</html>")
    with pytest.raises(CheckpointError, match="no weights file") as raised:
        read_state_dict(tmp_path / name)
    one_line(raised)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, torch.ones(2), {"a": torch.ones(1), 3: torch.ones(1)}])
def test_content_that_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_sparse_weights_are_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=r"dense.*: a\."):
            read_state_dict(tmp_path / "w.pth")


def test_paths_that_are_no_files_of_weights(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"weights\.npz: not a kind.*\.safetensors, \.pth"):
        read_state_dict(tmp_path / "weights.npz")
    with pytest.raises(CheckpointError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="not a file"):
        read_state_dict(tmp_path / "folder.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        read_metadata(tmp_path / "absent.safetensors")


# Writing


def test_what_is_saved_is_read_back_with_its_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    shared = torch.arange(12.0).view(3, 4)
    tensors = {"a": shared, "b": shared, "transposed": shared.t(), "half": torch.ones(2).half()}
    save_safetensors(path, tensors, {"seed": "3"})
    same(dict(sorted(read_state_dict(path).items())), dict(sorted(tensors.items())))
    assert read_metadata(path) == {"seed": "3"}
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def test_metadata_that_is_absent_is_empty(tmp_path):
    save_file(dict(STATE), tmp_path / "w.safetensors")
    assert read_metadata(tmp_path / "w.safetensors") == {}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_safetensors(path, {"a": torch.ones(2)}, {})

    def fail(tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_safetensors(path, {"a": torch.zeros(2)}, {})
    assert read_state_dict(path)["a"].equal(torch.ones(2))
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


# Keys


def test_every_difference_is_listed_and_blocks_share_lines():
    expected = {f"blocks.{i}.attn.proj.bias": (4,) for i in range(12)} | {"head.weight": (8, 4), "head.bias": (8,)}
    found = {"blocks.3.attn.proj.bias": torch.zeros(4), "head.weight": torch.zeros(9, 4), "head.bias": torch.zeros(())}
    found["extra.0.x"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as raised:
        check_keys(expected, found)
    assert str(raised.value).splitlines() == [
        "The weights do not fit the model (11 missing, 1 unexpected, 2 wrong shape of 14 entries):",
        "  missing: blocks.{0-2,4-11}.attn.proj.bias",
        "  unexpected: extra.0.x",
        "  wrong shape: head.weight (expected 8x4, found 9x4)",
        "  wrong shape: head.bias (expected 8, found scalar)",
    ]


def test_tolerated_keys_may_be_absent_present_or_of_any_shape():
    expected = {"a": (2,), "statistic": (3,)}
    tolerated = ["statistic", "blocks.*.zero"]
    check_keys(expected, {"a": torch.zeros(2)}, tolerated)
    check_keys(expected, {"a": torch.zeros(2), "statistic": torch.zeros(7), "blocks.1.zero": torch.zeros(1)}, tolerated)
    with pytest.raises(CheckpointError, match=r"missing: a$"):
        check_keys(expected, {"statistic": torch.zeros(3)}, tolerated)


def test_loading_is_all_or_nothing():
    module = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"wrong shape: bias \(expected 2, found 3\)"):
        load_into(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)})
    same(module.state_dict(), before)
    load_into(module, {"weight": torch.ones(2, 3), "bias": torch.ones(2), "unused": torch.ones(1)}, ["unused"])
    assert module.weight.equal(torch.ones(2, 3))


def test_loading_keeps_the_modules_dtype_on_the_meta_device_too():
    half = {"weight": torch.full((2, 3), 0.5).half(), "bias": torch.ones(2).half()}
    for device in ("cpu", "meta"):
        module = nn.Linear(3, 2, device=device)
        load_into(module, half)
        assert module.weight.dtype == torch.float32
        assert module(torch.ones(3)).tolist() == [2.5, 2.5]
        half["bias"].fill_(7)
        assert module.bias.tolist() == [1.0, 1.0]
        half["bias"].fill_(1)


def test_written_files_are_readable_as_the_user_wants_new_files_to_be(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_safetensors(tmp_path / "weights.safetensors", {"a": torch.zeros(1)}, {})
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_usual_wrappers_and_the_prefix_of_parallel_training_are_taken_off(tmp_path, wrapper, prefix):
    torch.save({wrapper: {prefix + name: value for name, value in STATE.items()}, "epoch": 3}, tmp_path / "w.pth")
    same(read_state_dict(tmp_path / "w.pth", ("var_wo_ddp",)), STATE)
