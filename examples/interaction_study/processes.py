"""The processes that train: one thread each, and none outlives the study."""

import signal
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

import torch
from pebble import ProcessExpired, ProcessPool

from gasmcast.processes import end_with_parent


@contextmanager
def training_processes(count: int) -> Iterator[ProcessPool]:
    """A pool of processes that is stopped at the end, whatever the end is.

    What is under way then is given up. Ctrl-C is for the process that starts the pool alone.

    Args:
        count: How many work at the same time.

    Raises:
        ChildProcessError: One of them ended by itself.
    """
    pool = ProcessPool(count, initializer=_begin, context=get_context("spawn"))
    # A terminal sends Ctrl-C to all processes. One that begins would print where it was; it ignores
    # what the one that starts it ignores.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pool.active  # noqa: B018 - starts them
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield pool
    except (ProcessExpired, BrokenProcessPool) as error:
        code = getattr(error, "exitcode", "unknown")
        raise ChildProcessError(
            f"a process of the study ended by itself with code {code}, perhaps for want of memory "
            "(fewer --processes need less): the same command goes on from here"
        ) from error
    finally:
        pool.stop()
        pool.join()


def _begin() -> None:
    # Each its own thread: two runs at once are faster than one that shares its small products.
    torch.set_num_threads(1)
    end_with_parent()
