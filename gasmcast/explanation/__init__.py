"""What a model sees in a clip, as numbers.

:func:`inspect_clip` runs a model once over one clip and keeps all there is to see; the figures and
the page of :mod:`gasmcast.visualization` draw what it returns. :class:`GraphPart` is the part of a
model that PyG's explainers take.
"""

from gasmcast.explanation.clip import load_clip
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
    "GraphPart",
    "inspect_clip",
    "load_clip",
]
