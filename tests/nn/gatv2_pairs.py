"""PyG's layer beside ours with the same weights, the graphs to try them on, and how to compare."""

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATv2Conv

from gasmcast.nn.gatv2 import FusedGATv2Conv
from gasmcast.nn.gatv2_kernels import compiled
from gasmcast.nn.gatv2_kernels.backend import force_gatv2_backend

BACKENDS = [
    pytest.param(
        "c", marks=pytest.mark.skipif(not compiled.is_available(), reason="was not compiled")
    ),
    "blocked",
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Every kernel of the CPU in turn, on one core; tests import this fixture."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with force_gatv2_backend(request.param):
        yield request.param
    torch.set_num_threads(threads)


def pair(*args, dtype=torch.float64, **options):
    """PyG's layer and ours, with the same random weights, biases too."""
    torch.manual_seed(0)
    theirs = GATv2Conv(*args, **options).to(dtype)
    ours = FusedGATv2Conv(*args, **options).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) / 2)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def normal(*size, dtype=torch.float64, seed=0):
    """The same random numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed + sum(size))
    return torch.randn(*size, dtype=torch.float64, generator=generator).to(dtype)


def random_edges(sources, targets, edges, sort=False, seed=0):
    """Random edges, one of them twice and one from a node to itself; the last nodes have none."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(max(sources - 1, 1), (edges,), generator=generator)
    target = torch.randint(max(targets - 1, 1), (edges,), generator=generator)
    if edges > 2:
        source[0] = target[0] = 0
        source[-1], target[-1] = source[1], target[1]
    if sort:
        order = target.argsort(stable=True)
        source, target = source[order], target[order]
    return torch.stack([source, target])


def results(layer, x, edge_index, edge_attr=None, used="both", seed=0):
    """Outputs and all gradients by name; None where there is none.

    Args:
        layer: Either.
        x: Nodes, or sources and targets.
        edge_index: The edges.
        edge_attr: Their features.
        used: Whether "out", "alpha" or "both" enter the loss.
        seed: Of dropout.
    """
    layer.zero_grad()
    leaves = {}

    def leaf(name, value):
        leaves[name] = value.clone().requires_grad_()
        return leaves[name]

    nodes = (
        leaf("x", x)
        if isinstance(x, Tensor)
        else tuple(leaf(f"x_{end}", value) for end, value in zip("lr", x, strict=True))
    )
    edge_attr = None if edge_attr is None else leaf("edge_attr", edge_attr)
    torch.manual_seed(seed)
    found = {}
    if used == "out":
        found["out"] = layer(nodes, edge_index, edge_attr)
    else:
        out, (edges, alpha) = layer(nodes, edge_index, edge_attr, return_attention_weights=True)
        found |= {"out": out, "edge_index": edges, "alpha": alpha}
    terms = [
        (found[name].float() if found[name].dtype.itemsize < 4 else found[name])
        * normal(*found[name].shape, dtype=torch.float32)
        for name in ("out", "alpha")
        if name == used or (used == "both" and name in found)
    ]
    sum(term.sum() for term in terms).backward()
    leaves |= dict(layer.named_parameters())
    return found | {f"grad of {name}": value.grad for name, value in leaves.items()}


def error_of(result, expected):
    """How far off a result is, as a part of the expected one, both as Euclidean norms."""
    difference = result.detach().double() - expected.detach().double()
    return float(difference.norm() / expected.detach().double().norm().clamp(min=1e-3))


def assert_same(ours, theirs, tolerance=1e-10):
    """Results by name are equal, up to a part of each one's largest number."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        result = ours[name]
        if expected is None:
            assert result is None, name
            continue
        if result is None:  # without edges
            assert not expected.any(), name
            continue
        assert result.shape == expected.shape, name
        if name == "edge_index":
            assert torch.equal(torch.as_tensor(result), torch.as_tensor(expected))
            continue
        assert result.dtype == expected.dtype, name
        result, expected = result.detach().double(), expected.detach().double()
        assert result.isnan().equal(expected.isnan()), name
        result, expected = result.nan_to_num(), expected.nan_to_num()
        scale = max(float(expected.abs().max()), 1e-3) if expected.numel() else 1
        error = float((result - expected).abs().max()) if expected.numel() else 0
        assert error <= tolerance * scale, f"{name} is off by {error}, of {scale}"
