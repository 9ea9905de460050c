"""Plain sampling for the grids of a training: no filters, VAR's own classifier-free guidance."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.var.tokenizer import VARTokenizer
from hguide.backends.var.transformer import VARTransformer

__all__ = ["sample_images"]


@torch.no_grad()
def sample_images(
    transformer: VARTransformer, tokenizer: VARTokenizer, labels: Int[Tensor, " b"], strength: float, seed: int
) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] drawn scale by scale: l = (1 + t) c - t u, t = strength k / (K - 1), softmax, multinomial.

    Args:
        transformer: predicts the tokens.
        tokenizer: turns them into images.
        labels: class of each image.
        strength: guidance at the last scale; 0 draws without guidance.
        seed: of the draws.
    """
    config, count = transformer.config, len(labels)
    random = torch.Generator(labels.device).manual_seed(seed)
    modulation = transformer.modulation(torch.cat([labels, torch.full_like(labels, config.null_label)]))
    cache = KeyValueCache(config.depth, 2 * count, config.heads, config.length, config.head_dim, device=labels.device)
    grids = tokenizer.config.grids
    hidden, latent = transformer.first_input(modulation), None
    for k, (height, width) in enumerate(grids):
        if k > 0:
            assert latent is not None
            step_input = transformer.embed(tokenizer.quantize.next_map(latent, (height, width)), k)
            hidden = torch.cat([step_input, step_input])
        logits = transformer.forward_head(transformer.forward_blocks(hidden, modulation, cache), modulation)
        given, null = logits.float().chunk(2)
        guidance = strength * k / max(len(grids) - 1, 1)
        probabilities = ((1 + guidance) * given - guidance * null).softmax(-1)
        tokens = torch.multinomial(probabilities.flatten(0, 1), 1, generator=random).view(count, height, width)
        with torch.autocast(labels.device.type, enabled=False):
            step = tokenizer.quantize.contribution(tokenizer.quantize.lookup(tokens), k, len(grids), grids[-1])
        latent = step if latent is None else latent + step
    assert latent is not None
    return torch.cat([tokenizer.decode_latent(part) for part in latent.split(42)]).float() * 0.5 + 0.5
