"""Edges, compositions, thresholds and spanning trees as scipy and numpy have them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from gasmcast import generate_spatiotemporal_positions
from gasmcast.graphs import (
    Adjacent,
    EdgeRule,
    Nearest,
    Quantile,
    Rule,
    Similar,
    TargetDegree,
    Window,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    pairs,
)
from graphs.oracles import (
    DTYPES,
    Clips,
    adjacency,
    away_from,
    clips,
    closest,
    few_examples,
    make_clips,
    off_diagonal,
    rules,
    some_examples,
)

WIDE = (torch.float32, torch.float64)
METRICS = [("euclidean", 2), ("manhattan", 1), ("chebyshev", np.inf)]


@some_examples
@given(
    clips(dtypes=DTYPES, exact=True),
    st.sampled_from(METRICS),
    st.integers(0, 4),
    st.sampled_from([None, (0,), (-1,), (0, -1)]),
)
def test_adjacent_is_inclusive_on_a_grid(data, metric, radius, axes):
    name, p = metric
    if axes is not None:
        axes = tuple(dict.fromkeys(axis % data.positions.size(1) for axis in axes))
    graph = build_graph(Adjacent(radius, name, axes), data.positions, ptr=data.ptr)
    points = data.positions.double().numpy()
    points = points if axes is None else points[:, list(axes)]
    expected = np.zeros((len(points), len(points)), dtype=bool)
    for nodes in data.nodes_of_clips():
        if nodes.stop > nodes.start:
            pairs = cKDTree(points[nodes]).query_pairs(radius, p=p, output_type="ndarray")
            expected[tuple((pairs + nodes.start).T)] = True
    assert (adjacency(graph) == expected | expected.T).all()


@some_examples
@given(clips(dtypes=WIDE), st.data())
def test_composition_of_matrices(data, draw):
    leaves = [
        Adjacent(1.5),
        Window(1, causal=True, axis=0),
        Similar(0.25),
        Nearest(2),
        Adjacent(1, "manhattan"),
    ]
    first, second = draw.draw(st.permutations(leaves))[:2]

    def matrix(rule) -> np.ndarray:
        graph = build_graph(rule, ptr=data.ptr, **data.both)
        bits = rules(graph)
        np.fill_diagonal(bits, 0)
        return bits

    a, b = matrix(first), matrix(second)
    assert set(np.unique(a)) <= {0, first.bit}
    sparse_a, sparse_b = csr_array(a != 0, dtype=np.int8), csr_array(b != 0, dtype=np.int8)
    both = sparse_a.multiply(sparse_b)
    everyone = off_diagonal(np.isfinite(data.distance()))
    expected = [
        (first | second, sparse_a.maximum(sparse_b), a | b),
        (first & second, both, np.where((a != 0) & (b != 0), a | b, 0)),
        (first - second, sparse_a - both, np.where(b == 0, a, 0)),
        (~first, csr_array(everyone, dtype=np.int8) - sparse_a, 128 * (everyone & (a == 0))),
        (~~first, sparse_a, 128 * (a != 0)),
    ]
    for rule, edges, bits in expected:
        assert (matrix(rule) == bits).all()
        assert ((matrix(rule) != 0) == (edges.toarray() != 0)).all()
    # What a cap keeps, it keeps with its bits; what fills up is marked as such.
    capped = matrix((first | second).at_most(1))
    assert (capped == np.where(closest(-data.similarity(), 1, (a | b) != 0), a | b, 0)).all()
    filled = matrix(first.at_least(2))
    assert (filled[a != 0] == a[a != 0]).all()
    assert set(np.unique(filled[a == 0])) <= {0, EdgeRule.FILLED}


class Band(Rule):
    """A rule of one's own that asks for others, made on the spot."""

    def holds(self, pairs):
        held = [pairs.bits(Adjacent(radius)) != 0 for radius in (1, 3)]
        held += [Similar(Quantile(q)).holds(pairs) for q in (0.2, 0.6)]
        return held[1] & ~held[0] | held[2] & ~held[3]


@pytest.mark.parametrize("rows", [16, 64])
def test_rules_made_on_the_spot_are_not_taken_for_each_other(rows, monkeypatch):
    monkeypatch.setattr(pairs, "FEWEST_ROWS", 16)
    data = make_clips([64, 3], dtype=torch.float64)
    rule = Adjacent(3) - Adjacent(1) | Similar(Quantile(0.2)) - Similar(Quantile(0.6))
    expected = adjacency(build_graph(rule, ptr=data.ptr, **data.both))
    graph = build_graph(Band(), ptr=data.ptr, **data.both, max_bytes=rows * 64 * 64)
    assert (adjacency(graph) == expected).all()


def pairs_of(data: Clips, similarity: np.ndarray, nodes: slice) -> np.ndarray:
    """Similarities of a clip's pairs, each once, the largest first."""
    size = nodes.stop - nodes.start
    return np.sort(similarity[nodes, nodes][np.triu_indices(size, 1)])[::-1]


def gaussian(data: Clips, space: str, sigma: float) -> np.ndarray:
    return np.exp(-((data.distance(space) / sigma) ** 2) / 2)


@some_examples
@given(
    clips(dtypes=(torch.float64,)),
    st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([None, "features", "positions"]),
)
def test_quantile(data, q, gaussian_of):
    options = {} if gaussian_of is None else {"sigma": 1.5, "space": gaussian_of}
    graph = build_graph(Similar(Quantile(q), **options), ptr=data.ptr, **data.both)
    similarity = data.similarity() if gaussian_of is None else gaussian(data, gaussian_of, 1.5)
    expected = np.zeros(similarity.shape, dtype=bool)
    for nodes in data.nodes_of_clips():
        values = pairs_of(data, similarity, nodes)
        if len(values):
            threshold = np.quantile(values, q, method="higher")
            # Nothing but ties lies so close to it.
            expected[nodes, nodes] = similarity[nodes, nodes] >= threshold - 1e-12
    assert (adjacency(graph) == off_diagonal(expected)).all()


@some_examples
@given(
    clips(dtypes=(torch.float64,)),
    st.floats(0, 12) | st.integers(0, 12),
    st.sampled_from([None, "features", "positions"]),
)
def test_target_degree(data, k, gaussian_of):
    options = {} if gaussian_of is None else {"sigma": 1.5, "space": gaussian_of}
    graph = build_graph(Similar(TargetDegree(k), **options), ptr=data.ptr, **data.both)
    similarity = data.similarity() if gaussian_of is None else gaussian(data, gaussian_of, 1.5)
    expected = np.zeros(similarity.shape, dtype=bool)
    for nodes, size in zip(data.nodes_of_clips(), data.sizes, strict=True):
        values = pairs_of(data, similarity, nodes)
        count = min(round(k * size / 2), len(values))
        if count:
            expected[nodes, nodes] = similarity[nodes, nodes] >= values[count - 1] - 1e-12
        if not data.exact:  # no ties
            assert expected[nodes, nodes].sum() - size * (count > 0) == 2 * count
    assert (adjacency(graph) == off_diagonal(expected)).all()


@pytest.mark.parametrize("threshold", [Quantile(0.6), TargetDegree(2)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("space", ["positions", "features"])
def test_each_clip_of_a_dense_batch_chooses_its_own_threshold(threshold, shared, space):
    data = make_clips([6, 6, 6])
    positions = data.positions.view(3, 6, 2)
    positions = positions[1] if shared else positions
    rule = Similar(threshold, sigma=1.0, space=space)
    batch = build_graph(rule, positions, features=data.features.view(3, 6, 4))
    for clip, (_, features) in enumerate(data.one_by_one()):
        single = build_graph(rule, positions if shared else positions[clip], features=features)
        assert torch.equal(batch[clip].edge_index, single.edge_index)


@some_examples
@given(clips(dtypes=WIDE), st.booleans(), st.booleans())
def test_connected(data, with_features, shared_rule):
    rule = Adjacent(0.5) if shared_rule else Nearest(1)
    features = data.features if with_features else None
    graph = build_graph(rule, data.positions, features=features, ptr=data.ptr, connected=True)
    bits = rules(graph)
    alone = rules(build_graph(rule, data.positions, features=features, ptr=data.ptr))
    tree = bits & EdgeRule.TREE != 0
    assert (tree == tree.T).all()
    assert (bits & ~np.uint8(EdgeRule.TREE) == alone).all()
    assert not tree.diagonal().any()
    for nodes, size in zip(data.nodes_of_clips(), data.sizes, strict=True):
        if not size:
            continue
        edges = tree[nodes, nodes]
        assert connected_components(csr_array(edges), directed=False)[0] == 1
        assert edges.sum() == 2 * (size - 1)
        # Shifted, for to scipy a weight of 0 is no edge.
        weight = 2 - data.similarity() if with_features else 1 + data.distance()
        weight = weight[nodes, nodes]
        least = minimum_spanning_tree(np.triu(weight, 1)).sum()
        assert np.triu(weight * edges, 1).sum() == pytest.approx(least, abs=1e-5)
    assert tree.sum() == 2 * sum(max(size - 1, 0) for size in data.sizes)


@some_examples
@given(clips(dtypes=WIDE), st.integers(0, 3), st.booleans())
def test_undirected(data, k, connected):
    rule = Nearest(k) | Window(1, causal=True, axis=0)
    directed = rules(build_graph(rule, ptr=data.ptr, connected=connected, **data.both))
    graph = build_graph(rule, ptr=data.ptr, connected=connected, undirected=True, **data.both)
    assert (rules(graph) == directed | directed.T).all()
    target, source = np.nonzero(directed | directed.T)
    assert (graph.edge_index.numpy() == [source, target]).all()  # order included
    similarity = data.similarity()[target, source]
    np.testing.assert_allclose(graph.edge_attr[:, -1], similarity, atol=1e-6)
    displacement = data.positions[source] - data.positions[target]
    assert torch.equal(graph.edge_attr[:, :-2], displacement)


@pytest.mark.parametrize("positions", [torch.zeros(0, 2), torch.tensor([[0.0, 0.0], [3.0, 0.0]])])
def test_undirected_without_any_edge(positions):
    graph = build_graph(Adjacent(1), positions, undirected=True, self_loops=False)
    assert graph.edge_index.shape == (2, 0)
    assert graph.edge_attr.shape == (0, 3)
    assert graph.edge_rule.shape == (0,)


@some_examples
@given(clips(dtypes=WIDE, exact=False), st.floats(0, 3), st.integers(0, 4) | st.none())
def test_spatial_graph(data, radius, max_similar):
    graph = build_spatial_graph(
        radius=radius,
        similarity_threshold=0.3,
        max_similar=max_similar,
        metric="euclidean",
        ptr=data.ptr,
        **data.both,
    )
    near, similar = off_diagonal(data.distance() <= radius), off_diagonal(data.similarity() >= 0.3)
    far = similar & ~near
    if max_similar is not None:
        far = closest(-data.similarity(), max_similar, far)
    similar &= near | far
    expected = near * np.uint8(EdgeRule.ADJACENT) | similar * np.uint8(EdgeRule.SIMILAR)
    np.fill_diagonal(expected, EdgeRule.SELF_LOOP)
    assert (rules(graph) == expected).all()


@some_examples
@given(clips(dtypes=WIDE), st.integers(0, 3), st.integers(0, 4) | st.none(), st.booleans())
def test_temporal_graph(data, window, max_similar, causal):
    positions = data.positions[:, :1]
    time = positions.double().numpy()[:, 0]
    step = data.within_clips(time[:, None] - time, np.inf)  # target minus source
    threshold = away_from(data.similarity(), 0.3)
    graph = build_temporal_graph(
        positions,
        window,
        features=data.features,
        similarity_threshold=threshold,
        causal=causal,
        max_similar=max_similar,
        ptr=data.ptr,
    )
    allowed = np.isfinite(step) & ((step >= 0) | (not causal))
    near = off_diagonal(allowed & (np.abs(step) <= window))
    similar = off_diagonal(allowed & (data.similarity() >= threshold))
    if max_similar is not None:
        similar &= near | closest(-data.similarity(), max_similar, similar & ~near)
    expected = near * np.uint8(EdgeRule.WINDOW) | similar * np.uint8(EdgeRule.SIMILAR)
    np.fill_diagonal(expected, EdgeRule.SELF_LOOP)
    assert (rules(graph) == expected).all()


@few_examples
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.25, 0.5]),
    st.sampled_from([None, 0.75]),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 99),
)
def test_spatiotemporal_graph(
    frames, rows, columns, threshold, temporal_threshold, window, causal, seed
):
    positions = generate_spatiotemporal_positions(frames, (rows, columns))
    patches = rows * columns
    clip = make_clips([frames * patches], exact=True, seed=seed)
    graph = build_spatiotemporal_graph(
        positions,
        threshold,
        features=clip.features,
        window=window,
        temporal_threshold=temporal_threshold,
        causal=causal,
    )
    frame, y, x = np.unravel_index(np.arange(len(positions)), (frames, rows, columns))
    assert positions.tolist() == np.stack([x, y, frame], axis=1).tolist()
    similarity = clip.similarity()
    step = frame[:, None] - frame  # target minus source
    near = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y)) <= 1
    within = near * np.uint8(EdgeRule.ADJACENT)
    within |= (similarity >= threshold) * np.uint8(EdgeRule.SIMILAR)
    between = similarity >= (threshold if temporal_threshold is None else temporal_threshold)
    between &= (np.abs(step) <= window) & ((step >= 0) | (not causal))
    expected = np.where(step == 0, within, between * np.uint8(EdgeRule.WINDOW | EdgeRule.SIMILAR))
    np.fill_diagonal(expected, EdgeRule.SELF_LOOP)
    assert (rules(graph) == expected).all()
