"""Cross-attention between two streams: in a bottleneck narrower than either, and at full width."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from gasmcast.nn import absorbed_attention
from gasmcast.nn.absorbed_attention import Ends, FewTokens, HeadWeights
from gasmcast.nn.multi_head_attention import MultiHeadAttention
from gasmcast.nn.plain_modules import is_plain, is_plain_linear
from gasmcast.nn.position_encoding import FourierPositionEncoding


class CrossAttentionWeights(NamedTuple):
    """Attention of one layer, both directions. Rows sum to 1.

    Attributes:
        semantic_to_motion: [B, H, P, S]: how much each patch takes from each segment.
        motion_to_semantic: [B, H, S, P]: how much each segment takes from each patch.
    """

    semantic_to_motion: Tensor
    motion_to_semantic: Tensor


class Stream(NamedTuple):
    """What a bottleneck layer has for one of its streams, and where the tokens of it are."""

    compress: nn.Linear
    norm: nn.LayerNorm
    query_position: FourierPositionEncoding
    key_position: FourierPositionEncoding
    expand: nn.Linear
    positions: Tensor | None
    mask: Tensor | None

    def queries(self, tokens: Tensor) -> Tensor:
        """Normalised tokens as what they ask with."""
        return tokens + self.query_position(self.positions)

    def keys(self, tokens: Tensor) -> Tensor:
        """Normalised tokens as what they offer."""
        return tokens + self.key_position(self.positions)


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
        - **semantic_positions:** [P, sem_position_dim] or [B, P, sem_position_dim],
          **motion_positions:** [S, mot_position_dim] or [B, S, mot_position_dim], in units in which
          neighbours differ by about 1; without them tokens are an unordered set
        - **semantic_mask:** bool [B, P], **motion_mask:** bool [B, S], True where a token exists;
          what does not exist is attended to by nobody and comes out as zeros
        - **output:** semantic and motion in the shapes given, and with ``return_attention`` a
          :class:`CrossAttentionWeights`

    Raises:
        ValueError: Widths or batch sizes that do not fit, ``num_heads`` that does not divide
            ``bottleneck_dim``, ``drop_path`` out of its range.

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
        self.drop_path = _stochastic_depth(drop_path)
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
        check_streams(
            semantic, motion, self.sem_compress.in_features, self.mot_compress.in_features
        )
        streams = self.streams(
            semantic, motion, semantic_positions, motion_positions, semantic_mask, motion_mask
        )
        x = [existing(semantic, semantic_mask), existing(motion, motion_mask)]
        kept = [self.keep(tokens, stream.mask) for tokens, stream in zip(x, streams, strict=True)]
        many = self.absorbing(x, streams)
        ends = None
        if many is not None:  # compressed and expanded on the way
            ends = Ends(streams[many].compress, streams[many].expand, kept[many])
        y = [x[i] if i == many else streams[i].compress(x[i]) for i in (0, 1)]
        out, weights = self.attend(y, streams, many, ends, return_attention=return_attention)
        semantic, motion = (
            out[i] if i == many else x[i] + scaled(streams[i].expand(out[i]), kept[i])
            for i in (0, 1)
        )
        return (semantic, motion, weights) if return_attention else (semantic, motion)

    def streams(
        self,
        semantic: Tensor,
        motion: Tensor,
        semantic_positions: Tensor | None,
        motion_positions: Tensor | None,
        semantic_mask: Tensor | None,
        motion_mask: Tensor | None,
    ) -> tuple[Stream, Stream]:
        """The parts for each of two token sets, once positions and masks are known to fit."""
        check_tokens("semantic", semantic, semantic_positions, semantic_mask)
        check_tokens("motion", motion, motion_positions, motion_mask)
        sem, mot = (
            [getattr(self, f"{name}_{part}") for part in Stream._fields[:5]]
            for name in ("sem", "mot")
        )
        return (
            Stream(*sem, _existing_places(semantic_positions, semantic_mask), semantic_mask),
            Stream(*mot, _existing_places(motion_positions, motion_mask), motion_mask),
        )

    def keep(self, tokens: Tensor, mask: Tensor | None) -> Tensor | None:
        """What an update is multiplied with, [B, 1, 1] or [B, N, 1]; None: one.

        Zero for a clip that skips the layer and for a token that does not exist.
        """
        keep = None
        if self.training and self.drop_path.p > 0:
            keep = self.drop_path(tokens.new_ones(len(tokens), 1, 1))
        if mask is None:
            return keep
        mask = mask.unsqueeze(-1).to(tokens.dtype)
        return mask if keep is None else mask * keep

    def attend(
        self,
        y: Sequence[Tensor],
        streams: Sequence[Stream],
        many: int | None,
        ends: Ends | None = None,
        *,
        return_attention: bool = False,
    ) -> tuple[list[Tensor], CrossAttentionWeights | None]:
        """Attention in both directions within the bottleneck: the step between the linear maps.

        Args:
            y: Both streams compressed, [B, P, d] and [B, S, d].
            streams: Parts of both.
            many: What :meth:`absorbing` says of them.
            ends: Where one stream is absorbed: its compression and expansion, and then ``y`` of it
                is not compressed and the output is updated.
            return_attention: Whether the weights are wanted.

        Returns:
            Both streams after the GELU, [B, P, d] and [B, S, d], and the weights.
        """
        if many is not None:
            return self._attend_absorbed(y, streams, many, ends, return_attention)
        tokens = [stream.norm(y_i) for y_i, stream in zip(y, streams, strict=True)]
        updates, weights = [], []
        for here, there in ((0, 1), (1, 0)):
            update = self.cross_attention(
                streams[here].queries(tokens[here]),
                streams[there].keys(tokens[there]),
                streams[there].mask,
                return_attention=return_attention,
            )
            if return_attention:
                update, weight = update
                weights.append(weight)
            updates.append(F.gelu(update))
        return updates, CrossAttentionWeights(*weights) if return_attention else None

    def absorbing(self, tokens: Sequence[Tensor], streams: Sequence[Stream]) -> int | None:
        """Which stream has so many tokens and the other so few that projections are absorbed."""
        many = int(tokens[1].size(1) > tokens[0].size(1))
        stream, attention = streams[many], self.cross_attention
        with_bias = (stream.compress, attention.query, attention.output, stream.expand)
        without_bias = (attention.key, attention.value)
        x, weight = tokens[many], attention.query.weight
        dtypes, autocast = (x.dtype, weight.dtype), torch.is_autocast_enabled(x.device.type)
        absorbs = (
            absorbed_attention.is_worthwhile(
                x.size(1), tokens[1 - many].size(1), weight.size(1), attention.num_heads
            )
            and is_plain(attention, MultiHeadAttention)
            and is_plain(stream.norm, nn.LayerNorm)
            and all(is_plain_linear(linear, bias=True) for linear in with_bias)
            and all(is_plain_linear(linear, bias=False) for linear in without_bias)
            and (x.dtype == weight.dtype or (autocast and torch.float64 not in dtypes))
            and not torch.compiler.is_exporting()
            and not torch.jit.is_tracing()
            and not torch._C._are_functorch_transforms_active()
            and torch.autograd.forward_ad._current_level < 0
        )
        return many if absorbs else None

    def _attend_absorbed(
        self,
        y: Sequence[Tensor],
        streams: Sequence[Stream],
        many: int,
        ends: Ends | None,
        return_attention: bool,
    ) -> tuple[list[Tensor], CrossAttentionWeights | None]:
        attention, stream, few = self.cross_attention, streams[many], streams[1 - many]
        heads = (attention.num_heads, -1)
        tokens = few.norm(y[1 - many])
        offered = few.keys(tokens)
        # Both scores are scaled here, where the tokens are few.
        scale = (attention.query.out_features // attention.num_heads) ** -0.5
        few_tokens = FewTokens(
            (attention.query(few.queries(tokens)) * scale).unflatten(-1, heads),
            (attention.key(offered) * scale).unflatten(-1, heads),
            attention.value(offered).unflatten(-1, heads),
            few.mask,
        )
        positions = None
        if stream.positions is not None:
            positions = (
                stream.query_position(stream.positions),
                stream.key_position(stream.positions),
            )
        exchanged = absorbed_attention.exchange(
            y[many],
            stream.norm,
            few_tokens,
            HeadWeights.of(attention),
            positions,
            stream.mask,
            ends,
        )
        update = attention.output(exchanged.few_heads.flatten(-2))
        if stream.mask is not None:  # what hears of nothing gets nothing, not the bias
            update = update * stream.mask.any(dim=1)[:, None, None]
        out, weights = [exchanged.many, F.gelu(update)], None
        if return_attention:
            weights = [exchanged.many_to_few, exchanged.few_to_many]
            weights = CrossAttentionWeights(*(weights[:: 1 if many == 0 else -1]))
        return out if many == 0 else out[::-1], weights


class CrossAttention(nn.Module):
    r"""Two streams inform each other at their full widths: the simple baseline.

    What most people would write: a pre-norm residual layer of multi-head attention in each
    direction, without a bottleneck.

    .. math::
        \hat{s} &= \mathrm{LN}(s) + \pi_s, \qquad \hat{m} = \mathrm{LN}(m) + \pi_m \\
        s' &= s + \mathrm{Attn}_s(\hat{s}, \hat{m}), \qquad
        m' = m + \mathrm{Attn}_m(\hat{m}, \hat{s})

    :math:`\pi` encodes positions as in :class:`BottleneckCrossAttention`. Inputs, shapes and errors
    are the same too, so that one can take the place of the other.

    Args:
        sem_dim: Width of the semantic stream.
        mot_dim: Width of the motion stream.
        num_heads: Heads H of the attention in each direction.
        sem_position_dim: Coordinates of a semantic position.
        mot_position_dim: Coordinates of a motion position.
        drop_path: Probability of skipping the layer for a clip in training.

    Shapes:
        As for :class:`BottleneckCrossAttention`.

    Raises:
        ValueError: As for :class:`BottleneckCrossAttention`; ``num_heads`` must divide both widths.

    Source: Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_ (2017).
    """

    def __init__(
        self,
        sem_dim: int = 768,
        mot_dim: int = 512,
        num_heads: int = 8,
        *,
        sem_position_dim: int = 2,
        mot_position_dim: int = 1,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.sem_norm = nn.LayerNorm(sem_dim)
        self.mot_norm = nn.LayerNorm(mot_dim)
        self.sem_position = FourierPositionEncoding(sem_position_dim, sem_dim)
        self.mot_position = FourierPositionEncoding(mot_position_dim, mot_dim)
        self.sem_attention = MultiHeadAttention(sem_dim, num_heads, mot_dim)
        self.mot_attention = MultiHeadAttention(mot_dim, num_heads, sem_dim)
        self.drop_path = _stochastic_depth(drop_path)

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
        (sem_dim,), (mot_dim,) = self.sem_norm.normalized_shape, self.mot_norm.normalized_shape
        check_streams(semantic, motion, sem_dim, mot_dim)
        check_tokens("semantic", semantic, semantic_positions, semantic_mask)
        check_tokens("motion", motion, motion_positions, motion_mask)
        semantic, motion = existing(semantic, semantic_mask), existing(motion, motion_mask)
        semantic_positions = _existing_places(semantic_positions, semantic_mask)
        motion_positions = _existing_places(motion_positions, motion_mask)
        sem = self.sem_norm(semantic) + self.sem_position(semantic_positions)
        mot = self.mot_norm(motion) + self.mot_position(motion_positions)
        updates, weights = [], []
        for attention, query, keys, mask in (
            (self.sem_attention, sem, mot, motion_mask),
            (self.mot_attention, mot, sem, semantic_mask),
        ):
            update = attention(query, keys, mask, return_attention=return_attention)
            if return_attention:
                update, weight = update
                weights.append(weight)
            updates.append(self.drop_path(update))
        semantic = semantic + existing(updates[0], semantic_mask)
        motion = motion + existing(updates[1], motion_mask)
        if return_attention:
            return semantic, motion, CrossAttentionWeights(*weights)
        return semantic, motion


def existing(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens with zeros where none exists; a weight of zero would not keep a NaN out."""
    return tokens if mask is None else tokens.masked_fill(~mask.unsqueeze(-1), 0.0)


def _existing_places(positions: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Positions of each clip with zeros for tokens that do not exist; shared ones as they are."""
    return positions if positions is None or positions.dim() == 2 else existing(positions, mask)


def _stochastic_depth(probability: float) -> StochasticDepth:
    if not 0 <= probability <= 1:
        raise ValueError(f"drop_path must be between 0 and 1, got {probability}")
    return StochasticDepth(probability, mode="row")


def scaled(update: Tensor, keep: Tensor | None) -> Tensor:
    """An update times what :meth:`BottleneckCrossAttention.keep` gives."""
    return update if keep is None else update * keep


def check_streams(semantic: Tensor, motion: Tensor, sem_dim: int, mot_dim: int) -> None:
    """Raise what :class:`BottleneckCrossAttention` documents for streams that do not fit."""
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


def check_tokens(name: str, tokens: Tensor, positions: Tensor | None, mask: Tensor | None) -> None:
    """Raise what :class:`BottleneckCrossAttention` documents for masks and positions."""
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
