"""Files that are there whole or not at all, also after a power cut."""

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from gasmcast.feature_store.errors import FeatureStoreError

PART = ".part"


def write_new(path: Path, content: bytes) -> bool:
    """Write a file unless it is there already. Returns whether this call did.

    Of several processes that write the same name at the same time, one does.
    """
    if path.exists():
        return False
    part = _write_part(path, content)
    try:
        os.link(part, path)  # unlike a rename it fails where the name is taken
    except OSError as error:
        if path.exists():
            return False
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise _unwritten(path, content, error) from error
        part.replace(path)  # a file system without hard links
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of one of this name."""
    part = _write_part(path, content)
    try:
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritten(path, content, error) from error
    _sync_folder(path.parent)


def _write_part(path: Path, content: bytes) -> Path:
    """The content beside ``path``, on the disk and not only on its way there."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        with part.open("xb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritten(path, content, error) from error
        raise
    return part


def _unwritten(path: Path, content: bytes, error: OSError) -> FeatureStoreError:
    return FeatureStoreError(
        f"{path} ({len(content) / 2**20:.1f} MiB) could not be written: {error.strerror or error}; "
        "what is in the store is whole, and the same command goes on from there"
    )


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last; not every system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
