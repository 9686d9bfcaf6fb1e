"""Where the nodes of a graph are drawn, and what stands around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FRAMES = 64
MOST_TICKS = 16
FRAME_GAP = 1.5  # between frames side by side, in the unit of the positions


@dataclass(frozen=True)
class Layout:
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


def lay_out(data: Data) -> Layout:
    """Where the nodes of a graph with positions are drawn."""
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
    return Layout(places, frame, times, step, low, high, flat)


def check_image(image: Tensor | None, layout: Layout) -> None:
    """Raise where an image is not what lies under this layout."""
    if image is None:
        return
    leading = (len(layout.times), 3) if layout.times else (3,)
    if not isinstance(image, Tensor) or image.dim() < 2 or image.shape[:-2] != leading:
        expected = ", ".join(map(str, (*leading, "H", "W")))
        came = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image must be a tensor [{expected}], got {came}")


def new_axes(layout: Layout) -> Axes:
    """Axes of a new figure, of a size for this layout."""
    import matplotlib.pyplot as plt

    size = (6.0, 2.5 if layout.flat else 6.0)
    if layout.times:
        columns = layout.step * len(layout.times)
        width = min(max(6.0, 2.6 * len(layout.times)), 24.0)
        size = (width, width * (layout.high[1] - layout.low[1] + 2) / columns + 0.9)
    return plt.figure(figsize=size, layout="constrained").add_subplot()


def show_images(ax: Axes, image: Tensor, layout: Layout, *, grey: bool = False) -> None:
    """The image under the nodes; grey, so that all colours are those of the values."""
    if layout.flat:
        return
    for number, picture in enumerate(image if layout.times else image.unsqueeze(0)):
        shown = as_picture(picture)
        left = number * layout.step - 0.5
        style = {
            "extent": (left, left + layout.high[0] + 1, layout.high[1] + 0.5, -0.5),
            "interpolation": "bilinear",
        }
        if grey:
            ax.imshow(shown.mean(dim=2).numpy(), cmap="gray", vmin=0, vmax=1, **style)
        else:
            ax.imshow(shown.numpy(), **style)


def as_picture(image: Tensor) -> Tensor:
    """An image [3, H, W], uint8 or float in [0, 1], as float [H, W, 3] on the CPU."""
    scale = 1 if image.is_floating_point() else 255
    # Resizing can leave the range by a rounding, of which matplotlib would warn.
    return (image.detach().float().cpu() / scale).clamp(0, 1).permute(1, 2, 0)


def join(layout: Layout, edges: Tensor, *, directed: bool = False) -> tuple[list, bool]:
    """Lines along edges [2, M] (arcs over time, bows between frames); whether there are bows."""
    start, end = layout.places[edges]
    if layout.flat:
        return list(arcs(start, end, directed=directed).numpy()), False
    across = layout.frame[edges[0]] != layout.frame[edges[1]]
    lines = torch.stack([start, end], dim=1).numpy()
    curved = iter(bows(start[across], end[across]).numpy())
    return [
        next(curved) if bow else line for line, bow in zip(lines, across.tolist(), strict=True)
    ], bool(across.any())


def arcs(start: Tensor, end: Tensor, steps: int = 60, *, directed: bool = False) -> Tensor:
    """Half ellipses above the line, [M, steps, 2]; directed, those to the left lie below."""
    start, end = start[:, :1], end[:, :1]
    angle = torch.linspace(0, torch.pi, steps)
    center, radius = (start + end) / 2, (end - start) / 2
    height = radius if directed else radius.abs()
    return torch.stack([center - radius * angle.cos(), height * angle.sin()], dim=-1)


def bows(start: Tensor, end: Tensor, steps: int = 30) -> Tensor:
    """Flat bows, [M, steps, 2]: a straight line would lie on the nodes of its row."""
    along = torch.linspace(0, 1, steps).unsqueeze(1)
    start, end = start.unsqueeze(1), end.unsqueeze(1)
    rise = 0.12 * (end - start).norm(dim=-1, keepdim=True) * 4 * along * (1 - along)
    return start + (end - start) * along - rise * torch.tensor([0.0, 1.0])


def frame_axes(ax: Axes, layout: Layout, edges: Tensor, *, directed: bool = False) -> None:
    """Limits, ticks and labels around what was drawn along edges [2, M]."""
    if layout.flat:
        reach = (layout.places[edges[1], 0] - layout.places[edges[0], 0]).abs()
        highest = float(reach.max()) / 2 if reach.numel() else 1.0
        lowest = -1.1 * highest if directed else -0.12 * highest
        ax.set(ylim=(lowest, 1.1 * highest), xlabel="segment", yticks=[])
        # Half a segment on both sides, as a film strip above has it.
        ax.set_xlim(layout.low[0] - 0.5, layout.high[0] + 0.5)
        ax.spines[["left", "right", "top"]].set_visible(False)
        shown = ticks(len(layout.places))
        ax.set_xticks(layout.places[shown.start : shown.stop : shown.step, 0].tolist())
        ax.tick_params(labelsize="small")
        if directed:
            style = {"transform": ax.transAxes, "fontsize": "small", "color": "#555555"}
            ax.text(0.0, 1.0, "from earlier", va="top", **style)
            ax.text(0.0, 0.0, "from later", va="bottom", **style)
        return
    (left, top), (right, bottom) = layout.low, layout.high
    ax.set(aspect="equal", xticks=[], yticks=[])
    extent = max(right - left, bottom - top)
    # Half a patch around a grid; points that are closer together than patches need less.
    margin = 0.5 if ax.images or layout.times or extent >= 2 or not extent else extent / 10
    ax.set(xlim=(left - margin, right + margin), ylim=(bottom + margin, top - margin))
    if layout.times:
        _frame_frames(ax, layout, edges)


def ticks(count: int) -> range:
    """As many of so many places as there is room for labels."""
    return range(0, count, -(-count // MOST_TICKS) or 1)


def _frame_frames(ax: Axes, layout: Layout, edges: Tensor) -> None:
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
    across = layout.frame[edges[0]] != layout.frame[edges[1]]
    above = bows(*layout.places[edges[:, across]])[..., 1]
    highest = min(top - 0.5, float(above.min())) if len(above) else top - 0.5
    ax.set(xlim=(left - 0.7, lefts[-1] + size[0] + 0.2), ylim=(bottom + 0.7, highest - 0.2))
