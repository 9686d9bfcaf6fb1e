"""One whole training run: fit, choose, test, save."""

import warnings
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gasmcast.model import TemporalCrossAttentionModel
from gasmcast.training.data import VideoDataModule
from gasmcast.training.module import ActionRecognition
from gasmcast.training.report import EvaluationReport


def train_and_test(
    model: TemporalCrossAttentionModel,
    data: VideoDataModule,
    output: str | Path,
    *,
    epochs: int,
    seed: int = 0,
    resume: bool = False,
    optimization: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
) -> EvaluationReport:
    """Train a model, evaluate it on the test videos, and write all of it to a folder.

    With validation videos, the epoch best on them is evaluated and saved; without, the last one,
    so that the test videos choose nothing. Written to ``output``: ``model/`` (for
    ``from_pretrained``), ``results.json`` (the report, with each video that was left out and why),
    ``confusion_matrix.csv``, ``checkpoints/`` (to resume from) and ``log/version_N/metrics.csv``
    (loss and accuracy along the way, a version for each start).

    Args:
        model: What to train; left with the weights that were evaluated. Without class names it
            gets those of the data.
        data: Videos to train, choose and test on.
        output: Folder to write to; made if need be.
        epochs: Passes over the training videos.
        seed: Of every random choice from here on; the model's weights are made already.
        resume: Go on from ``output/checkpoints/last.ckpt`` if it is there.
        optimization: Arguments of :class:`ActionRecognition`, such as ``learning_rate``.
        trainer: Arguments of ``lightning.Trainer``, such as ``devices``, ``num_nodes``,
            ``precision``, ``accumulate_grad_batches``, further ``callbacks``.

    Raises:
        TooManyUnreadableVideos: More videos than allowed cannot be read.
        ValueError: Model and data do not fit: classes, size or number of frames.
        FileExistsError: ``output`` holds a run already and ``resume`` is false.
    """
    output = Path(output)
    checkpoints = output / "checkpoints"
    last = checkpoints / "last.ckpt"
    if last.exists() and not resume:
        raise FileExistsError(
            f"{output} holds a run already: resume it (resume=True, --resume true) or take another "
            "folder"
        )
    seed_everything(seed, workers=True, verbose=False)
    for intended in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
        r"Found \d+ module\(s\) in eval mode",  # the frozen extractors
        r"Checkpoint directory .* exists and is not empty",  # a run that is resumed
    ):
        warnings.filterwarnings("ignore", message=intended)
    _check_fit(model, data)
    module = ActionRecognition(model, **(optimization or {}))
    validated = data.validation is not None
    # Both are written whole or not at all, so an interrupted run always has one to go on from.
    files = {"dirpath": checkpoints, "save_top_k": 1, "enable_version_counter": False}
    keep = [ModelCheckpoint(filename="last", **files)]
    if validated:
        keep.append(
            ModelCheckpoint(filename="best", monitor="validation_top1", mode="max", **files)
        )
    options = {
        "max_epochs": epochs,
        "logger": CSVLogger(output, name="log"),
        "log_every_n_steps": max(1, min(10, len(data.train) // data.batch_size)),
        "limit_val_batches": None if validated else 0,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        **(trainer or {}),
    }
    if options["logger"]:
        keep.append(LearningRateMonitor("step"))
    options["callbacks"] = [*keep, *options.get("callbacks", [])]
    try:
        run = Trainer(**options)
    except (TypeError, MisconfigurationException) as error:
        raise ValueError(f"these options make no trainer: {error}") from error
    try:
        run.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(f"this run can neither start nor go on: {error}") from error
    except SystemExit as stop:
        # Lightning's answer to SIGINT and SIGTERM, which by itself can look like success.
        raise SystemExit(f"stopped before the end: resume goes on from {last}") from stop
    best = checkpoints / "best.ckpt"
    chosen = best if validated and best.exists() else None
    run.test(module, data, ckpt_path=chosen, verbose=False, weights_only=True)
    if run.is_global_zero:
        model.save_pretrained(output / "model")
        module.report.save(output)
    run.strategy.barrier()
    return module.report


def _check_fit(model: TemporalCrossAttentionModel, data: VideoDataModule) -> None:
    """Say before anything is decoded what would go wrong, or unnoticed, later."""
    if model.class_names is None and model.classifier.out_features == len(data.classes):
        model.class_names = list(data.classes)
    pairs = {
        "classes": (model.classifier.out_features, len(data.classes)),
        "class names in order": (model.class_names, list(data.classes)),
        "image_size": (model.image_size, data.image_size),
        "num_frames": (model.num_frames, data.num_frames),
    }
    for what, (of_model, of_data) in pairs.items():
        if of_model != of_data:
            raise ValueError(f"model and data differ in {what}: {of_model} and {of_data}")
