"""VAR as a generator: the contract, seeds, streams, editing, loading and saving."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hguide
from hguide import COND, UNCOND, Sampler
from hguide.backends import run_bytes
from hguide.backends.var import VAR, Edit, TransformerConfig, VARTokenizer, VARTransformer, box_mask
from hguide.backends.var.files import load_pair, load_single, save
from hguide.backends.var.initialise import initialise
from hguide.errors import CheckpointError, ConfigError, ShapeError
from hguide.generate import StepRecord, generate
from hguide.noise import SeededNoise
from hguide.testing import check_generator

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
# `hguide.load` lays the decoder's weights out for the device, so its convolutions sum in another order.
DECODER_ROUNDING = 1e-5


@pytest.fixture(scope="module")
def var() -> VAR:
    config = json.loads((GOLDEN / "adaln" / "config.json").read_text())
    model = load_pair(
        GOLDEN / "adaln" / "weights_var.safetensors",
        GOLDEN / "adaln" / "weights_vae.safetensors",
        patch_nums=tuple(config["patch_nums"]),
    )
    model.name = "tiny"
    return model


def test_the_contract(var: VAR) -> None:
    check_generator(var, 3)
    check_generator(var.with_options(more_smooth=True), 3)


def test_the_last_bits_alone_depend_on_the_batch(var: VAR) -> None:
    alone = generate(var, 3, "cfg(1.5) | ssg(0.5)", seeds=range(16), deterministic=True)
    for size in (1, 8, 16):
        batched = generate(var, 3, "cfg(1.5) | ssg(0.5)", seeds=range(16), batch_size=size)
        flipped = ((batched - alone).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
        assert flipped <= (0.0 if size == 1 else 0.15)


def test_a_stream_is_dropped_after_its_last_use(var: VAR) -> None:
    rows: list[int] = []

    class Watched(VAR):
        def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> Any:
            logits = super().predict(state, step, streams, weights)
            rows.append(state.cache.rows)
            return logits

    watched = Watched(var.transformer, var.tokenizer)
    generate(watched, 3, "cfg(1.5, stop=0.5)", seeds=[1, 2, 3])
    assert rows == [6, 6, 3, 3]
    state = var.begin([1], {COND: 3, UNCOND: 1}, SeededNoise([0]))
    assert state.cache.nbytes == 2 * 3 * 2 * 39 * 48 * 4  # 2 K and V, depth, streams, tokens, width, bytes


def test_dropping_a_stream_leaves_the_others_as_they_were(var: VAR) -> None:
    def logits(text: str) -> list[torch.Tensor]:
        records: list[StepRecord] = []
        generate(var, 3, text, Sampler(top_k=1), seeds=[1, 2], on_step=lambda r: records.append(r.keep()))
        return [record.predictions[COND] for record in records[:3]]

    for dropped, kept in zip(logits("cfg([0.0, 0.5, 0.0, 0.0])"), logits("cfg([0.0, 0.5, 0.0, 1e-9])"), strict=True):
        torch.testing.assert_close(dropped, kept, atol=1e-4, rtol=0)


def test_the_head_is_computed_for_the_streams_asked_for(var: VAR) -> None:
    state = var.begin([1, 2], {COND: 3, UNCOND: 3}, SeededNoise([0, 1]))
    step = var.next_step(state)
    assert step is not None
    only_null = var.predict(state, step, (UNCOND,), {})
    state = var.begin([1, 2], {COND: 3, UNCOND: 3}, SeededNoise([0, 1]))
    both = var.predict(state, step, (UNCOND, COND), {})
    torch.testing.assert_close(only_null[UNCOND], both[UNCOND], atol=1e-5, rtol=0)
    assert not torch.allclose(both[UNCOND], both[COND])


def test_the_head_counts_the_rows_asked_for_and_the_blocks_all_that_live(var: VAR) -> None:
    rows: dict[str, list[int]] = {"head": [], "block": []}
    watched = {"head": var.transformer.head, "block": var.transformer.blocks[0].ffn}
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: rows[name].append(given[0].shape[0]))
        for name, module in watched.items()
    ]
    try:
        # Asked for at the second and third of four steps: the null stream fills its cache before, and is gone after.
        generate(var, 3, "cfg([0.0, 0.5, 0.5, 0.0], start=0.25, stop=0.75)", seeds=[1, 2, 3])
    finally:
        for hook in hooks:
            hook.remove()
    assert rows == {"head": [3, 6, 6, 3], "block": [6, 6, 6, 3]}


def test_the_null_stream_may_be_another_class(var: VAR) -> None:
    state = var.begin([1], {COND: 3, UNCOND: 3}, SeededNoise([0]), negative=1)
    step = var.next_step(state)
    assert step is not None
    logits = var.predict(state, step, (COND, UNCOND), {})
    torch.testing.assert_close(logits[COND], logits[UNCOND], atol=1e-6, rtol=0)


def test_images_are_decoded_within_a_limit_in_parts_of_one_size(var: VAR, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(var, 3, seeds=range(6))
    config, sizes = var.tokenizer.config.autoencoder, []
    for_one = run_bytes.decoder_bytes(config, var.scales[-1].grid, itemsize=4)
    monkeypatch.setattr(run_bytes, "_CPU_DECODE", 5 * for_one)
    counting = var.with_options()
    counting.decode_latent = lambda latent: sizes.append(len(latent)) or var.tokenizer.decode_latent(latent)
    torch.testing.assert_close(generate(counting, 3, seeds=range(6)), whole, atol=DECODER_ROUNDING, rtol=0)
    assert sizes == [3, 3]  # Five fit; two parts of three are compiled or chosen for once.


def test_an_edit_keeps_the_picture_where_it_says(var: VAR) -> None:
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    tokens = var.encode(image)
    keep = torch.ones(5, 5, dtype=torch.bool)
    whole = generate(var.with_options(edit=Edit(tokens, keep)), 3, seeds=[0, 1])
    recon = var.tokenizer.decode(tokens).add(1).div(2)
    torch.testing.assert_close(whole, recon.expand_as(whole), atol=1e-4, rtol=0)
    none = generate(var.with_options(edit=Edit(tokens, ~keep)), 3, seeds=[0, 1])
    assert not torch.allclose(none, recon.expand_as(none), atol=1e-2)
    with pytest.raises(ShapeError, match="mask on the last grid"):
        Edit(tokens, torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"images are \(b, 3, 20, 20\)"):
        var.encode(torch.rand(1, 3, 24, 24))


def test_boxes() -> None:
    mask = box_mask((5, 5), (0.1, 0.1, 0.8, 0.8), inside=False)
    assert mask.sum() == 25 - 16
    assert not mask[0:4, 0:4].any()
    assert torch.equal(box_mask((5, 5), (0.1, 0.1, 0.8, 0.8), inside=True), ~mask)
    with pytest.raises(ConfigError, match="y0,x0,y1,x1"):
        box_mask((5, 5), (0.5, 0.1, 0.2, 0.8), inside=True)
    with pytest.raises(ConfigError, match="holds no token"):
        box_mask((5, 5), (0.45, 0.45, 0.5, 0.5), inside=True)


def test_classes_are_checked(var: VAR) -> None:
    named = VAR(var.transformer, var.tokenizer, name="named", classes=[f"class{i}" for i in range(10)])
    assert named.conditions(["class7", 3, None], 3) == [7, 3, 10]
    with pytest.raises(ConfigError, match="unknown class 'clas7': did you mean 'class7'"):
        named.conditions("clas7", 1)
    for label in (10, -1, True, 1.5):
        with pytest.raises(ConfigError, match="from 0 to 9"):
            generate(var, label, seeds=[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_run(var: VAR, dtype: torch.dtype, tmp_path: Path) -> None:
    save(var, tmp_path / "tiny.safetensors")
    half = hguide.load(tmp_path / "tiny.safetensors", dtype=dtype)
    images = generate(half, 3, "cfg | ssg", seeds=[0])
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()


def test_a_saved_model_is_the_same_model(var: VAR, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save(var, path, facts={"training": {"seed": 3}})
    loaded = hguide.load(path)
    assert loaded.name == "tiny"
    found, wanted = (generate(model, 3, "cfg | ssg", seeds=[5]) for model in (loaded, var))
    torch.testing.assert_close(found, wanted, atol=DECODER_ROUNDING, rtol=0)
    assert loaded.tokenizer_hash == var.tokenizer_hash
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["hguide"])["training"] == {"seed": 3}


def test_the_published_pair_is_found_in_a_folder_and_in_training_checkpoints(var: VAR, tmp_path: Path) -> None:
    transformer = load_file(GOLDEN / "adaln" / "weights_var.safetensors")
    tokenizer = load_file(GOLDEN / "adaln" / "weights_vae.safetensors")
    torch.save(transformer, tmp_path / "var_d3.pth")
    torch.save(tokenizer, tmp_path / "vae_ch160v4096z32.pth")
    pair = hguide.load(tmp_path, file="var_d3.pth")
    wrapped = {"epoch": 1, "trainer": {"var_wo_ddp": transformer, "vae_local": tokenizer}}
    torch.save(wrapped, tmp_path / "ar-ckpt-last.pth")
    trained = hguide.load(tmp_path / "ar-ckpt-last.pth", tokenizer=tmp_path / "ar-ckpt-last.pth")
    wanted = generate(var, 3, seeds=[1])
    for loaded in (pair, trained):
        torch.testing.assert_close(generate(loaded, 3, seeds=[1]), wanted, atol=DECODER_ROUNDING, rtol=0)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="landuse-var"):
        hguide.load("landuse-vra")
    transformer = GOLDEN / "adaln" / "weights_var.safetensors"
    with pytest.raises(CheckpointError, match="is not beside it: pass tokenizer=PATH"):
        hguide.load(transformer)
    state = load_file(transformer)
    state["blocks.1.ffn.fc1.bias"] = state["blocks.1.ffn.fc1.bias"][:-1].clone()
    del state["head_nm.ada_lin.1.bias"]
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=r"head_nm.ada_lin.1.bias[\s\S]*blocks.1.ffn.fc1.bias"):
        hguide.load(tmp_path / "bad.safetensors", tokenizer=GOLDEN / "adaln" / "weights_vae.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"hguide": json.dumps({"family": "hrat"})})
    with pytest.raises(hguide.HGuideError, match="no loader for the family 'hrat'"):
        hguide.load(tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {"hguide": json.dumps({"family": "var"})})
    with pytest.raises(CheckpointError, match="its description does not fit a VAR model"):
        load_single(tmp_path / "odd.safetensors")


def test_a_tokenizer_of_another_model_is_refused(var: VAR) -> None:
    other = replace(var.transformer.config, vocabulary=65)
    with pytest.raises(ConfigError, match="were not trained together"):
        VAR(VARTransformer(other), var.tokenizer)


def test_other_schedules_and_plain_attention_run(var: VAR) -> None:
    config = TransformerConfig(
        patch_nums=(1, 2, 4), depth=2, width=32, heads=2, classes=3, vocabulary=64, latent_channels=8, l2_norm=False
    )
    transformer = initialise(VARTransformer(config), torch.Generator().manual_seed(0))
    tokenizer = VARTokenizer(replace(var.tokenizer.config, patch_nums=(1, 2, 4)))
    check_generator(VAR(transformer, tokenizer), 1)
