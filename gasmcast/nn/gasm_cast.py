"""GASM-CAST: graph attention in each stream, then three layers of fusion."""

from copy import deepcopy
from functools import partial
from typing import Any, Literal, NamedTuple, Self

from torch import Tensor, nn
from torch_geometric.data import Batch

from gasmcast.nn.cross_attention import (
    BottleneckCrossAttention,
    CrossAttention,
    CrossAttentionWeights,
)
from gasmcast.nn.graph_attention import MotionGraphAttention, SemanticGraphAttention
from gasmcast.nn.pooled_fusion import FrozenMaps, MergedMaps, fuse_and_pool, merge_maps


class GASMCASTAttention(NamedTuple):
    """Every attention weight of one forward pass.

    Attributes:
        semantic_graph: The spatial graphs, with ``attention`` [E, H] in the order of their edges.
        motion_graph: The temporal graphs, likewise.
        basic: Cross-attention of ``layer1_basic``; None in late fusion, which has no such layers.
        pattern: Cross-attention of ``layer2_pattern``, likewise.
        action: Cross-attention of ``layer3_action``, likewise.
    """

    semantic_graph: Batch
    motion_graph: Batch
    basic: CrossAttentionWeights | None = None
    pattern: CrossAttentionWeights | None = None
    action: CrossAttentionWeights | None = None


class GASMCAST(nn.Module):
    """Graph-Aware Semantic-Motion Cross-Attention with Temporal Structure.

    Each stream is refined by graph attention over its own graph; then three bottleneck
    cross-attention layers let the streams inform each other: basic correspondences (a hand's
    patches and a contact), patterns (shapes and trajectories), the action as a whole.

    Args:
        sem_dim: Width of the semantic stream.
        mot_dim: Width of the motion stream.
        fusion: What the three layers are: ``"bottleneck"``
            (:class:`~gasmcast.nn.BottleneckCrossAttention`), ``"cross_attention"``
            (:class:`~gasmcast.nn.CrossAttention`, at full width), or ``"late"``: there are none,
            and the streams meet in what comes after.
        bottleneck_dim: Width of the bottleneck, where there is one.
        num_heads: Heads H of graph and cross-attention.
        similarity_threshold: Cosine similarity that connects two nodes of a graph.
        adjacency_window: Segments at most so far apart are adjacent.
        max_similar: At most so many edges a node receives through similarity alone.
        dropout: Probability of dropping a graph attention weight in training.
        drop_path: Probability of skipping a fusion layer, where there are any, for a clip in
            training.

    Shapes:
        - **raw_semantic:** [B, P, sem_dim], **spatial_pos:** [P, 2] or [B, P, 2]
        - **raw_motion:** [B, S, mot_dim], **temporal_pos:** [S, 1] or [B, S, 1]
        - **semantic_mask:** [B, P], **motion_mask:** [B, S], True where a token exists
        - **output:** semantic [B, P, sem_dim] and motion [B, S, mot_dim]; with ``pooled`` their
          means over the tokens that exist, [B, sem_dim] and [B, mot_dim], without making these
          tokens where that is possible (:func:`~gasmcast.nn.fuse_and_pool`); with
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
        fusion: Literal["bottleneck", "cross_attention", "late"] = "bottleneck",
        bottleneck_dim: int = 256,
        num_heads: int = 8,
        similarity_threshold: float = 0.8,
        adjacency_window: float = 2,
        max_similar: int | None = 16,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        check_fusion(fusion)
        graph = {
            "similarity_threshold": similarity_threshold,
            "max_similar": max_similar,
            "dropout": dropout,
        }
        self.semantic_graph = SemanticGraphAttention(sem_dim, num_heads, **graph)
        self.motion_graph = MotionGraphAttention(
            mot_dim, num_heads, adjacency_window=adjacency_window, **graph
        )
        self.merged: nn.ModuleList | None = None
        if fusion == "bottleneck":
            layer = partial(BottleneckCrossAttention, sem_dim, mot_dim, bottleneck_dim)
        elif fusion == "cross_attention":
            layer = partial(CrossAttention, sem_dim, mot_dim)
        else:
            return
        self.layer1_basic, self.layer2_pattern, self.layer3_action = (
            layer(num_heads=num_heads, drop_path=drop_path) for _ in range(3)
        )

    @property
    def fusion_layers(self) -> list[nn.Module]:
        """The three layers in their order, or none."""
        names = ("layer1_basic", "layer2_pattern", "layer3_action")
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def fuse_for_inference(self) -> Self:
        """A frozen copy in ``eval()`` mode that has fewer products to compute when ``pooled``.

        Linear maps that follow each other (one layer's expansion, a later layer's compression) are
        multiplied once for all: see :func:`~gasmcast.nn.merge_maps`. The same results up to
        rounding. Maps that cannot be merged, and layers that have none, stay as they are. The copy
        goes back to its layers once other weights are loaded into it or a parameter of it requires
        a gradient; it does not notice weights that are changed in place, or loaded into one of its
        layers alone.
        """
        fused = deepcopy(self).eval().requires_grad_(False)
        maps = merge_maps(fused.fusion_layers)
        fused.merged = nn.ModuleList(nn.Identity() if m is None else FrozenMaps(m) for m in maps)
        return fused

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.merged = None  # of the weights that were
        super()._load_from_state_dict(*args, **kwargs)

    def _merged(self) -> tuple[MergedMaps | None, ...] | None:
        """Maps merged for inference, as long as nothing can have changed what they are made of."""
        if self.merged is None or any(p.requires_grad for p in self.parameters()):
            return None
        return tuple(maps() if isinstance(maps, FrozenMaps) else None for maps in self.merged)

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
        pooled: bool = False,
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, GASMCASTAttention]:
        """Refine and fuse; see the class for shapes."""
        # Position encodings and graphs live where the features do.
        places = {
            "semantic_positions": spatial_pos.to(raw_semantic.device),
            "motion_positions": temporal_pos.to(raw_motion.device),
            "semantic_mask": semantic_mask,
            "motion_mask": motion_mask,
        }
        semantic = self.semantic_graph(
            raw_semantic,
            places["semantic_positions"],
            semantic_mask,
            return_attention=return_attention,
        )
        motion = self.motion_graph(
            raw_motion, places["motion_positions"], motion_mask, return_attention=return_attention
        )
        maps: list = []
        if return_attention:
            semantic, semantic_graph = semantic
            motion, motion_graph = motion
            maps += [semantic_graph, motion_graph]
        places["return_attention"] = return_attention
        if pooled:
            semantic, motion, weights = fuse_and_pool(
                self.fusion_layers, semantic, motion, **places, merged=self._merged()
            )
            maps += weights
        else:
            for layer in self.fusion_layers:
                semantic, motion, *weights = layer(semantic, motion, **places)
                maps += weights
        if return_attention:
            return semantic, motion, GASMCASTAttention(*maps)
        return semantic, motion


def check_fusion(fusion: str) -> None:
    """Raise for what is no kind of fusion."""
    if fusion not in ("bottleneck", "cross_attention", "late"):
        raise ValueError(
            f'fusion must be "bottleneck", "cross_attention" or "late", got {fusion!r}'
        )
