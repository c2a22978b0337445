"""Content-based addressing: which slots of a memory look like a key (Santoro et al. 2016, section 3.1).

| here | paper | equation |
| --- | --- | --- |
| `cosine_similarity` | K(k_t, M_t(i)) | 2, 17 |
| `content_weights` | w^r_t | 3, 18 |
| `read` | r_t | 4, 19 |
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Added to the squared length of a vector, so that an empty slot has similarity 0 and a finite gradient.
EPSILON = 1e-8


def cosine_similarity(
    keys: Float[Tensor, "batch heads width"], memory: Float[Tensor, "batch slots width"]
) -> Float[Tensor, "batch heads slots"]:
    """Cosine of the angle between each key and each slot, in [-1, 1]; 0 for an empty slot (equation 2)."""
    keys = keys * torch.rsqrt(keys.square().sum(-1, keepdim=True) + EPSILON)
    lengths = torch.rsqrt(memory.square().sum(-1) + EPSILON)
    return keys @ memory.transpose(1, 2) * lengths.unsqueeze(1)


def content_weights(
    keys: Float[Tensor, "batch heads width"], memory: Float[Tensor, "batch slots width"]
) -> Float[Tensor, "batch heads slots"]:
    """Softmax of the cosine similarity over the slots, with no sharpening: rows sum to 1 (equation 3)."""
    return torch.softmax(cosine_similarity(keys, memory), dim=-1)


def read(
    weights: Float[Tensor, "batch heads slots"], memory: Float[Tensor, "batch slots width"]
) -> Float[Tensor, "batch heads width"]:
    """The weighted mean of the slots, one for each head (equation 4)."""
    return weights @ memory
