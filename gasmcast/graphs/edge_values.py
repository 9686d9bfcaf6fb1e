"""A drawing of what a value per edge says, attention for one: colour and width of the lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gasmcast.graphs.layout import Layout, join
from gasmcast.graphs.thinning import rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap

MOST_WIDTH = 2.5  # points, of a line at the end of the scale
FEW_NODES = 100
RIM = "#333333"


def value_colors(*, signed: bool) -> Colormap:
    """The colours of values: pale to dark red from 0 up; blue, white, red around 0 where signed."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    if signed:
        return mpl.colormaps["RdBu_r"]
    # Without the palest quarter, which neither white paper nor a bright frame sets off.
    return ListedColormap(mpl.colormaps["YlOrRd"](torch.linspace(0.25, 1, 256).numpy()))


def value_limits(values: Tensor, *, signed: bool) -> tuple[float, float]:
    """Ends of the colour scale of these values.

    0 and the largest, but at least twice the mean, so that nearly uniform values look nearly
    uniform; signed, plus and minus the largest size.
    """
    most = float(values.abs().max()) if len(values) else 0.0
    if signed:
        return (-most, most) if most else (-1.0, 1.0)
    return 0.0, max(most, 2 * float(values.mean())) if most else 1.0


def check_limits(limits: tuple[float, float] | None) -> None:
    """Raise where the ends of a scale do not rise."""
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"limits must be the lower and the higher end, got {limits}")


def value_bar(
    drawn: ScalarMappable,
    ax: Axes | list[Axes],
    label: str,
    mark: float | None = None,
    *,
    points_below: float | None = None,
) -> Colorbar:
    """A colour bar beside one or several axes; or so far below one, whose size it leaves alone.

    With a line at ``mark``.
    """
    from matplotlib.transforms import ScaledTranslation

    figure = drawn.axes.figure
    if points_below is None:
        bar = figure.colorbar(drawn, ax=ax, shrink=0.8, pad=0.02)
    else:
        below = ScaledTranslation(0, -points_below / 72, figure.dpi_scale_trans)
        place = ax.inset_axes((0.05, -0.035, 0.9, 0.035), transform=ax.transAxes + below)
        bar = figure.colorbar(drawn, cax=place, orientation="horizontal")
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    if mark is not None:
        line = bar.ax.axvline if bar.orientation == "horizontal" else bar.ax.axhline
        line(mark, color="black", lw=1, zorder=2)
    return bar


def draw_values(
    ax: Axes,
    layout: Layout,
    edge_index: Tensor,
    values: Tensor,
    top_k: int | None,
    node: int | None,
    colorbar: str | None,
    limits: tuple[float, float] | None,
) -> Tensor:
    """Draw edges and nodes by their values; returns what was drawn, [2, M]."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    loop = edge_index[0] == edge_index[1]
    loops = torch.full((len(layout.places),), torch.nan)
    loops[edge_index[0, loop]] = values[loop]
    edges, values = edge_index[:, ~loop], values[~loop]
    if node is not None:
        entering = edges[1] == node
        edges, values = edges[:, entering], values[entering]
        loops[torch.arange(len(loops)) != node] = torch.nan
    # Before any are left out, so that the scale is the same for every top_k.
    known = torch.cat([values, loops[~loops.isnan()]])
    if node is None:
        drawn = (
            torch.ones_like(values, dtype=torch.bool)
            if top_k is None
            else rank(values.abs(), edges[1]) < top_k
        )
        edges, values = (
            (edges[:, drawn], values[drawn])
            if layout.flat
            else _larger_direction(edges, values, drawn)
        )
    order = values.abs().argsort(stable=True)  # the strongest on top
    edges, values = edges[:, order], values[order]

    low, high = limits or value_limits(known, signed=bool((known < 0).any()))
    signed = low < 0
    colors, norm = value_colors(signed=signed), Normalize(low, high)
    widths = MOST_WIDTH * (values.abs() / high).clamp(max=1)
    lines, _ = join(layout, edges, directed=True)
    drawing = LineCollection(
        lines,
        array=values.numpy(),
        cmap=colors,
        norm=norm,
        linewidths=widths.numpy(),
        capstyle="butt",
        zorder=3,
    )
    ax.add_collection(drawing)
    colors = colors.with_extremes(bad="white")  # a node without a self-loop
    few = len(layout.places) <= FEW_NODES
    sizes = torch.full_like(loops, 70.0 if few else 24.0)
    if node is not None:
        sizes[node] *= 2.5
        aside = torch.ones_like(loops, dtype=torch.bool)
        aside[edges[0]] = aside[node] = False
        sizes[aside] = 4.0
    ax.scatter(
        *layout.places.t().tolist(),
        s=sizes.numpy(),
        c=loops.numpy(),
        cmap=colors,
        norm=norm,
        plotnonfinite=True,
        edgecolors=RIM,
        lw=0.8 if few else 0.5,
        zorder=4,
    )
    if colorbar is not None:
        value_bar(drawing, ax, colorbar, mark=None if signed else float(known.mean()))
    return edges


def _larger_direction(edges: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Of both directions of each pair the larger value, for pairs of which one is to be drawn."""
    pairs, pair = edges.sort(dim=0).values.unique(dim=1, return_inverse=True)
    keep = torch.zeros(pairs.size(1), dtype=torch.bool).index_fill_(0, pair[drawn], value=True)
    first = rank(values.abs(), pair) == 0
    larger = torch.empty(pairs.size(1)).index_copy_(0, pair[first], values[first])
    return pairs[:, keep], larger[keep]
