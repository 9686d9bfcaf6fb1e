"""Scaled dot-product attention of one token set over another."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiHeadAttention(nn.Module):
    r"""Scaled dot-product attention of queries over another token set.

    .. math::
        \mathrm{head}_h = \mathrm{softmax}\!\left(\frac{(X_q W_q^h + b_q^h)(X_k W_k^h)^\top}
        {\sqrt{d / H}}\right) X_k W_v^h, \qquad
        Y = [\mathrm{head}_1, \dots, \mathrm{head}_H]\, W_o + b_o

    Keys have no bias, for the softmax cancels it; values have none, for :math:`b_o` does the same.

    Args:
        dim: Width d of queries and output.
        num_heads: Heads H.
        kv_dim: Width of the tokens attended to; None: d.

    Shapes:
        - **query:** [B, N, d]
        - **key_value:** [B, M, kv_dim]
        - **key_mask:** [B, M], True where a key exists. Where there is none, the output is zero.
        - **output:** [B, N, d] and, if asked, weights [B, H, N, M]

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.

    Source: Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_ (2017).
    """

    def __init__(self, dim: int, num_heads: int, kv_dim: int | None = None):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        kv_dim = dim if kv_dim is None else kv_dim
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(kv_dim, dim, bias=False)
        self.value = nn.Linear(kv_dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        key_value: Tensor,
        key_mask: Tensor | None = None,
        *,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; see the class for equation and shapes."""
        q, k, v = (
            linear(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear, tokens in (
                (self.query, query),
                (self.key, key_value),
                (self.value, key_value),
            )
        )
        attn_mask = has_key = None
        if key_mask is not None:
            has_key = key_mask.any(dim=1)[:, None, None]
            # Where nothing exists the softmax would be 0 / 0: let it run, its result is dropped.
            attn_mask = (key_mask[:, None] | ~has_key).unsqueeze(1)
        weights = None
        if return_attention:
            scores = q @ k.transpose(-1, -2) / q.size(-1) ** 0.5
            if attn_mask is not None:
                scores = scores.masked_fill(~attn_mask, -torch.inf)
            weights = scores.softmax(dim=-1)
            heads = weights @ v
        else:
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        output = self.output(heads.transpose(1, 2).flatten(-2))
        if has_key is not None:
            output = output * has_key
        elif key_value.size(1) == 0:
            output = torch.zeros_like(output)
        return (output, weights) if return_attention else output
