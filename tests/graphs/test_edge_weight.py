"""The weights of the edges are their similarities, and learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.graphs import Adjacent, Nearest, Similar, build_graph
from graphs.oracles import DTYPES, clips, make_clips, some_examples


def dense_weights(features, graph):
    """Entries of the whole matrix of cosines; of a zero vector, 0 and no gradient."""
    norm = features.square().sum(dim=1, keepdim=True)
    length = torch.where(norm > 0, norm, 1.0).sqrt()
    direction = torch.where(norm > 0, features / length, 0.0)
    source, target = graph.edge_index
    return (direction @ direction.T)[target, source]


def weigh(features, **options):
    return build_graph(Nearest(2) | Adjacent(1), features=features, edge_weight=True, **options)


@some_examples
@given(clips(), st.booleans(), st.booleans())
def test_equals_the_cosine_and_its_gradient(data, undirected, connected):
    options = {
        "positions": data.positions,
        "ptr": data.ptr,
        "undirected": undirected,
        "connected": connected,
    }
    features = data.features.clone().requires_grad_()
    graph = weigh(features, **options)
    wanted = dense_weights(features, graph)
    torch.testing.assert_close(graph.edge_weight, wanted)
    source, target = graph.edge_index
    there = (source != target) | (features[target] != 0).any(dim=1)
    torch.testing.assert_close(graph.edge_weight[there], graph.edge_attr[there, -1])
    torch.manual_seed(0)
    factor = torch.randn(graph.num_edges, dtype=features.dtype)
    (gradient,) = torch.autograd.grad((graph.edge_weight * factor).sum(), features)
    (expected,) = torch.autograd.grad((wanted * factor).sum(), features)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("seed", range(4))
def test_gradcheck(seed):
    data = make_clips([4, 0, 1, 3], dtype=torch.float64, seed=seed)
    features = data.features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: weigh(x, positions=data.positions, ptr=data.ptr).edge_weight, features
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_zero_vector_has_a_finite_gradient(dtype):
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0], [4.0, 3.0]], dtype=dtype, requires_grad=True)
    graph = build_graph(Similar(-1.0), features=features, edge_weight=True)
    weights = graph.edge_weight.view(3, 3)
    expected = torch.tensor([[1, 0, 0.96], [0, 0, 0], [0.96, 0, 1]], dtype=dtype)
    torch.testing.assert_close(weights, expected)
    graph.edge_weight.sum().backward()
    # d cos / dx = (y / |y| - cos x / |x|) / |x|, twice: once for either direction.
    by_hand = torch.tensor([[0.0896, -0.0672], [0.0, 0.0], [-0.0672, 0.0896]], dtype=dtype)
    torch.testing.assert_close(features.grad, by_hand, rtol=2e-2, atol=2e-3)


def test_equals_the_reference_in_float32_over_many_edges():
    # More edges than are gathered at once.
    data = make_clips([90], channels=12)
    features = data.features.requires_grad_()
    graph = build_graph(Similar(-1.0), features=features, edge_weight=True)
    wanted = dense_weights(features, graph)
    torch.testing.assert_close(graph.edge_weight, wanted)
    torch.manual_seed(0)
    factor = torch.randn(graph.num_edges)
    (gradient,) = torch.autograd.grad((graph.edge_weight * factor).sum(), features)
    (expected,) = torch.autograd.grad((wanted * factor).sum(), features)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e-25),
        (torch.float32, 1e25),
        (torch.float64, 1e-200),
        (torch.float64, 1e200),
    ],
)
def test_magnitude_does_not_matter(dtype, scale):
    data = make_clips([5], dtype=dtype)
    features = (data.features * scale).requires_grad_()
    graph = build_graph(Similar(-1.0), features=features, edge_weight=True)
    torch.testing.assert_close(graph.edge_weight, graph.edge_attr[:, 0])
    graph.edge_weight.sum().backward()
    assert features.grad.isfinite().all()


def test_without_features_there_is_nothing_to_weigh():
    with pytest.raises(ValueError, match="edge_weight needs features, got none"):
        build_graph(Adjacent(), torch.zeros(3, 2), edge_weight=True)


def test_second_derivatives_are_those_of_the_cosine():
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def weights(x):
        return build_graph(Similar(-1.0), features=x, edge_weight=True).edge_weight

    assert torch.autograd.gradgradcheck(weights, features)
