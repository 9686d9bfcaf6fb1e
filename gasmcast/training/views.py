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
