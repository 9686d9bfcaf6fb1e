"""decord's helper process, and a stand-in for decord in it."""

import pytest

from gasmcast.video import _decord as decord_side


@pytest.fixture
def helper(monkeypatch):
    """A helper of this test's own, which is ended after it."""
    own = decord_side._Helper()
    monkeypatch.setattr(decord_side, "_helper", own)
    yield own
    own.close()


@pytest.fixture
def fake_decord(monkeypatch, tmp_path, helper):
    """Puts a stand-in for decord before the helper's import; its reader does what is asked."""

    def install(body, num_frames=41):
        folder = tmp_path / "fake"
        folder.mkdir()
        (folder / "decord.py").write_text(
            "import os, time\n"
            "__version__ = 'fake'\n"
            "class logging:\n"
            "    QUIET = 0\n"
            "    set_level = staticmethod(lambda level: None)\n"
            "def cpu(index):\n"
            "    return index\n"
            f"class VideoReader:\n"
            f"    def __init__(self, path, ctx, num_threads, fault_tol):\n        {body}\n"
            f"    def __len__(self):\n        return {num_frames}\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.syspath_prepend(str(folder))

    return install
