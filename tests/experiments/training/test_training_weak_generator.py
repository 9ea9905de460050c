"""A weak generator on the bundled tokenizer: trained by name, bundled without the tokenizer, lent for autoguidance."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hguide
from hguide.backends.var import VAR
from hguide.backends.var.files import save
from hguide.cli import main
from hguide.errors import CheckpointError, StreamError
from hguide.load import bundled_path

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.


@pytest.fixture(scope="module")
def trained(coded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of the shipped recipe, made smaller still, in one file with the bundled tokenizer."""
    from importlib.resources import files

    import yaml

    from hguide.experiments.training.bundle import export
    from hguide.experiments.training.generator import GeneratorTrainingConfig, run

    text = (files("hguide.experiments.training") / "configs" / "landuse_var_weak_generator.yaml").read_text()
    folder = tmp_path_factory.mktemp("weak")
    config = GeneratorTrainingConfig(
        data=str(coded), out=str(folder), tokenizer="landuse-var", accelerator="cpu", **yaml.safe_load(text)
    )
    assert (config.depth, config.width) == (3, 96)
    small = {"depth": 1, "width": 16, "heads": 1, "batch_size": 2, "token_crops": 4, "precision": "32-true"}
    weights = run(replace(config, steps=1, epoch_steps=1, warmup_steps=1, **small))
    return export("landuse-var", weights, folder / "landuse-var-weak.safetensors")


def test_it_is_bundled_without_the_tokenizer_and_lent(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "landuse-var-weak.safetensors"
    arguments = ["convert", str(trained), str(out), "--dtype", "float16", "--tokenizer-of", "landuse-var"]
    assert main(arguments) == 0
    assert out.stat().st_size < 0.1 * trained.stat().st_size
    main_model = hguide.load("landuse-var")
    weak = hguide.load(out, tokenizer=bundled_path("landuse-var"))
    assert isinstance(weak, VAR)
    assert (weak.name, weak.tokenizer_hash) == ("landuse-var-weak", main_model.tokenizer_hash)
    whole = hguide.load(trained)
    for name, value in whole.transformer.state_dict().items():
        assert torch.equal(weak.transformer.state_dict()[name], value), name
    strong = copy.deepcopy(whole)
    with torch.no_grad():
        strong.transformer.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    lent = hguide.generate(strong, 1, "cfg | autoguidance", seeds=[0], models={"weak": weak})
    assert not torch.equal(lent, hguide.generate(strong, 1, "cfg", seeds=[0]))
    with pytest.raises(StreamError, match="lender 'weak' has 3 classes, landuse-var 21"):
        hguide.generate(main_model, 1, "autoguidance", seeds=[0], models={"weak": weak})


def test_a_missing_or_another_tokenizer_is_named(trained: Path, tmp_path: Path) -> None:
    model = hguide.load(trained)
    path = tmp_path / "weak.safetensors"
    save(model, path, tokenizer_of="landuse-var")
    with pytest.raises(CheckpointError, match=r"tokenizer of landuse-var, but there is no .*pass tokenizer=PATH"):
        hguide.load(path)
    with torch.no_grad():
        model.tokenizer.quantize.embedding.weight.mul_(2.0)
    save(model, tmp_path / "landuse-var.safetensors")
    with pytest.raises(CheckpointError, match="trained on the tokenizer of another landuse-var than"):
        hguide.load(path)
