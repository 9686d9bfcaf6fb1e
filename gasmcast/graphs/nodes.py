"""The input of the builders: every allowed shape as one flat list of nodes, checked at the door."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Nodes:
    """The nodes of all clips, one after the other.

    Attributes:
        positions: [sum N, d]; [N, d] where ``shared``; None.
        features: [sum N, D] or None.
        norms: Euclidean norms of the features, [sum N], float32 or float64; None.
        sizes: Nodes of each clip.
        shared: All clips have the same positions.
        single: One clip that was not given as a batch.
    """

    positions: Tensor | None
    features: Tensor | None
    norms: Tensor | None
    sizes: list[int]
    shared: bool
    single: bool

    @property
    def device(self) -> torch.device:
        """Where the nodes are."""
        return (self.positions if self.features is None else self.features).device

    @cached_property
    def starts(self) -> list[int]:
        """The first node of each clip, and the number of all nodes at the end."""
        return [0, *accumulate(self.sizes)]


def read_nodes(
    positions: Tensor | None,
    features: Tensor | None,
    batch: Tensor | None,
    ptr: Tensor | None,
    mask: Tensor | None,
) -> Nodes:
    """Check the input and lay it out flat; see :func:`~gasmcast.graphs.build_graph` for shapes."""
    _check_kinds(positions, features)
    given = [
        name
        for name, value in (("batch", batch), ("ptr", ptr), ("mask", mask))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(
            f"give one of batch, ptr (ragged input) and mask (padded input), got {given}"
        )
    if positions is not None and features is not None:
        positions = positions.to(features.device)
    if batch is not None or ptr is not None:
        sizes = _ragged_sizes(positions, features, batch, ptr)
        shared, single = False, False
    else:
        _check_dense(positions, features, mask)
        leading = features if features is not None else positions
        single = leading.dim() == 2
        clips = 1 if single else len(leading)
        sizes = [leading.shape[-2]] * clips
        shared = positions is not None and positions.dim() == 2 and mask is None
        if mask is not None:
            mask = mask.to(leading.device)
            sizes = mask.sum(dim=1).tolist()
            if positions is not None:
                positions = positions.expand(*mask.shape, positions.size(-1))[mask]
            features = None if features is None else features[mask]
        else:
            if positions is not None and not shared:
                positions = positions.flatten(0, 1)
            if features is not None and features.dim() == 3:
                features = features.flatten(0, 1)

    norms = None
    if positions is not None:
        _check_finite("positions", positions, _norms(positions), sizes, mask)
    if features is not None:
        norms = _norms(features)
        _check_finite("features", features, norms, sizes, mask)
    return Nodes(positions, features, norms, sizes, shared, single)


def _norms(value: Tensor) -> Tensor:
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    return torch.linalg.vector_norm(value.detach(), dim=-1, dtype=dtype)


def _check_kinds(positions: Tensor | None, features: Tensor | None) -> None:
    if positions is None and features is None:
        raise ValueError("a graph needs positions or features, got neither")
    for name, value, letter in (("positions", positions, "d"), ("features", features, "D")):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a torch tensor, got {shape_of(value)}")
        if not value.is_floating_point() or value.dim() not in (2, 3) or value.size(-1) == 0:
            got = shape_of(value)
            if not value.is_floating_point():
                got += f": give {name}.float()"
            raise ValueError(f"{name} must be float [N, {letter}] or [B, N, {letter}], got {got}")


def _ragged_sizes(
    positions: Tensor | None, features: Tensor | None, batch: Tensor | None, ptr: Tensor | None
) -> list[int]:
    name, index = ("batch", batch) if batch is not None else ("ptr", ptr)
    letter = "sum N" if name == "batch" else "B + 1"
    if not isinstance(index, Tensor) or index.dim() != 1 or index.dtype != torch.long:
        raise ValueError(f"{name} must be int64 [{letter}], got {shape_of(index)}")
    num_nodes = len(batch) if batch is not None else int(ptr[-1]) if len(ptr) else -1
    if ptr is not None and (num_nodes < 0 or int(ptr[0]) != 0 or bool((ptr.diff() < 0).any())):
        raise ValueError(
            "ptr must begin with 0, never fall and end with the number of nodes, got "
            f"{ptr.tolist() if len(ptr) <= 8 else shape_of(ptr)}"
        )
    for what, value in (("positions", positions), ("features", features)):
        if value is not None and (value.dim() != 2 or len(value) != num_nodes):
            raise ValueError(
                f"with {name} of {num_nodes} nodes, {what} must be [{num_nodes}, ...] with one row "
                f"a node, got {shape_of(value)}"
            )
    if ptr is not None:
        return ptr.diff().tolist()
    if (batch.diff() < 0).any() or (batch[:1] < 0).any():
        raise ValueError(
            "batch must be sorted and not negative: the nodes of a clip must lie together. Sort "
            "with order = batch.argsort(stable=True), features[order], batch[order]"
        )
    return batch.bincount().tolist()


def _check_dense(positions: Tensor | None, features: Tensor | None, mask: Tensor | None) -> None:
    if positions is not None and features is not None:
        fits = positions.shape[-2] == features.shape[-2] and (
            positions.dim() == 2 or positions.shape[:-1] == features.shape[:-1]
        )
        if not fits:
            raise ValueError(
                f"positions {shape_of(positions)} do not fit features {shape_of(features)}: "
                f"expected one position a node, [{features.shape[-2]}, d]"
            )
    if mask is not None:
        value = features if features is not None else positions
        is_tensor = isinstance(mask, Tensor)
        if (
            not is_tensor
            or value.dim() != 3
            or mask.dtype != torch.bool
            or mask.shape != value.shape[:2]
        ):
            raise ValueError(
                f"mask must be bool [B, N] beside features [B, N, D], got {shape_of(mask)} beside "
                f"{shape_of(value)}"
            )


def _check_finite(
    name: str, value: Tensor, norms: Tensor, sizes: list[int], mask: Tensor | None
) -> None:
    # A norm per node is enough to notice; only then the culprit is looked for.
    if torch.isfinite(norms).all():
        return
    bad = ~torch.isfinite(value).all(dim=-1)
    if not bad.any():  # only the norm overflows: large, but finite
        return
    first = int(bad.nonzero()[0, 0])
    if mask is not None:
        clip, node = mask.nonzero()[first].tolist()
    else:
        clip, node = 0, first
        while node >= sizes[clip]:
            node -= sizes[clip]
            clip += 1
    raise ValueError(
        f"{name} must be finite, got NaN or infinite values at node {node} of clip {clip} "
        f"({int(bad.sum())} such nodes in all)"
    )


def shape_of(value: object) -> str:
    """What error messages say of a tensor, ``float32 [8, 4]``, and of anything else, its type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
