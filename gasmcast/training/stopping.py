"""SIGTERM, with which schedulers end a job: noted when it comes, answered between two steps."""

import os
import signal
import socket
import threading
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gasmcast.processes import end_with_parent


class StopOnSigterm(Callback):
    """Ends a run after SIGTERM where all processes are at the same place.

    (Lightning's own handler speaks to the other processes from within the signal. Where these are
    in the middle of a step, all wait for each other forever.)

    Training ends where :class:`~gasmcast.training.checkpoints.RunCheckpoints` asks, after it saved;
    a validation is brought to its end first, for what was trained is saved after it. An evaluation
    by itself ends after a batch.
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

    def check(self, trainer: Trainer) -> bool:
        """Whether any of the processes was asked; every process has to call this."""
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)


def outlive_sigterm(worker: int) -> None:
    """Leave SIGTERM to the main process, in a process that loads for it.

    A scheduler sends it to every process of a job. Where a loading process died of it, the main
    process could not finish its step and save. A second one ends a loading process nevertheless,
    in silence: that is how the main process ends one that hangs, also within a decoder. It ends
    with the main process, too.
    """
    # A handler in Python would wait until a call into a decoder returns, which may be never. The
    # number of a signal is written to this socket at once, and a thread of its own reads it.
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def listen(told: socket.socket = told) -> None:  # which stays open as long as it is referred to
        came = 0
        while came < 2:
            came += heard.recv(64).count(signal.SIGTERM)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    end_with_parent()
