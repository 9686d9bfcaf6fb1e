"""The layer among others: threads, processes, memory, and what it remembers."""

import multiprocessing
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gasmcast.nn.gatv2_kernels import blocked, compiled, op
from gasmcast.nn.gatv2_kernels.backend import force_gatv2_backend
from gasmcast.nn.gatv2_kernels.order import edge_order
from nn.gatv2_pairs import assert_same, backend, normal, pair, random_edges, results

__all__ = ["backend"]  # a fixture


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- The same bits ---


def kernel_results(backend, edge_dim, dtype):
    """Messages, attention and gradients of the operator on some hundred nodes."""
    edge_index = random_edges(300, 200, 4000)
    order = edge_order(edge_index, 300, 200)
    sizes = {"x_l": (300, 2, 20), "x_r": (200, 2, 20), "att": (2, 20), "bias": (2, 20)}
    if edge_dim is not None:
        sizes |= {"edge_attr": (4000, edge_dim), "edge_weight": (40, edge_dim)}
    values = {name: normal(*size, dtype=dtype).requires_grad_() for name, size in sizes.items()}
    keep = (normal(4000, 2) > 0).to(dtype) * 2
    out, alpha = op.messages(
        *(values.get(name) for name in ("x_l", "x_r", "att", "edge_attr", "edge_weight")),
        keep, values["bias"], order, 0.2, True, backend,
    )  # fmt: skip
    loss = (out * normal(*out.shape, dtype=dtype)).sum() + alpha.square().sum()
    return [out, alpha, *torch.autograd.grad(loss, list(values.values()))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("edge_dim", [None, 3])
def test_any_number_of_threads(backend, edge_dim, dtype, two_threads):
    found = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        found.append(kernel_results(backend, edge_dim, dtype))
    assert all(map(torch.equal, found[1], found[2]))
    for other in found[1:]:
        if backend == "c":
            assert all(map(torch.equal, found[0], other))
        torch.testing.assert_close(other, found[0])


@pytest.mark.usefixtures("backend", "two_threads")
def test_layer_repeats_itself_and_leaves_its_inputs_alone():
    _, ours = pair(4, 3, heads=2, edge_dim=2, dropout=0.3, dtype=torch.float32)
    inputs = normal(50, 4, dtype=torch.float32), random_edges(50, 50, 600)
    inputs += (normal(600, 2, dtype=torch.float32),)
    before = [value.clone() for value in (*inputs, *ours.parameters())]
    first, second = results(ours, *inputs), results(ours, *inputs)
    assert all(first[name].equal(second[name]) for name in first)
    assert all(map(torch.equal, before, (*inputs, *ours.parameters())))


# --- Threads and processes ---


def test_two_threads_at_once(backend):
    _, ours = pair(6, 5, heads=2, edge_dim=2)
    shared = random_edges(80, 80, 900)
    x, edge_attr = normal(80, 6), normal(900, 2)
    with torch.no_grad():
        expected = [ours(scale * x, shared.clone(), edge_attr) for scale in (1, 2)]
    failures = []

    def work(scale, wanted):
        try:
            with force_gatv2_backend(backend), torch.no_grad():
                for repeat in range(40):
                    edges = shared if repeat % 2 else shared.clone()
                    if not ours(scale * x, edges, edge_attr).equal(wanted):
                        failures.append(f"{scale} times the nodes, repeat {repeat}")
                with torch.enable_grad():
                    ours((scale * x).requires_grad_(), shared, edge_attr).sum().backward()
        except Exception as error:
            failures.append(repr(error))

    threads = [
        threading.Thread(target=work, args=(scale, wanted))
        for scale, wanted in zip((1, 2), expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def compute_and_send(backend, layer, inputs, threads, pipe):
    with force_gatv2_backend(backend):
        torch.set_num_threads(threads)
        found = results(layer, *inputs)
        pipe.send({name: value.detach().numpy() for name, value in found.items()})


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="cannot fork here"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_child_after_a_fork(backend, threads, two_threads):
    if backend == "blocked" and threads == 2:
        pytest.skip("PyTorch's own operations do not survive that")
    _, ours = pair(4, 3, heads=2, edge_dim=2)
    inputs = normal(9, 4), random_edges(9, 9, 30), normal(30, 2)
    expected = results(ours, *inputs)  # with two threads
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=compute_and_send, args=(backend, ours, inputs, threads, sending))
    child.start()
    try:
        assert receiving.poll(60), "the child hangs"
        found = {name: torch.from_numpy(value) for name, value in receiving.recv().items()}
    finally:
        child.kill()
        child.join()
    assert_same(found, {name: value.detach() for name, value in expected.items()})


# --- Memory ---


def kept_bytes(layer, *inputs):
    """Bytes of all that forward keeps for the gradients."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(*inputs)  # alive, so that no place is counted for two tensors
    del out
    return sum(kept.values())


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("edge_dim", [None, 4])
@pytest.mark.parametrize("sort", [True, False])
def test_a_fifth_of_what_pyg_keeps(sort, edge_dim):
    theirs, ours = pair(32, 32, heads=4, edge_dim=edge_dim, dtype=torch.float32)
    edge_index = random_edges(100, 100, 1600, sort)
    inputs = normal(100, 32, dtype=torch.float32).requires_grad_(), edge_index
    if edge_dim is not None:
        inputs += (normal(1600, edge_dim, dtype=torch.float32),)
    assert kept_bytes(ours, *inputs) <= kept_bytes(theirs, *inputs) / 5


@pytest.mark.skipif(not compiled.is_available(), reason="was not compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 17, 64])
def test_signs_are_kept_as_bits(channels, dtype):
    x_r, source = torch.empty(5, 3, channels, dtype=dtype), torch.empty(40)
    kept = compiled.new_kept(x_r, source, needs_gradients=True)
    padded = -(-channels // 16) * 16
    assert kept.dtype is torch.uint8
    # A byte for each vector, of 16 bytes at least.
    assert kept.numel() <= 40 * 3 * padded / (16 / max(dtype.itemsize, 4))
    assert compiled.new_kept(x_r, source, needs_gradients=False).numel() == 0


class Largest(TorchDispatchMode):
    """Notes the largest storage that an operation returned."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("edge_dim", [None, 4])
def test_nothing_as_wide_as_a_node_for_every_edge(edge_dim, monkeypatch):
    monkeypatch.setattr(blocked, "CPU_BLOCK_BYTES", 1 << 15)
    theirs, ours = pair(8, 32, heads=2, edge_dim=edge_dim, dropout=0.2, dtype=torch.float32)
    inputs = normal(30, 8, dtype=torch.float32), random_edges(30, 30, 3000)
    if edge_dim is not None:
        inputs += (normal(3000, edge_dim, dtype=torch.float32),)
    largest = []
    for layer in (theirs, ours):
        with Largest() as mode:
            results(layer, *inputs)
        largest.append(mode.nbytes)
    assert largest[0] >= 2900 * 64 * 4
    assert largest[1] <= 3000 * 64 * 4 / 5


# --- What is remembered ---


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_changed_edges(add_self_loops):
    theirs, ours = pair(4, 3, heads=2, edge_dim=2, add_self_loops=add_self_loops)
    x, edge_index, edge_attr = normal(7, 4), random_edges(7, 7, 20), normal(20, 2)
    first = ours(x, edge_index, edge_attr)
    edge_index[0, 4] = 6
    changed = ours(x, edge_index, edge_attr)
    torch.testing.assert_close(changed, theirs(x, edge_index, edge_attr))
    assert not torch.allclose(changed, first)
    edge_index.data = random_edges(7, 7, 12, seed=5)
    torch.testing.assert_close(
        ours(x, edge_index, edge_attr[:12]), theirs(x, edge_index, edge_attr[:12])
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_returned_edges_are_the_callers(add_self_loops):
    theirs, ours = pair(4, 3, heads=2, add_self_loops=add_self_loops)
    x, edge_index = normal(7, 4), random_edges(7, 7, 20)
    _, (edges, _) = ours(x, edge_index, return_attention_weights=True)
    _, (again, _) = ours(x, edge_index, return_attention_weights=True)
    edges[0] = 0
    torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index))
    if add_self_loops:
        _, (expected, _) = theirs(x, edge_index, return_attention_weights=True)
        assert again.equal(expected)


@pytest.mark.usefixtures("backend")
def test_one_graph_for_layers_on_other_numbers_of_nodes():
    edge_index = random_edges(5, 5, 20)
    for sources, targets in [(5, 5), (9, 5), (5, 8), (5, 5)]:
        for add_self_loops in (True, False):
            theirs, ours = pair((4, 4), 3, add_self_loops=add_self_loops)
            x = normal(sources, 4), normal(targets, 4)
            torch.testing.assert_close(ours(x, edge_index), theirs(x, edge_index))
