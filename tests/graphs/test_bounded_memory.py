"""What does not fit ``max_bytes`` goes block by block: the same graphs within the bound."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import peak_bytes
from gasmcast.graphs import (
    Adjacent,
    Nearest,
    Quantile,
    Similar,
    TargetDegree,
    Window,
    build_graph,
    pairs,
)
from graphs.oracles import (
    DTYPES,
    Clips,
    adjacency,
    assert_same_graph,
    clips,
    few_examples,
    make_clips,
    off_diagonal,
    some_examples,
)

LEAVES = st.one_of(
    st.builds(
        Adjacent,
        st.sampled_from([0, 1, 1.5, 2]),
        st.sampled_from(["chebyshev", "euclidean", "manhattan"]),
    ),
    st.builds(Window, st.integers(0, 3), st.booleans()),
    st.builds(Similar, st.sampled_from([-0.25, 0.0, 0.5, 0.75])),
    st.builds(
        Similar,
        st.builds(Quantile, st.sampled_from([0.0, 0.3, 0.9, 1.0]))
        | st.builds(TargetDegree, st.sampled_from([0, 1.5, 3])),
        sigma=st.sampled_from([None, 1.5]),
    ),
    st.builds(
        Similar,
        st.sampled_from([0.3, Quantile(0.6), TargetDegree(2)]),
        sigma=st.just(2.0),
        space=st.just("positions"),
    ),
    st.builds(Nearest, st.integers(0, 4), st.sampled_from(["positions", "features"])),
    st.builds(Nearest, st.integers(0, 4), st.just("features"), st.just("cosine")),
)
RULES = st.recursive(
    LEAVES,
    lambda rules: st.one_of(
        st.builds(lambda a, b: a | b, rules, rules),
        st.builds(lambda a, b: a & b, rules, rules),
        st.builds(lambda a, b: a - b, rules, rules),
        st.builds(lambda a: ~a, rules),
        st.builds(lambda a, k: a.at_most(k), rules, st.integers(0, 3)),
        st.builds(lambda a, k: a.at_least(k), rules, st.integers(0, 3)),
    ),
    max_leaves=4,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "connected": st.booleans(),
        "undirected": st.booleans(),
        "self_loops": st.booleans(),
        "edge_weight": st.booleans(),
        "min_neighbors": st.integers(0, 2),
        "max_neighbors": st.integers(2, 4),
    },
)


@pytest.fixture(autouse=True, scope="module")
def _rows_one_by_one():
    # Small clips fit; with this they go row by row all the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "FEWEST_ROWS", 1)
        yield


MESSAGE = r"max_bytes must be at least (\d+) for a clip of (\d+) nodes, got 1$"


def least_bytes(data) -> int:
    """The smallest ``max_bytes`` there is: enough for one target of the largest clip."""
    largest = max(zip(data.sizes, data.one_by_one(), strict=True), key=lambda clip: clip[0])[1]
    with pytest.raises(ValueError, match=MESSAGE) as refused:
        build_graph(~Adjacent(), largest[0], features=largest[1], max_bytes=1)
    return int(re.search(MESSAGE, str(refused.value))[1])


@some_examples
@given(clips(dtypes=DTYPES, exact=True, num_clips=(1, 5)), RULES, OPTIONS)
def test_blocks_change_nothing(data, rule, options):
    inputs = {"ptr": data.ptr, **data.both}
    expected = build_graph(rule, **inputs, **options)
    largest = max(data.sizes)
    if not largest:
        return
    row = least_bytes(data)
    for max_bytes in (row, 2 * row + 7, largest * row, 2 * largest * row):
        graph = build_graph(rule, **inputs, **options, max_bytes=max_bytes)
        assert_same_graph(graph, expected, tolerance=1e-6)


@few_examples
@given(clips(dtypes=(torch.float32, torch.float64), exact=False, max_nodes=30), RULES, OPTIONS)
def test_blocks_change_no_edge_of_rounded_numbers(data, rule, options):
    inputs = {"ptr": data.ptr, **data.both}
    expected = build_graph(rule, **inputs, **options)
    row = least_bytes(data) if any(data.sizes) else 1
    for max_bytes in (row, 5 * row, 12 * row):
        graph = build_graph(rule, **inputs, **options, max_bytes=max_bytes)
        assert_same_graph(graph, expected, tolerance=1e-6)


@few_examples
@given(st.integers(1, 4), st.integers(2, 9), RULES, st.booleans(), st.integers(0, 99))
def test_blocks_change_nothing_where_clips_share_positions(clips, nodes, rule, connected, seed):
    data = make_clips([nodes] * clips, exact=True, seed=seed)
    inputs = {
        "positions": data.positions[:nodes],
        "features": data.features.view(clips, nodes, 4),
        "connected": connected,
    }
    expected = build_graph(rule, **inputs)
    row = least_bytes(data)
    for max_bytes in (row, nodes * row, 2 * nodes * row):
        assert_same_graph(build_graph(rule, **inputs, max_bytes=max_bytes), expected, 1e-6)


LARGE = [
    Similar(0.35),
    Similar(Quantile(0.97)),
    Similar(TargetDegree(6.5)) | Adjacent(0.2),
    Similar(TargetDegree(5), sigma=0.4, space="positions"),
    Nearest(7) | Nearest(3, "features") - Window(1, axis=0),
    (Nearest(5, "features", "cosine") & ~Adjacent(0.5)).at_most(3).at_least(2),
]

GREEDY = [
    Adjacent(0.1, "euclidean") | Similar(0.9) | Window(0.05) | Nearest(2),
    Nearest(400),
    Similar(Quantile(0.05)).at_most(2),
    Similar(0.99).at_least(300).at_most(1),
]


@pytest.mark.parametrize(
    ("rule", "connected"),
    [(rule, index % 3 == 0) for index, rule in enumerate(LARGE)],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("exact", [False, True])
def test_blocks_change_nothing_in_large_clips(rule, connected, exact):
    data = make_clips([3, 641, 0, 130], exact=exact, channels=24)
    inputs = {"ptr": data.ptr, **data.both}
    options = {"connected": connected, "max_neighbors": 40}
    expected = build_graph(rule, **inputs, **options)
    row = least_bytes(data)
    # A few targets, some tiles, and one clip at a time.
    for max_bytes in (50 * row, 300 * row, 641 * row):
        graph = build_graph(rule, **inputs, **options, max_bytes=max_bytes)
        assert_same_graph(graph, expected, tolerance=1e-6)


@few_examples
@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 99), st.integers(1, 60))
def test_similarity_ties_both_directions_however_close_to_the_threshold(
    nodes, channels, seed, rows
):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(nodes, channels, generator=generator)
    row = least_bytes(Clips([nodes], features, features, exact=False))
    # Thresholds at which a pair lies: it must pass in both directions or in neither.
    values = build_graph(Similar(-1.0), features=features).edge_attr[:, 0]
    for threshold in values[:: max(1, len(values) // 4)].tolist():
        for max_bytes in (2**30, rows * row):
            graph = build_graph(Similar(threshold), features=features, max_bytes=max_bytes)
            matrix = adjacency(graph)
            assert (matrix == matrix.T).all()
            symmetric = build_graph(
                Similar(threshold, sigma=1.0) | Similar(Quantile(0.5)),
                features=features,
                max_bytes=max_bytes,
            )
            assert (adjacency(symmetric) == adjacency(symmetric).T).all()


@pytest.mark.parametrize("channels", [3, 768])
def test_large_clips_are_symmetric_too(channels):
    data = make_clips([700], channels=channels)
    features, row = data.features, least_bytes(data)
    similarity = torch.nn.functional.cosine_similarity(features[:1], features[1:])
    for threshold in similarity.sort().values[::233].tolist():
        for max_bytes in (2**30, 150 * row):
            matrix = adjacency(
                build_graph(Similar(threshold), features=features, max_bytes=max_bytes)
            )
            assert (matrix == matrix.T).all()


MIB = 2**20


@pytest.mark.parametrize("sizes", [[500], [40] * 120, [350, 5, 0, 17, 300, 1]], ids=sum)
@pytest.mark.parametrize("rule", [*LARGE, *GREEDY], ids=lambda rule: type(rule).__name__)
def test_memory_stays_within_the_bound(rule, sizes):
    data = make_clips(sizes, dtype=torch.float64, channels=6)  # the widest
    options = {"ptr": data.ptr, "connected": rule is LARGE[0], "max_bytes": 4 * MIB, **data.both}
    graph = build_graph(rule, **options)
    # The graph itself comes on top, twice while it is put together, and some copies of the inputs.
    on_top = 2 * sum(graph[name].nbytes for name in graph.keys())  # noqa: SIM118
    on_top += 4 * (data.positions.nbytes + data.features.nbytes)
    assert peak_bytes(lambda: build_graph(rule, **options)) <= 4 * MIB + on_top


def test_a_block_has_room_for_some_rows(monkeypatch):
    monkeypatch.setattr(pairs, "FEWEST_ROWS", 16)
    data = make_clips([2, 100, 5])
    message = f"max_bytes must be at least {16 * 100 * 64} for a clip of 100 nodes, got 9999"
    with pytest.raises(ValueError, match=message):
        build_graph(~Adjacent(), ptr=data.ptr, **data.both, max_bytes=9999)


def test_max_bytes_below_one_target_is_refused():
    data = make_clips([5, 2])
    inputs = {"ptr": data.ptr, **data.both}
    row = least_bytes(data)
    expected = build_graph(~Adjacent(), **inputs)
    assert_same_graph(build_graph(~Adjacent(), **inputs, max_bytes=row), expected)
    message = f"max_bytes must be at least {row} for a clip of 5 nodes, got {row - 1}"
    with pytest.raises(ValueError, match=message):
        build_graph(~Adjacent(), **inputs, max_bytes=row - 1)


def test_a_negation_knows_its_clip():
    data = make_clips([4, 0, 1, 3])
    row = least_bytes(data)
    graph = build_graph(~Adjacent(100), ptr=data.ptr, **data.both, max_bytes=row)
    assert not adjacency(graph).any()
    graph = build_graph(~Similar(2.0), ptr=data.ptr, **data.both, max_bytes=row)
    assert (adjacency(graph) == off_diagonal(np.isfinite(data.distance()))).all()
