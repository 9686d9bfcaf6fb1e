r"""Fusion whose result is averaged over the tokens, with tokens that never leave the bottleneck.

Each layer of a stack reads a stream :math:`x` through a compression, and adds to it what it heard
through an expansion: :math:`y_l = x_l W_l + b_l`, :math:`x_{l+1} = x_l + g_l U_l + c_l`. Both are
linear, so

.. math::
    y_l &= x_0 W_l + b_l + \sum_{k<l} \left(g_k\, (U_k W_l) + c_k W_l\right), \\
    \overline{x_L} &= \overline{x_0} + \sum_k \left(\overline{g_k}\, U_k + c_k\right)

with the bar for the mean over tokens. Once the weights are multiplied, :math:`U_k W_l`, [d, d], one
product with :math:`x_0` compresses for all layers, and only means are expanded. Parameters and, up
to rounding, results are those of the layers one after the other.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gasmcast.nn.cross_attention import (
    BottleneckCrossAttention,
    CrossAttentionWeights,
    Stream,
    check_streams,
    existing,
    scaled,
)
from gasmcast.nn.plain_modules import is_plain, is_plain_linear


class MergedMaps(NamedTuple):
    """Maps of one stream that follow each other, multiplied.

    Attributes:
        compress: Compressions of all L layers, [L * d, D].
        compress_bias: Their biases, [L * d].
        through: ``through[i][k]``, [d, d], from what layer k < i heard to what layer i reads.
        through_bias: ``through_bias[i][k]``, [d], the same for the bias of layer k's expansion.
    """

    compress: Tensor
    compress_bias: Tensor
    through: list[list[Tensor]]
    through_bias: list[list[Tensor]]

    @classmethod
    def of(cls, compress: Sequence[nn.Linear], expand: Sequence[nn.Linear]) -> Self:
        """Of the compressions and expansions of the layers, in their order."""
        return cls(
            torch.cat([into.weight for into in compress]),
            torch.cat([into.bias for into in compress]),
            [[into.weight @ out.weight for out in expand[:i]] for i, into in enumerate(compress)],
            [[into.weight @ out.bias for out in expand[:i]] for i, into in enumerate(compress)],
        )


class FrozenMaps(nn.Module):
    """Merged maps that move with a module, as its buffers, and are not saved with it."""

    def __init__(self, maps: MergedMaps):
        super().__init__()
        self.layers = len(maps.through)
        self.register_buffer("compress", maps.compress, persistent=False)
        self.register_buffer("compress_bias", maps.compress_bias, persistent=False)
        for i in range(self.layers):
            for k in range(i):
                self.register_buffer(f"through_{i}_{k}", maps.through[i][k], persistent=False)
                self.register_buffer(f"bias_{i}_{k}", maps.through_bias[i][k], persistent=False)

    def forward(self) -> MergedMaps:
        """The maps."""
        through, through_bias = (
            [[getattr(self, f"{name}_{i}_{k}") for k in range(i)] for i in range(self.layers)]
            for name in ("through", "bias")
        )
        return MergedMaps(self.compress, self.compress_bias, through, through_bias)


def merge_maps(layers: Sequence[nn.Module]) -> tuple[MergedMaps | None, MergedMaps | None]:
    """The merged maps of the semantic and the motion stream of a stack.

    None for a stream whose maps cannot be merged: of other layers than
    :class:`BottleneckCrossAttention`, and where a map has a hook or was replaced by something that
    does more than multiply.
    """
    streams = (_ends(layers, stream) for stream in ("sem", "mot"))
    return tuple(None if ends is None else MergedMaps.of(*ends) for ends in streams)


def fuse_and_pool(
    layers: Sequence[nn.Module],
    semantic: Tensor,
    motion: Tensor,
    semantic_positions: Tensor | None = None,
    motion_positions: Tensor | None = None,
    *,
    semantic_mask: Tensor | None = None,
    motion_mask: Tensor | None = None,
    return_attention: bool = False,
    merged: Sequence[MergedMaps | None] | None = None,
) -> tuple[Tensor, Tensor, list[CrossAttentionWeights]]:
    """Means over the tokens of both streams after all layers, and the attention of each layer.

    Args:
        layers: Bottleneck layers, or others that are called like them, or none.
        semantic: [B, P, D].
        motion: [B, S, D'].
        semantic_positions: As for the layers.
        motion_positions: As for the layers.
        semantic_mask: [B, P], True where a token exists. A clip without any has the mean zero.
        motion_mask: [B, S], likewise.
        return_attention: Whether the attention is wanted; without, the list is empty.
        merged: Of both streams, made beforehand of these layers with the weights that they have,
            and passed over where a map has to be called; None: made here where that pays.

    Returns:
        The means [B, D] and [B, D'], and the attention.

    Raises:
        ValueError: As the layers; ``merged`` is of other layers.
    """
    x, masks = [semantic, motion], (semantic_mask, motion_mask)
    merged = _where_it_pays(layers, x) if merged is None else _usable(merged, layers)
    weights = []
    if all(maps is None for maps in merged):
        for layer in layers:
            semantic, motion, *layer_weights = layer(
                semantic,
                motion,
                semantic_positions,
                motion_positions,
                semantic_mask=semantic_mask,
                motion_mask=motion_mask,
                return_attention=return_attention,
            )
            weights += layer_weights
        return masked_mean(semantic, semantic_mask), masked_mean(motion, motion_mask), weights

    check_streams(*x, layers[0].sem_compress.in_features, layers[0].mot_compress.in_features)
    places = semantic_positions, motion_positions, *masks
    streams_of_layers = [layer.streams(*x, *places) for layer in layers]  # checks what came
    sides = [
        _Expanding(existing(tokens, mask), mask)
        if maps is None
        else _Merged(existing(tokens, mask), mask, maps)
        for tokens, mask, maps in zip(x, masks, merged, strict=True)
    ]
    for layer, streams in zip(layers, streams_of_layers, strict=True):
        y = [side.read(stream) for side, stream in zip(sides, streams, strict=True)]
        many = layer.absorbing(y, streams)
        updates, layer_weights = layer.attend(y, streams, many, return_attention=return_attention)
        for side, stream, update in zip(sides, streams, updates, strict=True):
            side.hear(update, stream, layer.keep(update, stream.mask))
        weights.append(layer_weights)
    return sides[0].mean(), sides[1].mean(), weights if return_attention else []


def masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens that exist: [B, N, D] and [B, N] to [B, D]; zero where none does."""
    # As a product: the gradient of mean() would have a layout that slows all that it comes to.
    with torch.autocast(tokens.device.type, enabled=False):
        if mask is None:
            ones, count = tokens.new_ones(1, 1, tokens.size(1)), max(tokens.size(1), 1)
            ones = ones.expand(len(tokens), 1, -1)
        else:
            tokens, ones = existing(tokens, mask), mask.unsqueeze(1).to(tokens.dtype)
            count = mask.sum(dim=1, keepdim=True).clamp(min=1)
        total = torch.bmm(ones, tokens).squeeze(1)
        # A count may not be a number of half precision.
        wide = torch.promote_types(tokens.dtype, torch.float32)
        return (total.to(wide) / count).to(tokens.dtype)


def _usable(
    merged: Sequence[MergedMaps | None], layers: Sequence[nn.Module]
) -> tuple[MergedMaps | None, MergedMaps | None]:
    """Maps made beforehand, but for a stream whose own maps have to be called by now."""
    usable = []
    for maps, stream in zip(merged, ("sem", "mot"), strict=True):
        ends = _ends(layers, stream)
        if maps is not None and ends is not None:
            into = ends[0]
            expected = [sum(linear.out_features for linear in into), into[0].in_features]
            if len(maps.through) != len(into) or list(maps.compress.shape) != expected:
                raise ValueError(
                    f"merged must be of these {len(into)} layers, with a compression {expected}, "
                    f"got maps of {len(maps.through)} layers, {list(maps.compress.shape)}"
                )
        usable.append(None if ends is None else maps)
    return tuple(usable)


class _Expanding:
    """A stream that is expanded after each layer."""

    def __init__(self, x: Tensor, mask: Tensor | None):
        self.x, self.mask = x, mask

    def read(self, stream: Stream) -> Tensor:
        return stream.compress(self.x)

    def hear(self, update: Tensor, stream: Stream, keep: Tensor | None) -> None:
        self.x = self.x + scaled(stream.expand(update), keep)

    def mean(self) -> Tensor:
        return masked_mean(self.x, self.mask)


class _Merged:
    """A stream that stays in the bottleneck: what was heard goes from layer to layer."""

    def __init__(self, x: Tensor, mask: Tensor | None, maps: MergedMaps):
        self.mask, self.maps = mask, maps
        y = F.linear(x, maps.compress, maps.compress_bias)
        self.y = y.chunk(len(maps.through), dim=-1)
        self.sum = masked_mean(x, mask)
        self.heard: list[tuple[Tensor, Tensor | None]] = []

    def read(self, stream: Stream) -> Tensor:
        layer = len(self.heard)
        y = self.y[layer]
        for (g, keep), through, bias in zip(
            self.heard, self.maps.through[layer], self.maps.through_bias[layer], strict=True
        ):
            y = torch.addmm(y.flatten(0, 1), g.flatten(0, 1), through.mT).view_as(g)
            y = y + scaled(bias, keep).to(y.dtype)  # autocast rounds products alone
        return y

    def hear(self, update: Tensor, stream: Stream, keep: Tensor | None) -> None:
        update = scaled(update, keep)
        self.heard.append((update, keep))
        bias = stream.expand.bias
        if keep is not None:
            bias = bias * masked_mean(keep.expand(*update.shape[:2], 1), self.mask)
        mean = masked_mean(update, self.mask)
        self.sum = self.sum + F.linear(mean, stream.expand.weight) + bias

    def mean(self) -> Tensor:
        return self.sum


def _ends(
    layers: Sequence[nn.Module], stream: str
) -> tuple[list[nn.Linear], list[nn.Linear]] | None:
    """Compressions and expansions of a stream; None if there is more to them than their weights."""
    if not layers or not all(is_plain(layer, BottleneckCrossAttention) for layer in layers):
        return None
    compress, expand = (
        [getattr(layer, f"{stream}_{end}") for layer in layers] for end in ("compress", "expand")
    )
    plain = all(is_plain_linear(linear, bias=True) for linear in (*compress, *expand))
    return (compress, expand) if plain else None


def _where_it_pays(
    layers: Sequence[nn.Module], x: Sequence[Tensor]
) -> tuple[MergedMaps | None, MergedMaps | None]:
    """Merged maps of each stream whose tokens cost more to expand than the maps to multiply."""
    merged = []
    for stream, tokens in zip(("sem", "mot"), x, strict=True):
        ends, pays = _ends(layers, stream), False
        if ends is not None and not torch.compiler.is_exporting():
            dim, width = ends[0][0].weight.shape
            # A token saves D d for each layer and pays d d for each pair of layers; a pair of
            # layers costs D d d.
            pairs = (len(layers) - 1) / 2
            pays = tokens.shape[:-1].numel() * (width - pairs * dim) > pairs * dim * width
        merged.append(MergedMaps.of(*ends) if pays else None)
    return tuple(merged)
