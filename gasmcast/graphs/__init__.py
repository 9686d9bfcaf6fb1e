"""Features and positions to explicit PyG graphs: builders, edge rules, inspection.

Useful without the rest of the library: importing this package loads torch and torch-geometric,
and no backbone, decoder or plotting package.
"""

from gasmcast.graphs.builders import build_spatial_graph, build_temporal_graph
from gasmcast.graphs.drawing import draw_graph
from gasmcast.graphs.inspect import GraphReport, graph_report, to_networkx
from gasmcast.graphs.rules import EdgeRule

__all__ = [
    "EdgeRule",
    "GraphReport",
    "build_spatial_graph",
    "build_temporal_graph",
    "draw_graph",
    "graph_report",
    "to_networkx",
]
