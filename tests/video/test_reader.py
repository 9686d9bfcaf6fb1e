"""read_video: the same indices mean the same frames, and every broken file is one typed error."""

import csv
import importlib.util
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from random import Random

import av
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
    uniform_indices,
)
from gasmcast.video import _decord as decord_side
from video.made_videos import counters, spoil_packets, write_video
from video.processes import ended, wait_until

needs_decord = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)
BACKENDS = [pytest.param("decord", marks=needs_decord), "pyav"]
ENCODERS = {"h264.mp4": "libx264", "vp9.webm": "libvpx-vp9"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for name, codec in ENCODERS.items():
        write_video(folder / name, 40, codec)
    return folder


class TestIndicesAndFrames:
    @pytest.mark.parametrize("name", ENCODERS)
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_indices_name_the_same_frames_on_every_backend(self, made, backend, name):
        clip = read_video(made / name, backend=backend)
        assert clip.backend == backend
        assert clip.path == str(made / name)
        assert clip.num_frames == 40
        assert clip.average_fps == 25.0
        assert clip.frames.shape == (16, 3, 48, 64)
        assert clip.frames.dtype == torch.uint8
        assert clip.indices.dtype == torch.int64
        assert clip.pts_seconds.dtype == torch.float64
        # (2k + 1) * 40 // 32
        expected = [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]
        assert clip.indices.tolist() == expected
        assert counters(clip) == expected
        # Matroska keeps times in milliseconds.
        torch.testing.assert_close(
            clip.pts_seconds, clip.indices / 25.0, rtol=0, atol=1e-3, check_dtype=False
        )

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        "indices", [[7, 2, 2, 39], torch.tensor([7, 2, 2, 39]), np.array([7, 2, 2, 39])]
    )
    def test_given_indices_may_repeat_and_come_in_any_order(self, made, backend, indices):
        clip = read_video(str(made / "h264.mp4"), indices, backend=backend)
        assert clip.indices.tolist() == [7, 2, 2, 39]
        assert counters(clip) == [7, 2, 2, 39]
        np.testing.assert_allclose(clip.pts_seconds, [0.28, 0.08, 0.08, 1.56], atol=1e-9)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_none_is_every_frame(self, made, backend):
        assert counters(read_video(made / "h264.mp4", None, backend=backend)) == list(range(40))

    def test_a_sampler_with_settings_is_called_with_the_number_of_frames(self, made):
        clip = read_video(made / "h264.mp4", partial(uniform_indices, num_samples=4))
        assert counters(clip) == [0, 13, 26, 39]

    def test_a_random_sampler_draws_once_for_a_sound_file(self, made):
        sample = partial(segment_indices, generator=torch.Generator().manual_seed(5))
        expected = segment_indices(40, generator=torch.Generator().manual_seed(5))
        assert torch.equal(read_video(made / "h264.mp4", sample).indices, expected)

    def test_colours_come_as_red_green_blue(self, tmp_path):
        path = tmp_path / "red.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width = stream.height = 32
            image = np.zeros((32, 32, 3), dtype=np.uint8)
            image[..., 0] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        red, green, blue = read_video(path, [0], backend="pyav").frames[0].double().mean((1, 2))
        assert red > 250
        assert green < 5
        assert blue < 5

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_one_frame_is_repeated(self, tmp_path, backend):
        clip = read_video(write_video(tmp_path / "one.mp4", 1), backend=backend)
        assert clip.num_frames == 1
        assert clip.indices.tolist() == [0] * 16
        assert clip.frames.shape == (16, 3, 48, 64)
        assert clip.pts_seconds.tolist() == [0.0] * 16

    def test_count_frames(self, made):
        assert count_frames(made / "vp9.webm") == 40

    def test_a_name_with_a_colon_and_letters_beyond_ascii(self, tmp_path):
        path = write_video(tmp_path / "größe_片.mp4", 5)
        colon = path.rename(tmp_path / "a:größe_片.mp4")
        clip = read_video(colon, [4])
        assert counters(clip) == [4]

    def test_a_mirrored_video_is_turned_right(self, tmp_path):
        one = 1 << 16
        mirror = [-one, 0, 0, 0, one, 0, 64 * one, 0, 1 << 30]
        clip = read_video(write_video(tmp_path / "m.mp4", 3, matrix=mirror), [1])
        assert clip.backend == "pyav"
        assert clip.frames[0, :, 4, -4].tolist() == pytest.approx([255] * 3, abs=4)
        assert clip.frames[0, :, 4, 4].tolist() == pytest.approx([6] * 3, abs=4)

    def test_a_quarter_turn_clockwise(self, tmp_path):
        one = 1 << 16
        turn = [0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30]
        clip = read_video(write_video(tmp_path / "turned.mp4", 3, matrix=turn), [1])
        assert clip.backend == "pyav"
        assert clip.frames.shape == (1, 3, 64, 48)
        # The white quarter moves from the top left to the top right.
        assert clip.frames[0, 0, 4, -4] > 250
        assert clip.frames[0, 0, 4, 4] < 10


class TestCallersMistakes:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("index", [40, -1])
    def test_an_index_out_of_range_is_named(self, made, backend, index):
        message = rf"^frame index {index} is out of range for a video of 40 frames$"
        with pytest.raises(ValueError, match=message):
            read_video(made / "h264.mp4", [0, index], backend=backend)

    def test_indices_that_are_none_or_no_integers(self, made):
        message = r"frame indices must be a row of at least one integer, got shape \[0\]"
        with pytest.raises(ValueError, match=message):
            read_video(made / "h264.mp4", [])
        with pytest.raises(ValueError, match=r"got shape \[2\] of float64$"):
            read_video(made / "h264.mp4", [0.0, 1.5])

    def test_an_unknown_backend_names_the_choices(self, made):
        message = r"^backend must be one of auto, decord, pyav, got 'opencv'$"
        with pytest.raises(ValueError, match=message):
            read_video(made / "h264.mp4", backend="opencv")

    def test_a_limit_that_is_not_positive(self, made):
        with pytest.raises(ValueError, match=r"^timeout_seconds must be positive, got 0$"):
            read_video(made / "h264.mp4", timeout_seconds=0)

    def test_decord_asked_for_and_not_installed(self, made, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"needs decord, which is not installed: pip install"):
            read_video(made / "h264.mp4", backend="decord")
        assert read_video(made / "h264.mp4").backend == "pyav"


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "expected a video file, got an empty file (0 bytes)"),
            (b"no video at all\n" * 99, "expected a video file, got something that cannot be"),
            (bytes(range(256)) * 99, "expected a video file, got something that cannot be"),
        ],
        ids=["empty", "text", "garbage"],
    )
    def test_no_video_at_all(self, tmp_path, content, reason):
        path = tmp_path / "clip.mp4"
        path.write_bytes(content)
        for backend in ("auto", "pyav"):
            with pytest.raises(VideoReadError) as caught:
                read_video(path, backend=backend)
            assert caught.value.path == str(path)
            assert caught.value.reason.startswith(reason)
            assert str(caught.value) == f"{path}: {caught.value.reason}"
        with pytest.raises(VideoReadError):
            count_frames(path)

    def test_missing(self, tmp_path):
        with pytest.raises(VideoReadError, match=r"none\.mp4: no such file$"):
            read_video(tmp_path / "none.mp4")

    def test_a_name_that_no_file_can_have(self):
        with pytest.raises(VideoReadError, match="the file cannot be looked up"):
            read_video("a\0b.mp4")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(VideoReadError, match="got a pipe, socket or device"):
            read_video(tmp_path / "pipe.mp4")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_playlist_is_refused_and_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.ts")
        write_video(tmp_path / "clip.mp4", 3)
        playlists = {
            # These two keep FFmpeg waiting inside one call, out of reach of timeout_seconds.
            "live.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nclip.mp4\n",
            "pipe.m3u8": "#EXTM3U\n#EXTINF:5,\npipe.ts\n#EXT-X-ENDLIST\n",
            "list.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
        }
        for name, content in playlists.items():
            (tmp_path / name).write_text(content)
        code = (
            "import sys\n"
            "from gasmcast.video import VideoReadError, read_video\n"
            "for path in sys.argv[1:]:\n"
            "    try: read_video(path)\n"
            "    except VideoReadError as error: print(error)\n"
        )
        paths = [str(tmp_path / name) for name in playlists]
        command = [sys.executable, "-c", code, *paths]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        reason = "expected a video file, got something that cannot be opened as one"
        lines = run.stdout.splitlines()
        for path, line in zip(paths, lines, strict=True):
            assert line.startswith(f"{path}: {reason}")

    def test_text_that_ffmpeg_would_render_as_a_video(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("just notes\n" * 50)
        with pytest.raises(VideoReadError, match=r"got a text or a still picture \(tty\)$"):
            read_video(path)

    def test_sound_without_pictures(self, tmp_path):
        path = tmp_path / "sound.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            sound = np.zeros((1, 1024), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        message = r"sound\.mp4: expected a video stream, found only audio$"
        with pytest.raises(VideoReadError, match=message):
            read_video(path)

    def test_no_frame_decodes(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", 10, options={"bf": "0"})
        spoil_packets(path, range(10))
        message = r"none of its 10 video packets decodes to a frame$"
        with pytest.raises(VideoReadError, match=message):
            read_video(path)

    def test_the_error_survives_pickling(self):
        error = pickle.loads(pickle.dumps(VideoReadError("a.mp4", "no such file")))
        assert (error.path, error.reason) == ("a.mp4", "no such file")
        assert str(error) == "a.mp4: no such file"

    def test_pyav_is_held_to_the_limit(self, made):
        message = r"decoded 0 frames when the limit of 1e-09 s was reached; a larger timeout_sec"
        with pytest.raises(VideoReadError, match=message):
            read_video(made / "h264.mp4", backend="pyav", timeout_seconds=1e-9)
        assert read_video(made / "h264.mp4", timeout_seconds=math.inf).num_frames == 40


class TestDamage:
    @pytest.fixture
    def damaged(self, tmp_path):
        path = write_video(tmp_path / "damaged.mp4", 40, options={"bf": "0", "g": "10"})
        spoil_packets(path, [30])
        return path

    @pytest.mark.parametrize("backend", ["auto", "pyav"])
    def test_the_video_ends_before_a_packet_that_does_not_decode(self, damaged, backend):
        clip = read_video(damaged, backend=backend)
        assert clip.num_frames == 30
        assert torch.equal(clip.indices, segment_indices(30))
        assert counters(clip) == clip.indices.tolist()
        assert count_frames(damaged) == 30

    def test_or_the_packet_is_left_out(self, damaged):
        clip = read_video(damaged, None, skip_damaged=True)
        assert clip.backend == "pyav"
        assert clip.num_frames == 39
        assert counters(clip)[:30] == list(range(30))
        assert count_frames(damaged, skip_damaged=True) == 39
        # Times tell where the gap is.
        assert clip.pts_seconds[29:31].tolist() == pytest.approx([1.16, 1.24])

    def test_an_index_behind_the_damage_is_out_of_range(self, damaged):
        message = "frame index 35 is out of range for a video of 30 frames"
        with pytest.raises(ValueError, match=message):
            read_video(damaged, [35], backend="pyav")

    def test_a_start_that_does_not_decode_is_passed_over(self, tmp_path):
        path = write_video(tmp_path / "late.mp4", 30, options={"bf": "0", "g": "10"})
        spoil_packets(path, range(10))
        clip = read_video(path, None)
        assert clip.backend == "pyav"
        assert counters(clip) == list(range(10, 30))

    @pytest.mark.parametrize(
        ("name", "codec"),
        [("v.mp4", "libx264"), ("v.webm", "libvpx-vp9"), ("v.ts", "libx264"), ("v.avi", "mpeg4")],
    )
    def test_whatever_is_damaged_raises_the_one_error_or_none(self, tmp_path, name, codec):
        path = write_video(tmp_path / name, 6, codec)
        sound = path.read_bytes()
        random = Random(0)
        read = 0
        for _ in range(250):
            data = bytearray(sound)
            for _ in range(random.choice([1, 3, 10, 40])):
                data[random.randrange(len(data))] = random.randrange(256)
            if random.random() < 0.3:
                del data[random.randrange(len(data)) :]
            path.write_bytes(data)
            with suppress(VideoReadError):
                read += read_video(path, backend="pyav").num_frames > 0
        assert 25 < read < 225

    def test_a_stream_that_begins_on_the_way_ends_nothing(self):
        """PyAV raises IndexError for its packet and has passed it by then."""

        class Packet:
            size = 1

        first, last = Packet(), Packet()
        coming = iter([first, IndexError("list index out of range"), last])

        class Container:
            def demux(self, stream):
                for packet in coming:
                    if isinstance(packet, IndexError):
                        raise packet
                    yield packet

        assert list(_contents.packets(Container(), None)) == [first, last, None]

    def test_a_frame_that_does_not_convert_is_named(self):
        frame = av.VideoFrame(64, 48, "yuv420p")
        message = r"^a\.mp4: frame 7, yuv420p of 64 x 48, does not convert: no such format$"
        with (
            pytest.raises(VideoReadError, match=message),
            _contents.converting("a.mp4", frame, 7),
        ):
            raise ValueError("no such format")


class TestHelper:
    @needs_decord
    def test_importing_the_package_loads_no_decoder(self):
        code = "import sys, gasmcast.video\nprint(sorted({'av', 'decord'} & set(sys.modules)))\n"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.stdout == "[]\n", run.stderr

    @needs_decord
    def test_decord_never_enters_this_process(self, made, helper):
        assert read_video(made / "h264.mp4").backend == "decord"
        assert "decord" not in sys.modules

    @needs_decord
    def test_one_helper_serves_many_clips(self, made, helper):
        read_video(made / "h264.mp4")
        pid = helper._process.pid
        read_video(made / "vp9.webm")
        assert helper._process.pid == pid

    @needs_decord
    def test_a_killed_helper_is_replaced(self, made, helper):
        read_video(made / "h264.mp4")
        killed = helper._process
        killed.kill()
        killed.wait()
        clip = read_video(made / "h264.mp4", [3, 30])
        assert clip.backend == "decord"
        assert counters(clip) == [3, 30]

    def test_a_helper_that_hangs_is_killed_and_pyav_takes_over(self, made, helper, fake_decord):
        fake_decord("time.sleep(1000)")
        start = time.monotonic()
        clip = read_video(made / "h264.mp4", timeout_seconds=1.0)
        assert time.monotonic() - start < 15
        assert clip.backend == "pyav"
        assert counters(clip) == clip.indices.tolist()
        assert helper._process is None
        message = r"decord cannot read it: decord did not answer within 1 s$"
        with pytest.raises(VideoReadError, match=message):
            read_video(made / "h264.mp4", backend="decord", timeout_seconds=1.0)

    def test_a_helper_that_dies_at_work(self, made, helper, fake_decord):
        fake_decord("os._exit(3)")
        assert read_video(made / "h264.mp4").backend == "pyav"
        message = r"decord cannot read it: decord's process ended with code "
        with pytest.raises(VideoReadError, match=message):
            read_video(made / "h264.mp4", backend="decord")

    def test_an_error_of_decord_is_passed_on(self, made, helper, fake_decord):
        fake_decord("raise RuntimeError('as it says')")
        assert read_video(made / "h264.mp4").backend == "pyav"
        with pytest.raises(VideoReadError, match=r"read it: RuntimeError: as it says$"):
            read_video(made / "h264.mp4", backend="decord")

    def test_another_number_of_frames_is_not_trusted(self, made, helper, fake_decord):
        fake_decord("pass")
        assert read_video(made / "h264.mp4").backend == "pyav"
        with pytest.raises(VideoReadError, match=r"decord counts 41 frames, the file has 40$"):
            read_video(made / "h264.mp4", backend="decord")

    def test_a_decord_that_cannot_be_imported_is_tried_once(
        self, made, helper, monkeypatch, tmp_path
    ):
        (tmp_path / "decord.py").write_text("raise OSError('its library is broken')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(decord_side, "decord_installed", lambda: True)
        assert read_video(made / "h264.mp4").backend == "pyav"
        monkeypatch.setattr(subprocess, "Popen", None)  # a second start would fail on this
        message = r"decord cannot be used here: OSError: its library is broken$"
        with pytest.raises(VideoReadError, match=message):
            read_video(made / "h264.mp4", backend="decord")

    @needs_decord
    def test_threads_take_turns(self, made, helper):
        results = {}

        def work(k):
            results[k] = counters(read_video(made / "h264.mp4", [k, k + 9], backend="decord"))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert results == {k: [k, k + 9] for k in range(8)}

    @needs_decord
    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_workers_of_a_data_loader_have_helpers_of_their_own(self, made, helper, start_method):
        if start_method == "fork" and not hasattr(os, "fork"):
            pytest.skip("no fork here")
        read_video(made / "h264.mp4")
        pid = helper._process.pid
        paths = [str(made / name) for name in ENCODERS] * 2
        loader = DataLoader(
            paths,
            batch_size=None,
            num_workers=2 if start_method == "fork" else 1,
            collate_fn=partial(read_video, backend="decord"),
            multiprocessing_context=start_method,
            timeout=60,
        )
        clips = list(loader)
        assert [clip.path for clip in clips] == paths
        assert all(counters(clip) == clip.indices.tolist() for clip in clips)
        assert counters(read_video(made / "h264.mp4", [9], backend="decord")) == [9]
        assert helper._process.pid == pid

    @needs_decord
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_fork_leaves_the_parents_helper_alone(self, made, helper):
        read_video(made / "h264.mp4", backend="decord")
        process = helper._process
        pipes = [process.stdin.fileno(), process.stdout.fileno()]
        # At the moment of the fork some thread of the parent is at work with the helper.
        with helper._lock:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    signal.alarm(30)  # ends a child that waits for the lock
                    closed = [not os.path.exists(f"/proc/self/fd/{pipe}") for pipe in pipes]
                    clip = read_video(made / "h264.mp4", [5, 6], backend="decord")
                    fresh = helper._process.pid != process.pid
                    right = fresh and counters(clip) == [5, 6]
                    code = 0 if right and (all(closed) or sys.platform != "linux") else 2
                    helper.close()
                finally:
                    os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert counters(read_video(made / "h264.mp4", [7], backend="decord")) == [7]
        assert helper._process is process

    @pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
    @pytest.mark.parametrize("hangs", [False, True])
    def test_the_helper_ends_with_its_parent(self, made, fake_decord, hangs):
        fake_decord("time.sleep(1000)" if hangs else "raise RuntimeError('no')")
        code = (
            "import sys, threading, time\n"
            "from gasmcast.video import _decord, read_video\n"
            "threading.Thread(target=read_video, args=(sys.argv[1],), daemon=True).start()\n"
            "while _decord._helper._process is None: time.sleep(0.01)\n"
            "time.sleep(1)\n"
            "print(_decord._helper._process.pid, flush=True)\n"
            "time.sleep(1000)\n"
        )
        command = [sys.executable, "-c", code, str(made / "h264.mp4")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            pid = int(parent.stdout.readline())
            assert not ended(pid)
            parent.send_signal(signal.SIGKILL)
        assert wait_until(lambda: ended(pid))


def sequential(path, indices):
    """PyAV's own way through a file, up to the first error: the frames asked for, and the count."""
    images, count = {}, 0
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                if count in indices:
                    image = frame.to_ndarray(format="rgb24")
                    images[count] = np.rot90(image, frame.rotation // 90)
                count += 1
        except av.FFmpegError:
            pass
    stacked = torch.from_numpy(np.stack([images[index] for index in indices]))
    return stacked.permute(0, 3, 1, 2), count


# Who reads what of the odd files; None: nobody can.
ODD = {
    "anim.gif": "pyav",
    "arm_wrestling.mp4": "decord",
    "audio_only.mp4": None,
    "av1.mkv": "pyav",
    "bframes.avi": "pyav",
    "bitrot_avi.avi": "pyav",
    "corrupted.mp4": "pyav",
    "edit_list.mp4": "pyav",
    "empty.mp4": None,
    "five_frames.mp4": "decord",
    "frag.mp4": "decord",
    "garbage.mp4": None,
    "h264_10bit.mp4": "pyav",
    "h265.mp4": "decord",
    "mpeg_ts.ts": "pyav",
    "non_zero_start.mp4": "decord",
    "odd_size_vp9.mp4": "pyav",
    "one_frame.mp4": "decord",
    "pancake.mkv": "decord",
    "rotated_0.mov": "decord",
    "rotated_180.mov": "pyav",
    "rotated_270.mov": "pyav",
    "rotated_90.mov": "pyav",
    "text.mp4": None,
    "trunc_avi_50.avi": "pyav",
    "trunc_faststart_50.mp4": "pyav",
    "trunc_mkv_50.mkv": "decord",
    "trunc_moovend_50.mp4": None,
    "trunc_webm_50.webm": "decord",
    "vfr.mp4": "decord",
    "vp9_noaudio.webm": "decord",
}


@pytest.fixture(scope="module")
def manifest(video_samples):
    with open(video_samples / "manifest.csv", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


class TestRealFiles:
    def test_every_odd_file_is_looked_at(self, manifest):
        assert {path for path in manifest if path.startswith("odd/")} == {
            f"odd/{name}" for name in ODD
        }

    @pytest.mark.parametrize("name", ODD)
    def test_odd_files(self, video_samples, manifest, name):
        path = video_samples / "odd" / name
        expected = int(manifest[f"odd/{name}"]["decodable_frames"])
        if ODD[name] is None:
            with pytest.raises(VideoReadError) as caught:
                read_video(path)
            assert caught.value.path == str(path)
            assert expected == 0
            return
        clip = read_video(path)
        if importlib.util.find_spec("decord") is not None:
            assert clip.backend == ODD[name]
        assert clip.num_frames == expected
        assert torch.equal(clip.indices, segment_indices(expected))
        reference, count = sequential(path, clip.indices.tolist())
        assert count == expected
        assert torch.equal(clip.frames, reference)
        if clip.backend == "decord":
            again = read_video(path, backend="pyav")
            assert torch.equal(again.frames, reference)
            torch.testing.assert_close(again.pts_seconds, clip.pts_seconds)

    @needs_decord
    @pytest.mark.parametrize("folder", ["asl", "fights/fight", "fights/nofight"])
    def test_decord_gives_what_pyav_gives(self, video_samples, manifest, folder):
        paths = [path for path in manifest if path.startswith(folder)][::6]
        assert len(paths) >= 4
        for path in paths:
            fast = read_video(video_samples / path, backend="decord")
            right = read_video(video_samples / path, backend="pyav")
            assert fast.num_frames == right.num_frames == int(manifest[path]["decodable_frames"])
            assert torch.equal(fast.frames, right.frames), path
            torch.testing.assert_close(fast.pts_seconds, right.pts_seconds)
