"""What several tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def video_samples() -> Path:
    """The folder of real clips, with its manifest.csv."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "videos"
    folder = Path(os.environ.get("GASMCAST_TEST_VIDEOS", beside))
    if not (folder / "manifest.csv").is_file():
        pytest.skip("real clips not found: set GASMCAST_TEST_VIDEOS")
    return folder
