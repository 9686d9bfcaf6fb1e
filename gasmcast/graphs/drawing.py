"""A drawing of one graph, over the image or as arcs over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.graphs.inspect import check_single_graph, has_similarity
from gasmcast.graphs.rules import EdgeRule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RULE_COLORS = {
    EdgeRule.ADJACENT: "#4c78a8",
    EdgeRule.SIMILAR: "#e45756",
    EdgeRule.ADJACENT | EdgeRule.SIMILAR: "#9467bd",
}


def draw_graph(
    data: Data,
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    top_k: int | None = 3,
) -> Axes:
    """Draw one built graph: nodes where they lie, edges in the colour of their rule.

    A spatial graph is drawn over the image, a temporal graph as arcs over a line. Both directions
    of an edge are one line, self-loops are left out.

    Args:
        data: As for :func:`to_networkx`.
        image: What the patches were cut from, uint8 or float in [0, 1], [3, H, W]; stretched under
            the grid of patches.
        ax: Where to draw; a new figure by default.
        top_k: Of the edges made by similarity alone, a node's ``top_k`` most similar are drawn, so
            that a dense graph stays readable. None: all.

    Returns:
        The axes.

    Raises:
        ValueError: As for :func:`to_networkx`; positions with more than two coordinates; an image
            of another shape.
    """
    from matplotlib.collections import LineCollection

    check_single_graph(data)
    if data.pos.size(1) > 2:
        raise ValueError(
            f"only positions [N, 1] or [N, 2] can be drawn, got {list(data.pos.shape)}"
        )
    if image is not None and (not isinstance(image, Tensor) or image.shape[:-2] != (3,)):
        came = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image must be a tensor [3, H, W], got {came}")
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(6, 6 if data.pos.size(1) == 2 else 2.5)).add_subplot()
    pos = data.pos.detach().float().cpu()
    flat = pos.size(1) == 1
    if flat:
        pos = torch.cat([pos, torch.zeros_like(pos)], dim=1)
    if image is not None and not flat:
        columns, rows = (pos.amax(dim=0) + 1).tolist()
        picture = image.detach().cpu().permute(1, 2, 0)
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
        ax.imshow(picture, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), interpolation="bilinear")

    pairs, rules = _pairs_to_draw(data, top_k)
    for rule in rules.unique().tolist():
        chosen = pairs[:, rules == rule]
        lines = _arcs(pos, chosen) if flat else pos[chosen.t()]
        near = bool(rule & EdgeRule.ADJACENT)
        ax.add_collection(
            LineCollection(
                lines.numpy(),
                colors=_color(rule),
                linewidths=1.2 if flat or near else 0.8,
                alpha=0.75 if flat or near else 0.5,
                zorder=3 if near else 2,  # the many far edges stay behind the grid
            )
        )
    size = 14 if len(pos) > 30 else 36
    ax.scatter(*pos.t().tolist(), s=size, c="white", edgecolors="#333333", lw=0.6, zorder=4)
    reach = (pos[pairs[1], 0] - pos[pairs[0], 0]).abs()
    _frame(ax, pos, flat, highest=float(reach.max()) / 2 if reach.numel() else 1.0)
    if pairs.numel():
        _legend(ax, rules.unique().tolist(), points_below=34 if flat else 4)
    return ax


def _pairs_to_draw(data: Data, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Unordered pairs [2, M] with their rules [M], far similar ones thinned to ``top_k`` a node."""
    edge_index, rule = data.edge_index.cpu(), data.edge_rule.cpu()
    keep = edge_index[0] != edge_index[1]
    if top_k is not None and has_similarity(data):
        far = rule == EdgeRule.SIMILAR
        similarity = data.edge_attr[:, -1].detach().float().cpu()
        # Rank of each far edge among those of its target: sort by similarity, then by target.
        order = similarity.masked_fill(~far, -torch.inf).sort(descending=True, stable=True).indices
        order = order[edge_index[1, order].sort(stable=True).indices]
        start = edge_index[1].bincount(minlength=data.num_nodes).cumsum(0).roll(1)
        if len(start):
            start[0] = 0
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order)) - start[edge_index[1, order]]
        keep &= ~far | (rank < top_k)
    low, high = edge_index[:, keep].sort(dim=0).values
    pairs, first = torch.stack([low, high]).unique(dim=1, return_inverse=True)
    rules = torch.zeros(pairs.size(1), dtype=rule.dtype)
    rules[first] = rule[keep]
    return pairs, rules


def _arcs(pos: Tensor, pairs: Tensor, steps: int = 60) -> Tensor:
    """Half ellipses above the line from the first to the second of each pair, [M, steps, 2]."""
    start, end = pos[pairs[0], :1], pos[pairs[1], :1]
    angle = torch.linspace(0, torch.pi, steps)
    center, radius = (start + end) / 2, (end - start) / 2
    return torch.stack([center - radius * angle.cos(), radius.abs() * angle.sin()], dim=-1)


def _legend(ax: Axes, rules: list[int], points_below: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    # A fixed distance below the axes, however high they are.
    below = ScaledTranslation(0, -points_below / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        handles=[Line2D([], [], color=_color(rule), label=EdgeRule(rule).label) for rule in rules],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + below,
        ncols=len(rules),
        frameon=False,
        fontsize="small",
    )


def _color(rule: int) -> str:
    return RULE_COLORS.get(EdgeRule(rule), "#777777")


def _frame(ax: Axes, pos: Tensor, flat: bool, highest: float) -> None:
    if flat:
        ax.set(ylim=(-0.12 * highest, 1.1 * highest), xlabel="segment", yticks=[])
        ax.spines[["left", "right", "top"]].set_visible(False)
        ax.set_xticks(pos[:, 0].tolist())
        ax.tick_params(labelsize="small")
        return
    ax.set(aspect="equal", xticks=[], yticks=[])
    if len(pos):
        low, high = pos.amin(dim=0) - 0.5, pos.amax(dim=0) + 0.5
        ax.set(xlim=(float(low[0]), float(high[0])), ylim=(float(high[1]), float(low[1])))
