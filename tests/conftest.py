"""What several tests share."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def video_samples() -> Path:
    """The folder of real clips, with its manifest.csv."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "videos"
    folder = Path(os.environ.get("GASMCAST_TEST_VIDEOS", beside))
    if not (folder / "manifest.csv").is_file():
        pytest.skip("real clips not found: set GASMCAST_TEST_VIDEOS")
    return folder


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """No file can grow beyond so many bytes, within a ``with`` block."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(most: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, for the length of a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
