"""Checkpoints of a run: when they are written, and that they are never half written."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gasmcast.training.stopping import StopOnSigterm
from gasmcast.whole_file import leftovers, whole_file


class RunCheckpoints(Checkpoint):
    """Writes ``last.ckpt`` to go on from, and ``best.ckpt``, the epoch that validated best.

    ``last.ckpt`` is written after every epoch; in between after so many minutes, and before SIGTERM
    ends the run. It is written between two steps of the optimiser only, never while
    gradients are being accumulated.

    Args:
        folder: Where to write.
        minutes: Time between two checkpoints within an epoch, by the clock of the first process; 0
            for one after every step.
        sigterm: Asked after every step whether the run is to end.

    Raises:
        ValueError: A negative number of minutes.
    """

    def __init__(self, folder: Path, minutes: float, sigterm: StopOnSigterm):
        if not minutes >= 0:
            raise ValueError(f"checkpoint_minutes must be at least 0, got {minutes}")
        self.last = folder / "last.ckpt"
        self.best = folder / "best.ckpt"
        self.minutes = minutes
        self.sigterm = sigterm
        self.best_score = -1.0
        self._saved_at = 0.0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in the middle of an epoch where it is time."""
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        if (batch_idx + 1) % trainer.val_check_batch == 0:
            return  # a validation, or the end of the epoch, comes first
        stop = self.sigterm.check(trainer)
        due = time.monotonic() - self._saved_at >= 60 * self.minutes
        # One clock decides for all processes: they save together.
        if stop or trainer.strategy.broadcast(due):
            self._save(trainer, self.last)
        if stop:
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, as the best one too where it is."""
        score = trainer.callback_metrics.get("validation_top1")
        # The best one first: whoever goes on from the last one finds its best one written.
        if score is not None and float(score) > self.best_score:
            self.best_score = float(score)
            self._save(trainer, self.best)
        self._save(trainer, self.last)
        if self.sigterm.check(trainer):
            raise SIGTERMException

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best one so far."""
        self.best_score = state_dict["best_score"]

    def _save(self, trainer: Trainer, file: Path) -> None:
        if not trainer.fast_dev_run:
            trainer.save_checkpoint(file)
        self._saved_at = time.monotonic()


class WholeFiles(TorchCheckpointIO):
    """Writes beside a checkpoint, then renames over it: whatever happens leaves a whole one.

    (Lightning's own way writes to the system's folder for temporary files, and copies from there
    where that is another file system.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            OSError: It could not be written, such as on a full disk.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in leftovers(path.parent, path.name):
            left.unlink(missing_ok=True)
        with whole_file(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch's own complaint hides that the disk is full.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
