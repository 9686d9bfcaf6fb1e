r"""The messages of GATv2 in plain PyTorch, for every machine: a block of edges at a time.

With :math:`z_e = l_j + r_i + W e_{ij}` of an edge from j to i, and :math:`k_e`, what dropout
multiplies its attention with:

.. math::
    s_e^h = a^{h\top} \mathrm{LeakyReLU}(z_e^h), \qquad
    \alpha_e^h = \mathrm{softmax}_{e \to i}\, s_e^h, \qquad
    o_i^h = \sum_{e:\, j \to i} \alpha_e^h k_e^h\, l_j^h

With the gradients :math:`g = \partial / \partial o`, and :math:`\beta = \partial / \partial \alpha`
where the attention itself is used:

.. math::
    q_e^h &= k_e^h\, g_i^{h\top} l_j^h + \beta_e^h, \qquad
    \frac{\partial}{\partial s_e^h}
    = \alpha_e^h \Big(q_e^h - \sum_{e' \to i} \alpha_{e'}^h q_{e'}^h\Big), \qquad
    t_e = \frac{\partial}{\partial s_e} \mathrm{LeakyReLU}'(z_e) \\
    \frac{\partial}{\partial r_i} &= a \odot \sum_{e \to i} t_e, \qquad
    \frac{\partial}{\partial l_j} = a \odot \sum_{e:\, j \to} t_e
    + \sum_{e:\, j \to i} \alpha_e k_e\, g_i, \qquad
    \frac{\partial}{\partial W e_{ij}} = a \odot t_e

As :math:`\mathrm{LeakyReLU}(z) = z\, \mathrm{LeakyReLU}'(z)`, the gradient of a is mostly a sum
over nodes, of sums that are there already:

.. math::
    \frac{\partial}{\partial a} = \sum_e t_e \odot z_e
    = \sum_j l_j \odot \sum_{e:\, j \to} t_e + \sum_i r_i \odot \sum_{e \to i} t_e
    + \sum_e t_e \odot W e_{ij}

Only z and t hold H x C numbers an edge. They are made for a block of edges that fits the cache, and
made again for the gradients. All else that runs over edges and channels is an embedding bag: the
nodes are its table, and the edges of a node are a bag, gathered and summed without being copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RECOMPUTES_ALPHA = False

# A block on the CPU is to stay in a core's cache; on a GPU it is to be worth its kernel launches.
CPU_BLOCK_BYTES = 3 << 19
GPU_BLOCK_BYTES = 1 << 26


def messages(
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
    ptr: Tensor,
    source: Tensor,
    edge: Tensor | None,
    negative_slope: float,
    return_alpha: bool,
    needs_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Messages, attention, and nothing; see :mod:`gasmcast.nn.gatv2_kernels.op`.

    The attention is returned whether wanted or not: the gradients use it.
    """
    with torch.autocast(x_l.device.type, enabled=False):
        edges = _Edges.of(x_l, x_r, edge_attr, edge_weight, ptr, source, edge)
        score = edges.nodes.new_empty(len(source), len(att))
        flat_att = att.to(score.dtype).flatten()
        for block in edges.blocks():
            activated = F.leaky_relu_(edges.before_activation(block), negative_slope)
            products = activated.mul_(flat_att).view(-1, *att.shape)
            torch.sum(products, dim=-1, out=score[block])
        alpha = _softmax(score, ptr, edges.target)
        weight = alpha if keep is None else alpha * _in_order(keep, edge).to(alpha.dtype)
        out = _weighted_sums(edges.nodes[: len(x_l)].view_as(x_l), weight, ptr, source)
        if edge is not None:
            alpha = torch.empty_like(alpha).index_copy_(0, edge, alpha)
    out = out.to(torch.promote_types(x_l.dtype, att.dtype))
    return out, alpha, new_kept(x_r, source, needs_gradients)


def new_kept(x_r: Tensor, source: Tensor, needs_gradients: bool) -> Tensor:
    """Nothing: z is made again."""
    return x_r.new_empty(0)


def gradients(
    grad_out: Tensor,
    grad_alpha: Tensor | None,
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
    ptr: Tensor,
    source: Tensor,
    edge: Tensor | None,
    transposed_ptr: Tensor,
    transposed_target: Tensor,
    transposed_edge: Tensor,
    out: Tensor | None,
    alpha: Tensor,
    kept: Tensor,
    negative_slope: float,
    need_edge_attr: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x_l, x_r, att, edge_attr and edge_weight; see the operator for the rest.

    On a GPU the sums over the edges of a node are atomic, hence in no fixed order.
    """
    with torch.autocast(x_l.device.type, enabled=False):
        edges = _Edges.of(x_l, x_r, edge_attr, edge_weight, ptr, source, edge)
        sources = edges.nodes[: len(x_l)].view_as(x_l)
        # Gradients that a sum or a mean has expanded would be slow to gather.
        grad_out, flat_att = grad_out.to(alpha.dtype).contiguous(), att.to(alpha.dtype).flatten()

        grad_weight = _products(grad_out, sources, ptr, source, edges.target)
        grad_score = _grad_score(grad_weight, grad_alpha, alpha, keep, edge, edges.target, len(x_r))

        sums = torch.zeros_like(edges.nodes)  # of t, at sources and at targets
        at_sources, at_targets = sums.split([len(x_l), len(x_r)])
        features = None if edge_attr is None else _FeatureGradients(edges, flat_att, need_edge_attr)
        for block in edges.blocks():
            z = edges.before_activation(block).view(-1, *att.shape)
            t = torch.ops.aten.leaky_relu_backward.grad_input(
                grad_score[block].unsqueeze(-1).expand_as(z), z, negative_slope, False, grad_input=z
            ).flatten(1)
            at_sources.index_add_(0, source[block], t)
            at_targets.index_add_(0, edges.target[block], t)
            if features is not None:
                features.add(block, t)

        grad_att = edges.nodes.mul_(sums).sum(dim=0)  # the nodes are no longer needed
        if features is not None:
            grad_att += features.att()
        weight = alpha if keep is None else alpha * keep.to(alpha.dtype)
        grad_x_l = _weighted_sums(
            grad_out, weight[transposed_edge], transposed_ptr, transposed_target
        )
        grad_x_l.flatten(1).addcmul_(at_sources, flat_att)
        grad_x_r = (at_targets * flat_att).view_as(x_r)
    return (
        grad_x_l.to(x_l.dtype),
        grad_x_r.to(x_r.dtype),
        grad_att.view_as(att).to(att.dtype),
        features.edge_attr if need_edge_attr else x_l.new_empty(0),
        x_l.new_empty(0) if edge_weight is None else features.edge_weight().to(edge_weight.dtype),
    )


@dataclass
class _Edges:
    """Edges in target order, and what their z is made of; nodes and W in the dtype of sums.

    Attributes:
        nodes: Sources l, then targets r, as one table, [M + N, H * C].
        ends: Rows of each edge's source and target in it, [E, 2].
        target: Target of each edge, [E].
        edge: The caller's row of each edge, [E]; None: its own.
        edge_attr: In the caller's order and dtype.
        edge_weight: W, [H * C, F]; None where the features are projected.
    """

    nodes: Tensor
    ends: Tensor
    target: Tensor
    edge: Tensor | None
    edge_attr: Tensor | None
    edge_weight: Tensor | None

    @classmethod
    def of(
        cls,
        x_l: Tensor,
        x_r: Tensor,
        edge_attr: Tensor | None,
        edge_weight: Tensor | None,
        ptr: Tensor,
        source: Tensor,
        edge: Tensor | None,
    ) -> _Edges:
        """The edges of an operator's inputs."""
        dtype = torch.promote_types(x_l.dtype, torch.float32)
        target = torch.arange(len(x_r), device=ptr.device).repeat_interleave(
            ptr.diff(), output_size=len(source)
        )
        return cls(
            nodes=torch.cat([x_l.flatten(1).to(dtype), x_r.flatten(1).to(dtype)]),
            ends=torch.stack([source, target + len(x_l)], dim=1),
            target=target,
            edge=edge,
            edge_attr=edge_attr,
            edge_weight=None if edge_weight is None else edge_weight.to(dtype),
        )

    def blocks(self) -> Iterator[slice]:
        """Runs of edges; where a target's edges are parted does not matter."""
        block_bytes = CPU_BLOCK_BYTES if self.nodes.device.type == "cpu" else GPU_BLOCK_BYTES
        row_bytes = self.nodes.shape[1] * self.nodes.element_size()
        size = max(1, block_bytes // row_bytes)
        return (slice(start, start + size) for start in range(0, len(self.ends), size))

    def before_activation(self, block: slice) -> Tensor:
        """z, [edges of the block, H * C]."""
        # Each edge is a bag of two nodes: gathered and added in one go.
        z = F.embedding_bag(self.ends[block], self.nodes, mode="sum")
        if self.edge_attr is None:
            return z
        if self.edge_weight is None:
            return z.add_(self.features(block))
        return z.addmm_(self.features(block), self.edge_weight.t())

    def features(self, block: slice) -> Tensor:
        """e as the caller gives it, [edges of the block, F or H * C]."""
        return self.edge_attr[self.rows(block)].to(self.nodes.dtype)

    def rows(self, block: slice) -> slice | Tensor:
        """The caller's rows of a block."""
        return block if self.edge is None else self.edge[block]


class _FeatureGradients:
    """Gradients that come from z's part W e: of e and W, and that part's share in a's.

    Where the features are projected, that part is e, and there is no W.

    Args:
        edges: The edges, which have features.
        att: a, [H * C].
        need_edge_attr: Whether the gradient of e is wanted.
    """

    def __init__(self, edges: _Edges, att: Tensor, need_edge_attr: bool):
        self._edges, self._att, self._weight = edges, att, edges.edge_weight
        self.edge_attr = torch.empty_like(edges.edge_attr) if need_edge_attr else None
        if self._weight is None:
            self._products = torch.zeros_like(att)  # sum of t times e, [H * C]
        else:
            self._outer = att.new_zeros(self._weight.t().shape)  # sum of e t^T, [F, H * C]
            self._weight_times_att = self._weight * att.unsqueeze(1)

    def add(self, block: slice, t: Tensor) -> None:
        """Take in the edges of a block, whose t is [edges of the block, H * C]."""
        features = self._edges.features(block)
        if self._weight is None:
            self._products += (features * t).sum(dim=0)
        else:
            self._outer.addmm_(features.t(), t)
        if self.edge_attr is not None:
            grad = t * self._att if self._weight is None else t @ self._weight_times_att
            self.edge_attr[self._edges.rows(block)] = grad.to(self.edge_attr.dtype)

    def att(self) -> Tensor:
        """The sum over edges of t times W e, [H * C]."""
        return self._products if self._weight is None else (self._outer.t() * self._weight).sum(1)

    def edge_weight(self) -> Tensor:
        """The gradient of W, [H * C, F]."""
        return (self._outer * self._att).t().contiguous()


def _in_order(rows: Tensor, edge: Tensor | None) -> Tensor:
    """The caller's rows in target order."""
    return rows if edge is None else rows[edge]


def _softmax(score: Tensor, ptr: Tensor, target: Tensor) -> Tensor:
    """Softmax over the edges of each target, [E, H]."""
    highest = torch.segment_reduce(score, "max", offsets=ptr, axis=0, unsafe=True)
    weight = score.sub_(highest.index_select(0, target)).exp_()
    total = weight.new_zeros(highest.shape).index_add_(0, target, weight)
    return weight.div_(total.index_select(0, target))


def _grad_score(
    grad_weight: Tensor,
    grad_alpha: Tensor | None,
    alpha: Tensor,
    keep: Tensor | None,
    edge: Tensor | None,
    target: Tensor,
    num_targets: int,
) -> Tensor:
    """Gradient of the scores, [E, H], in target order, from that of the weights alpha * k."""
    grad = grad_weight if keep is None else grad_weight.mul_(_in_order(keep, edge))
    if grad_alpha is not None:
        grad += _in_order(grad_alpha, edge)
    alpha = _in_order(alpha, edge)
    grad *= alpha
    total = grad.new_zeros(num_targets, grad.shape[1]).index_add_(0, target, grad)
    return grad.sub_(alpha * total.index_select(0, target))


def _weighted_sums(values: Tensor, weight: Tensor, ptr: Tensor, index: Tensor) -> Tensor:
    """Of each bag the sum of ``values[index]``, each head weighted with its own weight.

    Args:
        values: [M, H, C].
        weight: [E, H].
        ptr: Where the bags begin, [N + 1].
        index: [E].

    Returns:
        [N, H, C].
    """
    sums = [
        F.embedding_bag(
            index, head, ptr, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        for head, weights in zip(values.unbind(1), weight.t().contiguous(), strict=True)
    ]
    return torch.stack(sums, dim=1)


def _products(bags: Tensor, values: Tensor, ptr: Tensor, index: Tensor, bag: Tensor) -> Tensor:
    """The products of each bag's row with its ``values[index]``, head by head.

    They are the gradient by the weights of :func:`_weighted_sums`, hence the operator below.

    Args:
        bags: [N, H, C].
        values: [M, H, C].
        ptr: Where the bags begin, [N + 1].
        index: [E].
        bag: The bag of each, [E].

    Returns:
        [E, H].
    """
    products = [
        torch.ops.aten._embedding_bag_per_sample_weights_backward(
            ours, theirs, index, ptr[:-1], bag, 0, -1
        )
        for ours, theirs in zip(bags.unbind(1), values.unbind(1), strict=True)
    ]
    return torch.stack(products, dim=1)
