"""Similarity thresholds that each clip chooses for itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gasmcast.graphs.pairs import Pairs


@dataclass(frozen=True)
class Quantile:
    """The threshold above which the share 1 - ``q`` of a clip's pairs lies, that pair included.

    It is the ``q``-quantile of the similarities of all pairs of different nodes, as
    ``numpy.quantile(..., method="higher")`` gives it.

    Args:
        q: From 0 (all pairs are similar) to 1 (only the most similar).

    Raises:
        ValueError: ``q`` is not between 0 and 1.
    """

    q: float

    def __post_init__(self) -> None:
        if not isinstance(self.q, Real) or not 0 <= self.q <= 1:
            raise ValueError(f"a quantile must be a number between 0 and 1, got {self.q!r}")

    def num_pairs(self, num_nodes: int) -> int:
        """How many of a clip's pairs are similar, ties at the threshold left out."""
        pairs = num_nodes * (num_nodes - 1) // 2
        return pairs - math.ceil(self.q * (pairs - 1)) if pairs else 0


@dataclass(frozen=True)
class TargetDegree:
    """The threshold with which a clip's nodes have ``k`` similar neighbours on average.

    Ties at the threshold can make it more, rounding half an edge more or less.

    Args:
        k: Neighbours of a node on average; all others where a clip has fewer.

    Raises:
        ValueError: ``k`` is negative.
    """

    k: float

    def __post_init__(self) -> None:
        if not isinstance(self.k, Real) or not 0 <= self.k < math.inf:
            raise ValueError(f"a target degree must be finite and at least 0, got {self.k!r}")

    def num_pairs(self, num_nodes: int) -> int:
        """How many of a clip's pairs are similar, ties at the threshold left out."""
        return min(round(self.k * num_nodes / 2), num_nodes * (num_nodes - 1) // 2)


def find_threshold(
    adaptive: Quantile | TargetDegree, pairs: Pairs, similarity: Callable[[Pairs], Tensor]
) -> Tensor:
    """The threshold of each clip, [b, 1, 1]; infinite where no pair is to be similar.

    Args:
        adaptive: How many pairs are to be similar.
        pairs: Any pairs of the clips; the threshold is that of the whole clips.
        similarity: The similarity of pairs, [b, m, n], symmetric.
    """
    counts = [adaptive.num_pairs(size) for size in pairs.clips.sizes]
    if pairs.whole:
        values = similarity(pairs)
        threshold = _largest(values, pairs, counts[: len(values)])  # one for all where all agree
    elif counts[0]:
        threshold = _largest_by_counting(
            lambda: (similarity(block)[_upper(block)] for block in pairs.clips.blocks()),
            counts[0],
            similarity(pairs).dtype,
        )
    else:
        threshold = torch.tensor(torch.inf, device=pairs.clips.device)
    return threshold.view(-1, 1, 1)


def _upper(pairs: Pairs) -> Tensor:
    """True for one of the two directions of each pair of nodes that exist."""
    return pairs.others.triu(pairs.rows.start + 1)


def _largest(similarity: Tensor, pairs: Pairs, counts: list[int]) -> Tensor:
    """The ``counts[b]``-th largest similarity of clip b."""
    count = torch.tensor(counts, device=similarity.device).unsqueeze(1)
    if not max(counts):
        return similarity.new_full((len(counts),), torch.inf)
    ranked = similarity.masked_fill(~_upper(pairs), -torch.inf).flatten(1)
    top = ranked.topk(max(counts), dim=1).values
    return top.gather(1, (count - 1).clamp_(min=0)).masked_fill_(count == 0, torch.inf)


def _largest_by_counting(
    blocks: Callable[[], Iterator[Tensor]], count: int, dtype: torch.dtype
) -> Tensor:
    """The ``count``-th largest of values that do not fit into memory at once.

    Sixteen bits of it a pass over the values: how many begin with which bits is counted, so the
    result is exact.
    """
    integer = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    bits = torch.iinfo(integer).bits
    found = 0  # the leading bits, as a signed number
    for shift in range(bits - 16, -1, -16):
        histogram: Tensor | int = 0
        for values in blocks():
            keys = _in_order(values.view(integer), bits)
            digits = keys >> shift
            if shift < bits - 16:
                digits = digits[digits >> 16 == found] & 0xFFFF
            else:
                digits = digits + (1 << 15)  # the first bit is the sign
            histogram = histogram + digits.bincount(minlength=1 << 16)
        from_above = histogram.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_above, count))
        if place:
            count -= int(from_above[place - 1])
        digit = (1 << 16) - 1 - place
        found = digit - (1 << 15) if shift == bits - 16 else found << 16 | digit
    key = torch.tensor([found], dtype=integer, device=values.device)
    return _in_order(key, bits).view(dtype)


def _in_order(raw: Tensor, bits: int) -> Tensor:
    """Bits of floats to integers of the same order, and back."""
    return raw ^ ((raw >> (bits - 1)) & torch.iinfo(raw.dtype).max)
