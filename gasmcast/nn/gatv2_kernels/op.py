"""The messages of GATv2 as operators of PyTorch: one for the messages, one for their gradients.

As registered operators they go through autograd and ``torch.compile`` like any other. Which kernel
computes them is said by name; all compute the same:

.. math::
    s_e^h = a^{h\\top} \\mathrm{LeakyReLU}(l_j^h + r_i^h + W^h e_{ij}), \\qquad
    \\alpha_e^h = \\mathrm{softmax}_{e \\to i}\\, s_e^h, \\qquad
    o_i^h = \\sum_{e:\\, j \\to i} \\alpha_e^h k_e^h\\, l_j^h
"""

from __future__ import annotations

import torch
from torch import Tensor

from gasmcast.nn.gatv2_kernels import plain
from gasmcast.nn.gatv2_kernels.backend import ADD_BIAS, kernel_named
from gasmcast.nn.gatv2_kernels.order import EdgeOrder


def messages(
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    keep: Tensor | None,
    bias: Tensor | None,
    order: EdgeOrder,
    negative_slope: float,
    return_alpha: bool,
    kernel: str,
) -> tuple[Tensor, Tensor | None]:
    """Messages of every target, and the attention on every edge.

    Args:
        x_l: Projected sources l, [M, H, C].
        x_r: Projected targets r, [N, H, C].
        att: Attention vectors a, [H, C].
        edge_attr: Edge features e, [E, F], or already projected, [E, H * C]; in the caller's order.
        edge_weight: W, [H * C, F]; None where the features are projected, or where there are none.
        keep: k, what dropout multiplies each attention weight with, [E, H]; None: one.
        bias: Added to the messages, [H, C]; None: nothing is.
        order: The graph.
        negative_slope: Of the LeakyReLU.
        return_alpha: Whether the attention is wanted.
        kernel: ``"c"``, ``"triton"`` or ``"blocked"``.

    Returns:
        Messages o, [N, H, C], and, if wanted, the attention alpha before dropout, [E, H], in the
        caller's order.
    """
    transposed = None, None, None
    if torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad
        for tensor in (x_l, x_r, att, edge_attr, edge_weight, bias)
    ):
        transposed = order.transposed()
    adds_bias = kernel in ADD_BIAS
    run = _messages if torch.compiler.is_compiling() else _Messages.apply
    out, alpha, _ = run(
        x_l, x_r, att, edge_attr, edge_weight, bias if adds_bias else None, keep,
        order.ptr, order.source, order.edge, *transposed,
        negative_slope, return_alpha, kernel,
    )  # fmt: skip
    if bias is not None and not adds_bias:
        out = out + bias
    elif bias is None and out.requires_grad and kernel_named(kernel).RECOMPUTES_ALPHA:
        out = out.clone()  # backward reads the kernel's own, and the caller may write to this one
    return out, alpha if return_alpha else None


def _run_messages(
    x_l, x_r, att, edge_attr, edge_weight, bias, keep, ptr, source, edge,
    transposed_ptr, transposed_target, transposed_edge, negative_slope, return_alpha, name,
):  # fmt: skip
    kernel = kernel_named(name)
    return kernel.messages(
        x_l, x_r, att, edge_attr, edge_weight, keep, ptr, source, edge,
        negative_slope, return_alpha, transposed_ptr is not None,
        **({"bias": bias} if name in ADD_BIAS else {}),
    )  # fmt: skip


def _run_gradients(grad_out, grad_alpha, *inputs):
    x_l, x_r, att, edge_attr, edge_weight, bias, *rest, name = inputs
    arguments = grad_out, grad_alpha, x_l, x_r, att, edge_attr, edge_weight, *rest
    kernel = kernel_named(name)
    if name in ADD_BIAS:
        gradients = kernel.gradients(*arguments, bias=bias)
    else:
        gradients = *kernel.gradients(*arguments), x_l.new_empty(0)
    return tuple(grad.contiguous() for grad in gradients)


@torch.library.custom_op("gasmcast::gatv2_messages", mutates_args=())
def _messages(
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    bias: Tensor | None,
    keep: Tensor | None,
    ptr: Tensor,
    source: Tensor,
    edge: Tensor | None,
    transposed_ptr: Tensor | None,
    transposed_target: Tensor | None,
    transposed_edge: Tensor | None,
    negative_slope: float,
    return_alpha: bool,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Messages [N, H, C]; attention [E, H], empty if neither caller nor kernel want it; and what
    the kernel keeps for the gradients besides."""
    return _run_messages(
        x_l, x_r, att, edge_attr, edge_weight, bias, keep, ptr, source, edge,
        transposed_ptr, transposed_target, transposed_edge, negative_slope, return_alpha, kernel,
    )  # fmt: skip


@_messages.register_fake
def _(x_l, x_r, att, edge_attr, edge_weight, bias, keep, ptr, source, edge, transposed_ptr, *rest):
    *_, return_alpha, name = rest
    kernel = kernel_named(name)
    edges = source.shape[0] if return_alpha or not kernel.RECOMPUTES_ALPHA else 0
    return (
        x_r.new_empty(x_r.shape, dtype=torch.promote_types(x_l.dtype, att.dtype)),
        x_r.new_empty((edges, x_r.shape[1]), dtype=accumulation_dtype(x_l.dtype)),
        kernel.new_kept(x_r, source, transposed_ptr is not None),
    )


@torch.library.custom_op("gasmcast::gatv2_gradients", mutates_args=())
def _gradients(
    grad_out: Tensor,
    grad_alpha: Tensor | None,
    x_l: Tensor,
    x_r: Tensor,
    att: Tensor,
    edge_attr: Tensor | None,
    edge_weight: Tensor | None,
    bias: Tensor | None,
    keep: Tensor | None,
    ptr: Tensor,
    source: Tensor,
    edge: Tensor | None,
    transposed_ptr: Tensor,
    transposed_target: Tensor,
    transposed_edge: Tensor,
    out: Tensor | None,
    alpha: Tensor,
    kept: Tensor,
    negative_slope: float,
    need_edge_attr: bool,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x_l, x_r, att, edge_attr, edge_weight and bias, those not wanted empty."""
    return _run_gradients(
        grad_out, grad_alpha, x_l, x_r, att, edge_attr, edge_weight, bias, keep, ptr, source, edge,
        transposed_ptr, transposed_target, transposed_edge, out, alpha, kept,
        negative_slope, need_edge_attr, kernel,
    )  # fmt: skip


@_gradients.register_fake
def _(grad_out, grad_alpha, x_l, x_r, att, edge_attr, edge_weight, bias, *rest):
    values = x_l, x_r, att, edge_attr if rest[-2] else None, edge_weight, bias
    # Contiguous, whatever the strides of the value.
    return tuple(
        x_l.new_empty(0) if value is None else value.new_empty(value.shape) for value in values
    )


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.negative_slope, _, ctx.kernel = inputs
    out, alpha, kept = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    if not kernel_named(ctx.kernel).RECOMPUTES_ALPHA:
        out = None
    ctx.save_for_backward(*tensors, out, alpha, kept)


def _backward(ctx, run, grad_out: Tensor | None, grad_alpha: Tensor | None) -> tuple:
    *inputs, out, alpha, kept = ctx.saved_tensors
    graph = (None,) * 10
    if not alpha.numel():  # it was not returned
        grad_alpha = None
    if grad_out is None and grad_alpha is None:
        return (*(None,) * 6, *graph)
    if torch.is_grad_enabled():
        return (*_differentiable_gradients(ctx, inputs, grad_out, grad_alpha), *graph)
    wanted = [value is not None for value in inputs[:6]]
    if grad_out is None:  # only the attention was used
        grad_out = torch.zeros_like(inputs[1])
        wanted[5] = False
    wanted[3] = wanted[3] and ctx.needs_input_grad[3]
    grads = run(
        grad_out, grad_alpha, *inputs, out, alpha, kept, ctx.negative_slope, wanted[3], ctx.kernel
    )
    pairs = zip(grads, wanted, strict=True)
    return (*(grad if is_wanted else None for grad, is_wanted in pairs), *graph)


def _differentiable_gradients(ctx, inputs, grad_out, grad_alpha) -> list[Tensor | None]:
    """Gradients that have gradients: of the same messages in plain PyTorch, computed again."""
    *values, bias, keep, ptr, source, edge = inputs[:10]
    # Views of their own: where sources and targets are one tensor, each has its gradient.
    values = [None if value is None else value.view_as(value) for value in values]
    target = torch.arange(len(ptr) - 1, device=ptr.device).repeat_interleave(ptr.diff())
    if edge is not None:
        ends = source, target
        source, target = (torch.empty_like(end).index_copy(0, edge, end) for end in ends)
    outputs = plain.attend(*values, keep, source, target, ctx.negative_slope)
    pairs = zip(outputs, (grad_out, grad_alpha), strict=True)
    used, grad_used = zip(*(pair for pair in pairs if pair[1] is not None), strict=True)
    wanted = [value for value, need in zip(values, ctx.needs_input_grad, strict=False) if need]
    grads = iter(torch.autograd.grad(used, wanted, grad_used, create_graph=True, allow_unused=True))
    grads = [next(grads) if need else None for need in ctx.needs_input_grad[:5]]
    with_bias = bias is not None and grad_out is not None
    return [*grads, grad_out.sum(dim=0).to(bias.dtype) if with_bias else None]


class _Messages(torch.autograd.Function):
    """The operator outside of a compiler, without the hundred microseconds of dispatching it."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _run_messages(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx, grad_out, grad_alpha, _):
        return _backward(ctx, _run_gradients, grad_out, grad_alpha)


torch.library.register_autograd(
    "gasmcast::gatv2_messages",
    lambda ctx, grad_out, grad_alpha, _: _backward(ctx, _gradients, grad_out, grad_alpha),
    setup_context=_setup_context,
)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)
