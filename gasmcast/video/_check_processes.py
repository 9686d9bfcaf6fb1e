"""The processes in which a check reads videos: how they begin."""

import signal
from multiprocessing.context import SpawnContext, SpawnProcess


class _Process(SpawnProcess):
    """A terminal sends Ctrl-C to all processes: one that begins would print where it was.

    So it begins with that signal blocked. Its pool ends it.
    """

    def start(self) -> None:
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().start()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class CheckContext(SpawnContext):
    """Processes that begin afresh: a copy of this one could hang in a lock that it held.

    A pool that is stopped deletes its locks and then ends its processes. One that is still
    beginning would look for them in vain, so they are kept for as long as there is the context.
    """

    Process = _Process

    def __init__(self) -> None:
        self._locks = []

    def RLock(self):
        """A lock that stays."""
        self._locks.append(super().RLock())
        return self._locks[-1]
