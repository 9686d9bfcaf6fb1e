"""One graph as networkx, and a report of it in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch_geometric.data import Batch, Data

from gasmcast.graphs.rules import EdgeRule

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class GraphReport:
    """What :func:`graph_report` found. ``str(report)`` is a readable table.

    Attributes:
        num_nodes: Nodes N.
        num_edges: Edges E, each direction counted, self-loops included.
        edges_by_rule: Edges for each combination of rules, such as ``"adjacent + similar"``.
        min_degree: Smallest number of neighbours of a node (incoming edges, self-loop left out).
        mean_degree: Mean of the same.
        max_degree: Largest of the same.
        num_isolated: Nodes without neighbours in either direction.
        num_components: Weakly connected components.
        symmetric: Whether each edge has its reverse.
        mean_similarity: Mean cosine similarity of the edges, self-loops left out; None without
            features or edges.
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
        return "\n".join(f"{name:<26}{value}" for name, value in rows)


def to_networkx(data: Data) -> networkx.DiGraph:
    """One built graph as ``networkx.DiGraph``, with what is known of nodes and edges.

    Nodes carry ``pos``, a tuple in the unit of the positions. Edges run from source to target and
    carry ``rule`` (such as ``"adjacent + similar"``), ``distance``, with features ``similarity``,
    and, where ``data.attention`` [E, H] is set, ``attention``: the mean over heads.

    Args:
        data: One graph of :func:`build_spatial_graph` or :func:`build_temporal_graph`; of a batch,
            ``batch[i]``.

    Raises:
        ValueError: ``data`` is a batch or lacks what the builders give.

    Example:
        >>> import networkx as nx
        >>> from gasmcast import build_spatial_graph, generate_spatial_positions
        >>> graph = to_networkx(build_spatial_graph(generate_spatial_positions(3)))
        >>> graph.nodes[4]["pos"], graph.edges[0, 1]["rule"]
        ((1.0, 1.0), 'adjacent')
    """
    import networkx as nx

    check_single_graph(data)
    columns: dict[str, list] = {
        "rule": _labels(data.edge_rule),
        "distance": data.edge_attr[:, data.pos.size(1)].tolist(),
    }
    if has_similarity(data):
        columns["similarity"] = data.edge_attr[:, -1].tolist()
    if "attention" in data:
        columns["attention"] = data.attention.detach().float().mean(dim=1).tolist()
    graph = nx.DiGraph()
    graph.add_nodes_from(
        (node, {"pos": tuple(position)}) for node, position in enumerate(data.pos.tolist())
    )
    rows = zip(*columns.values(), strict=True)
    graph.add_edges_from(
        (source, target, dict(zip(columns, row, strict=True)))
        for (source, target), row in zip(data.edge_index.t().tolist(), rows, strict=True)
    )
    return graph


def graph_report(data: Data) -> GraphReport:
    """Nodes, edges by rule, degrees and components of one built graph.

    Args:
        data: As for :func:`to_networkx`.

    Raises:
        ValueError: As for :func:`to_networkx`.

    Example:
        >>> from gasmcast import build_temporal_graph, generate_temporal_positions
        >>> print(graph_report(build_temporal_graph(generate_temporal_positions())))
        nodes                     8
        edges                     34
          self-loop               8 (23.5%)
          adjacent                26 (76.5%)
        neighbours of a node      2 to 4, mean 3.2
        isolated nodes            0
        components                1
        symmetric                 yes
    """
    import networkx as nx

    check_single_graph(data)
    loop = data.edge_index[0] == data.edge_index[1]
    source, target = data.edge_index[:, ~loop]
    in_degree = target.bincount(minlength=data.num_nodes)
    out_degree = source.bincount(minlength=data.num_nodes)
    rules, counts = data.edge_rule.unique(return_counts=True)
    similarity = data.edge_attr[~loop, -1].float()
    return GraphReport(
        num_nodes=data.num_nodes,
        num_edges=data.num_edges,
        edges_by_rule=dict(zip(_labels(rules), counts.tolist(), strict=True)),
        min_degree=int(in_degree.min()) if len(in_degree) else 0,
        mean_degree=float(in_degree.float().mean()) if len(in_degree) else 0.0,
        max_degree=int(in_degree.max()) if len(in_degree) else 0,
        num_isolated=int(((in_degree == 0) & (out_degree == 0)).sum()),
        num_components=nx.number_weakly_connected_components(to_networkx(data)),
        symmetric=set(zip(source.tolist(), target.tolist(), strict=True))
        == set(zip(target.tolist(), source.tolist(), strict=True)),
        mean_similarity=float(similarity.mean())
        if has_similarity(data) and len(similarity)
        else None,
    )


def _labels(rules: Tensor) -> list[str]:
    names = {value: EdgeRule(value).label for value in rules.unique().tolist()}
    return [names[value] for value in rules.tolist()]


def has_similarity(data: Data) -> bool:
    """Whether the last column of ``edge_attr`` is the similarity."""
    # The columns are the displacement, the distance and, with features, the similarity.
    return data.edge_attr.size(1) == data.pos.size(1) + 2


def check_single_graph(data: Data) -> None:
    """Refuse, by name, what is not one graph of the builders."""
    if isinstance(data, Batch):
        raise ValueError(
            f"expected one graph, got a Batch of {data.num_graphs}: take one with batch[i]"
        )
    missing = [name for name in ("edge_index", "edge_attr", "edge_rule", "pos") if name not in data]
    if missing:
        raise ValueError(
            f"expected a graph of build_spatial_graph or build_temporal_graph, got {data} "
            f"without {', '.join(missing)}"
        )
