"""Features and positions to explicit PyG graphs: builders, edge rules, inspection.

Useful without the rest of the library: importing this package loads torch and torch-geometric,
and no backbone, decoder or plotting package.
"""

from gasmcast.graphs.builders import (
    BatchedGraphOptions,
    GraphOptions,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    target_ptr,
)
from gasmcast.graphs.check import check_graph
from gasmcast.graphs.drawing import draw_graph
from gasmcast.graphs.inspect import GraphReport, graph_report, to_networkx
from gasmcast.graphs.pairs import Pairs
from gasmcast.graphs.rules import Adjacent, EdgeRule, Nearest, Rule, Similar, Window
from gasmcast.graphs.thresholds import Quantile, TargetDegree
from gasmcast.graphs.transforms import RuleGraph, SpatialGraph, SpatiotemporalGraph, TemporalGraph

__all__ = [
    "Adjacent",
    "BatchedGraphOptions",
    "EdgeRule",
    "GraphOptions",
    "GraphReport",
    "Nearest",
    "Pairs",
    "Quantile",
    "Rule",
    "RuleGraph",
    "Similar",
    "SpatialGraph",
    "SpatiotemporalGraph",
    "TargetDegree",
    "TemporalGraph",
    "Window",
    "build_graph",
    "build_spatial_graph",
    "build_spatiotemporal_graph",
    "build_temporal_graph",
    "check_graph",
    "draw_graph",
    "graph_report",
    "target_ptr",
    "to_networkx",
]
