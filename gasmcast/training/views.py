"""How many views of a video an evaluation averages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationViews:
    """The views of a video that are evaluated: clips times crops.

    Attributes:
        clips: Clips of a video, spread over time.
        crops: Crops of each clip: 1 (centre) or 3 (both ends of the longer side too).
        stride: Frames from one frame of a clip to the next; None: from each of equal bins.
        num_frames: Frames that a clip has to have; None: whatever the model takes.
    """

    clips: int = 1
    crops: int = 1
    stride: int | None = None
    num_frames: int | None = None


#: The views that published results mostly average, by data set. ``ssv2``: 16 frames of equal bins,
#: 2 clips x 3 crops (VideoMAE, CAST). ``kinetics``: 16 frames, every fourth one, 5 clips x 3 crops
#: (VideoMAE).
PROTOCOLS = {
    "ssv2": EvaluationViews(clips=2, crops=3, num_frames=16),
    "kinetics": EvaluationViews(clips=5, crops=3, stride=4, num_frames=16),
}


def evaluation_views(
    protocol: str | None = None, *, clips: int = 1, crops: int = 1, stride: int | None = None
) -> EvaluationViews:
    """The views of a protocol, or those of the numbers.

    Args:
        protocol: A key of :data:`PROTOCOLS`; None: the numbers hold.
        clips: See :class:`EvaluationViews`, as for the others.
        crops: As for ``clips``.
        stride: As for ``clips``.

    Raises:
        ValueError: A protocol that is not there, or one with numbers beside it.
    """
    views = EvaluationViews(clips, crops, stride)
    if protocol is None:
        return views
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if views != EvaluationViews():
        raise ValueError(
            f"protocol {protocol} says which views there are: leave out clips, crops and stride, "
            f"got {clips}, {crops} and {stride}"
        )
    return PROTOCOLS[protocol]
