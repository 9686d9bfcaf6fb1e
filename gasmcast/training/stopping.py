"""SIGTERM, with which schedulers end a job: noted when it comes, answered between two steps."""

import os
import signal
import threading
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StopOnSigterm(Callback):
    """Ends a run after SIGTERM where all processes are at the same place.

    (Lightning's own handler speaks to the other processes from within the signal. Where these are
    in the middle of a step, all wait for each other forever.)

    Training ends where :class:`~gasmcast.training.checkpoints.RunCheckpoints` asks, after it saved;
    an evaluation ends after a batch.
    """

    def __init__(self) -> None:
        self.asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning, which puts back what was before when the run is over."""
        if threading.current_thread() is not threading.main_thread():
            return  # where Python allows no handler

        def note(number: int, frame: Any) -> None:
            if not self.asked and trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(number)  # on to the processes that it started
            self.asked = True

        signal.signal(signal.SIGTERM, note)

    on_test_start = on_train_start

    def on_test_batch_end(self, *args: Any) -> None:
        """End an evaluation."""
        if self.asked:
            raise SIGTERMException

    on_validation_batch_end = on_test_batch_end

    def check(self, trainer: Trainer) -> bool:
        """Whether any of the processes was asked; every process has to call this."""
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)


def outlive_sigterm(worker: int) -> None:
    """Leave SIGTERM to the main process, in a process that loads for it.

    A scheduler sends it to every process of a job. Where a loading process died of it, the main
    process could not finish its step and save. A second one ends a loading process nevertheless,
    in silence: that is how the main process ends one that hangs.
    """

    def first(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    signal.signal(signal.SIGTERM, first)
