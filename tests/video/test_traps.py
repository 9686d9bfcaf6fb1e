"""What decoders are known to get wrong, on real files that show it, and what is done about each.

A test of a trap first steps into it where that is possible: decord alone, past the routing.
"""

import importlib.util
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gasmcast.video import (
    VideoReadError,
    _contents,
    count_frames,
    read_video,
    segment_indices,
)
from gasmcast.video import _decord as decord_side
from video.made_videos import write_video

needs_decord = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)
# Frames of mpeg_ts.ts that decord never comes back from; most others it gets wrong or right.
NEVER_ANSWERED = [69, 82, 88, 93, 181, 184, 185, 186, 204, 212, 228, 236, 261, 263, 268, 271]
TURNED = {"rotated_0.mov": 0, "rotated_90.mov": 1, "rotated_180.mov": 2, "rotated_270.mov": 3}


def odd(video_samples, name):
    return str(video_samples / "odd" / name)


def by_decord(path, indices):
    """Frames from decord whatever the routing says: uint8 [T, 3, H, W]."""
    contents = _contents.look_inside(path, _contents.Deadline(path, 60))
    frames = decord_side.decode(path, contents, np.asarray(indices), 60)
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def mebibytes(pid, field):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))


@needs_decord
class TestHang:
    def test_decord_itself_hangs_on_mpeg_ts(self, video_samples):
        code = (
            "import sys, decord\n"
            "reader = decord.VideoReader(sys.argv[1], num_threads=1)\n"
            "print(len(reader), flush=True)\n"
            "reader.get_batch([int(index) for index in sys.argv[2:]])\n"
        )
        path = odd(video_samples, "mpeg_ts.ts")
        command = [sys.executable, "-c", code, path, *map(str, NEVER_ANSWERED)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **streams) as run:
            assert run.stdout.readline() == b"280\n"  # it gets as far as counting
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(timeout=3)
            run.kill()

    def test_its_process_is_killed_and_the_next_read_finds_another(self, video_samples, helper):
        path = odd(video_samples, "mpeg_ts.ts")
        request = {"path": path, "num_frames": 280, "indices": NEVER_ANSWERED, "fault_tol": -1}
        start = time.monotonic()
        with pytest.raises(decord_side.DecordFailure, match=r"^decord did not answer within 3 s$"):
            helper.ask(request, (16, 256, 340, 3), 3.0)
        assert time.monotonic() - start < 20
        assert helper._process is None
        assert read_video(odd(video_samples, "arm_wrestling.mp4")).backend == "decord"

    def test_pyav_takes_over_where_the_routing_would_let_it_happen(
        self, video_samples, helper, monkeypatch
    ):
        monkeypatch.setitem(_contents._DECORD_READS, "mpegts", {"h264"})
        ask = helper.ask
        monkeypatch.setattr(
            helper, "ask", lambda request, *rest: ask({**request, "fault_tol": -1}, *rest)
        )
        path = odd(video_samples, "mpeg_ts.ts")
        start = time.monotonic()
        clip = read_video(path, NEVER_ANSWERED, timeout_seconds=3.0)
        assert 3 < time.monotonic() - start < 20
        assert clip.backend == "pyav"
        monkeypatch.undo()
        assert torch.equal(clip.frames, read_video(path, NEVER_ANSWERED, backend="pyav").frames)

    def test_the_routing_keeps_decord_away(self, video_samples, helper):
        path = odd(video_samples, "mpeg_ts.ts")
        assert read_video(path, NEVER_ANSWERED).backend == "pyav"
        assert helper._process is None
        message = r"decord cannot read it: decord does not read h264 in mpegts reliably$"
        with pytest.raises(VideoReadError, match=message):
            read_video(path, NEVER_ANSWERED, backend="decord")


@needs_decord
class TestFork:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_workers_forked_after_the_parent_has_read(self, video_samples, helper):
        paths = [
            odd(video_samples, name)
            for name in ("arm_wrestling.mp4", "vp9_noaudio.webm", "mpeg_ts.ts", "pancake.mkv")
        ]
        mine = [read_video(path) for path in paths]
        loader = DataLoader(
            paths,
            batch_size=None,
            num_workers=2,
            collate_fn=partial(read_video, timeout_seconds=30),
            multiprocessing_context="fork",
            timeout=60,
        )
        for clip, expected in zip(loader, mine, strict=True):
            assert clip.backend == expected.backend
            assert torch.equal(clip.frames, expected.frames)
        assert [clip.backend for clip in mine] == ["decord", "decord", "pyav", "decord"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """1920 x 1080, 40 frames: 237 MiB of pictures."""
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    options = {"preset": "ultrafast", "g": "20"}
    return str(write_video(path, 40, size=(1920, 1080), options=options))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in /proc")
class TestMemory:
    @needs_decord
    def test_one_frame_costs_decord_few_and_they_do_not_pile_up(self, large, helper):
        read_video(large, [20], backend="decord")
        for index in range(0, 40, 2):
            read_video(large, [index], backend="decord")
        # A bare interpreter with decord and numpy takes about 50 MiB of it.
        assert mebibytes(helper._process.pid, "VmHWM") < 250

    def test_a_frame_read_with_pyav_leaves_nothing_behind(self, large):
        code = (
            "import gc, sys\n"
            "gc.disable()  # what only Python's collector would find must not be there\n"
            "from gasmcast.video import read_video\n"
            "for index in range(3):\n"
            "    read_video(sys.argv[1], [0], backend='pyav')\n"
            "for line in open('/proc/self/status'):\n"
            "    if line.startswith('VmRSS'): print(line.split()[1], flush=True)\n"
            "for index in range(8):\n"
            "    read_video(sys.argv[1], [index], backend='pyav')\n"
            "for line in open('/proc/self/status'):\n"
            "    if line.startswith('VmRSS'): print(line.split()[1], flush=True)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, large], capture_output=True, text=True, check=True
        )
        before, after = map(int, run.stdout.split())
        assert after - before < 30 * 1024  # KiB; each read once left 20 MB and more


@needs_decord
class TestWrongLastFrame:
    """AVI with B-frames: decord's last frame is right or wrong as its threads happen to run."""

    def test_no_avi_goes_to_decord(self, video_samples):
        path = odd(video_samples, "bframes.avi")
        total = count_frames(path)
        assert total == 164
        clip = read_video(path, [total - 2, total - 1])
        assert clip.backend == "pyav"
        every = read_video(path, None, backend="pyav").frames
        assert torch.equal(clip.frames, every[-2:])
        assert not torch.equal(every[-1], every[-2])  # so a repeated frame would have been seen

    def test_decord_gives_another_last_frame_of_mpeg_ts(self, video_samples, helper):
        path = odd(video_samples, "mpeg_ts.ts")
        right = read_video(path, [279])
        assert right.backend == "pyav"
        assert not torch.equal(by_decord(path, [279]), right.frames)


class TestRotation:
    """rotated_0.mov is upright as stored; the others are the same clip, stored turned."""

    @pytest.mark.parametrize(("name", "quarters"), TURNED.items())
    def test_all_four_come_upright(self, video_samples, name, quarters):
        clip = read_video(odd(video_samples, name), None)
        assert clip.num_frames == 3
        stored = (3, 320, 568)
        shown = stored if quarters % 2 == 0 else (3, 568, 320)
        assert clip.frames.shape[1:] == shown

    @pytest.mark.parametrize(("name", "quarters"), TURNED.items())
    def test_each_by_the_turn_that_it_states(self, video_samples, name, quarters, monkeypatch):
        path = odd(video_samples, name)
        turned = read_video(path, None, backend="pyav").frames
        monkeypatch.setattr("gasmcast.video._pyav.display_orientation", _no_turn)
        stored = read_video(path, None, backend="pyav").frames
        # -90, 180, ... degrees counter-clockwise; quarters is how often 90 fits clockwise.
        candidates = [torch.equal(torch.rot90(stored, -k, (-2, -1)), turned) for k in range(4)]
        assert candidates == [k == quarters for k in range(4)]


def _no_turn(frame):
    return _contents.Orientation()


class TestLyingFrameCounts:
    @pytest.mark.parametrize(
        ("name", "stated", "packets", "decodable"),
        [
            ("trunc_avi_50.avi", 164, 77, 77),
            ("trunc_faststart_50.mp4", 280, 144, 141),
            ("corrupted.mp4", 50, 50, 28),
            ("edit_list.mp4", 30, 30, 25),
            ("trunc_mkv_50.mkv", 0, 150, 150),  # 0: the container states none
            ("frag.mp4", 0, 280, 280),
        ],
    )
    def test_only_what_decodes_is_counted(self, video_samples, name, stated, packets, decodable):
        path = odd(video_samples, name)
        contents = _contents.look_inside(path, _contents.Deadline(path, 60))
        assert (contents.num_stated, contents.num_packets) == (stated, packets)
        clip = read_video(path)
        assert clip.num_frames == decodable
        assert torch.equal(clip.indices, segment_indices(decodable))
        assert count_frames(path) == decodable
        message = f"frame index {decodable} is out of range for a video of {decodable} frames"
        with pytest.raises(ValueError, match=message):
            read_video(path, [decodable])

    @needs_decord
    def test_an_edit_list_shifts_decords_frames(self, video_samples, helper):
        path = odd(video_samples, "edit_list.mp4")
        right = read_video(path, None)
        assert right.backend == "pyav"
        wanted = segment_indices(30).unique()
        shifted = by_decord(path, wanted)
        assert not torch.equal(shifted[:12], right.frames[wanted[:12]])


@needs_decord
@pytest.mark.parametrize("name", ["h264_10bit.mp4", "odd_size_vp9.mp4"])
def test_decord_rounds_other_colours_of_some_formats(video_samples, name, helper):
    path = odd(video_samples, name)
    right = read_video(path, [0])
    assert right.backend == "pyav"
    assert not torch.equal(by_decord(path, [0]), right.frames)


@needs_decord
@pytest.mark.parametrize("name", ["av1.mkv", "anim.gif"])
def test_what_decord_cannot_open_pyav_reads(video_samples, name, helper):
    path = odd(video_samples, name)
    with pytest.raises(decord_side.DecordFailure):
        by_decord(path, [0])
    assert read_video(path).backend == "pyav"


@needs_decord
def test_damage_that_decord_raises_on_is_read_as_far_as_it_goes(video_samples, helper):
    """decord's own error is no RuntimeError; it comes over as an answer like the others."""
    path = odd(video_samples, "corrupted.mp4")
    with pytest.raises(VideoReadError, match=r"decord cannot read it: DECORDError: "):
        read_video(path, backend="decord")
    clip = read_video(path)
    assert (clip.backend, clip.num_frames) == ("pyav", 28)
