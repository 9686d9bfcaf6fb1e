import subprocess
import sys

import networkx as nx
import pytest
import torch
from matplotlib.figure import Figure

from gasmcast import (
    build_spatial_graph,
    build_temporal_graph,
    draw_graph,
    generate_spatial_positions,
    generate_temporal_positions,
    graph_report,
    to_networkx,
)
from gasmcast.graphs.rules import EdgeRule


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return build_spatial_graph(generate_spatial_positions((3, 4)), 0.5, features=torch.randn(12, 3))


def test_networkx_says_what_the_graph_says(graph):
    graph.attention = torch.rand(graph.num_edges, 2)
    exported = to_networkx(graph)
    assert isinstance(exported, nx.DiGraph)
    assert exported.number_of_nodes() == 12
    assert exported.number_of_edges() == graph.num_edges
    assert exported.nodes[5]["pos"] == (1.0, 1.0)
    for edge, (source, target) in enumerate(graph.edge_index.t().tolist()):
        attributes = exported.edges[source, target]
        assert attributes["rule"] == EdgeRule(int(graph.edge_rule[edge])).label
        assert attributes["distance"] == float(graph.edge_attr[edge, 2])
        assert attributes["similarity"] == float(graph.edge_attr[edge, 3])
        assert attributes["attention"] == pytest.approx(float(graph.attention[edge].mean()))


def test_report_agrees_with_networkx(graph):
    report = graph_report(graph)
    exported = to_networkx(graph)
    exported.remove_edges_from(list(nx.selfloop_edges(exported)))
    degrees = [degree for _, degree in exported.in_degree()]
    assert (report.num_nodes, report.num_edges) == (12, graph.num_edges)
    assert (report.min_degree, report.max_degree) == (min(degrees), max(degrees))
    assert report.mean_degree == pytest.approx(sum(degrees) / 12)
    assert report.num_components == nx.number_weakly_connected_components(exported)
    assert report.symmetric
    assert sum(report.edges_by_rule.values()) == graph.num_edges
    assert report.edges_by_rule["self-loop"] == 12
    assert "mean similarity of edges" in str(report)


def test_report_counts_isolated_nodes_and_components():
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    report = graph_report(build_spatial_graph(positions))
    assert (report.num_isolated, report.num_components, report.min_degree) == (1, 2, 0)
    assert report.mean_similarity is None


def test_report_sees_a_missing_direction():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3]])
    graph = build_temporal_graph(torch.arange(3.0)[:, None], 0, features=features, max_neighbors=1)
    assert not graph_report(graph).symmetric


def test_empty_graph_has_a_report():
    report = graph_report(build_spatial_graph(torch.empty(0, 2)))
    assert (report.num_nodes, report.num_edges, report.num_components) == (0, 0, 0)
    assert str(report)


def test_drawn_lines_are_the_edges(graph):
    ax = draw_graph(graph, torch.rand(3, 30, 40), Figure().add_subplot(), top_k=None)
    drawn = {
        tuple(sorted(tuple(map(float, point)) for point in line))
        for collection in ax.collections
        if hasattr(collection, "get_segments")
        for line in collection.get_segments()
    }
    expected = {
        tuple(sorted((tuple(graph.pos[i].tolist()), tuple(graph.pos[j].tolist()))))
        for i, j in graph.edge_index.t().tolist()
        if i != j
    }
    assert drawn == expected
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == set(graph_report(graph).edges_by_rule) - {"self-loop"}


def test_top_k_thins_far_edges_to_the_most_similar():
    angle = torch.tensor([0.0, 0.1, 0.3, 0.6])
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    positions = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    graph = build_spatial_graph(positions, 0.5, features=features)
    ax = draw_graph(graph, ax=Figure().add_subplot(), top_k=1)
    (lines,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    # the most similar of 0 is 1, of 1 is 0, of 2 is 1, of 3 is 2
    assert len(lines.get_segments()) == 3


def test_temporal_graph_is_drawn_as_arcs():
    graph = build_temporal_graph(generate_temporal_positions(), 1)
    ax = draw_graph(graph, ax=Figure().add_subplot())
    (arcs,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    assert len(arcs.get_segments()) == 7
    for arc in arcs.get_segments():
        assert arc[0, 0] == pytest.approx(arc[-1, 0] - 1)
        assert arc[:, 1].max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("look", [to_networkx, graph_report, draw_graph])
def test_a_batch_or_a_stranger_is_refused(look):
    batch = build_temporal_graph(generate_temporal_positions(), features=torch.randn(2, 8, 3))
    with pytest.raises(ValueError, match=r"got a Batch of 2: take one with batch\[i\]"):
        look(batch)
    stranger = batch[0]
    del stranger.edge_rule
    with pytest.raises(ValueError, match="without edge_rule"):
        look(stranger)


def test_what_cannot_be_drawn(graph):
    with pytest.raises(ValueError, match=r"image must be a tensor \[3, H, W\], got \[8, 8\]"):
        draw_graph(graph, torch.zeros(8, 8))
    with pytest.raises(ValueError, match=r"image must be a tensor .* got ndarray"):
        draw_graph(graph, torch.zeros(3, 8, 8).numpy())
    with pytest.raises(ValueError, match=r"can be drawn, got \[5, 3\]"):
        draw_graph(build_spatial_graph(torch.rand(5, 3)))


def test_importing_the_graphs_stays_light():
    code = (
        "import sys, gasmcast.graphs; "
        "print([m for m in ('timm', 'torchvision', 'matplotlib', 'decord', 'av', 'lightning', "
        "'gasmcast.nn', 'gasmcast.extractors') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == "[]"
