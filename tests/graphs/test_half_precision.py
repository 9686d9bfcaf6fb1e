"""Half precision is a way to store features, not to compare them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.graphs import (
    Adjacent,
    Nearest,
    Quantile,
    Similar,
    TargetDegree,
    Window,
    build_graph,
)
from graphs.oracles import HALF, adjacency, clips, make_clips, off_diagonal, some_examples

RULES = [
    Similar(0.4),
    Similar(0.5, sigma=1.5),
    Similar(Quantile(0.8)),
    Similar(TargetDegree(2)) | Adjacent(1),
    Nearest(3, "features"),
    Nearest(3, "features", "cosine"),
    Nearest(3) - Window(1, axis=0),
    (Similar(0.0) | Adjacent(1)).at_most(2),
    Similar(0.7).at_least(2),
]


@some_examples
@given(clips(dtypes=HALF), st.sampled_from(RULES), st.booleans())
def test_half_builds_the_edges_of_the_same_numbers_in_float32(data, rule, connected):
    options = {"ptr": data.ptr, "connected": connected}
    graph = build_graph(rule, **data.both, **options)
    reference = build_graph(rule, data.positions.float(), features=data.features.float(), **options)
    assert torch.equal(graph.edge_index, reference.edge_index)
    assert torch.equal(graph.edge_rule, reference.edge_rule)
    assert graph.edge_attr.dtype == graph.x.dtype == data.features.dtype
    torch.testing.assert_close(graph.edge_attr.float(), reference.edge_attr, rtol=1e-2, atol=1e-2)


@some_examples
@given(clips(dtypes=(torch.float32,), exact=False), st.sampled_from(HALF), st.floats(-0.9, 0.9))
def test_half_builds_the_edges_of_unrounded_numbers_away_from_the_threshold(data, dtype, threshold):
    graph = build_graph(Similar(threshold), features=data.features.to(dtype), ptr=data.ptr)
    similarity = data.similarity()
    # Rounding moves a vector by at most half a unit in the last place of its length.
    clear = np.abs(similarity - threshold) > 4 * torch.finfo(dtype).eps
    expected = off_diagonal(similarity >= threshold)
    assert (adjacency(graph) == expected)[clear].all()


@pytest.mark.parametrize("dtype", HALF)
def test_half_positions_with_float32_features_and_the_reverse(dtype):
    data = make_clips([6, 3])
    for positions, features in (
        (data.positions.to(dtype), data.features),
        (data.positions, data.features.to(dtype)),
    ):
        graph = build_graph(
            Adjacent(1, "euclidean") | Similar(0.3), positions, features=features, ptr=data.ptr
        )
        reference = build_graph(
            Adjacent(1, "euclidean") | Similar(0.3),
            positions.double(),
            features=features.double(),
            ptr=data.ptr,
        )
        assert torch.equal(graph.edge_index, reference.edge_index)
        assert graph.edge_attr.dtype == features.dtype
        assert graph.pos.dtype == positions.dtype
        torch.testing.assert_close(
            graph.edge_attr.double(), reference.edge_attr, rtol=1e-2, atol=1e-2
        )


@pytest.mark.parametrize("dtype", HALF)
def test_the_largest_and_the_smallest_numbers(dtype):
    # Neither products nor norms of these fit the dtype.
    info = torch.finfo(dtype)
    features = torch.tensor(
        [[info.max, info.max], [info.tiny, info.tiny], [-info.max, info.max], [info.max, 0.0]]
    ).to(dtype)
    graph = build_graph(Similar(0.7), features=features, edge_weight=True)
    assert adjacency(graph).tolist() == [
        [False, True, False, True],
        [True, False, False, True],
        [False, False, False, False],
        [True, True, False, False],
    ]
    torch.testing.assert_close(graph.edge_weight, graph.edge_attr[:, 0])
    assert torch.equal(
        graph.edge_index, build_graph(Similar(0.7), features=features.float()).edge_index
    )


@pytest.mark.parametrize("autocast", HALF)
def test_autocast_does_not_change_the_graph(autocast):
    data = make_clips([20, 9], channels=16)
    options = {"ptr": data.ptr, "edge_weight": True, "connected": True}
    for rule in RULES:
        expected = build_graph(rule, **data.both, **options)
        with torch.autocast("cpu", autocast):
            graph = build_graph(rule, **data.both, **options)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.edge_attr, expected.edge_attr)
        assert torch.equal(graph.edge_weight, expected.edge_weight)
