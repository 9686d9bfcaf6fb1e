"""What one would write instead of a bottleneck: cross-attention at full width."""

import torch
from torch import Tensor, nn


class Vanilla(nn.Module):
    """``nn.MultiheadAttention`` in both directions, residual, and nothing else.

    The least that does the job: no norm, no positions.
    """

    def __init__(self, sem_dim: int, mot_dim: int, num_heads: int):
        super().__init__()
        self.semantic = _attention(sem_dim, mot_dim, num_heads)
        self.motion = _attention(mot_dim, sem_dim, num_heads)

    def forward(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        return (
            semantic + self.semantic(semantic, motion, motion, need_weights=False)[0],
            motion + self.motion(motion, semantic, semantic, need_weights=False)[0],
        )


class AbsorbedVanilla(Vanilla):
    """The same, with the projections of the patches absorbed as our bottleneck does it.

    Absorption is no merit of the bottleneck: this shows what it does for full width. Semantic are
    the many tokens, motion the few.
    """

    def forward(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.semantic.num_heads
        query, key, value = _projections(self.semantic)
        bias, key_bias, value_bias = self.semantic.in_proj_bias.unflatten(0, (3, heads, -1))
        few_keys = torch.einsum("bmd,hcd->bmhc", motion, key) + key_bias
        few_values = torch.einsum("bmd,hcd->bmhc", motion, value) + value_bias
        columns = torch.einsum("bmhc,hcd->bhmd", few_keys, query).flatten(1, 2)
        scores = columns @ semantic.mT + (few_keys * bias).sum(-1).mT.flatten(1).unsqueeze(-1)
        scores = scores * few_keys.size(-1) ** -0.5
        weights = scores.unflatten(1, (heads, -1)).softmax(dim=2).flatten(1, 2)
        output = self.semantic.out_proj.weight.unflatten(1, (heads, -1))
        values = torch.einsum("bmhc,dhc->bhmd", few_values, output).flatten(1, 2)
        heard = weights.mT @ values + self.semantic.out_proj.bias

        query, key, value = _projections(self.motion)
        bias, _, value_bias = self.motion.in_proj_bias.unflatten(0, (3, heads, -1))
        few_queries = torch.einsum("bmd,hcd->bmhc", motion, query) + bias
        rows = torch.einsum("bmhc,hcd->bhmd", few_queries, key).flatten(1, 2)
        weights = (rows @ semantic.mT * few_queries.size(-1) ** -0.5).softmax(dim=-1)
        seen = (weights @ semantic).unflatten(1, (heads, -1))
        seen = torch.einsum("bhmd,hcd->bmhc", seen, value) + value_bias
        return semantic + heard, motion + self.motion.out_proj(seen.flatten(-2))


def _attention(dim: int, kv_dim: int, num_heads: int) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(dim, num_heads, kdim=kv_dim, vdim=kv_dim, batch_first=True)


def _projections(attention: nn.MultiheadAttention) -> list[Tensor]:
    """Of queries, keys and values, head by head, [H, C, D]."""
    weights = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
    return [weight.unflatten(0, (attention.num_heads, -1)) for weight in weights]
