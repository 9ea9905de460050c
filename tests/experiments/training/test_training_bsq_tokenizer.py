"""The bitwise tokenizer's training: its gradient, its bits, resuming, and its file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lightning
import pytest
import torch
import torch.nn.functional as F
from made_bits import BITS, SIDES, small_bsq
from made_scenes import CLASSES
from safetensors.torch import load_file, save_file

from hguide.backends.infinity.bits import codes_of, enlarge, quantize
from hguide.errors import CheckpointError, ShapeError
from hguide.experiments.training.bit_usage import binary_entropy, bit_usage, entropy_penalty, shares_of_ones
from hguide.experiments.training.bsq_tokenizer import (
    BSQTokenizerTraining,
    load_bsq_tokenizer,
    reconstruct_from_bits,
    remainders,
    run,
)
from hguide.experiments.training.data import load_scenes, to_unit
from hguide.experiments.training.fit import fit

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.

GRIDS = ((1, 1), (2, 2), (3, 3), (6, 6))


@pytest.fixture(scope="module")
def weights(coded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small_bsq(coded, tmp_path_factory.mktemp("bsq")))


def test_gradient_through_the_sum_is_that_through_every_sign() -> None:
    """Against signs written out one by one, each with its own straight-through estimate."""
    torch.manual_seed(0)
    f = torch.randn(2, BITS, 6, 6, dtype=torch.float64, requires_grad=True)
    rest, total = f, torch.zeros_like(f)
    for grid in GRIDS:
        small = F.interpolate(rest, size=grid, mode="area")
        code = codes_of((small > 0).long().permute(0, 2, 3, 1), torch.float64)
        code = enlarge(small + (code - small).detach(), (6, 6))
        rest, total = rest - code, total + code
    weights = torch.randn_like(f)
    (one_by_one,) = torch.autograd.grad((total * weights).sum(), f)
    torch.testing.assert_close(one_by_one, weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(total.detach(), quantize(f.detach(), GRIDS).sums[-1], rtol=0, atol=1e-12)


def test_loss_reaches_encoder_and_decoder(coded: Path, tmp_path: Path) -> None:
    module = BSQTokenizerTraining(small_bsq(coded, tmp_path, entropy_weight=0.1))
    loss, logged = module.loss(0)
    loss.backward()
    for part in (module.network.encoder.conv_in, module.network.decoder.conv_out):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().sum() > 0
    expected = logged["absolute"] + 10 ** (-logged["psnr_train"] / 10) + 2 * logged["colour"]
    rest = loss.detach() - expected - 0.25 * logged["commitment"]
    assert -0.1 <= rest.item() <= 0.1  # the entropy penalty lies in [-1, 1]


def test_remainders_are_what_the_signs_are_of() -> None:
    torch.manual_seed(0)
    f = torch.randn(3, BITS, 6, 6)
    found = quantize(f, GRIDS)
    for each, bits in zip(remainders(f, found.sums, GRIDS), found.bits, strict=True):
        assert torch.equal((each > 0).long().permute(0, 2, 3, 1), bits)


def test_entropy_is_least_for_certain_and_balanced_bits() -> None:
    sure, unsure = torch.full((8, BITS, 2, 2), 50.0), torch.zeros(8, BITS, 2, 2)
    balanced = sure * torch.tensor([1.0, -1.0]).repeat(4)[:, None, None, None]
    assert entropy_penalty([balanced]).item() == pytest.approx(-1.0, abs=1e-3)
    assert entropy_penalty([sure]).item() == pytest.approx(0.0, abs=1e-3)
    assert entropy_penalty([unsure]).item() == pytest.approx(0.0, abs=1e-6)
    assert entropy_penalty([balanced, sure]).item() == pytest.approx(-0.5, abs=1e-3)
    share = torch.tensor(0.25)
    assert binary_entropy(share).item() == pytest.approx(-0.25 * math.log2(0.25) - 0.75 * math.log2(0.75), abs=1e-6)


def test_usage_counts_the_ones_of_each_scale() -> None:
    bits = [torch.tensor([[[[1, 0]]], [[[1, 1]]]]), torch.ones(2, 2, 2, 2, dtype=torch.int64)]
    shares = shares_of_ones(bits)
    assert shares.tolist() == [[1.0, 0.5], [1.0, 1.0]]
    usage = bit_usage(shares)
    assert usage["bits_used"].item() == 0.25
    assert usage["bit_entropy"].item() == pytest.approx(0.25, abs=1e-4)


def test_a_few_steps_lower_the_loss(coded: Path, tmp_path: Path) -> None:
    module = BSQTokenizerTraining(
        small_bsq(coded, tmp_path, steps=20, epoch_steps=20, checkpoint_steps=20, warmup_steps=1, learning_rate=5e-3)
    )
    before = module.loss(0)[0].item()
    fit(module)
    after = module.loss(0)[0].item()
    assert after < 0.9 * before
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"test_psnr", "bit_entropy", "bits_used", "test_bit_entropy", "test_bits_used"} <= line.keys()
    assert 0 <= line["test_bits_used"] <= 1
    assert list((tmp_path / "pictures").glob("*.png"))


def test_a_resumed_bitwise_training_equals_an_unbroken_one(coded: Path, weights: Path, tmp_path: Path) -> None:
    module = BSQTokenizerTraining(small_bsq(coded, tmp_path))
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.fit(module)
    assert module.steps_done == 1
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, unbroken = load_file(run(small_bsq(coded, tmp_path))), load_file(weights)
    assert all(torch.equal(resumed[key], value) for key, value in unbroken.items())


def test_the_file_tells_shape_groups_and_grids(coded: Path, weights: Path) -> None:
    trained = load_bsq_tokenizer(weights)
    assert trained.schedule.grids == tuple((side, side) for side in SIDES)
    assert (trained.network.config.bits, trained.network.config.autoencoder.groups) == (BITS, 4)
    assert trained.classes == CLASSES
    assert trained.metadata["training"]["steps"] == 2
    images = to_unit(load_scenes(coded, "test").images[:2, :16, :16].permute(0, 3, 1, 2).contiguous())
    bits = trained.network.encode(images * 2 - 1, trained.schedule.grids)
    total = sum(enlarge(codes_of(each), (SIDES[-1], SIDES[-1])) for each in bits)
    wanted = trained.network.decode_latent(total) * 0.5 + 0.5
    torch.testing.assert_close(reconstruct_from_bits(trained.network, trained.schedule.grids, images), wanted)


def test_files_of_other_tokenizers_are_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'var-tokenizer', not the tokenizer of an Infinity model"):
        load_bsq_tokenizer(tokenizer_file)
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="carries no description of a tokenizer"):
        load_bsq_tokenizer(tmp_path / "bare.safetensors")


def test_a_start_from_var_does_the_same_to_a_map_without_detail(coded: Path, tmp_path: Path) -> None:
    """Against VAR's own encoder and decoder, its attention silenced: flat maps, away from the padded border."""
    from made_scenes import small_tokenizer

    from hguide.experiments.training.tokenizer import TokenizerTraining

    shape = {"channels": 16, "groups": 4, "multipliers": (1, 1, 1), "latent_channels": BITS, "patch_nums": SIDES}
    var = TokenizerTraining(small_tokenizer(coded, tmp_path / "var", **shape)).network.eval()
    with torch.no_grad():
        for name, weight in var.named_parameters():
            if ".attn" in name and "proj_out" in name:
                weight.zero_()
    file = tmp_path / "var.safetensors"
    save_file({f"tokenizer.{name}": value.contiguous() for name, value in var.state_dict().items()}, file)
    started = BSQTokenizerTraining(small_bsq(coded, tmp_path / "bits", init=str(file))).network.eval()
    flat = torch.tensor([0.3, -0.6, 0.1])[None, :, None, None].expand(1, 3, 256, 256)
    with torch.no_grad():
        theirs, ours = var.latent(flat), started.latent(flat)
        assert theirs[..., 32, 32].abs().max() > 0.01
        torch.testing.assert_close(ours[..., 24:40, 24:40], theirs[..., 24:40, 24:40], rtol=1e-4, atol=1e-4)
        even = torch.tensor([0.5, -1.0, 0.25, 0.75])[None, :, None, None].expand(1, BITS, 64, 64)
        theirs, ours = var.decoder.conv_in(var.post_quant_conv(even)), started.decoder.conv_in(even)
        torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)
        hidden = torch.randn(1, 16, 16, 16)
        for level in (2, 1, 0):
            torch.testing.assert_close(started.decoder.up[level](hidden), var.decoder.up[level](hidden))


def test_a_start_from_var_with_other_channels_leaves_the_latent_layers_fresh(
    coded: Path, weights: Path, tmp_path: Path
) -> None:
    from made_scenes import small_tokenizer

    from hguide.experiments.training.tokenizer import TokenizerTraining

    shape = {"channels": 16, "groups": 4, "multipliers": (1, 1, 1), "latent_channels": BITS + 1, "patch_nums": SIDES}
    var = TokenizerTraining(small_tokenizer(coded, tmp_path / "var", **shape)).network.state_dict()
    save_file({name: value.contiguous() for name, value in var.items()}, tmp_path / "var.safetensors")
    fresh = BSQTokenizerTraining(small_bsq(coded, tmp_path / "fresh")).network.state_dict()
    init = str(tmp_path / "var.safetensors")
    started = BSQTokenizerTraining(small_bsq(coded, tmp_path / "bits", init=init)).network.state_dict()
    for name, value in started.items():
        latent = name.startswith(("encoder.conv_out", "decoder.conv_in"))
        assert torch.equal(value, (fresh if latent else var)[name]), name
    again = BSQTokenizerTraining(small_bsq(coded, tmp_path / "again", init=str(weights))).network.state_dict()
    assert all(torch.equal(value, load_file(weights)[name]) for name, value in again.items())
    with pytest.raises(CheckpointError, match="The weights do not fit the model"):
        BSQTokenizerTraining(small_bsq(coded, tmp_path / "wide", init=init, channels=32))


def test_scales_that_do_not_fit_the_crop_are_refused(coded: Path, tmp_path: Path) -> None:
    module = BSQTokenizerTraining(small_bsq(coded, tmp_path, patch_nums=(1, 2, 8)))
    with pytest.raises(ShapeError, match="the last grid is the latent's, 4 x 4"):
        module.loss(0)
