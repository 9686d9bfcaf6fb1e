"""Cross-attention between two streams, in a bottleneck narrower than either."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from gasmcast.nn.position_encoding import FourierPositionEncoding


class CrossAttentionWeights(NamedTuple):
    """Attention of one layer, both directions. Rows sum to 1.

    Attributes:
        semantic_to_motion: [B, H, P, S]: how much each patch takes from each segment.
        motion_to_semantic: [B, H, S, P]: how much each segment takes from each patch.
    """

    semantic_to_motion: Tensor
    motion_to_semantic: Tensor


class MultiHeadAttention(nn.Module):
    r"""Scaled dot-product attention of queries over another token set.

    .. math::
        \mathrm{head}_h = \mathrm{softmax}\!\left(\frac{(X_q W_q^h + b_q^h)(X_k W_k^h)^\top}
        {\sqrt{d / H}}\right) X_k W_v^h, \qquad
        Y = [\mathrm{head}_1, \dots, \mathrm{head}_H]\, W_o + b_o

    Keys have no bias, for the softmax cancels it; values have none, for :math:`b_o` does the same.

    Args:
        dim: Width d of queries, keys and output.
        num_heads: Heads H.

    Shapes:
        - **query:** [B, N, d]
        - **key_value:** [B, M, d]
        - **key_mask:** [B, M], True where a key exists. A clip without any key gets zeros.
        - **output:** [B, N, d] and, if asked, weights [B, H, N, M]

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.

    Source: Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_ (2017).
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
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
        return (output, weights) if return_attention else output


class BottleneckCrossAttention(nn.Module):
    r"""Two streams inform each other through a bottleneck (B-CAST).

    Both streams are compressed to the bottleneck width, attend to each other there in both
    directions, and are expanded and added back:

    .. math::
        \bar{s} &= \mathrm{LN}(s W_s + b_s), \qquad \bar{m} = \mathrm{LN}(m W_m + b_m) \\
        s' &= s + \mathrm{GELU}(\mathrm{Attn}(\bar{s} + \pi_s,\; \bar{m} + \rho_m)) U_s + c_s \\
        m' &= m + \mathrm{GELU}(\mathrm{Attn}(\bar{m} + \pi_m,\; \bar{s} + \rho_s)) U_m + c_m

    :math:`\pi` and :math:`\rho` encode the positions of queries and keys, for each stream its own.
    One attention serves both directions. :math:`U` and :math:`c` start at zero: a fresh layer is
    the identity, and loses nothing of its input.

    Args:
        sem_dim: Width of the semantic stream.
        mot_dim: Width of the motion stream.
        bottleneck_dim: Width of the bottleneck.
        num_heads: Heads H of the attention.
        sem_position_dim: Coordinates of a semantic position.
        mot_position_dim: Coordinates of a motion position.
        drop_path: Probability of skipping the layer for a clip in training.

    Shapes:
        - **semantic:** [B, P, sem_dim], **motion:** [B, S, mot_dim]
        - **semantic_positions:** [P, 2] or [B, P, 2], **motion_positions:** [S, 1] or [B, S, 1];
          without them tokens are an unordered set
        - **semantic_mask:** [B, P], **motion_mask:** [B, S], True where a token exists; what does
          not exist is attended to by nobody
        - **output:** semantic and motion in the shapes given, and with ``return_attention`` a
          :class:`CrossAttentionWeights`

    Raises:
        ValueError: Widths or batch sizes that do not fit, ``num_heads`` that does not divide
            ``bottleneck_dim``.

    Source: Lee et al., `CAST: Cross-Attention in Space and Time for Video Action Recognition
    <https://arxiv.org/abs/2311.18825>`_ (NeurIPS 2023).
    """

    def __init__(
        self,
        sem_dim: int = 768,
        mot_dim: int = 512,
        bottleneck_dim: int = 256,
        num_heads: int = 8,
        *,
        sem_position_dim: int = 2,
        mot_position_dim: int = 1,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.sem_compress = nn.Linear(sem_dim, bottleneck_dim)
        self.mot_compress = nn.Linear(mot_dim, bottleneck_dim)
        self.sem_norm = nn.LayerNorm(bottleneck_dim)
        self.mot_norm = nn.LayerNorm(bottleneck_dim)
        self.sem_query_position = FourierPositionEncoding(sem_position_dim, bottleneck_dim)
        self.sem_key_position = FourierPositionEncoding(sem_position_dim, bottleneck_dim)
        self.mot_query_position = FourierPositionEncoding(mot_position_dim, bottleneck_dim)
        self.mot_key_position = FourierPositionEncoding(mot_position_dim, bottleneck_dim)
        self.cross_attention = MultiHeadAttention(bottleneck_dim, num_heads)
        self.sem_expand = nn.Linear(bottleneck_dim, sem_dim)
        self.mot_expand = nn.Linear(bottleneck_dim, mot_dim)
        self.drop_path = StochasticDepth(drop_path, mode="row")
        for expand in (self.sem_expand, self.mot_expand):
            nn.init.zeros_(expand.weight)
            nn.init.zeros_(expand.bias)

    def forward(
        self,
        semantic: Tensor,
        motion: Tensor,
        semantic_positions: Tensor | None = None,
        motion_positions: Tensor | None = None,
        *,
        semantic_mask: Tensor | None = None,
        motion_mask: Tensor | None = None,
        return_attention: bool = False,
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, CrossAttentionWeights]:
        """Fuse once; see the class for equation and shapes."""
        self._check(semantic, motion)
        _check_tokens("semantic", semantic, semantic_positions, semantic_mask)
        _check_tokens("motion", motion, motion_positions, motion_mask)
        sem = self.sem_norm(_without_masked(self.sem_compress(semantic), semantic_mask))
        mot = self.mot_norm(_without_masked(self.mot_compress(motion), motion_mask))
        sem_update = self.cross_attention(
            sem + self.sem_query_position(semantic_positions),
            mot + self.mot_key_position(motion_positions),
            motion_mask,
            return_attention=return_attention,
        )
        mot_update = self.cross_attention(
            mot + self.mot_query_position(motion_positions),
            sem + self.sem_key_position(semantic_positions),
            semantic_mask,
            return_attention=return_attention,
        )
        if return_attention:
            sem_update, sem_weights = sem_update
            mot_update, mot_weights = mot_update
        semantic = semantic + self.drop_path(self.sem_expand(F.gelu(sem_update)))
        motion = motion + self.drop_path(self.mot_expand(F.gelu(mot_update)))
        if return_attention:
            return semantic, motion, CrossAttentionWeights(sem_weights, mot_weights)
        return semantic, motion

    def _check(self, semantic: Tensor, motion: Tensor) -> None:
        sem_dim, mot_dim = self.sem_compress.in_features, self.mot_compress.in_features
        if (
            semantic.dim() != 3
            or motion.dim() != 3
            or semantic.size(-1) != sem_dim
            or motion.size(-1) != mot_dim
            or len(semantic) != len(motion)
        ):
            raise ValueError(
                f"expected semantic [B, P, {sem_dim}] and motion [B, S, {mot_dim}], got "
                f"{list(semantic.shape)} and {list(motion.shape)}"
            )


def _without_masked(tokens: Tensor, mask: Tensor | None) -> Tensor:
    # A weight of zero would not keep a NaN out.
    return tokens if mask is None else tokens.masked_fill(~mask.unsqueeze(-1), 0.0)


def _check_tokens(name: str, tokens: Tensor, positions: Tensor | None, mask: Tensor | None) -> None:
    batch, number = tokens.shape[:2]
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (batch, number)):
        raise ValueError(
            f"{name}_mask must be bool {[batch, number]}, got {mask.dtype} {list(mask.shape)}"
        )
    if positions is not None and tuple(positions.shape[:-1]) not in ((number,), (batch, number)):
        raise ValueError(
            f"{name}_positions must be [{number}, d] or [{batch}, {number}, d], one a token, got "
            f"{list(positions.shape)}"
        )
