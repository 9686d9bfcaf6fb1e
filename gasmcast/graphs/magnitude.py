"""Vectors of any length, brought to where their squares neither overflow nor vanish.

All factors are powers of two, so no digit is lost.
"""

import torch
from torch import Tensor


def safe_rows(vectors: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of the same directions whose products stay within their dtype's range.

    Args:
        vectors: [..., D].
        norms: Their norms, [...], infinite or 0 where the squares left the range.

    Returns:
        The vectors, each scaled if any had to be, and their norms.
    """
    low, high = _limits(vectors.dtype)
    if not bool(((norms < low) | (norms > high)).any()):
        return vectors, norms
    vectors = vectors * _factor(vectors.detach().abs().amax(dim=-1, keepdim=True))
    return vectors, torch.linalg.vector_norm(vectors, dim=-1)


def safe_scale(points: Tensor) -> float:
    """A factor for all points at once, 1 unless their squares would leave their dtype's range."""
    low, high = _limits(points.dtype)
    largest = points.abs().amax() if points.numel() else points.new_zeros(())
    return 1.0 if low < largest < high or largest == 0 else float(_factor(largest))


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    # The product of two such vectors, and a sum of a few thousand squares, is within the range.
    high = torch.finfo(dtype).max ** 0.4
    return 1 / high, high


def _factor(largest: Tensor) -> Tensor:
    most = {torch.float32: 125, torch.float64: 1021}[largest.dtype]  # 2 to this and minus this
    return torch.exp2(-largest.frexp().exponent.clamp(-most, most).to(largest.dtype))
