"""What a model attends to, as figures."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.explanation import DIRECTIONS, LAYERS, ClipInspection, inspect_clip
from gasmcast.graphs import EdgeRule, draw_graph
from gasmcast.visualization.canvas import check_figure_path, new_figure, save
from gasmcast.visualization.labels import plain_label
from gasmcast.visualization.panels import HEAT, draw_film_strip, overlay_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gasmcast.model import TemporalCrossAttentionModel

TOP_K = 2  # far edges drawn for a patch: more would hide the picture
NOTE = {"fontsize": "small", "color": "#555555"}


def visualize_graph_attention(
    model: TemporalCrossAttentionModel,
    video: str | PathLike | Tensor,
    save_path: str | PathLike | None = None,
) -> Figure:
    """Which patches and segments are tied, and how much each is attended to within its stream.

    Left: the spatial graph over the middle frame, edges in the colour of their rule. Middle: the
    attention each patch receives from the other patches. Right: the temporal graph of the segments
    with the attention between them.

    Args:
        model: Its attention is read in ``eval()`` mode; the mode is put back afterwards.
        video: See :func:`~gasmcast.explanation.load_clip`.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg).

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format.
    """
    check_figure_path(save_path)
    inspection = inspect_clip(model, video)
    clip = inspection.frames
    figure = new_figure(figsize=(15, 5.4))
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.7), width_ratios=(1, 1.12, 0.85))
    frame = clip[len(clip) // 2]

    spatial = inspection.spatial
    ax = figure.add_subplot(grid[:, 0])
    draw_graph(spatial, frame, ax, top_k=TOP_K)
    far = spatial.edge_rule == EdgeRule.SIMILAR
    thinned = f"\n(of far similar patches the {TOP_K} most similar)" if bool(far.any()) else ""
    ax.set_title(f"spatial graph, {spatial.num_edges} edges{thinned}", fontsize="medium")

    ax = figure.add_subplot(grid[:, 1])
    received = attention_received(spatial).view(inspection.grid_size)
    overlay_patches(ax, frame, received, "attention received, sum over other patches (line: mean)")
    ax.set_title("graph attention, spatial", fontsize="medium")

    temporal = inspection.temporal
    ax = figure.add_subplot(grid[0, 2])
    draw_graph(temporal, ax=ax)
    ax.set_title(f"temporal graph, {temporal.num_edges} edges", fontsize="medium")
    ax = figure.add_subplot(grid[1, 2])
    _draw_segment_matrix(ax, temporal)
    figure.suptitle(_title(inspection))
    return save(figure, save_path)


def visualize_cross_attention_layers(
    model: TemporalCrossAttentionModel,
    video: str | PathLike | Tensor,
    save_path: str | PathLike | None = None,
) -> Figure:
    """What each of the three fusion layers attends to, in both directions.

    One column a layer: basic, pattern, action. Top: how much the segments take from each patch,
    over the middle frame. Bottom: how much the patches take from each segment, a bar a segment
    under the frames it stands for. Both are means over heads and over the asking tokens, and every
    row of panels has one common scale.

    Args:
        model: As for :func:`visualize_graph_attention`.
        video: See :func:`~gasmcast.explanation.load_clip`.
        save_path: As for :func:`visualize_graph_attention`.

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format; the model has no fusion layers.
    """
    check_figure_path(save_path)
    if not model.gasm_cast.fusion_layers:
        raise ValueError('the model has no fusion layers to show: it was made with fusion="late"')
    inspection = inspect_clip(model, video)
    clip, grid_size = inspection.frames, inspection.grid_size
    on_patches, on_segments = cross_attention_means(inspection)
    figure = new_figure(figsize=(13, 7))
    panels = figure.add_gridspec(3, len(LAYERS), height_ratios=(5, 0.62, 1.5))
    frame = clip[len(clip) // 2]
    images = []
    for column, layer in enumerate(LAYERS):
        ax = figure.add_subplot(panels[0, column])
        images.append(
            overlay_patches(
                ax,
                frame,
                on_patches[column].view(grid_size),
                colorbar=None,
                limits=(0.0, float(on_patches.max())),
            )
        )
        ax.set_title(f"layer {column + 1}: {layer}")
        if column == 0:
            ax.set_ylabel("segments attend to patches\n(over the middle frame)", fontsize="small")
        draw_film_strip(figure.add_subplot(panels[1, column]), clip, on_segments.size(1))
        ax = figure.add_subplot(panels[2, column])
        segments = range(on_segments.size(1))
        ax.bar(segments, on_segments[column].tolist(), width=0.85, color="#e45756")
        ax.axhline(1 / len(segments), color="#555555", lw=0.8, ls="--")
        ax.set(xlim=(-0.5, len(segments) - 0.5), ylim=(0, float(on_segments.max()) * 1.1))
        ax.set_xticks(segments)
        ax.set_xlabel("segment", fontsize="small")
        ax.spines[["top", "right"]].set_visible(False)
        if column == 0:
            ax.set_ylabel("patches attend\nto segments", fontsize="small")
            ax.annotate("even", (-0.45, 1 / len(segments)), va="bottom", **NOTE)
    bar = figure.colorbar(
        images[-1],
        ax=figure.axes[:: len(LAYERS)],
        shrink=0.5,
        label="attention of the segments (line: even)",
        location="right",
    )
    bar.ax.axhline(1 / on_patches.size(1), color="white", lw=1.5)
    figure.suptitle(_title(inspection))
    return save(figure, save_path)


def attention_received(graph: Data) -> Tensor:
    """Attention each node receives from the others: [N], the mean over heads.

    Self-loops are left out, so the values sum to less than N.
    """
    source, target = graph.edge_index
    weights = graph.attention.mean(dim=1).masked_fill(source == target, 0.0)
    return weights.new_zeros(graph.num_nodes).index_add_(0, source, weights)


def cross_attention_means(inspection: ClipInspection) -> tuple[Tensor, Tensor]:
    """Mean attention over heads and asking tokens, a row a layer.

    Returns:
        Attention of the segments on the patches [3, P], and of the patches on the segments [3, S];
        each row sums to 1.
    """
    on_patches, on_segments = (
        torch.stack([inspection.cross_attention(layer, direction).mean(dim=0) for layer in LAYERS])
        for direction in DIRECTIONS
    )
    return on_patches, on_segments


def _draw_segment_matrix(ax: Axes, temporal: Data) -> None:
    # Where no edge is, there is no attention to show: the background, not the colour of zero.
    matrix = torch.full((temporal.num_nodes, temporal.num_nodes), torch.nan)
    ax.set_facecolor("#dddddd")
    source, target = temporal.edge_index.cpu()
    matrix[target, source] = temporal.attention.mean(dim=1).float().cpu()
    heat = ax.imshow(matrix.numpy(), cmap=HEAT, vmin=0)
    ax.set(xlabel="attended segment", ylabel="segment", title="")
    ax.set_xticks(range(temporal.num_nodes))
    ax.set_yticks(range(temporal.num_nodes))
    ax.tick_params(labelsize="small")
    bar = ax.figure.colorbar(heat, ax=ax, shrink=0.9)
    bar.set_label("attention (mean of heads)", fontsize="small")


def _title(inspection: ClipInspection) -> str:
    label, probability = inspection.top(1)[0]
    return f"{plain_label(inspection.class_names[label])}  ({probability:.0%})"
