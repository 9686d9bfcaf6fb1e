"""Which views of a video an evaluation averages."""

from dataclasses import dataclass

from gasmcast.video import FrameSampling


@dataclass(frozen=True)
class EvaluationViews:
    """The views of a video that are evaluated: clips times crops.

    Attributes:
        sampling: Frames of a clip, and clips of a video.
        crops: Crops of each clip: 1 (centre) or 3 (both ends of the longer side too).
    """

    sampling: FrameSampling
    crops: int = 1


#: The views that published results mostly average, by data set. ``ssv2``: 16 frames of equal bins,
#: 2 clips x 3 crops (VideoMAE, CAST). ``kinetics``: 16 frames, every fourth one, 5 clips x 3 crops
#: (VideoMAE).
PROTOCOLS = {
    "ssv2": EvaluationViews(FrameSampling(16, clips=2), crops=3),
    "kinetics": EvaluationViews(FrameSampling(16, stride=4, clips=5), crops=3),
}


def evaluation_views(
    protocol: str | None = None,
    *,
    num_frames: int = 16,
    clips: int = 1,
    crops: int = 1,
    stride: int | None = None,
) -> EvaluationViews:
    """The views of a protocol, or those of the numbers.

    Args:
        protocol: A key of :data:`PROTOCOLS`; None: the numbers hold.
        num_frames: Frames of a clip that the model takes.
        clips: Clips of a video, spread over time.
        crops: Crops of each clip, 1 or 3.
        stride: Frames from one frame of a clip to the next; None: one of each of equal bins.

    Raises:
        ValueError: A protocol that is not there, one of another number of frames, or one with
            numbers of views beside it.
    """
    if protocol is None:
        return EvaluationViews(FrameSampling(num_frames, stride, clips), crops)
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if (clips, crops, stride) != (1, 1, None):
        raise ValueError(
            f"protocol {protocol} says which views there are: leave out clips, crops and stride, "
            f"got {clips}, {crops} and {stride}"
        )
    views = PROTOCOLS[protocol]
    if num_frames != views.sampling.num_frames:
        raise ValueError(
            f"protocol {protocol} takes clips of {views.sampling.num_frames} frames, got "
            f"num_frames={num_frames}"
        )
    return views
