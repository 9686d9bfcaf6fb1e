"""The graphs of a clip and the attention along their edges, as a figure."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.explanation import ClipInspection
from gasmcast.explanation.inspection import check_head
from gasmcast.graphs import EdgeRule, draw_graph
from gasmcast.graphs.edge_values import value_bar, value_colors
from gasmcast.graphs.layout import ticks
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
    film_height,
    overlay_patches,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gasmcast.model import TemporalCrossAttentionModel

FEW_PATCHES = 100


def visualize_graph_attention(
    model: TemporalCrossAttentionModel | None,
    video: Video,
    save_path: str | PathLike | None = None,
    *,
    head: int | None = None,
    truth: int | str | None = None,
) -> Figure:
    """Which patches and segments are connected, and how much each takes from the others.

    Top, the patches over a frame that they come from: the graph in the colours of its rules; the
    edges of most attention, as :func:`~gasmcast.draw_graph` draws them by value; the attention that
    each patch receives from the others. Bottom, the segments under their frames: the graph by
    rules; the attention on its edges; the same as a matrix, a row for each segment that attends.

    Args:
        model: Its attention is read in ``eval()`` mode; the mode is put back afterwards. Not needed
            where ``video`` is an inspection.
        video: See :func:`~gasmcast.explanation.load_clip`; or what
            :func:`~gasmcast.inspect_clip` gave, and the model is not run again.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg). Text
            stays text in pdf and svg.
        head: Which head, from 0; None: the mean over heads.
        truth: The true class, by number or name, for the title; None where it is not known.

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format; there is no such head or class.
    """
    inspection = inspected(model, video, save_path, head=head, classes=(truth,))
    shown = f"graph attention, {heads_shown(inspection, head)}; {frames_shown(inspection)}"
    title = f"{headline(inspection, truth)}\n{shown}"
    figure = new_figure(figsize=(12, 9.9 + TITLE_LINE * len(title.splitlines())))
    # One grid, so that the panels of all rows are equally wide and stand below each other.
    figure.get_layout_engine().set(wspace=0.03)
    film = 3.9 * film_height(inspection.frames, inspection.temporal.num_nodes)  # inches, about
    panels = figure.add_gridspec(3, 3, height_ratios=(3.9, film, 3.6 - film))
    top = [figure.add_subplot(panels[0, column]) for column in range(3)]
    columns = [[figure.add_subplot(panels[row, column]) for row in (1, 2)] for column in (0, 1)]
    square = figure.add_subplot(panels[1:, 2])
    figure.draw_without_rendering()  # lays the panels out: legends look how wide theirs is
    _draw_spatial(top, inspection, head)
    _draw_temporal(columns, square, inspection, head)
    figure.suptitle(title)
    figure.draw_without_rendering()  # square panels settle at the second layout only
    return save(figure, save_path)


def attention_received(graph: Data, head: int | None = None) -> Tensor:
    r"""Attention each node receives from the others.

    .. math::
        r_j = \sum_{i \ne j} \alpha_{ij}

    with the attention that node i pays to node j along the edge from j to i. Self-loops are left
    out, so the values sum to less than N.

    Args:
        graph: With ``attention`` [E, H].
        head: Which head, from 0; None: the mean over heads.

    Returns:
        [N].

    Raises:
        ValueError: There is no such head.
    """
    source, target = graph.edge_index
    attention = graph.attention
    if head is not None:
        head = check_head(head, attention.size(1))
    weights = attention.mean(dim=1) if head is None else attention[:, head]
    weights = weights.masked_fill(source == target, 0.0)
    return weights.new_zeros(graph.num_nodes).index_add_(0, source, weights)


def _draw_spatial(axes: list[Axes], inspection: ClipInspection, head: int | None) -> None:
    spatial = inspection.spatial
    frame = inspection.frames[inspection.frame_index]
    by_rule, by_attention, received = axes
    most = 2 if spatial.num_nodes <= FEW_PATCHES else 1  # more edges would hide the picture
    draw_graph(spatial, frame, by_rule, top_k=most)
    many = f"{most} " if most > 1 else ""
    far = bool((spatial.edge_rule == EdgeRule.SIMILAR).any())
    thinned = f"\nby similarity alone: each patch's {many}most similar" if far else "\n"
    by_rule.set_title(f"patches: {_pairs(spatial, by_rule)}{thinned}", fontsize="medium")
    values = inspection.graph_attention("spatial", head)
    draw_graph(spatial, frame, by_attention, top_k=most, edge_values=values)
    lines, label = by_attention.collections[0], "attention (line: mean; nodes: to itself)"
    value_bar(lines, by_attention, label, float(values.mean()), points_below=9)
    by_attention.set_title(f"attention along edges\neach patch's {many}largest", fontsize="medium")
    values = attention_received(spatial, head)
    heat = overlay_patches(frame, values.view(inspection.grid_size), received)
    label = "sum over the other patches (line: mean)"
    add_overlay_bar(heat, received, label, float(values.mean()), points_below=9)
    received.set_title("attention received\nfrom the other patches", fontsize="medium")


def _draw_temporal(
    columns: list[list[Axes]], square: Axes, inspection: ClipInspection, head: int | None
) -> None:
    temporal = inspection.temporal
    for film, _ in columns:
        draw_film_strip(inspection.frames, temporal.num_nodes, film)
    (film, by_rule), (other_film, by_attention) = columns
    draw_graph(temporal, ax=by_rule, top_k=None)
    film.set_title(f"segments: {_pairs(temporal, by_rule)}", fontsize="medium")
    values = inspection.graph_attention("temporal", head)
    draw_graph(temporal, ax=by_attention, top_k=None, edge_values=values)
    other_film.set_title("attention along edges, both directions", fontsize="medium")
    # Where no edge is, there is no attention to show: hatched, not the colour of zero.
    matrix = torch.full((temporal.num_nodes, temporal.num_nodes), torch.nan)
    source, target = temporal.edge_index
    matrix[target, source] = values
    square.patch.set(hatch="////", edgecolor="#bbbbbb", facecolor="white")
    low, high = by_attention.collections[0].get_clim()
    heat = square.imshow(matrix.numpy(), cmap=value_colors(signed=False), vmin=low, vmax=high)
    square.set(xlabel="attended segment", ylabel="attending segment", anchor="N")
    square.set(xticks=ticks(temporal.num_nodes), yticks=ticks(temporal.num_nodes))
    square.tick_params(labelsize="small")
    missing = " (hatched: no edge)" if matrix.isnan().any() else ""
    square.set_title(f"the same as a matrix{missing}", fontsize="medium")
    label = "attention (both panels; line: mean; nodes: to itself)"
    value_bar(heat, square, label, float(values.mean()), points_below=36)


def _pairs(graph: Data, drawn: Axes) -> str:
    """How many pairs are connected, in whichever direction, and how many are drawn by rule."""
    source, target = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    connected = torch.stack([source.minimum(target), source.maximum(target)]).unique(dim=1).size(1)
    # A pair of several rules is drawn in as many strokes.
    *strokes, _ = drawn.collections
    shown = {line[[0, -1]].tobytes() for stroke in strokes for line in stroke.get_segments()}
    fewer = f", {len(shown)} drawn" if len(shown) < connected else ""
    return f"{connected} pairs connected by rule{fewer}"
