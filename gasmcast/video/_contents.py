"""What a file holds, found out without decoding it: the first look, taken through PyAV.

Every packet of the video stream is read and the first frame decoded, which costs a few milliseconds
for a clip. This says how many frames to expect and whether decord can be trusted with the file.
"""

import functools
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gasmcast.video.errors import VideoReadError

# What decord has been seen to read frame by frame as PyAV does. A list of what works is safer than
# one of what does not: what decord gets wrong, it gets wrong silently or by hanging.
_DECORD_READS = {
    "mov,mp4,m4a,3gp,3g2,mj2": {"h264", "hevc", "vp9"},
    "matroska,webm": {"h264", "vp8", "vp9"},
}

# How the reasons begin where a file was not found, or not even looked up, as on a disk that is not
# mounted. They say nothing about the file, and may be gone the next time.
NOT_FOUND = ("no such file", "the file cannot be looked up")

_PLAYLISTS = {"concat", "dash", "hls", "imf", "rtsp", "sdp", "webm_dash_manifest"}


class Deadline:
    """A point in time that a read may not pass. ``math.inf`` seconds means no limit."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self, frames: int) -> None:
        if time.monotonic() > self._end:
            raise VideoReadError(
                self._path,
                f"PyAV had decoded {frames} frames when the limit of {self._seconds:g} s was "
                "reached; a larger timeout_seconds gives a long video more time",
            )


@dataclass(frozen=True)
class Contents:
    """The video stream of a file as its container describes it.

    Attributes:
        num_packets: Packets of the stream, one a frame in a sound file.
        num_hidden: How many of them an edit list hides; they give no frames.
        num_stated: How many frames its header states, 0 where it states none. It can lie.
        pts_seconds: float64 [num_packets], the packets' times in order of presentation; None where
            the container does not state them all.
        average_fps: Frames a second as stated, nan where nothing is.
        height: Rows of the first frame as shown, rotation applied.
        width: Columns of the first frame as shown.
        decord_obstacle: Why decord cannot be trusted with this file; None where it can.
    """

    num_packets: int
    num_hidden: int
    num_stated: int
    pts_seconds: np.ndarray | None
    average_fps: float
    height: int
    width: int
    decord_obstacle: str | None


def is_folder(path: str) -> bool:
    """Whether a path is a folder; VideoReadError for what is neither that nor a file with content.

    Pipes and devices are refused, for opening them can block without end.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise VideoReadError(path, NOT_FOUND[0]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise VideoReadError(path, f"{NOT_FOUND[1]}: {error}") from error
    if stat.S_ISDIR(found.st_mode):
        return True
    if not stat.S_ISREG(found.st_mode):
        raise VideoReadError(path, "expected a regular file, got a pipe, socket or device")
    if found.st_size == 0:
        raise VideoReadError(path, "expected a video file, got an empty file (0 bytes)")
    return False


def open_video(path: str) -> tuple[Any, Any]:
    """The PyAV container and its best video stream. The caller closes the container."""
    import av

    try:
        container = av.open(
            # Absolute, so that a colon in the name is not taken for the end of a protocol's name.
            os.path.abspath(path),
            container_options={
                "protocol_whitelist": "file",
                "format_whitelist": _formats_with_frames(),
            },
            metadata_errors="ignore",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise VideoReadError(
            path, f"expected a video file, got something that cannot be opened as one ({what})"
        ) from error
    try:
        return container, _best_stream(container, path)
    except BaseException:
        container.close()
        raise


@functools.cache
def _formats_with_frames() -> str:
    """FFmpeg's names of all formats but those that only name other files.

    A playlist of a running broadcast is read again and again while it grows, and one may name a
    pipe: waits inside one call into PyAV, where no time limit reaches.
    """
    import av

    return ",".join(sorted(av.formats_available - _PLAYLISTS))


def _best_stream(container: Any, path: str) -> Any:
    kind = container.format.name
    # FFmpeg renders text files with some endings, and reads any photograph, as one-frame videos.
    if kind == "tty" or kind == "image2" or kind.endswith("_pipe"):
        raise VideoReadError(path, f"expected a video, got a text or a still picture ({kind})")
    stream = container.streams.best("video")
    if stream is None:
        others = sorted({other.type for other in container.streams}) or ["none at all"]
        raise VideoReadError(path, f"expected a video stream, found only {', '.join(others)}")
    if stream.disposition & type(stream.disposition).attached_pic:
        raise VideoReadError(path, "expected a video stream, found only a cover picture")
    if stream.codec_context is None:
        raise VideoReadError(path, "PyAV has no decoder for the video stream")
    # Threads inside one decoder lose frames of damaged files, differently for every number of
    # cores, and can deadlock when a decoder is closed early. Clips are read in parallel instead.
    stream.codec_context.thread_count = 1
    return stream


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream up to the end of what can be read, then None to flush the decoder."""
    import av

    going_on = True
    while going_on:
        going_on = False
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except IndexError:
            # PyAV stumbles over a packet of a stream that began on the way, and stands behind it.
            going_on = True
        except (av.FFmpegError, OSError):
            pass  # The file breaks off here; what came before still counts.
    yield None


def look_inside(path: str, deadline: Deadline) -> Contents:
    """Reads all packets of a video file and decodes its first frame."""
    import av

    container, stream = open_video(path)
    with container:
        first = None
        count = hidden = 0
        times: list[int | None] = []
        damaged = False
        for packet in packets(container, stream):
            if first is None:
                try:
                    frames = stream.decode(packet)
                except (av.FFmpegError, OSError):
                    damaged = True
                else:
                    first = frames[0] if frames else None
            if packet is not None:
                deadline.check(0)
                count += 1
                times.append(packet.pts)
                damaged |= packet.is_corrupt
                hidden += packet.is_discard
        if first is None:
            raise VideoReadError(path, f"none of its {count} video packets decodes to a frame")
        height, width = first.height, first.width
        with converting(path, first, 0):
            orientation = display_orientation(first)
        if orientation.swaps_axes:
            height, width = width, height
        codec = stream.codec.canonical_name
        if codec not in _DECORD_READS.get(container.format.name, ()):
            obstacle = f"decord does not read {codec} in {container.format.name} reliably"
        elif len(container.streams.video) > 1:
            obstacle = "the file has several video streams"
        elif damaged:
            obstacle = "the file is damaged"
        elif hidden:
            obstacle = "an edit list hides frames that decord would return"
        elif None in times or len(set(times)) < len(times):
            obstacle = "some frames have no time of their own, which decord needs to find them"
        elif (
            first.format.name not in ("yuv420p", "yuvj420p") or first.width % 2 or first.height % 2
        ):
            shape = f"{first.format.name} of {first.width} x {first.height}"
            obstacle = f"decord and PyAV round the colours of {shape} frames differently"
        elif orientation.stated:
            obstacle = "decord fails on turned frames of many widths"
        else:
            obstacle = None
        seconds = None
        if None not in times:
            seconds = np.sort(np.asarray(times, dtype=np.int64)) * float(stream.time_base)
        return Contents(
            count, hidden, stream.frames, seconds, _average_fps(stream), height, width, obstacle
        )


@dataclass(frozen=True)
class Orientation:
    """How a stored frame has to be turned to be shown upright.

    ``stated`` says that the file asks for something, be it one of the turns that are left alone.
    """

    stated: bool = False
    swaps_axes: bool = False
    flip_horizontal: bool = False
    flip_vertical: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] as stored -> [H, W, 3] as shown."""
        if self.swaps_axes:
            image = image.swapaxes(0, 1)
        if self.flip_horizontal:
            image = image[:, ::-1]
        if self.flip_vertical:
            image = image[::-1]
        return image


def display_orientation(frame: Any) -> Orientation:
    """Reads a frame's display matrix: x' = a x + c y, y' = b x + d y.

    Turns by other than quarters are left alone: frames would no longer be rectangles.
    """
    # A frame and its side data hold each other, and through the frame all the memory of its decoder
    # (at 1080p 60 MB), until Python looks for such circles. A tiny copy holds nothing but itself.
    copy = frame.reformat(width=16, height=16, format="rgb24", interpolation="POINT")
    data = copy.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, dtype=np.int32)[:5])
    if b == c == 0 and a and d:
        return Orientation(True, flip_horizontal=a < 0, flip_vertical=d < 0)
    if a == d == 0 and b and c:
        return Orientation(True, swaps_axes=True, flip_horizontal=c < 0, flip_vertical=b < 0)
    return Orientation(True)


@contextmanager
def converting(path: str, frame: Any, index: int) -> Iterator[None]:
    """Names the frame where FFmpeg cannot bring it into another format."""
    import av

    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        kind = f"{frame.format.name} of {frame.width} x {frame.height}"
        what = getattr(error, "strerror", None) or error
        raise VideoReadError(path, f"frame {index}, {kind}, does not convert: {what}") from error


def _average_fps(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else math.nan
