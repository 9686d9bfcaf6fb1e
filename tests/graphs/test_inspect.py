import json
import subprocess
import sys
import time

import networkx as nx
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import homophily
from torch_geometric.utils import to_networkx as pyg_to_networkx

from gasmcast import (
    build_spatial_graph,
    build_temporal_graph,
    draw_graph,
    generate_spatial_positions,
    generate_temporal_positions,
    graph_report,
    to_networkx,
)
from gasmcast.graphs import EdgeRule, Nearest, Similar, build_graph


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return build_spatial_graph(generate_spatial_positions((3, 4)), 0.5, features=torch.randn(12, 3))


def random_graph(num_nodes: int, num_edges: int, seed: int = 0) -> Data:
    """Directed, neither sorted nor free of self-loops."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randperm(num_nodes**2, generator=generator)[:num_edges]
    return Data(
        edge_index=torch.stack([edges % num_nodes, edges // num_nodes]), num_nodes=num_nodes
    )


def test_networkx_says_what_the_graph_says(graph):
    graph.attention = torch.rand(graph.num_edges, 2)
    exported = to_networkx(graph)
    assert type(exported) is nx.DiGraph
    assert list(exported) == list(range(12))
    assert exported.number_of_edges() == graph.num_edges
    assert exported.nodes[5] == {"pos": (1.0, 1.0)}
    for edge, (source, target) in enumerate(graph.edge_index.t().tolist()):
        assert exported.edges[source, target] == {
            "rule": EdgeRule(int(graph.edge_rule[edge])).label,
            "distance": float(graph.edge_attr[edge, 2]),
            "similarity": float(graph.edge_attr[edge, 3]),
            "attention": pytest.approx(float(graph.attention[edge].mean())),
        }


def test_attention_of_one_head_and_of_all(graph):
    graph.attention = torch.rand(graph.num_edges, 2).bfloat16()
    for head in (0, 1):
        exported = to_networkx(graph, head=head)
        for edge, ends in enumerate(graph.edge_index.t().tolist()):
            assert exported.edges[ends]["attention"] == float(graph.attention[edge, head])
    for head in (2, -1, True, 0.5):
        with pytest.raises(ValueError, match=f"head must be None or 0 to 1, got {head}"):
            to_networkx(graph, head=head)
    graph.attention = graph.attention[:, 0]
    assert to_networkx(graph, head=0).edges[1, 0]["attention"] == float(graph.attention[1])
    del graph.attention
    with pytest.raises(ValueError, match=r"no head 0: the graph has no attention, got Data\("):
        to_networkx(graph, head=0)


def test_what_is_exported_can_be_written_and_read_again(graph):
    graph.attention = torch.rand(graph.num_edges, 2)
    exported = to_networkx(graph)
    text = json.dumps(nx.node_link_data(exported, edges="edges"))
    again = nx.node_link_graph(json.loads(text), edges="edges")
    assert dict(again.adj) == dict(exported.adj)
    assert {node: tuple(pos) for node, pos in again.nodes(data="pos")} == dict(
        exported.nodes(data="pos")
    )


@pytest.mark.parametrize("seed", range(3))
def test_networkx_graph_is_the_one_of_pyg(seed):
    data = random_graph(30, 200, seed)
    data.pos, data.y = torch.rand(30, 3), torch.arange(30)
    data.edge_weight = torch.rand(200, requires_grad=True)
    ours, theirs = to_networkx(data), pyg_to_networkx(data, ["pos", "y"], ["edge_weight"])
    for _, attributes in theirs.nodes(data=True):
        attributes["pos"] = tuple(attributes["pos"])
    for *_, attributes in theirs.edges(data=True):
        attributes["weight"] = attributes.pop("edge_weight")
    assert nx.utils.graphs_equal(ours, theirs)
    assert list(ours.nodes) == list(theirs.nodes)
    assert list(ours.edges) == list(theirs.edges)
    assert {node: list(ours.pred[node]) for node in ours} == {
        node: list(theirs.pred[node]) for node in theirs
    }


def test_both_directions_of_looking_share_the_attributes(graph):
    exported = to_networkx(graph)
    exported.edges[0, 1]["rule"] = "changed"
    assert exported.pred[1][0]["rule"] == exported.succ[0][1]["rule"] == "changed"
    exported.remove_edge(0, 1)
    assert not exported.has_edge(0, 1)
    assert 0 not in exported.pred[1]
    assert exported.number_of_edges() == graph.num_edges - 1


def test_weights_are_what_networkx_looks_for(graph):
    graph.edge_weight = torch.arange(float(graph.num_edges))
    exported = to_networkx(graph)
    assert exported.size("weight") == sum(range(graph.num_edges))


def test_only_attributes_that_exist_are_exported(graph):
    graph.attention = torch.rand(graph.num_edges)
    del graph.edge_attr, graph.edge_rule
    exported = to_networkx(graph)
    assert exported.edges[1, 0] == {"attention": float(graph.attention[1])}
    bare = to_networkx(Data(edge_index=torch.tensor([[2], [0]])))
    assert dict(bare.nodes(data=True)) == {0: {}, 1: {}, 2: {}}
    assert list(bare.edges(data=True)) == [(2, 0, {})]


def test_columns_of_edge_attr_follow_positions_and_features(graph):
    only_positions = to_networkx(build_spatial_graph(generate_spatial_positions(2)))
    assert only_positions.edges[0, 3] == {"rule": "adjacent", "distance": pytest.approx(2**0.5)}
    only_features = build_graph(Similar(0.9), features=torch.tensor([[1.0, 0.0], [1.0, 0.1]]))
    exported = to_networkx(only_features)
    assert exported.nodes[0] == {}
    assert exported.edges[0, 1] == {
        "rule": "similar",
        "similarity": float(only_features.edge_attr[1, 0]),
    }
    graph.edge_attr = 2 + torch.rand(graph.num_edges, 4)  # as wide as ours, but no cosines
    assert set(to_networkx(graph).edges[0, 1]) == {"rule"}
    graph.edge_attr = torch.rand(graph.num_edges, 7)  # of another origin: says nothing of distance
    assert set(to_networkx(graph).edges[0, 1]) == {"rule"}
    assert graph_report(graph).mean_similarity is None


def test_labels_of_the_whole_graph_are_no_labels_of_nodes(graph):
    graph.y = torch.tensor([3])
    assert "y" not in to_networkx(graph).nodes[0]
    graph.y = torch.arange(12)
    assert to_networkx(graph).nodes[7]["y"] == 7


def test_an_edge_index_of_pyg_is_exported_and_reported(graph):
    plain = to_networkx(graph), str(graph_report(graph))
    graph.edge_index = EdgeIndex(graph.edge_index, sparse_size=(12, 12), sort_order="col")
    assert nx.utils.graphs_equal(to_networkx(graph), plain[0])
    assert str(graph_report(graph)) == plain[1]


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
    between = graph.edge_index[0] != graph.edge_index[1]
    assert report.mean_similarity == pytest.approx(float(graph.edge_attr[between, 3].mean()))
    assert "mean similarity of edges" in str(report)


@pytest.mark.parametrize("num_edges", [0, 5, 20, 40, 80, 400])
def test_report_of_random_graphs_agrees_with_networkx(num_edges):
    for seed in range(5):
        data = random_graph(60, num_edges, seed)
        exported = pyg_to_networkx(data)
        exported.remove_edges_from(list(nx.selfloop_edges(exported)))
        report = graph_report(data)
        assert report.num_components == nx.number_weakly_connected_components(exported)
        assert report.num_isolated == nx.number_of_isolates(exported)
        assert report.max_degree == max(degree for _, degree in exported.in_degree())
        assert report.min_degree == min(degree for _, degree in exported.in_degree())
        assert report.symmetric == (
            nx.overall_reciprocity(exported) == 1 if exported.size() else True
        )


def test_components_along_a_shuffled_path():
    """The longest way that a label can have to go."""
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    path = Data(edge_index=torch.stack([order[:-1], order[1:]]), num_nodes=2000)
    assert graph_report(path).num_components == 1
    path.edge_index = path.edge_index[:, torch.arange(1999) != 1000]
    assert graph_report(path).num_components == 2


def test_symmetry_agrees_with_scipy():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    for seed in range(20):
        data = random_graph(4, 8, seed)
        if seed % 2:
            data.edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1).unique(
                dim=1
            )
        ends = tuple(data.edge_index.numpy())
        matrix = scipy_sparse.coo_array((torch.ones(data.num_edges), ends), (4, 4)).toarray()
        assert graph_report(data).symmetric == (matrix == matrix.T).all()


def test_report_of_half_a_million_edges_takes_a_moment():
    data = random_graph(3136, 500_000)
    start = time.perf_counter()
    assert graph_report(data, torch.arange(3136) % 5).num_components == 1
    assert time.perf_counter() - start < 5  # about 0.15 s; with Python sets and networkx, many


def test_report_counts_isolated_nodes_and_components():
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    report = graph_report(build_spatial_graph(positions))
    assert (report.num_isolated, report.num_components, report.min_degree) == (1, 2, 0)
    assert report.mean_similarity is None


def test_report_sees_a_missing_direction():
    assert not graph_report(build_graph(Nearest(1), torch.tensor([[0.0], [1.0], [3.0]]))).symmetric


def test_empty_graph_has_a_report():
    report = graph_report(build_spatial_graph(torch.empty(0, 2)))
    assert (report.num_nodes, report.num_edges, report.num_components) == (0, 0, 0)
    assert str(report)


def test_report_without_rules_and_attributes():
    report = graph_report(Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3))
    assert report.edges_by_rule == {}
    assert report.mean_similarity is None
    assert report.homophily is None
    assert str(report).splitlines() == [
        "nodes                     3",
        "edges                     2",
        "neighbours of a node      0 to 1, mean 0.7",
        "isolated nodes            1",
        "components                2",
        "symmetric                 yes",
    ]


def test_homophily_by_hand_and_by_pyg(graph):
    path = build_graph(Nearest(1), torch.tensor([[0.0], [1.0], [3.0]]))  # 1 -> 0, 0 -> 1, 1 -> 2
    report = graph_report(path, torch.tensor([4, 4, 7]))
    assert report.homophily == pytest.approx(2 / 3)
    assert str(report).endswith("edges of one label        66.7%")
    labels = torch.arange(12) % 3
    between = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    assert graph_report(graph, labels).homophily == pytest.approx(homophily(between, labels))
    loops_only = build_graph(Similar(2.0), features=torch.rand(3, 2))
    assert graph_report(loops_only, torch.zeros(3)).homophily is None


def test_labels_of_another_shape_are_refused(graph):
    expected = r"labels must be a tensor with one label a node, \[12\], got "
    with pytest.raises(ValueError, match=expected + r"\[12, 1\]"):
        graph_report(graph, torch.zeros(12, 1))
    with pytest.raises(ValueError, match=expected + r"\[5\]"):
        graph_report(graph, torch.zeros(5))
    with pytest.raises(ValueError, match=expected + "list"):
        graph_report(graph, [0] * 12)


@pytest.mark.parametrize("look", [to_networkx, graph_report, draw_graph])
def test_what_is_not_one_graph_is_refused(look):
    batch = build_temporal_graph(generate_temporal_positions(), features=torch.randn(2, 8, 3))
    with pytest.raises(ValueError, match=r"got a Batch of 2: take one with batch\[i\]"):
        look(batch)
    with pytest.raises(ValueError, match="a torch_geometric Data, got HeteroData"):
        look(HeteroData())
    with pytest.raises(ValueError, match=r"got Data\(x=\[3, 1\]\) without edge_index"):
        look(Data(x=torch.rand(3, 1)))
    stranger = batch[0]
    stranger.edge_index = stranger.edge_index + 3
    with pytest.raises(ValueError, match=r"is no graph: edge \d+ \(.* -> .*\) leaves the 8 nodes"):
        look(stranger)
    stranger = batch[0]
    stranger.edge_rule = stranger.edge_rule[:5]
    with pytest.raises(ValueError, match=r"edge_rule must have one row an edge, \[\d+, ...\], got"):
        look(stranger)
    stranger = batch[0]
    stranger.edge_index = stranger.edge_index.float()
    with pytest.raises(ValueError, match=r"edge_index must be int64 \[2, E\], got float32"):
        look(stranger)


def test_importing_the_graphs_stays_light():
    # Nothing but the package itself, beyond what torch and torch-geometric load.
    code = (
        "import sys, torch, torch_geometric.transforms; before = set(sys.modules); "
        "import gasmcast.graphs; "
        "added = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(added - set(sys.stdlib_module_names)), 'gasmcast.nn' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == "['gasmcast'] False"
