"""A drawing of one graph: over the image, as arcs over time, or frame beside frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.graphs.check import check_single_graph, plain_edge_index
from gasmcast.graphs.inspect import measures
from gasmcast.graphs.rules import EdgeRule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The palette of Okabe and Ito, told apart by colour-blind readers too. An edge of several rules is
# striped in their colours.
RULE_COLORS = {
    EdgeRule.ADJACENT: "#0072b2",
    EdgeRule.SIMILAR: "#d55e00",
    EdgeRule.WINDOW: "#009e73",
    EdgeRule.NEAREST: "#56b4e9",
    EdgeRule.FILLED: "#e69f00",
    EdgeRule.TREE: "#000000",
    EdgeRule.OTHER: "#cc79a7",
}
NO_RULE_COLOR = "#555555"
UNBOUNDED = EdgeRule.SIMILAR | EdgeRule.OTHER  # such a rule can tie a node to any number of others
STRIPE = 4.0  # length in line widths
MOST_FRAMES = 64
MOST_TICKS = 16
FRAME_GAP = 1.5  # between frames side by side, in the unit of the positions


def draw_graph(
    data: Data,
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    top_k: int | None = 3,
) -> Axes:
    """Draw one graph: nodes where they lie, edges in the colour of their rule.

    A spatial graph is drawn over the image, a temporal graph as arcs over a line, a graph over
    space and time frame beside frame. Edges that several rules made are striped in their colours;
    without ``edge_rule`` all edges have one colour. Both directions of an edge are one line,
    self-loops are left out.

    Args:
        data: One graph with ``pos``: [N, 1] (time), [N, 2] (x, y) or [N, 3] (x, y, time); of a
            batch, ``batch[i]``.
        image: What the patches were cut from, uint8 or float in [0, 1], [3, H, W]; stretched under
            the grid of patches. For positions [N, 3] one image a frame, [T, 3, H, W].
        ax: Where to draw; a new figure by default.
        top_k: Of the edges that can tie a node to any number of others, each node's ``top_k`` most
            similar are drawn (the shortest, where the graph knows no similarity), so that a dense
            graph stays readable. These are the edges by ``SIMILAR`` or ``OTHER`` alone and those
            between frames. None: draw all.

    Returns:
        The axes.

    Raises:
        ValueError: As for :func:`to_networkx`; a graph without positions or with more than three
            coordinates; an image of another shape; a negative ``top_k``.
    """
    from matplotlib.collections import LineCollection

    check_single_graph(data)
    if top_k is not None and top_k < 0:
        raise ValueError(f"top_k must be at least 0 or None, got {top_k}")
    layout = _lay_out(data)
    _check_image(image, layout)
    if ax is None:
        ax = _new_axes(layout)
    if image is not None:
        _show_images(ax, image, layout)
    pairs, rules = _pairs_to_draw(data, layout, top_k)
    kinds = sorted(rules.unique().tolist(), key=lambda rule: (rule.bit_count(), rule))
    for rule in kinds:
        lines, across = _lines(layout, pairs[:, rules == rule])
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
    ax.scatter(*places.t().tolist(), s=size, c="white", edgecolors="#333333", lw=rim, zorder=4)
    _frame_axes(ax, layout, pairs)
    if any(kinds):
        _legend(ax, kinds, points_below=34 if layout.flat else 20 if layout.times else 4)
    return ax


@dataclass(frozen=True)
class _Layout:
    """Where the nodes are drawn.

    Attributes:
        places: [N, 2].
        frame: The frame of each node, [N]; all 0 but for graphs over space and time.
        times: The time of each frame; empty but for graphs over space and time.
        step: From one frame to the next beside it.
        low: Smallest x and y of a node within its frame.
        high: Largest.
        flat: Nodes on a line, edges as arcs above it.
    """

    places: Tensor
    frame: Tensor
    times: list[float]
    step: float
    low: list[float]
    high: list[float]
    flat: bool


def _lay_out(data: Data) -> _Layout:
    pos = data.get("pos")
    if pos is None:
        raise ValueError(f"a drawing needs positions, got {data} without pos")
    if pos.size(1) not in (1, 2, 3):
        raise ValueError(
            f"only positions [N, 1], [N, 2] or [N, 3] can be drawn, got {list(pos.shape)}"
        )
    pos = pos.detach().float().cpu()
    frame, times = torch.zeros(len(pos), dtype=torch.long), []
    if pos.size(1) == 3:
        values, frame = pos[:, 2].unique(return_inverse=True)
        times = values.tolist()
        if len(times) > MOST_FRAMES:
            raise ValueError(
                f"positions [N, 3] are drawn as (x, y, time), at most {MOST_FRAMES} frames, got "
                f"{len(times)} different times: for points in space, draw two of the coordinates"
            )
    flat = pos.size(1) == 1
    places = torch.cat([pos, torch.zeros_like(pos)], dim=1) if flat else pos[:, :2].clone()
    low, high = (
        (places.amin(dim=0).tolist(), places.amax(dim=0).tolist())
        if len(pos)
        else ([0.0, 0.0], [0.0, 0.0])
    )
    step = high[0] - low[0] + 1 + FRAME_GAP
    places[:, 0] += frame * step
    return _Layout(places, frame, times, step, low, high, flat)


def _check_image(image: Tensor | None, layout: _Layout) -> None:
    if image is None:
        return
    leading = (len(layout.times), 3) if layout.times else (3,)
    if not isinstance(image, Tensor) or image.dim() < 2 or image.shape[:-2] != leading:
        expected = ", ".join(map(str, (*leading, "H", "W")))
        came = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image must be a tensor [{expected}], got {came}")


def _new_axes(layout: _Layout) -> Axes:
    import matplotlib.pyplot as plt

    size = (6.0, 2.5 if layout.flat else 6.0)
    if layout.times:
        columns = layout.step * len(layout.times)
        width = min(max(6.0, 2.6 * len(layout.times)), 24.0)
        size = (width, width * (layout.high[1] - layout.low[1] + 2) / columns + 0.9)
    return plt.figure(figsize=size, layout="constrained").add_subplot()


def _show_images(ax: Axes, image: Tensor, layout: _Layout) -> None:
    if layout.flat:
        return
    for number, picture in enumerate(image if layout.times else image.unsqueeze(0)):
        picture = picture.detach().cpu().permute(1, 2, 0)
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
        left = number * layout.step - 0.5
        extent = (left, left + layout.high[0] + 1, layout.high[1] + 0.5, -0.5)
        ax.imshow(picture, extent=extent, interpolation="bilinear")


def _pairs_to_draw(data: Data, layout: _Layout, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Unordered pairs [2, M] with their rules [M], unbounded ones thinned to ``top_k`` a node."""
    edge_index = plain_edge_index(data).cpu()
    rule = data.get("edge_rule")
    rule = torch.zeros_like(edge_index[0]) if rule is None else rule.cpu().long()
    keep = edge_index[0] != edge_index[1]
    if top_k is not None:
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
        keep[thin.nonzero().squeeze(1)[_rank(closeness, group) >= top_k]] = False
    low, high = edge_index[:, keep].sort(dim=0).values
    pairs, pair = torch.stack([low, high]).unique(dim=1, return_inverse=True)
    # Where the directions differ, the rule that comes first in EdgeRule.
    rules = torch.full((pairs.size(1),), 255).scatter_reduce(0, pair, rule[keep], "amin")
    return pairs, rules


def _rank(closeness: Tensor, group: Tensor) -> Tensor:
    """Place of each edge among those of its group, the closest first, equals in their order."""
    order = closeness.sort(descending=True, stable=True).indices
    order = order[group[order].sort(stable=True).indices]
    sizes = group.bincount()
    first = sizes.cumsum(0) - sizes
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - first[group[order]]
    return rank


def _lines(layout: _Layout, pairs: Tensor) -> tuple[list, bool]:
    """What joins the pairs (arcs over time, bows between frames, lines); whether there are bows."""
    start, end = layout.places[pairs]
    if layout.flat:
        return list(_arcs(start, end).numpy()), False
    across = layout.frame[pairs[0]] != layout.frame[pairs[1]]
    straight = torch.stack([start, end], dim=1)[~across]
    return [*straight.numpy(), *_bows(start[across], end[across]).numpy()], bool(across.any())


def _arcs(start: Tensor, end: Tensor, steps: int = 60) -> Tensor:
    """Half ellipses above the line, [M, steps, 2]."""
    start, end = start[:, :1], end[:, :1]
    angle = torch.linspace(0, torch.pi, steps)
    center, radius = (start + end) / 2, (end - start) / 2
    return torch.stack([center - radius * angle.cos(), radius.abs() * angle.sin()], dim=-1)


def _bows(start: Tensor, end: Tensor, steps: int = 30) -> Tensor:
    """Flat bows, [M, steps, 2]: a straight line would lie on the nodes of its row."""
    along = torch.linspace(0, 1, steps).unsqueeze(1)
    start, end = start.unsqueeze(1), end.unsqueeze(1)
    rise = 0.12 * (end - start).norm(dim=-1, keepdim=True) * 4 * along * (1 - along)
    return start + (end - start) * along - rise * torch.tensor([0.0, 1.0])


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


def _frame_axes(ax: Axes, layout: _Layout, pairs: Tensor) -> None:
    if layout.flat:
        reach = (layout.places[pairs[1], 0] - layout.places[pairs[0], 0]).abs()
        highest = float(reach.max()) / 2 if reach.numel() else 1.0
        ax.set(ylim=(-0.12 * highest, 1.1 * highest), xlabel="segment", yticks=[])
        ax.spines[["left", "right", "top"]].set_visible(False)
        ax.set_xticks(layout.places[:: -(-len(layout.places) // MOST_TICKS) or 1, 0].tolist())
        ax.tick_params(labelsize="small")
        return
    (left, top), (right, bottom) = layout.low, layout.high
    ax.set(aspect="equal", xticks=[], yticks=[])
    extent = max(right - left, bottom - top)
    # Half a patch around a grid; points that are closer together than patches need less.
    margin = 0.5 if ax.images or layout.times or extent >= 2 or not extent else extent / 10
    ax.set(xlim=(left - margin, right + margin), ylim=(bottom + margin, top - margin))
    if layout.times:
        _frame_frames(ax, layout, pairs)


def _frame_frames(ax: Axes, layout: _Layout, pairs: Tensor) -> None:
    """A box around each frame, its time below, and room for the bows above."""
    from matplotlib.patches import Rectangle

    (left, top), (right, bottom) = layout.low, layout.high
    size = (right - left + 1, bottom - top + 1)
    lefts = [left - 0.5 + number * layout.step for number in range(len(layout.times))]
    for x in lefts:
        ax.add_patch(Rectangle((x, top - 0.5), *size, fill=False, ec="#bbbbbb", lw=0.8, zorder=1))
    ax.set_xticks([x + size[0] / 2 for x in lefts], [f"t = {time:g}" for time in layout.times])
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_visible(False)
    across = layout.frame[pairs[0]] != layout.frame[pairs[1]]
    bows = _bows(*layout.places[pairs[:, across]])
    highest = min(top - 0.5, float(bows[..., 1].min())) if len(bows) else top - 0.5
    ax.set(xlim=(left - 0.7, lefts[-1] + size[0] + 0.2), ylim=(bottom + 0.7, highest - 0.2))
