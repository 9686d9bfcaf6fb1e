"""Rules that make edges, and how they compose.

A rule decides over pairs of nodes of a clip: an edge from source to target, or none. Rules combine
with ``|`` (either), ``&`` (both), ``-`` (the first without the second) and ``~`` (not).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import IntFlag
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from gasmcast.graphs.closest import closest
from gasmcast.graphs.nodes import shape_of
from gasmcast.graphs.pairs import once_a_rule
from gasmcast.graphs.thresholds import Quantile, TargetDegree, find_threshold

if TYPE_CHECKING:
    from gasmcast.graphs.pairs import Pairs


class EdgeRule(IntFlag):
    """Bits of ``edge_rule``: which rules made an edge. Several bits can be set at once."""

    SELF_LOOP = 1
    ADJACENT = 2
    SIMILAR = 4
    WINDOW = 8
    NEAREST = 16
    FILLED = 32
    """Added so that each node has ``min_neighbors``."""
    TREE = 64
    """Added by ``connected=True``: an edge of the maximum spanning tree."""
    OTHER = 128
    """A negation, or a rule of one's own."""

    @property
    def label(self) -> str:
        """Name for tables and legends, such as ``"adjacent + similar"``."""
        return " + ".join(rule.name.lower().replace("_", "-") for rule in self)


class Rule(ABC):
    """Decides which pairs of nodes become edges.

    Compose rules with ``|``, ``&``, ``-`` and ``~``. ``edge_rule`` of the graph says which rules
    made an edge: of ``a | b`` those that hold, of ``a & b`` both, of ``a - b`` those of ``a``.

    For a rule of one's own, derive from this class and write :meth:`holds`. If it has parameters,
    make it a dataclass, so that it shows them.

    Example:
        >>> import torch
        >>> from gasmcast.graphs import Adjacent, Rule, Similar, build_graph
        >>> rule = Adjacent(1) | Similar(0.8) - Adjacent(3)  # close by, or alike and far away
        >>> class ToTheRight(Rule):
        ...     def holds(self, pairs):
        ...         return pairs.displacement(axis=0) < 0  # the source is left of its target
        >>> row = torch.tensor([[0.0], [1.0], [2.0]])
        >>> build_graph(Adjacent(1) & ToTheRight(), row, self_loops=False).edge_index
        tensor([[0, 1],
                [1, 2]])
    """

    bit: ClassVar[EdgeRule] = EdgeRule.OTHER
    needs: ClassVar[str | None] = None
    """What the rule cannot do without: ``"positions"``, ``"features"`` or nothing."""

    @abstractmethod
    def holds(self, pairs: Pairs) -> Tensor:
        """Whether the rule holds, for all ``pairs``: bool [b, m, n], target before source."""

    def bits(self, pairs: Pairs) -> Tensor:
        """The same as bits of :class:`EdgeRule`, uint8 [b, m, n]; 0 is no edge."""
        holds = self.holds(pairs)
        clips = len(pairs.clips.sizes)
        shapes = [(b, len(pairs.rows), pairs.clips.num_nodes) for b in (1, clips)]
        is_tensor = isinstance(holds, Tensor)
        if not is_tensor or holds.dtype != torch.bool or holds.shape not in shapes:
            raise ValueError(
                f"{type(self).__name__}.holds must return bool {list(shapes[1])}, got "
                f"{shape_of(holds)}"
            )
        return holds.view(torch.uint8) * int(self.bit)

    def check(self, given: set[str]) -> None:
        """Raise ValueError where the rule needs what is not ``given``."""
        if self.needs not in given | {None}:
            raise ValueError(f"{type(self).__name__} needs {self.needs}, got none")

    def at_most(self, k: int) -> Rule:
        """Of each target's sources, keep the ``k`` most similar.

        The nearest where there are no features. Ties go to the smaller source index.
        """
        return _AtMost(self, k)

    def at_least(self, k: int) -> Rule:
        """Fill up to ``k`` sources for each target with the most similar other nodes.

        The nearest where there are no features. Ties go to the smaller source index. The bit of
        these edges is ``EdgeRule.FILLED``.
        """
        return _AtLeast(self, k)

    def __repr__(self) -> str:
        # Only what differs from the defaults, as one would write it.
        shown = []
        for item in fields(self) if is_dataclass(self) else ():
            value = getattr(self, item.name)
            if item.default is MISSING:
                shown.append(repr(value))
            elif value != item.default:
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __or__(self, other: Rule) -> Rule:
        return _Either(self, other) if isinstance(other, Rule) else NotImplemented

    def __and__(self, other: Rule) -> Rule:
        return _Both(self, other) if isinstance(other, Rule) else NotImplemented

    def __sub__(self, other: Rule) -> Rule:
        return _Without(self, other) if isinstance(other, Rule) else NotImplemented

    def __invert__(self) -> Rule:
        return _Not(self)

    def __bool__(self) -> bool:
        raise TypeError("rules combine with |, &, - and ~, not with or, and, not")


@dataclass(frozen=True, repr=False)
class Adjacent(Rule):
    r"""Nodes that lie close together: :math:`\lVert p_i - p_j \rVert \le r`, bound inclusive.

    With the defaults and patches in patch units, the 8 neighbours of a patch.

    Args:
        radius: :math:`r`, in the unit of the positions.
        metric: ``"chebyshev"`` (largest difference of a coordinate), ``"euclidean"`` or
            ``"manhattan"`` (sum of the differences).
        axes: The coordinates that count, such as ``(0, 1)``; None: all.

    Raises:
        ValueError: A negative radius, an unknown metric.
    """

    radius: float = 1.0
    metric: str = "chebyshev"
    axes: tuple[int, ...] | None = None
    bit: ClassVar[EdgeRule] = EdgeRule.ADJACENT
    needs: ClassVar[str] = "positions"

    def __post_init__(self) -> None:
        _check_size("radius", self.radius)
        if isinstance(self.axes, int):
            raise ValueError(f"axes must be a tuple of coordinates or None, got {self.axes}")
        _check_choice("metric", self.metric, ("chebyshev", "euclidean", "manhattan"))

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        return pairs.distance("positions", self.metric, self.axes) <= self.radius


@dataclass(frozen=True, repr=False)
class Window(Rule):
    r"""Nodes that are near in time: :math:`|t_i - t_j| \le w`, bound inclusive.

    Args:
        size: :math:`w`, in the unit of the positions.
        causal: Only from the past to the present, :math:`0 \le t_i - t_j \le w` for target i.
        axis: The coordinate that is time; the last by default.

    Raises:
        ValueError: A negative size.
    """

    size: float = 2.0
    causal: bool = False
    axis: int = -1
    bit: ClassVar[EdgeRule] = EdgeRule.WINDOW
    needs: ClassVar[str] = "positions"

    def __post_init__(self) -> None:
        _check_size("the size of a window", self.size)

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        step = pairs.displacement(self.axis)  # of the source from the target: past is negative
        if self.causal:
            return (step <= 0) & (step >= -self.size)
        return step.abs() <= self.size


@dataclass(frozen=True, repr=False)
class Similar(Rule):
    r"""Nodes that look alike: :math:`s_{ij} \ge \tau`, bound inclusive up to rounding.

    .. math::
        s_{ij} = \frac{x_i \cdot x_j}{\lVert x_i \rVert \lVert x_j \rVert}
        \quad\text{or, with } \sigma, \quad
        s_{ij} = \exp\left(-\frac{\lVert x_i - x_j \rVert^2}{2 \sigma^2}\right)

    Args:
        threshold: :math:`\tau`: a number, :class:`Quantile` or :class:`TargetDegree`.
        sigma: Width :math:`\sigma` of the Gaussian; None: the cosine.
        space: ``"features"``; or ``"positions"``, with a Gaussian.

    Raises:
        ValueError: A threshold that is no number, ``sigma`` that is not positive, the cosine of
            positions.
    """

    threshold: float | Quantile | TargetDegree = 0.8
    sigma: float | None = None
    space: str = "features"
    bit: ClassVar[EdgeRule] = EdgeRule.SIMILAR

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, Quantile | TargetDegree):
            _check_threshold(self.threshold)
        _check_choice("space", self.space, ("features", "positions"))
        if self.sigma is not None and not (isinstance(self.sigma, Real) and self.sigma > 0):
            raise ValueError(f"sigma must be a positive number, got {self.sigma!r}")
        if self.sigma is None and self.space == "positions":
            raise ValueError("similar positions need sigma: the cosine is for features")

    @property
    def needs(self) -> str:
        """Where it looks for neighbours."""
        return self.space

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        threshold = self.threshold
        if isinstance(threshold, Quantile | TargetDegree):
            threshold = once_a_rule(
                pairs.clips.thresholds,
                self,
                lambda: find_threshold(self.threshold, pairs, self._similarity),
            )
        return self._similarity(pairs) >= threshold

    def _similarity(self, pairs: Pairs) -> Tensor:
        if self.sigma is None:
            return pairs.cosine
        distance = pairs.distance(self.space)
        return (distance / self.sigma).square_().mul_(-0.5).exp_()


@dataclass(frozen=True, repr=False)
class Nearest(Rule):
    """The ``k`` nearest sources of each target, itself left out; ties to the smaller index.

    Such a graph need not be symmetric: ``undirected=True`` of the builders makes it so.

    Args:
        k: Neighbours of a node; all others where a clip has fewer.
        space: ``"positions"`` or ``"features"``.
        metric: ``"euclidean"``; or ``"cosine"``, for features.

    Raises:
        ValueError: A negative ``k``, an unknown space or metric, the cosine of positions.
    """

    k: int
    space: str = "positions"
    metric: str = "euclidean"
    bit: ClassVar[EdgeRule] = EdgeRule.NEAREST

    def __post_init__(self) -> None:
        _check_count("k", self.k)
        _check_choice("space", self.space, ("positions", "features"))
        _check_choice("metric", self.metric, ("euclidean", "cosine"))
        if self.metric == "cosine" and self.space == "positions":
            raise ValueError('the cosine is for features: Nearest(k, "features", "cosine")')

    @property
    def needs(self) -> str:
        """Where it looks for neighbours."""
        return self.space

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        return closest(pairs.others, pairs.closeness(self.space, self.metric), self.k)


@dataclass(frozen=True, repr=False)
class _Pair(Rule):
    """A rule of two rules."""

    left: Rule
    right: Rule
    sign: ClassVar[str]

    def __repr__(self) -> str:
        return f"({self.left!r} {self.sign} {self.right!r})"

    def check(self, given: set[str]) -> None:
        """Raise ValueError where the rule needs what is not ``given``."""
        self.left.check(given)
        self.right.check(given)

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        return pairs.bits(self) != 0

    def bits(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.bits`."""
        return self.combine(pairs.bits(self.left), pairs.bits(self.right))

    @abstractmethod
    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        """The bits of the pair from those of its two rules."""


class _Either(_Pair):
    sign = "|"

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left | right


class _Both(_Pair):
    sign = "&"

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return (left | right) * ((left != 0) & (right != 0))


class _Without(_Pair):
    sign = "-"

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left * (right == 0)


@dataclass(frozen=True, repr=False)
class _Changed(Rule):
    """A rule of one rule."""

    rule: Rule

    def check(self, given: set[str]) -> None:
        """Raise ValueError where the rule needs what is not ``given``."""
        self.rule.check(given)


class _Not(_Changed):
    def __repr__(self) -> str:
        return f"~{self.rule!r}"

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        return pairs.bits(self.rule) == 0


@dataclass(frozen=True, repr=False)
class _AtMost(_Changed):
    k: int

    def __post_init__(self) -> None:
        _check_count("the largest number of neighbours", self.k)

    def __repr__(self) -> str:
        return f"{self.rule!r}.at_most({self.k})"

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        candidates = (pairs.bits(self.rule) != 0) & pairs.others
        return closest(candidates, pairs.closeness(), self.k)

    def bits(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.bits`."""
        return pairs.bits(self.rule) * self.holds(pairs)


@dataclass(frozen=True, repr=False)
class _AtLeast(_Changed):
    k: int
    bit: ClassVar[EdgeRule] = EdgeRule.FILLED

    def __post_init__(self) -> None:
        _check_count("the smallest number of neighbours", self.k)

    def __repr__(self) -> str:
        return f"{self.rule!r}.at_least({self.k})"

    def holds(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.holds`."""
        there = (pairs.bits(self.rule) != 0) & pairs.others
        missing = (self.k - there.sum(dim=-1, dtype=torch.int32)).clamp_(min=0)
        return closest(pairs.others & ~there, pairs.closeness(), missing)

    def bits(self, pairs: Pairs) -> Tensor:
        """See :meth:`Rule.bits`."""
        return pairs.bits(self.rule) | super().bits(pairs)


def _check_threshold(threshold: float) -> None:
    if isinstance(threshold, Tensor) and threshold.numel() != 1:
        raise ValueError(
            f"a similarity threshold must be a number, got a tensor {list(threshold.shape)}: "
            "features are given by name, features=..."
        )
    if not isinstance(threshold, Real | Tensor) or threshold != threshold:
        raise ValueError(
            f"a similarity threshold must be a number, Quantile or TargetDegree, got {threshold!r}"
        )


def _check_size(name: str, size: float) -> None:
    if not isinstance(size, Real) or not size >= 0:
        raise ValueError(f"{name} must be a number of at least 0, got {size!r}")


def _check_count(name: str, count: int) -> None:
    if not isinstance(count, Integral) or count < 0:
        raise ValueError(f"{name} must be an integer of at least 0, got {count!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
