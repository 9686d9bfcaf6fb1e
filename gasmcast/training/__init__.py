"""Training and evaluation on Lightning; needs the extra ``train``."""

from gasmcast.training.averaging import WeightAverage
from gasmcast.training.data import ActionDataModule, VideoDataModule
from gasmcast.training.module import ActionRecognition, LossNotFinite, TooManyUnreadableVideos
from gasmcast.training.report import ClassResult, EvaluationReport
from gasmcast.training.run import evaluate, train_and_test
from gasmcast.training.views import PROTOCOLS, EvaluationViews, evaluation_views

__all__ = [
    "PROTOCOLS",
    "ActionDataModule",
    "ActionRecognition",
    "ClassResult",
    "EvaluationReport",
    "EvaluationViews",
    "LossNotFinite",
    "TooManyUnreadableVideos",
    "VideoDataModule",
    "WeightAverage",
    "evaluate",
    "evaluation_views",
    "train_and_test",
]
