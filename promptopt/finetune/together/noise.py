"""Dropout and NEFTune noise that depend on nothing but a set's own seed and step.

The global random state would make a set's noise depend on the sets beside it, and on who has left. These draws repeat
themselves after a kill, and when gradient checkpointing computes a layer again.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor

_EMBEDDINGS = -1


@dataclass(frozen=True)
class NoiseSource:
    """Random numbers of one batch of one set; `batch` counts batches since training began."""

    seed: int
    batch: int

    def generator(self, layer: int, device: "torch.device") -> "torch.Generator":
        """Return a fresh generator for the layer with this number."""
        digest = hashlib.blake2b(f"{self.seed} {self.batch} {layer}".encode(), digest_size=8).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def drop_out(x: "Tensor", share: float, tokens: int, noise: NoiseSource, layer: int) -> "Tensor":
    """Return `x` (rows, length, width) with `share` of its numbers zeroed and the others scaled up.

    Args:
        tokens: drawn for; numbers beyond are padding and come out as zeros, so that its length changes no draw.
    """
    kept = torch.empty(len(x), tokens, x.shape[2], device=x.device, dtype=x.dtype)
    kept.bernoulli_(1 - share, generator=noise.generator(layer, x.device)).div_(1 - share)
    return x * pad(kept, (0, 0, 0, x.shape[1] - tokens))


def neftune(x: "Tensor", alpha: float, tokens: int, noise: NoiseSource) -> "Tensor":
    """Return embeddings `x` (rows, length, width) with uniform noise up to alpha / sqrt(tokens * width).

    NEFTune (Jain et al. 2023, arXiv 2310.05914).

    Args:
        tokens: the longest row; what lies beyond is padding and gets none.
    """
    size = alpha / (tokens * x.shape[2]) ** 0.5
    drawn = torch.empty(len(x), tokens, x.shape[2], device=x.device, dtype=x.dtype)
    drawn.uniform_(-size, size, generator=noise.generator(_EMBEDDINGS, x.device))
    return x + pad(drawn, (0, 0, 0, x.shape[1] - tokens))
