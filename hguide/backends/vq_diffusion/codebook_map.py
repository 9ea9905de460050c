"""Which codes of a tokenizer a denoiser uses: the published class models leave most of a codebook out."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.errors import ConfigError

__all__ = ["codes_in_use", "inverse"]

TABLES = Path(__file__).with_name("codebook_maps.safetensors")
PUBLISHED = {(974, 16384): "quantize_to_full_974", (2887, 8192): "quantize_to_full_2887"}
"""(codes of the denoiser, codes of the tokenizer) -> the table, which the published checkpoints need and lack."""


def codes_in_use(codes: int, vocabulary: int) -> Int[Tensor, " k"]:
    """Row of the codebook for each code of the denoiser: the published table, or k itself where the numbers agree.

    Args:
        codes: of the denoiser.
        vocabulary: of the tokenizer.

    Raises:
        ConfigError: they differ, and there is no table for them.
    """
    if codes == vocabulary:
        return torch.arange(codes)
    if (codes, vocabulary) not in PUBLISHED:
        known = ", ".join(f"{k} of {full}" for k, full in PUBLISHED)
        raise ConfigError(
            f"the denoiser has {codes} codes and the tokenizer {vocabulary}: there is no table of codes for them "
            f"(there is for {known}). They were not trained together, or the table must be given."
        )
    return read_state_dict(TABLES)[PUBLISHED[codes, vocabulary]].long()


def inverse(codes: Int[Tensor, " k"], vocabulary: int) -> Int[Tensor, " n"]:
    """Code of the denoiser for each row of the codebook; rows that it does not use count as its code 0.

    Args:
        codes: row of each code of the denoiser.
        vocabulary: rows of the codebook.
    """
    found = torch.zeros(vocabulary, dtype=torch.int64, device=codes.device)
    return found.scatter_(0, codes, torch.arange(len(codes), device=codes.device))
