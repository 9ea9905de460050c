"""Files of weights: what is read, what is refused and how it is said, and model sizes read off weights."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hguide.backends.checkpoints import check_keys, load_into, read_metadata, read_state_dict, save_safetensors
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.hub import OFFICIAL_FILES, fetch
from hguide.backends.var.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.var.tokenizer import UNUSED_KEYS, TokenizerConfig, VARTokenizer
from hguide.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
STATE = OrderedDict(weight=torch.arange(6.0).view(2, 3), bias=torch.tensor([1.0, -1.0]), index=torch.tensor([3, 4]))
SCHEDULE = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SCHEDULE_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


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


# Sizes read off weights


def meta(name):
    shapes = json.loads((GOLDEN / name).read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "depth", "patch_nums"),
    [
        ("d16", 16, SCHEDULE),
        ("d20", 20, SCHEDULE),
        ("d24", 24, SCHEDULE),
        ("d30", 30, SCHEDULE),
        ("d36_512", 36, SCHEDULE_512),
    ],
)
@pytest.mark.parametrize("levels", [True, False])
def test_published_transformers_are_recognised(name, depth, patch_nums, levels):
    state = meta(f"manifest_{name}.json")
    if levels:
        state["lvl_1L"] = torch.cat([torch.full((p * p,), k) for k, p in enumerate(patch_nums)]).view(1, -1)
    else:
        del state["lvl_1L"]
    config = infer_transformer_config(state)
    assert config.patch_nums == patch_nums
    assert (config.depth, config.width, config.heads) == (depth, 64 * depth, depth)
    assert (config.classes, config.vocabulary, config.latent_channels) == (1000, 4096, 32)
    assert (config.l2_norm, config.shared_adaln, config.mlp_ratio) == (True, name == "d36_512", 4.0)


@pytest.mark.parametrize("run", ["adaln", "saln"])
def test_small_transformers_are_recognised_by_their_levels(run):
    wanted = json.loads((GOLDEN / run / "config.json").read_text())
    state = load_file(GOLDEN / run / "weights_var.safetensors")
    config = infer_transformer_config(state)
    assert list(config.patch_nums) == wanted["patch_nums"]
    assert (config.depth, config.width, config.heads) == (wanted["depth"], wanted["embed_dim"], wanted["num_heads"])
    assert (config.classes, config.vocabulary) == (wanted["num_classes"], wanted["vocab_size"])
    assert (config.latent_channels, config.shared_adaln) == (wanted["z_channels"], wanted["shared_aln"])
    del state["lvl_1L"]
    assert infer_transformer_config(state, tuple(wanted["patch_nums"])) == config
    with pytest.raises(CheckpointError, match=r"do not tell their schedule.*pass patch_nums"):
        infer_transformer_config(state)
    with pytest.raises(CheckpointError, match=r"patch_nums \(1, 2\) have 2 and 5"):
        infer_transformer_config(state, (1, 2))


def test_plain_attention_has_heads_of_64_channels_unless_told():
    state = {name: value for name, value in meta("manifest_d16.json").items() if "scale_mul" not in name}
    config = infer_transformer_config(state)
    assert (config.l2_norm, config.heads) == (False, 16)
    assert infer_transformer_config(state, heads=8).heads == 8
    with pytest.raises(CheckpointError, match="multiple of heads"):
        infer_transformer_config(state, heads=7)


def test_the_published_tokenizer_is_recognised():
    assert infer_tokenizer_config(meta("manifest_vae.json")) == TokenizerConfig()
    assert infer_tokenizer_config(meta("manifest_vae.json"), SCHEDULE_512).patch_nums == SCHEDULE_512


def test_a_small_tokenizer_is_recognised_and_loaded_strictly():
    state = read_state_dict(GOLDEN / "adaln" / "weights_vae.safetensors")
    config = infer_tokenizer_config(state, (1, 2, 3, 5))
    assert config == TokenizerConfig(AutoencoderConfig(32, (1, 1, 2), 1, 8), 64, (1, 2, 3, 5))
    with torch.device("meta"):
        module = VARTokenizer(config)
    load_into(module, state, UNUSED_KEYS)
    assert module.decode([torch.zeros(1, p, p, dtype=torch.int64) for p in config.patch_nums]).isfinite().all()
    with pytest.raises(CheckpointError, match=r"unexpected: quantize\.ema_vocab_hit_SV"):
        load_into(module, state)


def test_weights_of_the_other_half_are_told_apart():
    with pytest.raises(CheckpointError, match=r"not the weights of a VAR transformer: 'pos_start' is missing"):
        infer_transformer_config(meta("manifest_vae.json"))
    with pytest.raises(CheckpointError, match=r"not the weights of a VAR tokenizer: 'encoder.conv_in.weight'"):
        infer_tokenizer_config(meta("manifest_d16.json"))
    with pytest.raises(CheckpointError, match="4 dimensions, found"):
        infer_tokenizer_config({"encoder.conv_in.weight": torch.zeros(3)})


def test_widths_that_no_tokenizer_has_are_refused():
    state = meta("manifest_vae.json")
    state["encoder.conv_in.weight"] = torch.empty(96, 3, 3, 3, device="meta")
    with pytest.raises(CheckpointError, match="no multiples of its first, 96"):
        infer_tokenizer_config(state)


# Where files come from


def test_local_files_and_folders(tmp_path):
    for name in ("a.pth", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert fetch(tmp_path / "a.pth") == tmp_path / "a.pth"
    assert fetch(tmp_path) == tmp_path / "a.pth"
    assert fetch(str(tmp_path), "a.pth") == tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match=r"b\.pth: no such file"):
        fetch(tmp_path, "b.pth")
    (tmp_path / "b.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"say which file.*a\.pth, b\.pth"):
        fetch(tmp_path)


@pytest.mark.parametrize("name", ["weights/absent.pth", "./absent.pth", "var-d61", "a/b/c"])
def test_names_that_are_nowhere(name):
    with pytest.raises(CheckpointError, match=r"no such file, nor an official name.*Known: var-d16"):
        fetch(name)


def test_misspelt_official_names_get_a_hint():
    with pytest.raises(CheckpointError, match="did you mean 'var-d36'"):
        fetch("var-d3-6")


def test_a_repository_needs_a_file():
    with pytest.raises(CheckpointError, match=r"say which file.*var_d16\.pth"):
        fetch("FoundationVision/var")


def hub(monkeypatch, download):
    errors = types.ModuleType("huggingface_hub.errors")
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (errors.EntryNotFoundError,), {})
    errors.RepositoryNotFoundError = type("RepositoryNotFoundError", (Exception,), {})
    client = types.ModuleType("huggingface_hub")
    client.hf_hub_download = download
    client.errors = errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return errors


def test_downloads_ask_for_repository_file_and_revision(monkeypatch):
    asked = []

    def download(repository, file, revision=None):
        asked.append((repository, file, revision))
        return "/cache/file.pth"

    hub(monkeypatch, download)
    assert fetch("var-d16") == Path("/cache/file.pth")
    fetch("var-vae", revision="abc")
    fetch("org/name", "w.safetensors", "main")
    assert asked == [
        ("FoundationVision/var", "var_d16.pth", None),
        ("FoundationVision/var", "vae_ch160v4096z32.pth", "abc"),
        ("org/name", "w.safetensors", "main"),
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("LocalEntryNotFoundError", "not in the local cache, and the hub cannot be reached"),
        ("EntryNotFoundError", "the repository has no such file"),
        ("RepositoryNotFoundError", "no such repository"),
        (None, r"download failed \(timed out\)"),
    ],
)
def test_failed_downloads_say_why_in_one_line(monkeypatch, error, message):
    def download(*args, **options):
        raise (getattr(errors, error) if error else TimeoutError)("timed out\nsecond line")

    errors = hub(monkeypatch, download)
    with pytest.raises(CheckpointError, match=rf"FoundationVision/var/var_d30\.pth at v1: .*{message}") as raised:
        fetch("var-d30", revision="v1")
    one_line(raised)


def test_without_the_hub_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'hguide\[hub\]'"):
        fetch("var-d16")


def test_the_real_client_has_the_names_used_here():
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    assert callable(hf_hub_download)
    assert issubclass(LocalEntryNotFoundError, EntryNotFoundError)
    assert not issubclass(RepositoryNotFoundError, EntryNotFoundError)
    assert all("/" in repository for repository, _ in OFFICIAL_FILES.values())
