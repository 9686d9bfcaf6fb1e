"""GASM-CAST: graph attention in each stream, then three layers of fusion."""

from typing import NamedTuple

from torch import Tensor, nn
from torch_geometric.data import Batch

from gasmcast.nn.cross_attention import BottleneckCrossAttention, CrossAttentionWeights
from gasmcast.nn.graph_attention import MotionGraphAttention, SemanticGraphAttention


class GASMCASTAttention(NamedTuple):
    """Every attention weight of one forward pass.

    Attributes:
        semantic_graph: The spatial graphs, with ``attention`` [E, H] in the order of their edges.
        motion_graph: The temporal graphs, likewise.
        basic: Cross-attention of ``layer1_basic``.
        pattern: Cross-attention of ``layer2_pattern``.
        action: Cross-attention of ``layer3_action``.
    """

    semantic_graph: Batch
    motion_graph: Batch
    basic: CrossAttentionWeights
    pattern: CrossAttentionWeights
    action: CrossAttentionWeights


class GASMCAST(nn.Module):
    """Graph-Aware Semantic-Motion Cross-Attention with Temporal Structure.

    Each stream is refined by graph attention over its own graph; then three bottleneck
    cross-attention layers let the streams inform each other: basic correspondences (a hand's
    patches and a contact), patterns (shapes and trajectories), the action as a whole.

    Args:
        sem_dim: Width of the semantic stream.
        mot_dim: Width of the motion stream.
        bottleneck_dim: Width of the cross-attention.
        num_heads: Heads H of graph and cross-attention.
        similarity_threshold: Cosine similarity that ties two nodes of a graph.
        adjacency_window: Segments at most so far apart are adjacent.
        max_similar: At most so many edges a node receives through similarity alone.
        dropout: Probability of dropping a graph attention weight in training.
        drop_path: Probability of skipping a fusion layer for a clip in training.

    Shapes:
        - **raw_semantic:** [B, P, sem_dim], **spatial_pos:** [P, 2] or [B, P, 2]
        - **raw_motion:** [B, S, mot_dim], **temporal_pos:** [S, 1] or [B, S, 1]
        - **semantic_mask:** [B, P], **motion_mask:** [B, S], True where a token exists
        - **output:** semantic [B, P, sem_dim] and motion [B, S, mot_dim]; with
          ``return_attention`` also a :class:`GASMCASTAttention`

    Raises:
        ValueError: Shapes that do not fit, NaN features, heads that do not divide a width.

    Example:
        >>> import torch
        >>> from gasmcast import GASMCAST, generate_spatial_positions, generate_temporal_positions
        >>> fuse = GASMCAST()
        >>> semantic, motion = fuse(
        ...     torch.randn(2, 196, 768), torch.randn(2, 8, 512),
        ...     generate_spatial_positions(), generate_temporal_positions(),
        ... )
        >>> semantic.shape, motion.shape
        (torch.Size([2, 196, 768]), torch.Size([2, 8, 512]))
    """

    def __init__(
        self,
        sem_dim: int = 768,
        mot_dim: int = 512,
        *,
        bottleneck_dim: int = 256,
        num_heads: int = 8,
        similarity_threshold: float = 0.8,
        adjacency_window: float = 2,
        max_similar: int | None = 16,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        graph = {
            "similarity_threshold": similarity_threshold,
            "max_similar": max_similar,
            "dropout": dropout,
        }
        self.semantic_graph = SemanticGraphAttention(sem_dim, num_heads, **graph)
        self.motion_graph = MotionGraphAttention(
            mot_dim, num_heads, adjacency_window=adjacency_window, **graph
        )
        self.layer1_basic, self.layer2_pattern, self.layer3_action = (
            BottleneckCrossAttention(
                sem_dim, mot_dim, bottleneck_dim, num_heads, drop_path=drop_path
            )
            for _ in range(3)
        )

    def forward(
        self,
        raw_semantic: Tensor,
        raw_motion: Tensor,
        spatial_pos: Tensor,
        temporal_pos: Tensor,
        *,
        semantic_mask: Tensor | None = None,
        motion_mask: Tensor | None = None,
        return_attention: bool = False,
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, GASMCASTAttention]:
        """Refine and fuse; see the class for shapes."""
        # Position encodings and graphs live where the features do.
        spatial_pos = spatial_pos.to(raw_semantic.device)
        temporal_pos = temporal_pos.to(raw_motion.device)
        semantic = self.semantic_graph(
            raw_semantic, spatial_pos, semantic_mask, return_attention=return_attention
        )
        motion = self.motion_graph(
            raw_motion, temporal_pos, motion_mask, return_attention=return_attention
        )
        maps: list = []
        if return_attention:
            semantic, semantic_graph = semantic
            motion, motion_graph = motion
            maps += [semantic_graph, motion_graph]
        for layer in (self.layer1_basic, self.layer2_pattern, self.layer3_action):
            semantic, motion, *weights = layer(
                semantic,
                motion,
                spatial_pos,
                temporal_pos,
                semantic_mask=semantic_mask,
                motion_mask=motion_mask,
                return_attention=return_attention,
            )
            maps += weights
        if return_attention:
            return semantic, motion, GASMCASTAttention(*maps)
        return semantic, motion
