"""The Lightning module: loss, optimiser, schedule, metrics, unreadable videos."""

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from gasmcast.model import TemporalCrossAttentionModel
from gasmcast.training.report import EvaluationReport


class TooManyUnreadableVideos(RuntimeError):
    """More videos than allowed cannot be read; the message counts and names them."""


class ActionRecognition(LightningModule):
    """Trains and evaluates a model on the batches of a :class:`VideoDataModule`.

    AdamW on the trainable parameters, with linear warm-up and cosine decay to zero over the whole
    run; cross-entropy with label smoothing. Videos that cannot be read are left out, counted and
    named (``unreadable``, path and reason by part); more of them than allowed stop the run.

    Args:
        model: What to train.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Decay of matrices; vectors (biases, norms) are not decayed.
        warmup_share: Share of all steps over which the learning rate rises.
        label_smoothing: Share of a label's weight spread over all classes.
        max_unreadable: Share of a part's videos that may be unreadable, 0 to 1.

    Raises:
        ValueError: An argument out of its range; while running, a loss that is not finite.
        TooManyUnreadableVideos: While running, see ``max_unreadable``.
    """

    def __init__(
        self,
        model: TemporalCrossAttentionModel,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_share: float = 0.1,
        label_smoothing: float = 0.1,
        max_unreadable: float = 0.1,
    ):
        super().__init__()
        for name, value, least, most in (
            ("learning_rate", learning_rate, 0, math.inf),
            ("weight_decay", weight_decay, 0, math.inf),
            ("warmup_share", warmup_share, 0, 1),
            ("label_smoothing", label_smoothing, 0, 1),
            ("max_unreadable", max_unreadable, 0, 1),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} must be between {least} and {most}, got {value}")
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_share = warmup_share
        self.label_smoothing = label_smoothing
        self.max_unreadable = max_unreadable
        classes = model.classifier.out_features
        self.validation_top1 = MulticlassAccuracy(classes, average="micro")
        self.test_metrics = MetricCollection(
            {
                "top1": MulticlassAccuracy(classes, average="micro"),
                "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
                "confusion": MulticlassConfusionMatrix(classes),
            },
            compute_groups=False,  # top-5 keeps another state than the rest
        )
        self.unreadable: dict[str, dict[int, str]] = {}
        self.report: EvaluationReport | None = None

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Loss of a batch."""
        self._note_unreadable("train", batch)
        if "clip" not in batch:
            # No clip to learn from; every process still has to take part in the step.
            return sum(p.sum() * 0.0 for p in self.parameters() if p.requires_grad)
        logits = self.model(batch["clip"])
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {loss.item()} at step {self.global_step}: lower the learning rate"
            )
        self.log("train_loss", loss, prog_bar=True, batch_size=len(logits))
        accuracy = (logits.argmax(dim=1) == batch["label"]).float().mean()
        self.log(
            "train_top1",
            accuracy,
            prog_bar=True,
            on_step=False,
            on_epoch=True,
            batch_size=len(logits),
        )
        return loss

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Count right answers."""
        self._note_unreadable("validation", batch)
        if "clip" in batch:
            self.validation_top1.update(self.model(batch["clip"]), batch["label"])

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Count right answers, class by class."""
        self._note_unreadable("test", batch)
        if "clip" in batch:
            self.test_metrics.update(self.model(batch["clip"]), batch["label"])

    def on_test_epoch_end(self) -> None:
        """Make the report."""
        self.unreadable["test"] = self._gather_unreadable("test")
        values = self.test_metrics.compute()
        self.test_metrics.reset()
        confusion = values.pop("confusion").cpu()
        # Over the classes that were shown: torchmetrics' own mean counts others as missed.
        shown = confusion.sum(dim=1) > 0
        values["mean_class"] = (confusion.diag() / confusion.sum(dim=1))[shown].mean()
        classes = self.model.class_names or [str(label) for label in range(len(confusion))]
        self.report = EvaluationReport(
            **{name: float(value) for name, value in values.items()},
            confusion=confusion,
            classes=tuple(classes),
            unreadable=tuple(
                # A file name can hold bytes that are no text.
                f"{part}: {error}".encode(errors="backslashreplace").decode()
                for part in ("train", "validation", "test")
                for error in self.unreadable.get(part, {}).values()
            ),
        )
        self.log_dict({f"test_{name}": value for name, value in values.items()})

    def on_train_epoch_start(self) -> None:
        """Begin to count unreadable videos."""
        self.unreadable["train"] = {}

    def on_train_epoch_end(self) -> None:
        """Bring together what each process could not read."""
        self.unreadable["train"] = self._gather_unreadable("train")

    def on_validation_epoch_start(self) -> None:
        """Begin to count unreadable videos."""
        self.unreadable["validation"] = {}

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy, and bring together what each process could not read."""
        self.unreadable["validation"] = self._gather_unreadable("validation")
        # Here and not by batch: every process has to take part, also one that could read nothing.
        self.log("validation_top1", self.validation_top1.compute(), prog_bar=True)
        self.validation_top1.reset()

    def on_test_epoch_start(self) -> None:
        """Begin to count unreadable videos."""
        self.unreadable["test"] = {}

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with warm-up and cosine decay, stepped every batch."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError("the learning rate falls to the run's end: give it epochs or steps")
        total = max(int(steps), 1)
        warmup = round(self.warmup_share * total)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what could not be read, for the report of a resumed run."""
        checkpoint["unreadable"] = self.unreadable

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what could not be read before."""
        self.unreadable = checkpoint["unreadable"] | self.unreadable

    def _note_unreadable(self, part: str, batch: dict[str, Any]) -> None:
        noted = self.unreadable.setdefault(part, {})
        noted.update(batch["errors"])
        total = len(getattr(self.trainer.datamodule, part)) / self.trainer.world_size
        if batch["errors"] and len(noted) > self.max_unreadable * total:
            listed = "\n  ".join(list(noted.values())[:5])
            raise TooManyUnreadableVideos(
                f"{len(noted)} of {math.ceil(total)} {part} videos could not be read so far, more "
                f"than the allowed share of {self.max_unreadable:.0%}; among them:\n  {listed}"
            )

    def _gather_unreadable(self, part: str) -> dict[int, str]:
        own = self.unreadable.get(part, {})
        if self.trainer.world_size == 1:
            return own
        parts: list[dict[int, str]] = [{}] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, own)
        return {index: error for each in parts for index, error in each.items()}
