"""Parts of a figure, each on axes that the caller has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gasmcast.video import segment_indices

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAT = "inferno"


def overlay_patches(
    ax: Axes,
    frame: Tensor,
    values: Tensor,
    colorbar: str | None = None,
    *,
    limits: tuple[float, float] | None = None,
):
    """A value per patch as a heat map over the frame.

    A patch is the more opaque the further its value lies above the mean of all, which the colour
    bar marks; at or below the mean the frame shows through. So the picture stays to be seen under
    even attention.

    Args:
        ax: Where to draw.
        frame: [3, H, W].
        values: [rows, columns].
        colorbar: Its label; None: no colour bar.
        limits: Values of the colour scale's ends; by default 0 and the largest value.

    Returns:
        The drawn heat map.
    """
    rows, columns = values.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    grey = frame.detach().float().mean(dim=0).cpu().numpy()
    ax.imshow(grey, cmap="gray", extent=extent, interpolation="bilinear", vmin=0, vmax=1)
    low, high = limits or (0.0, float(values.max()))
    values = values.detach().float().cpu().numpy()
    mean = float(values.mean())
    share = ((values - mean) / max(high - mean, 1e-12)).clip(0, 1)
    heat = ax.imshow(
        values,
        cmap=HEAT,
        extent=extent,
        alpha=0.8 * share,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])
    if colorbar is not None:
        bar = ax.figure.colorbar(heat, ax=ax, shrink=0.8, pad=0.02)
        bar.set_label(colorbar, fontsize="small")
        bar.ax.axhline(mean, color="white", lw=1.5)
    return heat


def draw_film_strip(ax: Axes, clip: Tensor, num_segments: int) -> Axes:
    """The middle frame of each segment, side by side, at the x positions 0 to S - 1."""
    shown = segment_indices(len(clip), num_segments)
    aspect = clip.size(-2) / clip.size(-1)
    for position, index in enumerate(shown.tolist()):
        picture = clip[index].detach().float().cpu().permute(1, 2, 0).clamp(0, 1).numpy()
        box = (position - 0.47, position + 0.47, 0.94 * aspect, 0.0)
        ax.imshow(picture, extent=box, interpolation="bilinear")
    ax.set(xlim=(-0.5, num_segments - 0.5), ylim=(0.94 * aspect, 0), aspect="equal")
    ax.set_axis_off()
    return ax
