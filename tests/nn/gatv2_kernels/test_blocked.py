"""The blocked kernel against the plain formula and its autograd, mostly in float64."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import GATv2Conv

from gasmcast.nn.gatv2 import FusedGATv2Conv
from gasmcast.nn.gatv2_kernels import blocked, plain
from gasmcast.nn.gatv2_kernels.backend import force_gatv2_backend
from gasmcast.nn.gatv2_kernels.order import edge_order

NAMES = ("x_l", "x_r", "att", "edge_attr", "edge_weight")


@dataclass
class Problem:
    """Inputs of the kernel, and the gradients that come in; None where there are none."""

    edge_index: Tensor
    x_l: Tensor
    x_r: Tensor
    att: Tensor
    edge_attr: Tensor | None
    edge_weight: Tensor | None
    keep: Tensor | None
    grad_out: Tensor | None
    grad_alpha: Tensor | None
    slope: float

    def values(self):
        return [getattr(self, name) for name in NAMES]

    def tensors(self):
        fields = [*self.values(), self.keep, self.grad_out, self.grad_alpha, self.edge_index]
        return [field for field in fields if field is not None]


def problem(
    edge_index=None, sources=9, targets=7, edges=40, heads=2, channels=5, features=None,
    dropout=False, sort=True, used="both", slope=0.2, dtype=torch.float64,
):  # fmt: skip
    """A random one. ``features``: None, F, or "projected"; ``used``: "out", "alpha" or "both"."""
    torch.manual_seed(0)
    if edge_index is None:
        edge_index = random_edges(sources, targets, edges, sort)
    edges = edge_index.shape[1]

    def normal(*size):
        return torch.randn(*size, dtype=torch.float64).to(dtype)

    edge_attr = edge_weight = None
    if features == "projected":
        edge_attr = normal(edges, heads * channels)
    elif features is not None:
        edge_attr, edge_weight = normal(edges, features), normal(heads * channels, features)
    return Problem(
        edge_index=edge_index,
        x_l=normal(sources, heads, channels),
        x_r=normal(targets, heads, channels),
        att=normal(heads, channels),
        edge_attr=edge_attr,
        edge_weight=edge_weight,
        keep=((torch.rand(edges, heads) < 0.6) / 0.6).to(dtype) if dropout else None,
        grad_out=None if used == "alpha" else normal(targets, heads, channels),
        grad_alpha=None if used == "out" else normal(edges, heads),
        slope=slope,
    )


def random_edges(sources, targets, edges, sort):
    """The last source sends none, the last target receives none, and one edge is there twice."""
    source, target = torch.randint(sources - 1, (edges,)), torch.randint(targets - 1, (edges,))
    source[-1], target[-1] = source[0], target[0]
    order = target.argsort() if sort else torch.randperm(edges)
    return torch.stack([source[order], target[order]])


def solve(case):
    """Outputs and gradients of the kernel, by name."""
    order = edge_order(case.edge_index, len(case.x_l), len(case.x_r))
    edges = order.ptr, order.source, order.edge
    out, alpha, kept = blocked.messages(*case.values(), case.keep, *edges, case.slope, True, True)
    grad_out = torch.zeros_like(out) if case.grad_out is None else case.grad_out
    grads = blocked.gradients(
        grad_out, case.grad_alpha, *case.values(), case.keep, *edges, *order.transposed(),
        None, alpha, kept, case.slope, case.edge_attr is not None,
    )  # fmt: skip
    assert kept.numel() == 0
    results = {"out": out, "alpha": alpha}
    for name, value, grad in zip(NAMES, case.values(), grads, strict=True):
        if value is None:
            assert grad.numel() == 0
        else:
            assert grad.dtype == value.dtype
            results[name] = grad
    return results


def expected(case):
    """The same from the plain formula in float64."""
    values = [None if v is None else v.double().requires_grad_() for v in case.values()]
    keep = None if case.keep is None else case.keep.double()
    outputs = plain.attend(*values, keep, *case.edge_index, case.slope)
    pairs = zip(outputs, (case.grad_out, case.grad_alpha), strict=True)
    loss = sum((output * grad.double()).sum() for output, grad in pairs if grad is not None)
    there = {name: v for name, v in zip(NAMES, values, strict=True) if v is not None}
    grads = torch.autograd.grad(
        loss, list(there.values()), allow_unused=True, materialize_grads=True
    )
    outputs = {"out": outputs[0].detach(), "alpha": outputs[1].detach()}
    return outputs | dict(zip(there, grads, strict=True))


def check(case, tolerance=1e-12):
    """Compare; errors are relative to the largest number of each result."""
    results, theirs = solve(case), expected(case)
    assert results.keys() == theirs.keys()
    for name, result in results.items():
        assert result.shape == theirs[name].shape, name
        scale = theirs[name].abs().amax().item() if result.numel() else 0.0
        torch.testing.assert_close(
            result.double(), theirs[name], rtol=0, atol=tolerance * max(scale, 1.0), msg=name
        )
    return results


@pytest.fixture(params=["one block", "blocks of three edges"])
def blocks(request, monkeypatch):
    """Blocks of three edges, of the ten channels in float64 that most problems have."""
    if request.param != "one block":
        monkeypatch.setattr(blocked, "CPU_BLOCK_BYTES", 3 * 10 * 8)


def test_by_hand():
    # Node 0 hears ln 2 and ln 4, which are their scores too: weights 1/3 and 2/3. Node 1: nothing.
    case = problem(torch.tensor([[0, 1], [0, 0]]), sources=2, targets=2, heads=1, channels=1)
    case.x_l = torch.tensor([2.0, 4.0], dtype=torch.float64).log().view(2, 1, 1)
    case.x_r, case.att = torch.zeros_like(case.x_r), torch.ones_like(case.att)
    results = solve(case)
    assert results["alpha"].flatten().tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-15)
    assert results["out"].flatten().tolist() == pytest.approx([math.log(32) / 3, 0], abs=1e-15)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("features", [None, 1, 3, "projected"])
def test_equals_plain(features, dropout, sort):
    results = check(problem(features=features, dropout=dropout, sort=sort))
    assert (results["out"][-1] == 0).all()
    assert (results["x_l"][-1] == 0).all()
    assert (results["x_r"][-1] == 0).all()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("used", ["out", "alpha"])
@pytest.mark.parametrize("sort", [True, False])
def test_gradient_of_one_output(used, sort):
    check(problem(used=used, features=2, dropout=True, sort=sort))


@pytest.mark.parametrize("slope", [0.0, 1.0, -0.3, 2.0])
def test_slopes(slope):
    check(problem(slope=slope, features=2))


@pytest.mark.parametrize("features", [None, "projected"])
def test_kink_has_the_negative_slope(features):
    case = problem(features=features)
    for value in (case.x_l, case.x_r, case.edge_attr):
        if value is not None:
            value.round_().clamp_(-1, 1)
    source, target = case.edge_index
    z = case.x_l[source] + case.x_r[target]
    z = z if features is None else z + case.edge_attr.view_as(z)
    assert (z == 0).sum() > 50
    check(case)


@pytest.mark.parametrize(("sources", "targets"), [(3, 2), (0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("features", [None, 2, "projected"])
def test_no_edges(sources, targets, features):
    nothing = torch.empty(2, 0, dtype=torch.long)
    results = check(problem(nothing, sources, targets, features=features, dropout=True))
    assert all((result == 0).all() for result in results.values())


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("hub", ["target", "source"])
def test_one_node_with_most_edges(hub):
    many, few = torch.zeros(300, dtype=torch.long), torch.arange(300) % 20
    edge_index = torch.stack([few, many] if hub == "target" else [many, few])
    check(problem(torch.cat([edge_index, random_edges(20, 20, 30, True)], 1), 20, 20, sort=False))


def test_large_scores():
    case = problem()
    case.x_l, case.att = 1000 + case.x_l.abs(), torch.ones_like(case.att)
    check(case, tolerance=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x_l", "x_r"])
def test_bad_numbers_are_not_hidden(where, bad):
    case = problem()
    getattr(case, where)[0, 0, 0] = bad
    results, theirs = solve(case), expected(case)
    assert results["out"].isnan().any()
    for name in ("out", "alpha"):
        assert results[name].isnan().equal(theirs[name].isnan()), name


@pytest.mark.parametrize("features", [None, 3, "projected"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
)
def test_dtypes(dtype, tolerance, features):
    case = problem(features=features, dropout=True, sort=False, dtype=dtype)
    results = check(case, tolerance)
    assert results["out"].dtype == dtype
    assert results["alpha"].dtype == torch.float32


@pytest.mark.parametrize(
    ("nodes", "attention", "tolerance"),
    [(torch.bfloat16, torch.float32, 1e-2), (torch.float32, torch.float64, 1e-5)],
)
def test_attention_of_another_dtype(nodes, attention, tolerance):
    case = problem(dropout=True, dtype=nodes)
    case.att, case.keep = case.att.to(attention), case.keep.to(attention)
    assert check(case, tolerance)["out"].dtype == attention


def test_memory_layouts():
    case = problem(features=3, dropout=True)
    contiguous = solve(case)
    for name in ("x_l", "x_r", "att", "edge_attr", "edge_weight", "keep", "grad_alpha"):
        value = getattr(case, name)
        setattr(case, name, value.transpose(0, 1).contiguous().transpose(0, 1))
    for name, result in solve(case).items():
        assert torch.allclose(result, contiguous[name], atol=1e-12), name
    case.grad_out = torch.ones((), dtype=torch.float64).expand_as(case.grad_out)
    check(case)


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("features", [None, 3, "projected"])
def test_repeats_itself_and_leaves_its_inputs_alone(features, sort):
    case = problem(sources=60, targets=60, edges=900, features=features, dropout=True, sort=sort)
    before = [tensor.clone() for tensor in case.tensors()]
    first, second = solve(case), solve(case)
    assert all(first[name].equal(second[name]) for name in first)
    assert all(a.equal(b) for a, b in zip(before, case.tensors(), strict=True))


class Largest(TorchDispatchMode):
    """Notes the largest number of elements that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 8)
        return result


@pytest.mark.parametrize("features", [None, 3])
def test_nothing_as_wide_as_a_node_for_every_edge(features, monkeypatch):
    monkeypatch.setattr(blocked, "CPU_BLOCK_BYTES", 100 * 64 * 8)
    case = problem(
        sources=20, targets=20, edges=3000, channels=32, features=features, dropout=True, sort=False
    )
    with Largest() as largest:
        solve(case)
    block, of_edges = 100 * 64, 3000 * max(2, features or 0)  # z; [E, H], [E, 2], [E, F]
    assert largest.elements == max(block, of_edges)


def test_autocast_does_not_lower_precision():
    case = problem(features=3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        check(case, 1e-5)


@pytest.mark.parametrize("edge_dim", [None, 2, 20])
def test_layer_equals_pyg(edge_dim):
    torch.manual_seed(0)
    edge_index = torch.randint(12, (2, 50))
    edge_attr = None if edge_dim is None else torch.randn(50, edge_dim, dtype=torch.float64)
    x = torch.randn(12, 6, dtype=torch.float64)
    layers = [
        layer(6, 4, heads=3, edge_dim=edge_dim).double() for layer in (GATv2Conv, FusedGATv2Conv)
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    results = []
    with force_gatv2_backend("blocked"):
        for layer in layers:
            leaf = x.clone().requires_grad_()
            out, (_, alpha) = layer(leaf, edge_index, edge_attr, return_attention_weights=True)
            (out.square().sum() + alpha.square().sum()).backward()
            results.append([out, alpha, leaf.grad, *(p.grad for p in layer.parameters())])
    for theirs, ours in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
