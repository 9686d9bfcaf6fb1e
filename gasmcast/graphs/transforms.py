"""The builders as PyG transforms: for ``transform=`` and ``pre_transform=`` of any dataset."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, ClassVar, Unpack

import torch
from torch.utils.data import IterDataPipe
from torch_geometric.data import Batch, Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from gasmcast.graphs.builders import (
    GraphOptions,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
)
from gasmcast.graphs.check import EDGE_LEVEL
from gasmcast.graphs.rules import Rule
from gasmcast.graphs.thresholds import Quantile, TargetDegree

INPUTS = ("positions", "features", "batch", "ptr", "mask")  # these come from the data
EDGES = ("edge_index", *EDGE_LEVEL, "adj", "adj_t")


class _GraphTransform(BaseTransform):
    """A builder that reads ``pos`` and ``x`` and replaces the edges.

    Attributes:
        builder: What makes the graph.
        num_coordinates: Columns of the positions that the builder takes.
        needs_positions: Whether it cannot do without them.
        parameters: What the transform was made with, defaults included.
    """

    builder: ClassVar[Callable[..., Data | Batch]]
    num_coordinates: ClassVar[int]
    needs_positions: ClassVar[bool] = True

    def __init__(self, **parameters: Any) -> None:
        name, defaults = type(self).__name__, self._defaults()
        for option in parameters:
            if option in INPUTS:
                raise TypeError(f"{name} takes no {option!r}: nodes and clips come from the data")
            if option not in defaults:
                raise TypeError(f"{name} has no option {option!r}, only {', '.join(defaults)}")
        self.parameters = defaults | parameters
        # Wrong values are refused here, by the builder itself, and not at the first graph.
        no_positions = torch.empty(0, self.num_coordinates)
        self.builder(positions=no_positions, features=torch.empty(0, 1), **self.parameters)

    def forward(self, data: Data) -> Data:
        """Give ``data``, a copy by ``BaseTransform``, the edges that the builder makes."""
        name = type(self).__name__
        if not isinstance(data, Data):
            raise ValueError(
                f"{name} takes a Data or a Batch of them, got {type(data).__name__}: of a "
                "HeteroData, give it one kind of nodes as Data"
            )
        pos, x = data.get("pos"), data.get("x")
        if pos is None and (x is None or self.needs_positions):
            missing = "neither pos nor x" if x is None else "no pos"
            raise ValueError(f"{name} found {missing} in {data}")
        ptr, batch = data.get("ptr"), data.get("batch")
        graph = self.builder(
            positions=pos,
            features=x,
            ptr=ptr,
            batch=batch if ptr is None else None,
            **self.parameters,
        )
        made = {key: graph[key] for key in EDGES if key in graph}
        stale = _edge_attributes(data)
        for key in stale:
            del data[key]
        data.update(made)
        if isinstance(data, Batch) and hasattr(data, "_slice_dict"):
            # The dictionaries belong to the batch that was given, too: new ones.
            for lookup in ("_slice_dict", "_inc_dict"):
                kept = {k: v for k, v in getattr(data, lookup).items() if k not in stale}
                setattr(data, lookup, kept | {key: getattr(graph, lookup)[key] for key in made})
        return data

    def __repr__(self) -> str:
        defaults = self._defaults()
        shown = [
            f"{name}={value!r}"
            for name, value in self.parameters.items()
            if defaults[name] is Parameter.empty or value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The parameters of the builder, its own and then the options of all builders."""
        own = signature(cls.builder).parameters.values()
        common = signature(build_graph).parameters.values()
        return {
            parameter.name: parameter.default
            for parameter in (*own, *(p for p in common if p.kind is Parameter.KEYWORD_ONLY))
            if parameter.name not in INPUTS and parameter.kind is not Parameter.VAR_KEYWORD
        }


def _edge_attributes(data: Data) -> list[str]:
    """What an older graph left in the data, and how ``follow_batch`` of a loader follows it."""
    names = [
        name
        for name in data.keys()  # noqa: SIM118, Data is no dict
        if name in EDGES or ("edge" in name and data.is_edge_attr(name))
    ]
    followers = [f"{name}_{kind}" for name in names for kind in ("batch", "ptr")]
    return [*names, *(name for name in followers if name in data and name not in names)]


def _functional_transform(name: str) -> Callable[[type], type]:
    # torch refuses a name that it knows, so this module could not be reloaded.
    IterDataPipe.functions.pop(name, None)
    return functional_transform(name)


@_functional_transform("spatial_graph")
class SpatialGraph(_GraphTransform):
    r"""Edges between adjacent or similar patches (functional name: :obj:`spatial_graph`).

    :func:`build_spatial_graph` as a transform: reads ``data.pos`` [N, 2] and, where there is one,
    ``data.x`` [N, D], and writes ``edge_index``, ``edge_attr`` and ``edge_rule`` (with
    ``edge_weight=True`` also ``edge_weight``). Edges and edge attributes of an older graph go, all
    else stays. Of a ``Batch``, and of ``Data`` with ``batch``, each clip gets its own graph.

    Args:
        similarity_threshold: As for :func:`build_spatial_graph`, as all others.
        radius: The distance within which patches are adjacent.
        metric: ``"chebyshev"``, ``"euclidean"`` or ``"manhattan"``.
        max_similar: At most so many edges a patch receives through similarity alone.
        options: As for :func:`build_graph`, without ``batch``, ``ptr`` and ``mask``.

    Raises:
        ValueError: At once, a parameter that the builder refuses; later, data that it refuses, or
            that is no ``Data`` or lacks ``pos``.
        TypeError: An unknown option.

    Example:
        >>> from torch_geometric.data import Data
        >>> from gasmcast import generate_spatial_positions
        >>> from gasmcast.graphs import SpatialGraph
        >>> transform = SpatialGraph(metric="manhattan")
        >>> transform
        SpatialGraph(metric='manhattan')
        >>> transform(Data(pos=generate_spatial_positions(3), name="tiny"))
        Data(pos=[9, 2], name='tiny', edge_index=[2, 33], edge_attr=[33, 3], edge_rule=[33])
    """

    builder = staticmethod(build_spatial_graph)
    num_coordinates = 2

    def __init__(
        self,
        similarity_threshold: float | Quantile | TargetDegree = 0.8,
        *,
        radius: float = 1.0,
        metric: str = "chebyshev",
        max_similar: int | None = None,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            similarity_threshold=similarity_threshold,
            radius=radius,
            metric=metric,
            max_similar=max_similar,
            **options,
        )


@_functional_transform("temporal_graph")
class TemporalGraph(_GraphTransform):
    r"""Edges between near or similar segments (functional name: :obj:`temporal_graph`).

    :func:`build_temporal_graph` as a transform, with ``data.pos`` [N, 1]; what it reads and writes
    is as for :class:`SpatialGraph`.

    Args:
        adjacency_window: As for :func:`build_temporal_graph`, as all others.
        similarity_threshold: The cosine similarity from which segments are connected.
        causal: Edges only from a segment to itself and later ones.
        max_similar: At most so many edges a segment receives through similarity alone.
        options: As for :func:`build_graph`, without ``batch``, ``ptr`` and ``mask``.

    Raises:
        ValueError: As for :class:`SpatialGraph`.
        TypeError: As for :class:`SpatialGraph`.

    Example:
        >>> from torch_geometric.data import Data
        >>> from gasmcast import generate_temporal_positions
        >>> from gasmcast.graphs import TemporalGraph
        >>> data = TemporalGraph(1, causal=True)(Data(pos=generate_temporal_positions()))
        >>> data.edge_index[0, data.edge_index[1] == 3].tolist()
        [2, 3]
    """

    builder = staticmethod(build_temporal_graph)
    num_coordinates = 1

    def __init__(
        self,
        adjacency_window: float = 2,
        *,
        similarity_threshold: float | Quantile | TargetDegree = 0.8,
        causal: bool = False,
        max_similar: int | None = None,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            adjacency_window=adjacency_window,
            similarity_threshold=similarity_threshold,
            causal=causal,
            max_similar=max_similar,
            **options,
        )


@_functional_transform("spatiotemporal_graph")
class SpatiotemporalGraph(_GraphTransform):
    r"""Edges inside frames and between them (functional name: :obj:`spatiotemporal_graph`).

    :func:`build_spatiotemporal_graph` as a transform, with ``data.pos`` [N, 3], (x, y, t); what it
    reads and writes is as for :class:`SpatialGraph`.

    Args:
        similarity_threshold: As for :func:`build_spatiotemporal_graph`, as all others.
        radius: The distance within which patches of a frame are adjacent.
        window: Frames at most so far apart are connected.
        temporal_threshold: The cosine similarity between frames; None: ``similarity_threshold``.
        causal: Between frames, only edges from earlier to later ones.
        options: As for :func:`build_graph`, without ``batch``, ``ptr`` and ``mask``.

    Raises:
        ValueError: As for :class:`SpatialGraph`.
        TypeError: As for :class:`SpatialGraph`.

    Example:
        >>> from torch_geometric.data import Data
        >>> from gasmcast import generate_spatiotemporal_positions
        >>> from gasmcast.graphs import SpatiotemporalGraph
        >>> data = Data(pos=generate_spatiotemporal_positions(2, 3))
        >>> SpatiotemporalGraph(causal=True, edge_attr=False)(data)
        Data(pos=[18, 3], edge_index=[2, 147])
    """

    builder = staticmethod(build_spatiotemporal_graph)
    num_coordinates = 3

    def __init__(
        self,
        similarity_threshold: float | Quantile | TargetDegree = 0.8,
        *,
        radius: float = 1.0,
        window: float = 1,
        temporal_threshold: float | Quantile | TargetDegree | None = None,
        causal: bool = False,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            similarity_threshold=similarity_threshold,
            radius=radius,
            window=window,
            temporal_threshold=temporal_threshold,
            causal=causal,
            **options,
        )


@_functional_transform("rule_graph")
class RuleGraph(_GraphTransform):
    r"""The edges that a rule makes (functional name: :obj:`rule_graph`).

    :func:`build_graph` as a transform, with ``data.pos`` [N, d] or ``data.x`` [N, D] or both, as
    the rule needs them; what it writes is as for :class:`SpatialGraph`.

    Args:
        rule: Which pairs of nodes become edges, see :class:`Rule`.
        options: As for :func:`build_graph`, without ``batch``, ``ptr`` and ``mask``.

    Raises:
        ValueError: As for :class:`SpatialGraph`; data without what the rule needs.
        TypeError: As for :class:`SpatialGraph`.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from torch_geometric.transforms import Compose, NormalizeFeatures
        >>> from gasmcast.graphs import Nearest, RuleGraph
        >>> transform = Compose([NormalizeFeatures(), RuleGraph(Nearest(2, "features"))])
        >>> transform(Data(x=torch.rand(5, 4)))  # two neighbours and a self-loop a node
        Data(x=[5, 4], edge_index=[2, 15], edge_attr=[15, 1], edge_rule=[15])
    """

    builder = staticmethod(build_graph)
    num_coordinates = 1
    needs_positions = False

    def __init__(self, rule: Rule, **options: Unpack[GraphOptions]) -> None:
        super().__init__(rule=rule, **options)
