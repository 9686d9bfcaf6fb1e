"""Parts of a figure, each on axes that the caller has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gasmcast.graphs.edge_values import value_colors
from gasmcast.video import segment_indices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import ListedColormap
    from matplotlib.container import BarContainer
    from matplotlib.image import AxesImage

OPAQUE = 0.85  # of the largest value; the frame is still to be made out
SHADES = 513  # of a colour scale; an odd number has a middle
NOTE = "#555555"


def overlay_patches(
    ax: Axes,
    frame: Tensor,
    values: Tensor,
    colorbar: str | None = None,
    *,
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
        ax: Where to draw.
        frame: [3, H, W], RGB in [0, 1].
        values: [rows, columns], finite.
        colorbar: Its label; None: no colour bar.
        limits: Values of the colour scale's ends, for several pictures on one scale. By default 0
            and the largest value, but at least twice the mean, so that all but even values look all
            but even; or, signed, plus and minus the largest size.
        signed: Whether values below 0 have a meaning.

    Returns:
        The drawn heat map.

    Raises:
        ValueError: A frame or values of another shape; values that are not finite; a value below 0
            where ``signed`` is False.
    """
    if not isinstance(frame, Tensor) or frame.dim() != 3 or frame.size(0) != 3:
        raise ValueError(f"frame must be a tensor [3, H, W], got {_what(frame)}")
    if not isinstance(values, Tensor) or values.dim() != 2 or not values.numel():
        raise ValueError(f"values must be a tensor [rows, columns], got {_what(values)}")
    values = _plain_values(values, signed)
    rows, columns = values.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    grey = frame.detach().float().mean(dim=0).cpu().numpy()
    ax.imshow(grey, cmap="gray", extent=extent, interpolation="bilinear", vmin=0, vmax=1)
    bare = 0.0 if signed else float(values.mean())
    low, high = limits or _limits(values, bare, signed)
    heat = ax.imshow(
        values.numpy(),
        cmap=_overlay_colors(low, bare, high, signed=signed),
        extent=extent,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])
    if colorbar is not None:
        add_overlay_bar(heat, ax, colorbar, bare)
    return heat


def add_overlay_bar(heat: AxesImage, ax: Axes | list[Axes], label: str, bare: float) -> Colorbar:
    """The colour bar of :func:`overlay_patches`, beside one or several axes."""
    bar = heat.figure.colorbar(heat, ax=ax, shrink=0.8, pad=0.02, aspect=14)
    bar.solids.set(rasterized=True, zorder=1)  # else there are seams between shades in a PDF
    low, high = heat.get_clim()
    bar.ax.imshow(
        torch.linspace(0, 1, SHADES).unsqueeze(0).numpy(),
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(0, 1, low, high),
        aspect="auto",
        zorder=0,
    )
    bar.ax.axhline(bare, color="black", lw=1, zorder=2)
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    return bar


def draw_film_strip(ax: Axes, clip: Tensor, num_segments: int) -> Axes:
    """The middle frame of each segment, side by side, at the x positions 0 to S - 1.

    The frames keep their shape. So that they stand over the bars or the arcs of other axes of the
    same width, these axes must be high enough: a frame is about as wide as the axes by S.

    Args:
        ax: Where to draw.
        clip: [T, 3, H, W], RGB in [0, 1].
        num_segments: S.

    Returns:
        The axes.

    Raises:
        ValueError: A clip of another shape or without frames; fewer than one segment.
    """
    if not isinstance(clip, Tensor) or clip.dim() != 4 or clip.size(1) != 3 or not len(clip):
        raise ValueError(f"clip must be a tensor [T, 3, H, W], got {_what(clip)}")
    if num_segments < 1:
        raise ValueError(f"num_segments must be at least 1, got {num_segments}")
    shown = segment_indices(len(clip), num_segments)
    aspect = clip.size(-2) / clip.size(-1)
    for position, index in enumerate(shown.tolist()):
        picture = clip[index].detach().float().cpu().permute(1, 2, 0).clamp(0, 1).numpy()
        box = (position - 0.47, position + 0.47, 0.94 * aspect, 0.0)
        ax.imshow(picture, extent=box, interpolation="bilinear")
    ax.set(xlim=(-0.5, num_segments - 0.5), ylim=(0.94 * aspect, 0), aspect="equal", anchor="S")
    ax.set_axis_off()
    return ax


def draw_segment_bars(
    ax: Axes, values: Tensor, *, limits: tuple[float, float] | None = None, signed: bool = False
) -> BarContainer:
    """A value per segment as bars at the x positions 0 to S - 1, to stand under a film strip.

    Bars begin at 0. A dashed line marks the mean, which for attention is what even attention
    gives; signed values are red above 0 and blue below, as in :func:`overlay_patches`.

    Args:
        ax: Where to draw.
        values: [S], finite.
        limits: Ends of the y axis, for several panels on one scale.
        signed: Whether values below 0 have a meaning.

    Returns:
        The bars.

    Raises:
        ValueError: Values of another shape or not finite; a value below 0 where ``signed`` is
            False.
    """
    if not isinstance(values, Tensor) or values.dim() != 1 or not len(values):
        raise ValueError(f"values must be a tensor [S], got {_what(values)}")
    values = _plain_values(values, signed)
    num_segments = len(values)
    colors = value_colors(signed=signed)
    shades = [colors(0.88 if value >= 0 else 0.12) for value in values] if signed else colors(0.55)
    bars = ax.bar(range(num_segments), values.tolist(), width=0.85, color=shades)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.1 * (high - low or 1.0)
    ax.set_xlim(-0.5, num_segments - 0.5)
    ax.set_ylim(limits or (low - room * (low < 0), high + room * (high > 0 or low == 0)))
    if signed:
        ax.axhline(0.0, color="black", lw=0.8)
    else:
        ax.axhline(float(values.mean()), color=NOTE, lw=0.8, ls="--")
    ax.set_xticks(range(num_segments))
    ax.set_xlabel("segment", fontsize="small")
    ax.tick_params(labelsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return bars


def _plain_values(values: Tensor, signed: bool) -> Tensor:
    values = values.detach().float().cpu()
    if not values.isfinite().all():
        raise ValueError(f"values must be finite, got {values[~values.isfinite()][0]:g}")
    if not signed and values.min() < 0:
        raise ValueError(f"values below 0 need signed=True, got {values.min():g}")
    return values


def _limits(values: Tensor, bare: float, signed: bool) -> tuple[float, float]:
    most = float(values.abs().max())
    if signed:
        return (-most, most) if most else (-1.0, 1.0)
    return 0.0, max(most, 2 * bare) or 1.0


def _overlay_colors(low: float, bare: float, high: float, *, signed: bool) -> ListedColormap:
    """Colours that are the more opaque the further from ``bare``."""
    from matplotlib.colors import ListedColormap

    value = torch.linspace(low, high, SHADES, dtype=torch.float64)
    reach = max(high - bare, bare - low) if signed else max(high - bare, 1e-12)
    share = ((value - bare) / reach).clamp(-1 if signed else 0, 1)
    place = (share + 1) / 2 if signed else share
    colors = torch.from_numpy(value_colors(signed=signed)(place.numpy()))
    colors[:, 3] = OPAQUE * share.abs().sqrt()  # a rise that can be seen from the start
    return ListedColormap(colors.numpy())


def _what(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
