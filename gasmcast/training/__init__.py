"""Training and evaluation on Lightning; needs the extra ``train``."""

from gasmcast.training.data import VideoDataModule
from gasmcast.training.module import ActionRecognition, TooManyUnreadableVideos
from gasmcast.training.report import EvaluationReport
from gasmcast.training.run import train_and_test

__all__ = [
    "ActionRecognition",
    "EvaluationReport",
    "TooManyUnreadableVideos",
    "VideoDataModule",
    "train_and_test",
]
