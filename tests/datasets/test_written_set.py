"""What becomes of the processes that draw, and of files that two calls write at the same time."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gasmcast.datasets import write_interactions, write_rendered_dataset
from video.processes import children_of, ended, spawned_by, wait_until

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"clips_per_class": {"validation": 1}, "num_frames": 2, "size": 32}

# At some of the classes, {action} is done in the process that draws.
SCRIPT = """
import os, signal, sys, time
from gasmcast.datasets import interactions

draw_clip = interactions._draw_clip

def draw(clip, **options):
    if clip.target in {targets}:
        {action}
    return draw_clip(clip, **options)

if __name__ == "__main__":
    # A shell that runs the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interactions._draw_clip = draw
    try:
        interactions.write_interactions(sys.argv[1], processes=2, **{options})
    except ChildProcessError as error:
        raise SystemExit(str(error))
    except KeyboardInterrupt:
        raise SystemExit(7)
"""


def script(tmp_path, action, targets=(20,), options=SMALL):
    file = tmp_path / "draw.py"
    file.write_text(SCRIPT.format(action=action, targets=targets, options=options))
    return [sys.executable, str(file), str(tmp_path / "set")]


def clips(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_they_end_with_the_process_that_started_them(tmp_path):
    with subprocess.Popen(script(tmp_path, "time.sleep(600)"), stderr=subprocess.DEVNULL) as run:
        # Eight at a time: one process hangs at its fifth, the other has drawn all else.
        assert wait_until(lambda: len(clips(tmp_path / "set")) == 40, 120)
        children = children_of(run.pid)
        run.send_signal(signal.SIGKILL)
    assert len(children) == 3  # with that which keeps count of their locks
    for child in children:
        assert wait_until(lambda child=child: ended(child))


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize("drawn", [0, 8])  # while they begin; in the middle of the work
def test_ctrl_c_ends_it_soon_and_they_print_nothing(tmp_path, drawn):
    options = SMALL | {"clips_per_class": {"validation": 4}}
    command = script(tmp_path, "time.sleep(0.1)", range(44), options)
    if not drawn:  # where they are when the signal comes
        with open(command[1], "a") as file:
            file.write("else:\n    time.sleep(2)\n")
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert wait_until(
            lambda: spawned_by(run.pid) == 2 and len(clips(tmp_path / "set")) >= drawn, 120
        )
        time.sleep(0.5)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        printed = run.communicate(timeout=60)[1]
    assert (run.returncode, printed) == (7, "")
    assert len(clips(tmp_path / "set")) <= 8 * 10  # of 176: what the two had before them


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_one_that_is_killed_is_one_error_and_the_same_call_goes_on(tmp_path):
    command = script(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith(
        "a process that draws clips ended by itself, perhaps for want of memory (fewer processes "
        "need less): what is written stays, and the same call goes on from there"
    )
    before = clips(tmp_path / "set")
    assert len(before) >= 4
    splits = write_interactions(tmp_path / "set", **SMALL)
    after = clips(tmp_path / "set")
    assert {tmp_path / "set" / clip.path for clip in splits["validation"]} == after.keys()
    assert after | before == after


def test_a_call_that_another_finishes_meanwhile(tmp_path, monkeypatch):
    """The one that is first deletes what the other is about to write twice."""
    options = {"clips_per_class": {"train": 1}, "motions": ["lift"], "appearances": ["plain"]}
    options |= {"num_frames": 2, "size": 32}
    first = []

    def sync(descriptor, sync=os.fsync):
        if not first and list(tmp_path.rglob(".*.mp4.*.part")):
            first.append(True)
            first.append(write_rendered_dataset(tmp_path, **options))
            assert list(tmp_path.rglob(".*")) == []
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    splits = write_rendered_dataset(tmp_path, **options)
    assert first == [True, splits]
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "labels.json",
        "rendered.json",
        "train.csv",
        "train_00_00000.mp4",
    ]
