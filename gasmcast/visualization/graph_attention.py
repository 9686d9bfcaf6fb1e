"""The graphs of a clip and the attention along their edges, as a figure."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.explanation import ClipInspection
from gasmcast.graphs import EdgeRule, draw_graph
from gasmcast.graphs.edge_values import value_colors
from gasmcast.visualization.canvas import new_figure, save
from gasmcast.visualization.inspected import Video, heads_shown, inspected, named
from gasmcast.visualization.panels import draw_film_strip, overlay_patches

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
) -> Figure:
    """Which patches and segments are tied, and how much each takes from the others.

    Top, the patches over the middle frame: the graph in the colours of its rules; the edges of most
    attention, as :func:`~gasmcast.draw_graph` draws them by value; the attention that each patch
    receives from the others. Bottom, the segments under their frames: the graph by rules; the
    attention on its edges; the same as a matrix, a row for each segment that attends.

    Args:
        model: Its attention is read in ``eval()`` mode; the mode is put back afterwards. Not needed
            where ``video`` is an inspection.
        video: See :func:`~gasmcast.explanation.load_clip`; or what
            :func:`~gasmcast.inspect_clip` gave, and the model is not run again.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg). Text
            stays text in pdf and svg.
        head: Which head, from 0; None: the mean over heads.

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format; there is no such head.
    """
    inspection = inspected(model, video, save_path, head=head)
    figure = new_figure(figsize=(13.5, 9))
    rows = figure.add_gridspec(2, 1, height_ratios=(1.25, 1))
    top = rows[0].subgridspec(1, 3).subplots()
    bottom = rows[1].subgridspec(2, 3, height_ratios=(1, 3.2))
    _draw_spatial(top, inspection, head)
    temporal = [[figure.add_subplot(bottom[row, column]) for row in (0, 1)] for column in (0, 1)]
    _draw_temporal(temporal, figure.add_subplot(bottom[:, 2]), inspection, head)
    figure.suptitle(f"{named(inspection)}\ngraph attention, {heads_shown(inspection, head)}")
    return save(figure, save_path)


def attention_received(graph: Data, head: int | None = None) -> Tensor:
    """Attention each node receives from the others: [N], of one head or the mean over heads.

    Self-loops are left out, so the values sum to less than N.
    """
    source, target = graph.edge_index
    weights = graph.attention.mean(dim=1) if head is None else graph.attention[:, head]
    weights = weights.masked_fill(source == target, 0.0)
    return weights.new_zeros(graph.num_nodes).index_add_(0, source, weights)


def _draw_spatial(axes: list[Axes], inspection: ClipInspection, head: int | None) -> None:
    spatial = inspection.spatial
    frame = inspection.frames[len(inspection.frames) // 2]
    by_rule, by_attention, received = axes
    most = 2 if spatial.num_nodes <= FEW_PATCHES else 1  # more edges would hide the picture
    draw_graph(spatial, frame, by_rule, top_k=most)
    many = f"{most} " if most > 1 else ""
    far = bool((spatial.edge_rule == EdgeRule.SIMILAR).any())
    thinned = f"\nby similarity alone: each patch's {many}most similar" if far else "\n"
    by_rule.set_title(f"patches: {spatial.num_edges} edges by rule{thinned}", fontsize="medium")
    draw_graph(
        spatial,
        frame,
        by_attention,
        top_k=most,
        edge_values=inspection.graph_attention("spatial", head),
        colorbar="attention (nodes: to itself)",
    )
    by_attention.set_title(f"attention along edges\neach patch's {many}largest", fontsize="medium")
    overlay_patches(
        received,
        frame,
        attention_received(spatial, head).view(inspection.grid_size),
        "sum over the other patches (line: mean)",
    )
    received.set_title("attention received\n", fontsize="medium")


def _draw_temporal(
    columns: list[list[Axes]], square: Axes, inspection: ClipInspection, head: int | None
) -> None:
    temporal = inspection.temporal
    for film, _ in columns:
        draw_film_strip(film, inspection.frames, temporal.num_nodes)
    (film, by_rule), (other_film, by_attention) = columns
    draw_graph(temporal, ax=by_rule, top_k=None)
    film.set_title(f"segments: {temporal.num_edges} edges by rule", fontsize="medium")
    values = inspection.graph_attention("temporal", head)
    draw_graph(temporal, ax=by_attention, top_k=None, edge_values=values)
    other_film.set_title("attention along edges", fontsize="medium")
    style = {"transform": by_attention.transAxes, "fontsize": "small", "color": "#555555"}
    by_attention.text(0.0, 1.0, "from earlier", va="top", **style)
    by_attention.text(0.0, 0.0, "from later", va="bottom", **style)
    # Where no edge is, there is no attention to show: hatched, not the colour of zero.
    matrix = torch.full((temporal.num_nodes, temporal.num_nodes), torch.nan)
    source, target = temporal.edge_index
    matrix[target, source] = values
    square.patch.set(hatch="////", edgecolor="#bbbbbb", facecolor="white")
    heat = square.imshow(matrix.numpy(), cmap=value_colors(signed=False), vmin=0)
    square.set(xlabel="attended segment", ylabel="attending segment")
    square.set_xticks(range(temporal.num_nodes))
    square.set_yticks(range(temporal.num_nodes))
    square.tick_params(labelsize="small")
    missing = " (hatched: no edge)" if matrix.isnan().any() else ""
    square.set_title(f"the same as a matrix{missing}", fontsize="medium")
    bar = square.figure.colorbar(heat, ax=square, shrink=0.9, pad=0.02)
    bar.set_label("attention (both panels; nodes: to itself)", fontsize="small")
    bar.ax.tick_params(labelsize="small")
