"""The compiled kernels against the plain formula and its autograd."""

import ctypes
import math
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gasmcast.nn.gatv2_kernels import compiled, plain
from gasmcast.nn.gatv2_kernels.order import edge_order

pytestmark = [
    pytest.mark.skipif(not compiled.is_available(), reason="was not compiled"),
    pytest.mark.usefixtures("one_thread"),
]

SETS = ("base", "avx2", "avx512")
NAMES = ("x_l", "x_r", "att", "edge_attr", "edge_weight", "bias")


@contextmanager
def at_most(name):
    """The instruction set of this name, or the best below it that the machine has."""
    highest = ctypes.c_int.in_dll(compiled._library(), "gatv2_highest_set")
    before = highest.value
    highest.value = SETS.index(name)
    try:
        yield
    finally:
        highest.value = before


@pytest.fixture(params=SETS)
def instruction_set(request):
    with at_most(request.param):
        yield request.param


each_set = pytest.mark.usefixtures("instruction_set")


def numbers(seed):
    """A source of random numbers that are the same in every dtype."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size, dtype=torch.float64):
        return torch.randn(*size, dtype=torch.float64, generator=generator).to(dtype)

    return normal


def random_edges(sources, targets, edges, sort=False):
    """The last source sends none, the last target receives none, and one edge is there twice."""
    generator = torch.Generator().manual_seed(edges)
    source, target = (
        torch.randint(max(size - 1, 1), (edges,), generator=generator)
        for size in (sources, targets)
    )
    if edges > 1:
        source[-1], target[-1] = source[0], target[0]
    edge_index = torch.stack([source, target])
    return edge_index[:, target.argsort(stable=True)] if sort else edge_index


def problem(
    edge_index=None, sources=9, targets=7, edges=40, heads=2, channels=5, features=None,
    dtype=torch.float64, sort=False,
):  # fmt: skip
    """Edges, and random values by name; ``features``: None, F, or "projected"."""
    normal = numbers(channels)
    if edge_index is None:
        edge_index = random_edges(sources, targets, edges, sort)
    edges = edge_index.shape[1]
    values = {
        "x_l": normal(sources, heads, channels),
        "x_r": normal(targets, heads, channels),
        "att": normal(heads, channels),
        "edge_attr": None,
        "edge_weight": None,
    }
    if features == "projected":
        values["edge_attr"] = normal(edges, heads * channels)
    elif features is not None:
        values["edge_attr"] = normal(edges, features)
        values["edge_weight"] = normal(heads * channels, features)
    return edge_index, {
        name: None if value is None else value.to(dtype) for name, value in values.items()
    }


def check(edge_index, values, tolerance, slope=0.2, dropout=False, used="both", bias=None):
    """Outputs and gradients, up to a part of the largest number of each; returns ours."""
    sources, targets = len(values["x_l"]), len(values["x_r"])
    heads, edges = values["att"].shape[0], edge_index.shape[1]
    dtype = values["x_l"].dtype
    normal = numbers(77)
    keep = (normal(edges, heads) > -0.5).to(dtype) / 0.7 if dropout else None
    grad_out = normal(targets, *values["att"].shape, dtype=dtype)
    grad_alpha = normal(edges, heads, dtype=dtype)
    order = edge_order(edge_index, sources, targets)
    graph = order.ptr, order.source, order.edge
    out, alpha, kept = compiled.messages(
        *values.values(), keep, *graph, slope, True, True, bias=bias
    )
    grads = compiled.gradients(
        torch.zeros_like(grad_out) if used == "alpha" else grad_out,
        None if used == "out" else grad_alpha,
        *values.values(), keep, *graph, *order.transposed(), None, alpha, kept, slope,
        values["edge_attr"] is not None, bias=bias,
    )  # fmt: skip
    found = {"out": out, "alpha": alpha} | dict(zip(NAMES, grads, strict=True))

    leaves = {k: None if v is None else v.double().requires_grad_() for k, v in values.items()}
    expected_out, expected_alpha = plain.attend(
        *leaves.values(), None if keep is None else keep.double(), *edge_index, slope
    )
    loss = (expected_out * grad_out).sum() * (used != "alpha")
    loss = loss + (expected_alpha * grad_alpha).sum() * (used != "out")
    there = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    expected = dict(zip(there, torch.autograd.grad(loss, list(there.values())), strict=True))
    expected |= {"out": expected_out, "alpha": expected_alpha}
    if bias is not None:
        expected["out"] = expected_out + bias.double()
        expected["bias"] = (grad_out * (used != "alpha")).double().sum(dim=0)
    for name, value in found.items():
        if name not in expected:
            assert value.numel() == 0, name
            continue
        reference = expected[name].detach()
        assert value.shape == reference.shape, name
        if name in values:
            assert value.dtype == values[name].dtype, name
        if reference.numel():
            # Single gradients may be tiny where their terms are not.
            scale = max(float(reference.abs().max()), 1.0)
            error = float((value.double() - reference).abs().max())
            assert error <= tolerance * scale, f"{name} is off by {error}, of {scale}"
    return found


@each_set
@pytest.mark.parametrize("features", [None, 1, 3, 16, "projected"])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 96, 100, 130])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)], ids=["f32", "f64"]
)
def test_equals_plain(dtype, tolerance, channels, features):
    check(*problem(channels=channels, features=features, dtype=dtype), tolerance, dropout=True)


@each_set
@pytest.mark.parametrize("used", ["out", "alpha", "both"])
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("features", [None, 2, "projected"])
def test_what_is_used(features, dropout, sort, used):
    check(*problem(features=features, sort=sort), 1e-12, dropout=dropout, used=used)


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 16, 40])
@pytest.mark.parametrize("features", [None, 2, "projected"])
@pytest.mark.parametrize("used", ["out", "alpha", "both"])
def test_bias(used, features, channels, dtype):
    edge_index, values = problem(channels=channels, features=features, dtype=dtype)
    bias = numbers(1)(2, channels, dtype=dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    found = check(edge_index, values, tolerance, used=used, bias=bias)
    assert found["out"][-1].equal(bias)
    assert found["bias"].dtype == dtype


@pytest.mark.parametrize(("sources", "targets"), [(0, 0), (0, 3), (3, 2), (3, 100)])
def test_bias_without_edges(sources, targets):
    nothing = torch.empty(2, 0, dtype=torch.long)
    bias = numbers(1)(2, 5)
    found = check(*problem(nothing, sources, targets), 1e-14, bias=bias)
    assert found["out"].equal(bias.expand(targets, -1, -1))


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("slope", [0.0, 1.0, -0.3, 2.0])
def test_slopes(slope, dtype):
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    check(*problem(features=2, channels=19, dtype=dtype), tolerance, slope=slope)


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("features", [None, "projected"])
def test_kink_has_the_negative_slope(features, dtype):
    edge_index, values = problem(features=features, channels=20, dtype=dtype)
    for name in ("x_l", "x_r", "edge_attr"):
        if values[name] is not None:
            values[name] = values[name].round().clamp(-1, 1)
    check(edge_index, values, 1e-12 if dtype == torch.float64 else 2e-5)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    sources=st.integers(1, 40),
    targets=st.integers(1, 40),
    edges=st.integers(0, 150),
    heads=st.integers(1, 5),
    channels=st.integers(1, 70),
    features=st.sampled_from([None, 1, 5, "projected"]),
    sort=st.booleans(),
    dropout=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    name=st.sampled_from(SETS),
)
def test_any_size(sources, targets, edges, heads, channels, features, sort, dropout, dtype, name):
    case = problem(None, sources, targets, edges, heads, channels, features, dtype, sort)
    with at_most(name):
        check(*case, 1e-11 if dtype == torch.float64 else 1e-4, dropout=dropout)


@each_set
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100])
@pytest.mark.parametrize("hub", ["target", "source"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_node_with_many_edges(dtype, hub, degree):
    many, few = torch.zeros(degree, dtype=torch.long), torch.arange(degree) % 6
    edge_index = torch.stack([few, many] if hub == "target" else [many, few])
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    check(*problem(edge_index, 6, 6, channels=11, features=2, dtype=dtype), tolerance)


@each_set
@pytest.mark.parametrize(("sources", "targets"), [(0, 0), (0, 3), (3, 0), (3, 2)])
@pytest.mark.parametrize("features", [None, 2, "projected"])
def test_no_edges(sources, targets, features):
    nothing = torch.empty(2, 0, dtype=torch.long)
    found = check(*problem(nothing, sources, targets, features=features), 0, dropout=True)
    assert all((value == 0).all() for value in found.values())


@each_set
@pytest.mark.parametrize("sign", [1, -1])
def test_large_scores(sign):
    edge_index, values = problem(channels=6)
    values["x_l"], values["att"] = 1000 + values["x_l"].abs(), sign * torch.ones_like(values["att"])
    check(edge_index, values, 1e-8)


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_weights(dtype):
    # Scores from 0 down to -120: in float32 the exponential of less than about -103 is zero.
    edge_index = torch.stack([torch.arange(121), torch.zeros(121, dtype=torch.long)])
    x_l = -torch.arange(121, dtype=dtype).view(-1, 1, 1)
    order = edge_order(edge_index, 121, 1)
    nothing, one = torch.zeros(1, 1, 1, dtype=dtype), torch.ones(1, 1, dtype=dtype)
    _, alpha, _ = compiled.messages(
        x_l, nothing, one, None, None, None, order.ptr, order.source, order.edge, 1.0, True, False
    )
    expected = torch.softmax(x_l.flatten().double(), 0)
    error = (alpha.flatten().double() - expected).abs()
    assert (error[:80] <= 1e-6 * expected[:80]).all()
    assert (error[80:] <= 1e-34).all()
    assert (alpha >= 0).all()


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x_l", "x_r"])
def test_bad_numbers_are_not_hidden(where, bad, dtype):
    edge_index, values = problem(channels=9, dtype=dtype)
    values[where][0, 0, 2] = bad
    order = edge_order(edge_index, 9, 7)
    graph = order.ptr, order.source, order.edge
    found = compiled.messages(*values.values(), None, *graph, 0.2, True, False)
    expected = plain.attend(*values.values(), None, *edge_index, 0.2)
    assert found[0].isnan().any()
    for ours, theirs in zip(found, expected, strict=False):
        assert ours.isnan().equal(theirs.isnan())


@each_set
@pytest.mark.parametrize("features", [None, 3, "projected"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)], ids=["bf16", "f16"]
)
def test_half_precision_is_summed_in_float32(dtype, tolerance, features):
    found = check(*problem(features=features, channels=24, dtype=dtype), tolerance, dropout=True)
    assert found["out"].dtype == dtype
    assert found["alpha"].dtype == torch.float32


def test_memory_layouts():
    edge_index, values = problem(features=3, channels=6)
    expected = check(edge_index, values, 1e-12, dropout=True)
    turned = {k: v.transpose(0, 1).contiguous().transpose(0, 1) for k, v in values.items()}
    found = check(edge_index, turned, 1e-12, dropout=True)
    assert all(found[name].equal(expected[name]) for name in found)


@each_set
@pytest.mark.parametrize("features", [None, 3, "projected"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits_on_any_number_of_threads(dtype, features):
    case = problem(None, 150, 130, 2000, 3, 21, features, dtype)
    found = []
    for threads in (1, 2, 2, 5):
        torch.set_num_threads(threads)
        found.append(check(*case, 1e-3, dropout=True))
    for other in found[1:]:
        assert all(found[0][name].equal(other[name]) for name in other)


def test_instruction_sets_agree():
    edge_index, values = problem(features=2, channels=40)
    found = []
    for name in SETS:
        with at_most(name):
            found.append(check(edge_index, values, 1e-12))
            # Where the machine has it, a set of its own: a narrower vector keeps more bytes.
            found[-1]["bytes"] = compiled.new_kept(values["x_r"], edge_index[0], True).shape[-1]
    sizes = [one.pop("bytes") for one in found]
    assert sizes == sorted(sizes, reverse=True)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


# --- The sort ---


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), max_size=60), st.integers(13, 20))
def test_sort_equals_a_stable_sort(keys, size):
    key = torch.tensor(keys, dtype=torch.long)
    before = key.clone()
    ptr, order = compiled.sort(key, size)
    ordered, expected = key.sort(stable=True)
    assert order.equal(expected)
    assert ptr.equal(torch.searchsorted(ordered, torch.arange(size + 1)))
    assert key.equal(before)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_sort_of_nothing(size):
    ptr, order = compiled.sort(torch.empty(0, dtype=torch.long), size)
    assert ptr.tolist() == [0] * (size + 1)
    assert order.shape == (0,)


def test_sort_with_strides():
    key = torch.randint(50, (2, 4000)).t()[:, 1]
    assert compiled.sort(key, 50)[1].equal(key.sort(stable=True).indices)
