"""One whole training run: fit, choose, test, save."""

import warnings
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

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
    callbacks: list[Callback] | None = None,
) -> EvaluationReport:
    """Train a model, evaluate it on the test videos, and write all of it to a folder.

    With validation videos, the epoch best on them is evaluated and saved; without, the last one,
    so that the test videos choose nothing. Written to ``output``: ``model/`` (for
    ``from_pretrained``), ``results.json`` (the report, with each video that was left out and why),
    ``confusion_matrix.csv``, ``checkpoints/`` (to resume from) and ``log/version_N/metrics.csv``
    (loss and accuracy along the way, a version for each start).

    Args:
        model: What to train; left with the weights that were evaluated.
        data: Videos to train, choose and test on.
        output: Folder to write to; made if need be.
        epochs: Passes over the training videos.
        seed: Of every random choice from here on.
        resume: Go on from ``output/checkpoints/last.ckpt`` if it is there.
        optimization: Arguments of :class:`ActionRecognition`, such as ``learning_rate``.
        trainer: Arguments of ``lightning.Trainer``, such as ``devices``, ``num_nodes``,
            ``precision``, ``accumulate_grad_batches``.
        callbacks: Further Lightning callbacks.

    Raises:
        TooManyUnreadableVideos: More videos than allowed cannot be read.
        FileExistsError: ``output`` holds a run already and ``resume`` is false.
    """
    output = Path(output)
    checkpoints = output / "checkpoints"
    last = checkpoints / "last.ckpt"
    if last.exists() and not resume:
        raise FileExistsError(f"{output} holds a run already: resume it or take another folder")
    seed_everything(seed, workers=True, verbose=False)
    # Lightning's own use of a name that torch renamed; nothing a user could act on.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    module = ActionRecognition(model, **(optimization or {}))
    validated = data.validation is not None
    # Both are written whole or not at all, so an interrupted run always has one to go on from.
    files = {"dirpath": checkpoints, "save_top_k": 1, "enable_version_counter": False}
    keep = [ModelCheckpoint(filename="last", **files)]
    if validated:
        keep.append(
            ModelCheckpoint(filename="best", monitor="validation_top1", mode="max", **files)
        )
    run = Trainer(
        **{
            "max_epochs": epochs,
            "logger": CSVLogger(output, name="log"),
            "log_every_n_steps": max(1, min(10, len(data.train) // data.batch_size)),
            "limit_val_batches": None if validated else 0,
            "enable_model_summary": False,
            **(trainer or {}),
        },
        callbacks=[*keep, LearningRateMonitor("step"), *(callbacks or [])],
    )
    run.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    if run.interrupted:
        raise KeyboardInterrupt(f"stopped; run again with resume to go on from {last}")
    best = checkpoints / "best.ckpt"
    chosen = best if validated and best.exists() else None
    run.test(module, data, ckpt_path=chosen, verbose=False, weights_only=True)
    if run.is_global_zero:
        model.save_pretrained(output / "model")
        module.report.save(output)
    run.strategy.barrier()
    return module.report
