"""The strict check: what the builders make passes, and each way to break it is named."""

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData

from gasmcast import generate_spatial_positions, generate_spatiotemporal_positions
from gasmcast.graphs import (
    Adjacent,
    EdgeRule,
    Nearest,
    Similar,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    check_graph,
)

GRID = generate_spatial_positions((3, 4))


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return build_spatial_graph(GRID, 0.3, features=torch.randn(12, 4))


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return build_spatial_graph(GRID, 0.3, features=torch.randn(3, 12, 4))


def refusal(data, **options) -> list[str]:
    with pytest.raises(
        ValueError, match="^the graph is not as the builders make it:\n  "
    ) as caught:
        check_graph(data, **options)
    return str(caught.value).split("\n  ")[1:]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"self_loops": False},
        {"edge_attr": False},
        {"edge_weight": True},
        {"as_edge_index": True},
        {"min_neighbors": 6, "max_neighbors": 7, "connected": True, "undirected": True},
    ],
)
@pytest.mark.parametrize("clips", [(), (3,)])
def test_what_the_builders_make_passes(options, clips):
    torch.manual_seed(0)
    features = torch.randn(*clips, 12, 4)
    symmetric = "max_neighbors" not in options or "undirected" in options
    for built in (
        build_spatial_graph(GRID, 0.3, features=features, **options),
        build_temporal_graph(torch.arange(12.0)[:, None], features=features, **options),
        build_spatiotemporal_graph(
            generate_spatiotemporal_positions(3, 2), 0.3, features=features, **options
        ),
        build_graph(Similar(0.3), features=features, **options),
        build_graph(Adjacent(1), GRID, features=features, **options),
    ):
        before = built.clone()
        check_graph(built, symmetric=symmetric)
        assert built.keys() == before.keys()
        assert all(torch.equal(built[name], before[name]) for name in before.keys())  # noqa: SIM118


def test_graphs_of_positions_alone_and_clips_without_nodes_pass():
    check_graph(build_spatial_graph(GRID), symmetric=True)
    ragged = build_spatial_graph(GRID[:3], ptr=torch.tensor([0, 0, 2, 3, 3]))
    assert ragged.num_graphs == 4
    check_graph(ragged)


def test_directed_graphs_pass_but_are_not_symmetric():
    built = build_graph(Nearest(2), torch.tensor([[0.0], [1.0], [2.0], [9.0]]))
    check_graph(built)
    (fault,) = refusal(built, symmetric=True)
    pairs = set(map(tuple, built.edge_index.t().tolist()))
    alone = [
        edge for edge, (i, j) in enumerate(built.edge_index.t().tolist()) if (j, i) not in pairs
    ]
    source, target = built.edge_index[:, alone[0]].tolist()
    assert fault == (
        f"edge {alone[0]} ({source} -> {target}) has no reverse ({len(alone)} such edges in all)"
    )


def test_graphs_without_anything_but_edges_and_empty_ones_pass():
    check_graph(Data(edge_index=torch.tensor([[1, 0], [0, 1]])), symmetric=True)
    check_graph(Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=0))
    check_graph(build_spatial_graph(torch.empty(0, 2)))
    check_graph(build_spatial_graph(GRID[:0], features=torch.empty(2, 0, 3)))


def test_what_is_no_graph_is_refused():
    with pytest.raises(ValueError, match="expected a Data or Batch of torch_geometric, got dict"):
        check_graph({})
    with pytest.raises(ValueError, match="expected a Data or Batch .* got HeteroData"):
        check_graph(HeteroData())
    assert refusal(Data(x=torch.rand(3, 1))) == ["edge_index is missing"]


@pytest.mark.parametrize(
    ("edge_index", "came"),
    [
        (torch.zeros(2, 5), "float32 [2, 5]"),
        (torch.zeros(3, 5, dtype=torch.long), "int64 [3, 5]"),
        (torch.zeros(2, dtype=torch.long), "int64 [2]"),
        (torch.zeros(2, 5, dtype=torch.int32), "int32 [2, 5]"),
        ([[0], [1]], "list"),
    ],
)
def test_edge_index_of_another_shape_or_type(edge_index, came):
    data = Data(edge_index=edge_index, x=torch.rand(3, 1))
    assert refusal(data, symmetric=True) == [f"edge_index must be int64 [2, E], got {came}"]


def test_nodes_that_do_not_exist(graph):
    graph.edge_index[0, 3], graph.edge_index[1, -1] = -1, 12
    target, source = int(graph.edge_index[1, 3]), int(graph.edge_index[0, -1])
    (fault,) = refusal(graph)
    assert fault == f"edge 3 (-1 -> {target}) leaves the 12 nodes (2 such edges in all)"
    assert source < 12


def test_order_names_the_first_edge_out_of_place():
    data = Data(edge_index=torch.tensor([[0, 2, 1, 0], [0, 0, 0, 2]]), num_nodes=3)
    faults = refusal(data)
    assert faults[0] == (
        "edge_index is not sorted by target, then source: edge 2 (1 -> 0) comes after edge 1 "
        "(2 -> 0)"
    )
    sorted_by_source = Data(edge_index=torch.tensor([[0, 0, 1], [1, 2, 0]]))
    assert refusal(sorted_by_source) == [
        "edge_index is not sorted by target, then source: edge 2 (1 -> 0) comes after edge 1 "
        "(0 -> 2)"
    ]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 1, 3, 0, 2]])
def test_duplicates_are_found_sorted_or_not(order):
    edges = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])[:, order]
    faults = refusal(Data(edge_index=edges))
    assert faults[-1] == "edge 1 -> 0 comes 3 times (3 such duplicates in all)"


def test_self_loops_are_everywhere_or_nowhere():
    loops = torch.tensor([[0, 1, 2], [0, 1, 2]])
    check_graph(Data(edge_index=loops, num_nodes=3))
    assert refusal(Data(edge_index=loops[:, :2], num_nodes=4)) == [
        "node 2 has 0 self-loops, expected one at every node or none at all (2 such nodes in all)"
    ]
    twice = Data(edge_index=loops[:, [0, 1, 1, 2]], num_nodes=3)
    assert refusal(twice) == [
        "edge 1 -> 1 comes 2 times",
        "node 1 has 2 self-loops, expected one at every node or none at all",
    ]


def test_rows_must_fit_edges_and_nodes(graph):
    edges = graph.num_edges
    graph.edge_weight, graph.attention = torch.ones(edges - 1), torch.ones(edges + 1, 2)
    graph.edge_attr, graph.edge_rule = graph.edge_attr[1:], graph.edge_rule[:-1]
    graph.pos = graph.pos[:5]
    assert refusal(graph) == [
        f"edge_attr must have one row an edge, [{edges}, ...], got float32 [{edges - 1}, 4]",
        f"edge_rule must have one row an edge, [{edges}, ...], got uint8 [{edges - 1}]",
        f"edge_weight must have one row an edge, [{edges}, ...], got float32 [{edges - 1}]",
        f"attention must have one row an edge, [{edges}, ...], got float32 [{edges + 1}, 2]",
        "pos must have one row a node, [12, ...], got float32 [5, 2]",
    ]


def test_labels_may_be_of_nodes_or_of_graphs(graph, batch):
    for y in (torch.tensor(1), torch.ones(1), torch.ones(1, 7), torch.ones(12), torch.ones(5)):
        graph.y = y
        check_graph(graph)
    for y in (torch.ones(36), torch.ones(3), torch.ones(3, 7), torch.ones(6)):
        batch.y = y
        check_graph(batch)
    batch.y = torch.ones(35)
    assert refusal(batch) == [
        "y must have one row a node, [36, ...], or as many for each of the 3 clips, "
        "got float32 [35]"
    ]


def test_columns_of_edge_attr(graph):
    columns = graph.edge_attr
    for allowed in (columns, columns[:, :3]):
        graph.edge_attr = allowed
        check_graph(graph)
    edges = graph.num_edges
    expected = (
        "edge_attr must have 3 columns beside pos float32 [12, 2] (displacement, distance), 4 "
    )
    for wrong in (columns[:, :2], columns[:, [0, 1, 2, 3, 3]]):
        graph.edge_attr = wrong
        assert refusal(graph) == [
            f"{expected}with similarity, got float32 [{edges}, {wrong.size(1)}]"
        ]
    graph.edge_attr = columns[:, 0]
    assert refusal(graph) == [f"edge_attr must be float [E, F], got float32 [{edges}]"]
    graph.edge_attr = columns.long()
    assert refusal(graph) == [f"edge_attr must be float [E, F], got int64 [{edges}, 4]"]
    graph.edge_attr = columns[:, 1:3]
    del graph.pos
    assert refusal(graph) == [
        f"edge_attr must have 1 column without pos (similarity), got float32 [{edges}, 2]"
    ]


def test_positions_are_a_matrix():
    data = Data(edge_index=torch.tensor([[1], [0]]), pos=torch.rand(2))
    assert refusal(data) == ["pos must be [2, d], got float32 [2]"]


def test_values_that_are_not_finite(graph):
    graph.edge_attr[7, 2] = torch.nan
    assert refusal(graph) == ["edge_attr of edge 7 is nan in column 2"]
    graph.edge_attr[4, 3] = -torch.inf
    assert refusal(graph) == ["edge_attr of edge 4 is -inf in column 3 (2 such edges in all)"]


def test_rules_say_what_the_edges_are(graph):
    loops = (graph.edge_index[0] == graph.edge_index[1]).nonzero().squeeze(1).tolist()
    others = (graph.edge_index[0] != graph.edge_index[1]).nonzero().squeeze(1).tolist()
    ends = [f"{source} -> {target}" for source, target in graph.edge_index.t().tolist()]
    graph.edge_rule[others[0]] = 0
    graph.edge_rule[others[1]] |= EdgeRule.SELF_LOOP
    graph.edge_rule[loops[1]] = EdgeRule.SELF_LOOP | EdgeRule.SIMILAR
    graph.edge_rule[loops[2]] = EdgeRule.ADJACENT
    assert refusal(graph) == [
        f"edge {others[0]} ({ends[others[0]]}) has no bit in edge_rule",
        f"edge {loops[1]} ({ends[loops[1]]}) is a self-loop, its rule says 'self-loop + similar' "
        "(2 such edges in all)",
        f"edge {others[1]} ({ends[others[1]]}) has the bit of self-loops, but is none",
    ]
    graph.edge_rule = graph.edge_rule.long()
    assert refusal(graph) == [f"edge_rule must be uint8 [E], got int64 [{graph.num_edges}]"]


def test_edges_between_clips_are_named(batch):
    across = (batch.edge_index[1] == 12).nonzero()[0]
    batch.edge_index[0, across] = 3
    faults = refusal(batch)
    assert f"edge {int(across)} (3 -> 12) leads from clip 0 to clip 1" in faults
    # the same in a Data that has only been given the clip of each node
    data = Data(edge_index=torch.tensor([[0], [1]]), batch=torch.tensor([0, 1]))
    assert refusal(data) == ["edge 0 (0 -> 1) leads from clip 0 to clip 1"]


def test_batch_and_ptr_say_the_same(batch):
    whole = batch.clone()
    batch.ptr = torch.tensor([0, 12, 23, 36])
    assert refusal(batch) == ["batch and ptr disagree: clip 1 has 12 nodes by batch, 11 by ptr"]
    batch.ptr = torch.tensor([0, 12, 36])
    assert refusal(batch) == ["batch and ptr disagree: clip 1 has 12 nodes by batch, 24 by ptr"]
    batch.ptr = torch.tensor([0, 12, 24, 36, 36])
    assert refusal(batch) == ["ptr speaks of 4 clips, num_graphs of 3"]
    batch.ptr = torch.tensor([0, 24, 12, 36])
    assert refusal(batch) == ["ptr must rise from 0 to the 36 nodes, got [0, 24, 12, 36]"]
    batch.ptr = torch.tensor([1, 12, 24, 35])
    assert refusal(batch) == ["ptr must rise from 0 to the 36 nodes, got [1, 12, 24, 35]"]
    batch.ptr = torch.tensor([0, 12, 24, 35])
    assert refusal(batch) == ["ptr must rise from 0 to the 36 nodes, got [0, 12, 24, 35]"]
    batch.ptr = torch.tensor([0.0, 36.0])
    assert refusal(batch) == ["ptr must be int64 [B + 1], got float32 [2]"]
    batch.ptr = None
    assert refusal(batch) == ["ptr is missing, though this is a Batch"]

    batch = whole.clone()
    batch.batch = batch.batch[:-1]
    assert refusal(batch) == ["batch must be int64 [36], got int64 [35]"]
    batch.batch = whole.batch.flip(0)
    assert refusal(batch) == ["batch is not sorted from 0 on: node 12 is of clip 1, after clip 2"]
    batch.batch = whole.batch - 1
    assert refusal(batch) == [
        "batch is not sorted from 0 on: node 0 is of clip -1, after the start"
    ]
    batch.batch = None
    assert refusal(batch) == ["batch is missing, though this is a Batch"]


def test_batches_of_pyg_pass(graph):
    other = build_spatial_graph(GRID[:5], 0.3, features=torch.randn(5, 4))
    joined = Batch.from_data_list([graph, other])
    check_graph(joined, symmetric=True)
    for part in joined.to_data_list():
        check_graph(part, symmetric=True)


def test_an_edge_index_of_pyg_is_checked_like_a_tensor():
    good = EdgeIndex([[1, 0], [0, 1]], sparse_size=(2, 2), sort_order="col")
    check_graph(Data(edge_index=good), symmetric=True)
    bad = EdgeIndex([[0, 1], [1, 0]], sparse_size=(2, 2), sort_order="row")
    assert "not sorted by target" in refusal(Data(edge_index=bad))[0]


def test_tensors_on_different_devices_are_named():
    data = Data(edge_index=torch.tensor([[0], [0]]), x=torch.empty(1, 2, device="meta"))
    assert refusal(data) == ["the tensors are on different devices: edge_index on cpu, x on meta"]


def test_everything_wrong_comes_at_once(graph):
    graph.edge_index = graph.edge_index.flip(1)
    graph.edge_attr[0, 0] = torch.nan
    graph.edge_weight = torch.ones(3)
    faults = refusal(graph)
    assert [fault.split()[0] for fault in faults][:2] == ["edge_weight", "edge_index"]
    assert "edge_attr of edge 0 is nan in column 0" in faults


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pos", "pos of node 2 is NaN or infinite"),
        ("x", "x of node 2 is NaN or infinite"),
        ("edge_weight", "edge_weight of edge 2 is NaN or infinite"),
    ],
)
def test_values_must_be_finite(name, message):
    features = torch.rand(4, 3)
    positions = torch.arange(4.0).unsqueeze(1)
    graph = build_temporal_graph(positions, features=features, edge_weight=True)
    check_graph(graph)
    graph[name] = graph[name].clone()
    graph[name][2] = torch.nan
    with pytest.raises(ValueError, match=message):
        check_graph(graph)
