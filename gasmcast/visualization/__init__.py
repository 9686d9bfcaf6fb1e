"""Pictures of what a model sees, over the frames of the clip, and a page to look around in."""

from gasmcast.visualization.class_evidence import visualize_class_evidence
from gasmcast.visualization.cross_attention import (
    cross_attention_means,
    visualize_cross_attention_layers,
)
from gasmcast.visualization.graph_attention import attention_received, visualize_graph_attention
from gasmcast.visualization.panels import draw_film_strip, draw_segment_bars, overlay_patches
from gasmcast.visualization.report import write_report

__all__ = [
    "attention_received",
    "cross_attention_means",
    "draw_film_strip",
    "draw_segment_bars",
    "overlay_patches",
    "visualize_class_evidence",
    "visualize_cross_attention_layers",
    "visualize_graph_attention",
    "write_report",
]
