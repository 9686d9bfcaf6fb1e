"""The order in which kernels walk a graph: its edges by target, and again by source."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.utils import add_self_loops, remove_self_loops

from gasmcast.nn.gatv2_kernels import compiled


@dataclass
class EdgeOrder:
    """A graph by target nodes: for each, where its edges begin, and where they come from.

    Tensors with a row per edge stay in the caller's order; ``edge`` says which row is whose.

    Attributes:
        ptr: Node i receives the edges ``ptr[i]`` to ``ptr[i + 1] - 1`` of this order, [N + 1].
        source: Where each edge comes from, [E].
        edge: Which of the caller's edges it is, [E]; None where the caller's are sorted by target.
        num_sources: M.
    """

    ptr: Tensor
    source: Tensor
    edge: Tensor | None
    num_sources: int
    _by_source: tuple[Tensor, Tensor, Tensor] | None = field(default=None, repr=False)

    @property
    def num_edges(self) -> int:
        """E."""
        return self.source.shape[0]

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same edges by source, then target; computed once.

        Returns:
            Where the edges of each source begin, [M + 1]; where each goes, [E]; and which of the
            caller's edges it is, [E].
        """
        if self._by_source is None:
            ptr, place = _sort(self.source, self.num_sources)
            target = torch.arange(len(self.ptr) - 1, device=ptr.device).repeat_interleave(
                self.ptr.diff(), output_size=self.num_edges
            )[place]
            self._by_source = ptr, target, place if self.edge is None else self.edge[place]
        return self._by_source


def edge_order(edge_index: Tensor, num_sources: int, num_targets: int) -> EdgeOrder:
    """The order of a graph; the same for all layers that are handed the same ``edge_index``.

    Args:
        edge_index: Source and target, [2, E]; a plain tensor or an
            :class:`~torch_geometric.EdgeIndex`.
        num_sources: M, number of nodes that edges may come from.
        num_targets: N, number of nodes that they may go to.

    Raises:
        IndexError: An edge names a node that is not there.
    """
    if torch.compiler.is_compiling():
        ptr, source, edge, *by_source = _opaque_edge_order(edge_index, num_sources, num_targets)
        return EdgeOrder(ptr, source, edge, num_sources, tuple(by_source))
    return _remembered(edge_index, _edge_order, num_sources, num_targets)


def with_self_loops(
    edge_index: Tensor,
    edge_attr: Tensor | None,
    fill_value: float | Tensor | str,
    num_nodes: int,
) -> tuple[Tensor, Tensor | None]:
    """One self-loop at each node, after all other edges, in place of those that there were."""
    looped = _remembered(edge_index, _with_self_loops, num_nodes)
    if edge_attr is not None:
        others, edge_attr = remove_self_loops(edge_index, edge_attr)
        _, edge_attr = add_self_loops(others, edge_attr, fill_value, num_nodes)
    return looped, edge_attr


def _with_self_loops(edge_index: Tensor, num_nodes: int) -> Tensor:
    return add_self_loops(remove_self_loops(edge_index)[0], num_nodes=num_nodes)[0]


# What was computed for an edge_index, as long as that tensor is there and has not been changed.
_KNOWN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_LOCK = threading.Lock()


def _new_lock() -> None:
    """In a forked process, where whoever held the lock is not there to give it back."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _remembered(edge_index: Tensor, compute: Callable, *sizes: int) -> Any:
    # An EdgeIndex shares its numbers with what it was made from, and either may be changed.
    data = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
    # Under a compiler there are no values; a tensor of inference mode does not count its changes.
    if torch.compiler.is_compiling() or edge_index.is_inference() or data.is_inference():
        return compute(edge_index, *sizes)
    state = edge_index._version, data._version, data.data_ptr(), data.shape
    with _LOCK:
        then, results = _KNOWN.get(edge_index, (None, {}))
    if then != state:
        results = {}
    key = compute, *sizes
    if key not in results:
        # What is computed in inference mode may be wanted for training later.
        with torch.inference_mode(False):
            results[key] = compute(edge_index, *sizes)
        with _LOCK:
            _KNOWN[edge_index] = state, results
    return results[key]


def _edge_order(edge_index: Tensor, num_sources: int, num_targets: int) -> EdgeOrder:
    by_target = None
    if isinstance(edge_index, EdgeIndex):
        by_target = edge_index.is_sorted_by_col or None
        edge_index = edge_index.as_tensor()
    # A copy: a view here would keep the tensor it is remembered for, and so itself, for good.
    source, target = edge_index[0].long().clone(), edge_index[1].long()
    _check(source, num_sources, "source")
    _check(target, num_targets, "target")
    if by_target is None and source.device.type == "cpu":  # to ask a GPU would be to wait for it
        by_target = bool((target[1:] >= target[:-1]).all())
    if by_target:
        return EdgeOrder(_pointer(target.contiguous(), num_targets), source, None, num_sources)
    ptr, edge = _sort(target, num_targets)
    return EdgeOrder(ptr, source[edge], edge, num_sources)


@torch.library.custom_op("gasmcast::gatv2_edge_order", mutates_args=())
def _opaque_edge_order(
    edge_index: Tensor, num_sources: int, num_targets: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The order both ways, for a compiler, which must not look at what depends on values."""
    order = _edge_order(edge_index, num_sources, num_targets)
    edge = torch.arange(order.num_edges, device=order.ptr.device)
    return order.ptr, order.source, edge if order.edge is None else order.edge, *order.transposed()


@_opaque_edge_order.register_fake
def _(edge_index, num_sources, num_targets):
    def new(size):
        return edge_index.new_empty(size, dtype=torch.long)

    edges = edge_index.shape[1]
    by_target = new(num_targets + 1), new(edges), new(edges)
    return *by_target, new(num_sources + 1), new(edges), new(edges)


def _sort(key: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pointer to the first of each key, [size + 1], and the stable order, [E]."""
    if key.device.type == "cpu" and compiled.is_available():
        return compiled.sort(key, size)
    ordered, order = key.sort(stable=True)
    return _pointer(ordered, size), order


def _pointer(key: Tensor, size: int) -> Tensor:
    """Where each of ``size`` keys begins among sorted ones, [size + 1]."""
    return torch.searchsorted(key, torch.arange(size + 1, device=key.device))


def _check(node: Tensor, size: int, end: str) -> None:
    if not len(node):
        return
    low, high = node.aminmax()
    if node.device.type != "cpu":
        torch._assert_async((low >= 0) & (high < size))  # without waiting for the device
    elif low < 0 or high >= size:
        raise IndexError(
            f"edge_index names {end} nodes from {int(low)} to {int(high)}, "
            f"but they are numbered 0 to {size - 1}"
        )
