"""Video files in, frames out: which frames to take, and one function that reads them.

``read_video`` gives the same frames for the same indices whichever decoder did the work, and raises
``VideoReadError`` for everything that can be wrong with a file. The decoders, decord and PyAV, are
imported when a file is read, not before.
"""

from gasmcast.video.checker import CheckSummary, check_videos
from gasmcast.video.errors import VideoReadError
from gasmcast.video.reader import VideoClip, count_frames, read_video
from gasmcast.video.sampling import FrameSampling, segment_indices, uniform_indices

__all__ = [
    "CheckSummary",
    "FrameSampling",
    "VideoClip",
    "VideoReadError",
    "check_videos",
    "count_frames",
    "read_video",
    "segment_indices",
    "uniform_indices",
]
