"""Parts of a generator from the weights that training starts with."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hguide.backends.tiny_text import TinyTextConfig, TinyTextEncoder
from hguide.errors import CheckpointError
from hguide.experiments.training.parts import load_parts
from hguide.load import bundled_path


@pytest.mark.parametrize("given", ["landuse-hart", bundled_path("landuse-hart")])
def test_training_starts_from_a_bundled_model_by_name_or_by_its_file(given):
    network = nn.ModuleDict({"text_encoder": TinyTextEncoder(TinyTextConfig(64, 24))})
    load_parts(network, given)
    stored = load_file(bundled_path("landuse-hart"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, stored[name].float())


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(CheckpointError, match="landuse-hrat"):
        load_parts(nn.ModuleDict(), "landuse-hrat")
