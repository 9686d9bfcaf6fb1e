"""What a figure begins with: its path and choices checked, then the clip inspected."""

from __future__ import annotations

from os import PathLike
from textwrap import fill
from typing import TYPE_CHECKING

from torch import Tensor

from gasmcast.explanation import ClipInspection, inspect_clip
from gasmcast.explanation.inspection import check_head, class_names_of, find_class
from gasmcast.video import VideoClip
from gasmcast.visualization.canvas import check_figure_path

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel

Video = str | PathLike | VideoClip | Tensor | ClipInspection
TITLE_WIDTH = 100  # letters


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


def prediction(inspection: ClipInspection) -> str:
    """The most probable class with its probability, as a title."""
    label, probability = inspection.top(1)[0]
    return fill(f"{plain(inspection.class_names[label])}  ({probability:.0%})", TITLE_WIDTH)


def plain(name: str) -> str:
    """A name as text: matplotlib would set what stands between two dollars as mathematics."""
    return name.replace("$", r"\$")


def heads_shown(inspection: ClipInspection, head: int | None) -> str:
    """Whether a figure shows the mean over heads or one of them."""
    of = f"{inspection.num_heads} heads"
    return f"mean of {of}" if head is None else f"head {head} of {of}"
