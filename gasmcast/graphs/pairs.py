"""All pairs of nodes of some clips, block by block: what the edge rules decide over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gasmcast.graphs.magnitude import safe_rows, safe_scale
from gasmcast.graphs.nodes import Nodes

if TYPE_CHECKING:
    from gasmcast.graphs.rules import Rule

# Measured: 8 for the named builders, 35 for a rule with everything in it, 47 in float64.
BYTES_PER_PAIR = 64
FEWEST_ROWS = 64  # of a block; with fewer the matrix products would take forever
P_NORMS = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": torch.inf}


def clips_within(nodes: Nodes, max_bytes: int) -> Iterator[Clips]:
    """Runs of clips whose pairs fit ``max_bytes``, at least one clip each.

    Raises:
        ValueError: Before any work, where ``max_bytes`` is too little for the largest clip.
    """
    largest = max(nodes.sizes, default=0)
    least = largest * min(largest, FEWEST_ROWS) * BYTES_PER_PAIR
    if max_bytes < least:
        raise ValueError(
            f"max_bytes must be at least {least} for a clip of {largest} nodes, got {max_bytes}"
        )
    first, largest = 0, 0
    for clip, size in enumerate(nodes.sizes):
        largest = max(largest, size)
        if clip > first and (clip + 1 - first) * largest**2 * BYTES_PER_PAIR > max_bytes:
            yield Clips(nodes, range(first, clip), max_bytes)
            first, largest = clip, size
    if nodes.sizes:
        yield Clips(nodes, range(first, len(nodes.sizes)), max_bytes)


class Clips:
    """Some clips of equal or padded size n: their nodes as dense tensors.

    Attributes:
        sizes: Nodes of each clip, b numbers.
        nodes: Which of the nodes of all clips these are.
        first_nodes: The first node of each clip among those of all clips, [b].
        positions: [b, n, d], or [1, n, d] where all clips share them; None.
        features: [b, n, D], float32 or float64, without gradient; None.
        present: True where a node exists, [b, n]; None: everywhere.
    """

    def __init__(self, nodes: Nodes, clips: range, max_bytes: int):
        self.max_bytes = max_bytes
        self.sizes = nodes.sizes[clips.start : clips.stop]
        self.num_nodes = max(self.sizes)
        self.device = nodes.device
        starts = nodes.starts
        first, last = starts[clips.start], starts[clips.stop]
        self.nodes = slice(first, last)
        self.first_nodes = torch.tensor(starts[clips.start : clips.stop], device=self.device)
        padded = any(size != self.num_nodes for size in self.sizes)
        self.present = None
        if padded:
            sizes = torch.tensor(self.sizes, device=self.device)
            self.present = torch.arange(self.num_nodes, device=self.device) < sizes.unsqueeze(1)
        self.positions = None
        if nodes.positions is not None:
            positions = nodes.positions.detach()
            if positions.dtype != torch.float64:
                positions = positions.float()
            self.positions = (
                positions.unsqueeze(0) if nodes.shared else self.dense(positions[first:last])
            )
        self.features = self.norms = None
        if nodes.features is not None:
            features = nodes.features[first:last].detach()
            norms = nodes.norms[first:last]
            self.features = self.dense(features.to(norms.dtype))
            self.norms = self.dense(norms)
        self.thresholds: dict[int, tuple[Rule, Tensor]] = {}

    def dense(self, flat: Tensor) -> Tensor:
        """What is known of each node, [nodes, ...], as [b, n, ...], 0 where no node is."""
        if self.present is None:
            return flat.view(len(self.sizes), self.num_nodes, *flat.shape[1:])
        dense = flat.new_zeros(*self.present.shape, *flat.shape[1:])
        dense[self.present] = flat
        return dense

    @cached_property
    def directions(self) -> tuple[Tensor, Tensor | None]:
        """Features [b, n, D] and factors [b, n] whose product has length 1, or 0.

        Factors are None where the features have length 1 themselves.
        """
        norms = self.norms
        if self.present is not None:
            norms = norms.masked_fill(~self.present, 1.0)  # padding is no short vector
        features, norms = safe_rows(self.features, norms)
        factors = norms.reciprocal().masked_fill_(norms == 0, 0.0)
        if features.size(-1) > self.num_nodes:
            return features, factors  # fewer products than numbers: scale those
        return features * factors.unsqueeze(-1), None

    def blocks(self) -> Iterator[Pairs]:
        """All targets at once where they fit ``max_bytes``, else runs of target rows."""
        num_nodes = self.num_nodes
        if num_nodes == 0:
            return
        # Few large matrix products keep all cores busy; several save the half that is mirrored.
        side = 2048 if self.device.type != "cpu" else 512 if num_nodes <= 1024 else 1024
        tile = _even(num_nodes, side)
        rows = num_nodes
        row_bytes = num_nodes * BYTES_PER_PAIR
        if len(self.sizes) * num_nodes * row_bytes > self.max_bytes:
            while tile * row_bytes > self.max_bytes and side > FEWEST_ROWS:
                side //= 2
                tile = _even(num_nodes, side)
            rows = max(self.max_bytes // row_bytes // tile, 1) * tile
        for start in range(0, num_nodes, rows):
            yield Pairs(self, range(start, min(start + rows, num_nodes)), tile)


def _even(length: int, most: int) -> int:
    """Length of parts of the same length, up to rounding.

    A rest of a few columns would be multiplied by another algorithm, whose last bits differ.
    """
    return -(-length // -(-length // most))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of the targets in ``rows`` with all sources of the same clip.

    What an own :class:`~gasmcast.graphs.Rule` decides over. Matrices are [b, m, n] for b clips,
    m targets and n sources; b is 1 where all clips agree.

    Attributes:
        clips: The clips.
        rows: The targets.
        tile: Side of the blocks of one matrix product.
    """

    clips: Clips
    rows: range
    tile: int
    _bits: dict[int, tuple[Rule, Tensor]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all targets of the clips are here."""
        return len(self.rows) == self.clips.num_nodes

    @cached_property
    def others(self) -> Tensor:
        """True where source and target are two nodes that exist."""
        sources = torch.arange(self.clips.num_nodes, device=self.clips.device)
        targets = sources[self.rows.start : self.rows.stop]
        others = (targets.unsqueeze(1) != sources).unsqueeze(0)
        present = self.clips.present
        if present is not None:
            others = others & present.unsqueeze(1)
            others &= present[:, self.rows.start : self.rows.stop].unsqueeze(2)
        return others

    def displacement(self, axis: int) -> Tensor:
        """Coordinate ``axis`` of the source minus that of the target."""
        positions = self._points("positions")
        self._check_axes((axis,))
        along = positions[..., axis]
        return along.unsqueeze(1) - along[:, self.rows.start : self.rows.stop].unsqueeze(2)

    def of_nodes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """What else is known of the nodes, at the targets [b, m, 1] and at the sources [b, 1, n].

        Args:
            values: One value for each node of all clips, in the order of the graph, [sum N].
        """
        values = self.clips.dense(values[self.clips.nodes])
        return values[:, self.rows.start : self.rows.stop].unsqueeze(2), values.unsqueeze(1)

    def distance(
        self,
        space: str = "positions",
        metric: str = "euclidean",
        axes: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Distances in positions or features, each pair by itself: equal pairs come out equal."""
        points = self._points(space)
        if metric not in P_NORMS:
            raise ValueError(f"metric must be one of {', '.join(P_NORMS)}, got {metric!r}")
        if axes is not None:
            self._check_axes(axes)
            points = points[..., list(axes)]
        distance, scale = self._scaled_distance(points, metric)
        return distance if scale == 1 else distance / scale

    def _scaled_distance(self, points: Tensor, metric: str) -> tuple[Tensor, float]:
        """Distances times a factor that keeps them finite, and the factor."""
        scale = safe_scale(points)
        if scale != 1:
            points = points * scale
        distance = torch.cdist(
            points[:, self.rows.start : self.rows.stop],
            points,
            p=P_NORMS[metric],
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        return distance, scale

    @cached_property
    def cosine(self) -> Tensor:
        r"""Cosine similarity of the features, :math:`s_{ij} = x_i \cdot x_j / (|x_i| |x_j|)`.

        Symmetric to the last bit: tiles on one side of the diagonal are computed, and mirrored, so
        a threshold never makes an edge in one direction only. In float32, or in float64 for float64
        features. A zero vector has similarity 0 to every other node; every node has 1 to itself.
        Rounding can leave other pairs a millionth above 1.
        """
        self._points("features")
        features, factors = self.clips.directions
        count, tile = self.clips.num_nodes, self.tile
        rows = self.rows
        if self.whole and count <= tile:
            cosine = self._cosine_tile(features, factors, range(count), range(count))
        else:
            cosine = features.new_empty(len(features), len(rows), count)
            for i in _runs(rows, tile):
                here = slice(i.start - rows.start, i.stop - rows.start)
                for j in _runs(range(count), tile):
                    if j.start >= i.start:
                        part = self._cosine_tile(features, factors, i, j)
                        cosine[:, here, j.start : j.stop] = part
                        if j.start > i.start and j.stop <= rows.stop:
                            there = slice(j.start - rows.start, j.stop - rows.start)
                            cosine[:, there, i.start : i.stop] = part.transpose(1, 2)
                    elif j.start < rows.start:
                        part = self._cosine_tile(features, factors, j, i)
                        cosine[:, here, j.start : j.stop] = part.transpose(1, 2)
        cosine.diagonal(rows.start, dim1=1, dim2=2).fill_(1.0)
        return cosine

    @staticmethod
    def _cosine_tile(features: Tensor, factors: Tensor | None, i: range, j: range) -> Tensor:
        tile = torch.bmm(
            features[:, i.start : i.stop], features[:, j.start : j.stop].transpose(1, 2)
        )
        if factors is not None:
            # One factor a pair, so that equal vectors are equally similar wherever they stand.
            tile *= factors[:, i.start : i.stop, None] * factors[:, None, j.start : j.stop]
        # A product need not be symmetric to the last bit; its entries and their mirror images are
        # both right, so the larger will do.
        return torch.maximum(tile, tile.transpose(1, 2)) if i == j else tile

    def closeness(self, space: str | None = None, metric: str | None = None) -> Tensor:
        """What neighbours are ranked by, larger is closer.

        By default the cosine similarity where there are features, else minus the Euclidean
        distance of the positions.
        """
        if metric is None:
            has_features = self.clips.features is not None
            space, metric = ("features", "cosine") if has_features else ("positions", "euclidean")
        if metric == "cosine":
            if self.cosine.dtype == torch.float64:
                # Equal vectors can differ in the last bits by where they stand: no ties.
                return (self.cosine * 2**38).round_().div_(2**38)
            return self.cosine
        distance, _ = self._scaled_distance(self._points(space), metric)
        return -distance

    def _points(self, space: str) -> Tensor:
        if space not in ("positions", "features"):
            raise ValueError(f"space must be positions or features, got {space!r}")
        points = self.clips.positions if space == "positions" else self.clips.features
        if points is None:
            raise ValueError(f"a rule asks for {space}, got none")
        return points

    def _check_axes(self, axes: tuple[int, ...]) -> None:
        count = self.clips.positions.size(-1)
        if not all(-count <= axis < count for axis in axes):
            raise ValueError(f"positions have {count} coordinates, got axes {axes}")

    def bits(self, rule: Rule) -> Tensor:
        """The edges that a rule makes, as bits of :class:`EdgeRule`; decided once a rule."""
        return once_a_rule(self._bits, rule, lambda: rule.bits(self))


def once_a_rule(
    decided: dict[int, tuple[Rule, Tensor]], rule: Rule, decide: Callable[[], Tensor]
) -> Tensor:
    """What was decided for a rule before, or is decided now."""
    # By identity, for a rule of one's own need not be hashable. The rule is kept: another one that
    # is made later could get its identity.
    if id(rule) not in decided:
        decided[id(rule)] = rule, decide()
    return decided[id(rule)][1]


def _runs(whole: range, length: int) -> Iterator[range]:
    for start in range(whole.start, whole.stop, length):
        yield range(start, min(start + length, whole.stop))
