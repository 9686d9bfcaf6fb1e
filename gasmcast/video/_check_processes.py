"""The processes in which a check reads videos: how they begin."""

from gasmcast.processes import PoolContext


class CheckContext(PoolContext):
    """Processes of a pool that may be stopped while some of them still begin.

    It deletes its locks and then ends its processes. One that is still beginning would look for
    them in vain, so they are kept for as long as there is the context.
    """

    def __init__(self) -> None:
        self._locks = []

    def RLock(self):
        """A lock that stays."""
        self._locks.append(super().RLock())
        return self._locks[-1]
