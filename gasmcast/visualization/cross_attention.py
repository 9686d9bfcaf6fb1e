"""The attention of the fusion layers, as a figure."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gasmcast.explanation import DIRECTIONS, LAYERS, ClipInspection
from gasmcast.graphs.edge_values import value_limits
from gasmcast.visualization.canvas import new_figure, save
from gasmcast.visualization.inspected import (
    TITLE_LINE,
    Video,
    frames_shown,
    headline,
    heads_shown,
    inspected,
)
from gasmcast.visualization.panels import (
    add_overlay_bar,
    draw_film_strip,
    draw_segment_bars,
    film_height,
    overlay_patches,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gasmcast.model import TemporalCrossAttentionModel


def visualize_cross_attention_layers(
    model: TemporalCrossAttentionModel | None,
    video: Video,
    save_path: str | PathLike | None = None,
    *,
    head: int | None = None,
    truth: int | str | None = None,
) -> Figure:
    """What each of the three fusion layers attends to, in both directions.

    One column a layer: basic, pattern, action. Top: how much the segments take from each patch,
    over a frame that they come from. Bottom: how much the patches take from each segment, a bar a
    segment under the frame it stands for. Both are means over the asking tokens, and every row of
    panels has one common scale.

    Args:
        model: As for :func:`visualize_graph_attention`.
        video: As for :func:`visualize_graph_attention`.
        save_path: As for :func:`visualize_graph_attention`.
        head: Which head, from 0; None: the mean over heads.
        truth: As for :func:`visualize_graph_attention`.

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format; there is no such head or class; the
            model has no fusion layers.
    """
    inspection = inspected(model, video, save_path, head=head, classes=(truth,), needs_layers=True)
    clip = inspection.frames
    on_patches, on_segments = cross_attention_means(inspection, head)
    even_patch, even_segment = 1 / on_patches.size(1), 1 / on_segments.size(1)
    patch_limits = value_limits(on_patches, signed=False)
    segment_limits = (0.0, max(float(on_segments.max()), even_segment) * 1.15)
    film = 6 * film_height(clip, on_segments.size(1))
    shown = f"cross-attention, {heads_shown(inspection, head)}; {frames_shown(inspection)}"
    title = f"{headline(inspection, truth)}\n{shown}"
    height = 4.7 + 0.65 * film + TITLE_LINE * len(title.splitlines())
    figure = new_figure(figsize=(11, height))
    panels = figure.add_gridspec(3, len(LAYERS), height_ratios=(5, film, 1.5))
    maps = []
    for column, layer in enumerate(LAYERS):
        ax = figure.add_subplot(panels[0, column])
        values = on_patches[column].view(inspection.grid_size)
        heat = overlay_patches(clip[inspection.frame_index], values, ax, limits=patch_limits)
        maps.append(ax)
        ax.set_title(f"layer {column + 1}: {layer}")
        draw_film_strip(clip, on_segments.size(1), figure.add_subplot(panels[1, column]))
        bars = figure.add_subplot(panels[2, column])
        draw_segment_bars(on_segments[column], bars, limits=segment_limits)
        if column == 0:
            ax.set_ylabel("segments attend to patches")
            bars.set_ylabel("patches attend\nto segments")
    where = {"xycoords": ("axes fraction", "data"), "va": "center"}
    even = bars.annotate("uniform", (1.02, even_segment), color="black", fontsize="small", **where)
    even.set_in_layout(False)  # it has room enough, below the colour bar
    add_overlay_bar(heat, maps, "attention on a patch (line: uniform)", even_patch)
    figure.suptitle(title)
    return save(figure, save_path)


def cross_attention_means(
    inspection: ClipInspection, head: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean attention over the asking tokens, a row a layer, of one head or the mean over heads.

    Returns:
        Attention of the segments on the patches [3, P], and of the patches on the segments [3, S];
        each row sums to 1.
    """
    on_patches, on_segments = (
        torch.stack(
            [inspection.cross_attention(layer, direction, head).mean(dim=0) for layer in LAYERS]
        )
        for direction in DIRECTIONS
    )
    return on_patches, on_segments
