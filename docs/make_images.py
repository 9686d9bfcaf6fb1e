"""Make the pictures of the documentation: ``python docs/make_images.py``."""

from io import BytesIO
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional as F

from gasmcast import (
    build_spatial_graph,
    build_temporal_graph,
    draw_graph,
    generate_spatial_positions,
    generate_temporal_positions,
)
from gasmcast.datasets import APPEARANCES, MOTIONS, render_clip


def rendered() -> Figure:
    """Eight frames of one clip of each motion."""
    figure = Figure(figsize=(8, 8.3), layout="constrained")
    rows = figure.subplots(len(MOTIONS), 1)
    for row, (ax, motion) in enumerate(zip(rows, MOTIONS, strict=True)):
        clip = render_clip(motion, APPEARANCES[row // 2], seed=row // 2 + 3)[::3]
        ax.imshow(clip.permute(2, 0, 3, 1).flatten(1, 2))
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(motion, rotation=0, ha="right", va="center")
    return figure


def graphs() -> Figure:
    """A spatial graph over its frame, patches compared by colour, and a temporal graph."""
    frame = render_clip("turn_clockwise", "plain", seed=6, size=224)[12].float() / 255
    patches = F.unfold(F.adaptive_avg_pool2d(frame, 28)[None], kernel_size=4, stride=4)[0].t()
    patches = patches - patches.mean(dim=0)
    steps = torch.tensor([[1.0, 0], [1, 0], [0, 1], [-1, 0], [-1, 0], [0, -1], [1, 0], [1, 0.2]])
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplot_mosaic([["spatial", "."], ["spatial", "temporal"]], height_ratios=(1, 4))
    spatial = build_spatial_graph(generate_spatial_positions(7), 0.9, features=patches)
    draw_graph(spatial, frame, axes["spatial"], top_k=1)
    temporal = build_temporal_graph(generate_temporal_positions(), features=steps)
    draw_graph(temporal, ax=axes["temporal"])
    return figure


if __name__ == "__main__":
    for draw in (rendered, graphs):
        drawn = BytesIO()
        draw().savefig(drawn, dpi=80)
        path = Path(__file__).with_name("images") / f"{draw.__name__}.png"
        Image.open(drawn).convert("RGB").quantize(200, Image.Quantize.MAXCOVERAGE).save(
            path, optimize=True
        )
