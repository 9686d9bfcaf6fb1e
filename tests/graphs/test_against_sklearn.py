"""Edges as scikit-learn's neighbour graphs have them; with ties, as plain sorting has them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import kneighbors_graph, radius_neighbors_graph

from gasmcast.graphs import Adjacent, EdgeRule, Nearest, Similar, build_graph, check_graph
from graphs.oracles import (
    DTYPES,
    adjacency,
    away_from,
    clips,
    closest,
    make_clips,
    off_diagonal,
    rules,
    some_examples,
)

WIDE = (torch.float32, torch.float64)


def neighbors(graph_function, data, points, *arguments, **options):
    """A neighbour graph of scikit-learn for each clip, as one matrix; it knows no empty clips."""
    matrix = np.zeros((sum(data.sizes), sum(data.sizes)), dtype=bool)
    for nodes in data.nodes_of_clips():
        if nodes.stop > nodes.start:
            graph = graph_function(
                points[nodes].double().numpy(), *arguments, include_self=False, **options
            )
            matrix[nodes, nodes] = graph.toarray() != 0
    return off_diagonal(matrix)


@some_examples
@given(clips(dtypes=WIDE), st.floats(-0.95, 0.95))
def test_similar_by_cosine(data, threshold):
    threshold = away_from(data.similarity(), threshold)
    graph = build_graph(Similar(threshold), features=data.features, ptr=data.ptr)
    expected = neighbors(
        radius_neighbors_graph, data, data.features, radius=1 - threshold, metric="cosine"
    )
    assert (adjacency(graph) == expected).all()
    source, target = graph.edge_index
    np.testing.assert_allclose(
        graph.edge_attr.numpy()[:, 0], data.similarity()[target, source], atol=1e-6
    )


@some_examples
@given(clips(dtypes=DTYPES, exact=True), st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]))
def test_similar_is_inclusive_where_nothing_is_rounded(data, threshold):
    graph = build_graph(Similar(threshold), features=data.features, ptr=data.ptr)
    assert (adjacency(graph) == off_diagonal(data.similarity() >= threshold)).all()


@some_examples
@given(
    clips(dtypes=WIDE),
    st.sampled_from(["features", "positions"]),
    st.floats(0.3, 3.0),
    st.floats(0.05, 0.95),
)
def test_similar_by_a_gaussian(data, space, sigma, threshold):
    with np.errstate(over="ignore"):
        similarity = np.exp(-((data.distance(space) / sigma) ** 2) / 2)
    threshold = away_from(similarity, threshold)
    graph = build_graph(Similar(threshold, sigma=sigma, space=space), ptr=data.ptr, **data.both)
    radius = sigma * np.sqrt(-2 * np.log(threshold))
    expected = neighbors(radius_neighbors_graph, data, getattr(data, space), radius=radius)
    assert (adjacency(graph) == expected).all()


@some_examples
@given(
    clips(dtypes=WIDE),
    st.sampled_from([("euclidean", 2), ("manhattan", 1), ("chebyshev", np.inf)]),
    st.floats(0.1, 4.0),
)
def test_adjacent_in_every_metric(data, metric, radius):
    name, p = metric
    radius = away_from(data.distance(p=p), radius)
    graph = build_graph(Adjacent(radius, name), data.positions, ptr=data.ptr)
    expected = neighbors(radius_neighbors_graph, data, data.positions, radius=radius, metric=name)
    assert (adjacency(graph) == expected).all()


SPACES = st.sampled_from(
    [("positions", "euclidean"), ("features", "euclidean"), ("features", "cosine")]
)


@some_examples
@given(
    clips(dtypes=WIDE, exact=False),
    st.integers(0, 12),
    SPACES,
)
def test_nearest_without_ties(data, k, where):
    space, metric = where
    graph = build_graph(Nearest(k, space, metric), ptr=data.ptr, **data.both)
    points = getattr(data, space)
    expected = np.zeros((sum(data.sizes),) * 2, dtype=bool)
    for nodes, size in zip(data.nodes_of_clips(), data.sizes, strict=True):
        if size > 1 and k:
            expected[nodes, nodes] = kneighbors_graph(
                points[nodes].double().numpy(), min(k, size - 1), metric=metric, include_self=False
            ).toarray()
    assert (adjacency(graph) == expected).all()
    assert set(graph.edge_rule.tolist()) <= {EdgeRule.SELF_LOOP, EdgeRule.NEAREST}


@some_examples
@given(
    clips(dtypes=DTYPES, exact=True),
    st.integers(0, 12),
    SPACES,
)
def test_nearest_with_ties(data, k, where):
    space, metric = where
    graph = build_graph(Nearest(k, space, metric), ptr=data.ptr, **data.both)
    distance = -data.similarity() if metric == "cosine" else data.distance(space)
    assert (adjacency(graph) == closest(distance, k)).all()


@pytest.mark.parametrize("channels", [5, 64, 768])
@pytest.mark.parametrize("num_nodes", [48, 129, 300])  # 129: one more than a block of products
@pytest.mark.parametrize("rule", [Nearest(8, "features", "cosine"), (~Similar(2.0)).at_most(8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_vector_is_as_near_wherever_it_stands(rule, channels, num_nodes, dtype):
    # As patches of a black border are: the same numbers, whose similarities are rounded.
    few = make_clips([8], channels=channels, dtype=dtype).features
    vector = torch.arange(num_nodes) * 5 % 8
    least = 64 * 64 * num_nodes  # as few rows at a time as can be
    similarity = make_clips([8], channels=channels, dtype=dtype).similarity()[vector][:, vector]
    for max_bytes in (2**30, least):
        graph = build_graph(rule, features=few[vector], max_bytes=max_bytes)
        assert (adjacency(graph) == closest(-similarity, 8)).all()


def farness(data, with_features):
    """What the caps rank by: dissimilarity, or distance where there are no features."""
    return -data.similarity() if with_features else data.distance()


@some_examples
@given(clips(dtypes=WIDE), st.integers(0, 10), st.booleans(), st.booleans())
def test_at_most(data, k, with_features, of_the_whole_rule):
    features = data.features if with_features else None
    rule = Adjacent(2.0)
    option = {"max_neighbors": k} if of_the_whole_rule else {}
    graph = build_graph(
        rule if of_the_whole_rule else rule.at_most(k),
        data.positions,
        features=features,
        ptr=data.ptr,
        **option,
    )
    candidates = data.distance(p=np.inf) <= 2
    assert (adjacency(graph) == closest(farness(data, with_features), k, candidates)).all()
    assert set(graph.edge_rule.tolist()) <= {EdgeRule.SELF_LOOP, EdgeRule.ADJACENT}


@some_examples
@given(clips(dtypes=WIDE), st.integers(0, 10), st.booleans(), st.booleans())
def test_at_least(data, k, with_features, of_the_whole_rule):
    features = data.features if with_features else None
    rule = Adjacent(1.0)
    option = {"min_neighbors": k} if of_the_whole_rule else {}
    graph = build_graph(
        rule if of_the_whole_rule else rule.at_least(k),
        data.positions,
        features=features,
        ptr=data.ptr,
        **option,
    )
    there = off_diagonal(data.distance(p=np.inf) <= 1)
    missing = np.maximum(k - there.sum(axis=1), 0)
    filled = closest(farness(data, with_features), missing, ~there)
    expected = there * np.uint8(EdgeRule.ADJACENT) | filled * np.uint8(EdgeRule.FILLED)
    np.fill_diagonal(expected, EdgeRule.SELF_LOOP)
    assert (rules(graph) == expected).all()


@some_examples
@given(clips(dtypes=WIDE), st.integers(0, 4), st.integers(0, 4))
def test_between_least_and_most(data, least, more):
    graph = build_graph(
        Adjacent(1.0),
        ptr=data.ptr,
        min_neighbors=least,
        max_neighbors=least + more,
        **data.both,
    )
    neighbors = adjacency(graph).sum(axis=1)
    others = np.repeat(data.sizes, data.sizes) - 1
    assert (neighbors >= np.minimum(least, others)).all()
    assert (neighbors <= least + more).all()
    there = off_diagonal(data.distance(p=np.inf) <= 1)
    kept = closest(farness(data, True), least + more, there)
    missing = np.maximum(least - kept.sum(axis=1), 0)
    assert (adjacency(graph) == (kept | closest(farness(data, True), missing, ~kept))).all()


@pytest.mark.parametrize("dtype", WIDE)
def test_more_neighbors_than_nodes(dtype):
    data = make_clips([1, 0, 3, 2], dtype=dtype)
    graph = build_graph(Nearest(3), data.positions, ptr=data.ptr)
    assert (adjacency(graph) == off_diagonal(np.isfinite(data.distance()))).all()


# A length whose square leaves the range of the dtype.
EXTREME = [
    (torch.float32, 1e-25),
    (torch.float32, 1e25),
    (torch.float64, 1e-200),
    (torch.float64, 1e200),
]


@pytest.mark.parametrize(("dtype", "scale"), EXTREME)
@pytest.mark.parametrize(
    "rule",
    [Similar(0.3), Nearest(2, "features", "cosine"), Nearest(2, "features"), Nearest(2)],
    ids=lambda rule: f"{type(rule).__name__}-{rule.space}",
)
def test_magnitude_does_not_matter(rule, dtype, scale):
    data = make_clips([7, 1, 4], dtype=dtype)
    expected = build_graph(rule, ptr=data.ptr, **data.both)
    graph = build_graph(rule, data.positions * scale, features=data.features * scale, ptr=data.ptr)
    assert torch.equal(graph.edge_index, expected.edge_index)
    torch.testing.assert_close(graph.edge_attr[:, -1], expected.edge_attr[:, -1])
    check_graph(graph)  # nothing infinite in it


@pytest.mark.parametrize(("dtype", "scale"), EXTREME)
def test_vectors_of_all_magnitudes_side_by_side(dtype, scale):
    data = make_clips([8], dtype=dtype)
    features = data.features.clone()
    features[::3] *= scale
    features[4] = 0
    expected = data.features.clone()
    expected[4] = 0
    graph = build_graph(Similar(0.3), features=features)
    reference = build_graph(Similar(0.3), features=expected)
    assert torch.equal(graph.edge_index, reference.edge_index)
    torch.testing.assert_close(graph.edge_attr, reference.edge_attr)


def test_float64_features_rank_finer_than_float32_can():
    x = torch.tensor([[1.0, 0], [1, 2e-4], [1, 1e-4]], dtype=torch.float64)
    graph = build_graph(Nearest(1, "features", "cosine"), features=x, self_loops=False)
    assert graph.edge_index[0, :2].tolist() == [2, 2]
