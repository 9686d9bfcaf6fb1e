r"""Cross-attention between many tokens and few, without a projection of the many.

With few tokens :math:`\bar{m}` on one side, each head's score matrix and value matrix fit into few
columns, one for each head and few token, and the projections of the many tokens :math:`\bar{s}` are
absorbed into them:

.. math::
    (\bar{s} W_q^h + b_q^h)(k^h)^\top &= \bar{s}\, (W_q^h k^{h\top}) + b_q^h k^{h\top} \\
    (P^h v^h) W_o^h &= P^h\, (v^h W_o^h) \\
    q^h (\bar{s} W_k^h)^\top &= (q^h W_k^{h\top})\, \bar{s}^\top \\
    R^h (\bar{s} W_v^h) &= (R^h \bar{s})\, W_v^h

So with M few tokens and H heads, a token of the many costs 4 H M d multiplications instead of
4 d (d + M): a quarter of it for M = 8, H = 8, d = 256. (Of the few, each costs 4 d^2 more.) The
parameters and, up to rounding, the results are the same. Kept for backward are the input of the
many tokens, the same before their norm, and the two attentions; everything else is computed again,
which is cheap.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gasmcast.nn.multi_head_attention import MultiHeadAttention

aten = torch.ops.aten


class FewTokens(NamedTuple):
    """The side with few tokens: what it asks for and what it offers.

    Attributes:
        query: [B, M, H, d / H], with its bias.
        key: [B, M, H, d / H].
        value: [B, M, H, d / H].
        mask: [B, M], True where a token exists; None: everywhere.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None


class HeadWeights(NamedTuple):
    """The maps of one attention, head by head, all [H, d / H, d], and its biases, [d]."""

    query: Tensor
    query_bias: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    output_bias: Tensor

    @classmethod
    def of(cls, attention: MultiHeadAttention) -> Self:
        """The weights of an attention, as views."""
        query, key, value = (
            linear.weight.unflatten(0, (attention.num_heads, -1))
            for linear in (attention.query, attention.key, attention.value)
        )
        output = attention.output.weight.unflatten(1, (attention.num_heads, -1)).permute(1, 2, 0)
        return cls(query, attention.query.bias, key, value, output, attention.output.bias)


class Ends(NamedTuple):
    """What leads the many tokens into the bottleneck, and out of it onto a residual.

    Attributes:
        compress: Linear, D to d.
        expand: Linear, d to D.
        keep: What the update is multiplied with, [B, 1, 1] or [B, N, 1]; None: one.
    """

    compress: nn.Linear
    expand: nn.Linear
    keep: Tensor | None


class Exchanged(NamedTuple):
    """What comes out.

    Attributes:
        many: The many tokens: updated, [B, N, D], or without ends the GELU, [B, N, d].
        few_heads: Heads that the few tokens attended to, before the output map, [B, M, H, d / H].
        many_to_few: [B, H, N, M]; rows sum to 1.
        few_to_many: [B, H, M, N]; rows sum to 1.
    """

    many: Tensor
    few_heads: Tensor
    many_to_few: Tensor
    few_to_many: Tensor


def is_worthwhile(many: int, few: int, dim: int, num_heads: int) -> bool:
    """Whether absorbing takes fewer multiplications than projecting.

    For each of N many tokens 4 H M d against 4 d (d + M), and 4 d^2 more for each of M few.
    """
    absorbing = num_heads * few * dim * many + dim**2 * few
    projecting = dim**2 * many + few * dim * many
    return few <= many and absorbing < projecting


def exchange(
    x: Tensor,
    norm: nn.LayerNorm,
    few: FewTokens,
    weights: HeadWeights,
    positions: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None,
    ends: Ends | None = None,
) -> Exchanged:
    r"""One layer's attention in both directions, from the side of the many tokens.

    .. math::
        \bar{s} &= \mathrm{LN}(x W_c + b_c), \\
        x' &= x + \mathrm{GELU}(\mathrm{Attn}(\bar{s} + \pi, \bar{m}))\, U + c

    Args:
        x: The many tokens, [B, N, D]; without ``ends`` compressed already, [B, N, d].
        norm: After the compression.
        few: Queries, keys and values of the few tokens.
        weights: Of the attention.
        positions: Encodings :math:`\pi` and :math:`\rho` of the many tokens as queries and as keys,
            [N, d] or [B, N, d]; None: an unordered set.
        mask: [B, N], True where one of the many exists; x must be finite where none does.
        ends: Compression, expansion and residual; None: the caller's.

    Returns:
        The many tokens, what the few tokens attended to, and both attentions.
    """
    compress = expand = (None, None)
    keep = None
    if ends is not None:
        compress = ends.compress.weight, ends.compress.bias
        expand, keep = (ends.expand.weight, ends.expand.bias), ends.keep
    place = (None, None) if positions is None else positions
    affine = norm.weight, norm.bias
    tensors = (*compress, *affine, *few[:3], *weights, *place, *expand, keep)
    # Autocast leaves float64 alone.
    if torch.is_autocast_enabled(x.device.type) and norm.weight.dtype is not torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        tensors = tuple(tensor if tensor is None else tensor.to(dtype) for tensor in tensors)
    with torch.autocast(x.device.type, enabled=False):
        many, heads, to_few, to_many, _ = _Exchange.apply(norm.eps, mask, few.mask, x, *tensors)
    number, num_heads = few.key.size(1), few.key.size(2)
    return Exchanged(
        many,
        heads,
        to_few.unflatten(1, (num_heads, number)).mT,
        to_many.unflatten(1, (num_heads, number)),
    )


_INPUTS = (
    *("eps", "mask", "few_mask", "x", "compress", "compress_bias", "norm", "norm_bias"),
    *("query", "key", "value", "w_query", "b_query", "w_key", "w_value", "w_output", "b_output"),
    *("query_position", "key_position", "expand", "expand_bias", "keep"),
)


class _Exchange(torch.autograd.Function):
    """:func:`exchange` as an operator.

    Forward and backward are made of differentiable operators, and what backward reads is an input
    or an output: so second derivatives come by themselves. ``y``, the many tokens before the norm,
    is an output for this reason alone.
    """

    @staticmethod
    def forward(
        ctx, eps, mask, few_mask, x, compress, compress_bias, norm, norm_bias, query, key, value,
        w_query, b_query, w_key, w_value, w_output, b_output, query_position, key_position,
        expand, expand_bias, keep,
    ):  # fmt: skip
        y = x if compress is None else F.linear(x.to(compress.dtype), compress, compress_bias)
        tokens = torch.native_layer_norm(y, y.shape[-1:], norm, norm_bias, eps)[0]
        to_few = _attention_to_few(_plus(tokens, query_position), key, few_mask, w_query, b_query)
        if key_position is not None:
            tokens += key_position
        to_many = _attention_to_many(tokens, query, mask, w_key)
        seen = _release(torch.bmm(to_many, tokens), w_value)
        del tokens
        out = F.gelu(torch.bmm(to_few.mT, _values(few_mask, value, w_output, b_output)))
        if expand is not None:
            out = _add_expanded(x, out, expand, expand_bias, keep)
        ctx.eps = eps
        ctx.save_for_backward(
            few_mask, None if compress is None else x, compress, norm, norm_bias, query, key, value,
            w_query, b_query, w_key, w_value, w_output, b_output, query_position, key_position,
            expand, keep, to_few, to_many, y,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        return out, seen, to_few, to_many, y

    @staticmethod
    def backward(ctx, *d_outputs):
        saved = ctx.saved_tensors  # once: activation checkpointing gives them out once
        with torch.autocast(saved[-1].device.type, enabled=False):
            return _Exchange._backward(ctx, saved, *d_outputs)

    @staticmethod
    def _backward(ctx, saved, d_out, d_seen, d_to_few, d_to_many, d_y):
        (
            few_mask, x, compress, norm, norm_bias, query, key, value,
            w_query, b_query, w_key, w_value, w_output, b_output, query_position, key_position,
            expand, keep, to_few, to_many, y,
        ) = saved  # fmt: skip
        # Matrix products of the size of the input are left out where nobody wants them.
        needs = dict(zip(_INPUTS, ctx.needs_input_grad, strict=True))
        d_x = d_compress = d_compress_bias = d_expand = d_expand_bias = None

        values = _values(few_mask, value, w_output, b_output)
        heard = torch.bmm(to_few.mT, values)
        if d_out is None:
            d_heard = torch.zeros_like(heard)
        elif expand is None:
            d_heard = d_out
        else:
            d_heard = d_out.to(heard.dtype)
            if needs["expand"]:
                d_expand = _expand_gradient(d_heard, F.gelu(heard), keep)
            if needs["expand_bias"]:
                d_expand_bias = _kept_sum(d_heard, keep)
            d_heard = d_heard @ expand if keep is None else (d_heard @ expand) * keep
        d_heard = aten.gelu_backward(d_heard, heard)
        d_to_few = _plus(torch.bmm(values, d_heard.mT), d_to_few)
        d_values = torch.bmm(to_few, d_heard)
        del heard, d_heard  # as early as it can be: this is where memory is at its peak
        if few_mask is not None:
            d_values = d_values * few_mask.any(dim=1)[:, None, None]
        d_b_output = d_values.sum(dim=(0, 1)) / value.size(2)
        d_value, d_w_output = _release(d_values, w_output), _pair(value, d_values)

        tokens, mean, rstd = torch.native_layer_norm(y, y.shape[-1:], norm, norm_bias, ctx.eps)
        d_queries, d_key, d_w_query, d_b_query = _attention_to_few_backward(
            d_to_few, to_few, _plus(tokens, query_position), key, w_query, b_query
        )
        d_query_position = _gradient_like(query_position, d_queries)

        if key_position is not None:
            tokens += key_position
        d_seen = torch.zeros_like(value) if d_seen is None else d_seen
        d_w_value, d_seen = _pair(d_seen, torch.bmm(to_many, tokens)), _absorb(d_seen, w_value)
        d_to_many = _plus(torch.bmm(d_seen, tokens.mT), d_to_many)
        d_keys, d_query, d_w_key = _attention_to_many_backward(
            d_to_many, to_many, tokens, query, w_key
        )
        del tokens
        d_keys = torch.baddbmm(d_keys, to_many.mT, d_seen)
        d_key_position = _gradient_like(key_position, d_keys)

        d_keys += d_queries
        del d_queries
        d_tokens, d_norm, d_norm_bias = aten.native_layer_norm_backward(
            d_keys, y, y.shape[-1:], mean, rstd, norm, norm_bias, [True] * 3
        )
        del d_keys
        d_tokens = _plus(d_tokens, d_y)
        if compress is None:
            d_x = d_tokens
        else:
            flat = d_tokens.flatten(0, -2)
            if needs["compress"]:
                d_compress = flat.mT @ x.to(compress.dtype).flatten(0, -2)
            if needs["compress_bias"]:
                d_compress_bias = flat.sum(dim=0)
            if needs["x"] and d_out is None:
                d_x = d_tokens @ compress
            elif needs["x"]:
                d_x = _add_product(d_out, d_tokens, compress)
        return (
            None, None, None, d_x, d_compress, d_compress_bias, d_norm, d_norm_bias, d_query, d_key,
            d_value, d_w_query, d_b_query, d_w_key, d_w_value, d_w_output, d_b_output,
            d_query_position, d_key_position, d_expand, d_expand_bias, None,
        )  # fmt: skip


# Both attentions are [B, H * M, N]: a softmax over rows of M numbers each would be slow.


def _attention_to_few(
    tokens: Tensor, key: Tensor, few_mask: Tensor | None, w_query: Tensor, b_query: Tensor
) -> Tensor:
    """How much each of the many takes from each of the few, which sums to 1 over M."""
    heads, number = key.size(2), key.size(1)
    bias = (key * b_query.unflatten(0, (heads, -1))).sum(-1).mT.flatten(1).unsqueeze(2)
    scores = torch.baddbmm(bias, _absorb(key, w_query), tokens.mT).unflatten(1, (heads, number))
    if few_mask is not None:
        scores.masked_fill_(_hidden(few_mask)[:, None, :, None], -torch.inf)
    return scores.softmax(dim=2).flatten(1, 2)


def _attention_to_few_backward(
    d_attention: Tensor,
    attention: Tensor,
    tokens: Tensor,
    key: Tensor,
    w_query: Tensor,
    b_query: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the tokens, of the keys, of the weight and of the bias."""
    sizes = (key.size(2), key.size(1))
    d_scores = aten._softmax_backward_data(
        d_attention.unflatten(1, sizes), attention.unflatten(1, sizes), 2, attention.dtype
    ).flatten(1, 2)
    d_rows = torch.bmm(d_scores, tokens)
    d_bias = d_scores.sum(dim=2).unflatten(1, sizes).mT.unsqueeze(-1)
    d_key = _release(d_rows, w_query) + d_bias * b_query.unflatten(0, (sizes[0], -1))
    d_b_query = (key * d_bias).sum(dim=(0, 1)).flatten()
    d_tokens = torch.bmm(d_scores.mT, _absorb(key, w_query))
    return d_tokens, d_key, _pair(key, d_rows), d_b_query


def _attention_to_many(tokens: Tensor, query: Tensor, mask: Tensor | None, w_key: Tensor) -> Tensor:
    """How much each of the few takes from each of the many, which sums to 1 over N."""
    scores = torch.bmm(_absorb(query, w_key), tokens.mT)
    if mask is not None:
        scores.masked_fill_(_hidden(mask)[:, None], -torch.inf)
    return scores.softmax(dim=-1)


def _attention_to_many_backward(
    d_attention: Tensor, attention: Tensor, tokens: Tensor, query: Tensor, w_key: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the tokens, of the queries and of the weight."""
    d_scores = aten._softmax_backward_data(d_attention, attention, -1, attention.dtype)
    d_rows = torch.bmm(d_scores, tokens)
    d_tokens = torch.bmm(d_scores.mT, _absorb(query, w_key))
    return d_tokens, _release(d_rows, w_key), _pair(query, d_rows)


def _absorb(few: Tensor, weight: Tensor) -> Tensor:
    """Few tokens, head by head, as rows of the bottleneck: [B, M, H, C] to [B, H * M, d]."""
    return torch.einsum("bmhc,hcd->bhmd", few, weight).flatten(1, 2)


def _release(rows: Tensor, weight: Tensor) -> Tensor:
    """The transposed map of :func:`_absorb`: [B, H * M, d] to [B, M, H, C]."""
    return torch.einsum("bhmd,hcd->bmhc", rows.unflatten(1, (len(weight), -1)), weight)


def _pair(few: Tensor, rows: Tensor) -> Tensor:
    """Gradient of the weight of either: [B, M, H, C] and [B, H * M, d] to [H, C, d]."""
    return torch.einsum("bmhc,bhmd->hcd", few, rows.unflatten(1, (few.size(2), -1)))


def _values(few_mask: Tensor | None, value: Tensor, w_output: Tensor, b_output: Tensor) -> Tensor:
    """What the many hear from each head and few token; the weights of a head sum to 1."""
    values = _absorb(value, w_output) + b_output / value.size(2)
    return values if few_mask is None else values * few_mask.any(dim=1)[:, None, None]


def _hidden(mask: Tensor) -> Tensor:
    """What the softmax leaves out: all that does not exist, but nothing where nothing exists."""
    return ~mask & mask.any(dim=1, keepdim=True)


def _add_expanded(
    x: Tensor, narrow: Tensor, expand: Tensor, bias: Tensor, keep: Tensor | None
) -> Tensor:
    if keep is None:
        out = x + bias
    else:
        out, narrow = torch.addcmul(x, keep.to(x.dtype), bias.to(x.dtype)), narrow * keep
    return _add_product(out, narrow, expand.mT, in_place=True)


def _expand_gradient(d_out: Tensor, narrow: Tensor, keep: Tensor | None) -> Tensor:
    narrow = narrow if keep is None else narrow * keep
    return d_out.flatten(0, 1).mT @ narrow.flatten(0, 1)


def _kept_sum(d_out: Tensor, keep: Tensor | None) -> Tensor:
    """Sum over clips and tokens, each times what it was kept with."""
    if keep is None:
        return d_out.sum(dim=(0, 1))
    return d_out.flatten(0, 1).mT @ keep.expand(*d_out.shape[:2], 1).flatten()


def _add_product(wide: Tensor, narrow: Tensor, weight: Tensor, *, in_place: bool = False) -> Tensor:
    """``wide + narrow @ weight``."""
    if wide.dtype != narrow.dtype:
        return wide + narrow @ weight
    flat = wide.flatten(0, 1)
    # Not addmm_, which torch's FlopCounterMode does not count.
    out = flat if in_place else None
    return torch.addmm(flat, narrow.flatten(0, 1), weight, out=out).view_as(wide)


def _plus(tensor: Tensor, more: Tensor | None) -> Tensor:
    return tensor if more is None else tensor + more


def _gradient_like(position: Tensor | None, d_tokens: Tensor) -> Tensor | None:
    """Of positions that all clips share, the sum over the clips."""
    if position is None:
        return None
    return d_tokens.clone() if position.dim() == 3 else d_tokens.sum(dim=0)
