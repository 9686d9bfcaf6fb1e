"""The compiled kernels, through ctypes. What they compute is in ``gatv2.c`` beside this file."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

RECOMPUTES_ALPHA = False

# Nodes are cut into so many parts, whatever the number of threads: sums do not depend on it.
NUM_CHUNKS = 32

_SIZES = "num_sources num_targets heads channels features num_chunks num_threads"
_POINTERS = """ptr source edge transposed_ptr transposed_target transposed_edge x_l x_r att
    edge_attr edge_weight edge_rows keep bias out alpha signs grad_out grad_alpha pairs
    grad_x_l grad_x_r grad_att grad_bias grad_edge_weight grad_edge_attr grad_edge_rows"""


class _Problem(ctypes.Structure):
    """``gatv2_problem`` of ``gatv2.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES.split()),
        ("negative_slope", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _POINTERS.split()),
    )


@cache
def _library() -> ctypes.CDLL | None:
    """The library that installing built, if it did."""
    folder = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        file = folder / f"_gatv2{suffix}"
        if file.exists():
            try:
                library = ctypes.CDLL(str(file))
            except OSError:  # built for another machine, or OpenMP is not there
                continue
            for name in ("gatv2_messages", "gatv2_gradients"):
                function = getattr(library, name)
                function.argtypes = [ctypes.POINTER(_Problem), ctypes.c_int]
                function.restype = ctypes.c_int
            library.gatv2_signs_bytes.argtypes = [ctypes.c_int64, ctypes.c_int]
            library.gatv2_signs_bytes.restype = ctypes.c_int64
            library.gatv2_sort.argtypes = [
                ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            library.gatv2_sort.restype = None
            return library
    return None


def is_available() -> bool:
    """Whether the kernels were built when the package was installed."""
    return _library() is not None


# OpenMP's threads do not survive a fork, and waiting for them would never end.
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def sort(key: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Stable order of keys [E] in 0 to size - 1, [E], and where each begins, [size + 1]."""
    key = key.contiguous()
    ptr, order = key.new_empty(size + 1), torch.empty_like(key)
    _library().gatv2_sort(key.data_ptr(), len(key), size, ptr.data_ptr(), order.data_ptr())
    return ptr, order


def messages(
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
    ptr: Tensor,
    source: Tensor,
    edge: Tensor | None,
    negative_slope: float,
    return_alpha: bool,
    needs_gradients: bool,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Messages, attention and, if needed, the signs of z; see ``_messages`` in ``op.py``."""
    dtype = torch.promote_types(x_l.dtype, torch.float32)
    given = _inputs(dtype, x_l, x_r, att, edge_attr, edge_weight, keep)
    alpha = x_r.new_empty((len(source), x_r.shape[1]), dtype=dtype)
    kept = new_kept(x_r, source, needs_gradients)
    out = torch.empty_like(given["x_r"])
    _run(
        "gatv2_messages", negative_slope,
        **given, ptr=ptr, source=source, edge=edge, alpha=alpha, out=out,
        signs=kept if needs_gradients else None, bias=_padded(bias, dtype),
    )  # fmt: skip
    return _unpadded(out, x_r.shape[2], torch.promote_types(x_l.dtype, att.dtype)), alpha, kept


def new_kept(x_r: Tensor, source: Tensor, needs_gradients: bool) -> Tensor:
    """Room for the sign of every z, one bit each where the machine has AVX2, [E, H, bytes]."""
    if not needs_gradients:
        return x_r.new_empty(0, dtype=torch.uint8)
    is_double = x_r.dtype is torch.float64
    channels = _padded_channels(x_r.shape[2], torch.promote_types(x_r.dtype, torch.float32))
    size = _library().gatv2_signs_bytes(channels, is_double)
    return x_r.new_empty((source.shape[0], x_r.shape[1], size), dtype=torch.uint8)


def gradients(
    grad_out: Tensor,
    grad_alpha: Tensor | None,
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
    ptr: Tensor,
    source: Tensor,
    edge: Tensor | None,
    transposed_ptr: Tensor,
    transposed_target: Tensor,
    transposed_edge: Tensor,
    out: None,
    alpha: Tensor,
    kept: Tensor,
    negative_slope: float,
    need_edge_attr: bool,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs, the bias last; see ``_gradients`` in ``op.py``."""
    dtype = alpha.dtype
    given = _inputs(dtype, x_l, x_r, att, edge_attr, edge_weight, keep)
    channels = x_r.shape[2]
    grad_x_l, grad_x_r = torch.empty_like(given["x_l"]), torch.empty_like(given["x_r"])
    grad_att = alpha.new_zeros(NUM_CHUNKS, *given["att"].shape)
    grad_bias = None if bias is None else torch.zeros_like(grad_att)
    grad_edge_weight = grad_edge_attr = grad_edge_rows = None
    if edge_weight is not None:
        grad_edge_weight = alpha.new_zeros(NUM_CHUNKS, *given["edge_weight"].shape)
        grad_edge_attr = torch.zeros_like(given["edge_attr"]) if need_edge_attr else None
    elif edge_attr is not None:
        grad_edge_rows = torch.empty_like(given["edge_rows"])
    _run(
        "gatv2_gradients",
        negative_slope,
        **given,
        ptr=ptr,
        source=source,
        edge=edge,
        transposed_ptr=transposed_ptr,
        transposed_target=transposed_target,
        transposed_edge=transposed_edge,
        alpha=alpha,
        signs=kept,
        grad_out=_padded(grad_out, dtype),
        grad_alpha=_ready(grad_alpha, dtype),
        pairs=alpha.new_empty(*alpha.shape, 2),
        grad_x_l=grad_x_l,
        grad_x_r=grad_x_r,
        grad_att=grad_att,
        grad_bias=grad_bias,
        grad_edge_weight=grad_edge_weight,
        grad_edge_attr=grad_edge_attr,
        grad_edge_rows=grad_edge_rows,
    )
    edges = [alpha.new_empty(0), alpha.new_empty(0)]
    if edge_weight is not None:
        weight = _unpadded(grad_edge_weight.sum(0), channels, edge_weight.dtype)
        edges[1] = weight.flatten(1).t().contiguous()
    if need_edge_attr and edge_weight is not None:
        edges[0] = grad_edge_attr.to(edge_attr.dtype)
    elif need_edge_attr:
        edges[0] = _unpadded(grad_edge_rows, channels, edge_attr.dtype).flatten(1)
    return (
        _unpadded(grad_x_l, channels, x_l.dtype),
        _unpadded(grad_x_r, channels, x_r.dtype),
        _unpadded(grad_att.sum(0), channels, att.dtype),
        *edges,
        alpha.new_empty(0) if bias is None else _unpadded(grad_bias.sum(0), channels, bias.dtype),
    )


def _padded_channels(channels: int, dtype: torch.dtype) -> int:
    at_once = 64 // dtype.itemsize
    return -(-channels // at_once) * at_once


def _padded(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """In this type, with channels a multiple of what the kernels take at once: 64 bytes."""
    if tensor is None:
        return None
    missing = _padded_channels(tensor.shape[-1], dtype) - tensor.shape[-1]
    return F.pad(tensor.to(dtype), (0, missing)).contiguous() if missing else _ready(tensor, dtype)


def _unpadded(tensor: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """The channels that are not padding, in this type, contiguous."""
    if tensor.shape[-1] != channels:
        tensor = tensor[..., :channels].contiguous()
    return tensor.to(dtype)


def _ready(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype).contiguous()


def _inputs(
    dtype: torch.dtype,
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
) -> dict[str, Tensor | None]:
    """What is given, in the type of the sums, its channels padded; W as [F, H, C]."""
    heads = x_r.shape[1:]
    weight = rows = attr = None
    if edge_weight is not None:
        weight = _padded(edge_weight.t().unflatten(1, heads), dtype)
        attr = _ready(edge_attr, dtype)
    elif edge_attr is not None:
        rows = _padded(edge_attr.unflatten(1, heads), dtype)
    return {
        "x_l": _padded(x_l, dtype),
        "x_r": _padded(x_r, dtype),
        "att": _padded(att, dtype),
        "edge_attr": attr,
        "edge_weight": weight,
        "edge_rows": rows,
        "keep": _ready(keep, dtype),
    }


def _run(function: str, negative_slope: float, **tensors: Tensor | None) -> None:
    x_l, x_r, edge_weight = tensors["x_l"], tensors["x_r"], tensors["edge_weight"]
    problem = _Problem(
        num_sources=x_l.shape[0],
        num_targets=x_r.shape[0],
        heads=x_r.shape[1],
        channels=x_r.shape[2],
        features=0 if edge_weight is None else edge_weight.shape[0],
        num_chunks=NUM_CHUNKS,
        num_threads=1 if _forked else torch.get_num_threads(),
        negative_slope=negative_slope,
        **{name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()},
    )
    is_double = x_l.dtype is torch.float64
    if getattr(_library(), function)(ctypes.byref(problem), is_double):
        raise MemoryError("no memory for a row of a node's edges")
