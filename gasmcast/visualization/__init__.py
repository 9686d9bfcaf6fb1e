"""What a model sees in a clip, as figures and as a page; how a training run went, as figures."""

from gasmcast.visualization.canvas import check_folder
from gasmcast.visualization.class_accuracy import (
    draw_class_accuracy,
    visualize_class_accuracy,
    wilson_interval,
)
from gasmcast.visualization.class_evidence import visualize_class_evidence
from gasmcast.visualization.confusion_matrix import (
    draw_confusion_matrix,
    visualize_confusion_matrix,
)
from gasmcast.visualization.cross_attention import (
    cross_attention_means,
    visualize_cross_attention_layers,
)
from gasmcast.visualization.graph_attention import attention_received, visualize_graph_attention
from gasmcast.visualization.panels import draw_film_strip, draw_segment_bars, overlay_patches
from gasmcast.visualization.report import write_report
from gasmcast.visualization.training_curves import (
    draw_training_curve,
    visualize_training_curves,
)

__all__ = [
    "attention_received",
    "check_folder",
    "cross_attention_means",
    "draw_class_accuracy",
    "draw_confusion_matrix",
    "draw_film_strip",
    "draw_segment_bars",
    "draw_training_curve",
    "overlay_patches",
    "visualize_class_accuracy",
    "visualize_class_evidence",
    "visualize_confusion_matrix",
    "visualize_cross_attention_layers",
    "visualize_graph_attention",
    "visualize_training_curves",
    "wilson_interval",
    "write_report",
]
