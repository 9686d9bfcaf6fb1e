"""One whole training run: fit, choose, test, save. And an evaluation by itself."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any
from uuid import uuid4

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors import SafetensorError

from gasmcast.model import TemporalCrossAttentionModel
from gasmcast.training.checkpoints import RunCheckpoints, WholeFiles
from gasmcast.training.data import ActionDataModule
from gasmcast.training.module import ActionRecognition
from gasmcast.training.report import EvaluationReport
from gasmcast.training.stopping import StopOnSigterm

_SEED = " (weights that are not loaded from a file follow from the seed)"


def train_and_test(
    model: TemporalCrossAttentionModel,
    data: ActionDataModule,
    output: str | Path,
    *,
    epochs: int,
    seed: int = 0,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    optimization: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
) -> EvaluationReport:
    """Train a model, evaluate it on the test videos, and write all of it to a folder.

    With validation videos, the epoch best on them is evaluated and saved; without, the last one,
    so that the test videos choose nothing. Written to ``output``: ``model/`` (for
    ``from_pretrained``), the files of :meth:`EvaluationReport.save`, ``checkpoints/`` (to resume
    from) and ``log/version_N/metrics.csv`` (loss and accuracy along the way, a version for each
    start).

    A run that was interrupted at any moment and is resumed takes the same steps as one that was
    not: on a CPU it ends with the same weights, bit by bit. It goes on from the last checkpoint,
    and has to be called with the same model, data, numbers and number of processes.

    Args:
        model: What to train; left with the weights that were evaluated. Without class names it
            gets those of the data.
        data: What to train, choose and test on.
        output: Folder to write to; made if need be.
        epochs: Passes over the training videos.
        seed: Of the random choices in the model, such as dropping and mixing. Those of the data
            have a seed of their own there, and the weights are made already.
        resume: Go on from ``output/checkpoints/last.ckpt`` if it is there.
        checkpoint_minutes: A checkpoint is written after every epoch, and within an epoch when so
            many minutes have passed since the last one; 0: after every step.
        optimization: Arguments of :class:`ActionRecognition`, such as ``learning_rate``.
        trainer: Arguments of ``lightning.Trainer``, such as ``devices``, ``num_nodes``,
            ``precision``, ``accumulate_grad_batches``, ``gradient_clip_val``, further
            ``callbacks``.

    Raises:
        TooManyUnreadableVideos: More videos than allowed cannot be read.
        ValueError: Model and data do not fit: classes, size or number of frames; a run that is
            resumed with something else than it was begun with; a limit of steps or time, which is
            given in epochs; validation within an epoch; fewer than one epoch.
        FileExistsError: ``output`` holds a run already and ``resume`` is false.
        OSError: ``output`` cannot be written to, which is tried before anything is loaded; or not
            any more, such as on a full disk.
        SystemExit: SIGTERM or SIGINT stopped the run; the text says where it goes on from.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    output = Path(output)
    sigterm = StopOnSigterm()
    checkpoints = RunCheckpoints(output / "checkpoints", checkpoint_minutes, sigterm)
    last = checkpoints.last
    if last.exists() and not resume:
        raise FileExistsError(
            f"{output} holds a run already: resume it (resume=True, --resume true) or take another "
            "folder"
        )
    if data.train is None:
        raise ValueError("there is nothing to train on: the data has no train part")
    _check_fit(model, data)
    _check_folder(output)
    module = ActionRecognition(model, seed=seed, **(optimization or {}))
    validated = data.validation is not None
    options = {
        "max_epochs": epochs,
        "logger": CSVLogger(output, name="log"),
        "limit_val_batches": None if validated else 0,
        "num_sanity_val_steps": 0,
        **(trainer or {}),
    }
    keep = [sigterm, checkpoints]
    if options["logger"]:
        keep.append(LearningRateMonitor("step"))
    options["callbacks"] = [*keep, *options.get("callbacks", [])]
    options["plugins"] = [WholeFiles(), *options.get("plugins", [])]
    for limit in ("max_steps", "max_time"):
        if options.get(limit, -1) not in (-1, None):
            raise ValueError(f"give the length of a run in epochs, got {limit}={options[limit]}")
    if options.get("val_check_interval") not in (None, 1.0):
        raise ValueError(
            "validation comes after an epoch, of which the best is kept: give "
            f"check_val_every_n_epoch, got val_check_interval={options['val_check_interval']}"
        )
    run = _make_trainer(options)
    if "log_every_n_steps" not in (trainer or {}):
        steps = len(data.train) // (data.batch_size * run.world_size)
        run.log_every_n_steps = max(1, min(10, steps))
    with _early_end_named(last):
        try:
            run.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
        except MisconfigurationException as error:
            raise ValueError(f"this run can neither start nor go on: {error}") from error
        chosen = checkpoints.best if validated and checkpoints.best.exists() else last
        if chosen.exists():  # a quick trial of the trainer writes none
            module.load_weights(torch.load(chosen, map_location="cpu", weights_only=True))
        run.test(module, data, verbose=False)
        if run.is_global_zero:
            model.save_pretrained(output / "model")
            module.report.save(output)
    run.strategy.barrier()
    return module.report


def evaluate(
    model: TemporalCrossAttentionModel,
    data: ActionDataModule,
    output: str | Path | None = None,
    *,
    max_unreadable: float = 0.1,
    trainer: dict[str, Any] | None = None,
) -> EvaluationReport:
    """Evaluate a model on the test part of data.

    Args:
        model: The model. Without class names it gets those of the data.
        data: Its ``test`` part is evaluated.
        output: Folder for the files of :meth:`EvaluationReport.save`, which the first process
            writes; made if need be. None: nothing is written.
        max_unreadable: Share of the videos that may be unreadable, 0 to 1.
        trainer: Arguments of ``lightning.Trainer``, such as ``devices``, ``precision``.

    Raises:
        TooManyUnreadableVideos: More videos than allowed cannot be read.
        ValueError: Model and data do not fit: classes, size or number of frames.
        OSError: ``output`` cannot be written to, which is tried before anything is loaded; or not
            any more, such as on a full disk.
        SystemExit: SIGTERM or SIGINT stopped it.
    """
    _check_fit(model, data)
    if output is not None:
        _check_folder(Path(output))
    module = ActionRecognition(model, max_unreadable=max_unreadable)
    options = {"logger": False, "enable_checkpointing": False, **(trainer or {})}
    options["callbacks"] = [StopOnSigterm(), *options.get("callbacks", [])]
    run = _make_trainer(options)
    with _early_end_named():
        run.test(module, data, verbose=False)
        if output is not None and run.is_global_zero:
            module.report.save(output)
    run.strategy.barrier()
    return module.report


def _make_trainer(options: dict[str, Any]) -> Trainer:
    for intended in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
        r"Found \d+ module\(s\) in eval mode",  # the frozen extractors
        r"You're resuming from a checkpoint that ended before",  # the data module sees to that
        # Evaluations are of all processes already; training numbers are those of the first.
        r"It is recommended to use `self\.log\('(train|validation|test)_",
    ):
        warnings.filterwarnings("ignore", message=intended)
    # Under Slurm, Lightning would write a checkpoint into this folder on a signal, and from then on
    # take up whatever such a file it finds there, in evaluations and other runs too. Nothing has to
    # lie there: a resumed run goes on from its own checkpoint.
    nowhere = Path(gettempdir()) / f"gasmcast-{uuid4().hex}"
    plugins = [*options.get("plugins", [])]
    chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if not chosen and not TorchElasticEnvironment.detect() and SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    own = {"enable_model_summary": False, "default_root_dir": nowhere}
    try:
        return Trainer(**{**own, **options, "plugins": plugins})
    except (TypeError, MisconfigurationException) as error:
        raise ValueError(f"these options make no trainer: {error}") from error


def _check_folder(folder: Path) -> None:
    """Find out before hours of work that their results cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        said = f"output must be a folder to write to ({error.strerror})"
        raise OSError(error.errno, said, str(folder)) from error


@contextmanager
def _early_end_named(last: Path | None = None) -> Iterator[None]:
    """Say of a run that is stopped, or cannot write, what it leaves."""
    try:
        yield
    except SystemExit as stop:
        # Lightning's answer to SIGINT and SIGTERM, which by itself can look like success.
        raise SystemExit(f"stopped before the end: {_left(last)}") from stop
    except SafetensorError as error:  # of a model that is saved
        raise OSError(f"{error} ({_left(last)})") from error
    except OSError as error:
        if error.errno is None:
            raise
        said = f"{error.strerror} ({_left(last)})"
        raise OSError(error.errno, said, error.filename) from error


def _left(last: Path | None) -> str:
    if last is None or not last.exists():
        return "there is nothing to go on from"
    return f"resume goes on from {last}"


def _check_fit(model: TemporalCrossAttentionModel, data: ActionDataModule) -> None:
    """Say before anything is decoded what would go wrong, or unnoticed, later."""
    if model.class_names is None and model.classifier.out_features == len(data.classes):
        model.class_names = list(data.classes)
    pairs = {
        "classes": (model.classifier.out_features, len(data.classes)),
        "class names in order": (model.class_names, list(data.classes)),
    }
    for what in ("image_size", "num_frames"):
        if hasattr(data, what):  # features have neither
            pairs[what] = (getattr(model, what), getattr(data, what))
    for what, (of_model, of_data) in pairs.items():
        if of_model != of_data:
            raise ValueError(f"model and data differ in {what}: {of_model} and {of_data}")
    for name in ("train", "test", "validation"):
        _check_features(model, name, getattr(getattr(data, name), "fingerprint", None))


def _check_features(
    model: TemporalCrossAttentionModel, name: str, stored: Mapping[str, Any] | None
) -> None:
    """Stored features have to be those of the model's own extractors."""
    for stream in ("semantic", "motion") if stored is not None else ():
        extractor = getattr(model, f"{stream}_extractor")
        # As JSON gives it back: lists for tuples.
        own = json.loads(json.dumps(extractor.fingerprint()))
        if not isinstance(stored.get(stream), Mapping):
            raise ValueError(
                f"the {name} features do not say which {stream} extractor they come from: their "
                f"fingerprint must hold {stream!r}, as extract_features writes it, got "
                f"{dict(stored)}"
            )
        if own != stored[stream]:
            differ = [key for key in own if own[key] != stored[stream].get(key)]
            raise ValueError(
                f"the {name} features come from another {stream} extractor than the model's: they "
                f"differ in {', '.join(differ)}{_SEED if 'weights' in differ else ''}"
            )
