"""Processes of a pool: how they begin, and that they end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess


class _Process(SpawnProcess):
    def start(self) -> None:
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().start()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class PoolContext(SpawnContext):
    """Processes that begin afresh: a copy of this one could hang in a lock that it held.

    A terminal sends Ctrl-C to all processes, and each would print where it was. So they begin with
    that signal blocked, but on Windows, where there are no signal masks: it is for the one that
    starts them (:func:`interrupt_afterwards`), whose pool ends them.

    pebble's pool, when it is stopped, deletes its locks and then ends its processes. One that is
    still beginning would look for them in vain, so they are kept for as long as there is the
    context.
    """

    Process = _Process

    def __init__(self) -> None:
        self._locks = []

    def RLock(self):
        """A lock that stays."""
        self._locks.append(super().RLock())
        return self._locks[-1]


@contextmanager
def interrupt_afterwards() -> Iterator[None]:
    """Keeps Ctrl-C back until the end of the block, in which a pool starts its processes.

    In the middle of it, a pool could lose a process that it would have to end. Other threads than
    the main one meet no signal, and a handler that is not Python's own cannot be put back: then it
    does nothing.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    met = []
    before = signal.signal(signal.SIGINT, lambda *_: met.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if met:
            signal.raise_signal(signal.SIGINT)


def end_with_parent() -> None:
    """Lets this process end when the one that started it is killed, even in the middle of work."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
