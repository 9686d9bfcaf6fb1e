"""Every shape of input gives the graphs that the clips give one by one; whatever their order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from gasmcast.graphs import (
    Adjacent,
    Nearest,
    Quantile,
    Similar,
    TargetDegree,
    Window,
    build_graph,
    check_graph,
)
from graphs.oracles import (
    DTYPES,
    HALF,
    adjacency,
    assert_same_graph,
    clips,
    few_examples,
    make_clips,
    some_examples,
)

NAN = float("nan")
RULES = [
    Adjacent(1.5, "euclidean") | Similar(0.3),
    Nearest(2) & ~Window(1, causal=True),
    Nearest(3, "features", "cosine") - Adjacent(1),
    Similar(Quantile(0.7)) | Similar(TargetDegree(1), sigma=1.0, space="positions"),
    (Adjacent(2) | Similar(0.0)).at_most(2).at_least(1),
]
OPTIONS = [
    {},
    {"connected": True, "self_loops": False},
    {"undirected": True, "min_neighbors": 1, "max_neighbors": 2, "edge_weight": True},
    {"edge_attr": False, "connected": True},
]


def assert_same_batch(batch: Batch, expected: Batch | None, tolerance: float | None = None) -> None:
    """``expected`` is None for no clip at all, which ``Batch.from_data_list`` cannot take."""
    assert isinstance(batch, Batch)
    if expected is None:
        assert (batch.num_graphs, batch.num_nodes, batch.num_edges) == (0, 0, 0)
        assert batch.ptr.tolist() == [0]
        assert batch.to_data_list() == []
        return
    assert batch.num_graphs == expected.num_graphs
    assert_same_graph(batch, expected, tolerance)
    check_graph(batch)
    assert batch.validate()
    taken, wanted = batch.to_data_list(), expected.to_data_list()
    for clip, graph in enumerate(taken):
        assert_same_graph(graph, wanted[clip], tolerance)
        assert_same_graph(batch[clip], wanted[clip], tolerance)
    assert_same_graph(Batch.from_data_list(taken), expected, tolerance)


def padded(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, N, ...] with NaN where no node is."""
    dense = torch.full((*mask.shape, *flat.shape[1:]), NAN, dtype=flat.dtype)
    dense[mask] = flat
    return dense


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@few_examples
@given(clips(dtypes=DTYPES, exact=True), st.integers(0, 2))
def test_ragged_and_padded_equal_one_by_one(rule, options, data, padding):
    sizes = torch.tensor(data.sizes, dtype=torch.long)
    singles = [
        build_graph(rule, positions, features=features, **options)
        for positions, features in data.one_by_one()
    ]
    assert all(type(single) is Data for single in singles)
    expected = Batch.from_data_list(singles) if singles else None

    by_ptr = build_graph(rule, ptr=data.ptr, **data.both, **options)
    assert_same_batch(by_ptr, expected)

    clip = torch.repeat_interleave(sizes)
    existing = (
        int(clip.max()) + 1 if len(clip) else 0
    )  # batch cannot tell of empty clips at the end
    by_batch = build_graph(rule, batch=clip, **data.both, **options)
    if existing:
        assert_same_batch(by_batch, Batch.from_data_list(singles[:existing]))
    else:
        assert (by_batch.num_graphs, by_batch.num_nodes, by_batch.num_edges) == (0, 0, 0)

    # Existing nodes at the end of their clips: what comes before them must not count.
    longest = max(data.sizes, default=0) + padding
    mask = torch.arange(longest).flip(0) < sizes.unsqueeze(1)
    by_mask = build_graph(
        rule,
        padded(data.positions, mask),
        features=padded(data.features, mask),
        mask=mask,
        **options,
    )
    assert_same_batch(by_mask, expected)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@few_examples
@given(
    st.integers(0, 3),
    st.integers(0, 6),
    st.booleans(),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
def test_dense_equals_one_by_one(rule, num_clips, nodes, shared, connected, dtype, seed):
    data = make_clips([nodes] * num_clips, exact=True, dtype=dtype, seed=seed)
    positions = data.positions.view(num_clips, nodes, 2)
    if shared:
        positions = make_clips([nodes], exact=True, dtype=dtype, seed=seed + 1).positions
    features = data.features.view(num_clips, nodes, 4)
    batch = build_graph(rule, positions, features=features, connected=connected)
    singles = [
        build_graph(
            rule,
            positions if shared else positions[clip],
            features=features[clip],
            connected=connected,
        )
        for clip in range(num_clips)
    ]
    assert_same_batch(batch, Batch.from_data_list(singles) if singles else None)


@pytest.mark.parametrize("given_", ["positions", "features"])
@few_examples
@given(clips(exact=True, num_clips=(1, 4)), st.booleans())
def test_positions_or_features_alone(given_, data, connected):
    points = getattr(data, given_)
    rule = Nearest(2, given_)
    singles = [
        build_graph(rule, connected=connected, **{given_: part})
        for part in points.split(data.sizes)
    ]
    batch = build_graph(rule, connected=connected, ptr=data.ptr, **{given_: points})
    assert_same_batch(batch, Batch.from_data_list(singles))
    assert batch.edge_attr.size(1) == (points.size(1) + 1 if given_ == "positions" else 1)
    assert ("pos" in batch, "x" in batch) == (given_ == "positions", given_ == "features")


@few_examples
@given(clips(dtypes=(torch.float32, torch.float64), exact=False, num_clips=(1, 4)))
def test_rounded_numbers_too(data):
    # Here a clip may be rounded differently inside a batch: edges are the same, numbers nearly so.
    rule = Similar(0.31) | Nearest(2)
    singles = [build_graph(rule, p, features=x) for p, x in data.one_by_one()]
    batch = build_graph(rule, ptr=data.ptr, **data.both)
    assert_same_batch(batch, Batch.from_data_list(singles), tolerance=1e-6)


@pytest.mark.parametrize("as_edge_index", [False, True])
def test_a_loader_makes_the_same_batch(as_edge_index):
    data = make_clips([4, 1, 0, 5], exact=True)
    options = {"as_edge_index": as_edge_index, "edge_weight": True}
    singles = [build_graph(RULES[0], p, features=x, **options) for p, x in data.one_by_one()]
    loaded = next(iter(DataLoader(singles, batch_size=4)))
    batch = build_graph(RULES[0], ptr=data.ptr, **data.both, **options)
    assert_same_batch(batch, loaded)
    assert type(batch.edge_index) is type(loaded.edge_index)
    again = next(iter(DataLoader(batch.to_data_list(), batch_size=4)))
    assert_same_batch(again, loaded)


@some_examples
@given(clips(exact=False, num_clips=(1, 3)), st.integers(0, 99), st.booleans())
def test_permuting_the_nodes_permutes_the_graph(data, seed, connected):
    generator = np.random.default_rng(seed)
    order = np.concatenate(
        [generator.permutation(range(nodes.start, nodes.stop)) for nodes in data.nodes_of_clips()]
    ).astype(int)
    rule = Similar(Quantile(0.6)) | Nearest(2) - Adjacent(1)
    options = {"ptr": data.ptr, "connected": connected}
    graph = build_graph(rule, **data.both, **options)
    permuted = build_graph(rule, data.positions[order], features=data.features[order], **options)
    assert (adjacency(permuted) == adjacency(graph)[np.ix_(order, order)]).all()


@pytest.mark.parametrize("max_bytes", [2**30, 4096])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
def test_inputs_stay_untouched(options, max_bytes):
    for dtype in DTYPES:
        data = make_clips([5, 0, 6, 1], dtype=dtype, exact=True)
        positions, features = data.positions.clone(), data.features.clone()
        ptr = data.ptr
        for rule in RULES:
            build_graph(rule, positions, features=features, ptr=ptr, max_bytes=max_bytes, **options)
        assert torch.equal(positions, data.positions)
        assert torch.equal(features, data.features)
        assert torch.equal(ptr, data.ptr)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_memory_layout_does_not_matter(rule):
    data = make_clips([6, 6], exact=True)
    positions, features = data.positions.view(2, 6, 2), data.features.view(2, 6, 4)
    expected = build_graph(rule, positions, features=features)
    turned = build_graph(
        rule,
        positions.transpose(1, 2).contiguous().transpose(1, 2),
        features=features.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    )
    assert_same_graph(turned, expected)
    flat = build_graph(
        rule,
        positions.flatten(0, 1).t().contiguous().t(),
        features=features.repeat(1, 1, 2).flatten(0, 1)[:, :4],
        ptr=data.ptr,
    )
    assert_same_graph(flat, expected)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_inputs_that_require_grad_build_the_same(rule):
    data = make_clips([5, 4], exact=True)
    expected = build_graph(rule, ptr=data.ptr, connected=True, **data.both)
    positions, features = data.positions.clone(), data.features.clone().requires_grad_()
    graph = build_graph(rule, positions, features=features, ptr=data.ptr, connected=True)
    assert_same_graph(graph, expected)
    graph.x.sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))


def shapes_of(data, max_bytes):
    """The same clips of 5 nodes in every shape of input; the first clip in the shape of one."""
    positions, features = data.positions, data.features
    sizes = torch.full((len(data.sizes),), 5)
    options = {"max_bytes": max_bytes}
    yield {"positions": positions[:5], "features": features[:5], **options}
    yield {"positions": positions.view(-1, 5, 2), "features": features.view(-1, 5, 4), **options}
    yield {**data.both, "ptr": data.ptr, **options}
    yield {**data.both, "batch": torch.repeat_interleave(sizes), **options}
    mask = torch.ones(len(sizes), 7, dtype=torch.bool)
    mask[:, 5:] = False
    yield {
        "positions": padded(positions, mask),
        "features": padded(features, mask),
        "mask": mask,
        **options,
    }


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["positions", "features"])
@pytest.mark.parametrize("max_bytes", [2**30, 1024])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite_values_are_placed(value, name, max_bytes, dtype):
    for clip, node in ((0, 3), (1, 0), (2, 4)):
        data = make_clips([5, 5, 5], dtype=dtype)
        getattr(data, name)[5 * clip + node, 1] = value
        for index, arguments in enumerate(shapes_of(data, max_bytes)):
            if index == 0 and clip > 0:
                continue
            message = f"{name} must be finite, got NaN .* at node {node} of clip {clip} "
            with pytest.raises(ValueError, match=message):
                build_graph(RULES[0], **arguments)


def test_a_node_is_counted_within_its_clip_after_empty_ones():
    data = make_clips([2, 0, 0, 3])
    data.features[3, 0] = NAN
    with pytest.raises(ValueError, match="at node 1 of clip 3 "):
        build_graph(Similar(), features=data.features, ptr=data.ptr)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_gpu_builds_the_same(rule, options):
    for dtype in DTYPES:
        for data in (
            make_clips([40, 0, 1, 700], dtype=dtype, exact=True),
            make_clips([30, 30], dtype=torch.float64, channels=64),
        ):
            inputs = {"ptr": data.ptr, **data.both}
            expected = build_graph(rule, **inputs, **options)
            inputs = {name: value.cuda() for name, value in inputs.items()}
            graph = build_graph(rule, **inputs, **options)
            assert graph.edge_index.is_cuda
            assert_same_graph(graph.cpu(), expected, 1e-2 if dtype in HALF else 1e-5)
