"""Pictures of what a model sees, over the frames of the clip, and of how a training run went."""

from gasmcast.visualization.class_accuracy import (
    draw_class_accuracy,
    visualize_class_accuracy,
    wilson_interval,
)
from gasmcast.visualization.confusion_matrix import (
    draw_confusion_matrix,
    visualize_confusion_matrix,
)
from gasmcast.visualization.figures import (
    attention_received,
    cross_attention_means,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.visualization.panels import draw_film_strip, overlay_patches
from gasmcast.visualization.training_curves import (
    draw_training_curve,
    visualize_training_curves,
)

__all__ = [
    "attention_received",
    "cross_attention_means",
    "draw_class_accuracy",
    "draw_confusion_matrix",
    "draw_film_strip",
    "draw_training_curve",
    "overlay_patches",
    "visualize_class_accuracy",
    "visualize_confusion_matrix",
    "visualize_cross_attention_layers",
    "visualize_graph_attention",
    "visualize_training_curves",
    "wilson_interval",
]
