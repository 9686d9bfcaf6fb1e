"""Frozen backbones: a clip goes in, features come out; no graphs in here::

    clip [B, T, 3, H, W], RGB in [0, 1]
      -> DINOv3SemanticExtractor  [B, P, D]  what is there, one feature per patch
      -> I3DMotionExtractor       [B, S, D]  how it moves, one feature per two frames

Each extractor normalises the clip for itself, takes a ``backbone`` of your own in place of its
network, and is frozen unless it is told to be ``trainable``.
"""

from .base import FeatureExtractor, WeightsNotFoundError
from .i3d import InceptionI3d
from .motion import I3DMotionExtractor, load_i3d_checkpoint
from .semantic import DINOv3SemanticExtractor

__all__ = [
    "DINOv3SemanticExtractor",
    "FeatureExtractor",
    "I3DMotionExtractor",
    "InceptionI3d",
    "WeightsNotFoundError",
    "load_i3d_checkpoint",
]
