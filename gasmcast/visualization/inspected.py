"""What a figure begins with: its path and choices checked, then the clip inspected."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from torch import Tensor

from gasmcast.explanation import ClipInspection, inspect_clip
from gasmcast.explanation.inspection import check_head, class_names_of, find_class
from gasmcast.video import VideoClip
from gasmcast.visualization.canvas import check_figure_path
from gasmcast.visualization.labels import plain_label

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel

Video = str | PathLike | VideoClip | Tensor | ClipInspection
TITLE_WIDTH = 86  # letters
TITLE_LINE = 0.25  # inches
MOST_FRAMES = 4  # to be named one by one


def inspected(
    model: TemporalCrossAttentionModel | None,
    video: Video,
    save_path: str | PathLike | None,
    *,
    head: int | None = None,
    classes: tuple[int | str | None, ...] = (),
    needs_layers: bool = False,
) -> ClipInspection:
    """The inspection of a clip, made if need be, after all that can be wrong was looked at."""
    check_figure_path(save_path)
    if isinstance(video, ClipInspection):
        names, num_heads, has_layers = video.class_names, video.num_heads, bool(video.layers)
    elif model is None:
        raise ValueError(
            f"without a model, video must be a ClipInspection, got {type(video).__name__}"
        )
    else:
        names = class_names_of(model)
        num_heads = model.gasm_cast.semantic_graph.graph_attention.attention.heads
        has_layers = bool(model.gasm_cast.fusion_layers)
    if needs_layers and not has_layers:
        raise ValueError('the model has no fusion layers to show: it was made with fusion="late"')
    if head is not None:
        check_head(head, num_heads)
    for name in classes:
        if name is not None:
            find_class(names, name)
    return video if isinstance(video, ClipInspection) else inspect_clip(model, video)


def named(inspection: ClipInspection, label: int | None = None) -> str:
    """A class with its probability, for a title; None: the most probable."""
    label = inspection.label(label)
    name = plain_label(inspection.class_names[label], most=2 * TITLE_WIDTH)
    return fill(f"{name}  ({inspection.probabilities[label]:.1%})", TITLE_WIDTH)


def headline(inspection: ClipInspection, truth: int | str | None) -> str:
    """The file, what the model says of it, and whether that is right, as far as it is known."""
    file = f"{plain_label(Path(inspection.name).name)}: " if inspection.name else ""
    said = f"{file}says {named(inspection)}"
    if truth is None:
        return fill(said, TITLE_WIDTH)
    label = inspection.label(truth)
    if label == inspection.label():
        return fill(f"{said}, which is right", TITLE_WIDTH)
    name = plain_label(inspection.class_names[label], most=2 * TITLE_WIDTH)
    return f"{fill(said, TITLE_WIDTH)}\n{fill(f'true: {name}', TITLE_WIDTH)}"


def frames_shown(inspection: ClipInspection) -> str:
    """Which frame lies under the patches, and which ones the patches are made of."""
    last = len(inspection.frames) - 1
    frame, made_of = inspection.frame_index, inspection.patch_frames
    if made_of == (frame,):
        return f"patches of frame {frame} (of 0 to {last})"
    drawn = f"patches over frame {frame} (of 0 to {last})"
    if made_of is None:
        return drawn
    if len(made_of) > MOST_FRAMES:
        return f"{drawn}, made of {len(made_of)} from {made_of[0]} to {made_of[-1]}"
    *first, final = map(str, made_of)
    return f"{drawn}, made of {', '.join(first)} and {final}"


def heads_shown(inspection: ClipInspection, head: int | None) -> str:
    """Whether a figure shows the mean over heads or one of them."""
    if inspection.num_heads == 1:
        return "its one head"
    if head is None:
        return f"mean of {inspection.num_heads} heads"
    return f"head {head} of 0 to {inspection.num_heads - 1}"
