"""Features and positions to ``Data`` or ``Batch``: graphs by any rule, and the three named ones."""

from __future__ import annotations

from numbers import Integral
from typing import TypedDict, Unpack

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.edge_index import CatMetadata, SortOrder

from gasmcast.graphs.edge_weight import edge_similarity
from gasmcast.graphs.edges import Edges, edges_of, join, make_undirected, no_edges
from gasmcast.graphs.full_precision import full_precision
from gasmcast.graphs.magnitude import safe_scale
from gasmcast.graphs.nodes import Nodes, read_nodes, shape_of
from gasmcast.graphs.pairs import clips_within
from gasmcast.graphs.rules import Adjacent, Rule, Similar, Window
from gasmcast.graphs.spanning_tree import maximum_spanning_tree
from gasmcast.graphs.thresholds import Quantile, TargetDegree


class GraphOptions(TypedDict, total=False):
    """What a graph of any builder can be told; :func:`build_graph` says what it means."""

    min_neighbors: int
    max_neighbors: int | None
    connected: bool
    undirected: bool
    self_loops: bool
    edge_attr: bool
    edge_weight: bool
    as_edge_index: bool
    max_bytes: int


class BatchedGraphOptions(GraphOptions, total=False):
    """The same, and which nodes belong to which clip."""

    batch: Tensor | None
    ptr: Tensor | None
    mask: Tensor | None


@torch.compiler.disable  # neither a loop over blocks nor a Batch belongs in a compiled graph
def build_graph(
    rule: Rule,
    positions: Tensor | None = None,
    *,
    features: Tensor | None = None,
    batch: Tensor | None = None,
    ptr: Tensor | None = None,
    mask: Tensor | None = None,
    min_neighbors: int = 0,
    max_neighbors: int | None = None,
    connected: bool = False,
    undirected: bool = False,
    self_loops: bool = True,
    edge_attr: bool = True,
    edge_weight: bool = False,
    as_edge_index: bool = False,
    max_bytes: int = 2**30,
) -> Data | Batch:
    r"""Graph with the edges that a rule makes.

    .. math::
        (j, i) \in \mathcal{E} \iff \mathrm{rule}(j, i) \;\text{for source } j \ne \text{target } i
        \text{ of the same clip, or } j = i

    The same edges come out on CPU and GPU, blocked and unblocked, batched and one by one, wherever
    no similarity lies within rounding of a threshold or of another that it is ranked against.

    Args:
        rule: Which pairs of nodes become edges, see :class:`Rule`.
        positions: Where the nodes lie: [N, d], the same for all clips; or [B, N, d]; or
            [sum N, d] with ``batch`` or ``ptr``. None, where the rule needs none.
        features: What the nodes look like: [N, D] for one clip; [B, N, D] for a batch; or
            [sum N, D] with ``batch`` or ``ptr`` for clips of different sizes.
        batch: The clip of each node, [sum N], sorted: ragged input.
        ptr: Where the nodes of each clip begin, and their number at the end, [B + 1]: ragged
            input, in which the last clips can be empty too.
        mask: True where a node of [B, N, D] exists, [B, N]: padded input. The graphs hold the
            existing nodes only.
        min_neighbors: Nodes with fewer incoming neighbours get the most similar others too, the
            nearest where there are no features.
        max_neighbors: At most so many incoming neighbours of a node are kept, the most similar, the
            nearest where there are no features; ties to the smaller index. None: all.
        connected: Add the edges of the maximum spanning tree of all similarities (minimum, of all
            distances, where there are no features), in both directions: one component a clip.
        undirected: Add the reverse of every edge.
        self_loops: Give every node exactly one self-loop.
        edge_attr: Make ``edge_attr`` and ``edge_rule``.
        edge_weight: Make ``edge_weight``, the cosine similarity of each edge, with gradient to the
            features.
        as_edge_index: ``edge_index`` is a :class:`torch_geometric.EdgeIndex`, sorted by target,
            that keeps the pointer of the targets (CSC, ``get_indptr()``).
        max_bytes: Working memory for pairs of nodes: what does not fit goes block by block. Inputs
            (half-precision ones in float32 too) and the graph itself come on top, the graph twice
            while it is put together (six times with ``undirected``), and 2 MiB where adaptive
            thresholds are counted row by row.

    Returns:
        ``Data`` for features [N, D], or positions [N, d] alone; else a ``Batch`` with one graph a
        clip. Its attributes:

        - ``edge_index`` [2, E]: source and target, sorted by target, then source, no duplicates;
        - ``edge_attr`` [E, F]: with positions, one column a coordinate with the displacement
          :math:`p_j - p_i` from target to source, then the Euclidean distance; with features, the
          cosine similarity (1 on self-loops);
        - ``edge_rule`` [E], uint8: bits of :class:`EdgeRule`;
        - ``pos`` [N, d] with positions, ``x`` [N, D] with features.

    Raises:
        ValueError: Shapes that do not fit each other, an unsorted ``batch``, a NaN or infinite
            feature or position (the message names clip and node), a rule that needs what was not
            given, ``min_neighbors`` above ``max_neighbors``, ``max_bytes`` too small for 64 rows.

    Example:
        >>> import torch
        >>> from gasmcast.graphs import Nearest, Similar, Window, build_graph
        >>> clips = torch.randn(32, 8, 512, generator=torch.Generator().manual_seed(0))
        >>> time = torch.arange(8.0).unsqueeze(1)
        >>> rule = Window(1) | Nearest(2, "features", "cosine") - Window(3)
        >>> build_graph(rule, time, features=clips).num_graphs
        32
    """
    if not isinstance(rule, Rule):
        raise ValueError(f"rule must be a Rule, such as Adjacent(1) | Similar(0.8), got {rule!r}")
    if not isinstance(max_bytes, Integral) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a positive integer, got {max_bytes!r}")
    rule = _limited(rule, min_neighbors, max_neighbors)
    inputs = {"positions": positions, "features": features}
    rule.check({name for name, value in inputs.items() if value is not None})
    if edge_weight and features is None:
        raise ValueError("edge_weight needs features, got none")
    nodes = read_nodes(positions, features, batch, ptr, mask)
    edges = _find_edges(rule, nodes, connected, self_loops, edge_attr, max_bytes)
    if undirected:
        edges = make_undirected(edges, nodes.starts[-1])
    return _assemble(nodes, edges, edge_attr, edge_weight, as_edge_index)


def build_spatial_graph(
    positions: Tensor,
    similarity_threshold: float | Quantile | TargetDegree = 0.8,
    *,
    features: Tensor | None = None,
    radius: float = 1.0,
    metric: str = "chebyshev",
    max_similar: int | None = None,
    **options: Unpack[BatchedGraphOptions],
) -> Data | Batch:
    r"""Graph of the patches of an image: edges between adjacent or similar patches.

    .. math::
        (j, i) \in \mathcal{E} \iff
        \lVert p_i - p_j \rVert_\infty \le r
        \;\lor\; \cos(x_i, x_j) \ge \tau

    It is :func:`build_graph` with ``Adjacent(radius, metric) | Similar(similarity_threshold)``.
    Both bounds are inclusive, up to rounding: the similarity of equal vectors can come out a
    millionth below 1. Without ``features`` only the first condition applies.

    Args:
        positions: Where the patches lie, in patch units (as
            :func:`~gasmcast.generate_spatial_positions` gives them): [N, 2], the same for all
            clips; or [B, N, 2]; or [sum N, 2] with ``batch`` or ``ptr``. Any number of coordinates
            will do.
        similarity_threshold: The cosine similarity :math:`\tau` from which two patches are
            connected however far apart they are: a number, above 1 for never, or :class:`Quantile`
            or :class:`TargetDegree`, with which each clip chooses its own.
        features: What the patches look like: [N, D] for one image; [B, N, D] for a batch; or
            [sum N, D] with ``batch`` or ``ptr`` for images of different sizes.
        radius: The distance :math:`r` within which patches are adjacent, in patch units; 1 is the
            8 neighbours.
        metric: ``"chebyshev"``, ``"euclidean"`` or ``"manhattan"``.
        max_similar: At most so many edges a patch receives through similarity alone, the most
            similar first, ties to the smaller index. Adjacent patches do not count. Such a graph
            need not be symmetric. None: no cap.
        options: As for :func:`build_graph`.

    Returns:
        As for :func:`build_graph`.

    Raises:
        ValueError: As for :func:`build_graph`.

    Example:
        >>> from gasmcast import build_spatial_graph, generate_spatial_positions
        >>> graph = build_spatial_graph(generate_spatial_positions(3))
        >>> graph
        Data(edge_index=[2, 49], edge_attr=[49, 3], pos=[9, 2], edge_rule=[49])
        >>> graph.edge_index[0, graph.edge_index[1] == 0].tolist()  # who sends to patch 0
        [0, 1, 3, 4]
    """
    rule: Rule = Adjacent(radius, metric)
    similar = Similar(similarity_threshold)
    if features is not None:
        rule = _or_similar(rule, similar, max_similar)
    return build_graph(rule, positions, features=features, **options)


def build_temporal_graph(
    positions: Tensor,
    adjacency_window: float = 2,
    *,
    features: Tensor | None = None,
    similarity_threshold: float | Quantile | TargetDegree = 0.8,
    causal: bool = False,
    max_similar: int | None = None,
    **options: Unpack[BatchedGraphOptions],
) -> Data | Batch:
    r"""Graph of the segments of a clip: edges between near or similarly moving segments.

    .. math::
        (j, i) \in \mathcal{E} \iff |t_i - t_j| \le w \;\lor\; \cos(x_i, x_j) \ge \tau

    It is :func:`build_graph` with ``Window(adjacency_window) | Similar(similarity_threshold)``.

    Args:
        positions: When the segments are, in segments (as
            :func:`~gasmcast.generate_temporal_positions` gives them): [N, 1], [B, N, 1], or
            [sum N, 1] with ``batch`` or ``ptr``.
        adjacency_window: The window :math:`w`, inclusive; 2 connects each segment with two on
            each side.
        features: How the segments move, shapes as for :func:`build_spatial_graph`.
        similarity_threshold: As for :func:`build_spatial_graph`.
        causal: The rules make edges only from a segment to itself and later ones.
            ``min_neighbors``, ``connected`` and ``undirected`` add others.
        max_similar: As for :func:`build_spatial_graph`.
        options: As for :func:`build_graph`.

    Returns:
        As for :func:`build_graph`, with ``pos`` [N, 1] and one displacement column.

    Raises:
        ValueError: As for :func:`build_graph`.

    Example:
        >>> from gasmcast import build_temporal_graph, generate_temporal_positions
        >>> graph = build_temporal_graph(generate_temporal_positions(), adjacency_window=1)
        >>> graph.edge_index[0, graph.edge_index[1] == 3].tolist()
        [2, 3, 4]
    """
    _check_coordinates("temporal", positions, 1)
    rule: Rule = Window(adjacency_window, causal)
    similar: Rule = Similar(similarity_threshold)
    if causal:
        similar -= ~Window(float("inf"), causal=True)
    if features is not None:
        rule = _or_similar(rule, similar, max_similar)
    return build_graph(rule, positions, features=features, **options)


def build_spatiotemporal_graph(
    positions: Tensor,
    similarity_threshold: float | Quantile | TargetDegree = 0.8,
    *,
    features: Tensor | None = None,
    radius: float = 1.0,
    window: float = 1,
    temporal_threshold: float | Quantile | TargetDegree | None = None,
    causal: bool = False,
    **options: Unpack[BatchedGraphOptions],
) -> Data | Batch:
    r"""Graph of the patches of several frames: space inside a frame, time between frames.

    .. math::
        (j, i) \in \mathcal{E} \iff
        \begin{cases}
        \lVert p_i - p_j \rVert_\infty \le r \;\lor\; \cos(x_i, x_j) \ge \tau & t_i = t_j \\
        |t_i - t_j| \le w \;\land\; \cos(x_i, x_j) \ge \tau_t & t_i \ne t_j
        \end{cases}

    Without ``features`` the second line has no similarity: patches of frames within the window are
    connected where they are adjacent in space.

    Args:
        positions: Where and when the patches are, (x, y, t) as
            :func:`~gasmcast.generate_spatiotemporal_positions` gives them: [N, 3], [B, N, 3], or
            [sum N, 3] with ``batch`` or ``ptr``. N is frames times patches.
        similarity_threshold: As for :func:`build_spatial_graph`, inside a frame. A
            :class:`Quantile` or :class:`TargetDegree` counts the pairs of the whole clip.
        features: What the patches look like, [N, D], [B, N, D] or [sum N, D].
        radius: Chebyshev distance of adjacent patches, in patch units.
        window: :math:`w`: frames at most so far apart are connected, in the unit of t.
        temporal_threshold: :math:`\tau_t`; None: ``similarity_threshold``.
        causal: Between frames, the rules make edges only from earlier to later ones;
            ``min_neighbors``, ``connected`` and ``undirected`` add others.
        options: As for :func:`build_graph`.

    Returns:
        As for :func:`build_graph`, with ``pos`` [N, 3]. Of the edges by the rules above, those
        between frames, and no others, have the bit ``EdgeRule.WINDOW``.

    Raises:
        ValueError: As for :func:`build_graph`.

    Example:
        >>> from gasmcast import build_spatiotemporal_graph, generate_spatiotemporal_positions
        >>> graph = build_spatiotemporal_graph(generate_spatiotemporal_positions(2, 3))
        >>> graph.num_nodes, graph.num_edges  # twice 49 inside a frame, twice 49 between them
        (18, 196)
    """
    _check_coordinates("spatio-temporal", positions, 3)
    same_frame = Window(0)
    within: Rule = Adjacent(radius, axes=(0, 1))
    between: Rule = Window(window, causal) - same_frame
    if features is None:
        between &= within
    else:
        similar = Similar(similarity_threshold)
        within |= similar
        between &= similar if temporal_threshold is None else Similar(temporal_threshold)
    # Not "within & same_frame": only edges between frames are to have the bit of a window.
    return build_graph(within - ~same_frame | between, positions, features=features, **options)


def target_ptr(data: Data) -> Tensor:
    """Where the incoming edges of each node begin: the CSR pointer of the targets.

    Edges ``ptr[i]`` to ``ptr[i + 1] - 1`` have target i, as segment reductions and PyG's
    ``softmax(..., ptr=ptr)`` expect it. An :class:`torch_geometric.EdgeIndex`
    (``as_edge_index=True``) keeps it.

    Args:
        data: A graph or batch of the builders.

    Returns:
        int64 [N + 1].

    Raises:
        ValueError: The edges are not sorted by target.

    Example:
        >>> from gasmcast import build_temporal_graph, generate_temporal_positions
        >>> target_ptr(build_temporal_graph(generate_temporal_positions(3, 3), 1)).tolist()
        [0, 2, 5, 7]
    """
    if isinstance(data.edge_index, EdgeIndex) and data.edge_index.is_sorted_by_col:
        return data.edge_index.get_indptr()
    target = data.edge_index[1]
    if bool((target.diff() < 0).any()):
        raise ValueError("the edges must be sorted by target, as the builders give them")
    nodes = torch.arange(data.num_nodes + 1, device=target.device)
    return torch.searchsorted(target.contiguous(), nodes)


def _or_similar(near: Rule, similar: Rule, max_similar: int | None) -> Rule:
    if max_similar is None:
        return near | similar
    return near | near & similar | (similar - near).at_most(max_similar)


def _limited(rule: Rule, min_neighbors: int, max_neighbors: int | None) -> Rule:
    if max_neighbors is not None:
        rule = rule.at_most(max_neighbors)
    filled = rule.at_least(min_neighbors)  # also where it is 0: checked
    if max_neighbors is not None and min_neighbors > max_neighbors:
        raise ValueError(
            f"min_neighbors must be at most max_neighbors={max_neighbors}, got {min_neighbors}"
        )
    return filled if min_neighbors else rule


def _check_coordinates(kind: str, positions: Tensor, count: int) -> None:
    if isinstance(positions, Tensor) and positions.dim() > 1 and positions.size(-1) != count:
        raise ValueError(
            f"{kind} positions must be [N, {count}] or [B, N, {count}], got {shape_of(positions)}"
        )


def _find_edges(
    rule: Rule,
    nodes: Nodes,
    connected: bool,
    self_loops: bool,
    attributes: bool,
    max_bytes: int,
) -> Edges:
    """The one engine under all builders: block by block, all pairs to edges."""
    found = []
    with torch.no_grad(), full_precision(nodes.device):
        for clips in clips_within(nodes, max_bytes):
            tree = None
            for pairs in clips.blocks():
                if connected and tree is None:
                    tree = maximum_spanning_tree(pairs)
                found.append(edges_of(pairs, rule, tree, self_loops, attributes))
        if not found:  # no clip, or none with a node
            found = [no_edges(nodes, attributes)]
    return join(found)


def _assemble(
    nodes: Nodes, edges: Edges, attributes: bool, edge_weight: bool, as_edge_index: bool
) -> Data | Batch:
    """The graph, or the batch that ``Batch.from_data_list`` would make of the single graphs."""
    graph = {"x": nodes.features, "edge_index": edges.index}
    pos = nodes.positions
    if pos is not None and nodes.shared:
        pos = pos.repeat(len(nodes.sizes), 1)
    if attributes:
        graph["edge_attr"] = _edge_attr(nodes, pos, edges)
    graph["pos"] = pos
    if attributes:
        graph["edge_rule"] = edges.rule
    if edge_weight:
        graph["edge_weight"] = edge_similarity(nodes.features, edges.index)
    graph = {name: value for name, value in graph.items() if value is not None}
    num_nodes = nodes.starts[-1]
    if as_edge_index:
        index = EdgeIndex(edges.index, sparse_size=(num_nodes, num_nodes), sort_order="col")
        index.get_indptr()  # kept from now on
        graph["edge_index"] = index
    if nodes.single:
        return Data(**graph)

    sizes = torch.tensor(nodes.sizes, dtype=torch.long, device=nodes.device)
    ptr = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
    batch = Batch(**graph, batch=torch.repeat_interleave(sizes, output_size=num_nodes), ptr=ptr)
    batch._num_graphs = len(sizes)
    # What to_data_list() takes the batch apart by.
    edge_ptr = torch.searchsorted(edges.index[1].contiguous(), ptr)
    no_increment = torch.zeros_like(sizes)
    batch._slice_dict = {name: edge_ptr if "edge" in name else ptr for name in graph}
    batch._inc_dict = dict.fromkeys(graph, no_increment) | {"edge_index": ptr[:-1]}
    if as_edge_index:
        batch.edge_index._cat_metadata = CatMetadata(
            nnz=edge_ptr.diff().tolist(),
            sparse_size=[(end, end) for end in ptr[1:].tolist()],  # as in the batch
            sort_order=[SortOrder.COL] * len(sizes),
            is_undirected=[False] * len(sizes),
        )
    return batch


def _edge_attr(nodes: Nodes, pos: Tensor | None, edges: Edges) -> Tensor:
    columns = []
    if pos is not None:
        source, target = edges.index
        displacement = pos.index_select(0, source) - pos.index_select(0, target)
        wide = displacement if displacement.dtype == torch.float64 else displacement.float()
        scale = safe_scale(wide.detach())
        columns += [displacement, (wide * scale).norm(dim=-1, keepdim=True) / scale]
    if edges.similarity is not None:
        columns.append(edges.similarity.unsqueeze(-1))
    dtype = pos.dtype if nodes.features is None else nodes.features.dtype
    return torch.cat([column.to(dtype) for column in columns], dim=-1)
