"""Whether a graph, changed by hand or made elsewhere, keeps what the builders promise."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from gasmcast.graphs.nodes import shape_of
from gasmcast.graphs.rules import EdgeRule

EDGE_LEVEL = ("edge_attr", "edge_rule", "edge_weight", "attention")
NODE_LEVEL = ("x", "pos")


def check_graph(data: Data, *, symmetric: bool = False) -> None:
    """Raise if a graph is not what the builders promise; stricter than ``Data.validate()``.

    Looked at is what there is: a graph without ``edge_attr``, ``edge_rule`` or ``pos`` is fine.

    - ``edge_index``: int64 [2, E], nodes that exist, sorted by target, then source, no duplicates,
      and one self-loop at every node or none at all;
    - ``edge_attr``, ``edge_rule``, ``edge_weight`` and ``attention``: one row an edge; ``x`` and
      ``pos``: one row a node. ``y`` may be of the nodes or of the graph: it is looked at in a batch
      only, where it must be divisible among the nodes or among the clips;
    - ``edge_attr``: as many columns as the builders make for ``pos``, nothing NaN or infinite, in
      ``pos``, ``x`` and ``edge_weight`` neither;
    - ``edge_rule``: uint8, a bit on every edge, ``EdgeRule.SELF_LOOP`` alone on self-loops and on
      no other edge;
    - of a batch: ``batch`` and ``ptr`` that say the same, and no edges between clips.

    Args:
        data: One graph or a ``Batch``.
        symmetric: Every edge must also have its reverse.

    Raises:
        ValueError: One line for each thing that is wrong, the first edge or node concerned named.

    Example:
        >>> from gasmcast import build_spatial_graph, generate_spatial_positions
        >>> graph = build_spatial_graph(generate_spatial_positions((1, 3)))
        >>> check_graph(graph, symmetric=True)
        >>> graph.edge_index[0, 1] = 2  # was 1 -> 0
        >>> check_graph(graph, symmetric=True)
        Traceback (most recent call last):
        ...
        ValueError: the graph is not as the builders make it:
          edge 1 (2 -> 0) has no reverse (2 such edges in all)
    """
    if not isinstance(data, Data):
        raise ValueError(f"expected a Data or Batch of torch_geometric, got {type(data).__name__}")
    faults = _faults(data, symmetric)
    if faults:
        raise ValueError("the graph is not as the builders make it:\n  " + "\n  ".join(faults))


def check_index(number: int, size: int, expected: str) -> int:
    """A number from 0 to ``size - 1``, as a plain int; ``expected`` begins the error.

    Raises:
        ValueError: It is none.
    """
    # Not with bools: as an index they would add a dimension.
    whole = hasattr(number, "__index__") and not isinstance(number, bool)
    if not whole or not 0 <= number < size:
        raise ValueError(f"{expected} 0 to {size - 1}, got {number!r}")
    return operator.index(number)


def check_single_graph(data: Data) -> None:
    """Refuse, by name, what is not one graph with edges that can be followed."""
    if isinstance(data, Batch):
        raise ValueError(
            f"expected one graph, got a Batch of {data.num_graphs}: take one with batch[i]"
        )
    if not isinstance(data, Data):
        raise ValueError(f"expected one graph, a torch_geometric Data, got {type(data).__name__}")
    if data.get("edge_index") is None:
        raise ValueError(f"expected one graph, got {data} without edge_index")
    faults = [*_edge_index_faults(data), *_length_faults(data)]
    if faults:
        raise ValueError(f"{data} is no graph: {'; '.join(faults)}")


def plain_edge_index(data: Data) -> Tensor:
    """``edge_index`` as a tensor: to compute with an ``EdgeIndex`` takes several times as long."""
    edge_index = data.edge_index
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index


def node_count(data: Data) -> int:
    """Nodes of a graph; where nothing says how many, as many as its edges name."""
    with warnings.catch_warnings():
        # PyG warns where only the edges tell: a graph without features and positions may be so.
        warnings.simplefilter("ignore", UserWarning)
        return data.num_nodes or 0


def _faults(data: Data, symmetric: bool) -> list[str]:
    if data.get("edge_index") is None:
        return ["edge_index is missing"]
    devices = {
        name: str(value.device)
        for name in ("edge_index", *EDGE_LEVEL, *NODE_LEVEL, "batch", "ptr")
        if isinstance(value := data.get(name), Tensor)
    }
    if len(set(devices.values())) > 1:  # nothing can be compared
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        return [f"the tensors are on different devices: {places}"]
    faults = _edge_index_faults(data)
    usable = not faults
    faults += _length_faults(data)
    faults += _clip_faults(data, usable)
    if usable:
        faults += _order_faults(data)
        faults += _loop_faults(data)
    faults += _edge_attr_faults(data)
    faults += _value_faults(data)
    if usable:
        faults += _edge_rule_faults(data)
        if symmetric:
            faults += _symmetry_faults(data)
    return faults


def _edge_index_faults(data: Data) -> list[str]:
    edge_index = data.edge_index
    if _dtype(edge_index) != torch.long or edge_index.dim() != 2 or edge_index.size(0) != 2:
        return [f"edge_index must be int64 [2, E], got {shape_of(edge_index)}"]
    edge_index, num_nodes = plain_edge_index(data), node_count(data)
    outside = ((edge_index < 0) | (edge_index >= num_nodes)).any(dim=0)
    if outside.any():
        return [f"{_first_edge(edge_index, outside)} leaves the {num_nodes} nodes{_more(outside)}"]
    return []


def _length_faults(data: Data) -> Iterator[str]:
    edge_index = data.edge_index
    num_edges = (
        edge_index.shape[-1] if isinstance(edge_index, Tensor) and edge_index.dim() else None
    )
    for name in EDGE_LEVEL:
        value = data.get(name)
        if value is not None and num_edges is not None and _rows(value) != num_edges:
            yield f"{name} must have one row an edge, [{num_edges}, ...], got {shape_of(value)}"
    num_nodes = node_count(data)
    for name in NODE_LEVEL:
        value = data.get(name)
        if value is not None and _rows(value) != num_nodes:
            yield f"{name} must have one row a node, [{num_nodes}, ...], got {shape_of(value)}"
    pos = data.get("pos")
    if _rows(pos) == num_nodes and pos.dim() != 2:
        yield f"pos must be [{num_nodes}, d], got {shape_of(pos)}"
    y = data.get("y")
    if isinstance(data, Batch) and isinstance(y, Tensor) and y.dim():
        clips = max(data.num_graphs, 1)
        if len(y) != num_nodes and len(y) % clips:
            yield (
                f"y must have one row a node, [{num_nodes}, ...], or as many for each of the "
                f"{clips} clips, got {shape_of(y)}"
            )


def _clip_faults(data: Data, usable: bool) -> Iterator[str]:
    batch, ptr, num_nodes = data.get("batch"), data.get("ptr"), node_count(data)
    if isinstance(data, Batch):
        for name, value in (("batch", batch), ("ptr", ptr)):
            if value is None:
                yield f"{name} is missing, though this is a Batch"
    if batch is not None:
        if _dtype(batch) != torch.long or batch.shape != (num_nodes,):
            yield f"batch must be int64 [{num_nodes}], got {shape_of(batch)}"
            batch = None
        elif (batch < 0).any() or (batch.diff() < 0).any():
            node = int((batch.diff(prepend=batch.new_zeros(1)) < 0).nonzero()[0])
            clip, after = int(batch[node]), f"clip {int(batch[node - 1])}" if node else "the start"
            yield f"batch is not sorted from 0 on: node {node} is of clip {clip}, after {after}"
            batch = None
    if ptr is not None:
        if _dtype(ptr) != torch.long or ptr.dim() != 1 or not len(ptr):
            yield f"ptr must be int64 [B + 1], got {shape_of(ptr)}"
            ptr = None
        elif ptr[0] != 0 or ptr[-1] != num_nodes or (ptr.diff() < 0).any():
            came = ptr.tolist() if len(ptr) < 20 else f"{int(ptr[0])} to {int(ptr[-1])}"
            yield f"ptr must rise from 0 to the {num_nodes} nodes, got {came}"
            ptr = None
    if batch is not None and ptr is not None:
        clips = len(ptr) - 1
        counted, told = batch.bincount(minlength=clips), ptr.diff()
        told = torch.nn.functional.pad(told, (0, len(counted) - clips))
        if (counted != told).any():
            clip = int((counted != told).nonzero()[0])
            yield (
                f"batch and ptr disagree: clip {clip} has {int(counted[clip])} nodes by batch, "
                f"{int(told[clip])} by ptr"
            )
        elif isinstance(data, Batch) and data.num_graphs != clips:
            yield f"ptr speaks of {clips} clips, num_graphs of {data.num_graphs}"
    if batch is not None and usable:
        edge_index = plain_edge_index(data)
        source, target = batch[edge_index]
        across = source != target
        if across.any():
            k = int(across.nonzero()[0])
            yield (
                f"{_first_edge(edge_index, across)} leads from clip {int(source[k])} to clip "
                f"{int(target[k])}{_more(across)}"
            )


def _order_faults(data: Data) -> Iterator[str]:
    edge_index, num_nodes = plain_edge_index(data), node_count(data)
    key = _keys(edge_index, num_nodes)
    step = key.diff()
    if (step < 0).any():
        k = int((step < 0).nonzero()[0])
        before, after = edge_index[:, k].tolist(), edge_index[:, k + 1].tolist()
        yield (
            f"edge_index is not sorted by target, then source: edge {k + 1} ({_arrow(after)}) "
            f"comes after edge {k} ({_arrow(before)})"
        )
        key = key.sort().values
        step = key.diff()
    if (step == 0).any():
        twice = int(key[1:][step == 0][0])
        times = int((key == twice).sum())
        arrow = _arrow((twice % num_nodes, twice // num_nodes))
        yield f"edge {arrow} comes {times} times{_more(step == 0, 'duplicates')}"


def _loop_faults(data: Data) -> Iterator[str]:
    source, target = plain_edge_index(data)
    loops = target[source == target].bincount(minlength=node_count(data))
    wrong = loops != 1
    if loops.any() and wrong.any():
        node = int(wrong.nonzero()[0])
        yield (
            f"node {node} has {int(loops[node])} self-loops, expected one at every node or none at "
            f"all{_more(wrong, 'nodes')}"
        )


def _edge_attr_faults(data: Data) -> Iterator[str]:
    edge_attr, pos = data.get("edge_attr"), data.get("pos")
    if edge_attr is None:
        return
    if (
        not isinstance(edge_attr, Tensor)
        or not edge_attr.is_floating_point()
        or edge_attr.dim() != 2
    ):
        yield f"edge_attr must be float [E, F], got {shape_of(edge_attr)}"
        return
    columns = edge_attr.size(1)
    if pos is None and columns != 1:
        yield f"edge_attr must have 1 column without pos (similarity), got {shape_of(edge_attr)}"
    elif pos is not None and pos.dim() == 2 and columns - pos.size(1) not in (1, 2):
        d = pos.size(1)
        yield (
            f"edge_attr must have {d + 1} columns beside pos {shape_of(pos)} (displacement, "
            f"distance), {d + 2} with similarity, got {shape_of(edge_attr)}"
        )
    bad = ~edge_attr.isfinite().all(dim=1)
    if bad.any():
        edge = int(bad.nonzero()[0])
        column = int((~edge_attr[edge].isfinite()).nonzero()[0])
        value = float(edge_attr[edge, column])
        yield f"edge_attr of edge {edge} is {value} in column {column}{_more(bad)}"


def _value_faults(data: Data) -> Iterator[str]:
    for name, kind in (("pos", "node"), ("x", "node"), ("edge_weight", "edge")):
        value = data.get(name)
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.dim():
            continue
        bad = ~value.isfinite().flatten(1).all(dim=1) if value.dim() > 1 else ~value.isfinite()
        if bad.any():
            first = int(bad.nonzero()[0])
            yield f"{name} of {kind} {first} is NaN or infinite{_more(bad, f'{kind}s')}"


def _edge_rule_faults(data: Data) -> Iterator[str]:
    rule, edge_index = data.get("edge_rule"), plain_edge_index(data)
    if rule is None:
        return
    if _dtype(rule) != torch.uint8 or rule.dim() != 1:
        yield f"edge_rule must be uint8 [E], got {shape_of(rule)}"
        return
    if len(rule) != edge_index.size(1):
        return  # named before
    loop = edge_index[0] == edge_index[1]
    blank = rule == 0
    if blank.any():
        yield f"{_first_edge(edge_index, blank)} has no bit in edge_rule{_more(blank)}"
    mislabelled = loop & ~blank & (rule != EdgeRule.SELF_LOOP)
    if mislabelled.any():
        label = EdgeRule(int(rule[mislabelled][0])).label
        yield (
            f"{_first_edge(edge_index, mislabelled)} is a self-loop, its rule says "
            f"{label!r}{_more(mislabelled)}"
        )
    pretended = ~loop & (rule & EdgeRule.SELF_LOOP).bool()
    if pretended.any():
        yield (
            f"{_first_edge(edge_index, pretended)} has the bit of self-loops, but is none"
            f"{_more(pretended)}"
        )


def _symmetry_faults(data: Data) -> Iterator[str]:
    edge_index, num_nodes = plain_edge_index(data), node_count(data)
    alone = ~torch.isin(_keys(edge_index, num_nodes), _keys(edge_index.flip(0), num_nodes))
    if alone.any():
        yield f"{_first_edge(edge_index, alone)} has no reverse{_more(alone)}"


def _keys(edge_index: Tensor, num_nodes: int) -> Tensor:
    """One number an edge, in the promised order of the edges."""
    return edge_index[1] * num_nodes + edge_index[0]


def _first_edge(edge_index: Tensor, chosen: Tensor) -> str:
    edge = int(chosen.nonzero()[0])
    return f"edge {edge} ({_arrow(edge_index[:, edge].tolist())})"


def _arrow(ends: list[int] | tuple[int, int]) -> str:
    source, target = ends
    return f"{source} -> {target}"


def _more(chosen: Tensor, what: str = "edges") -> str:
    count = int(chosen.sum())
    return f" ({count} such {what} in all)" if count > 1 else ""


def _dtype(value: object) -> torch.dtype | None:
    return value.dtype if isinstance(value, Tensor) else None


def _rows(value: object) -> int | None:
    return len(value) if isinstance(value, Tensor) and value.dim() else None
