"""The layer under PyTorch's machinery: all kinds of gradients, compilers, and PyG's explainers."""

import subprocess
import sys

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer

from gasmcast.nn.gatv2_kernels.order import edge_order
from nn.gatv2_pairs import assert_same, backend, normal, pair, random_edges, results

__all__ = ["backend"]  # a fixture

pytestmark = pytest.mark.usefixtures("backend")


def inputs(edge_dim=2, nodes=6, edges=16):
    edge_attr = None if edge_dim is None else normal(edges, edge_dim)
    return normal(nodes, 4), random_edges(nodes, nodes, edges), edge_attr


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def everything(layer, edge_index):
    """The layer as a function of its nodes, edge features and parameters, and their values."""
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def function(x, edge_attr, *values):
        torch.manual_seed(0)
        out, (_, alpha) = functional_call(
            layer,
            dict(zip(names, values, strict=True)),
            (x, edge_index, edge_attr),
            {"return_attention_weights": True},
        )
        return out, alpha

    return function, [parameter.detach().clone().requires_grad_() for parameter in parameters]


# --- First and second gradients ---


@pytest.mark.parametrize(
    "options",
    [
        {"edge_dim": 2},
        {"edge_dim": 20, "residual": True},
        {"edge_dim": 2, "dropout": 0.4, "concat": False},
        {"edge_dim": 2, "share_weights": True, "add_self_loops": False},
    ],
    ids=str,
)
def test_gradcheck_and_gradgradcheck(options):
    _, ours = pair(4, 2, heads=2, **options)
    x, edge_index, edge_attr = inputs(options["edge_dim"], nodes=4, edges=9)
    function, parameters = everything(ours, edge_index)
    leaves = x.requires_grad_(), edge_attr.requires_grad_(), *parameters
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("used", ["out", "alpha", "both"])
@pytest.mark.parametrize("edge_dim", [None, 2, 20])
def test_gradient_penalty(edge_dim, used):
    found = []
    x, edge_index, edge_attr = inputs(edge_dim)
    for layer in pair(4, 3, heads=2, edge_dim=edge_dim, dropout=0.3):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(0)
        out, (_, alpha) = layer(leaf, edge_index, edge_attr, return_attention_weights=True)
        loss = (used != "alpha") * out.square().sum() + (used != "out") * alpha.square().sum()
        wanted = leaf, layer.att, layer.lin_l.weight
        first = torch.autograd.grad(loss, wanted, create_graph=True)
        sum(value.square().sum() for value in first).backward()
        found.append((*first, leaf.grad, *(p.grad for p in layer.parameters())))
    close(*reversed(found))


@pytest.mark.parametrize("wanted", ["x", "edge_attr", "att", "lin_l", "lin_r", "lin_edge", "bias"])
def test_only_one_thing_has_a_gradient(wanted):
    found = []
    x, edge_index, edge_attr = inputs()
    for layer in pair(4, 3, heads=2, edge_dim=2):
        layer.requires_grad_(False)
        leaves = {"x": x.clone(), "edge_attr": edge_attr.clone()}
        named = leaves.get(wanted, getattr(layer, wanted, None))
        named.requires_grad_(True)
        layer(leaves["x"], edge_index, leaves["edge_attr"]).square().sum().backward()
        tensors = [*leaves.values(), *layer.parameters()]
        found.append([tensor.grad for tensor in tensors])
    for ours, theirs in zip(*reversed(found), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            close(ours, theirs)


def test_nothing_has_a_gradient():
    theirs, ours = pair(4, 3)
    x, edge_index, _ = inputs()
    ours.requires_grad_(False)
    assert not ours(x, edge_index).requires_grad
    with torch.no_grad():
        close(ours(x, edge_index), theirs(x, edge_index))


def test_twice_in_one_graph():
    found = []
    x, edge_index, edge_attr = inputs()
    for layer in pair(4, 2, heads=2, edge_dim=2):
        leaf = x.clone().requires_grad_()
        out = layer(layer(leaf, edge_index, edge_attr).sin(), edge_index.flip(0), edge_attr)
        out.square().sum().backward()
        found.append((out, leaf.grad, *(p.grad for p in layer.parameters())))
    close(*reversed(found))


def test_backward_twice():
    _, ours = pair(4, 3, heads=2, edge_dim=2)
    x, edge_index, edge_attr = inputs()
    x.requires_grad_()
    out = ours(x, edge_index, edge_attr).square().sum()
    out.backward(retain_graph=True)
    first = x.grad.clone()
    out.backward()
    assert x.grad.equal(2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


def test_edges_changed_after_forward_change_no_gradient():
    _, ours = pair(4, 3, heads=2, add_self_loops=False)
    x, edge_index, _ = inputs()
    x.requires_grad_()
    for used in (edge_index.clone(), edge_index[:, edge_index[1].argsort(stable=True)]):
        x.grad = None
        ours(x, used).square().sum().backward()
        expected = x.grad
        x.grad = None
        out = ours(x, used)
        used.zero_()
        out.square().sum().backward()
        assert x.grad.equal(expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint(use_reentrant):
    _, ours = pair(4, 3, heads=2, edge_dim=2, dropout=0.5)
    x, edge_index, edge_attr = inputs()
    expected = results(ours, x, edge_index, edge_attr, "out")
    ours.zero_grad()
    leaves = x.clone().requires_grad_(), edge_attr.clone().requires_grad_()
    torch.manual_seed(0)
    out = checkpoint(ours, leaves[0], edge_index, leaves[1], use_reentrant=use_reentrant)
    (out * normal(*out.shape, dtype=torch.float32)).sum().backward()
    found = {"out": out, "grad of x": leaves[0].grad, "grad of edge_attr": leaves[1].grad}
    found |= {f"grad of {name}": value.grad for name, value in ours.named_parameters()}
    assert_same(found, expected)


# --- Inference mode ---


@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("edges_too", [True, False])
def test_inference_then_training(edges_too, add_self_loops):
    theirs, ours = pair(4, 3, heads=2, add_self_loops=add_self_loops)
    x, edge_index, _ = inputs()
    expected = results(theirs, x, edge_index)
    with torch.inference_mode():
        if edges_too:
            edge_index = edge_index.clone()
        for _ in range(2):
            close(ours(x, edge_index).clone(), expected["out"].detach())
        if edges_too:  # whose changes are not counted
            edge_index[0, 0] = 3
            close(ours(x, edge_index).clone(), theirs(x, edge_index).clone())
            edge_index[0, 0] = 0
    if edges_too:
        edge_index = edge_index.clone()
    assert_same(results(ours, x, edge_index), expected)


# --- Function transforms and forward mode ---


def test_grad_transform():
    found = []
    x, edge_index, edge_attr = inputs()
    for layer in pair(4, 3, heads=2, edge_dim=2):

        def loss(x, edge_attr, layer=layer):
            return layer(x, edge_index, edge_attr).square().sum()

        found.append(grad(loss, argnums=(0, 1))(x, edge_attr))
    close(*reversed(found))


def test_vmap():
    x, edge_index, _ = inputs()
    many = torch.stack([x, 2 * x, -x])
    theirs, ours = pair(4, 3, heads=2, add_self_loops=False)
    expected = torch.stack([theirs(x, edge_index) for x in many])
    close(vmap(lambda x: ours(x, edge_index))(many), expected)


def test_forward_mode():
    found = []
    x, edge_index, edge_attr = inputs()
    tangent = normal(6, 4, seed=9)
    for layer in pair(4, 3, heads=2, edge_dim=2):
        found.append(jvp(lambda x, layer=layer: layer(x, edge_index, edge_attr), (x,), (tangent,)))
        with fwAD.dual_level():
            out = layer(fwAD.make_dual(x, tangent), edge_index, edge_attr)
            found[-1] += tuple(fwAD.unpack_dual(out))
    close(*reversed(found))


# --- Compilers ---


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield torch.compile
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_compile_without_a_break(compiler):
    _, ours = pair(4, 3, heads=2, edge_dim=2, add_self_loops=False, residual=True)
    compiled = compiler(ours, fullgraph=True)
    for nodes, edges in [(6, 16), (9, 40)]:
        x, edge_index, edge_attr = inputs(nodes=nodes, edges=edges)
        expected = results(ours, x, edge_index, edge_attr)
        found = results(compiled, x, edge_index, edge_attr)
        found = {name.replace("_orig_mod.", ""): value for name, value in found.items()}
        assert_same(found, expected)


@pytest.mark.filterwarnings("ignore")
def test_compile_what_breaks(compiler):
    _, ours = pair(4, 3, heads=2, dropout=0.5)
    ours.eval()
    x, edge_index, _ = inputs()
    expected = ours(x, edge_index)
    compiled = compiler(ours)
    close(compiled(x, edge_index), expected)
    close(compiled(x, edge_index.flip(1)), expected)


@pytest.mark.parametrize("features", [None, 2, "projected"])
@pytest.mark.parametrize("channels", [1, 5])
def test_operators_are_what_a_compiler_takes_them_for(backend, channels, features):
    edge_index = random_edges(6, 5, 16)
    order = edge_order(edge_index, 6, 5)
    edge_attr = edge_weight = None
    if features is not None:  # with strides, which gradients need not have
        width = 3 * channels if features == "projected" else features
        edge_attr = normal(width, 16).t().requires_grad_()
    if features == 2:
        edge_weight = normal(2, 3 * channels).t().requires_grad_()
    values = normal(6, 3, channels), normal(5, 3, channels), normal(3, channels)
    bias = normal(3, channels).requires_grad_() if backend == "c" else None
    graph = order.ptr, order.source, order.edge, *order.transposed()
    arguments = [
        *(value.requires_grad_() for value in values),
        *(edge_attr, edge_weight, bias, None, *graph),
    ]
    tests = "test_schema", "test_faketensor", "test_autograd_registration"
    torch.library.opcheck(
        torch.ops.gasmcast.gatv2_messages.default,
        (*arguments, 0.2, True, backend),
        test_utils=tests,
    )
    out, alpha, kept = torch.ops.gasmcast.gatv2_messages(*arguments, 0.2, True, backend)
    detached = [None if value is None else value.detach() for value in arguments]
    found = torch.library.opcheck(
        torch.ops.gasmcast.gatv2_gradients.default,
        (
            *(torch.ones_like(out), torch.ones_like(alpha), *detached),
            *(None, alpha.detach(), kept, 0.2, features is not None, backend),
        ),
        test_utils=tests[:2],
    )
    assert set(found.values()) == {"SUCCESS"}


COMPILED_EDGE_INDEX = """
import torch
from torch_geometric import EdgeIndex
from gasmcast.nn.gatv2 import FusedGATv2Conv

layer, x = FusedGATv2Conv(4, 3, heads=2, add_self_loops=False), torch.randn(6, 4)
edges = EdgeIndex([[0, 1, 5, 2], [1, 1, 3, 4]], sparse_size=(6, 6), sort_order="col")
torch.testing.assert_close(torch.compile(layer)(x, edges), layer(x, edges))
"""


def test_compile_with_an_edge_index(backend):
    # In a process of its own: pytest listens to all logs, and PyTorch fails to describe an
    # EdgeIndex for them.
    if backend == "blocked":
        pytest.skip("once is enough")
    command = [sys.executable, "-W", "ignore", "-c", COMPILED_EDGE_INDEX]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_export(add_self_loops):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2, add_self_loops=add_self_loops)
    arguments = inputs()
    exported = torch.export.export(ours, arguments).module()
    assert "gatv2" not in exported.code
    assert exported(*arguments).equal(theirs(*arguments))


@pytest.mark.filterwarnings("ignore")
def test_trace():
    theirs, ours = pair(4, 3, heads=2)
    x, edge_index, _ = inputs()
    traced = torch.jit.trace(ours, (x, edge_index))
    other = random_edges(6, 6, 20, seed=4)
    close(traced(x, other), theirs(x, other))


# --- Explainers ---


class Model(torch.nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


@pytest.mark.parametrize(
    ("made", "masks"),
    [
        (AttentionExplainer, {"edge_mask_type": "object"}),
        (
            lambda: GNNExplainer(epochs=3),
            {"edge_mask_type": "object", "node_mask_type": "attributes"},
        ),
    ],
    ids=["attention", "gnn"],
)
def test_explainers(made, masks):
    firsts = pair(4, 3, heads=2, add_self_loops=False, dtype=torch.float32)
    seconds = pair(6, 2, add_self_loops=False, dtype=torch.float32)
    x, edge_index, _ = inputs()
    found = []
    for first, second in zip(firsts, seconds, strict=True):
        explainer = Explainer(
            Model(first, second),
            made(),
            explanation_type="model",
            model_config={
                "mode": "multiclass_classification",
                "task_level": "node",
                "return_type": "raw",
            },
            **masks,
        )
        torch.manual_seed(0)
        explanation = explainer(x.float(), edge_index)
        found.append([explanation[name] for name in explanation.available_explanations])
    assert found[0]
    torch.testing.assert_close(found[1], found[0])
