"""Graph attention within one stream: patches refine patches, segments refine segments."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_batch

from gasmcast.graphs import build_spatial_graph, build_temporal_graph
from gasmcast.nn.gatv2 import FusedGATv2Conv

INITIAL_SCALE = 0.1
"""Of LayerScale. Chosen in trials, where 1 (none), 0.3 and 0.01 came to less on validation clips;
docs/study.md says how far that holds on held-out ones."""


class GraphAttentionLayer(nn.Module):
    r"""One pre-norm residual layer of GATv2 graph attention with LayerScale.

    .. math::
        x_i' &= x_i + \gamma \odot \Big( \big\Vert_{h=1}^{H} \sum_{j \in \mathcal{N}(i)}
        \alpha^h_{ij} W_s^h \hat{x}_j + b \Big), \qquad \hat{x} = \mathrm{LayerNorm}(x) \\
        \alpha^h_{ij} &= \mathrm{softmax}_j \; a^{h\top} \mathrm{LeakyReLU}\!\left(
        W_s^h \hat{x}_j + W_t^h \hat{x}_i + W_e^h e_{ij}\right)

    :math:`\gamma`, one learned number a channel (``scale``), starts at 0.1: at initialisation the
    residual update is a tenth of what attention gives, so that features of pretrained extractors
    reach the fusion nearly as they are.

    Self-loops are the graph's own: the layer adds none, so the attention belongs to the edges that
    were handed in, in their order.

    Args:
        input_dim: Width D of the nodes, in and out.
        num_heads: Heads H, each D / H wide.
        edge_dim: Width F of ``edge_attr``; None: edges have no features.
        dropout: Probability of dropping an attention weight in training.

    Shapes:
        - **x:** [N, D]
        - **edge_index:** [2, E], source and target
        - **edge_attr:** [E, F]
        - **output:** [N, D], and with ``return_attention`` the weights [E, H]. They sum to 1 over
          the incoming edges of a node in ``eval()``; in training they are after dropout.

    Raises:
        ValueError: ``num_heads`` does not divide ``input_dim``.

    Source: Brody, Alon, Yahav, `How Attentive are Graph Attention Networks?
    <https://arxiv.org/abs/2105.14491>`_ (ICLR 2022), by :class:`~gasmcast.nn.FusedGATv2Conv`;
    LayerScale: Touvron et al., `Going deeper with Image Transformers
    <https://arxiv.org/abs/2103.17239>`_ (ICCV 2021).
    """

    def __init__(
        self,
        input_dim: int,
        num_heads: int,
        *,
        edge_dim: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        if num_heads < 1 or input_dim % num_heads:
            raise ValueError(
                f"num_heads must divide input_dim, got num_heads={num_heads} and "
                f"input_dim={input_dim}"
            )
        self.norm = nn.LayerNorm(input_dim)
        self.attention = FusedGATv2Conv(
            input_dim,
            input_dim // num_heads,
            heads=num_heads,
            edge_dim=edge_dim,
            dropout=dropout,
            add_self_loops=False,
        )
        self.scale = nn.Parameter(torch.full((input_dim,), INITIAL_SCALE))

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        *,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Refine the nodes by their neighbours; see the class for equation and shapes."""
        normed = self.norm(x)
        if not return_attention:
            return x + self.scale * self.attention(normed, edge_index, edge_attr)
        update, (_, weights) = self.attention(
            normed, edge_index, edge_attr, return_attention_weights=True
        )
        return x + self.scale * update, weights


class _StreamGraphAttention(nn.Module):
    """Dense features to graphs, one graph attention layer, and back to dense."""

    def __init__(
        self,
        input_dim: int,
        num_heads: int,
        position_dim: int,
        build_graph: Callable[..., Batch],
        dropout: float,
    ):
        super().__init__()
        self.build_graph = build_graph
        # edge_attr: displacement, distance, similarity
        self.edge_dim = position_dim + 2
        self.graph_attention = GraphAttentionLayer(
            input_dim, num_heads, edge_dim=self.edge_dim, dropout=dropout
        )

    def forward(
        self,
        features: Tensor | Batch,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        return_attention: bool = False,
    ) -> Tensor | tuple:
        """Refine each node by its graph; see the class for shapes."""
        if isinstance(features, Batch):
            return self._forward_batch(features, return_attention)
        if not isinstance(features, Tensor) or features.dim() != 3:
            raise ValueError(
                "features must be [B, N, D] or a PyG Batch, got "
                f"{list(features.shape) if isinstance(features, Tensor) else features}"
            )
        if positions is None:
            raise ValueError("dense features need positions, got None")
        graph = self.build_graph(positions, features=features, mask=mask)
        x, graph = self._attend(graph, return_attention)
        if mask is None:
            dense = x.view(features.shape)
        else:
            dense = x.new_zeros(features.shape)
            dense[mask] = x
        return (dense, graph) if return_attention else dense

    def _forward_batch(self, graph: Batch, return_attention: bool) -> tuple:
        attr = graph.get("edge_attr")
        if graph.get("x") is None or attr is None or attr.shape[1:] != (self.edge_dim,):
            raise ValueError(
                f"a prepared Batch must hold x [N, D] and edge_attr [E, {self.edge_dim}] "
                f"(displacement, distance, similarity), got {graph}"
            )
        x, graph = self._attend(graph, return_attention)
        nodes = graph.batch.bincount(minlength=graph.num_graphs)
        # Sizes are handed in: to_dense_batch would forget trailing empty graphs.
        dense, mask = to_dense_batch(
            x,
            graph.batch,
            max_num_nodes=int(nodes.max()) if len(nodes) else 0,
            batch_size=len(nodes),
        )
        return (dense, mask, graph) if return_attention else (dense, mask)

    def _attend(self, graph: Batch, return_attention: bool) -> tuple[Tensor, Batch]:
        if not return_attention:
            return self.graph_attention(graph.x, graph.edge_index, graph.edge_attr), graph
        x, weights = self.graph_attention(
            graph.x, graph.edge_index, graph.edge_attr, return_attention=True
        )
        graph = graph.clone()
        graph.attention = weights
        # A clone shares these dictionaries with the caller's batch.
        slices, increments = graph._slice_dict, graph._inc_dict
        graph._slice_dict = slices | {"attention": slices["edge_attr"]}
        graph._inc_dict = increments | {"attention": increments["edge_attr"]}
        return x, graph


class SemanticGraphAttention(_StreamGraphAttention):
    """Graph attention over the patches of each clip.

    Builds the spatial graph of each clip (adjacent or similar patches, see
    :func:`~gasmcast.build_spatial_graph`) and refines every patch by its neighbours with one
    :class:`GraphAttentionLayer`.

    Args:
        input_dim: Width D of the patches.
        num_heads: Heads H.
        similarity_threshold: Cosine similarity that connects two patches.
        max_similar: At most so many edges a patch receives through similarity alone, the most
            similar first; None: no cap. The cap bounds memory where all patches look alike.
        radius: Chebyshev distance of adjacent patches, in patch units.
        dropout: Probability of dropping an attention weight in training.

    Shapes:
        - **dense:** features [B, P, D], positions [P, 2] or [B, P, 2], optionally a mask [B, P],
          True where a patch exists; output [B, P, D], zero where none does.
        - **prepared:** a PyG ``Batch`` of the builder; output [B, max P, D] and its mask.
        - ``return_attention=True`` appends the ``Batch`` of graphs with ``attention`` [E, H].

    Raises:
        ValueError: Shapes that do not fit, NaN features, ``num_heads`` that does not divide
            ``input_dim``.
    """

    def __init__(
        self,
        input_dim: int = 768,
        num_heads: int = 8,
        *,
        similarity_threshold: float = 0.8,
        max_similar: int | None = 16,
        radius: float = 1.0,
        dropout: float = 0.0,
    ):
        build_graph = partial(
            build_spatial_graph,
            similarity_threshold=similarity_threshold,
            max_similar=max_similar,
            radius=radius,
        )
        super().__init__(input_dim, num_heads, 2, build_graph, dropout)


class MotionGraphAttention(_StreamGraphAttention):
    """Graph attention over the segments of each clip.

    Builds the temporal graph of each clip (near or similarly moving segments, see
    :func:`~gasmcast.build_temporal_graph`) and refines every segment by its neighbours with one
    :class:`GraphAttentionLayer`.

    Args:
        input_dim: Width D of the segments.
        num_heads: Heads H.
        adjacency_window: Segments at most so far apart are adjacent.
        similarity_threshold: Cosine similarity that connects two segments.
        max_similar: As for :class:`SemanticGraphAttention`.
        dropout: Probability of dropping an attention weight in training.

    Shapes:
        As for :class:`SemanticGraphAttention`, with features [B, S, D] and positions [S, 1].

    Raises:
        ValueError: As for :class:`SemanticGraphAttention`.
    """

    def __init__(
        self,
        input_dim: int = 512,
        num_heads: int = 8,
        *,
        adjacency_window: float = 2,
        similarity_threshold: float = 0.8,
        max_similar: int | None = 16,
        dropout: float = 0.0,
    ):
        build_graph = partial(
            build_temporal_graph,
            adjacency_window=adjacency_window,
            similarity_threshold=similarity_threshold,
            max_similar=max_similar,
        )
        super().__init__(input_dim, num_heads, 1, build_graph, dropout)
