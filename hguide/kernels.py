"""Modules of Triton kernels, where the machine can compile them."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from types import ModuleType

__all__ = ["kernels"]


@cache
def kernels(module: str) -> ModuleType | None:
    """A module whose `trial()` has run here, once per process; None where it cannot.

    PyTorch for CUDA comes without Triton on some systems; and Triton compiles with the system's C compiler, which small
    images lack. Then what the kernels do is done by PyTorch's operations.

    Args:
        module: for instance "hguide.noise_kernel".
    """
    try:
        found = importlib.import_module(module)
        found.trial()
    except ImportError:
        return None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"{module} does not compile here ({reason[:160]}): PyTorch's operations are used.", stacklevel=2)
        return None
    return found
