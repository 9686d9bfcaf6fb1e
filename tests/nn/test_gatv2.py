"""The layer against PyG's layer: what goes in, and what comes out."""

import copy
import pickle

import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv
from torch_geometric.nn.dense.linear import Linear

from gasmcast.nn.gatv2 import FusedGATv2Conv
from gasmcast.nn.gatv2_kernels import compiled
from gasmcast.nn.gatv2_kernels.backend import force_gatv2_backend, gatv2_backend
from nn.gatv2_pairs import assert_same, backend, error_of, normal, pair, random_edges, results

__all__ = ["backend"]  # a fixture

every_backend = pytest.mark.usefixtures("backend")


@pytest.fixture
def counts_fast(monkeypatch):
    """How often our own way was taken, not PyG's."""
    calls = []
    original = FusedGATv2Conv._edges
    monkeypatch.setattr(
        FusedGATv2Conv, "_edges", lambda *args: calls.append(args) or original(*args)
    )
    return calls


# --- Any graph, any options ---


@st.composite
def problems(draw):
    """Arguments of the layer, and its inputs."""
    bipartite, edge_dim = draw(st.booleans()), draw(st.sampled_from([None, 1, 3, 20]))
    add_self_loops = draw(st.booleans())
    fill = draw(st.sampled_from([0.5, -1, "tensor", "mean", "max", "add", "min", "mul"]))
    sources = draw(st.integers(1, 7))
    # PyG reduces features only of edges to nodes that get a self-loop.
    most = sources if add_self_loops and edge_dim is not None else 7
    targets = draw(st.integers(1, most)) if bipartite else sources
    share = draw(st.booleans())
    in_l = draw(st.integers(1, 4))
    in_r = in_l if share else draw(st.integers(1, 4))
    one_dimensional = edge_dim == 1 and draw(st.booleans())
    if fill == "tensor":
        fill = 0.25 if one_dimensional or edge_dim is None else normal(edge_dim)
    layer = {
        "in_channels": (in_l, in_r) if bipartite else in_l,
        "out_channels": draw(st.sampled_from([1, 3, 8, 17, 32])),
        "heads": draw(st.integers(1, 3)),
        "concat": draw(st.booleans()),
        "negative_slope": draw(st.sampled_from([0.2, 0.0, 1.0, -0.5])),
        "dropout": draw(st.sampled_from([0.0, 0.4])),
        "add_self_loops": add_self_loops,
        "edge_dim": edge_dim,
        "fill_value": fill,
        "bias": draw(st.booleans()),
        "share_weights": share,
        "residual": draw(st.booleans()),
    }
    edges = draw(st.one_of(st.integers(0, 12), st.integers(13, 40)))
    edge_index = random_edges(sources, targets, edges, draw(st.booleans()), draw(st.integers(0, 9)))
    x = normal(sources, in_l)
    if bipartite:
        x = (x, normal(targets, in_r, seed=1))
    edge_attr = None if edge_dim is None else normal(edges, edge_dim, seed=2)
    if one_dimensional:
        edge_attr = edge_attr.flatten()
    used = draw(st.sampled_from(["out", "alpha", "both"]))
    return layer, x, edge_index, edge_attr, used


@every_backend
@settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(problems())
def test_equals_pyg(problem):
    options, x, edge_index, edge_attr, used = problem
    theirs, ours = pair(**options)
    expected = results(theirs, x, edge_index, edge_attr, used)
    before = edge_index.clone()
    assert_same(results(ours, x, edge_index, edge_attr, used), expected)
    # The order of the graph is remembered now.
    assert_same(results(ours, x, edge_index, edge_attr, used), expected)
    assert edge_index.equal(before)


@every_backend
def test_common_graphs_do_not_go_pygs_way(counts_fast):
    _, ours = pair(4, 3, heads=2, edge_dim=2)
    for training in (True, False):
        ours.train(training)
        ours(normal(6, 4), random_edges(6, 6, 20), normal(20, 2))
    assert len(counts_fast) == 2


@every_backend
def test_three_nodes_by_hand():
    layer = FusedGATv2Conv(1, 1, add_self_loops=False, bias=False).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(1)
        layer.lin_r.weight.zero_()
    x = torch.tensor([[2.0], [4.0], [3.0]], dtype=torch.float64).log()
    # Node 2 hears ln 2 and ln 4, which are their scores too: weights 1/3 and 2/3.
    out, (_, alpha) = layer(x, torch.tensor([[0, 1], [2, 2]]), return_attention_weights=True)
    torch.testing.assert_close(alpha.flatten(), torch.tensor([1 / 3, 2 / 3]).double())
    assert out[:2].eq(0).all()
    torch.testing.assert_close(out[2, 0], torch.tensor(32.0).double().log() / 3)


# --- Dropout ---


@every_backend
@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("sort", [True, False])
def test_same_seed_drops_the_same_edges(sort, add_self_loops):
    theirs, ours = pair(4, 3, heads=2, dropout=0.5, add_self_loops=add_self_loops)
    x, edge_index = normal(8, 4), random_edges(8, 8, 40, sort)
    dropped = []
    for seed in (1, 2):
        expected = results(theirs, x, edge_index, seed=seed)
        found = results(ours, x, edge_index, seed=seed)
        assert_same(found, expected)
        dropped.append(found["alpha"] == 0)
        assert dropped[-1].equal(expected["alpha"] == 0)
    assert not dropped[0].equal(dropped[1])


@every_backend
def test_random_numbers_after_the_layer_are_those_after_pygs():
    theirs, ours = pair(4, 3, dropout=0.5, residual=True, edge_dim=2)
    inputs = normal(8, 4), random_edges(8, 8, 40), normal(40, 2)
    after = []
    for layer in (theirs, ours):
        for name in ("res", "lin_l", "lin_r", "lin_edge"):  # as adapters do, they draw too
            getattr(layer, name).register_forward_hook(
                lambda module, args, out: torch.nn.functional.dropout(out, 0.3)
            )
        torch.manual_seed(5)
        after.append((layer(*inputs), torch.rand(1)))
    torch.testing.assert_close(*after)


@every_backend
def test_dropping_all_leaves_the_bias():
    theirs, ours = pair(4, 3, heads=2, dropout=1.0)
    inputs = normal(8, 4), random_edges(8, 8, 40)
    found = results(ours, *inputs)
    assert_same(found, results(theirs, *inputs))
    assert found["out"].equal(ours.bias.expand(8, -1))


@every_backend
def test_no_dropout_in_evaluation():
    theirs, ours = pair(4, 3, heads=2, dropout=0.9)
    theirs.eval()
    ours.eval()
    inputs = normal(8, 4), random_edges(8, 8, 40)
    found = results(ours, *inputs)
    assert_same(found, results(theirs, *inputs))
    total = torch.zeros(8, 2).double().index_add(0, found["edge_index"][1], found["alpha"].detach())
    torch.testing.assert_close(total, torch.ones(8, 2).double())


# --- Dtypes ---


@every_backend
@pytest.mark.parametrize("edge_dim", [None, 3, 20])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)],
    ids=str,
)
def test_lower_precision(dtype, tolerance, edge_dim):
    theirs, ours = pair(16, 12, heads=2, edge_dim=edge_dim, dtype=dtype)
    exact, _ = pair(16, 12, heads=2, edge_dim=edge_dim)
    exact.load_state_dict(theirs.state_dict())
    x, edge_index = normal(20, 16, dtype=dtype, seed=1), random_edges(20, 20, 120, seed=1)
    edge_attr = None if edge_dim is None else normal(120, edge_dim, dtype=dtype, seed=1)
    found, in_pyg = (results(layer, x, edge_index, edge_attr) for layer in (ours, theirs))
    wide = None if edge_attr is None else edge_attr.double()
    for name, expected in results(exact, x.double(), edge_index, wide).items():
        # A z that rounding moves over the kink of the LeakyReLU is off for PyG too.
        ours_off, pyg_off = (error_of(value[name], expected) for value in (found, in_pyg))
        assert ours_off <= max(1.1 * pyg_off, tolerance), f"{name}: {ours_off}, PyG's {pyg_off}"
        assert found[name].dtype == in_pyg[name].dtype, name


@every_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"concat": False}, {"residual": True, "dropout": 0.3}, {"edge_dim": 3}, {"edge_dim": 20}],
    ids=str,
)
def test_autocast(options, dtype):
    theirs, ours = pair(16, 12, heads=2, dtype=torch.float32, **options)
    x, edge_index = normal(20, 16, dtype=torch.float32, seed=1), random_edges(20, 20, 120, seed=1)
    edge_attr = None
    if "edge_dim" in options:
        edge_attr = normal(120, options["edge_dim"], dtype=torch.float32, seed=1)
    exact = results(theirs, x, edge_index, edge_attr)
    with torch.autocast("cpu", dtype):
        in_pyg = results(theirs, x, edge_index, edge_attr)
        found = results(ours, x, edge_index, edge_attr)
    for name, expected in exact.items():
        ours_off, pyg_off = (error_of(value[name], expected) for value in (found, in_pyg))
        assert ours_off <= max(2 * pyg_off, 1e-2), f"{name}: {ours_off}, PyG's {pyg_off}"
        assert found[name].dtype == in_pyg[name].dtype, name


@every_backend
def test_autocast_takes_features_of_either_dtype():
    theirs, ours = pair(6, 4, edge_dim=3, dtype=torch.float32)
    inputs = normal(8, 6, dtype=torch.bfloat16), random_edges(8, 8, 30)
    edge_attr = normal(30, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = theirs(*inputs, edge_attr), ours(*inputs, edge_attr)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-2)


@every_backend
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("edge_dim", [None, 3])
def test_nan_reaches_the_nodes_it_reaches_with_pyg(edge_dim, bad):
    theirs, ours = pair(4, 3, heads=2, add_self_loops=False, edge_dim=edge_dim)
    x, edge_index = normal(9, 4), random_edges(9, 9, 14, seed=3)
    x[2, 1] = bad
    edge_attr = None if edge_dim is None else normal(14, edge_dim)
    if edge_attr is not None:
        edge_attr[5, 0] = float("nan")
    expected = theirs(x, edge_index, edge_attr)
    assert 0 < expected.isnan().sum() < expected.numel()
    assert ours(x, edge_index, edge_attr).isnan().equal(expected.isnan())


# --- Forms of edges ---


@every_backend
@pytest.mark.parametrize("edge_dim", [None, 3])
def test_permuting_the_edges_permutes_the_attention(edge_dim):
    _, ours = pair(4, 3, heads=2, edge_dim=edge_dim, add_self_loops=False)
    x, edge_index, order = normal(9, 4), random_edges(9, 9, 40, sort=True), torch.randperm(40)
    edge_attr = None if edge_dim is None else normal(40, edge_dim)
    first = results(ours, x, edge_index, edge_attr)
    permuted = None if edge_attr is None else edge_attr[order]
    second = results(ours, x, edge_index[:, order], permuted)
    torch.testing.assert_close(second["out"], first["out"])
    torch.testing.assert_close(second["alpha"], first["alpha"][order])


@every_backend
@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("size", [None, (7, 7), (None, 7)])
@pytest.mark.parametrize("sort_order", ["col", "row", None])
def test_edge_index_of_pyg(sort_order, size, add_self_loops, counts_fast):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2, add_self_loops=add_self_loops)
    edges = random_edges(7, 7, 30)
    edges[:, 20] = 6  # PyG takes the largest number for the number of nodes
    if sort_order is not None:
        edges = edges[:, edges[int(sort_order == "col")].argsort(stable=True)]

    def made():
        return EdgeIndex(edges.clone(), sort_order=sort_order, sparse_size=size)

    inputs = normal(7, 4), normal(30, 2)
    expected = results(theirs, inputs[0], made(), inputs[1])
    edge_index = made()
    found = results(ours, inputs[0], edge_index, inputs[1])
    assert_same(found, expected)
    assert_same(found, results(theirs, inputs[0], edges, inputs[1]))
    assert type(found["edge_index"]) is type(expected["edge_index"])
    assert edge_index.as_tensor().equal(edges)
    assert len(counts_fast) == 1


@every_backend
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8], ids=str)
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_smaller_integers(dtype, add_self_loops):
    _, ours = pair(4, 3, heads=2, add_self_loops=add_self_loops)
    x, edge_index = normal(7, 4), random_edges(7, 7, 30)
    expected, found = results(ours, x, edge_index), results(ours, x, edge_index.to(dtype))
    del expected["edge_index"], found["edge_index"]
    assert_same(found, expected)


@every_backend
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_strides(add_self_loops):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2, add_self_loops=add_self_loops)
    x, edges, attr = normal(4, 7).t(), random_edges(7, 7, 30), normal(2, 30).t()
    apart = torch.stack([edges[0], edges[0], edges[1]])[::2]
    for edge_index in (edges.t().contiguous().t(), apart, edges.repeat_interleave(2, 1)[:, ::2]):
        assert not edge_index.is_contiguous() or edge_index.stride(0) != 30
        assert_same(results(ours, x, edge_index, attr), results(theirs, x, edges, attr))


@every_backend
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo], ids=str)
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_adjacency_of_torch(layout, add_self_loops, counts_fast):
    theirs, ours = pair(4, 3, heads=2, add_self_loops=add_self_loops)
    dense = torch.zeros(7, 7)
    dense[[0, 1, 1, 4, 6], [2, 1, 0, 3, 6]] = 1
    adjacency = dense.to_sparse(layout=layout)
    torch.testing.assert_close(ours(normal(7, 4), adjacency), theirs(normal(7, 4), adjacency))
    assert not counts_fast


@every_backend
@pytest.mark.parametrize("edge_dim", [None, 1, 3, 20])
@pytest.mark.parametrize("value_size", [None, (), (1,), (3,), (20,)], ids=str)
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_sparse_tensor(add_self_loops, value_size, edge_dim):
    torch_sparse = pytest.importorskip("torch_sparse")
    theirs, ours = pair(4, 3, heads=2, add_self_loops=add_self_loops, edge_dim=edge_dim)
    edges = random_edges(7, 7, 30).unique(dim=1)
    value = None if value_size is None else normal(edges.shape[1], *value_size)
    adj = torch_sparse.SparseTensor.from_edge_index(edges, value, sparse_sizes=(7, 7)).t()
    found = []
    for layer in (theirs, ours):
        x = normal(7, 4).requires_grad_()
        try:
            out, attention = layer(x, adj, return_attention_weights=True)
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            found.append((type(error), str(error)))
            continue
        (out.square().sum() + attention.storage.value().square().sum()).backward()
        row, col, alpha = attention.coo()
        found.append((out, row, col, alpha, x.grad, layer.att.grad))
    if isinstance(found[0][0], type):  # the error is PyG's
        assert found[1] == found[0]
    else:
        torch.testing.assert_close(found[1], found[0])


@every_backend
@pytest.mark.parametrize("edge_dim", [1, 3])
def test_sparse_tensor_with_features_beside_it(edge_dim):
    torch_sparse = pytest.importorskip("torch_sparse")
    theirs, ours = pair(4, 3, heads=2, add_self_loops=False, edge_dim=edge_dim)
    edges = random_edges(7, 7, 30).unique(dim=1)
    adj = torch_sparse.SparseTensor.from_edge_index(edges, sparse_sizes=(7, 7)).t()
    x, edge_attr = normal(7, 4), normal(edges.shape[1], edge_dim)
    torch.testing.assert_close(ours(x, adj, edge_attr), theirs(x, adj, edge_attr))


@every_backend
def test_sparse_tensor_equals_edges():
    torch_sparse = pytest.importorskip("torch_sparse")
    _, ours = pair((4, 5), 3, heads=2, add_self_loops=False)
    x, edges = (normal(6, 4), normal(8, 5)), random_edges(6, 8, 30).unique(dim=1)
    adj = torch_sparse.SparseTensor.from_edge_index(edges, sparse_sizes=(6, 8)).t()
    torch.testing.assert_close(ours(x, adj), ours(x, edges))


@every_backend
@pytest.mark.parametrize("edge_dim", [None, 2])
def test_graph_that_a_transform_made_sparse(edge_dim):
    theirs, ours = pair(4, 3, edge_dim=edge_dim, add_self_loops=False)
    edges = random_edges(7, 7, 30).unique(dim=1)
    edge_attr = None if edge_dim is None else normal(edges.shape[1], edge_dim)
    data = Data(x=normal(7, 4), edge_index=edges, edge_attr=edge_attr)
    sparse = T.ToSparseTensor(attr="edge_attr")(data.clone())
    expected = theirs(data.x, data.edge_index, data.edge_attr)
    torch.testing.assert_close(ours(sparse.x, sparse.adj_t), theirs(sparse.x, sparse.adj_t))
    torch.testing.assert_close(ours(data.x, data.edge_index, data.edge_attr), expected)


# --- Few nodes, few edges ---


@every_backend
@pytest.mark.parametrize(("sources", "targets"), [(0, 0), (0, 3), (3, 0), (3, 2), (1, 1)])
@pytest.mark.parametrize("edge_dim", [None, 2, 20])
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_no_edges(sources, targets, edge_dim, add_self_loops):
    options = {"heads": 2, "edge_dim": edge_dim, "add_self_loops": add_self_loops, "dropout": 0.2}
    theirs, ours = pair((4, 5), 3, **options)
    x = normal(sources, 4), normal(targets, 5)
    edges = torch.empty(2, 0, dtype=torch.long)
    edge_attr = None if edge_dim is None else normal(0, edge_dim)
    assert_same(results(ours, x, edges, edge_attr), results(theirs, x, edges, edge_attr))


@every_backend
@pytest.mark.parametrize("sort", [True, False])
def test_isolated_nodes_have_the_bias_only(sort):
    _, ours = pair(4, 3, heads=2, add_self_loops=False)
    x = normal(9, 4).requires_grad_()
    out = ours(x, random_edges(9, 9, 20, sort))
    assert out[-1].equal(ours.bias)
    out.square().sum().backward()
    assert (x.grad[-1] == 0).all()
    assert (x.grad[0] != 0).any()


@every_backend
@pytest.mark.parametrize("in_channels", [-1, (-1, -1)])
def test_widths_from_the_first_input(in_channels):
    ours = FusedGATv2Conv(in_channels, 3, heads=2, edge_dim=-1, residual=True)
    x = torch.randn(7, 4)
    nodes = x if in_channels == -1 else (x, torch.randn(7, 5))
    inputs = nodes, random_edges(7, 7, 20), torch.randn(20, 2)
    out = ours(*inputs)
    widths = 4 if in_channels == -1 else (4, 5)
    theirs = GATv2Conv(widths, 3, heads=2, edge_dim=2, residual=True)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(out, theirs(*inputs))
    torch.testing.assert_close(ours(*inputs), theirs(*inputs))


@every_backend
def test_shapes():
    for heads, concat, width in [(1, True, 3), (2, True, 6), (2, False, 3)]:
        _, ours = pair((4, 5), 3, heads=heads, concat=concat, add_self_loops=False)
        x, edges = (normal(6, 4), normal(8, 5)), random_edges(6, 8, 30)
        out, (same, alpha) = ours(x, edges, return_attention_weights=True)
        assert (out.shape, alpha.shape) == ((8, width), (30, heads))
        assert same is edges
        assert ours(x, edges, return_attention_weights=False).shape == (8, width)


@every_backend
@pytest.mark.parametrize("share_weights", [True, False])
def test_sources_that_are_the_targets(share_weights):
    theirs, ours = pair(4, 3, heads=2, share_weights=share_weights)
    x, edges = normal(7, 4), random_edges(7, 7, 30)
    torch.testing.assert_close(ours((x, x), edges), theirs(x, edges))
    if share_weights:
        theirs.lin_r = ours.lin_r = Linear(4, 6).double()
        torch.testing.assert_close(ours((x, x), edges), theirs((x, x), edges))
        torch.testing.assert_close(ours(x, edges), theirs(x, edges))


# --- Features of edges that do not fit ---


@every_backend
@pytest.mark.parametrize("edge_dim", [3, 20])
@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 29, 31])
def test_features_of_too_few_or_too_many_edges(rows, add_self_loops, edge_dim):
    theirs, ours = pair(4, 5, edge_dim=edge_dim, add_self_loops=add_self_loops)
    inputs = normal(7, 4), random_edges(7, 7, 30), normal(rows, edge_dim)
    if rows == 1 and not add_self_loops:  # PyG gives it to all edges
        assert_same(results(ours, *inputs), results(theirs, *inputs))
        return
    with pytest.raises((RuntimeError, IndexError)) as expected:
        theirs(*inputs)
    with pytest.raises((RuntimeError, IndexError)) as found:
        ours(*inputs)
    assert str(found.value) == str(expected.value)


@every_backend
@pytest.mark.parametrize("width", [1, 2, 4, 20])
def test_features_too_narrow_or_too_wide(width):
    _, ours = pair(4, 5, edge_dim=3, add_self_loops=False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ours(normal(7, 4), random_edges(7, 7, 30), normal(30, width))


@every_backend
def test_features_of_another_dtype():
    _, ours = pair(4, 5, edge_dim=3, add_self_loops=False)
    with pytest.raises(RuntimeError, match="same dtype"):
        ours(normal(7, 4), random_edges(7, 7, 30), normal(30, 3, dtype=torch.float32))


@every_backend
def test_features_without_a_projection():
    for layer in pair(4, 5):
        with pytest.raises(AssertionError):
            layer(normal(7, 4), random_edges(7, 7, 30), normal(30, 3))


# --- Errors ---


@every_backend
@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize(
    ("edges", "end", "low", "high"),
    [
        ([[0, 7], [0, 1]], "source", 0, 7),
        ([[0, 1], [0, 7]], "target", 0, 7),
        ([[-1, 1], [0, 2]], "source", -1, 2),
        ([[0, 1], [2, -3]], "target", -3, 2),
    ],
)
def test_nodes_that_are_not_there(edges, end, low, high, add_self_loops):
    _, ours = pair(4, 3, add_self_loops=add_self_loops)
    edge_index = torch.tensor(edges)
    if add_self_loops:
        low, high = min(low, 0), max(high, 6)
    else:
        low, high = (int(value) for value in edge_index[int(end == "target")].aminmax())
    message = f"^edge_index names {end} nodes from {low} to {high}, but they are numbered 0 to 6$"
    for _ in range(2):  # nothing is remembered of it
        with pytest.raises(IndexError, match=message):
            ours(normal(7, 4), edge_index)


@every_backend
def test_each_end_has_its_own_number_of_nodes():
    _, ours = pair((4, 4), 3, add_self_loops=False)
    x = normal(5, 4), normal(3, 4)
    ours(x, torch.tensor([[4], [2]]))
    with pytest.raises(IndexError, match="target nodes from 4 to 4, but they are numbered 0 to 2"):
        ours(x, torch.tensor([[2], [4]]))


@every_backend
@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (torch.zeros(2, 3), "to be of integer type .got 'torch.float32'."),
        (torch.zeros(2, 3, dtype=torch.bool), "to be of integer type .got 'torch.bool'."),
        (torch.zeros(6, dtype=torch.long), "to be two-dimensional .got 1 dimensions."),
        (torch.zeros(3, 2, dtype=torch.long), "size '2' in the first dimension .got '3'."),
        ("edges", "only supports integer tensors of shape"),
    ],
)
def test_what_is_no_edge_index(edge_index, message):
    _, ours = pair(4, 3, add_self_loops=False)
    with pytest.raises(ValueError, match=message):
        ours(normal(7, 4), edge_index)


@every_backend
@pytest.mark.parametrize("size", [(6, 7), (7, 6), (8, 8)])
def test_edge_index_of_another_graph(size):
    theirs, ours = pair(4, 3, add_self_loops=False)
    edge_index = EdgeIndex(torch.tensor([[0, 1], [2, 3]]), sparse_size=size)
    with pytest.raises(ValueError, match="Encountered tensor with size 7") as expected:
        theirs(normal(7, 4), edge_index)
    with pytest.raises(ValueError, match="Encountered tensor with size 7") as found:
        ours(normal(7, 4), edge_index)
    assert str(found.value) == str(expected.value)


@every_backend
@pytest.mark.parametrize("x", [torch.zeros(7), torch.zeros(2, 7, 4), (torch.zeros(7, 4), None)])
def test_nodes_of_a_wrong_shape(x):
    for layer in pair(4, 3, dtype=torch.float32):
        with pytest.raises(AssertionError):
            layer(x, random_edges(7, 7, 30))


# --- What goes PyG's way ---


@every_backend
@pytest.mark.parametrize(
    "options",
    [
        {"aggr": "mean"},
        {"aggr": "max"},
        {"flow": "target_to_source"},
    ],
    ids=str,
)
def test_options_that_are_not_covered(options, counts_fast):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2, **options)
    x, edges, edge_attr = normal(7, 4), random_edges(7, 7, 30), normal(30, 2)
    found = []
    for layer in (theirs, ours):
        found.append(results(layer, x, edges, edge_attr))
    assert_same(found[1], found[0])
    assert not counts_fast


@every_backend
def test_sum_by_its_name_is_covered(counts_fast):
    for aggr in ("add", "sum"):
        theirs, ours = pair(4, 3, aggr=aggr)
        inputs = normal(7, 4), random_edges(7, 7, 30)
        torch.testing.assert_close(ours(*inputs), theirs(*inputs))
    assert len(counts_fast) == 2


@every_backend
@pytest.mark.parametrize(
    "step", ["propagate", "message", "aggregate", "edge_update", "message_and_aggregate"]
)
@pytest.mark.parametrize("kind", ["forward_pre_hook", "forward_hook"])
def test_hooks_of_pyg_are_called(step, kind):
    theirs, ours = pair(4, 3, heads=2)
    inputs = normal(7, 4), random_edges(7, 7, 30)
    expected = ours(*inputs)
    calls = []
    for layer in (theirs, ours):
        hook = getattr(layer, f"register_{step}_{kind}")(lambda *args: calls.append(len(args)))
        torch.testing.assert_close(layer(*inputs), expected)
        hook.remove()
    assert calls[: len(calls) // 2] == calls[len(calls) // 2 :]
    assert bool(calls) == (step != "message_and_aggregate")


@every_backend
def test_hook_that_changes_messages():
    theirs, ours = pair(4, 3)
    inputs = normal(7, 4), random_edges(7, 7, 30)
    for layer in (theirs, ours):
        layer.register_message_forward_hook(lambda module, args, out: 2 * out)
    torch.testing.assert_close(ours(*inputs), theirs(*inputs))


class Doubled(FusedGATv2Conv):
    def message(self, x_j, alpha):
        return 2 * super().message(x_j, alpha)


class Updated(FusedGATv2Conv):
    def update(self, inputs):
        return 2 * inputs


@every_backend
@pytest.mark.parametrize("changed", [Doubled, Updated])
def test_subclass_with_steps_of_its_own(changed):
    _, ours = pair(4, 3, bias=False)
    inputs = normal(7, 4), random_edges(7, 7, 30)
    layer = changed(4, 3, bias=False).double()
    layer.load_state_dict(ours.state_dict())
    torch.testing.assert_close(layer(*inputs), 2 * ours(*inputs))


@every_backend
def test_step_replaced_in_one_layer():
    _, ours = pair(4, 3, bias=False)
    inputs = normal(7, 4), random_edges(7, 7, 30)
    expected = 2 * ours(*inputs)
    ours.message = lambda x_j, alpha: 2 * x_j * alpha.unsqueeze(-1)
    torch.testing.assert_close(ours(*inputs), expected)


class Subclass(FusedGATv2Conv):
    """One that changes nothing."""


@every_backend
def test_subclass_that_changes_nothing_is_covered(counts_fast):
    layer = Subclass(4, 3)
    layer(torch.randn(7, 4), random_edges(7, 7, 30))
    assert len(counts_fast) == 1


# --- Weights, modules ---


def test_weights_move_both_ways():
    options = {"heads": 2, "edge_dim": 3, "residual": True}
    theirs, ours = GATv2Conv(4, 3, **options), FusedGATv2Conv(4, 3, **options)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(FusedGATv2Conv(4, 3, **options).state_dict())


def test_same_seed_same_weights():
    layers = []
    for layer in (GATv2Conv, FusedGATv2Conv):
        torch.manual_seed(3)
        layers.append(layer((4, 6), 3, heads=2, edge_dim=3, residual=True))
    ours = dict(layers[1].named_parameters())
    assert all(ours[name].equal(value) for name, value in layers[0].named_parameters())


@every_backend
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(copied):
    _, ours = pair(4, 3, heads=2, edge_dim=2)
    inputs = normal(7, 4), random_edges(7, 7, 30), normal(30, 2)
    out = ours(*inputs)
    twin = copied(ours)
    assert type(twin) is FusedGATv2Conv
    assert twin(*inputs).equal(out)
    with torch.no_grad():
        twin.att.zero_()
    assert ours(*inputs).equal(out)


def test_repr():
    assert repr(FusedGATv2Conv((4, 5), 3, heads=2)) == "FusedGATv2Conv((4, 5), 3, heads=2)"


class Adapted(torch.nn.Module):
    """A linear layer, and a small one beside it."""

    def __init__(self, linear):
        super().__init__()
        self.linear, (outputs, inputs) = linear, linear.weight.shape
        self.down = torch.nn.Linear(inputs, 2, bias=False).double()
        self.up = torch.nn.Linear(2, outputs, bias=False).double()

    def forward(self, x):
        return self.linear(x) + self.up(self.down(x))


@every_backend
@pytest.mark.parametrize("name", ["lin_l", "lin_r", "lin_edge", "res"])
def test_adapters(name):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2, residual=True)
    adapted = Adapted(getattr(theirs, name))
    inputs = normal(7, 4), random_edges(7, 7, 30), normal(30, 2)
    plain = ours(*inputs)
    for layer in (theirs, ours):
        setattr(layer, name, copy.deepcopy(adapted))
    found = results(ours, *inputs)
    assert_same(found, results(theirs, *inputs))
    assert not torch.allclose(found["out"], plain)
    assert found[f"grad of {name}.down.weight"].abs().sum() > 0


@every_backend
@pytest.mark.parametrize("edge_dim", [2, 20])
def test_hooks_on_the_projection_of_edges(edge_dim):
    _, ours = pair(4, 3, heads=2, edge_dim=edge_dim)
    inputs = normal(7, 4), random_edges(7, 7, 30), normal(30, edge_dim)
    calls = []
    for register in (
        ours.lin_edge.register_forward_pre_hook,
        ours.lin_edge.register_forward_hook,
        ours.lin_edge.register_full_backward_pre_hook,
        ours.lin_edge.register_full_backward_hook,
    ):
        name = register.__name__
        hook = register(lambda *args, name=name: calls.append(name))
        results(ours, *inputs)
        hook.remove()
        assert calls.pop() == name
        assert not calls


@every_backend
def test_projection_of_edges_that_has_been_changed():
    theirs, ours = pair(4, 3, heads=2, edge_dim=2)
    inputs = normal(7, 4), random_edges(7, 7, 30), normal(30, 2)
    # A bias alone would move all scores of a node alike but for the LeakyReLU.
    with_bias = Linear(2, 6, bias=True).double()
    theirs.lin_edge, ours.lin_edge = with_bias, copy.deepcopy(with_bias)
    assert_same(results(ours, *inputs), results(theirs, *inputs))
    for layer in (theirs, ours):  # as accelerate does
        layer.lin_edge.forward = lambda rows, weight=layer.lin_edge.weight: (
            rows @ weight.t()
        ).sin()
    assert_same(
        {"out": ours(*inputs)},
        {"out": theirs(*inputs)},
    )


# --- Which kernel runs ---


def test_backend_says_which_kernel_runs():
    assert gatv2_backend() == gatv2_backend("cpu") == gatv2_backend(torch.device("cpu"))
    assert gatv2_backend() == ("c" if compiled.is_available() else "blocked")
    assert gatv2_backend("meta") == "blocked"


def test_backend_without_a_compiler(monkeypatch):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2)
    monkeypatch.setattr(compiled, "is_available", lambda: False)
    monkeypatch.setattr(compiled, "_library", lambda: None)  # whoever calls it fails
    assert gatv2_backend() == "blocked"
    inputs = normal(7, 4), random_edges(7, 7, 30), normal(30, 2)
    assert_same(results(ours, *inputs), results(theirs, *inputs))
    with (
        pytest.raises(ValueError, match="the compiled kernel was not built when gasmcast was inst"),
        force_gatv2_backend("c"),
    ):
        pass


def test_backend_for_a_while():
    usual = gatv2_backend()
    with force_gatv2_backend("blocked"):
        assert gatv2_backend() == gatv2_backend("cuda") == "blocked"
    assert gatv2_backend() == usual


@pytest.mark.parametrize("name", ["cuda", "C", ""])
def test_unknown_backend(name):
    with (
        pytest.raises(ValueError, match=f"^the kernels are c, triton, blocked, got '{name}'$"),
        force_gatv2_backend(name),
    ):
        pass
