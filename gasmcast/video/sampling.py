"""Which frames of a video to look at.

A sampler maps the number of frames of a video to the indices of the frames to read. Indices are
int64, sorted, and always as many as were asked for: a video with fewer frames than samples repeats
frames in order, and every one of its frames appears.
"""

import operator
from dataclasses import dataclass

import torch
from torch import Tensor


def uniform_indices(num_frames: int, num_samples: int = 16) -> Tensor:
    r"""Frames evenly spaced from the first to the last.

    .. math:: i_k = \mathrm{round}\left(k \, \frac{T - 1}{S - 1}\right), \quad k = 0 \ldots S - 1

    Halves are rounded up. A single sample is the first frame.

    Args:
        num_frames: Frames of the video, at least 1.
        num_samples: Indices to return, at least 1.

    Returns:
        int64 ``[num_samples]``, sorted.

    Raises:
        ValueError: If ``num_frames`` or ``num_samples`` is below 1.

    Example:
        >>> uniform_indices(9, 5)
        tensor([0, 2, 4, 6, 8])
        >>> uniform_indices(2, 5)
        tensor([0, 0, 1, 1, 1])
    """
    num_frames, num_samples = _check_counts(num_frames, num_samples)
    if num_samples == 1:
        return torch.zeros(1, dtype=torch.int64)
    # Whole numbers throughout: a float grid can miss the last frame by one.
    gaps = num_samples - 1
    steps = torch.arange(num_samples, dtype=torch.int64)
    return (2 * steps * (num_frames - 1) + gaps) // (2 * gaps)


def segment_indices(
    num_frames: int, num_samples: int = 16, generator: torch.Generator | None = None
) -> Tensor:
    r"""One frame from each of ``num_samples`` equal bins.

    Without a generator the frame at the centre of each bin, the same every time (testing):

    .. math:: i_k = \left\lfloor \frac{(2k + 1) \, T}{2S} \right\rfloor

    With a generator one frame of each bin at random (training), where bin k holds the frames from
    :math:`\lfloor kT/S \rfloor` up to, not including, :math:`\lfloor (k+1)T/S \rfloor`. The bins
    share no frame and leave none out. A video with fewer frames than bins leaves nothing to choose,
    so it gives the centres with a generator too.

    Args:
        num_frames: Frames of the video, at least 1.
        num_samples: Number of bins, at least 1.
        generator: Source of randomness; None for the bin centres.

    Returns:
        int64 ``[num_samples]``, sorted.

    Raises:
        ValueError: If ``num_frames`` or ``num_samples`` is below 1.

    Example:
        >>> segment_indices(160, 4)
        tensor([ 20,  60, 100, 140])
        >>> segment_indices(3, 4)
        tensor([0, 1, 1, 2])
    """
    num_frames, num_samples = _check_counts(num_frames, num_samples)
    bins = torch.arange(num_samples + 1, dtype=torch.int64)
    if generator is None or num_frames < num_samples:
        return (2 * bins[:-1] + 1) * num_frames // (2 * num_samples)
    edges = bins * num_frames // num_samples
    widths = edges[1:] - edges[:-1]
    # In double precision the product stays below the width for any video that fits on a disk.
    draws = torch.rand(
        num_samples, dtype=torch.float64, generator=generator, device=generator.device
    )
    return edges[:-1] + (draws.cpu() * widths).to(torch.int64)


@dataclass(frozen=True)
class FrameSampling:
    r"""How clips are sampled from a video: a sampler with its settings.

    Without a stride, each clip takes one frame from each of :math:`S` equal bins of the video
    (:func:`segment_indices`). Of several clips V, clip v takes the centre of a part of each bin:

    .. math:: i_{v,k} = \left\lfloor \frac{T}{S} \left(k + \frac{2v + 1}{2V}\right) \right\rfloor

    With a stride, a clip is a run of frames so far apart. Starts are evenly spaced from the first
    to the last that is possible; a single clip starts in the middle. A video too short for the run
    is sampled from equal bins instead.

    With a generator (training), frames of each bin, or starts, are drawn at random instead.

    Attributes:
        num_frames: Frames S of a clip.
        stride: Frames from one to the next; None for equal bins.
        clips: Clips V of a video.
    """

    num_frames: int = 16
    stride: int | None = None
    clips: int = 1

    def __post_init__(self) -> None:
        for name in ("num_frames", "clips", *(["stride"] if self.stride is not None else [])):
            if operator.index(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def __call__(self, num_frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Indices of all clips of a video, clip by clip: int64 ``[clips * num_frames]``."""
        return torch.cat([self._clip(num_frames, v, generator) for v in range(self.clips)])

    def _clip(self, total: int, clip: int, generator: torch.Generator | None) -> Tensor:
        span = 1 + (self.num_frames - 1) * (self.stride or 1)
        if self.stride is not None and total >= span:
            room = total - span
            if generator is not None:
                start = int(torch.randint(room + 1, (), generator=generator))
            else:
                start = room // 2 if self.clips == 1 else clip * room // (self.clips - 1)
            return start + self.stride * torch.arange(self.num_frames)
        if generator is not None:
            return segment_indices(total, self.num_frames, generator)
        total, _ = _check_counts(total, self.num_frames)
        parts = 2 * self.clips
        bins = torch.arange(self.num_frames, dtype=torch.int64)
        return (parts * bins + 2 * clip + 1) * total // (parts * self.num_frames)


def _check_counts(num_frames: int, num_samples: int) -> tuple[int, int]:
    num_frames, num_samples = operator.index(num_frames), operator.index(num_samples)
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return num_frames, num_samples
