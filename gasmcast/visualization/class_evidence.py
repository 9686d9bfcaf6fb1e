"""What speaks for a class, as a figure."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from torch import Tensor

from gasmcast.explanation import ClassEvidence, ClipInspection
from gasmcast.visualization.canvas import new_figure, save
from gasmcast.visualization.inspected import (
    TITLE_LINE,
    Video,
    frames_shown,
    headline,
    inspected,
    named,
)
from gasmcast.visualization.panels import (
    draw_film_strip,
    draw_segment_bars,
    film_height,
    overlay_patches,
    sign_colors,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gasmcast.model import TemporalCrossAttentionModel


def visualize_class_evidence(
    model: TemporalCrossAttentionModel | None,
    video: Video,
    save_path: str | PathLike | None = None,
    *,
    label: int | str | None = None,
    against: int | str | None = None,
    truth: int | str | None = None,
) -> Figure:
    """What each patch and each segment adds to the logit of a class.

    Left: the patches over a frame that they come from, red where they speak for the class and blue
    where they speak against it. Right, top: the segments under their frames. Right, bottom: how
    patches, segments and bias add up to the logit. All numbers are parts of the logit, in its unit,
    but patches and segments have scales of their own: the titles say how far these are apart. See
    :meth:`ClipInspection.evidence() <gasmcast.explanation.ClipInspection.evidence>`.

    Args:
        model: As for :func:`visualize_graph_attention`.
        video: As for :func:`visualize_graph_attention`.
        save_path: As for :func:`visualize_graph_attention`.
        label: The class, by number or name; None: the most probable.
        against: A second class: what speaks for ``label`` rather than for this one, parts of the
            difference of both logits.
        truth: As for :func:`visualize_graph_attention`.

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format; there is no such class; ``label`` and
            ``against`` are the same.
    """
    inspection = inspected(model, video, save_path, classes=(label, against, truth))
    evidence = inspection.evidence(label, against)
    frames = inspection.frames
    film_share = 8 * film_height(frames, len(evidence.segments))
    title = f"{headline(inspection, truth)}\n{_title(inspection, label, against)}"
    height = 4.2 + 0.6 * film_share + TITLE_LINE * len(title.splitlines())
    figure = new_figure(figsize=(11, height))
    figure.suptitle(title)
    left, right = figure.add_gridspec(1, 2)
    unit = "logit" if against is None else "logit difference"
    ax = figure.add_subplot(left)
    overlay_patches(
        frames[inspection.frame_index],
        evidence.patches.view(inspection.grid_size),
        ax,
        colorbar=f"part of the {unit}",
        signed=True,
    )
    patch, segment = (_largest(part) for part in evidence[:2])
    title = f"patches, sum {_signed(evidence.patches.sum())}, largest {_signed(patch)}"
    ax.set_title(f"{title}\n{frames_shown(inspection)}", fontsize="medium")
    panels = right.subgridspec(3, 1, height_ratios=(film_share, 2.4, 1.8))
    film = figure.add_subplot(panels[0])
    draw_film_strip(frames, len(evidence.segments), film)
    title = f"segments, sum {_signed(evidence.segments.sum())}, largest {_signed(segment)}"
    film.set_title(f"{title}\n{_times(segment, patch)}", fontsize="medium")
    bars = figure.add_subplot(panels[1])
    draw_segment_bars(evidence.segments, bars, signed=True)
    bars.set_ylabel(f"part of the\n{unit}", fontsize="small")
    _draw_sum(figure.add_subplot(panels[2]), evidence, unit)
    return save(figure, save_path)


def _draw_sum(ax: Axes, evidence: ClassEvidence, unit: str) -> None:
    """Each part begins where the one before it ended; the last bar is their sum."""
    parts = [float(evidence.patches.sum()), float(evidence.segments.sum()), evidence.bias]
    starts = [sum(parts[:number]) for number in range(len(parts))]
    total = sum(parts)
    names = ["patches", "segments", "bias", unit]
    widths, lefts = [*parts, total], [*starts, 0.0]
    shades = [*sign_colors(parts), "#444444"]
    bars = ax.barh(range(len(names)), widths, left=lefts, color=shades, height=0.7)
    ax.bar_label(bars, [_signed(width) for width in widths], padding=4, fontsize="small")
    ax.axvline(0.0, color="black", lw=0.8)
    ends = [0.0, *lefts, *(a + b for a, b in zip(lefts, widths, strict=True))]
    room = 0.25 * (max(ends) - min(ends) or 1.0)
    ax.set_xlim(min(ends) - (room if min(ends) < 0 else 0), max(ends) + room)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.tick_params(labelsize="small")
    ax.tick_params("y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _largest(values: Tensor) -> float:
    """Of the largest size, with its sign."""
    return float(values[values.abs().argmax()])


def _times(segment: float, patch: float) -> str:
    """How far the two are apart, for colours are as strong on both sides."""
    if not patch or not segment:
        return "on a scale of its own"
    ratio = abs(segment / patch)
    of = f"{ratio:.2g}" if ratio >= 1 else f"1/{1 / ratio:.2g}"
    return f"on {of} times the scale of the patches"


def _title(inspection: ClipInspection, label: int | str | None, against: int | str | None) -> str:
    title = f"evidence for {named(inspection, inspection.label(label))}"
    if against is not None:
        title += f"\nrather than {named(inspection, inspection.label(against))}"
    return title


def _signed(value: float) -> str:
    return f"{float(value):+.3f}".replace("-", "\N{MINUS SIGN}")
