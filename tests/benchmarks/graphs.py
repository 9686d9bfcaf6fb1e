"""The graph builders against scikit-learn, ViG's dense neighbours and the bare similarity."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch_geometric.utils
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from benchmarks import graph_rivals as rivals
from benchmarks.machine import Machine
from benchmarks.measure import MIB, Effort, Measured, Way, measure
from benchmarks.page import rounds, table, timings
from benchmarks.smooth_features import smooth_features
from gasmcast.graphs import (
    EdgeRule,
    Nearest,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    to_networkx,
)
from gasmcast.positions import (
    generate_spatial_positions,
    generate_spatiotemporal_positions,
    generate_temporal_positions,
)

THRESHOLD = 0.8
WINDOW = 2
# Similarities that are closer than this to a bound can fall on either side of it in float32.
ROUNDING = 1e-6

EDGE_LIST = "ours, edge list"
WITH_ATTRIBUTES = "ours, with edge_attr and edge_rule"
BARE = "bare: normalise, matmul, threshold"
BARE_EDGES = "bare, and its nonzero"
SKLEARN = "scikit-learn, clip by clip"
SKLEARN_EDGES = "scikit-learn, with adjacency, as one edge list"
NEAREST = "ours, k nearest"
VIG = "ViG's dense k nearest"


@dataclass(frozen=True)
class Case:
    """Clips of one size.

    Attributes:
        clips: Clips B.
        grid: Rows and columns of patches, or only the number of segments.
        width: Channels D.
        k: Neighbours where the nearest are asked for.
    """

    clips: int
    grid: tuple[int, ...]
    width: int
    k: int

    @property
    def name(self) -> str:
        return f"{self.clips} x {math.prod(self.grid)} x {self.width}"

    @property
    def kind(self) -> str:
        return "spatial" if len(self.grid) == 2 else "temporal"

    @property
    def radius(self) -> int:
        """Nodes at most so far apart in every coordinate are adjacent."""
        return 1 if self.kind == "spatial" else WINDOW

    def positions(self) -> Tensor:
        if self.kind == "spatial":
            return generate_spatial_positions(self.grid)
        return generate_temporal_positions(self.grid[0], self.grid[0])

    def features(self) -> Tensor:
        return smooth_features(self.clips, self.grid, self.width)


CASES = (
    Case(32, (14, 14), 768, k=9),
    Case(8, (28, 28), 768, k=9),
    Case(1, (56, 56), 768, k=9),
    Case(4096, (8,), 512, k=3),
)
TINY_CASES = (Case(3, (6, 6), 32, k=4), Case(1, (9, 9), 32, k=4), Case(5, (8,), 16, k=3))


def run(effort: Effort) -> str:
    """Measure all and return the section of the page."""
    machine = Machine(effort.device, ("torch-geometric", "scikit-learn", "numpy", "networkx"))
    summary, details = [], []
    for case in TINY_CASES if effort.tiny else CASES:
        measured, edges_per_node = _measure_case(case, effort)
        ratios = (
            (EDGE_LIST, BARE),
            (WITH_ATTRIBUTES, BARE),
            (SKLEARN, EDGE_LIST),
            (SKLEARN_EDGES, WITH_ATTRIBUTES),
            (NEAREST, VIG),
        )
        summary.append([case.name, *(measured.ratio(*ratio) for ratio in ratios)])
        details.append(
            f"**{case.name}**, {case.kind}: {edges_per_node:.1f} edges a node, k = {case.k}, "
            f"{rounds(measured)}."
        )
        details.append(timings(measured, BARE, "bare = 1"))
    parts = [
        table(
            (
                "B x N x D",
                "edge list / bare",
                "with attributes / bare",
                "scikit-learn / edge list",
                "scikit-learn's edge list / with attributes",
                "k nearest / ViG's",
            ),
            summary,
        ),
        *details,
    ]
    parts += _spatiotemporal(effort)
    parts += _networkx(effort)
    parts.insert(0, f"Measured on: {machine}.")
    return "\n\n".join(parts)


def _measure_case(case: Case, effort: Effort) -> tuple[Measured, float]:
    """Time and memory of every way, and edges per node, once all ways agree on the edges."""
    on_cpu, positions = case.features(), case.positions()
    features = on_cpu.to(effort.device)
    clips, near = on_cpu.numpy(), rivals.sklearn_near(positions.numpy(), case.radius)
    if case.kind == "spatial":
        build = partial(build_spatial_graph, positions, THRESHOLD, features=features)
    else:
        build = partial(
            build_temporal_graph,
            positions,
            WINDOW,
            features=features,
            similarity_threshold=THRESHOLD,
        )
    nearest = Nearest(case.k, "features", "cosine")
    ways: dict[str, Callable[[], object]] = {
        EDGE_LIST: partial(build, edge_attr=False),
        WITH_ATTRIBUTES: build,
        BARE: partial(rivals.bare, features, THRESHOLD),
        BARE_EDGES: partial(rivals.bare_edges, features, THRESHOLD),
        SKLEARN: partial(rivals.sklearn_similar, clips, THRESHOLD),
        SKLEARN_EDGES: partial(rivals.sklearn_edges, clips, THRESHOLD, near),
        NEAREST: partial(
            build_graph, nearest, features=features, self_loops=False, edge_attr=False
        ),
        VIG: partial(rivals.vig_neighbours, features, case.k),
    }

    graph = ways[WITH_ATTRIBUTES]()
    pairs_near = torch.from_numpy(near.toarray() > 0).to(effort.device)
    for other in (
        ways[EDGE_LIST]().edge_index,
        ways[SKLEARN_EDGES](),
        rivals.bare_edges(features, THRESHOLD, pairs_near),
    ):
        check_same_edges(graph.edge_index, other, on_cpu)
    check_same_neighbours(ways[NEAREST]().edge_index, ways[VIG](), on_cpu)
    edges_per_node = graph.num_edges / graph.num_nodes
    del graph, other

    in_numpy = (SKLEARN, SKLEARN_EDGES)
    measured = measure(
        [
            Way(name, call, memory="python" if name in in_numpy else "torch")
            for name, call in ways.items()
        ],
        effort,
    )
    return measured, edges_per_node


def _spatiotemporal(effort: Effort) -> list[str]:
    """One clip of many frames, all at once and block by block."""
    frames, side, width = (2, 12, 32) if effort.tiny else (16, 14, 768)
    max_bytes = (2 if effort.tiny else 64) * MIB
    positions = generate_spatiotemporal_positions(frames, side)
    features = smooth_features(1, (frames, side, side), width)[0].to(effort.device)
    build = partial(build_spatiotemporal_graph, positions, THRESHOLD, features=features)
    limit = f"max_bytes of {max_bytes / MIB:g} MiB"
    graph, blocked = build(max_bytes=2**40), build(max_bytes=max_bytes)
    check_same_edges(graph.edge_index, blocked.edge_index, features.unsqueeze(0).cpu())
    edges_per_node = graph.num_edges / graph.num_nodes
    del graph, blocked
    measured = measure(
        [
            Way("all pairs at once", partial(build, max_bytes=2**40)),
            Way(limit, partial(build, max_bytes=max_bytes)),
            Way(BARE, partial(rivals.bare, features.unsqueeze(0), THRESHOLD)),
        ],
        effort,
    )
    return [
        f"**Spatio-temporal**, {frames} frames of {side**2} patches, D = {width}: one clip of "
        f"{len(positions)} nodes, {edges_per_node:.1f} edges a node, with edge_attr and edge_rule, "
        f"{rounds(measured)}.",
        timings(measured, "all pairs at once", "at once = 1"),
    ]


def _networkx(effort: Effort) -> list[str]:
    """One graph for networkx, with the same attributes of nodes and edges."""
    case = TINY_CASES[0] if effort.tiny else CASES[0]
    positions, features = case.positions(), case.features()[0]
    graph = build_spatial_graph(positions, THRESHOLD, features=features)
    ours, pyg = "ours, to_networkx", "torch_geometric.utils.to_networkx"
    plain = pyg_attributes(graph)
    export = partial(
        torch_geometric.utils.to_networkx,
        plain,
        node_attrs=["pos"],
        edge_attrs=["rule", "distance", "similarity"],
    )
    measured = measure(
        [
            Way(ours, partial(to_networkx, graph), memory="python"),
            Way(pyg, export, memory="python"),
        ],
        effort,
    )
    return [
        f"**networkx**, one spatial graph of {graph.num_nodes} nodes and {graph.num_edges} edges, "
        f"{rounds(measured)}.",
        timings(measured, pyg, "PyG = 1"),
    ]


def pyg_attributes(graph: Data) -> Data:
    """What our export gives of nodes and edges, laid out for PyG's."""
    return Data(
        edge_index=graph.edge_index,
        num_nodes=graph.num_nodes,
        pos=graph.pos,
        # Named beforehand, which is to PyG's advantage.
        rule=[EdgeRule(bits).label for bits in graph.edge_rule.tolist()],
        distance=graph.edge_attr[:, -2],
        similarity=graph.edge_attr[:, -1],
    )


def check_same_edges(edges: Tensor, other: Tensor, features: Tensor) -> None:
    """Refuse edge lists [2, E] that differ, but for pairs within rounding of the threshold.

    Raises:
        RuntimeError: They do.
    """
    if torch.equal(edges, other):
        return
    clip, target, source = _difference(edges, other, features)
    unit = F.normalize(features.double(), dim=-1)
    similarity = (unit[clip, target] * unit[clip, source]).sum(dim=-1)
    wrong = (similarity - THRESHOLD).abs() > ROUNDING
    if len(clip) == 0:
        raise RuntimeError("the same edges came in different orders, or some of them twice")
    if wrong.any():
        raise RuntimeError(f"{int(wrong.sum())} edges are in one list and not in the other")


def check_same_neighbours(edges: Tensor, neighbours: Tensor, features: Tensor) -> None:
    """Refuse nearest neighbours as edges [2, E] that are not ViG's [2, B, N, k + 1].

    Of neighbours within rounding of the last one, any will do.

    Raises:
        RuntimeError: They differ.
    """
    clips, num_nodes = features.shape[:2]
    first = torch.arange(clips, device=neighbours.device).view(-1, 1, 1) * num_nodes
    other = (neighbours + first).flatten(1)
    other = other[:, other[0] != other[1]]
    if other.size(1) != edges.size(1):
        raise RuntimeError(f"got {edges.size(1)} neighbours, ViG's way has {other.size(1)}")
    clip, target, source = _difference(edges, other, features)
    unit = F.normalize(features.double(), dim=-1)
    similarity = unit[clip, target].unsqueeze(1) @ unit[clip].transpose(1, 2)
    # The node itself comes first.
    last = similarity.squeeze(1).topk(neighbours.size(-1)).values[:, -1]
    found = similarity.squeeze(1).gather(1, source.unsqueeze(1)).squeeze(1)
    wrong = (found - last).abs() > ROUNDING
    if wrong.any():
        raise RuntimeError(f"{int(wrong.sum())} neighbours are in one graph and not in the other")


def _difference(edges: Tensor, other: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clip, target and source of the edges that only one of two lists has."""
    total, num_nodes = len(features) * features.size(1), features.size(1)
    keys, count = torch.cat(
        [(edge[1] * total + edge[0]).cpu().unique() for edge in (edges, other)]
    ).unique(return_counts=True)
    target, source = keys[count == 1] // total, keys[count == 1] % total
    return target // num_nodes, target % num_nodes, source % num_nodes
