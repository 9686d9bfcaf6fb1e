"""A drawing of one graph: over the image, as arcs over time, or frame beside frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.graphs.check import check_index, check_single_graph, plain_edge_index
from gasmcast.graphs.edge_values import RIM, check_limits, draw_values
from gasmcast.graphs.inspect import measures
from gasmcast.graphs.layout import (
    Layout,
    check_image,
    frame_axes,
    join,
    lay_out,
    new_axes,
    show_images,
)
from gasmcast.graphs.rules import EdgeRule
from gasmcast.graphs.thinning import rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The palette of Okabe and Ito, told apart by colour-blind readers too. An edge of several rules is
# striped in their colours; in stripes, the orange of SIMILAR and green would look alike to many, so
# WINDOW, with which a model's graph over time has it, is blue.
RULE_COLORS = {
    EdgeRule.ADJACENT: "#0072b2",
    EdgeRule.SIMILAR: "#d55e00",
    EdgeRule.WINDOW: "#56b4e9",
    EdgeRule.NEAREST: "#009e73",
    EdgeRule.FILLED: "#e69f00",
    EdgeRule.TREE: "#000000",
    EdgeRule.OTHER: "#cc79a7",
}
NO_RULE_COLOR = "#555555"
UNBOUNDED = EdgeRule.SIMILAR | EdgeRule.OTHER  # they give a node any number of neighbours
STRIPE = 4.0  # length in line widths
FEW_SEGMENTS = 16


def draw_graph(
    data: Data,
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    top_k: int | Literal["auto"] | None = "auto",
    edge_values: Tensor | None = None,
    node: int | None = None,
    colorbar: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw one graph: nodes where they lie, edges in the colour of their rule or of a value.

    A spatial graph is drawn over the image, a temporal graph as arcs over a line, a graph over
    space and time frame beside frame.

    **By rule.** Edges that several rules made are striped in their colours; without ``edge_rule``
    all edges have one colour. Both directions of an edge are one line, self-loops are left out.

    **By value**, with ``edge_values``, attention for one. The width of a line is proportional to
    the value, its colour says the same, and the fill of a node is the value of its self-loop; the
    image turns grey. A line shows the larger of its two directions; over time the directions are
    apart: arcs above the line run from earlier to later (what a segment takes from its past), those
    below from later to earlier. Negative values are blue and positive ones red; where none is
    negative, a line in the colour bar marks the mean of all edges.

    Args:
        data: One graph with ``pos``: [N, 1] (time), [N, 2] (x, y) or [N, 3] (x, y, time); of a
            batch, ``batch[i]``.
        image: What the patches were cut from, uint8 or float in [0, 1], [3, H, W]; stretched under
            the grid of patches, from the origin to the farthest positions: so some node has to lie
            in the last row and some in the last column. For positions [N, 3] one image a frame,
            [T, 3, H, W].
        ax: Where to draw; a new figure by default.
        top_k: So many edges a node are drawn, so that a dense graph stays readable. By value, the
            largest that enter it (by size where they are signed). By rule, of the edges that can
            lead to any number of others, the most similar (the shortest, where the graph knows
            no similarity): those by ``SIMILAR`` or ``OTHER`` alone and those between frames. None:
            draw all. ``"auto"``: all of a graph over time with at most 16 segments, else 3.
        edge_values: A finite value per edge, [E], in the order of ``edge_index``.
        node: Draw only the edges that enter this node: what it takes from its neighbours. All of
            them, whatever ``top_k``.
        colorbar: Label of a colour bar for ``edge_values``; None: no colour bar.
        limits: Ends of the scale of ``edge_values``, (0, high) or (-high, high), for several
            drawings on one scale; values beyond them are drawn as those at the end. By default 0
            and the largest value of the graph (or of what enters ``node``), but at least twice the
            mean, so that nearly uniform values look nearly uniform; where there are negative
            values, plus and minus the largest size.

    Returns:
        The axes.

    Raises:
        ValueError: As for :func:`to_networkx`; a graph without positions or with more than three
            coordinates; an image of another shape; a negative ``top_k``; values of another shape or
            not finite; no such node; a colour bar or limits without values; other limits.

    Example:
        What the middle of nine patches takes from each of them, itself included:

        >>> from matplotlib.figure import Figure
        >>> from gasmcast import build_spatial_graph, generate_spatial_positions
        >>> graph = build_spatial_graph(generate_spatial_positions(3))
        >>> values = 1 / (1 + graph.edge_attr[:, 2])  # the nearer, the more
        >>> ax = draw_graph(graph, ax=Figure().add_subplot(), edge_values=values, node=4)
        >>> lines, nodes = ax.collections
        >>> [f"{value:.2f}" for value in lines.get_array()]
        ['0.41', '0.41', '0.41', '0.41', '0.50', '0.50', '0.50', '0.50']
        >>> float(nodes.get_array()[4])
        1.0
    """
    check_single_graph(data)
    if top_k not in (None, "auto") and (isinstance(top_k, str) or top_k < 0):
        raise ValueError(f'top_k must be at least 0, None or "auto", got {top_k!r}')
    layout = lay_out(data)
    if top_k == "auto":
        top_k = None if layout.flat and len(layout.places) <= FEW_SEGMENTS else 3
    check_image(image, layout)
    edge_index = plain_edge_index(data).cpu()
    if node is not None:
        node = check_index(node, len(layout.places), "node must be None or")
    if edge_values is not None:
        edge_values = _check_values(edge_values, edge_index.size(1))
    elif colorbar is not None:
        raise ValueError(f"a colour bar is of edge_values, got colorbar={colorbar!r} without them")
    _check_limits(limits, edge_values)
    if ax is None:
        ax = new_axes(layout)
    if image is not None:
        show_images(ax, image, layout, grey=edge_values is not None)
    if edge_values is not None:
        edges = draw_values(ax, layout, edge_index, edge_values, top_k, node, colorbar, limits)
        frame_axes(ax, layout, edges, directed=True)
        return ax
    pairs, rules = _pairs_to_draw(data, edge_index, layout, top_k, node)
    kinds = sorted(rules.unique().tolist(), key=lambda rule: (rule.bit_count(), rule))
    _draw_rules(ax, layout, pairs, rules, kinds)
    frame_axes(ax, layout, pairs)
    if any(kinds):
        _legend(ax, kinds, points_below=34 if layout.flat else 20 if layout.times else 4)
    return ax


def _check_values(values: Tensor, num_edges: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (num_edges,):
        came = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"edge_values must be a tensor [{num_edges}], one an edge, got {came}")
    values = values.detach().float().cpu()
    if not values.isfinite().all():
        raise ValueError(f"edge_values must be finite, got {values[~values.isfinite()][0]:g}")
    return values


def _check_limits(limits: tuple[float, float] | None, values: Tensor | None) -> None:
    check_limits(limits)
    if limits is None:
        return
    if values is None:
        raise ValueError(f"limits are of edge_values, got limits={limits} without them")
    low, high = limits
    if low not in (0, -high):
        raise ValueError(f"limits of edges must be (0, high) or (-high, high), got {limits}")
    if low == 0 and (values < 0).any():
        raise ValueError(f"limits from 0 up need values from 0 up, got {float(values.min()):g}")


def _draw_rules(ax: Axes, layout: Layout, pairs: Tensor, rules: Tensor, kinds: list[int]) -> None:
    from matplotlib.collections import LineCollection

    for rule in kinds:
        lines, across = join(layout, pairs[:, rules == rule])
        strong = layout.flat or (bool(rule & ~UNBOUNDED) and not across)
        for color, dashes in _strokes(rule):
            ax.add_collection(
                LineCollection(
                    lines,
                    colors=color,
                    linestyles=[dashes],
                    linewidths=1.2 if strong else 0.8,
                    alpha=0.8 if strong else 0.6,
                    zorder=3 if strong else 2,  # the many far edges stay behind the grid
                )
            )
    places = layout.places
    size, rim = (36, 0.6) if len(places) <= 30 else (14, 0.6) if len(places) <= 500 else (2, 0.2)
    ax.scatter(*places.t().tolist(), s=size, c="white", edgecolors=RIM, lw=rim, zorder=4)


def _pairs_to_draw(
    data: Data, edge_index: Tensor, layout: Layout, top_k: int | None, node: int | None
) -> tuple[Tensor, Tensor]:
    """Unordered pairs [2, M] with their rules [M], unbounded ones thinned to ``top_k`` a node."""
    rule = data.get("edge_rule")
    rule = torch.zeros_like(edge_index[0]) if rule is None else rule.cpu().long()
    keep = edge_index[0] != edge_index[1]
    if node is not None:
        keep &= edge_index[1] == node
    elif top_k is not None:
        across = layout.frame[edge_index[0]] != layout.frame[edge_index[1]]
        thin = keep & (rule > 0) & ((rule & ~UNBOUNDED) == 0)  # without edge_rule none is known
        thin |= across & (rule & (EdgeRule.FILLED | EdgeRule.TREE) == 0)
        source, target = edge_index[:, thin]
        closeness = measures(data).get("similarity")
        if closeness is None:
            pos = data.pos.detach().float().cpu()
            closeness = -(pos[source] - pos[target]).norm(dim=1)
        else:
            closeness = closeness.float().cpu()[thin]
        # Of its own frame and of the others, each node has its closest.
        group = 2 * target + across[thin]
        keep[thin.nonzero().squeeze(1)[rank(closeness, group) >= top_k]] = False
    low, high = edge_index[:, keep].sort(dim=0).values
    pairs, pair = torch.stack([low, high]).unique(dim=1, return_inverse=True)
    # Where the directions differ, the rule that comes first in EdgeRule.
    rules = torch.full((pairs.size(1),), 255).scatter_reduce(0, pair, rule[keep], "amin")
    return pairs, rules


def _strokes(rule: int) -> list[tuple[str, tuple]]:
    """Colour and dashes of each stroke; the strokes of several rules fill each other's gaps."""
    colors = [RULE_COLORS.get(bit, NO_RULE_COLOR) for bit in EdgeRule(rule)] or [NO_RULE_COLOR]
    if len(colors) == 1:
        return [(colors[0], (0, None))]
    period = STRIPE * len(colors)
    return [
        (color, (period - number * STRIPE, (STRIPE, period - STRIPE)))
        for number, color in enumerate(colors)
    ]


def _legend(ax: Axes, kinds: list[int], points_below: float) -> None:
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    labels = [EdgeRule(rule).label for rule in kinds]
    handles = [
        tuple(
            Line2D([], [], color=color, linestyle=dashes, lw=1.8, dash_capstyle="butt")
            for color, dashes in _strokes(rule)
        )
        for rule in kinds
    ]
    # In one row where that fits, else in columns, by the usual width of a letter in points.
    width = ax.get_window_extent().width / ax.figure.dpi * 72 + 10
    widths = [4.2 * len(label) + 38 for label in labels]
    columns = len(labels) if sum(widths) <= width else max(int(width // max(widths)), 1)
    # A fixed distance below the axes, however high they are.
    below = ScaledTranslation(0, -points_below / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        handles,
        labels,
        handler_map={tuple: HandlerTuple(ndivide=1)},
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + below,
        ncols=columns,
        handlelength=2.6,  # shows all stripes of three rules
        columnspacing=1.2,
        frameon=False,
        fontsize="small",
    )
