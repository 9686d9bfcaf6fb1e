"""Triton kernels of GATv2's messages, and what forward and backward share.

A tile is some edges by all channels of a head. Each of its rows has a running softmax and a running
sum of its own, of every BLOCK_E-th edge; they are put together once, at the end.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Lower than any score; finite, since infinities have no difference.
_LOWEST = tl.constexpr(-1e38)


@triton.jit
def forward(
    x_l, x_r, att, edge_attr, edge_weight, keep, ptr, source, edge, out, score, lse,
    SLOPE: tl.constexpr, H: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Messages and log-sum-exp of one target and head; its scores too unless ``score`` is None."""
    dtype = lse.dtype.element_ty
    i = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    channel = tl.arange(0, BLOCK_C)
    is_channel = channel < C
    column = h * C + channel
    r = tl.load(x_r + i * (H * C) + column, mask=is_channel, other=0.0).to(dtype)
    a = tl.load(att + column, mask=is_channel, other=0.0).to(dtype)
    first = tl.load(ptr + i)
    last = tl.load(ptr + i + 1)

    top = tl.full([BLOCK_E], _LOWEST, dtype)
    total = tl.zeros([BLOCK_E], dtype)
    summed = tl.zeros([BLOCK_E, BLOCK_C], dtype)
    for start in range(first, last, BLOCK_E):
        position = start + tl.arange(0, BLOCK_E)
        is_edge = position < last
        j = tl.load(source + position, mask=is_edge, other=0)
        row = edge_row(edge, position, is_edge)
        l_j = load_rows(x_l, j, is_edge, column, is_channel, H, C, dtype)
        z = l_j + r[None, :]
        z = add_edge(z, edge_attr, edge_weight, row, is_edge, column, is_channel, H, C, F)
        s = tl.sum(leaky_relu(z, SLOPE) * a[None, :], axis=1)
        if score is not None:
            tl.store(score + row * H + h, s, mask=is_edge)
        s = tl.where(is_edge, s, float("-inf"))
        higher = tl.maximum(top, s)
        shrink = tl.exp(top - higher)
        weight = tl.exp(s - higher)
        total = total * shrink + weight
        if keep is not None:
            weight *= tl.load(keep + row * H + h, mask=is_edge, other=0.0).to(dtype)
        summed = summed * shrink[:, None] + weight[:, None] * l_j
        top = higher

    highest = tl.max(top, axis=0)
    shrink = tl.exp(top - highest)
    sum_exp = tl.sum(total * shrink, axis=0)
    is_alone = sum_exp == 0.0
    sum_exp = tl.where(is_alone, 1.0, sum_exp)
    o = tl.sum(summed * shrink[:, None], axis=0) / sum_exp
    tl.store(out + i * (H * C) + column, o.to(out.dtype.element_ty), mask=is_channel)
    tl.store(lse + i * H + h, tl.where(is_alone, float("-inf"), highest + tl.log(sum_exp)))


@triton.jit
def attention(
    alpha, lse, ptr, edge, H: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr
):  # fmt: skip
    """Attention, in the place of the scores, on the edges of one target."""
    i = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK_H)
    is_head = head < H
    shift = tl.load(lse + i * H + head, mask=is_head, other=0.0)
    first = tl.load(ptr + i)
    last = tl.load(ptr + i + 1)
    for start in range(first, last, BLOCK_E):
        position = start + tl.arange(0, BLOCK_E)
        is_edge = position < last
        place = alpha + (edge_row(edge, position, is_edge) * H)[:, None] + head[None, :]
        is_there = is_edge[:, None] & is_head[None, :]
        score = tl.load(place, mask=is_there, other=float("-inf"))
        tl.store(place, tl.exp(score - shift[None, :]), mask=is_there)


@triton.jit
def edge_row(edge, position, is_edge):
    """Rows of some positions in the tensors that have a row per edge."""
    row = position
    if edge is not None:
        row = tl.load(edge + position, mask=is_edge, other=0)
    return row


@triton.jit
def load_rows(
    x, index, is_edge, column, is_channel, H: tl.constexpr, C: tl.constexpr, dtype: tl.constexpr
):  # fmt: skip
    """Some rows of a tensor [*, H, C], of one head; the index is int64, as the products may be."""
    return tl.load(
        x + (index * (H * C))[:, None] + column[None, :],
        mask=is_edge[:, None] & is_channel[None, :],
        other=0.0,
    ).to(dtype)


@triton.jit
def add_edge(
    z, edge_attr, edge_weight, row, is_edge, column, is_channel,
    H: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
):  # fmt: skip
    """z plus the projected features of its edges."""
    if edge_weight is not None:
        for f in tl.static_range(F):
            feature = tl.load(edge_attr + row * F + f, mask=is_edge, other=0.0).to(z.dtype)
            w = tl.load(edge_weight + f * (H * C) + column, mask=is_channel, other=0.0).to(z.dtype)
            z += feature[:, None] * w[None, :]
    elif edge_attr is not None:
        z += load_rows(edge_attr, row, is_edge, column, is_channel, H, C, z.dtype)
    return z


@triton.jit
def leaky_relu(z, SLOPE: tl.constexpr):
    """LeakyReLU, for slopes of any sign."""
    return tl.where(z > 0, z, z * SLOPE)
