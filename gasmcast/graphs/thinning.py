"""Which edges of a dense graph are drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def rank(strength: Tensor, group: Tensor) -> Tensor:
    """Place of each edge among those of its group, the strongest first, equals in their order."""
    order = strength.sort(descending=True, stable=True).indices
    order = order[group[order].sort(stable=True).indices]
    sizes = group.bincount()
    first = sizes.cumsum(0) - sizes
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - first[group[order]]
    return place
