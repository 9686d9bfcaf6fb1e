"""What the page knows of a clip, as JSON can hold it."""

from __future__ import annotations

import sys
from base64 import b64encode
from io import BytesIO

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.explanation import DIRECTIONS, ClipInspection
from gasmcast.graphs import EdgeRule
from gasmcast.graphs.drawing import NO_RULE_COLOR, RULE_COLORS
from gasmcast.graphs.inspect import measures
from gasmcast.video import segment_indices
from gasmcast.visualization.panels import overlay_colors, sign_colors

TOP = 5
COLOR_STEPS = 65  # an odd number has a middle
JPEG_QUALITY = 88  # 16 frames of 224 px: some 0.3 MB of a real clip, 0.8 MB of noise
BYTES = {torch.float32: "float32", torch.int32: "int32"}


def clip_data(inspection: ClipInspection, name: str, truth: int | None) -> dict:
    """One clip: frames, classes, graphs, attention and evidence.

    Tensors are ``{"type", "shape", "base64"}``, little-endian and row by row, so that no digit gets
    lost on the way.

    Args:
        inspection: Where all the numbers are from.
        name: What to call the clip.
        truth: The number of its true class, where that is known.
    """
    frames = inspection.frames
    times = inspection.pts_seconds
    if times is not None and bool((times == times[0]).all()):
        times = None  # a file of one frame, repeated: it would stand still at 0.00 s
    num_segments = inspection.temporal.num_nodes
    return {
        "name": name,
        "grid": list(inspection.grid_size),
        "size": [frames.size(-1), frames.size(-2)],
        "frames": [_jpeg(frame) for frame in frames],
        "frame": inspection.frame_index,
        "patch_frames": sorted(set(inspection.patch_frames or ())),
        "times": None if times is None else (times - times[0]).tolist(),
        "segment_frames": segment_indices(len(frames), num_segments).tolist(),
        "heads": inspection.num_heads,
        "truth": truth,
        "classes": _classes(inspection, truth),
        "spatial": _graph(inspection.spatial),
        "temporal": _graph(inspection.temporal),
        "layers": {
            layer: {direction: _array(getattr(weights, direction)) for direction in DIRECTIONS}
            for layer, weights in inspection.layers.items()
        },
    }


def rule_data() -> list[dict]:
    """The rules of edges with their names and colours, those of the drawings."""
    return [
        {"bit": int(rule), "name": rule.label, "color": RULE_COLORS.get(rule, NO_RULE_COLOR)}
        for rule in EdgeRule
    ]


def color_data() -> dict:
    """Colours of the figures: red, green, blue in 0 to 255, with the opacity of overlays."""
    below, above = ([round(255 * part) for part in color[:3]] for color in sign_colors([-1, 1]))
    return {
        "plain": _steps(signed=False),
        "signed": _steps(signed=True),
        "below": below,
        "above": above,
        "no_rule": NO_RULE_COLOR,
    }


def _steps(*, signed: bool) -> list[list[float]]:
    return [
        [*(round(255 * part) for part in color), round(opacity, 3)]
        for *color, opacity in overlay_colors(COLOR_STEPS, signed=signed).tolist()
    ]


def _classes(inspection: ClipInspection, truth: int | None) -> list[dict]:
    """The most probable, then the true one where it is not among them, each with its evidence."""
    shown = [label for label, _ in inspection.top(TOP)]
    if truth is not None and truth not in shown:
        shown.append(truth)
    classes = []
    for label in shown:
        patches, segments, bias = inspection.evidence(label)
        classes.append(
            {
                "label": label,
                "name": inspection.class_names[label],
                "probability": float(inspection.probabilities[label]),
                "logit": float(inspection.logits[label]),
                "patches": _array(patches),
                "segments": _array(segments),
                "bias": bias,
            }
        )
    return classes


def _graph(graph: Data) -> dict:
    source, target = graph.edge_index.int()
    rule, similarity = graph.get("edge_rule"), measures(graph).get("similarity")
    return {
        "nodes": graph.num_nodes,
        "source": _array(source),
        "target": _array(target),
        "rule": _array(torch.zeros_like(source) if rule is None else rule.int()),
        "similarity": None if similarity is None else _array(similarity.float()),
        "attention": _array(graph.attention),
    }


def _array(tensor: Tensor) -> dict:
    values = tensor.contiguous().numpy()
    if sys.byteorder == "big":
        values = values.byteswap()
    return {
        "type": BYTES[tensor.dtype],
        "shape": list(tensor.shape),
        "base64": b64encode(values.tobytes()).decode(),
    }


def _jpeg(frame: Tensor) -> str:
    from PIL import Image

    pixels = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    file = BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
