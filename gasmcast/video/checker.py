"""Goes through the videos of a data set and writes down which of them cannot be read."""

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from gasmcast.processes import PoolContext, end_with_parent, interrupt_afterwards
from gasmcast.video._check_lists import BAD, WARNING, CheckLists
from gasmcast.video._contents import Deadline, look_inside
from gasmcast.video._decord import decord_installed
from gasmcast.video.errors import VideoReadError
from gasmcast.video.reader import count_frames, read_video

# decord and then PyAV may both need their full time, and looking into a file comes on top.
_KILL_AFTER = 3

# Where more than this share is not there, it is the folder that is wrong, or its disk not mounted.
_MOST_NOT_FOUND = 0.9


@dataclass(frozen=True)
class CheckSummary:
    """What a check of videos came to.

    Attributes:
        num_videos: Different videos that were to be checked.
        num_read: Those read by this call; the others were on the lists.
        num_bad: Those that cannot be read.
        num_warnings: Those that can be read and have something odd.
    """

    num_videos: int
    num_read: int
    num_bad: int
    num_warnings: int


def check_videos(
    paths: Iterable[str | os.PathLike[str]],
    bad_list: str | os.PathLike[str],
    *,
    num_workers: int = 4,
    timeout_seconds: float = 60.0,
) -> CheckSummary:
    """Reads every video as training would, decodes it to its end, and lists those that are bad.

    A video is bad if :func:`read_video` raises, if a decoder hangs in it, or if it brings its
    process down. It goes on ``bad_list``, a CSV file ``path,reason``, which the datasets accept.
    The others go on a second file beside it: for ``bad.csv`` it is ``bad.checked.csv``, with the
    columns ``path,warning``. A warning names what can be read and is odd: frames that do not
    decode, a decoder that gives other frames than PyAV or fails where it should not.

    What is on the files stays there, and is not checked again: interrupted at any moment, the same
    call goes on where it was. Whoever replaces a video deletes its line, or both files. Only a
    video that was not found is checked again, as soon as it is there.

    Each video is read in one of several processes, and a process that hangs is ended and
    replaced. In a script the call has to stand under ``if __name__ == "__main__":``, for the
    processes import the script.

    Args:
        paths: The videos, files or folders of images. They go on the lists as absolute paths.
        bad_list: The file of bad videos, continued where it exists.
        num_workers: Processes that read, at least 1.
        timeout_seconds: How long each decoder may take, as for :func:`read_video`. A process that
            has not answered after three times as long is killed. ``math.inf`` for no limit.

    Returns:
        The counts over all ``paths``, whenever they were checked.

    Raises:
        ValueError: If a setting is out of range, a path holds a line break, or a file of that name
            is there and is no list of a check.
        FileNotFoundError: If more than 90 % of the videos are not there. The lists stay as they
            are.
        RuntimeError: If the processes cannot start, as where a script lacks that line.
    """
    from tqdm.auto import tqdm

    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be positive, got {timeout_seconds}")
    # Absolute: from another folder a relative name would mean another file, or none.
    names = list(dict.fromkeys(os.path.abspath(os.fsdecode(path)) for path in paths))
    for name in names:
        if "\n" in name or "\r" in name:
            raise ValueError(f"a list of one path a line cannot hold the line break in {name!r}")
    missing = {name for name in names if not os.path.exists(name)}
    if len(missing) > _MOST_NOT_FOUND * len(names):
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} videos are not there, such as {min(missing)}: "
            "expected their folder, on a disk that is mounted"
        )
    lists = CheckLists(Path(bad_list))
    lists.forget_not_found(name for name in names if name not in missing)
    with lists:
        left = [name for name in names if lists.found(name) is None]
        num_bad = sum(lists.found(name) == BAD for name in names)
        with tqdm(total=len(names), initial=len(names) - len(left), unit="video") as bar:
            for name, (is_bad, remark) in _read_all(left, num_workers, timeout_seconds):
                lists.add(name, is_bad, remark)
                num_bad += is_bad
                bar.set_postfix(bad=num_bad, refresh=False)
                bar.update()
        num_warnings = sum(lists.found(name) == WARNING for name in names)
    return CheckSummary(len(names), len(left), num_bad, num_warnings)


def _read_all(
    paths: list[str], num_workers: int, timeout_seconds: float
) -> Iterator[tuple[str, tuple[bool, str]]]:
    """Path and finding of each video, as they get ready."""
    from pebble import ProcessPool

    limit = None if math.isinf(timeout_seconds) else _KILL_AFTER * timeout_seconds
    workers = max(1, min(num_workers, len(paths)))
    pool = ProcessPool(workers, initializer=end_with_parent, context=PoolContext())
    waiting = iter(paths)
    running: dict[Future, str] = {}
    try:
        while True:
            # Few at a time: the pool holds more than a path of each video that waits in it.
            with interrupt_afterwards():
                for path in islice(waiting, 2 * workers - len(running)):
                    future = pool.schedule(_check_video, (path, timeout_seconds), timeout=limit)
                    running[future] = path
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), _finding(future, limit)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "the processes that read videos end before they begin: expected the call in a file, "
            'under if __name__ == "__main__": where the file is a script'
        ) from error
    finally:
        pool.stop()
        pool.join()


def _finding(future: Future, limit: float | None) -> tuple[bool, str]:
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return True, f"its process was killed after {limit:g} s without an answer"
    except ProcessExpired as error:
        return True, f"its process ended with code {error.exitcode}"


def _check_video(path: str, timeout_seconds: float) -> tuple[bool, str]:
    """Whether a video is bad, and the reason, or a warning, or an empty text."""
    try:
        return False, _read_twice(path, timeout_seconds)
    except VideoReadError as error:
        return True, error.reason
    except ImportError:
        raise  # the fault of this machine, not of the video
    except Exception as error:  # training would meet it too
        return True, f"{type(error).__name__}: {error}"


def _read_twice(path: str, timeout_seconds: float) -> str:
    usual = read_video(path, timeout_seconds=timeout_seconds)
    if usual.backend == "images":
        count_frames(path)
        return ""
    contents = look_inside(path, Deadline(path, timeout_seconds))
    whole = usual
    if usual.backend == "decord":  # which has passed over most of the file
        whole = read_video(path, backend="pyav", timeout_seconds=timeout_seconds)
    expected = max(contents.num_packets, contents.num_stated) - contents.num_hidden
    if whole.num_frames < expected:
        return f"{whole.num_frames} of {expected} frames decode"
    if not torch.equal(usual.frames, whole.frames):
        return "decord gives other frames than PyAV: read it with backend='pyav'"
    if usual is whole and contents.decord_obstacle is None and decord_installed():
        return "decord fails on it, and PyAV takes over every time"
    return ""
