"""Shapes in signatures are checked while the tests run, and only then."""

import os

import torch
from jaxtyping import install_import_hook

# The tests run in as many processes as there are cores: more threads would only wait for each other.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

install_import_hook("hguide", "shapes.typechecker")
