"""The processes that train: one thread each, and none outlives the study."""

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch
from pebble import ProcessExpired, ProcessPool

from gasmcast.processes import PoolContext, end_with_parent, interrupt_afterwards


@contextmanager
def training_processes(count: int) -> Iterator[ProcessPool]:
    """A pool of processes that is stopped at the end, whatever the end is.

    What is under way then is given up. Ctrl-C is for the process that starts the pool alone.

    Args:
        count: How many work at the same time.

    Raises:
        ChildProcessError: One of them ended by itself.
    """
    pool = ProcessPool(count, initializer=_begin, context=PoolContext())
    try:
        with interrupt_afterwards():
            pool.active  # noqa: B018 - starts them
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
