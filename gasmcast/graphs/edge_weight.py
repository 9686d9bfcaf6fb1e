"""The cosine similarity of each edge, with gradient, at the cost of sparse matrix products."""

import torch
from torch import Tensor

from gasmcast.graphs.magnitude import safe_rows


def edge_similarity(features: Tensor, edge_index: Tensor) -> Tensor:
    r"""Cosine similarity of source and target of each edge, with gradient to the features.

    .. math::
        w_{e} = \frac{x_i \cdot x_j}{\lVert x_i \rVert \lVert x_j \rVert}, \qquad e = (j, i)

    Memory stays at [N, D] + [E], in the backward pass too, where gathering the features of both
    ends would take twice [E, D]. Second derivatives are possible; they do gather. A zero vector has
    similarity 0 and no gradient, also to itself.

    Args:
        features: [N, D].
        edge_index: Source and target, [2, E], sorted by target.

    Returns:
        [E], in the features' dtype.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    wide, norm = safe_rows(wide, torch.linalg.vector_norm(wide, dim=-1))
    norm = norm.unsqueeze(-1)
    zero = norm == 0
    directions = torch.where(zero, 0.0, wide / torch.where(zero, 1.0, norm))
    return _DotProducts.apply(directions, edge_index).to(features.dtype)


class _DotProducts(torch.autograd.Function):
    """Dot product of the two nodes of each edge."""

    @staticmethod
    def forward(ctx, directions: Tensor, edge_index: Tensor) -> Tensor:
        ctx.save_for_backward(directions, edge_index)
        source, target = edge_index
        products = directions.new_empty(len(source))
        # A few thousand edges at a time: their gathered features stay small.
        for start in range(0, len(source), 4096):
            some = slice(start, start + 4096)
            torch.linalg.vecdot(
                directions.index_select(0, source[some]),
                directions.index_select(0, target[some]),
                out=products[some],
            )
        return products

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None]:
        directions, edge_index = ctx.saved_tensors
        source, target = edge_index
        if torch.is_grad_enabled():
            # Somebody wants second derivatives, which a sparse matrix of gradients has not got.
            zeros = torch.zeros_like(directions)
            to_target = zeros.index_add(0, target, grad.unsqueeze(1) * directions[source])
            return to_target.index_add(0, source, grad.unsqueeze(1) * directions[target]), None
        by_target = _sparse(target, source, grad, len(directions))
        by_source = _sparse(source, target, grad, len(directions))
        # d(u_i . u_j) = du_i . u_j + u_i . du_j: one product a direction of the edges.
        return by_target @ directions + by_source @ directions, None


def _sparse(row: Tensor, column: Tensor, value: Tensor, size: int) -> Tensor:
    return torch.sparse_coo_tensor(
        torch.stack([row, column]), value, (size, size), check_invariants=False
    )
