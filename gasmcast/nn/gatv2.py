"""Memory-efficient GATv2 graph attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATv2Conv, MessagePassing
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.typing import SparseTensor, torch_sparse
from torch_geometric.utils import is_torch_sparse_tensor

from gasmcast.nn.gatv2_kernels.backend import gatv2_backend
from gasmcast.nn.gatv2_kernels.op import messages
from gasmcast.nn.gatv2_kernels.order import EdgeOrder, edge_order, with_self_loops
from gasmcast.nn.plain_modules import is_plain

# Up to so many edge features the kernels project as they go. More are projected by one matrix
# product beforehand, for which their projections, [E, H * C], are kept.
MAX_EDGE_FEATURES = 16

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_STEPS = ("message", "message_and_aggregate", "edge_update", "aggregate", "update")
_STEP_HOOKS = tuple(
    f"_{step}_forward_{kind}"
    for step in ("propagate", "message", "message_and_aggregate", "aggregate", "edge_update")
    for kind in ("pre_hooks", "hooks")
)


class FusedGATv2Conv(GATv2Conv):
    r""":class:`torch_geometric.nn.GATv2Conv`, computed without a tensor of size E x H x C.

    .. math::
        x_i' &= \big\Vert_{h=1}^{H} \sum_{j \in \mathcal{N}(i)} \alpha^h_{ij}\, W_l^h x_j + b \\
        \alpha^h_{ij} &= \mathrm{softmax}_j \; a^{h\top} \mathrm{LeakyReLU}\!\left(
        W_l^h x_j + W_r^h x_i + W_e^h e_{ij}\right)

    Constructor, parameters, state dict, forward signature, returned attention, dropout for a given
    seed and errors are those of PyG's layer, so that it can take its place, with its weights, in
    any project. Scores, softmax, weighted sum and their gradients are computed node by node: on the
    CPU by a compiled kernel, on a GPU by Triton, elsewhere by blocked PyTorch
    (:func:`gatv2_backend` tells which). Kept for the gradients are the projected nodes, twice
    [N, H * C], the attention, [E, H], and on the CPU a bit for each edge and channel.

    Edges may come in any order. On a CPU, those that are sorted by target are recognised and not
    sorted again; on a GPU, where to look would be to wait for it, only those of an
    :class:`~torch_geometric.EdgeIndex` that says so. The order is computed once for an
    ``edge_index``, and remembered as long as that tensor lives and is unchanged: all layers, and
    all epochs over the same graph, share it. What PyTorch is not told of is not noticed: an
    ``edge_index`` that shares its memory with an array must not be refilled through that array, or
    through ``.data``.

    Whatever the kernels do not cover goes PyG's way, with PyG's results: other aggregations than
    the sum, ``flow="target_to_source"``, hooks on messages and explainers, ``torch.sparse``
    adjacency, ``torch.export``, function transforms and forward-mode gradients, subclasses with
    messages of their own, devices other than CPU and CUDA. Gradients of gradients are those of the
    plain formula, computed again.

    Args:
        in_channels: Width of the nodes, or of sources and targets as a pair; -1: that of the first
            input.
        out_channels: Channels C of each head.
        heads: Heads H.
        concat: Concatenate the heads; False: their mean.
        negative_slope: Of the LeakyReLU.
        dropout: Probability of dropping an attention weight in training.
        add_self_loops: Replace the self-loops of the graph by one at each node.
        edge_dim: Width F of ``edge_attr``; None: edges have no features. Up to 16 are projected
            within the kernels; beyond, their projections [E, H * C] are kept for the gradients.
        fill_value: Edge features of added self-loops: a number, a tensor, or how to reduce those of
            the other edges that enter the node.
        bias: Add b, and biases to the projections.
        share_weights: One projection for sources and targets.
        residual: Add a learnable projection of the targets.
        **kwargs: Of :class:`torch_geometric.nn.MessagePassing`.

    Shapes:
        - **x:** [N, D], or a pair [M, D_source], [N, D_target]
        - **edge_index:** [2, E], source and target; an :class:`~torch_geometric.EdgeIndex`; or a
          ``torch_sparse.SparseTensor`` [N, M], target and source
        - **edge_attr:** [E, F]
        - **output:** [N, H * C], or [N, C] with ``concat=False``; with
          ``return_attention_weights=True`` also the edges and their attention [E, H] (after dropout
          in training), as a pair or as a ``SparseTensor``

    Raises:
        IndexError: An edge names a node that is not there (on a GPU, a device-side assertion).
            Whatever else is wrong with the input goes PyG's way, and raises what PyG raises.

    Source: Brody, Alon, Yahav, `How Attentive are Graph Attention Networks?
    <https://arxiv.org/abs/2105.14491>`_ (ICLR 2022).

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GATv2Conv
        >>> from gasmcast.nn import FusedGATv2Conv
        >>> theirs, ours = GATv2Conv(16, 8, heads=4), FusedGATv2Conv(16, 8, heads=4)
        >>> ours.load_state_dict(theirs.state_dict())
        <All keys matched successfully>
        >>> x, edge_index = torch.randn(5, 16), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> torch.allclose(ours(x, edge_index), theirs(x, edge_index), atol=1e-6)
        True
    """

    # PyG's layer, once made, has generated code in place of these. Taken over, it would be what
    # explainers fall back to, and they could not mask messages.
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | SparseTensor,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ):
        """Attend; see the class for equation and shapes.

        Args:
            x: Nodes, or sources and targets.
            edge_index: The edges.
            edge_attr: Their features.
            return_attention_weights: Also return the edges, self-loops included, and their
                attention.
        """
        if not self._is_covered(x, edge_index, edge_attr):
            return super().forward(x, edge_index, edge_attr, return_attention_weights)
        x_source, x_target = (x, x) if isinstance(x, Tensor) else x
        residual = None if self.res is None else self.res(x_target)
        x_l = self.lin_l(x_source).unflatten(1, (self.heads, self.out_channels))
        x_r = x_l
        if not (isinstance(x, Tensor) and self.share_weights):
            x_r = self.lin_r(x_target).unflatten(1, (self.heads, self.out_channels))
        dtype = torch.promote_types(x_l.dtype, x_r.dtype)
        x_l, x_r = x_l.to(dtype), x_r.to(dtype)

        edge_index, edge_attr, order = self._edges(edge_index, edge_attr, len(x_l), len(x_r))
        edge_weight = None
        if edge_attr is not None:
            edge_attr = edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr
            if edge_attr.size(1) <= MAX_EDGE_FEATURES and _only_multiplies(
                self.lin_edge, edge_attr
            ):
                edge_weight = self.lin_edge.weight
            else:
                edge_attr = self.lin_edge(edge_attr).reshape(-1, self.heads * self.out_channels)
                edge_attr = edge_attr.expand(order.num_edges, -1)
        keep = None
        if self.training and self.dropout > 0:
            # Drawn as PyG draws it: the same seed drops the same edges.
            ones = x_l.new_ones(order.num_edges, self.heads).to(self.att.dtype)
            keep = F.dropout(ones, self.dropout)
        bias = self.bias
        if bias is not None and self.concat:
            bias = bias.view(self.heads, self.out_channels)
        out, alpha = messages(
            x_l,
            x_r,
            self.att.squeeze(0),
            edge_attr,
            edge_weight,
            keep,
            bias if self.concat else None,
            order,
            self.negative_slope,
            bool(return_attention_weights),
            gatv2_backend(x_l.device),
        )
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if residual is not None:
            out = out + residual
        if bias is not None and not self.concat:
            out = out + bias
        if not return_attention_weights:
            return out
        alpha = (alpha if keep is None else alpha * keep).to(out.dtype)
        if isinstance(edge_index, Tensor):
            # Edges with self-loops are remembered: the caller gets a copy, to change as they like.
            return out, (edge_index.clone() if self.add_self_loops else edge_index, alpha)
        return out, edge_index.set_value(alpha, layout="coo")

    def _edges(
        self,
        edge_index: Tensor | SparseTensor,
        edge_attr: Tensor | None,
        sources: int,
        targets: int,
    ) -> tuple[Tensor | SparseTensor, Tensor | None, EdgeOrder]:
        """The edges with their self-loops, their features, and the order to walk them in."""
        if isinstance(edge_index, Tensor):
            if self.add_self_loops:
                edge_index, edge_attr = with_self_loops(
                    edge_index, edge_attr, self.fill_value, min(sources, targets)
                )
            return edge_index, edge_attr, edge_order(edge_index, sources, targets)
        if self.add_self_loops:
            edge_index = torch_sparse.set_diag(edge_index)
        ptr, source, _ = edge_index.csr()
        edge_attr = _features(edge_index) if edge_attr is None else edge_attr
        return edge_index, edge_attr, EdgeOrder(ptr, source, None, sources)

    def _is_covered(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | SparseTensor,
        edge_attr: Tensor | None,
    ) -> bool:
        nodes = (x,) if isinstance(x, Tensor) else x
        if not all(isinstance(ends, Tensor) and ends.dim() == 2 for ends in nodes):
            return False
        if isinstance(edge_index, SparseTensor):
            if self.add_self_loops and self.edge_dim is not None:
                return False
            edge_attr = _features(edge_index) if edge_attr is None else edge_attr
        tensors = [*nodes, self.att] + ([] if edge_attr is None else [edge_attr])
        return (
            self._is_plain_layer()
            and _is_covered_graph(edge_index, nodes)
            and (edge_attr is None or self._is_covered_attr(edge_attr, edge_index))
            and all(tensor.dtype in _DTYPES for tensor in tensors)
            and all(tensor.device == nodes[0].device for tensor in tensors)
            and nodes[0].device.type in ("cpu", "cuda")
            and not torch.compiler.is_exporting()
            and not torch.jit.is_tracing()
            and not torch._C._are_functorch_transforms_active()
            and torch.autograd.forward_ad._current_level < 0
        )

    def _is_covered_attr(self, edge_attr: Tensor, edge_index: Tensor | SparseTensor) -> bool:
        """Whether there is one row of features for each edge; PyG may stretch one over all."""
        edges = edge_index.size(1) if isinstance(edge_index, Tensor) else edge_index.nnz()
        return (
            self.lin_edge is not None and edge_attr.dim() in (1, 2) and edge_attr.size(0) == edges
        )

    def _is_plain_layer(self) -> bool:
        """Whether messages are made and summed as the kernels do, with nobody looking on."""
        return (
            isinstance(self.aggr_module, SumAggregation)
            and self.flow == "source_to_target"
            and self.decomposed_layers == 1
            and not self.explain
            and all(getattr(type(self), step) is getattr(GATv2Conv, step) for step in _STEPS)
            and not any(step in vars(self) for step in _STEPS)
            and not any(getattr(self, hooks) for hooks in _STEP_HOOKS)
        )


def _features(adjacency: SparseTensor) -> Tensor | None:
    """The values of an adjacency as edge features; as PyG has it, numbers are weights and none."""
    value = adjacency.storage.value()
    return None if value is None or value.dim() == 1 else value


def _only_multiplies(linear: torch.nn.Module, rows: Tensor) -> bool:
    """Whether a linear layer does nothing but multiply these rows with its weight."""
    return (
        is_plain(linear, Linear)
        and linear.bias is None
        and rows.size(1) == linear.weight.size(1)
        and (rows.dtype == linear.weight.dtype or torch.is_autocast_enabled(rows.device.type))
    )


def _is_covered_graph(edge_index: Tensor | SparseTensor, nodes: tuple[Tensor, ...]) -> bool:
    """Whether these are edges in a form that the kernels take; PyG says what others lack."""
    if isinstance(edge_index, SparseTensor):
        return edge_index.sizes()[:2] == [len(nodes[-1]), len(nodes[0])]
    if not isinstance(edge_index, Tensor) or is_torch_sparse_tensor(edge_index):
        return False
    if isinstance(edge_index, EdgeIndex):
        rows, columns = edge_index.sparse_size()
        if rows not in (None, len(nodes[0])) or columns not in (None, len(nodes[-1])):
            return False
    integer = not (edge_index.is_floating_point() or edge_index.is_complex())
    return (
        integer
        and edge_index.dtype is not torch.bool
        and edge_index.dim() == 2
        and len(edge_index) == 2
        and edge_index.device == nodes[0].device
    )
