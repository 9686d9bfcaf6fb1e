"""The rules that make edges, each a boolean matrix over all pairs of nodes of a clip.

Entry ``[b, i, j]`` speaks of the edge from source ``j`` to target ``i`` of clip ``b``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag

import torch
from torch import Tensor


class EdgeRule(IntFlag):
    """Bits of ``edge_rule``: which rules made an edge. Several bits can be set at once."""

    SELF_LOOP = 1
    ADJACENT = 2
    SIMILAR = 4

    @property
    def label(self) -> str:
        """Name for tables and legends, such as ``"adjacent + similar"``."""
        return " + ".join(rule.name.lower().replace("_", "-") for rule in self)


def adjacent(positions: Tensor, radius: float) -> Tensor:
    """Pairs at most ``radius`` apart in every coordinate (Chebyshev distance, bound inclusive).

    With ``radius=1`` in patch units these are the 8 neighbours of a patch; over segment indices,
    ``radius`` is the window ``|t_i - t_j| <= radius``.

    Args:
        positions: [B, N, d].
        radius: In the unit of the positions.

    Returns:
        Boolean [B, N, N].
    """
    offsets = positions.unsqueeze(2) - positions.unsqueeze(1)
    return offsets.abs().amax(dim=-1) <= radius


def cosine_similarity(features: Tensor) -> Tensor:
    r"""Cosine similarity of all pairs, :math:`s_{ij} = x_i \cdot x_j / (|x_i| |x_j|)`.

    Symmetric to the last bit: the upper triangle is mirrored, so a threshold never makes an edge
    in one direction only. Computed in float32, or in float64 for float64 features. A zero vector
    has similarity 0 to every other node; every node has similarity 1 to itself.

    Args:
        features: [B, N, D].

    Returns:
        [B, N, N] without gradient.
    """
    features = features.detach()
    if features.dtype != torch.float64:
        features = features.float()
    unit = torch.nn.functional.normalize(features, dim=-1, eps=torch.finfo(features.dtype).tiny)
    with _full_precision(features.device):
        upper = (unit @ unit.transpose(1, 2)).triu(diagonal=1)
    similarity = upper + upper.transpose(1, 2)
    similarity.diagonal(dim1=1, dim2=2).fill_(1.0)
    return similarity


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32: the edges must not depend on how a model is trained."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def keep_most_similar(candidates: Tensor, similarity: Tensor, max_neighbors: int) -> Tensor:
    """Of each target's candidate sources, the ``max_neighbors`` most similar.

    Ties go to the smaller source index, on every device: the sort is stable.

    Args:
        candidates: Boolean [B, N, N].
        similarity: [B, N, N].
        max_neighbors: At least 0.

    Returns:
        Boolean [B, N, N], a subset of ``candidates``.
    """
    ranked = similarity.masked_fill(~candidates, -torch.inf)
    order = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :max_neighbors]
    chosen = torch.zeros_like(candidates).scatter_(-1, order, True)
    return chosen & candidates
