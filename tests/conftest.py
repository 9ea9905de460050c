"""Shapes in signatures are checked while the tests run, and only then."""

import os
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook

# The tests run in as many processes as there are cores: more threads would only wait for each other.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

install_import_hook("hguide", "shapes.typechecker")


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Signatures as a user's program has them, unchecked: for tests of what a wrong type meets there."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
