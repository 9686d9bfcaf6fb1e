"""The messages of GATv2 and their gradients on a GPU, in Triton.

For an edge :math:`e = (j \\to i)` and a head h, with :math:`z_e = l_j + r_i + W e_{ij}`,

.. math::
    s_e = a^\\top \\mathrm{LeakyReLU}(z_e), \\qquad
    \\Lambda_i = \\log \\sum_{e \\to i} \\exp s_e, \\qquad
    \\alpha_e = \\exp(s_e - \\Lambda_i), \\qquad
    o_i = \\sum_{e \\to i} \\alpha_e k_e\\, l_j .

With :math:`g_i` the gradient of :math:`o_i` and :math:`\\gamma_e` that of :math:`\\alpha_e`,

.. math::
    \\delta_i = g_i^\\top o_i + \\sum_{e \\to i} \\alpha_e \\gamma_e, \\qquad
    \\dot s_e = \\alpha_e (k_e\\, g_i^\\top l_j + \\gamma_e - \\delta_i), \\qquad
    \\dot z_e = \\dot s_e\\, a \\odot \\mathrm{LeakyReLU}'(z_e),

    \\dot r_i = \\sum_{e \\to i} \\dot z_e, \\quad
    \\dot l_j = \\sum_{e:\\, j \\to i} (\\dot z_e + \\alpha_e k_e\\, g_i), \\quad
    \\dot a = \\sum_e \\dot s_e\\, \\mathrm{LeakyReLU}(z_e), \\quad
    \\dot W = \\sum_e \\dot z_e e_{ij}^\\top, \\quad
    \\dot e_{ij} = W^\\top \\dot z_e .

Forward, a program computes one head of one target, and reads the rows of its sources once.
Backward, a program walks a chunk of targets for one head; then others compute one head of one
source each. The gradients of a and W are summed within each program first, and over the programs
afterwards: there are no atomics, and the same input gives the same bits. From forward to backward
the log-sum-exp is kept, [N, H]; in backward, two numbers per edge and head. There is nothing of
size [E, H * C], except where edge features come projected.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from gasmcast.nn.gatv2_kernels.op import accumulation_dtype
from gasmcast.nn.gatv2_kernels.triton_backward import source_gradients, target_gradients
from gasmcast.nn.gatv2_kernels.triton_forward import attention, forward

# From the log-sum-exp, which is kept, and the messages.
RECOMPUTES_ALPHA = True

# Into about so many programs targets and heads are split for the gradients of a and W. That is a
# few waves on any GPU, so that none waits long for the one with most edges; and no more, for each
# keeps sums of its own. The number, and with it the order of sums, is the same on every GPU.
_PARTS = 4096


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Messages of every target; see :func:`gasmcast.nn.gatv2_kernels.op.messages`.

    Args:
        x_l: l, [M, H, C].
        x_r: r, [N, H, C].
        att: a, [H, C].
        edge_attr: Edge features, [E, F], or already projected, [E, H * C].
        edge_weight: W, [H * C, F].
        keep: k, [E, H].
        ptr: Target i receives the positions ``ptr[i]`` to ``ptr[i + 1] - 1``, [N + 1].
        source: Source of each position, [E].
        edge: Row of each position in the tensors that have a row per edge, [E]; None: the position.
        negative_slope: Of the LeakyReLU.
        return_alpha: Whether the attention is wanted.
        needs_gradients: Whether gradients may be asked for; the same is kept in either case.

    Returns:
        Messages o, [N, H, C]; attention, [E, H], or [0, H] where it is not wanted; and the
        log-sum-exp of the scores, [N, H]. A target without edges has 0 and -inf.
    """
    targets, heads, channels = x_r.shape
    dtype = accumulation_dtype(x_l.dtype)
    out = x_r.new_empty(x_r.shape, dtype=torch.promote_types(x_l.dtype, att.dtype))
    alpha = x_r.new_empty((len(source) if return_alpha else 0, heads), dtype=dtype)
    lse = new_kept(x_r, source, needs_gradients)
    if targets == 0:
        return out, alpha, lse
    features, edge_attr, weight = _edge_features(edge_attr, edge_weight)
    with torch.cuda.device_of(x_l):
        forward[(targets, heads)](
            x_l.contiguous(), x_r.contiguous(), att.contiguous(), edge_attr, weight,
            _contiguous(keep), ptr, source, edge, out, alpha if return_alpha else None, lse,
            SLOPE=float(negative_slope), H=heads, C=channels, F=features,
            **_tile(channels, dtype),
        )  # fmt: skip
        if return_alpha:
            block = triton.next_power_of_2(heads)
            rows = min(max(512 // block, 1), 32)
            attention[(targets,)](
                alpha, lse, ptr, edge, H=heads, BLOCK_E=rows, BLOCK_H=block, num_warps=1
            )  # fmt: skip
    return out, alpha, lse


def new_kept(x_r: Tensor, source: Tensor, needs_gradients: bool) -> Tensor:
    """Room for the log-sum-exp, [N, H]."""
    return x_r.new_empty(x_r.shape[:2], dtype=accumulation_dtype(x_r.dtype))


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
    out: Tensor,
    alpha: Tensor,
    lse: Tensor,
    negative_slope: float,
    need_edge_attr: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`messages`; its arguments, and besides:

    Args:
        grad_out: g, [N, H, C].
        grad_alpha: Gradient of the attention, [E, H].
        transposed_ptr: Source j sends the positions ``transposed_ptr[j]`` to
            ``transposed_ptr[j + 1] - 1`` of the order by source, [M + 1].
        transposed_target: Target of each of those, [E].
        transposed_edge: And its row in the tensors that have a row per edge, [E].
        out: o, [N, H, C].
        alpha: Attention, [E, H]; read only where it has a gradient.
        lse: Log-sum-exp of the scores, [N, H].
        need_edge_attr: Whether the gradient of the edge features is wanted.

    Returns:
        Gradients of ``x_l``, ``x_r``, ``att``, ``edge_attr`` and ``edge_weight``; the last two are
        empty where not wanted or not there.
    """
    (sources, heads, channels), targets, edges = x_l.shape, len(x_r), len(source)
    chunk = triton.cdiv(targets * heads, _PARTS)  # targets per program
    parts = triton.cdiv(targets, chunk) if targets else 0
    features, features_in, weight = _edge_features(edge_attr, edge_weight)
    if grad_alpha is not None and grad_alpha.numel() == 0:  # of an attention that was not wanted
        grad_alpha = None

    # The gradients of a target's scores sum to zero, but not if delta is from messages rounded to
    # half precision: then all of them are pushed to the same side.
    exact_out = out if out.dtype.itemsize >= lse.dtype.itemsize else None
    new = lse.new_empty  # in the accumulation dtype
    grad_score, kept = new(heads, edges), new(heads, edges)
    grad_x_l, grad_x_r = x_l.new_empty(x_l.shape), x_r.new_empty(x_r.shape)
    grad_att = new(parts, heads, channels)
    grad_edge_weight = grad_edge_attr = None
    if weight is not None:
        grad_edge_weight = new(parts, features, heads * channels)
    if need_edge_attr and weight is not None:
        grad_edge_attr = new(heads, edges, features)
    elif need_edge_attr:
        grad_edge_attr = torch.empty_like(features_in)

    grad_out, x_l, x_r, att = (tensor.contiguous() for tensor in (grad_out, x_l, x_r, att))
    constants = {
        "SLOPE": float(negative_slope), "H": heads, "C": channels, "F": features,
        **_tile(channels, lse.dtype),
    }  # fmt: skip
    with torch.cuda.device_of(x_l):
        if parts:
            target_gradients[(parts, heads)](
                grad_out, _contiguous(grad_alpha), x_l, x_r, att, features_in, weight,
                _contiguous(keep), ptr, source, edge, exact_out, alpha, lse, grad_score, kept,
                grad_x_r, grad_att, grad_edge_attr, grad_edge_weight,
                targets, edges, chunk,
                BLOCK_F=triton.next_power_of_2(max(features, 1)), **constants,
            )  # fmt: skip
        if sources:
            source_gradients[(sources, heads)](
                grad_out, x_l, x_r, att, features_in, weight, transposed_ptr, transposed_target,
                transposed_edge, grad_score, kept, grad_x_l, edges, **constants,
            )  # fmt: skip

    grad_att = grad_att.sum(dim=0).to(att.dtype)
    if grad_edge_attr is None:
        grad_edge_attr = x_l.new_empty(0)
    elif weight is not None:
        grad_edge_attr = grad_edge_attr.sum(dim=0).to(edge_attr.dtype)
    if grad_edge_weight is None:
        grad_edge_weight = x_l.new_empty(0)
    else:
        grad_edge_weight = grad_edge_weight.sum(dim=0).t().contiguous().to(edge_weight.dtype)
    return grad_x_l, grad_x_r, grad_att, grad_edge_attr, grad_edge_weight


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _edge_features(
    edge_attr: Tensor | None, edge_weight: Tensor | None
) -> tuple[int, Tensor | None, Tensor | None]:
    """F, the features, and W as [F, H * C]: the channels side by side, as the threads read them."""
    if edge_weight is None:
        return 0, _contiguous(edge_attr), None
    return edge_weight.shape[1], edge_attr.contiguous(), edge_weight.t().contiguous()


def _tile(channels: int, dtype: torch.dtype) -> dict[str, Any]:
    """How many edges by how many channels a program holds at a time, and in how many warps.

    A thread holds 16 registers of each tile. So a few rows are under way at a time, and an SM still
    has room for many programs, which hide each other's waiting for memory. Up to 256 channels one
    warp does, and a score is summed without a barrier. Of more than 32 rows most would stay empty.
    """
    block = triton.next_power_of_2(channels)
    warps = min(max(block // 256, 1), 8)
    numbers = warps * 32 * 64 // dtype.itemsize
    rows = min(max(numbers // block, 1), 32)
    return {"BLOCK_C": block, "BLOCK_E": rows, "num_warps": warps}
