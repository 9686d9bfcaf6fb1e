"""Features and positions to ``Data`` or ``Batch``: the spatial and the temporal graph."""

import math

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_dense_batch

from gasmcast.graphs.rules import EdgeRule, adjacent, cosine_similarity, keep_most_similar


def build_spatial_graph(
    positions: Tensor,
    similarity_threshold: float = 0.8,
    *,
    features: Tensor | None = None,
    batch: Tensor | None = None,
    mask: Tensor | None = None,
    radius: float = 1.0,
    max_neighbors: int | None = None,
) -> Data | Batch:
    r"""Graph of the patches of an image: edges between adjacent or similar patches.

    .. math::
        (j, i) \in \mathcal{E} \iff
        \lVert p_i - p_j \rVert_\infty \le r
        \;\lor\; \cos(x_i, x_j) \ge \tau

    Both bounds are inclusive, up to rounding: the similarity of equal vectors can come out a
    millionth below 1. Every node has exactly one self-loop. Without ``features`` only the
    first condition applies.

    Args:
        positions: Where the patches lie, in patch units (as
            :func:`~gasmcast.generate_spatial_positions` gives them): [N, 2], the same for all
            clips; or [B, N, 2]; or [sum N, 2] with ``batch``.
        similarity_threshold: The cosine similarity :math:`\tau` from which two patches are tied
            however far apart they are. Above 1: never.
        features: What the patches look like: [N, D] for one image; [B, N, D] for a batch; or
            [sum N, D] with ``batch`` for images of different sizes.
        batch: The clip of each node, [sum N], sorted: ragged input.
        mask: True where a node of [B, N, D] exists, [B, N]: padded input. The graphs hold the
            existing nodes only.
        radius: The Chebyshev distance :math:`r` within which patches are adjacent, in patch units;
            1 is the 8 neighbours.
        max_neighbors: At most so many edges a patch receives through similarity alone, the most
            similar first, ties to the smaller index. Adjacent patches do not count. Such a graph
            need not be symmetric. None: no cap.

    Returns:
        ``Data`` for features [N, D], or for positions [N, 2] alone; else a ``Batch`` with one
        graph a clip. Its attributes:

        - ``edge_index`` [2, E]: source and target, sorted by target, then source, no duplicates;
        - ``edge_attr`` [E, F]: one column a coordinate with the displacement
          :math:`p_j - p_i` from target to source, then the Euclidean distance, then, with
          features, the cosine similarity (1 on self-loops);
        - ``edge_rule`` [E], uint8: bits of :class:`~gasmcast.graphs.EdgeRule`;
        - ``pos`` [N, 2] and, with features, ``x`` [N, D].

    Raises:
        ValueError: Shapes that do not fit each other, an unsorted ``batch``, a NaN or infinite
            feature or position (the message names clip and node).

    Example:
        >>> from gasmcast import build_spatial_graph, generate_spatial_positions
        >>> graph = build_spatial_graph(generate_spatial_positions(3))
        >>> graph
        Data(edge_index=[2, 49], edge_attr=[49, 3], pos=[9, 2], edge_rule=[49])
        >>> graph.edge_index[0, graph.edge_index[1] == 0].tolist()  # who sends to patch 0
        [0, 1, 3, 4]
    """
    return _build(positions, features, batch, mask, radius, similarity_threshold, max_neighbors)


def build_temporal_graph(
    positions: Tensor,
    adjacency_window: float = 2,
    *,
    features: Tensor | None = None,
    similarity_threshold: float = 0.8,
    batch: Tensor | None = None,
    mask: Tensor | None = None,
    max_neighbors: int | None = None,
) -> Data | Batch:
    r"""Graph of the segments of a clip: edges between near or similarly moving segments.

    .. math::
        (j, i) \in \mathcal{E} \iff |t_i - t_j| \le w \;\lor\; \cos(x_i, x_j) \ge \tau

    Args:
        positions: When the segments are, in segments (as
            :func:`~gasmcast.generate_temporal_positions` gives them): [N, 1], [B, N, 1], or
            [sum N, 1] with ``batch``.
        adjacency_window: The window :math:`w`, inclusive; 2 ties each segment to two on each side.
        features: How the segments move, shapes as for :func:`build_spatial_graph`.
        similarity_threshold: As for :func:`build_spatial_graph`.
        batch: As for :func:`build_spatial_graph`.
        mask: As for :func:`build_spatial_graph`.
        max_neighbors: As for :func:`build_spatial_graph`.

    Returns:
        As for :func:`build_spatial_graph`, with ``pos`` [N, 1] and one displacement column.

    Raises:
        ValueError: As for :func:`build_spatial_graph`.

    Example:
        >>> from gasmcast import build_temporal_graph, generate_temporal_positions
        >>> graph = build_temporal_graph(generate_temporal_positions(), adjacency_window=1)
        >>> graph.edge_index[0, graph.edge_index[1] == 3].tolist()
        [2, 3, 4]
    """
    if isinstance(positions, Tensor) and positions.dim() > 1 and positions.size(-1) != 1:
        raise ValueError(f"temporal positions must be [N, 1] or [B, N, 1], got {_shape(positions)}")
    return _build(
        positions, features, batch, mask, adjacency_window, similarity_threshold, max_neighbors
    )


@torch.compiler.disable  # a Batch cannot be made inside a compiled graph
def _build(
    positions: Tensor,
    features: Tensor | None,
    batch: Tensor | None,
    mask: Tensor | None,
    radius: float,
    similarity_threshold: float,
    max_neighbors: int | None,
) -> Data | Batch:
    """The one engine under both builders: pad, decide over all pairs, read off the edges."""
    if max_neighbors is not None and max_neighbors < 0:
        raise ValueError(f"max_neighbors must be at least 0 or None, got {max_neighbors}")
    if isinstance(similarity_threshold, Tensor) and similarity_threshold.numel() != 1:
        raise ValueError(
            f"similarity_threshold must be a number, got {_shape(similarity_threshold)}: features "
            "are given by name, features=..."
        )
    if math.isnan(similarity_threshold):
        raise ValueError("similarity_threshold must be a number, got nan")
    if not radius >= 0:
        raise ValueError(f"the distance of adjacent nodes must be at least 0, got {radius}")
    _check_shapes(positions, features, batch, mask)
    single = batch is None and positions.dim() == 2 and (features is None or features.dim() == 2)
    pos, x, present = _pad(positions, features, batch, mask)
    _check_finite("positions", pos, present)
    if x is not None:
        _check_finite("features", x, present)

    near = adjacent(pos, radius)
    rule = near.to(torch.uint8) * EdgeRule.ADJACENT
    similarity = None
    if x is not None:
        similarity = cosine_similarity(x)
        similar = similarity >= similarity_threshold
        if max_neighbors is not None:
            far = similar & ~near & present.unsqueeze(1)
            similar = (similar & near) | keep_most_similar(far, similarity, max_neighbors)
        rule += similar * EdgeRule.SIMILAR
    rule.diagonal(dim1=1, dim2=2).fill_(EdgeRule.SELF_LOOP)
    if not present.all():
        rule *= present.unsqueeze(1) & present.unsqueeze(2)

    # Row-major order of (clip, target, source) is the promised order of the edges.
    clip, target, source = rule.nonzero(as_tuple=True)
    displacement = pos[clip, source] - pos[clip, target]
    columns = [displacement, displacement.norm(dim=-1, keepdim=True)]
    if similarity is not None:
        columns.append(similarity[clip, target, source].unsqueeze(-1))
    dtype = pos.dtype if x is None else x.dtype
    number = present.flatten().cumsum(0).sub(1).view_as(present)  # of the node, over all clips
    graph = {
        "x": None if x is None else x[present],
        "edge_index": torch.stack([number[clip, source], number[clip, target]]),
        "edge_attr": torch.cat([column.to(dtype) for column in columns], dim=-1),
        "pos": pos[present],
        "edge_rule": rule[clip, target, source],
    }
    if single:
        return Data(**graph)
    return _batch(graph, nodes=present.sum(dim=1), edges=clip.bincount(minlength=len(present)))


def _batch(graph: dict[str, Tensor | None], nodes: Tensor, edges: Tensor) -> Batch:
    """A ``Batch`` as ``Batch.from_data_list`` would make it, without taking the clips apart."""
    ptr = torch.nn.functional.pad(nodes.cumsum(0), (1, 0))
    edge_ptr = torch.nn.functional.pad(edges.cumsum(0), (1, 0))
    graph = {name: value for name, value in graph.items() if value is not None}
    batch = Batch(
        **graph,
        batch=torch.repeat_interleave(nodes),
        ptr=ptr,
    )
    batch._num_graphs = len(nodes)
    # What to_data_list() takes the batch apart by.
    no_increment = torch.zeros_like(nodes)
    batch._slice_dict = {name: edge_ptr if "edge" in name else ptr for name in graph}
    batch._inc_dict = dict.fromkeys(graph, no_increment) | {"edge_index": ptr[:-1]}
    return batch


def _pad(
    positions: Tensor, features: Tensor | None, batch: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Any allowed input as pos [B, N, d], x [B, N, D] or None, and present [B, N]."""
    if batch is not None:
        if features is not None:
            positions, batch = positions.to(features.device), batch.to(features.device)
        # Sizes are handed in: to_dense_batch cannot find them where no node is.
        nodes = batch.bincount()
        sizes = {"batch_size": len(nodes), "max_num_nodes": int(nodes.max()) if len(nodes) else 0}
        pos, present = to_dense_batch(positions, batch, **sizes)
        x = None if features is None else to_dense_batch(features, batch, **sizes)[0]
        return pos, x, present
    pos = positions if positions.dim() == 3 else positions.unsqueeze(0)
    x = features
    if x is not None:
        x = x if x.dim() == 3 else x.unsqueeze(0)
        pos = pos.to(x.device).expand(x.size(0), -1, -1)
    present = mask
    if present is None:
        present = torch.ones(pos.shape[:2], dtype=torch.bool, device=pos.device)
    return pos.expand(present.size(0), -1, -1), x, present


def _check_shapes(
    positions: Tensor, features: Tensor | None, batch: Tensor | None, mask: Tensor | None
) -> None:
    for name, value in (("positions", positions), ("features", features)):
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if not positions.is_floating_point() or positions.dim() not in (2, 3):
        raise ValueError(f"positions must be float [N, d] or [B, N, d], got {_shape(positions)}")
    if features is not None and (not features.is_floating_point() or features.dim() not in (2, 3)):
        raise ValueError(f"features must be float [N, D] or [B, N, D], got {_shape(features)}")
    if batch is not None:
        if mask is not None:
            raise ValueError("give batch (ragged input) or mask (padded input), not both")
        for name, value in (("positions", positions), ("features", features)):
            if value is not None and (value.dim() != 2 or len(value) != len(batch)):
                raise ValueError(
                    f"with batch [{len(batch)}], {name} must be [{len(batch)}, ...] with one row "
                    f"a node, got {_shape(value)}"
                )
        if batch.dim() != 1 or batch.dtype != torch.long:
            raise ValueError(f"batch must be int64 [sum N], got {_shape(batch)}")
        if (batch.diff() < 0).any() or (batch[:1] < 0).any():
            raise ValueError(
                "batch must be sorted and not negative: the nodes of a clip must lie together"
            )
        return
    if features is not None:
        fits = positions.shape[-2] == features.shape[-2] and (
            positions.dim() == 2 or positions.shape[:-1] == features.shape[:-1]
        )
        if not fits:
            raise ValueError(
                f"positions {_shape(positions)} do not fit features {_shape(features)}: "
                f"expected one position a node, [{features.shape[-2]}, d]"
            )
    if mask is not None:
        value = features if features is not None else positions
        if value.dim() != 3 or mask.dtype != torch.bool or mask.shape != value.shape[:2]:
            raise ValueError(
                f"mask must be bool [B, N] beside features [B, N, D], got {_shape(mask)} beside "
                f"{_shape(value)}"
            )


def _check_finite(name: str, value: Tensor, present: Tensor) -> None:
    # A norm per node is enough to notice; only then the culprit is looked for.
    value = value.detach()
    if value.dtype in (torch.float16, torch.bfloat16):
        value = value.float()  # a float16 norm overflows early
    suspicious = ~torch.isfinite(value.norm(dim=-1)) & present
    if suspicious.any():
        bad = ~torch.isfinite(value).all(dim=-1) & present
        what = "NaN or infinite"
        if not bad.any():
            bad, what = suspicious, "so large that their norm overflows"
        clip, node = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} must be finite, got {what} values at node {node} of clip {clip} "
            f"({int(bad.sum())} such nodes in all)"
        )


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
