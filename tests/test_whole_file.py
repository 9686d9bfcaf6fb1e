"""A file is whole or not there, and an error says which one."""

import errno
import os

import pytest

from gasmcast.whole_file import leftovers, name_of, whole_file


def test_it_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        (part,) = leftovers(tmp_path, "file")
        assert name_of(part) == "file"
        assert list(leftovers(tmp_path, "another")) == []
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_interrupts_it_leaves_the_old_one(tmp_path, monkeypatch, error):
    def interrupted(descriptor):
        raise error

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(error), whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_with_the_file(tmp_path, small_disk):
    with (
        pytest.raises(OSError, match=r"File too large: '.*name'"),
        small_disk(1000),
        whole_file(tmp_path / "name") as file,
    ):
        file.write(bytes(2000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", [0, errno.EPERM])
def test_a_new_one_takes_no_name_that_is_taken(tmp_path, monkeypatch, link):
    def without_links(*paths):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if link:
        monkeypatch.setattr(os, "link", without_links)
    path = tmp_path / "file"
    with whole_file(path, new=True) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError, match="file"), whole_file(path, new=True) as file:
        file.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_that_fails_for_another_reason(tmp_path, monkeypatch):
    def failing(*paths):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", failing)
    with pytest.raises(OSError, match="Errno 5"), whole_file(tmp_path / "file", new=True):
        pass
    assert list(tmp_path.iterdir()) == []
