"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter.

The interpreter must be chosen before Triton is imported. So without a GPU these tests run in a
process of their own, and in this one the kernels are only compiled, for a GPU that is not there.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch_geometric import EdgeIndex, seed_everything
from torch_geometric.nn import GATv2Conv

from gasmcast.nn.gatv2 import FusedGATv2Conv
from gasmcast.nn.gatv2_kernels import plain
from gasmcast.nn.gatv2_kernels.backend import force_gatv2_backend
from gasmcast.nn.gatv2_kernels.order import edge_order

triton = pytest.importorskip("triton")

from gasmcast.nn.gatv2_kernels import triton_kernels  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
NAMES = ("out", "alpha", "x_l", "x_r", "att", "edge_attr", "edge_weight")

runs_kernels = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="runs in the interpreter, in another process"
)
without_gpu = pytest.mark.skipif(
    DEVICE == "cuda" or INTERPRETED, reason="the kernels run in this process"
)


@without_gpu
def test_in_the_interpreter():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) > 20, result.stdout


@without_gpu
@pytest.mark.parametrize(
    ("channels", "features", "dropout", "sort", "dtype"),
    [
        (96, None, False, True, torch.float32),
        (96, 4, True, False, torch.bfloat16),
        (512, "projected", False, False, torch.float32),
        (5, 16, True, True, torch.float64),
        (1, 1, False, True, torch.float16),
    ],
)
def test_kernels_compile(channels, features, dropout, sort, dtype, monkeypatch):
    compilers = pytest.importorskip("triton.backends.compiler")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("Triton was built without the compiler for this GPU")
    there = SimpleNamespace(
        get_current_target=lambda: compilers.GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setattr(triton.runtime.driver, "_active", there)
    run, compiled = triton.JITFunction.run, []

    def compile_only(kernel, *args, warmup, **kwargs):
        compiled.append(run(kernel, *args, warmup=True, **kwargs))

    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    case = problem(6, 5, 20, 8, channels, features, dropout, sort, dtype=dtype)
    used = "messages" if dropout else "both"
    solve(case, used)
    names = ["forward", "attention", "target_gradients", "source_gradients"]
    if used == "messages":
        names.remove("attention")
    assert [kernel.metadata.name for kernel in compiled] == names
    assert all(kernel.asm["cubin"] for kernel in compiled)


def graph(sources, targets, edges, sort):
    """Random edges with at least one pair twice; the last source and the last target have none."""
    source = torch.randint(max(sources - 1, 1), (edges,))
    target = torch.randint(max(targets - 1, 1), (edges,))
    if edges > 1:
        source[-1], target[-1] = source[0], target[0]
    if sort:
        target = target.sort().values
    return torch.stack([source, target])


def problem(
    sources, targets, edges, heads, channels, features=None, dropout=False, sort=False,
    slope=0.2, dtype=torch.float64, edge_index=None,
):  # fmt: skip
    """Random input of the kernels, as leaves; ``features``: None, F, or "projected"."""
    torch.manual_seed(sources + 10 * targets + 100 * edges + channels)

    def leaf(*size):
        return torch.randn(*size).to(DEVICE, dtype).requires_grad_()

    if edge_index is None:
        edge_index = graph(sources, targets, edges, sort)
    edge_index = torch.as_tensor(edge_index).to(DEVICE)
    edges = edge_index.shape[1]
    edge_attr = edge_weight = keep = None
    if features == "projected":
        edge_attr = leaf(edges, heads * channels)
    elif features is not None:
        edge_attr, edge_weight = leaf(edges, features), leaf(heads * channels, features)
    if dropout:
        keep = (torch.rand(edges, heads) < 0.7).to(DEVICE, dtype) / 0.7
    return SimpleNamespace(
        x_l=leaf(sources, heads, channels),
        x_r=leaf(targets, heads, channels),
        att=leaf(heads, channels),
        edge_attr=edge_attr,
        edge_weight=edge_weight,
        keep=keep,
        edge_index=edge_index,
        sort=sort,
        slope=slope,
        grad_out=torch.randn(targets, heads, channels).to(DEVICE, dtype),
        grad_alpha=torch.randn(edges, heads).to(DEVICE, torch.promote_types(dtype, torch.float32)),
    )


def values(case):
    return case.x_l, case.x_r, case.att, case.edge_attr, case.edge_weight


def solve(case, used):
    """Messages, attention and gradients by the kernels, and the log-sum-exp under its name."""
    inputs = [None if value is None else value.detach() for value in values(case)]
    edge_index = case.edge_index
    if case.sort:  # said, for on a GPU nobody looks
        edge_index = EdgeIndex(edge_index, sort_order="col")
    order = edge_order(edge_index, len(case.x_l), len(case.x_r))
    assert order.edge is None or not case.sort
    edges = order.ptr, order.source, order.edge
    out, alpha, lse = triton_kernels.messages(
        *inputs, case.keep, *edges, case.slope, used != "messages", True
    )
    grads = triton_kernels.gradients(
        torch.zeros_like(out) if used == "attention" else case.grad_out.to(out.dtype),
        None if used == "messages" else case.grad_alpha,
        *inputs, case.keep, *edges, *order.transposed(), out, alpha, lse, case.slope,
        case.edge_attr is not None,
    )  # fmt: skip
    there = (True, used != "messages", *(value is not None for value in values(case)))
    results = zip(NAMES, (out, alpha, *grads), there, strict=True)
    return {name: result for name, result, is_there in results if is_there} | {"lse": lse}


def expected(case, used):
    """The same from the plain formula and autograd, in float64."""
    inputs = [
        None if value is None else value.detach().double().requires_grad_()
        for value in values(case)
    ]
    keep = None if case.keep is None else case.keep.double()
    outputs = plain.attend(*inputs, keep, *case.edge_index, case.slope)
    grads = [
        None if used == "attention" else case.grad_out.double(),
        None if used == "messages" else case.grad_alpha.double(),
    ]
    total = sum(
        (output * grad).sum()
        for output, grad in zip(outputs, grads, strict=True)
        if grad is not None
    )
    wanted = [value for value in inputs if value is not None]
    results = iter(torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))
    result = {"out": outputs[0].detach()}
    if used != "messages":
        result["alpha"] = outputs[1].detach()
    named = zip(NAMES[2:], inputs, strict=True)
    return result | {name: next(results) for name, value in named if value is not None}


def check(case, used="both", tolerance=1e-11):
    """Compare; the tolerance is relative to the largest number of each result."""
    results, reference = solve(case, used), expected(case, used)
    assert set(results) == set(reference) | {"lse"}
    for name, theirs in reference.items():
        ours = results[name]
        assert ours.shape == theirs.shape, name
        assert ours.is_contiguous(), name
        if theirs.numel():
            scale = max(float(theirs.abs().max()), 1e-3)
            error = float((ours.double() - theirs).abs().max())
            assert error <= tolerance * scale, f"{name} is off by {error}, of {scale}"
    for name, value in zip(NAMES[2:], values(case), strict=True):
        assert value is None or results[name].dtype == value.dtype
    return results


@runs_kernels
def test_by_hand():
    # Node 0 hears ln 2 and ln 4, which are their scores too: weights 1/3 and 2/3. Node 1: nothing.
    case = problem(2, 2, 0, 1, 1, edge_index=[[0, 1], [0, 0]])
    case.x_l = torch.tensor([2.0, 4.0], dtype=torch.float64, device=DEVICE).log().view(2, 1, 1)
    case.x_r, case.att = torch.zeros_like(case.x_r), torch.ones_like(case.att)
    results = solve(case, "both")
    close = torch.testing.assert_close
    assert results["alpha"].flatten().tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-15)
    assert results["out"].flatten().tolist() == pytest.approx([math.log(32) / 3, 0], abs=1e-15)
    assert results["lse"].flatten().tolist() == pytest.approx([math.log(6), -math.inf], abs=1e-15)
    close(results["x_r"][1], torch.zeros_like(results["x_r"][1]), rtol=0, atol=0)


@runs_kernels
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("features", [None, 1, 3, "projected"])
def test_equals_plain(features, dropout, sort):
    check(problem(4, 6, 15, 2, 5, features, dropout, sort))


@runs_kernels
@pytest.mark.parametrize("used", ["messages", "attention", "both"])
def test_what_has_a_gradient(used):
    check(problem(5, 4, 12, 3, 4, 2, dropout=True), used)


@runs_kernels
@pytest.mark.parametrize("slope", [0.0, 1.0, -0.3, 1.7])
def test_slopes(slope):
    check(problem(5, 4, 12, 2, 4, 2, slope=slope))


@runs_kernels
@pytest.mark.parametrize("features", [None, "projected"])
def test_kink_at_zero(features):
    case = problem(5, 4, 14, 2, 4, features)
    for value in (case.x_l, case.x_r, case.edge_attr):
        if value is not None:
            value.data.round_().clamp_(-1, 1)
    source, target = case.edge_index
    z = case.x_l[source] + case.x_r[target]
    if features is not None:
        z = z + case.edge_attr.view_as(z)
    assert (z == 0).sum() > 10
    check(case)


@runs_kernels
@pytest.mark.parametrize(
    ("channels", "edges", "features"),
    [(1, 10, 2), (1, 80, None), (8, 80, 3), (33, 12, 16), (100, 30, "projected"), (300, 9, 2)],
)
def test_sizes(channels, edges, features):
    rows = triton_kernels._tile(channels, torch.float64)["BLOCK_E"]
    case = problem(3, 3, edges, 2, channels, features, dropout=True)
    if edges > 50:
        assert case.edge_index[1].bincount().max() > rows
    check(case)


@runs_kernels
def test_more_edges_than_a_tile_for_sources_too():
    edge_index = torch.stack([torch.zeros(70), torch.arange(70) % 3]).long()
    check(problem(2, 3, 0, 1, 3, 2, edge_index=edge_index))


@runs_kernels
@pytest.mark.parametrize("features", [None, 2, "projected"])
@pytest.mark.parametrize(("sources", "targets"), [(3, 2), (0, 2), (3, 0), (0, 0)])
def test_no_edges(sources, targets, features):
    case = problem(sources, targets, 0, 2, 3, features, edge_index=torch.empty(2, 0).long())
    results = check(case)
    assert (results["lse"] == -math.inf).all()
    assert all((result == 0).all() for name, result in results.items() if name != "lse")


@runs_kernels
@pytest.mark.parametrize("features", [None, 2, "projected"])
@pytest.mark.parametrize("return_alpha", [True, False])
def test_operator(features, return_alpha):
    case = problem(3, 4, 9, 2, 3, features)
    order = edge_order(case.edge_index, 3, 4)
    edges = order.ptr, order.source, order.edge, *order.transposed()
    torch.library.opcheck(
        torch.ops.gasmcast.gatv2_messages.default,
        (*values(case), None, None, *edges, 0.2, return_alpha, "triton"),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
    out, alpha, _ = torch.ops.gasmcast.gatv2_messages(
        *values(case), None, None, *edges, 0.2, return_alpha, "triton"
    )
    # Also the attention that was not wanted, and is empty, may come with a gradient.
    torch.autograd.backward([out, alpha], [case.grad_out, case.grad_alpha[: len(alpha)]])
    reference = expected(case, "both" if return_alpha else "messages")
    for name, value in zip(NAMES[2:], values(case), strict=True):
        if value is not None:
            torch.testing.assert_close(value.grad, reference[name])


@runs_kernels
def test_single_node_hears_itself():
    check(problem(1, 1, 0, 1, 4, edge_index=[[0], [0]]))


@runs_kernels
@pytest.mark.parametrize("parts", [1, 4, 7])
def test_chunks_of_targets(parts, monkeypatch):
    monkeypatch.setattr(triton_kernels, "_PARTS", parts)
    check(problem(4, 5, 16, 2, 3, 3, dropout=True))


@runs_kernels
@pytest.mark.parametrize("sign", [1, -1])
def test_large_scores(sign):
    # A score of 1000 would overflow, and so would exp(0 - (-1000)) in the empty rows of a tile.
    case = problem(4, 3, 12, 1, 3)
    case.x_l = (1000 + case.x_l.detach().abs()).requires_grad_()
    case.att = torch.full_like(case.att, sign / 3).requires_grad_()
    check(case, tolerance=1e-8)


@runs_kernels
def test_expanded_gradient():
    case = problem(4, 5, 12, 2, 3, 2)
    case.grad_out = torch.ones((), dtype=torch.float64, device=DEVICE).expand(5, 2, 3)
    check(case)


@runs_kernels
@pytest.mark.parametrize("features", [None, 3, "projected"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
)
def test_dtypes(dtype, tolerance, features):
    check(problem(5, 6, 20, 2, 12, features, dropout=True, dtype=dtype), tolerance=tolerance)


@runs_kernels
def test_bfloat16_nodes_and_float32_attention():
    case = problem(5, 6, 20, 2, 12, dtype=torch.bfloat16)
    case.att = torch.randn(2, 12, device=DEVICE)
    results = check(case, tolerance=1e-2)
    assert results["out"].dtype == results["att"].dtype == torch.float32


@runs_kernels
def test_same_bits_twice_and_inputs_untouched():
    case = problem(5, 6, 40, 2, 20, 3, dropout=True, dtype=torch.float32)
    before = [value.detach().clone() for value in values(case)]
    first, second = solve(case, "both"), solve(case, "both")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(map(torch.equal, before, values(case)))


@runs_kernels
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edge_dim": 3, "fill_value": "mean"},
        {"edge_dim": 20, "add_self_loops": False},
        {"dropout": 0.5, "concat": False, "residual": True},
        {"share_weights": True, "negative_slope": 0.0},
    ],
    ids=str,
)
def test_layer_equals_pyg(options):
    torch.manual_seed(0)
    theirs = GATv2Conv(6, 4, heads=2, **options).to(DEVICE, torch.float64)
    ours = FusedGATv2Conv(6, 4, heads=2, **options).to(DEVICE, torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 6, dtype=torch.float64, device=DEVICE)
    edge_index = graph(7, 7, 16, sort=False).to(DEVICE)
    edge_attr = None
    if "edge_dim" in options:
        edge_attr = torch.randn(16, options["edge_dim"], dtype=torch.float64, device=DEVICE)
    results = []
    with force_gatv2_backend("triton"):
        for layer in (theirs, ours):
            inputs = [None if v is None else v.clone().requires_grad_() for v in (x, edge_attr)]
            seed_everything(1)
            out, (edges, alpha) = layer(
                inputs[0], edge_index, inputs[1], return_attention_weights=True
            )
            weighted = (out * torch.linspace(-1, 1, out.numel()).to(out).view_as(out)).sum()
            (weighted + (alpha**2).sum()).backward()
            leaves = [*(v for v in inputs if v is not None), *layer.parameters()]
            results.append([out, edges, alpha, *(leaf.grad for leaf in leaves)])
    for mine, reference in zip(*reversed(results), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


@runs_kernels
@pytest.mark.parametrize("bias", [True, False])
def test_the_output_may_be_written_to(bias):
    x = torch.randn(7, 6, dtype=torch.float64, device=DEVICE)
    edge_index = graph(7, 7, 16, sort=False).to(DEVICE)
    layer = FusedGATv2Conv(6, 4, heads=2, bias=bias).to(DEVICE, torch.float64)
    gradients = []
    with force_gatv2_backend("triton"):
        for relu in (torch.relu, torch.relu_):
            layer.zero_grad()
            relu(layer(x, edge_index)).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    torch.testing.assert_close(*gradients)


@runs_kernels
def test_layer_on_sources_and_targets():
    torch.manual_seed(0)
    theirs = GATv2Conv((5, 3), 4, heads=2, add_self_loops=False).to(DEVICE)
    ours = FusedGATv2Conv((5, 3), 4, heads=2, add_self_loops=False).to(DEVICE)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(6, 5, device=DEVICE), torch.randn(4, 3, device=DEVICE)
    edge_index = graph(6, 4, 11, sort=False).to(DEVICE)
    with force_gatv2_backend("triton"):
        torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index))
