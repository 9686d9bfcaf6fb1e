"""Parts of a figure, on axes of the caller or of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gasmcast.graphs.edge_values import check_limits, value_bar, value_colors, value_limits
from gasmcast.graphs.layout import as_picture, ticks
from gasmcast.video import segment_indices
from gasmcast.visualization.canvas import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import ListedColormap
    from matplotlib.container import BarContainer
    from matplotlib.image import AxesImage

OPAQUE = 0.85  # of the largest value; the frame is still to be made out
SHADES = 513  # of a colour scale; an odd number has a middle
NOTE = "#555555"
BARS = "#a8a8a8"  # no colour of a scale: their length says how much


def overlay_patches(
    frame: Tensor,
    values: Tensor,
    ax: Axes | None = None,
    *,
    colorbar: str | None = None,
    limits: tuple[float, float] | None = None,
    signed: bool = False,
) -> AxesImage:
    """A value per patch as a heat map over the frame in grey.

    The more a value says, the more opaque its patch. Attention and the like, which is never
    negative, says something where it lies above the mean of all patches: at the mean and below it
    the frame shows bare, so the picture stays to be seen. Signed values, class evidence for one,
    are bare at 0, red above and blue below.

    The colour bar shows exactly the colours that are seen: from its left edge to its right over a
    frame from black to white. Its scale begins at 0, or has 0 in the middle, and a line marks where
    the frame is bare.

    Args:
        frame: [3, H, W], RGB, uint8 or float in [0, 1].
        values: [rows, columns], finite.
        ax: Where to draw; a new figure by default.
        colorbar: Its label; None: no colour bar.
        limits: Values of the colour scale's ends, for several pictures on one scale. By default 0
            and the largest value, but at least twice the mean, so that nearly uniform values look
            nearly uniform; or, signed, plus and minus the largest size. Values beyond them have the
            colour of the end.
        signed: Whether values below 0 have a meaning.

    Returns:
        The drawn heat map.

    Raises:
        ValueError: A frame or values of another shape; values that are not finite; a value below 0
            where ``signed`` is False; limits that do not rise.
    """
    if not isinstance(frame, Tensor) or frame.dim() != 3 or frame.size(0) != 3:
        raise ValueError(f"frame must be a tensor [3, H, W], got {_what(frame)}")
    if not isinstance(values, Tensor) or values.dim() != 2 or not values.numel():
        raise ValueError(f"values must be a tensor [rows, columns], got {_what(values)}")
    values = _plain_values(values, signed)
    check_limits(limits)
    ax = ax or new_axes((5, 4.4))
    rows, columns = values.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    grey = as_picture(frame).mean(dim=2).numpy()
    ax.imshow(grey, cmap="gray", extent=extent, interpolation="bilinear", vmin=0, vmax=1)
    bare = 0.0 if signed else float(values.mean())
    low, high = limits or value_limits(values, signed=signed)
    heat = ax.imshow(
        values.numpy(),
        cmap=_scale_colors(low, bare, high, signed=signed),
        extent=extent,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])
    if colorbar is not None:
        add_overlay_bar(heat, ax, colorbar, bare)
    return heat


def add_overlay_bar(
    heat: AxesImage, ax: Axes | list[Axes], label: str, bare: float, **place: float
) -> Colorbar:
    """The colour bar of :func:`overlay_patches`, where :func:`value_bar` puts it."""
    bar = value_bar(heat, ax, label, bare, **place)
    below = bar.orientation == "horizontal"
    bar.solids.set(rasterized=True, zorder=1)  # else there are seams between shades in a PDF
    low, high = heat.get_clim()
    black_to_white = torch.linspace(0, 1, SHADES).unsqueeze(1 if below else 0)
    bar.ax.imshow(
        black_to_white.numpy(),
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(low, high, 0, 1) if below else (0, 1, low, high),
        origin="lower",
        aspect="auto",
        zorder=0,
    )
    return bar


def draw_film_strip(clip: Tensor, num_segments: int, ax: Axes | None = None) -> list[AxesImage]:
    """The middle frame of each segment, side by side, at the x positions 0 to S - 1.

    The frames keep their shape. So that they stand over the bars or the arcs of other axes of the
    same width, these axes must be high enough: a frame is about as wide as the axes by S, so they
    need 1/S of their width for square frames.

    Args:
        clip: [T, 3, H, W], RGB, uint8 or float in [0, 1].
        num_segments: S.
        ax: Where to draw; a new figure by default.

    Returns:
        The drawn frames, S.

    Raises:
        ValueError: A clip of another shape or without frames; fewer than one segment.
    """
    if not isinstance(clip, Tensor) or clip.dim() != 4 or clip.size(1) != 3 or not len(clip):
        raise ValueError(f"clip must be a tensor [T, 3, H, W], got {_what(clip)}")
    if num_segments < 1:
        raise ValueError(f"num_segments must be at least 1, got {num_segments}")
    shown = segment_indices(len(clip), num_segments)
    aspect = clip.size(-2) / clip.size(-1)
    ax = ax or new_axes((num_segments, aspect))
    drawn = [
        ax.imshow(
            as_picture(clip[index]).numpy(),
            extent=(position - 0.47, position + 0.47, 0.94 * aspect, 0.0),
            interpolation="bilinear",
        )
        for position, index in enumerate(shown.tolist())
    ]
    ax.set(xlim=(-0.5, num_segments - 0.5), ylim=(0.94 * aspect, 0), aspect="equal", anchor="S")
    ax.set_axis_off()
    return drawn


def film_height(clip: Tensor, num_segments: int) -> float:
    """How high the axes of a film strip must be, in their widths; a single frame may be smaller."""
    return min(clip.size(-2) / clip.size(-1) / num_segments, 0.5)


def draw_segment_bars(
    values: Tensor,
    ax: Axes | None = None,
    *,
    limits: tuple[float, float] | None = None,
    signed: bool = False,
) -> BarContainer:
    """A value per segment as bars at the x positions 0 to S - 1, to stand under a film strip.

    Bars begin at 0. They are grey, and a dashed line marks the mean, which for attention is what
    uniform attention gives; signed values are red above 0 and blue below, as in
    :func:`overlay_patches`.

    Args:
        values: [S], finite.
        ax: Where to draw; a new figure by default.
        limits: Ends of the y axis, for several panels on one scale.
        signed: Whether values below 0 have a meaning.

    Returns:
        The bars.

    Raises:
        ValueError: Values of another shape or not finite; a value below 0 where ``signed`` is
            False; limits that do not rise.
    """
    if not isinstance(values, Tensor) or values.dim() != 1 or not len(values):
        raise ValueError(f"values must be a tensor [S], got {_what(values)}")
    values = _plain_values(values, signed)
    check_limits(limits)
    num_segments = len(values)
    ax = ax or new_axes((num_segments * 0.6 + 1, 2.5))
    shades = sign_colors(values.tolist()) if signed else BARS
    bars = ax.bar(range(num_segments), values.tolist(), width=0.85, color=shades)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.1 * (high - low or 1.0)
    ax.set_xlim(-0.5, num_segments - 0.5)
    ax.set_ylim(limits or (low - room * (low < 0), high + room * (high > 0 or low == 0)))
    if signed:
        ax.axhline(0.0, color="black", lw=0.8)
    else:
        ax.axhline(float(values.mean()), color="black", lw=0.8, ls="--")
    ax.set_xticks(ticks(num_segments))
    ax.set_xlabel("segment", fontsize="small")
    ax.tick_params(labelsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return bars


def sign_colors(values: list[float]) -> list[tuple[float, ...]]:
    """For bars, whose length already says how much: one red from 0 up, one blue below."""
    colors = value_colors(signed=True)
    return [colors(0.88 if value >= 0 else 0.12) for value in values]


def overlay_colors(steps: int, *, signed: bool) -> Tensor:
    """Red, green, blue and opacity, [steps, 4] in [0, 1], the more opaque the further from bare.

    From where a patch is bare to the largest value; signed, from the lowest value to the highest
    with the bare in the middle. Figures and page have the same.
    """
    share = torch.linspace(-1 if signed else 0, 1, steps, dtype=torch.float64)
    place = (share + 1) / 2 if signed else share
    colors = torch.from_numpy(value_colors(signed=signed)(place.numpy()))
    colors[:, 3] = OPAQUE * share.abs().sqrt()  # a rise that can be seen from the start
    return colors


def _plain_values(values: Tensor, signed: bool) -> Tensor:
    values = values.detach().float().cpu()
    if not values.isfinite().all():
        raise ValueError(f"values must be finite, got {values[~values.isfinite()][0]:g}")
    if not signed and values.min() < 0:
        raise ValueError(f"values below 0 need signed=True, got {values.min():g}")
    return values


def _scale_colors(low: float, bare: float, high: float, *, signed: bool) -> ListedColormap:
    """The overlay's colours along a scale on which ``bare`` lies anywhere."""
    from matplotlib.colors import ListedColormap

    value = torch.linspace(low, high, SHADES, dtype=torch.float64)
    reach = max(high - bare, bare - low) if signed else max(high - bare, 1e-12)
    share = ((value - bare) / reach).clamp(-1 if signed else 0, 1)
    place = (share + 1) / 2 if signed else share
    colors = overlay_colors(SHADES, signed=signed)
    return ListedColormap(colors[(place * (SHADES - 1)).round().long()].numpy())


def _what(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
