import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_undirected

from gasmcast import (
    EdgeRule,
    build_spatial_graph,
    build_temporal_graph,
    generate_spatial_positions,
    generate_temporal_positions,
)
from gasmcast.graphs import Adjacent, build_graph


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


def test_positions_alone_give_king_graph():
    # King's moves on a board are the strong product of two paths.
    graph = build_spatial_graph(generate_spatial_positions((4, 5)))
    king = nx.strong_product(nx.path_graph(4), nx.path_graph(5))
    number = {node: node[0] * 5 + node[1] for node in king}
    expected = {(number[a], number[b]) for a, b in king.edges}
    expected |= {(b, a) for a, b in expected} | {(n, n) for n in number.values()}
    assert edges(graph) == expected
    assert "x" not in graph
    assert graph.edge_attr.shape == (len(expected), 3)


def test_window_gives_path_power():
    graph = build_temporal_graph(generate_temporal_positions(), 2)
    expected = {(i, j) for i in range(8) for j in range(8) if abs(i - j) <= 2}
    assert edges(graph) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.floats(-1.0, 1.0),
    st.integers(0, 10_000),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_edges_equal_scikit_learn(num_nodes, dim, threshold, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values: duplicates, ties and zero vectors come up often.
    features = torch.randint(-2, 3, (num_nodes, dim), generator=generator).to(dtype)
    positions = torch.randint(0, 6, (num_nodes, 2), generator=generator).to(dtype)
    graph = build_spatial_graph(positions, threshold, features=features)
    similarity = torch.from_numpy(sklearn_cosine(features.double().numpy()))
    if ((similarity - threshold).abs() < 1e-6).any():
        return  # within rounding of the threshold both answers are right
    offset = (positions[:, None] - positions[None]).abs().amax(-1)
    expected = (similarity >= threshold) | (offset <= 1)
    expected.fill_diagonal_(True)
    target, source = expected.nonzero(as_tuple=True)
    assert torch.equal(graph.edge_index, torch.stack([source, target]))  # order included


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


@pytest.mark.parametrize("with_features", [True, False])
def test_ragged_and_padded_equal_one_by_one(with_features):
    sizes = [3, 1, 4]
    positions = [torch.rand(size, 2) * 3 for size in sizes]
    features = [torch.randn(size, 5) for size in sizes]
    singles = [
        build_spatial_graph(pos, 0.5, features=x if with_features else None)
        for pos, x in zip(positions, features, strict=True)
    ]
    reference = Batch.from_data_list(singles)
    ragged = build_spatial_graph(
        torch.cat(positions),
        0.5,
        features=torch.cat(features) if with_features else None,
        batch=torch.repeat_interleave(torch.tensor(sizes)),
    )
    mask = torch.arange(4) < torch.tensor(sizes)[:, None]
    padded_positions, padded_features = torch.full((3, 4, 2), 7.0), torch.full((3, 4, 5), torch.nan)
    padded_positions[mask], padded_features[mask] = torch.cat(positions), torch.cat(features)
    padded = build_spatial_graph(
        padded_positions, 0.5, features=padded_features if with_features else None, mask=mask
    )
    for graph in (ragged, padded):
        assert torch.equal(graph.edge_index, reference.edge_index)
        assert torch.equal(graph.edge_rule, reference.edge_rule)
        assert torch.equal(graph.ptr, reference.ptr)
        torch.testing.assert_close(graph.edge_attr, reference.edge_attr)
        assert len(graph.to_data_list()) == 3


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
        ({"positions": P, "radius": -1}, "must be at least 0, got -1"),
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


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_not_finite_features_are_placed(value):
    features = torch.ones(3, 4, 2)
    features[1, 2, 0] = value
    message = "features must be finite, got NaN or infinite values at node 2 of clip 1"
    with pytest.raises(ValueError, match=message):
        build_spatial_graph(P, features=features)


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


def test_undirected_graphs_without_edges():
    rule = Adjacent(1)
    for positions in (torch.empty(0, 2), torch.zeros(1, 2), torch.tensor([[0.0], [5.0]])):
        graph = build_graph(rule, positions, undirected=True, self_loops=False)
        assert graph.edge_index.shape == (2, 0)
        assert graph.edge_attr.shape == (0, positions.size(1) + 1)
