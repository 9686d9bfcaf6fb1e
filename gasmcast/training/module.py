"""The Lightning module: loss, optimiser, schedule, metrics, unreadable videos."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from gasmcast.model import TemporalCrossAttentionModel
from gasmcast.seeds import derive_seed
from gasmcast.training.averaging import WeightAverage
from gasmcast.training.report import EvaluationReport
from gasmcast.transforms import Mix


class TooManyUnreadableVideos(RuntimeError):
    """More videos than allowed cannot be read; the message counts and names them."""


class LossNotFinite(ValueError):
    """The loss of a training step is infinite or not a number; the message says at which step."""


class ActionRecognition(LightningModule):
    """Trains and evaluates a model on the batches of an :class:`ActionDataModule`.

    AdamW on the trainable parameters, with linear warm-up and cosine decay to zero over the whole
    run; cross-entropy with label smoothing. A video's probabilities are the softmax of its logits,
    averaged over its views. Videos that cannot be read are left out, counted and
    named (``unreadable``, path and reason by part); more of them than allowed stop the run.

    What is random in a step (dropping, mixing) is drawn from the seed, the epoch, the batch and the
    process, so a run that goes on from a checkpoint draws the same. Checkpoints leave out frozen
    extractors and keep their fingerprint instead.

    Args:
        model: What to train.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Decay of matrices; vectors (biases, norms) are not decayed.
        warmup_share: Share of all steps over which the learning rate rises.
        label_smoothing: Share of a label's weight spread over all classes.
        mixup_alpha: See :class:`~gasmcast.transforms.Mix`; 0: none.
        cutmix_alpha: See :class:`~gasmcast.transforms.Mix`; 0: none.
        ema_decay: Evaluate and save a moving average of the weights with this decay, see
            :class:`WeightAverage`; None: the weights themselves.
        max_unreadable: Share of a part's videos that may be unreadable, 0 to 1.
        seed: Of the random choices in the model, at least 0.

    Raises:
        ValueError: An argument out of its range; while running, stored features where extractors
            are to be trained, a checkpoint of another seed or with other frozen weights.
        LossNotFinite: While running.
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
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        ema_decay: float | None = None,
        max_unreadable: float = 0.1,
        seed: int = 0,
    ):
        super().__init__()
        for name, value, least, most in (
            ("learning_rate", learning_rate, 0, math.inf),
            ("weight_decay", weight_decay, 0, math.inf),
            ("warmup_share", warmup_share, 0, 1),
            ("label_smoothing", label_smoothing, 0, 1),
            ("mixup_alpha", mixup_alpha, 0, math.inf),
            ("cutmix_alpha", cutmix_alpha, 0, math.inf),
            ("max_unreadable", max_unreadable, 0, 1),
            ("seed", seed, 0, math.inf),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} must be between {least} and {most}, got {value}")
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_share = warmup_share
        self.label_smoothing = label_smoothing
        self.max_unreadable = max_unreadable
        self.seed = seed
        classes = model.classifier.out_features
        self.mix = Mix(classes, mixup_alpha, cutmix_alpha) if mixup_alpha or cutmix_alpha else None
        self.average = None if ema_decay is None else WeightAverage(ema_decay)
        self.validation_top1 = MulticlassAccuracy(classes, average="micro")
        self.validation_loss = MeanMetric()
        self.unreadable: dict[str, dict[int, str]] = {}
        self.report: EvaluationReport | None = None
        self._tested: list[dict[str, Tensor]] = []
        self._fingerprints: dict[str, str] = {}

    def on_train_batch_start(self, batch: dict[str, Any], batch_index: int) -> None:
        """Let the random choices of this step depend on nothing that came before."""
        place = (self.current_epoch, batch_index, self.global_rank)
        torch.manual_seed(derive_seed(self.seed, *place))

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Loss of a batch."""
        self._note_unreadable("train", batch)
        if "label" not in batch:
            # Nothing to learn from; every process still has to take part in the step.
            return sum(p.sum() * 0.0 for p in self.parameters() if p.requires_grad)
        if "semantic" in batch:
            self._check_nothing_to_extract()
        given = self._floating({name: batch[name] for name in _inputs(batch)})
        given["label"] = batch["label"]
        if self.mix is not None:
            given = self.mix(given)
        label = given.pop("label")
        logits = self._logits(**given)
        loss = F.cross_entropy(logits, label, label_smoothing=self.label_smoothing)
        if not torch.isfinite(loss):
            raise LossNotFinite(
                f"the loss is {loss.item()} at step {self.global_step}: lower the learning rate"
            )
        self.log("train_loss", loss, prog_bar=True, batch_size=len(logits))
        # Of mixed videos, the one that there is most of counts.
        shown = label if label.dim() == 1 else label.argmax(dim=1)
        accuracy = (logits.argmax(dim=1) == shown).float().mean()
        self.log(
            "train_top1",
            accuracy,
            prog_bar=True,
            on_step=False,
            on_epoch=True,
            batch_size=len(logits),
        )
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and take it into the average."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self._kept_weights())

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Count right answers; the loss is the cross-entropy of the labels as they are."""
        self._note_unreadable("validation", batch)
        if "label" in batch:
            probabilities, label = self._probabilities(batch), batch["label"]
            self.validation_top1.update(probabilities, label)
            least = torch.finfo(probabilities.dtype).tiny  # log(0) would hide all other videos
            loss = F.nll_loss(probabilities.clamp_min(least).log(), label)
            # MeanMetric leaves nan out: the mean would look as if all were well.
            self.validation_loss.update(loss.nan_to_num(nan=torch.inf), weight=len(label))

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Note what each video was taken for."""
        self._note_unreadable("test", batch)
        if "label" in batch:
            probabilities = self._probabilities(batch)
            best = probabilities.topk(min(5, probabilities.size(1)), dim=1)
            rows = {"probabilities": best.values, "ranked": best.indices}
            rows |= {name: batch[name] for name in ("index", "label")}
            self._tested.append({name: value.cpu() for name, value in rows.items()})

    def on_test_epoch_end(self) -> None:
        """Make the report."""
        self._swap_average()
        self.unreadable["test"] = self._gather_unreadable("test")
        rows = [row for tested in self._gather(self._tested) for row in tested]
        classes = self.model.classifier.out_features
        best = min(5, classes)
        rows.append(  # of no video, for where none could be read
            {
                "probabilities": torch.empty(0, best),
                "ranked": torch.empty(0, best, dtype=torch.int64),
                "index": torch.empty(0, dtype=torch.int64),
                "label": torch.empty(0, dtype=torch.int64),
            }
        )
        found = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        order = found["index"].argsort()
        ids = self.trainer.datamodule.test.ids
        self.report = EvaluationReport(
            classes=tuple(self.model.class_names or map(str, range(classes))),
            ids=tuple(ids[index] for index in found["index"][order].tolist()),
            labels=found["label"][order],
            ranked=found["ranked"][order],
            probabilities=found["probabilities"][order],
            unreadable=tuple(
                # A file name can hold bytes that are no text.
                f"{part}: {error}".encode(errors="backslashreplace").decode()
                for part in ("train", "validation", "test")
                for _, error in sorted(self.unreadable.get(part, {}).items())
            ),
        )
        numbers = ("top1", "top5", "mean_class")
        self.log_dict({f"test_{name}": getattr(self.report, name) for name in numbers})

    def on_train_epoch_start(self) -> None:
        """Begin to count unreadable videos."""
        self.unreadable["train"] = {}

    def on_train_epoch_end(self) -> None:
        """Bring together what each process could not read."""
        self.unreadable["train"] = self._gather_unreadable("train")

    def on_validation_epoch_start(self) -> None:
        """Begin to count unreadable videos; validate the average, where there is one."""
        self.unreadable["validation"] = {}
        self._swap_average()

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy, and bring together what each process could not read."""
        self._swap_average()
        self.unreadable["validation"] = self._gather_unreadable("validation")
        # Here and not by batch: every process has to take part, also one that could read nothing.
        for name in ("validation_loss", "validation_top1"):
            metric = getattr(self, name)
            self.log(name, metric.compute(), prog_bar=True)
            metric.reset()

    def on_test_epoch_start(self) -> None:
        """Begin to count unreadable videos; test the average, where there is one."""
        self.unreadable["test"] = {}
        self._tested = []
        self._swap_average()

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
        """Leave frozen extractors out; keep what a resumed run needs besides Lightning's own."""
        checkpoint["state_dict"] = self._without_frozen(checkpoint["state_dict"])
        checkpoint["frozen"] = {name: self._fingerprint(name) for name, _ in self._frozen()}
        checkpoint["seed"] = self.seed
        checkpoint["optimization"] = self._optimization()
        # By process: each goes on with its own.
        checkpoint["unreadable"] = self._gather(self.unreadable)
        if self.average is not None:
            checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put frozen extractors back in, after a check that they are the same; take up the rest."""
        own = self.state_dict()
        for name, fingerprint in checkpoint["frozen"].items():
            if self._fingerprint(name) != fingerprint:
                raise ValueError(
                    f"the frozen {name} has other weights (fingerprint {self._fingerprint(name)}) "
                    f"than when the checkpoint was written ({fingerprint}): resume with the same"
                )
            inside = {key: own[key] for key in own if key.startswith(f"{name}.")}
            checkpoint["state_dict"].update(inside)
        average = checkpoint.get("average")
        if self.average is not None and average is not None:
            self.average.load_state_dict(average)
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        if checkpoint["seed"] != self.seed:
            raise ValueError(
                f"this run was begun with seed {checkpoint['seed']} and cannot go on with "
                f"{self.seed}"
            )
        before = checkpoint.get("optimization", {})
        for name, value in self._optimization().items():
            if before.get(name) != value:
                raise ValueError(
                    f"this run was begun with {name}={before.get(name)} and cannot go on with "
                    f"{name}={value}"
                )
        own_share = checkpoint["unreadable"][self.global_rank]
        self.unreadable = own_share | self.unreadable

    def _optimization(self) -> dict[str, Any]:
        """What the steps of a run depend on besides its data and its model."""
        return {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "warmup_share": self.warmup_share,
            "label_smoothing": self.label_smoothing,
            "mixup_alpha": self.mix.mixup_alpha if self.mix else 0.0,
            "cutmix_alpha": self.mix.cutmix_alpha if self.mix else 0.0,
            "ema_decay": self.average.decay if self.average else None,
            "epochs": self.trainer.max_epochs,
        }

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights that were validated: the average where there is one."""
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"])
        self._swap_average()
        self.average = None  # no longer one

    def _logits(self, **given: Tensor) -> Tensor:
        if "clip" in given:
            return self.model(given["clip"])
        return self.model.forward_features(given["semantic"], given["motion"])

    def _floating(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Clips that came as bytes to [0, 1], stored features to the precision of the model."""
        if "clip" not in given:
            dtype = self.model.classifier.weight.dtype
            return {name: value.to(dtype) for name, value in given.items()}
        if given["clip"].is_floating_point():
            return given
        return {"clip": v2.functional.to_dtype(given["clip"], torch.float32, scale=True)}

    def _probabilities(self, batch: dict[str, Any]) -> Tensor:
        """Softmax, averaged over the views of each video, one view after the other."""
        given = {name: batch[name] for name in _inputs(batch)}
        one_view = {"clip": 5, "semantic": 3, "motion": 3}
        if any(value.dim() == one_view[name] for name, value in given.items()):
            given = {name: value.unsqueeze(1) for name, value in given.items()}
        views = zip(*(value.unbind(1) for value in given.values()), strict=True)
        found = [
            self._logits(**self._floating(dict(zip(given, view, strict=True))))
            .float()
            .softmax(dim=1)
            for view in views
        ]
        return torch.stack(found).mean(dim=0)

    def _check_nothing_to_extract(self) -> None:
        for name, child in self.model.named_children():
            if name.endswith("_extractor") and any(p.requires_grad for p in child.parameters()):
                raise ValueError(
                    f"stored features cannot train the {name}: freeze it (trainable=False) or "
                    "train on videos"
                )

    def _frozen(self) -> Iterator[tuple[str, nn.Module]]:
        """Extractors that training leaves as they are, by their name in the state."""
        for name, child in self.model.named_children():
            kept = getattr(child, "trainable", True) is False  # weights, and no running statistics
            if kept and not any(p.requires_grad for p in child.parameters()):
                yield f"model.{name}", child

    def _fingerprint(self, name: str) -> str:
        """Of the weights of a frozen part; computed once."""
        if name not in self._fingerprints:
            self._fingerprints[name] = self.get_submodule(name).fingerprint()["weights"]
        return self._fingerprints[name]

    def _without_frozen(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        frozen = tuple(f"{name}." for name, _ in self._frozen())
        return {name: value for name, value in state.items() if not name.startswith(frozen)}

    def _kept_weights(self) -> dict[str, Tensor]:
        return self._without_frozen(self.state_dict())

    def _swap_average(self) -> None:
        if self.average is not None:
            self.average.swap(self._kept_weights())

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
        parts = self._gather(self.unreadable.get(part, {}))
        return {index: error for each in parts for index, error in each.items()}

    def _gather(self, own: Any) -> list[Any]:
        """What each process has, in their order."""
        if self.trainer.world_size == 1:
            return [own]
        parts = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, own)
        return parts


def _inputs(batch: dict[str, Any]) -> tuple[str, ...]:
    return ("clip",) if "clip" in batch else ("semantic", "motion")
