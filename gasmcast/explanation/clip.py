"""A video, from wherever it comes, as the clip a model takes."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gasmcast.transforms import eval_transform
from gasmcast.video import VideoClip, read_video, segment_indices

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel

ROUNDING = 0.01  # of a caller's resizing in half precision


class SampledClip(NamedTuple):
    """Frames as the model takes them, and where they are from.

    Attributes:
        frames: Float [T, 3, H, W], RGB in [0, 1], on the CPU or where the caller's were.
        pts_seconds: When each is shown, float64 [T]; None where that is not known.
        name: The file, as the caller named it; None for a tensor.
    """

    frames: Tensor
    pts_seconds: Tensor | None = None
    name: str | None = None


def load_clip(
    model: TemporalCrossAttentionModel, video: str | PathLike | VideoClip | Tensor
) -> Tensor:
    """A video as the clip the model takes.

    Args:
        model: Says how many frames of which size.
        video: A file; or what ``read_video`` made of it; or its frames, uint8
            [num_frames, 3, H, W]; or a clip ready made, float [T, 3, H, W].

    Returns:
        Float [T, 3, H, W], RGB in [0, 1], on the model's device.

    Raises:
        VideoReadError: The file cannot be read.
        ValueError: A tensor of another shape or type, without frames, or of floats that are not in
            [0, 1] or not of the model's size.
    """
    return sample_clip(model, video).frames.to(next(model.parameters()).device)


def sample_clip(
    model: TemporalCrossAttentionModel, video: str | PathLike | VideoClip | Tensor
) -> SampledClip:
    """The clip of :func:`load_clip`, wherever it lies, with what is known about it."""
    if isinstance(video, str | PathLike):
        path = fspath(video)
        video = read_video(path, lambda count: segment_indices(count, model.num_frames))
    frames = video.frames if isinstance(video, VideoClip) else video
    if not isinstance(frames, Tensor) or frames.dim() != 4 or frames.size(1) != 3:
        came = list(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise ValueError(f"video must be a path or [T, 3, H, W], got {came}")
    if not frames.numel():
        missing = "pixels" if len(frames) else "frames"
        raise ValueError(f"the video has no {missing}: got {list(frames.shape)}")
    if frames.is_floating_point():
        _check_ready(frames, model.image_size)
        return SampledClip(frames)
    if frames.dtype != torch.uint8:  # scaled by the range of their type, others would be black
        raise ValueError(f"video must be uint8, or float in [0, 1], got {frames.dtype}")
    chosen = segment_indices(len(frames), model.num_frames)
    frames = eval_transform(model.image_size)(frames[chosen])
    if not isinstance(video, VideoClip):
        return SampledClip(frames)
    shown = video.pts_seconds[chosen]
    return SampledClip(frames, None if shown.isnan().any() else shown, video.path)


def _check_ready(frames: Tensor, image_size: int) -> None:
    # Extractors leave this to their caller, for on a GPU it costs a wait. Here it is one clip, and
    # one in 0 to 255 or already normalised would get an answer and a picture, both of them wrong.
    low, high = frames.min().item(), frames.max().item()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # nan compares with nothing
        raise ValueError(f"a float video must be RGB in [0, 1], got {low:.3g} to {high:.3g}")
    if frames.shape[2:] != (image_size, image_size):
        raise ValueError(
            f"a float video must be [T, 3, {image_size}, {image_size}], as the model takes it, got "
            f"{list(frames.shape)}; uint8 is resized"
        )
