"""What the graph builders are measured against."""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.neighbors import radius_neighbors_graph
from torch import Tensor
from torch.nn import functional as F


def bare(features: Tensor, threshold: float) -> Tensor:
    """Which pairs are similar, [B, N, N]: the least that any way over all pairs has to do."""
    unit = F.normalize(features, dim=-1)
    return unit @ unit.transpose(1, 2) >= threshold


def bare_edges(features: Tensor, threshold: float, near: Tensor | None = None) -> Tensor:
    """The same as an edge list [2, E] of the batch, with the pairs ``near`` [N, N] where given."""
    pairs = bare(features, threshold)
    if near is not None:
        pairs |= near
    clip, target, source = pairs.nonzero(as_tuple=True)
    return torch.stack([source, target]) + clip * features.size(1)


def sklearn_similar(clips: np.ndarray, threshold: float) -> list[csr_matrix]:
    """One sparse matrix for each clip of [B, N, D], as scikit-learn gives it."""
    return [
        radius_neighbors_graph(clip, 1 - threshold, metric="cosine", include_self=True)
        for clip in clips
    ]


def sklearn_edges(clips: np.ndarray, threshold: float, near: csr_matrix) -> Tensor:
    """The edge list [2, E] of the batch, sorted by target, then source, with the pairs ``near``."""
    rows, num_nodes = [], clips.shape[1]
    for number, similar in enumerate(sklearn_similar(clips, threshold)):
        edges = similar.maximum(near)
        edges.sort_indices()
        target, source = edges.tocoo().coords
        rows.append(np.stack([source, target]).astype(np.int64) + number * num_nodes)
    return torch.from_numpy(np.concatenate(rows, axis=1))


def sklearn_near(positions: np.ndarray, radius: float) -> csr_matrix:
    """Pairs at most ``radius`` apart in every coordinate, and each node with itself."""
    return radius_neighbors_graph(positions, radius, metric="chebyshev", include_self=True)


def vig_neighbours(features: Tensor, k: int) -> Tensor:
    """The k nearest of each node and the node itself, [2, B, N, k + 1], the way of ViG.

    Written from the description in "Vision GNN: An Image is Worth Graph of Nodes"
    (https://arxiv.org/abs/2206.00272): features of length 1, all squared distances as
    x^2 - 2xy + y^2, and topk. Row 0 holds the neighbours, row 1 the nodes they belong to; nodes are
    counted within their clip.
    """
    unit = F.normalize(features, dim=-1)
    square = (unit * unit).sum(dim=-1, keepdim=True)
    distance = square - 2 * (unit @ unit.transpose(1, 2)) + square.transpose(1, 2)
    neighbours = (-distance).topk(k + 1).indices
    nodes = torch.arange(features.size(1), device=features.device).unsqueeze(1)
    return torch.stack([neighbours, nodes.expand_as(neighbours)])
