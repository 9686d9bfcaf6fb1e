"""Frames by decoding a file from its start with PyAV: slow to skip ahead, right on everything."""

import math
from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from gasmcast.video._contents import Deadline, converting, display_orientation, open_video, packets
from gasmcast.video.errors import VideoReadError


@dataclass(frozen=True)
class Decoded:
    """What came out of a file.

    Attributes:
        frames: Index -> uint8 [H, W, 3], those of the wanted frames that decode.
        pts_seconds: float64 [num_frames], the times of all frames.
        num_frames: Frames that decode.
    """

    frames: dict[int, np.ndarray]
    pts_seconds: np.ndarray
    num_frames: int


def decode(
    path: str,
    wanted: Container[int],
    deadline: Deadline,
    average_fps: float,
    skip_damaged: bool,
) -> Decoded:
    """Decodes every frame in order and keeps the wanted ones, so memory follows their number.

    Frames whose size differs from the first one's are resized to it.
    """
    import av

    kept: dict[int, np.ndarray] = {}
    times: list[float] = []
    container, stream = open_video(path)
    with container:
        for packet in packets(container, stream):
            deadline.check(len(times))
            try:
                frames = stream.decode(packet)
            except (av.FFmpegError, OSError):
                # Before the first frame an error means a stream that was cut ahead of a keyframe.
                if times and not skip_damaged:
                    break
                continue
            for frame in frames:
                index = len(times)
                if index == 0:
                    width, height = frame.width, frame.height
                    with converting(path, frame, index):
                        orientation = display_orientation(frame)
                if frame.pts is not None:
                    times.append(float(frame.pts * stream.time_base))
                else:
                    times.append(index / average_fps if average_fps > 0 else math.nan)
                if index in wanted:
                    with converting(path, frame, index):
                        image = frame.to_ndarray(format="rgb24", width=width, height=height)
                    kept[index] = np.ascontiguousarray(orientation.apply(image))
    if not times:
        raise VideoReadError(path, "no frame of it decodes")
    return Decoded(kept, np.asarray(times, dtype=np.float64), len(times))
