import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_undirected

from gasmcast import (
    EdgeRule,
    build_spatial_graph,
    build_temporal_graph,
    generate_spatial_positions,
)
from gasmcast.graphs import Adjacent, Nearest, Rule, Similar, build_graph, target_ptr


def edges(data: Data) -> set[tuple[int, int]]:
    return set(map(tuple, data.edge_index.t().tolist()))


def test_three_patches_by_hand():
    # 0 and 1 touch; 2 is far away and looks like 0: cos(0, 2) = 1, cos(0, 1) = cos(1, 2) = 0.
    positions = torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 4.0]])
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    graph = build_spatial_graph(positions, 0.8, features=features)
    assert graph.edge_index.tolist() == [[0, 1, 2, 0, 1, 0, 2], [0, 0, 0, 1, 1, 2, 2]]
    loop, near, far = EdgeRule.SELF_LOOP, EdgeRule.ADJACENT, EdgeRule.SIMILAR
    assert graph.edge_rule.tolist() == [loop, near, far, near, loop, far, loop]
    # displacement from target to source, distance, similarity
    root2, root41 = 2**0.5, 41**0.5
    expected = [
        [0, 0, 0, 1],
        [1, 1, root2, 0],
        [5, 4, root41, 1],
        [-1, -1, root2, 0],
        [0, 0, 0, 1],
        [-5, -4, root41, 1],
        [0, 0, 0, 1],
    ]
    torch.testing.assert_close(graph.edge_attr, torch.tensor(expected))
    assert torch.equal(graph.x, features)
    assert torch.equal(graph.pos, positions)


def test_bounds_are_inclusive():
    positions = torch.tensor([[0.0], [2.0], [10.0]])
    assert (0, 1) in edges(build_temporal_graph(positions, 2))
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    graph = build_temporal_graph(positions, 0, features=features, similarity_threshold=1.0)
    assert edges(graph) == {(0, 0), (1, 1), (2, 2), (0, 2), (2, 0)}


def test_both_rules_leave_both_bits():
    graph = build_temporal_graph(torch.tensor([[0.0], [1.0]]), features=torch.ones(2, 3))
    assert graph.edge_rule.tolist() == [1, 12, 12, 1]
    assert EdgeRule(12).label == "similar + window"


def test_batch_equals_clips_one_by_one():
    features = torch.randn(3, 12, 4)
    positions = generate_spatial_positions((3, 4))
    batch = build_spatial_graph(positions, 0.3, features=features)
    assert isinstance(batch, Batch)
    assert batch.num_graphs == 3
    assert batch.validate()
    singles = [build_spatial_graph(positions, 0.3, features=x) for x in features]
    reference = Batch.from_data_list(singles)
    for name in ("x", "pos", "edge_index", "edge_attr", "edge_rule", "batch", "ptr"):
        assert torch.equal(batch[name], reference[name]), name
    for taken, single in zip(batch.to_data_list(), singles, strict=True):
        assert taken.keys() == single.keys()
        for name in single.keys():  # noqa: SIM118 - Data is no dict
            assert torch.equal(taken[name], single[name]), name
    assert torch.equal(batch[1].x, features[1])


def test_a_position_for_each_clip():
    positions = torch.rand(2, 5, 2) * 3
    features = torch.randn(2, 5, 3)
    batch = build_spatial_graph(positions, 2.0, features=features)
    for clip in range(2):
        single = build_spatial_graph(positions[clip], 2.0, features=features[clip])
        assert torch.equal(batch[clip].edge_index, single.edge_index)


def test_permuting_nodes_permutes_edges():
    features, positions = torch.randn(20, 6), torch.rand(20, 2) * 5
    order = torch.randperm(20)
    graph = build_spatial_graph(positions, 0.2, features=features)
    permuted = build_spatial_graph(positions[order], 0.2, features=features[order])
    back = {(int(order[i]), int(order[j])) for i, j in edges(permuted)}
    assert back == edges(graph)


def test_symmetric_sorted_unique_with_one_loop_each():
    graph = build_spatial_graph(generate_spatial_positions(6), 0.1, features=torch.randn(36, 3))
    source, target = graph.edge_index
    key = target * 36 + source
    assert (key.diff() > 0).all()  # sorted by target, then source, and no duplicates
    assert is_undirected(graph.edge_index)
    assert int((source == target).sum()) == 36
    assert graph.edge_rule[source == target].tolist() == [EdgeRule.SELF_LOOP] * 36


def test_cap_keeps_the_most_similar_and_ties_go_to_the_smaller_index():
    # Far apart on a line; node 0 is as similar to 1 as to 2, and more to 3.
    positions = torch.arange(4.0)[:, None] * 10
    angle = torch.tensor([0.0, 0.4, -0.4, 0.2])
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    features[2] = features[1]  # an exact tie
    capped = build_temporal_graph(
        positions, 0, features=features, similarity_threshold=0.5, max_neighbors=2
    )
    assert sorted(j for j, i in edges(capped) if i == 0) == [0, 1, 3]
    none = build_temporal_graph(
        positions, 0, features=features, similarity_threshold=0.5, max_neighbors=0
    )
    assert edges(none) == {(i, i) for i in range(4)}


def test_cap_leaves_adjacent_edges_alone():
    features = torch.ones(9, 2)
    graph = build_spatial_graph(generate_spatial_positions(3), features=features, max_similar=0)
    assert edges(graph) == edges(build_spatial_graph(generate_spatial_positions(3)))
    # all of them are similar too, and say so
    assert set(graph.edge_rule.tolist()) == {EdgeRule.SELF_LOOP, EdgeRule(6)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_build_the_same_edges(dtype):
    features = torch.randn(30, 8).to(dtype)  # the same numbers in every dtype
    positions = torch.rand(30, 2) * 5
    graph = build_spatial_graph(positions, 0.4, features=features)
    reference = build_spatial_graph(positions, 0.4, features=features.double())
    assert graph.x.dtype == graph.edge_attr.dtype == dtype
    assert torch.equal(graph.edge_index, reference.edge_index)


def test_autocast_does_not_change_the_edges():
    features, positions = torch.randn(2, 40, 16), torch.rand(40, 2) * 9
    reference = build_spatial_graph(positions, 0.25, features=features)
    with torch.autocast("cpu", torch.bfloat16):
        graph = build_spatial_graph(positions, 0.25, features=features)
    assert torch.equal(graph.edge_attr, reference.edge_attr)


def test_inputs_stay_untouched_and_gradients_pass():
    features = torch.randn(2, 6, 3, requires_grad=True)
    before = features.detach().clone()
    graph = build_temporal_graph(torch.arange(6.0)[:, None], features=features)
    graph.x.sum().backward()
    assert torch.equal(features, before)
    assert torch.equal(features.grad, torch.ones_like(features))


def test_zero_vectors_are_similar_to_nothing():
    graph = build_temporal_graph(
        torch.tensor([[0.0], [9.0]]), features=torch.zeros(2, 3), similarity_threshold=0.0
    )
    # cosine 0 is at the threshold 0, which is inclusive; above it nothing ties them
    assert graph.num_edges == 4
    graph = build_temporal_graph(
        torch.tensor([[0.0], [9.0]]), features=torch.zeros(2, 3), similarity_threshold=0.1
    )
    assert graph.num_edges == 2


def test_no_nodes_no_edges():
    graph = build_spatial_graph(torch.empty(0, 2), features=torch.empty(0, 4))
    assert graph.num_nodes == 0
    assert graph.edge_index.shape == (2, 0)
    assert graph.edge_attr.shape == (0, 4)


P = generate_spatial_positions(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"positions": P, "similarity_threshold": torch.zeros(4, 3)},
            r"must be a number, got a tensor \[4, 3\]: features are given by name",
        ),
        ({"positions": P.numpy()}, "positions must be a torch tensor, got ndarray"),
        ({"positions": P, "features": [[1.0]]}, "features must be a torch tensor, got list"),
        ({"positions": torch.zeros(4)}, r"positions must be float \[N, d\].* got float32 \[4\]"),
        ({"positions": P, "features": torch.zeros(4, 0)}, r"features must be .* float32 \[4, 0\]"),
        ({"positions": torch.zeros(4, 2).long()}, r"got int64 \[4, 2\]"),
        ({"positions": P, "features": torch.zeros(4)}, r"features must be .* got float32 \[4\]"),
        (
            {"positions": P, "features": torch.zeros(5, 3)},
            r"positions float32 \[4, 2\] do not fit features float32 \[5, 3\]: expected one "
            r"position a node, \[5, d\]",
        ),
        (
            {"positions": torch.zeros(3, 4, 2), "features": torch.zeros(2, 4, 3)},
            r"do not fit features float32 \[2, 4, 3\]",
        ),
        ({"positions": P, "batch": torch.tensor([0, 1, 0, 1])}, "batch must be sorted"),
        ({"positions": P, "batch": torch.tensor([-1, 0, 0, 1])}, "sorted and not negative"),
        ({"positions": P, "radius": -1}, "must be a number of at least 0, got -1"),
        ({"positions": P, "batch": torch.zeros(4)}, r"batch must be int64 \[sum N\], got float32"),
        (
            {"positions": P, "features": torch.zeros(3, 2), "batch": torch.zeros(4).long()},
            r"features must be \[4, \.\.\.\].*got float32 \[3, 2\]",
        ),
        (
            {"positions": P, "features": torch.zeros(1, 4, 2), "mask": torch.ones(1, 4)},
            r"mask must be bool \[B, N\].* got float32 \[1, 4\]",
        ),
        (
            {"positions": P, "batch": torch.zeros(4).long(), "mask": torch.ones(1, 4).bool()},
            r"one of batch, ptr .* got \['batch', 'mask'\]",
        ),
        (
            {"positions": P, "max_neighbors": -1},
            "largest number of neighbours .* at least 0, got -1",
        ),
        (
            {"positions": P, "similarity_threshold": torch.nan},
            "number, Quantile or TargetDegree, got nan",
        ),
        (
            {"positions": torch.full((2, 2), torch.inf)},
            "positions must be finite.*node 0 of clip 0",
        ),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_spatial_graph(**arguments)


def test_temporal_positions_have_one_coordinate():
    message = r"temporal positions must be \[N, 1\] or \[B, N, 1\], got float32 \[4, 2\]"
    with pytest.raises(ValueError, match=message):
        build_temporal_graph(P)


def test_an_empty_ragged_batch():
    none = torch.empty(0, dtype=torch.long)
    batch = build_spatial_graph(torch.empty(0, 2), features=torch.empty(0, 3), batch=none)
    assert (batch.num_graphs, batch.num_nodes, batch.num_edges) == (0, 0, 0)


@pytest.mark.parametrize("size", [3e38, 1e25, 1e-25, 1e-44])
def test_vectors_of_any_length_have_a_direction(size):
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]) * size
    graph = build_spatial_graph(P, 0.5, features=features, radius=0)
    assert edges(graph) == {(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 0)}


def test_what_does_not_exist_takes_no_place_under_the_cap():
    # All are alike and far apart; by their index, those that do not exist would come first.
    features, positions = torch.ones(2, 8, 3), torch.arange(8.0)[:, None].repeat(1, 2) * 10
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, :3] = mask[1, 1] = False
    padded = build_spatial_graph(positions, features=features, mask=mask, max_similar=2)
    for clip, graph in enumerate(padded.to_data_list()):
        existing = mask[clip]
        alone = build_spatial_graph(
            positions[existing], features=features[clip, existing], max_similar=2
        )
        assert torch.equal(graph.edge_index, alone.edge_index)
        assert graph.num_edges == 3 * int(existing.sum())  # two places and the self-loop


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_beyond_half_precision_is_no_overflow(dtype):
    features = torch.full((4, 768), 3000.0, dtype=dtype)  # norm 83,138; float16 ends at 65,504
    features[3] *= -1
    graph = build_spatial_graph(generate_spatial_positions(2), features=features)
    source, target = graph.edge_index
    opposite = (source == 3) != (target == 3)
    assert graph.edge_attr.dtype == dtype
    expected = torch.where(opposite, -1.0, 1.0).to(dtype)
    torch.testing.assert_close(graph.edge_attr[:, -1], expected)


def test_each_graph_of_a_batch_keeps_its_pointer():
    features = torch.randn(3, 9, 4)
    batch = build_spatial_graph(
        generate_spatial_positions(3), features=features, as_edge_index=True
    )
    assert batch.edge_index.get_indptr().tolist() == target_ptr(batch).tolist()
    for graph in batch.to_data_list():
        assert graph.edge_index.sparse_size() == (9, 9)
        assert graph.edge_index.sort_order == "col"
        plain = target_ptr(Data(edge_index=graph.edge_index.as_tensor(), num_nodes=9))
        assert torch.equal(target_ptr(graph), plain)


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"),
    reason="one setting for all",
)
@pytest.mark.parametrize("setting", ["cuda", "mkldnn", "legacy"])
def test_the_precision_of_products_stays_as_it_was(setting):
    cuda, mkldnn = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = cuda.fp32_precision, mkldnn.fp32_precision
    try:
        if setting == "legacy":
            cuda.allow_tf32 = True
        else:
            {"cuda": cuda, "mkldnn": mkldnn}[setting].fp32_precision = "tf32"
        chosen = cuda.fp32_precision, mkldnn.fp32_precision
        build_graph(Similar(0.5), features=torch.randn(4, 3))
        assert (cuda.fp32_precision, mkldnn.fp32_precision) == chosen
    finally:
        cuda.fp32_precision, mkldnn.fp32_precision = before


def test_a_rule_may_return_a_transposed_matrix():
    class FromTheLeft(Rule):
        def holds(self, pairs):
            return pairs.displacement(0).transpose(1, 2) > 0

    positions = torch.rand(2, 5, 1)
    batch = build_graph(FromTheLeft(), positions, self_loops=False)
    assert batch.num_edges == 2 * 10
    assert bool((batch.edge_attr[:, 0] < 0).all())


def test_room_for_more_neighbours_than_there_are():
    row = torch.arange(4.0).unsqueeze(1)
    assert build_graph(Nearest(10**12), row).num_edges == 16
    assert build_graph(Adjacent(9), row, max_neighbors=2**63 - 1).num_edges == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": [[True] * 4], "features": torch.ones(1, 4, 2)}, "mask must be bool .* got list"),
        ({"radius": "1"}, "radius must be a number of at least 0, got '1'"),
        ({"min_neighbors": None}, "smallest number of neighbours must be an integer .* got None"),
    ],
)
def test_wrong_kinds_of_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_spatial_graph(P, **arguments)
