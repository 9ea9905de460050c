"""A recorded encoding and decoding by HART's hybrid tokenizer."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from hguide.backends.hart.tokenizer import HARTTokenizer
from hguide.experiments.parity.hart_case import INPUT
from hguide.experiments.parity.recording import Recording

__all__ = ["replay_tokenizer"]


@torch.no_grad()
def replay_tokenizer(recording: Recording, tokenizer: HARTTokenizer) -> None:
    """Encode a recorded image, and decode it along the discrete path and as in generation.

    Args:
        recording: `img_in` in [-1, 1], and any of the quantities of the golden files.
        tokenizer: in evaluation mode.
    """
    recording.leave("img_in", INPUT)
    images, grids = recording["img_in"], tokenizer.config.grids
    recording.compare("encoder_out", tokenizer.encoder(images))
    f = tokenizer.latent(images)
    recording.compare("f", f)
    hybrid = tokenizer.encode_hybrid(images)
    for k, tokens in enumerate(hybrid.tokens):
        recording.compare(f"hybrid.idx_s{k}", tokens.flatten(1))
    recording.compare("hybrid.frest_before_last", hybrid.rest.flatten(2).transpose(1, 2))
    _compare_discrete(recording, tokenizer, f)
    recording.compare("var_input", tokenizer.quantize.var_input(hybrid.tokens, grids))
    recording.compare("idx_to_img.last", tokenizer.decode(hybrid.tokens))
    f_hat = torch.zeros_like(f)
    for k, (_, following) in enumerate(pairwise(grids)):
        f_hat = tokenizer.add_scale(f_hat, tokenizer.quantize.lookup(hybrid.tokens[k]), k, grids)
        recording.compare(f"gen_style.f_hat_s{k}", f_hat)
        recording.compare(f"gen_style.next_map_s{k}", tokenizer.quantize.next_map(f_hat, following))
    f_hat = tokenizer.add_scale(f_hat, hybrid.rest, len(grids) - 1, grids)
    recording.compare("gen_style.f_full", f_hat)
    recording.compare("gen_style.recon", tokenizer.decode_latent(f_hat))
    recording.compare("forward_continuous.out", _decoded(tokenizer, f_hat))


def _compare_discrete(recording: Recording, tokenizer: HARTTokenizer, f: Tensor) -> None:
    tokens, latents = tokenizer.quantize.encode_with_latents(f, tokenizer.config.grids)
    for k, (each, f_hat) in enumerate(zip(tokens, latents, strict=True)):
        recording.compare(f"discrete.idx_s{k}", each.flatten(1))
        recording.compare(f"discrete.f_hat_s{k}", f_hat)
        recording.compare(f"discrete.recon_s{k}", tokenizer.decode_latent(f_hat))
    recording.compare("forward_discrete.out", _decoded(tokenizer, latents[-1]))


def _decoded(tokenizer: HARTTokenizer, f_hat: Tensor) -> Tensor:
    """Without the clamp, as training sees it."""
    return tokenizer.decoder(tokenizer.post_quant_conv(f_hat))
