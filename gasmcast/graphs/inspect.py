"""One graph as networkx, and a report of it in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import homophily

from gasmcast.graphs.check import check_index, check_single_graph, node_count, plain_edge_index
from gasmcast.graphs.rules import EdgeRule

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class GraphReport:
    """What :func:`graph_report` found. ``str(report)`` is a readable table.

    Attributes:
        num_nodes: Nodes N.
        num_edges: Edges E, each direction counted, self-loops included.
        edges_by_rule: Edges for each combination of rules, such as ``"adjacent + similar"``; empty
            without ``edge_rule``.
        min_degree: Smallest number of neighbours of a node (incoming edges, self-loop left out).
        mean_degree: Mean of the same.
        max_degree: Largest of the same.
        num_isolated: Nodes without neighbours in either direction.
        num_components: Weakly connected components.
        symmetric: Whether each edge has its reverse.
        mean_similarity: Mean cosine similarity of the edges, self-loops left out; None without
            features or edges.
        homophily: Share of the edges that join two nodes of the same label, self-loops left out;
            None without labels or edges.
    """

    num_nodes: int
    num_edges: int
    edges_by_rule: dict[str, int]
    min_degree: int
    mean_degree: float
    max_degree: int
    num_isolated: int
    num_components: int
    symmetric: bool
    mean_similarity: float | None
    homophily: float | None = None

    def __str__(self) -> str:
        rows = [("nodes", f"{self.num_nodes}"), ("edges", f"{self.num_edges}")]
        rows += [
            (f"  {rule}", f"{count} ({count / self.num_edges:.1%})")
            for rule, count in self.edges_by_rule.items()
        ]
        rows += [
            (
                "neighbours of a node",
                f"{self.min_degree} to {self.max_degree}, mean {self.mean_degree:.1f}",
            ),
            ("isolated nodes", f"{self.num_isolated}"),
            ("components", f"{self.num_components}"),
            ("symmetric", "yes" if self.symmetric else "no"),
        ]
        if self.mean_similarity is not None:
            rows.append(("mean similarity of edges", f"{self.mean_similarity:.3f}"))
        if self.homophily is not None:
            rows.append(("edges of one label", f"{self.homophily:.1%}"))
        return "\n".join(f"{name:<26}{value}" for name, value in rows)


def to_networkx(data: Data, head: int | None = None) -> networkx.DiGraph:
    """One graph as ``networkx.DiGraph``, with what is known of nodes and edges.

    Nodes carry ``pos``, a tuple in the unit of the positions, and ``y`` where ``data.y`` is [N].
    Edges run from source to target and carry, each where the graph has it:

    - ``rule``, such as ``"adjacent + similar"``;
    - ``distance`` and, with features, ``similarity``, from ``edge_attr``;
    - ``weight``, which networkx's algorithms look for, from ``edge_weight`` [E];
    - ``attention``, of one head or the mean over heads, from ``attention`` [E, H].

    All values are plain Python numbers, strings and tuples, so networkx can write the graph as
    node-link JSON. Algorithms of networkx take any of them by name, such as
    ``weight="attention"``. Attention belongs to the node that an edge enters: the edges into a node
    share 1 among them, its self-loop included. A walk that goes where a node looks goes against
    the edges, along ``graph.reverse()``.

    Args:
        data: One graph with ``edge_index``; of a batch, ``batch[i]``.
        head: Whose attention, from 0; None: the mean over heads.

    Raises:
        ValueError: ``data`` is a batch or has no edges that could be followed; it has no such head.

    Example:
        >>> import networkx as nx
        >>> from gasmcast import build_spatial_graph, generate_spatial_positions
        >>> graph = to_networkx(build_spatial_graph(generate_spatial_positions(3)))
        >>> graph.nodes[4]["pos"], graph.edges[0, 1]["rule"]
        ((1.0, 1.0), 'adjacent')
    """
    import networkx as nx

    check_single_graph(data)
    edge_index, num_nodes = plain_edge_index(data), node_count(data)
    nodes = _attribute_dicts(num_nodes, _node_columns(data, num_nodes))
    edges = _attribute_dicts(edge_index.size(1), _edge_columns(data, head))
    graph = nx.DiGraph()
    graph.add_nodes_from(enumerate(nodes))
    # A node's neighbours are entered at once, into the dicts that networkx made for them; its
    # add_edges_from, one edge at a time, takes several times as long. Both directions of looking
    # (successors, predecessors) share the attributes of an edge.
    source, target = edge_index
    _enter_neighbours(graph, source, target, edges)
    _enter_neighbours(graph.reverse(copy=False), target, source, edges)
    return graph


def graph_report(data: Data, labels: Tensor | None = None) -> GraphReport:
    """Nodes, edges by rule, degrees and components of one graph.

    Args:
        data: As for :func:`to_networkx`.
        labels: One label a node, [N], for ``homophily``; for example the object that each patch
            shows.

    Raises:
        ValueError: As for :func:`to_networkx`; labels of another shape.

    Example:
        >>> import torch
        >>> from gasmcast import build_temporal_graph, generate_temporal_positions
        >>> graph = build_temporal_graph(generate_temporal_positions())
        >>> print(graph_report(graph, labels=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])))
        nodes                     8
        edges                     34
          self-loop               8 (23.5%)
          window                  26 (76.5%)
        neighbours of a node      2 to 4, mean 3.2
        isolated nodes            0
        components                1
        symmetric                 yes
        edges of one label        76.9%
    """
    check_single_graph(data)
    num_nodes = node_count(data)
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape != (num_nodes,)):
        came = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(
            f"labels must be a tensor with one label a node, [{num_nodes}], got {came}"
        )
    edge_index = plain_edge_index(data)
    between = edge_index[0] != edge_index[1]
    joined = edge_index[:, between]
    source, target = joined
    in_degree = target.bincount(minlength=num_nodes)
    out_degree = source.bincount(minlength=num_nodes)
    by_rule, rule = {}, data.get("edge_rule")
    if rule is not None:
        rules, counts = rule.unique(return_counts=True)
        by_rule = dict(zip(_labels(rules), counts.tolist(), strict=True))
    similarity = measures(data).get("similarity")
    return GraphReport(
        num_nodes=num_nodes,
        num_edges=edge_index.size(1),
        edges_by_rule=by_rule,
        min_degree=int(in_degree.min()) if num_nodes else 0,
        mean_degree=len(target) / num_nodes if num_nodes else 0.0,
        max_degree=int(in_degree.max()) if num_nodes else 0,
        num_isolated=int(((in_degree == 0) & (out_degree == 0)).sum()),
        num_components=_count_components(source, target, num_nodes),
        symmetric=torch.equal(
            (source * num_nodes + target).unique(), (target * num_nodes + source).unique()
        ),
        mean_similarity=float(similarity[between].float().mean())
        if similarity is not None and len(source)
        else None,
        homophily=homophily(joined, labels.to(joined.device), method="edge")
        if labels is not None and len(source)
        else None,
    )


def measures(data: Data) -> dict[str, Tensor]:
    """``distance`` and ``similarity`` of the edges, each [E], as far as ``edge_attr`` has them."""
    edge_attr, pos = data.get("edge_attr"), data.get("pos")
    if edge_attr is None or edge_attr.dim() != 2:
        return {}
    # The columns: with positions displacement and distance, with features similarity.
    names = ("similarity",) if pos is None else ("distance", "similarity")
    first = 0 if pos is None else pos.size(1)
    if not first < edge_attr.size(1) <= first + len(names):
        return {}  # not of the builders
    found = dict(zip(names, edge_attr.detach()[:, first:].unbind(dim=1), strict=False))
    similarity = found.get("similarity")
    if similarity is not None and bool((similarity.abs() > 1.01).any()):
        return {}  # as wide as theirs, but no cosine
    return found


def _node_columns(data: Data, num_nodes: int) -> dict[str, list]:
    columns: dict[str, list] = {}
    if (pos := data.get("pos")) is not None:
        columns["pos"] = [tuple(position) for position in pos.tolist()]
    y = data.get("y")
    if isinstance(y, Tensor) and y.shape == (num_nodes,):
        columns["y"] = y.tolist()
    return columns


def _edge_columns(data: Data, head: int | None) -> dict[str, list]:
    columns: dict[str, list] = {}
    if (rule := data.get("edge_rule")) is not None:
        columns["rule"] = _labels(rule)
    columns |= {name: values.tolist() for name, values in measures(data).items()}
    if (weight := data.get("edge_weight")) is not None:
        columns["weight"] = weight.tolist()
    if (attention := _attention(data, head)) is not None:
        columns["attention"] = attention.tolist()
    return columns


def _attention(data: Data, head: int | None) -> Tensor | None:
    """Of one head or the mean over heads, [E]; None where there is no attention."""
    attention = data.get("attention")
    if attention is None:
        if head is not None:
            raise ValueError(f"there is no head {head}: the graph has no attention, got {data}")
        return None
    attention = attention.detach().float()
    attention = attention.unsqueeze(1) if attention.dim() == 1 else attention
    if head is None:
        return attention.mean(dim=1)
    return attention[:, check_index(head, attention.size(1), "head must be None or")]


def _attribute_dicts(count: int, columns: dict[str, list]) -> list[dict]:
    dicts: list[dict] = [{} for _ in range(count)]
    for name, values in columns.items():
        for attributes, value in zip(dicts, values, strict=True):
            attributes[name] = value
    return dicts


def _enter_neighbours(
    graph: networkx.DiGraph, near: Tensor, far: Tensor, edges: list[dict]
) -> None:
    """Enter the edges from ``near`` to ``far``; the nodes of ``graph`` are 0 to N - 1, in order."""
    degrees = near.bincount(minlength=len(graph)).tolist()
    if (near.diff() < 0).any():
        near, order = near.sort(stable=True)
        far, edges = far[order], map(edges.__getitem__, order.tolist())
    entries = zip(far.tolist(), edges, strict=True)
    for (_, neighbours), degree in zip(graph.adjacency(), degrees, strict=True):
        neighbours.update(islice(entries, degree))


def _count_components(source: Tensor, target: Tensor, num_nodes: int) -> int:
    """Weakly connected components: every node takes the smallest index that it can reach."""
    root = torch.arange(num_nodes, device=source.device)
    while True:
        lowest = torch.minimum(root[source], root[target])
        hooked = root.scatter_reduce(0, root[source], lowest, "amin")
        hooked = hooked.scatter_reduce(0, root[target], lowest, "amin")
        while not torch.equal(hooked, hooked[hooked]):
            hooked = hooked[hooked]
        if torch.equal(hooked, root):
            return int((root == torch.arange(num_nodes, device=root.device)).sum())
        root = hooked


def _labels(rules: Tensor) -> list[str]:
    names = {value: EdgeRule(value).label for value in rules.unique().tolist()}
    return [names[value] for value in rules.tolist()]
