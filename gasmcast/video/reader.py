"""Frames of a video by index: one function for every decoder, and for folders of images."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gasmcast.video import _decord, _images, _pyav
from gasmcast.video._contents import Contents, Deadline, is_folder, look_inside
from gasmcast.video.errors import VideoReadError
from gasmcast.video.sampling import segment_indices

_BACKENDS = ("auto", "decord", "pyav")

Indices = Sequence[int] | np.ndarray | Tensor
Sampler = Callable[[int], Indices]


@dataclass(frozen=True)
class VideoClip:
    """Frames of one video.

    Attributes:
        frames: uint8 [T, 3, H, W], RGB, upright. In memory the channels of a pixel lie together, as
            decoders give them; ``.contiguous()`` copies them into planes.
        indices: int64 [T], which frames of the file these are, counted from 0.
        pts_seconds: float64 [T], when they are shown, on the clock of the file, which need not
            start at 0; nan for images.
        num_frames: Frames of the file that decode; images in the folder.
        average_fps: Frames a second as the file states it, nan where it does not and for images.
        backend: What gave the frames: "decord", "pyav", or "images" for a folder.
        path: The file or folder, as the caller named it.
    """

    frames: Tensor
    indices: Tensor
    pts_seconds: Tensor
    num_frames: int
    average_fps: float
    backend: str
    path: str


def read_video(
    path: str | os.PathLike[str],
    sample: Sampler | Indices | None = segment_indices,
    *,
    backend: str = "auto",
    timeout_seconds: float = 60.0,
    skip_damaged: bool = False,
) -> VideoClip:
    """Reads frames of a video by their indices: of a video file, or of a folder of images.

    The same indices mean the same frames whichever decoder reads them. With "auto", decord reads
    the containers and codecs it is known to read right, in a process of its own, and PyAV reads
    everything else and whatever decord fails on. decord's frames are used only if it counts as many
    frames as the container has packets. PyAV decodes from the start to the end, so that
    ``num_frames`` is what really decodes; decord skips ahead, and damage between the frames it
    was asked for goes unseen.

    Frames are turned upright where the file asks for quarter turns or mirroring. Where the size
    changes on the way, PyAV resizes frames to the size of the first. A video of one frame repeats
    it for as many samples as are asked for.

    A folder is a video whose frames are its numbered images (``img_00001.jpg``, ``1.png``), JPEG or
    PNG, in the order of the numbers, which may begin anywhere and leave some out. Only the images
    asked for are decoded, whatever ``backend`` says; one that does not decode is an error.

    Args:
        path: A regular file, or a folder of images, on a local or mounted file system.
        sample: A function from the number of frames to indices; or indices in any order, with or
            without repetition; or None for every frame (which have to fit in memory). A function
            that draws at random is called again if fewer frames decode than the file promised.
        backend: The decoder of files: "auto", "decord" or "pyav".
        timeout_seconds: How long each decoder may take. decord's process is killed after it. PyAV
            works in the calling process: it is held to the limit between packets, but a call into
            it is not interrupted. ``math.inf`` for no limit.
        skip_damaged: What happens at a packet that does not decode. False: the video ends before
            it, so index k is frame k of the undamaged video. True: it is left out and decoding
            goes on; later frames count on from there and may show traces of the damage.

    Returns:
        The frames in the order of the indices.

    Raises:
        VideoReadError: For everything that is wrong with the file, with its path and the reason.
        ValueError: For an unknown backend, a limit that is not positive, or an index that the
            video does not have.
        ImportError: If decord is asked for and not installed.

    Example:
        >>> from functools import partial
        >>> clip = read_video("clip.mp4", partial(segment_indices, num_samples=8))  # doctest: +SKIP
        >>> clip.frames.shape  # doctest: +SKIP
        torch.Size([8, 3, 240, 320])
    """
    _check_options(backend, timeout_seconds)
    name = os.fsdecode(path)
    if is_folder(name):
        return _read_images(name, sample)
    contents = look_inside(name, Deadline(name, timeout_seconds))
    request = _Request(sample, contents.num_packets)
    if backend == "decord" or (backend == "auto" and _decord_suits(contents, skip_damaged)):
        try:
            return _read_with_decord(name, contents, request, timeout_seconds)
        except _decord.DecordFailure as error:
            if backend == "decord":
                raise VideoReadError(name, f"decord cannot read it: {error}") from error
    return _read_with_pyav(name, contents, request, timeout_seconds, skip_damaged)


def count_frames(
    path: str | os.PathLike[str], *, timeout_seconds: float = 60.0, skip_damaged: bool = False
) -> int:
    """The number of frames of a video that decode, by decoding them all (files with PyAV).

    Args and errors are those of ``read_video``.
    """
    _check_options("pyav", timeout_seconds)
    name = os.fsdecode(path)
    if is_folder(name):
        images = _images.list_images(name)
        for image in images:
            _images.decode_image(name, image)
        return len(images)
    deadline = Deadline(name, timeout_seconds)
    return _pyav.decode(name, (), deadline, 0.0, skip_damaged).num_frames


def _check_options(backend: str, timeout_seconds: float) -> None:
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(_BACKENDS)}, got {backend!r}")
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be positive, got {timeout_seconds}")
    if backend == "decord" and not _decord.decord_installed():
        raise ImportError(
            "backend='decord' needs decord, which is not installed: pip install decord, "
            "or use backend='auto' or 'pyav'"
        )


def _decord_suits(contents: Contents, skip_damaged: bool) -> bool:
    return contents.decord_obstacle is None and not skip_damaged and _decord.decord_installed()


class _Request:
    """Which frames the caller wants of a video with so many frames."""

    def __init__(self, sample: Sampler | Indices | None, expected_frames: int) -> None:
        self._sample = sample
        # Drawn before anything is decoded, once: a decoder that fails must not change what the
        # next one is asked for.
        self._expected_frames = expected_frames
        self.expected = self._draw(expected_frames)

    def indices(self, num_frames: int) -> np.ndarray:
        """int64 [T], all of them frames of the video."""
        indices = self.expected
        if num_frames != self._expected_frames:
            indices = self._draw(num_frames)
        for index in indices.tolist():
            if not 0 <= index < num_frames:
                raise ValueError(
                    f"frame index {index} is out of range for a video of {num_frames} frames"
                )
        return indices

    def _draw(self, num_frames: int) -> np.ndarray:
        if self._sample is None:
            return np.arange(num_frames)
        chosen = self._sample(num_frames) if callable(self._sample) else self._sample
        indices = np.asarray(chosen)
        if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
            raise ValueError(
                "frame indices must be a row of at least one integer, got shape "
                f"{list(indices.shape)} of {indices.dtype}"
            )
        return indices.astype(np.int64)


def _read_with_decord(
    path: str, contents: Contents, request: _Request, timeout_seconds: float
) -> VideoClip:
    if contents.decord_obstacle is not None:
        raise _decord.DecordFailure(contents.decord_obstacle)
    indices = request.indices(contents.num_packets)
    wanted = np.unique(indices)
    frames = torch.from_numpy(_decord.decode(path, contents, wanted, timeout_seconds))
    frames = _arrange(frames, wanted, indices)
    return _clip(
        path,
        frames,
        indices,
        contents.pts_seconds,
        contents.num_packets,
        contents.average_fps,
        "decord",
    )


def _read_with_pyav(
    path: str, contents: Contents, request: _Request, timeout_seconds: float, skip_damaged: bool
) -> VideoClip:
    deadline = Deadline(path, timeout_seconds)
    wanted = set(request.expected.tolist())
    decoded = _pyav.decode(path, wanted, deadline, contents.average_fps, skip_damaged)
    indices = request.indices(decoded.num_frames)
    frames = decoded.frames
    missing = set(indices.tolist()) - frames.keys()
    if missing:
        # Other frames than were promised decode. A second pass keeps memory at what is asked for.
        again = _pyav.decode(path, missing, deadline, contents.average_fps, skip_damaged)
        frames = frames | again.frames
        if again.num_frames != decoded.num_frames:
            raise VideoReadError(path, "the file changed while it was read")
    stacked = torch.from_numpy(np.stack([frames[index] for index in indices.tolist()]))
    times, count = decoded.pts_seconds, decoded.num_frames
    return _clip(path, stacked, indices, times, count, contents.average_fps, "pyav")


def _read_images(path: str, sample: Sampler | Indices | None) -> VideoClip:
    names = _images.list_images(path)
    indices = _Request(sample, len(names)).indices(len(names))
    wanted = np.unique(indices)
    frames = _images.decode(path, [names[index] for index in wanted])
    frames = _arrange(frames, wanted, indices)
    times = np.full(len(names), math.nan)
    return _clip(path, frames, indices, times, len(names), math.nan, "images")


def _arrange(frames: Tensor, wanted: np.ndarray, indices: np.ndarray) -> Tensor:
    """The frames of sorted indices without repetition, as they were asked for."""
    if np.array_equal(wanted, indices):
        return frames
    return frames[torch.from_numpy(np.searchsorted(wanted, indices))]


def _clip(
    path: str,
    frames: Tensor,
    indices: np.ndarray,
    pts_seconds: np.ndarray,
    num_frames: int,
    average_fps: float,
    backend: str,
) -> VideoClip:
    return VideoClip(
        frames=frames.permute(0, 3, 1, 2),
        indices=torch.from_numpy(indices.copy()),
        pts_seconds=torch.from_numpy(pts_seconds[indices]),
        num_frames=num_frames,
        average_fps=average_fps,
        backend=backend,
        path=path,
    )
