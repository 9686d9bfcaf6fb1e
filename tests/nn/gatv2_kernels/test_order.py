"""The order in which kernels walk a graph, and how long it is remembered."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.utils import add_self_loops, remove_self_loops

from gasmcast.nn.gatv2_kernels import compiled, order
from gasmcast.nn.gatv2_kernels.order import edge_order, with_self_loops


@pytest.fixture(params=["compiled", "torch"])
def sorting(request, monkeypatch):
    """Both ways to sort."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "is_available", lambda: False)
    elif not compiled.is_available():
        pytest.skip("was not compiled")


def random_edges(sources=9, targets=7, edges=40, sort=False):
    generator = torch.Generator().manual_seed(edges)
    edge_index = torch.stack(
        [torch.randint(size, (edges,), generator=generator) for size in (sources, targets)]
    )
    return edge_index[:, edge_index[1].argsort(stable=True)] if sort else edge_index


def check(found, edge_index, num_sources, num_targets):
    """Both orders against numpy's stable sort."""
    source, target = np.asarray(torch.as_tensor(edge_index).long())
    by_target = np.argsort(target, kind="stable")
    pointer = np.searchsorted(target[by_target], np.arange(num_targets + 1))
    edge = np.arange(len(source)) if found.edge is None else found.edge.numpy()
    assert found.ptr.tolist() == pointer.tolist()
    assert edge.tolist() == by_target.tolist()
    assert found.source.tolist() == source[by_target].tolist()
    assert (found.num_sources, found.num_edges) == (num_sources, len(source))
    ptr, to, transposed = found.transposed()
    by_source = by_target[np.argsort(source[by_target], kind="stable")]
    assert ptr.tolist() == np.searchsorted(source[by_source], np.arange(num_sources + 1)).tolist()
    assert transposed.tolist() == by_source.tolist()
    assert to.tolist() == target[by_source].tolist()
    for tensor in (found.ptr, found.source, ptr, to, transposed):
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()


# --- The order ---


@pytest.mark.usefixtures("sorting")
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize(
    ("sources", "targets", "edges"),
    [(9, 7, 40), (3, 3, 200), (50, 60, 5), (1, 1, 4), (4, 5, 0), (0, 0, 0), (0, 3, 0)],
)
def test_equals_a_stable_sort(sources, targets, edges, sort, dtype):
    if edges:
        edge_index = random_edges(sources, targets, edges, sort).to(dtype)
    else:
        edge_index = torch.empty(2, 0, dtype=dtype)
    before = edge_index.clone()
    check(edge_order(edge_index, sources, targets), edge_index, sources, targets)
    assert edge_index.equal(before)


@pytest.mark.usefixtures("sorting")
def test_sorted_edges_stay_where_they_are():
    assert edge_order(random_edges(sort=True), 9, 7).edge is None
    assert edge_order(random_edges(), 9, 7).edge is not None


@pytest.mark.usefixtures("sorting")
@pytest.mark.parametrize("sort_order", ["col", "row", None])
@pytest.mark.parametrize("size", [(9, 7), None])
def test_edge_index_of_pyg(sort_order, size):
    edges = random_edges()
    if sort_order is not None:
        edges = edges[:, edges[int(sort_order == "col")].argsort(stable=True)]
    edge_index = EdgeIndex(edges, sparse_size=size, sort_order=sort_order)
    found = edge_order(edge_index, 9, 7)
    assert (found.edge is None) == (sort_order == "col")
    check(found, edges, 9, 7)


@pytest.mark.usefixtures("sorting")
def test_strides():
    edges = random_edges()
    check(edge_order(edges.t().contiguous().t(), 9, 7), edges, 9, 7)
    check(edge_order(edges.repeat_interleave(2, 1)[:, ::2], 9, 7), edges, 9, 7)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([[0, 9], [0, 0]], "source nodes from 0 to 9, but they are numbered 0 to 8"),
        ([[-2, 3], [0, 0]], "source nodes from -2 to 3, but they are numbered 0 to 8"),
        ([[0, 8], [1, 7]], "target nodes from 1 to 7, but they are numbered 0 to 6"),
        ([[0, 8], [-1, 6]], "target nodes from -1 to 6, but they are numbered 0 to 6"),
    ],
)
def test_nodes_that_are_not_there(edges, message):
    edge_index = torch.tensor(edges)
    for _ in range(2):
        with pytest.raises(IndexError, match=f"^edge_index names {message}$"):
            edge_order(edge_index, 9, 7)
    edge_index.zero_()
    check(edge_order(edge_index, 9, 7), edge_index, 9, 7)


def test_no_node_at_all():
    with pytest.raises(IndexError, match="source nodes from 0 to 0, but they are numbered 0 to -1"):
        edge_order(torch.zeros(2, 1, dtype=torch.long), 0, 1)


# --- Self-loops ---


@pytest.mark.parametrize("fill_value", [2.0, "mean", "max", "add", torch.tensor([1.0, 2.0, 3.0])])
def test_self_loops_are_pygs(fill_value):
    edge_index, edge_attr = random_edges(7, 7), torch.randn(40, 3)
    expected = add_self_loops(*remove_self_loops(edge_index, edge_attr), fill_value, 7)
    for _ in range(2):
        looped, attr = with_self_loops(edge_index, edge_attr, fill_value, 7)
        assert looped.equal(expected[0])
        assert attr.equal(expected[1])
    looped, attr = with_self_loops(edge_index, None, fill_value, 7)
    assert looped.equal(expected[0])
    assert attr is None


def test_features_of_self_loops_are_not_remembered():
    edge_index = random_edges(7, 7)
    for seed in range(2):
        torch.manual_seed(seed)
        edge_attr = torch.randn(40, 3, requires_grad=True)
        _, attr = with_self_loops(edge_index, edge_attr, "mean", 7)
        _, expected = add_self_loops(*remove_self_loops(edge_index, edge_attr), "mean", 7)
        assert attr.equal(expected)
        attr.sum().backward()
        assert edge_attr.grad.abs().sum() > 0


# --- What is remembered ---


def test_computed_once():
    edge_index = random_edges()
    found = edge_order(edge_index, 9, 7)
    assert edge_order(edge_index, 9, 7) is found
    assert found.transposed() is found.transposed()
    looped, _ = with_self_loops(edge_index, None, "mean", 7)
    assert with_self_loops(edge_index, None, "mean", 7)[0] is looped
    assert edge_order(looped, 9, 7) is edge_order(looped, 9, 7)
    assert edge_order(edge_index, 9, 7) is found


def test_another_tensor_is_another_graph():
    edge_index = random_edges()
    found = edge_order(edge_index, 9, 7)
    assert edge_order(edge_index.clone(), 9, 7) is not found
    assert edge_order(edge_index[:], 9, 7) is not found


def test_each_number_of_nodes_has_its_order():
    edge_index = random_edges()
    sizes = [(9, 7), (12, 7), (9, 10), (12, 10)]
    found = [edge_order(edge_index, *size) for size in sizes]
    for one, size in zip(found, sizes, strict=True):
        assert edge_order(edge_index, *size) is one
        check(one, edge_index, *size)


def change_in_place(edges):
    edges[0, 3] = 8


def change_a_view(edges):
    edges[1].flip(0)
    edges[1].mul_(0)


def change_the_data(edges):
    edges.data = random_edges(edges=17)


@pytest.mark.parametrize("change", [change_in_place, change_a_view, change_the_data])
def test_changed_edges_are_looked_at_again(change):
    edge_index = random_edges(7, 7)
    looped, _ = with_self_loops(edge_index, None, "mean", 7)
    before = edge_order(edge_index, 9, 7)
    change(edge_index)
    found = edge_order(edge_index, 9, 7)
    assert found is not before
    check(found, edge_index, 9, 7)
    if change is not change_in_place:
        return
    edge_index[0, 3] = 2
    again, _ = with_self_loops(edge_index, None, "mean", 7)
    assert again is not looped
    assert again.equal(add_self_loops(remove_self_loops(edge_index)[0], num_nodes=7)[0])


def test_edge_index_changed_in_place_or_below():
    base = random_edges()
    edge_index = EdgeIndex(base)
    for changed in (edge_index, base):
        before = edge_order(edge_index, 9, 7)
        assert edge_order(edge_index, 9, 7) is before
        changed[0, 3] = 8 - edge_index.as_tensor()[0, 3]
        found = edge_order(edge_index, 9, 7)
        assert found is not before
        check(found, edge_index.as_tensor(), 9, 7)


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("made", [torch.clone, EdgeIndex], ids=["tensor", "EdgeIndex"])
def test_forgotten_with_its_tensor(made, sort):
    gc.collect()
    before = len(order._KNOWN)
    edge_index = made(random_edges(7, 7, sort=sort))
    looped, _ = with_self_loops(edge_index, None, "mean", 7)
    for edges in (edge_index, looped):
        edge_order(edges, 7, 7).transposed()
    assert len(order._KNOWN) == before + 2
    results = edge_index, edge_order(edge_index, 7, 7), looped
    alive = [weakref.ref(result) for result in results]
    del edge_index, looped, edges, results
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3
    assert len(order._KNOWN) == before


@pytest.mark.parametrize("sort", [True, False])
def test_order_outlives_its_tensor(sort):
    edge_index = random_edges(sort=sort)
    found, copy = edge_order(edge_index, 9, 7), edge_index.clone()
    edge_index.zero_()
    del edge_index
    check(found, copy, 9, 7)


def test_tensors_of_inference_mode_are_not_remembered():
    with torch.inference_mode():
        edge_index = random_edges()
        found = edge_order(edge_index, 9, 7)
        assert edge_order(edge_index, 9, 7) is not found
        edge_index[0, 0] = 8
        check(edge_order(edge_index, 9, 7), edge_index, 9, 7)
    check(edge_order(edge_index, 9, 7), edge_index, 9, 7)


def test_remembered_in_inference_mode_for_training():
    edge_index = random_edges(7, 7)
    with torch.inference_mode():
        found = edge_order(edge_index, 7, 7)
        looped, _ = with_self_loops(edge_index, None, "mean", 7)
        found.transposed()
    assert edge_order(edge_index, 7, 7) is found
    assert not any(
        tensor.is_inference() for tensor in (found.ptr, found.source, found.edge, looped)
    )


def test_errors_leave_nothing_behind():
    gc.collect()
    before = len(order._KNOWN)
    with pytest.raises(IndexError):
        edge_order(torch.tensor([[9], [0]]), 9, 7)
    gc.collect()
    assert len(order._KNOWN) == before


def test_threads():
    shared = random_edges(300, 300, 5000)
    expected = edge_order(shared.clone(), 300, 300)
    failures, start = [], threading.Barrier(4)

    def work():
        try:
            start.wait(30)
            for repeat in range(200):
                edges = shared if repeat % 2 else random_edges(edges=10)
                found = edge_order(edges, 300, 300)
                found.transposed()
                looped, _ = with_self_loops(edges, None, "mean", 300)
                if looped.shape[1] < 300 or (
                    edges is shared and not found.edge.equal(expected.edge)
                ):
                    failures.append(repeat)
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert edge_order(shared, 300, 300) is edge_order(shared, 300, 300)


@pytest.mark.parametrize("sort", [True, False])
def test_operator_for_compilers(sort):
    edge_index = random_edges(sort=sort)
    torch.library.opcheck(
        torch.ops.gasmcast.gatv2_edge_order.default,
        (edge_index, 9, 7),
        test_utils=("test_schema", "test_faketensor"),
    )
    found = torch.ops.gasmcast.gatv2_edge_order(edge_index, 9, 7)
    known = edge_order(edge_index, 9, 7)
    edge = torch.arange(40) if known.edge is None else known.edge
    expected = known.ptr, known.source, edge, *known.transposed()
    assert all(map(torch.equal, found, expected))
