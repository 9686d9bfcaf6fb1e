"""One run: a variant trained on stored features with the library's own training code."""

import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gasmcast import TemporalCrossAttentionModel
from gasmcast.training import ActionDataModule, ActionRecognition, LossNotFinite
from interaction_study.features import Features


@dataclass(frozen=True)
class Budget:
    """What every run of every variant gets.

    Attributes:
        steps: Steps of the optimiser, however many clips there are.
        batch_size: Clips of a step.
        precision: As ``lightning.Trainer`` takes it.
    """

    steps: int = 1600
    batch_size: int = 32
    precision: str = "32-true"


class Course(Callback):
    """Notes the loss of each step, and the 2-norm of the gradient of all parameters before it."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        """After the backward pass."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(gradients).item())

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """After the step."""
        self.losses.append(float(outputs["loss"]))


def train(
    model: TemporalCrossAttentionModel,
    features: Features,
    budget: Budget,
    *,
    learning_rate: float,
    seed: int,
) -> Course:
    """Train the model in place, for as many passes as the budget's steps take (rounded up).

    A run that is lost is a result like any other: it ends with a loss and a norm that are NaN, and
    with the weights that it had.
    """
    epochs = math.ceil(budget.steps / math.ceil(len(features) / budget.batch_size))
    data = ActionDataModule(
        features, features, batch_size=budget.batch_size, num_workers=0, seed=seed
    )
    module = ActionRecognition(model, learning_rate=learning_rate, seed=seed)
    course = Course()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints about loggers and workers
        trainer = Trainer(
            accelerator="cpu",
            precision=budget.precision,
            max_epochs=epochs,
            callbacks=[course],
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        try:
            trainer.fit(module, data)
        except LossNotFinite:
            course.losses.append(math.nan)
            course.norms.append(math.nan)
    return course


@torch.inference_mode()
def predict(model: TemporalCrossAttentionModel, features: Features) -> Tensor:
    """Probabilities of all clips, [N, K]."""
    model.eval()
    parts = zip(features.semantic.split(256), features.motion.split(256), strict=True)
    return torch.cat([model.forward_features(*part).softmax(dim=1) for part in parts])
