"""What a model sees in a clip, as numbers.

:func:`inspect_clip` runs a model once over one clip and keeps all there is to see; the figures and
the page of :mod:`gasmcast.visualization` draw what it returns. :func:`deletion_curve` tries whether
what looks important is. :class:`GraphPart` is the part of a model that PyG's explainers take.
"""

from gasmcast.explanation.clip import load_clip
from gasmcast.explanation.deletion import (
    DeletionCurve,
    deletion_curve,
    pixel_deletion_curve,
)
from gasmcast.explanation.graph_part import GraphPart
from gasmcast.explanation.inspection import (
    DIRECTIONS,
    LAYERS,
    ClassEvidence,
    ClipInspection,
    inspect_clip,
)

__all__ = [
    "DIRECTIONS",
    "LAYERS",
    "ClassEvidence",
    "ClipInspection",
    "DeletionCurve",
    "GraphPart",
    "deletion_curve",
    "inspect_clip",
    "load_clip",
    "pixel_deletion_curve",
]
