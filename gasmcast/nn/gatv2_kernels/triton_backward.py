"""Triton kernels of the gradients of GATv2's messages."""

from __future__ import annotations

import triton
import triton.language as tl

from gasmcast.nn.gatv2_kernels.triton_forward import add_edge, edge_row, leaky_relu, load_rows


# Sizes that differ from graph to graph are not compiled in: one kernel for all graphs.
@triton.jit(do_not_specialize=["num_targets", "num_edges", "chunk"])
def target_gradients(
    grad_out, grad_alpha, x_l, x_r, att, edge_attr, edge_weight, keep, ptr, source, edge,
    out, alpha, lse, grad_score, kept, grad_x_r, grad_att, grad_edge_attr, grad_edge_weight,
    num_targets, num_edges, chunk,
    SLOPE: tl.constexpr, H: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """Gradients of scores, r and edge features, and shares of those of a and W, from some targets.

    ``grad_score`` and ``kept``, the attention after dropout, are [H, E], for the sources to read.
    Where ``out`` is None, delta comes from the edges.
    """
    dtype = lse.dtype.element_ty
    part = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    first_of_head = h.to(tl.int64) * num_edges
    channel = tl.arange(0, BLOCK_C)
    is_channel = channel < C
    column = h * C + channel
    a = tl.load(att + column, mask=is_channel, other=0.0).to(dtype)
    sum_a = tl.zeros([BLOCK_E, BLOCK_C], dtype)
    feature = tl.arange(0, BLOCK_F)
    sum_w = tl.zeros([BLOCK_F, BLOCK_C], dtype)

    for i in range(part * chunk, tl.minimum(part * chunk + chunk, num_targets)):
        r = tl.load(x_r + i * (H * C) + column, mask=is_channel, other=0.0).to(dtype)
        g = tl.load(grad_out + i * (H * C) + column, mask=is_channel, other=0.0).to(dtype)
        shift = tl.load(lse + i * H + h)
        first = tl.load(ptr + i)
        last = tl.load(ptr + i + 1)
        shares = tl.zeros([BLOCK_E], dtype)
        if out is None or grad_alpha is not None:
            for start in range(first, last, BLOCK_E):
                position = start + tl.arange(0, BLOCK_E)
                is_edge = position < last
                row = edge_row(edge, position, is_edge)
                if out is None:
                    z, weight, weight_kept, pull = attend_again(
                        x_l, r, a, g, edge_attr, edge_weight, keep, grad_alpha, source, shift,
                        position, row, is_edge, h, column, is_channel, SLOPE, H, C, F,
                    )  # fmt: skip
                    shares += weight * pull
                else:
                    place = row * H + h
                    weight = tl.load(alpha + place, mask=is_edge, other=0.0)
                    shares += weight * tl.load(grad_alpha + place, mask=is_edge, other=0.0)
        delta = tl.sum(shares, axis=0)
        if out is not None:
            o = tl.load(out + i * (H * C) + column, mask=is_channel, other=0.0).to(dtype)
            delta += tl.sum(g * o, axis=0)

        sum_r = tl.zeros([BLOCK_E, BLOCK_C], dtype)
        for start in range(first, last, BLOCK_E):
            position = start + tl.arange(0, BLOCK_E)
            is_edge = position < last
            row = edge_row(edge, position, is_edge)
            z, weight, weight_kept, pull = attend_again(
                x_l, r, a, g, edge_attr, edge_weight, keep, grad_alpha, source, shift,
                position, row, is_edge, h, column, is_channel, SLOPE, H, C, F,
            )  # fmt: skip
            ds = weight * (pull - delta)
            tl.store(grad_score + first_of_head + row, ds, mask=is_edge)
            tl.store(kept + first_of_head + row, weight_kept, mask=is_edge)

            sum_a += ds[:, None] * leaky_relu(z, SLOPE)
            dz = tl.where(z > 0, ds[:, None], ds[:, None] * SLOPE)  # but for the factor a
            sum_r += dz
            if edge_weight is not None:
                for f in tl.static_range(F):
                    e = tl.load(edge_attr + row * F + f, mask=is_edge, other=0.0).to(dtype)
                    of_f = tl.sum(dz * e[:, None], axis=0)
                    # Row f: the compiler knows its registers, and selects nothing at run time.
                    sum_w = tl.where((feature == f)[:, None], sum_w + of_f[None, :], sum_w)
                    if grad_edge_attr is not None:
                        w = tl.load(
                            edge_weight + f * (H * C) + column, mask=is_channel, other=0.0
                        ).to(dtype)
                        de = tl.sum(dz * (a * w)[None, :], axis=1)
                        place = grad_edge_attr + (first_of_head + row) * F + f
                        tl.store(place, de, mask=is_edge)
            elif grad_edge_attr is not None:
                place = grad_edge_attr + (row * (H * C))[:, None] + column[None, :]
                de = (dz * a[None, :]).to(grad_edge_attr.dtype.element_ty)
                tl.store(place, de, mask=is_edge[:, None] & is_channel[None, :])

        dr = (a * tl.sum(sum_r, axis=0)).to(grad_x_r.dtype.element_ty)
        tl.store(grad_x_r + i * (H * C) + column, dr, mask=is_channel)

    tl.store(grad_att + part * (H * C) + column, tl.sum(sum_a, axis=0), mask=is_channel)
    if edge_weight is not None:
        place = (part * F + feature)[:, None] * (H * C) + column[None, :]
        is_there = (feature < F)[:, None] & is_channel[None, :]
        tl.store(grad_edge_weight + place, sum_w * a[None, :], mask=is_there)


@triton.jit
def attend_again(
    x_l, r, a, g, edge_attr, edge_weight, keep, grad_alpha, source, shift,
    position, row, is_edge, h, column, is_channel,
    SLOPE: tl.constexpr, H: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
):  # fmt: skip
    """Of some edges of a target: z, attention, the same after dropout, and its whole gradient."""
    j = tl.load(source + position, mask=is_edge, other=0)
    l_j = load_rows(x_l, j, is_edge, column, is_channel, H, C, r.dtype)
    z = l_j + r[None, :]
    z = add_edge(z, edge_attr, edge_weight, row, is_edge, column, is_channel, H, C, F)
    s = tl.sum(leaky_relu(z, SLOPE) * a[None, :], axis=1)
    # An empty row has a score too, of no edge, for which the exponential might overflow.
    weight = tl.exp(tl.where(is_edge, s - shift, float("-inf")))
    pull = tl.sum(l_j * g[None, :], axis=1)
    weight_kept = weight
    if keep is not None:
        k = tl.load(keep + row * H + h, mask=is_edge, other=0.0).to(r.dtype)
        pull *= k
        weight_kept = weight * k
    if grad_alpha is not None:
        pull += tl.load(grad_alpha + row * H + h, mask=is_edge, other=0.0)
    return z, weight, weight_kept, pull


@triton.jit(do_not_specialize=["num_edges"])
def source_gradients(
    grad_out, x_l, x_r, att, edge_attr, edge_weight, ptr, target, edge, grad_score, kept, grad_x_l,
    num_edges,
    SLOPE: tl.constexpr, H: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of l of one source and head, from the edges that it sends."""
    dtype = grad_score.dtype.element_ty
    j = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    first_of_head = h.to(tl.int64) * num_edges
    channel = tl.arange(0, BLOCK_C)
    is_channel = channel < C
    column = h * C + channel
    l_j = tl.load(x_l + j * (H * C) + column, mask=is_channel, other=0.0).to(dtype)
    a = tl.load(att + column, mask=is_channel, other=0.0).to(dtype)
    first = tl.load(ptr + j)
    last = tl.load(ptr + j + 1)
    summed = tl.zeros([BLOCK_E, BLOCK_C], dtype)
    for start in range(first, last, BLOCK_E):
        position = start + tl.arange(0, BLOCK_E)
        is_edge = position < last
        i = tl.load(target + position, mask=is_edge, other=0)
        row = tl.load(edge + position, mask=is_edge, other=0)
        ds = tl.load(grad_score + first_of_head + row, mask=is_edge, other=0.0)
        weight = tl.load(kept + first_of_head + row, mask=is_edge, other=0.0)
        g = load_rows(grad_out, i, is_edge, column, is_channel, H, C, dtype)
        z = load_rows(x_r, i, is_edge, column, is_channel, H, C, dtype) + l_j[None, :]
        z = add_edge(z, edge_attr, edge_weight, row, is_edge, column, is_channel, H, C, F)
        ds_a = ds[:, None] * a[None, :]
        summed += tl.where(z > 0, ds_a, ds_a * SLOPE) + weight[:, None] * g
    dl = tl.sum(summed, axis=0).to(grad_x_l.dtype.element_ty)
    tl.store(grad_x_l + j * (H * C) + column, dl, mask=is_channel)
