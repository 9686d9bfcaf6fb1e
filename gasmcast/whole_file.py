"""Files that are there whole or not at all, also after a kill, a full disk or a power cut."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write, which gets its name when all of it is on the disk.

    Until then it lies beside its name, hidden under one that ends in ``.part``. Where the writing
    fails, that is deleted, and what had the name before keeps it. (A killed process cannot delete:
    :func:`leftovers`.)

    Args:
        path: The file; its folder has to be there.
        new: Leave a file of this name alone. Of several processes that write it at the same time,
            one does.

    Raises:
        FileExistsError: With ``new``, the name is taken.
        OSError: It could not be written, such as on a full disk.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the name points to it, also where the power fails
        if new:
            _link(part, path)
        else:
            part.replace(path)
    except OSError as error:
        # The system does not say which file where a write fails.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def leftovers(folder: Path, name: str) -> Iterator[Path]:
    """What processes that were killed while writing left of files of this name, a glob pattern."""
    return folder.glob(f".{name}.*.part")


def name_of(part: Path) -> str:
    """The name that the file was to get of which a killed process left this."""
    return part.name[1:].rsplit(".", 2)[0]  # .NAME.uuid.part


def _link(part: Path, path: Path) -> None:
    """Rename, but fail where the name is taken."""
    try:
        os.link(part, path)
    except OSError as error:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        part.replace(path)  # a file system without hard links


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last; not every system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
