"""GASM-CAST: graph-aware semantic-motion cross-attention for video action recognition.

The public names are loaded on first use, so ``import gasmcast`` costs nothing and a part can be
used without what the other parts need.
"""

import warnings
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# torch-geometric still decorates with torch.jit.script, and torch says so on every import of it.
warnings.filterwarnings(
    "ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning
)

_HOMES = {
    "gasmcast.positions": [
        "generate_spatial_positions",
        "generate_spatiotemporal_positions",
        "generate_temporal_positions",
    ],
    "gasmcast.graphs": [
        "EdgeRule",
        "build_graph",
        "build_spatial_graph",
        "build_spatiotemporal_graph",
        "build_temporal_graph",
        "draw_graph",
        "graph_report",
        "to_networkx",
    ],
    "gasmcast.nn": [
        "GASMCAST",
        "BottleneckCrossAttention",
        "CrossAttention",
        "FusedGATv2Conv",
        "GraphAttentionLayer",
        "MotionGraphAttention",
        "SemanticGraphAttention",
    ],
    "gasmcast.extractors": [
        "DINOv3SemanticExtractor",
        "FeatureExtractor",
        "I3DMotionExtractor",
        "InceptionI3d",
        "WeightsNotFoundError",
    ],
    "gasmcast.model": ["TemporalCrossAttentionModel"],
    "gasmcast.video": [
        "FrameSampling",
        "VideoClip",
        "VideoReadError",
        "read_video",
        "segment_indices",
        "uniform_indices",
    ],
    "gasmcast.datasets": [
        "ClipDataset",
        "LabeledVideos",
        "check_classes",
        "mirrored_classes",
        "read_annotation_list",
        "read_videos",
        "render_clip",
        "scan_class_folders",
        "split_videos",
        "write_rendered_dataset",
    ],
    "gasmcast.transforms": ["eval_transform", "train_transform"],
    "gasmcast.explanation": ["inspect_clip"],
    "gasmcast.visualization": [
        "visualize_class_evidence",
        "visualize_cross_attention_layers",
        "visualize_graph_attention",
        "write_report",
    ],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gasmcast' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
