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

    Without a stride, each clip takes one frame from each of S equal bins of the T frames of a video
    (:func:`segment_indices`). Of V clips, clip v takes the centre of the v-th part of each bin:

    .. math:: i_{v,k} = \left\lfloor \frac{T}{S} \left(k + \frac{2v + 1}{2V}\right) \right\rfloor

    With a stride d, a clip is a run of S frames, each d after the one before. V starts are spaced
    evenly from the first to the last that is possible; a single clip starts half way:

    .. math::
        i_{v,k} = \left\lfloor \frac{v \, (T - 1 - (S - 1) \, d)}{V - 1} \right\rfloor + k d

    A video too short for the run is sampled from equal bins instead, and one with fewer frames than
    S repeats them in order.

    With a generator (training), one frame of each bin, or the start of each run, is drawn at random
    instead, for each clip anew.

    Args:
        num_frames: Frames S of a clip, at least 1.
        stride: Frames d from one frame of a clip to the next, at least 1; None for equal bins.
        clips: Clips V of a video, at least 1.

    Raises:
        ValueError: If a setting is below 1.
        TypeError: If a setting is no integer.

    Example:
        >>> FrameSampling(4)(160)
        tensor([ 20,  60, 100, 140])
        >>> FrameSampling(4, clips=2)(160)
        tensor([ 10,  50,  90, 130,  30,  70, 110, 150])
        >>> FrameSampling(4, stride=2, clips=2)(10)
        tensor([0, 2, 4, 6, 3, 5, 7, 9])
    """

    num_frames: int = 16
    stride: int | None = None
    clips: int = 1

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "clips"):
            value = getattr(self, name)
            if value is None and name == "stride":
                continue
            if not hasattr(value, "__index__"):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def __call__(self, num_frames: int, generator: torch.Generator | None = None) -> Tensor:
        """The frames to read of a video.

        Args:
            num_frames: Frames T of the video, at least 1.
            generator: Source of randomness (training); None for the same frames every time.

        Returns:
            int64 ``[clips * num_frames]``, clip by clip, sorted within a clip.

        Raises:
            ValueError: If the video has no frame.
        """
        total, _ = _check_counts(num_frames, self.num_frames)
        clips = [self._clip(total, clip, generator) for clip in range(self.clips)]
        return torch.cat(clips)

    def _clip(self, total: int, clip: int, generator: torch.Generator | None) -> Tensor:
        steps = torch.arange(self.num_frames, dtype=torch.int64)
        if self.stride is not None:
            # What is left of the video behind a run that starts at its first frame.
            room = total - 1 - (self.num_frames - 1) * self.stride
            if room >= 0:
                return self._start(room, clip, generator) + self.stride * steps
        if generator is not None and total >= self.num_frames:
            return segment_indices(total, self.num_frames, generator)
        parts = 2 * self.clips
        return (parts * steps + 2 * clip + 1) * total // (parts * self.num_frames)

    def _start(self, room: int, clip: int, generator: torch.Generator | None) -> int:
        if generator is not None:
            device = generator.device
            return int(torch.randint(room + 1, (), generator=generator, device=device))
        return room // 2 if self.clips == 1 else clip * room // (self.clips - 1)


def _check_counts(num_frames: int, num_samples: int) -> tuple[int, int]:
    num_frames, num_samples = operator.index(num_frames), operator.index(num_samples)
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return num_frames, num_samples
