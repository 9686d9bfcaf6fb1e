"""The messages of GATv2 in a few lines of differentiable PyTorch: what every kernel computes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import softmax


def attend(
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
    source: Tensor,
    target: Tensor,
    negative_slope: float,
) -> tuple[Tensor, Tensor]:
    """Messages [N, H, C] and attention [E, H]; every tensor of size [E, H, C] is there.

    It serves gradients of gradients, and the tests as a second opinion.
    """
    z = x_l[source] + x_r[target]
    if edge_attr is not None:
        projected = edge_attr if edge_weight is None else F.linear(edge_attr, edge_weight)
        z = z + projected.view(z.shape)
    score = (F.leaky_relu(z, negative_slope) * att).sum(dim=-1)
    alpha = softmax(score, target, num_nodes=len(x_r))
    weight = alpha if keep is None else alpha * keep
    message = x_l[source] * weight.unsqueeze(-1)
    out = message.new_zeros(x_r.shape).index_add(0, target, message)
    return out, alpha
