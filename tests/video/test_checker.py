"""check_videos: what is bad is listed with its reason, and no interruption loses anything."""

import csv
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pebble
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.video import CheckSummary, check_videos, checker, read_video
from gasmcast.video._check_lists import BAD, GOOD, WARNING, CheckLists
from video.made_videos import spoil_packets, write_video
from video.processes import children_of, ended, spawned_by, wait_until
from video.test_images import write_images

needs_decord = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)

# A stand-in that is PyAV itself, but for files of some names.
AV_WITH_FITS = """
import os, sys, time
folder = os.path.dirname(__file__)
sys.path[:] = [entry for entry in sys.path if entry != folder]
del sys.modules["av"]
import av
opened = av.open
def fit(path, *args, **options):
    name = os.path.basename(path)
    if "hangs" in name: time.sleep(1000)
    if "dies" in name: os._exit(7)
    if "odd" in name: raise RuntimeError("as no library should")
    if "slow" in name: time.sleep(0.1)
    return opened(path, *args, **options)
av.open = fit
sys.modules["av"] = av
"""


@pytest.fixture
def av_with_fits(monkeypatch, tmp_path):
    folder = tmp_path / "stand_in"
    folder.mkdir()
    (folder / "av.py").write_text(AV_WITH_FITS)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("sound") / "sound.mp4", 12)


def rows(file):
    with open(file, newline="") as lines:
        return list(csv.reader(lines))


def found(bad_list):
    """Path -> reason of the bad, and path -> warning of the others."""
    bad, others = rows(bad_list), rows(bad_list.with_suffix(".checked.csv"))
    assert bad[0] == ["path", "reason"]
    assert others[0] == ["path", "warning"]
    listed = [path for path, _ in bad[1:] + others[1:]]
    assert len(set(listed)) == len(listed)
    return dict(bad[1:]), dict(others[1:])


class TestFindings:
    def test_good_bad_and_odd_videos(self, sound, tmp_path, capsys):
        text = tmp_path / "text.mp4"
        text.write_text('no video, "at all"\n' * 50)
        damaged = write_video(tmp_path / "damaged.mp4", 40, options={"bf": "0", "g": "10"})
        spoil_packets(damaged, [30])
        images = write_images(tmp_path / "images", range(3))
        broken = write_images(tmp_path / "broken", range(40))
        (broken / "img_00039.jpg").write_bytes(b"")  # which no test of 16 frames looks at
        paths = [sound, text, tmp_path / "none.mp4", str(damaged), images, broken, str(sound)]
        bad_list = tmp_path / "lists" / "bad.csv"
        assert check_videos(paths, bad_list, num_workers=2) == CheckSummary(
            num_videos=6, num_read=6, num_bad=3, num_warnings=1
        )
        bad, others = found(bad_list)
        assert others == {
            str(sound): "",
            str(images): "",
            str(damaged): "30 of 40 frames decode",
        }
        assert set(bad) == {str(text), str(tmp_path / "none.mp4"), str(broken)}
        assert bad[str(tmp_path / "none.mp4")] == "no such file"
        assert bad[str(text)].startswith("expected a video file, got something that cannot be")
        assert bad[str(broken)].startswith("img_00039.jpg does not decode: ")
        printed = capsys.readouterr().err
        assert "6/6" in printed
        assert "bad=3" in printed

    def test_a_process_that_hangs_or_dies_is_replaced(self, sound, tmp_path, av_with_fits):
        names = ["1", "hangs", "2", "dies", "3", "odd", "4"]
        paths = [Path(shutil.copy(sound, tmp_path / f"{name}.mp4")) for name in names]
        bad_list = tmp_path / "bad.csv"
        start = time.monotonic()
        summary = check_videos(paths, bad_list, num_workers=2, timeout_seconds=2)
        assert time.monotonic() - start < 60
        assert (summary.num_videos, summary.num_bad) == (7, 3)
        bad, others = found(bad_list)
        assert {Path(path).stem: reason for path, reason in bad.items()} == {
            "hangs": "its process was killed after 6 s without an answer",
            "dies": "its process ended with code 7",
            "odd": "RuntimeError: as no library should",
        }
        assert {Path(path).stem for path in others} == {"1", "2", "3", "4"}

    @needs_decord
    def test_where_decord_hangs_pyav_reads_and_the_check_says_so(
        self, sound, tmp_path, fake_decord
    ):
        fake_decord("time.sleep(1000)")
        summary = check_videos([sound], tmp_path / "bad.csv", num_workers=1, timeout_seconds=3)
        assert (summary.num_bad, summary.num_warnings) == (0, 1)
        assert found(tmp_path / "bad.csv")[1] == {
            str(sound): "decord fails on it, and PyAV takes over every time"
        }

    @needs_decord
    def test_other_frames_of_decord_are_noticed(self, sound, tmp_path, fake_decord):
        fake_decord(
            "import numpy\n"
            "        class Black:\n"
            "            def __init__(self, indices): self.count = len(indices)\n"
            "            def asnumpy(self): return numpy.zeros((self.count, 48, 64, 3), 'uint8')\n"
            "        self.get_batch = Black",
            num_frames=12,
        )
        check_videos([sound], tmp_path / "bad.csv", num_workers=1)
        assert found(tmp_path / "bad.csv")[1] == {
            str(sound): "decord gives other frames than PyAV: read it with backend='pyav'"
        }

    def test_odd_files(self, video_samples, tmp_path):
        paths = sorted((video_samples / "odd").iterdir())
        check_videos(paths, tmp_path / "bad.csv", num_workers=2)
        bad, others = found(tmp_path / "bad.csv")
        with open(video_samples / "manifest.csv", newline="") as lines:
            decodable = {
                str(video_samples / row["path"]): int(row["decodable_frames"])
                for row in csv.DictReader(lines)
                if row["path"].startswith("odd/")
            }
        assert set(bad) == {path for path, number in decodable.items() if number == 0}
        assert {Path(path).name: warning for path, warning in others.items() if warning} == {
            "bitrot_avi.avi": "53 of 164 frames decode",
            "corrupted.mp4": "28 of 50 frames decode",
            "trunc_avi_50.avi": "77 of 164 frames decode",
            "trunc_faststart_50.mp4": "141 of 280 frames decode",
        }
        for path in bad:
            with pytest.raises(Exception, match="."):
                read_video(path)


class TestInterruption:
    def test_what_is_on_the_lists_is_not_read_again(self, sound, tmp_path, monkeypatch):
        bad_list = tmp_path / "bad.csv"
        paths = [sound, tmp_path / "none.mp4"]
        monkeypatch.chdir(sound.parent)
        check_videos([sound.name, paths[1]], bad_list, num_workers=1)
        before = found(bad_list)
        assert before == ({str(paths[1]): "no such file"}, {str(sound): ""})
        monkeypatch.chdir(tmp_path)
        more = Path(shutil.copy(sound, tmp_path / "more.mp4"))
        assert check_videos([*paths, more], bad_list, num_workers=1) == CheckSummary(3, 1, 1, 0)
        bad, others = found(bad_list)
        assert (bad, others) == (before[0], {**before[1], str(more): ""})
        # Counts are of the videos asked for.
        assert check_videos([more], bad_list) == CheckSummary(1, 0, 0, 0)

    def test_a_video_that_was_not_there_is_checked_as_soon_as_it_is(self, sound, tmp_path):
        """After a disk that was not mounted, nothing has to be mended by hand."""
        bad_list = tmp_path / "bad.csv"
        gone, late = tmp_path / "K\u00e4se, gone.mp4", tmp_path / "disk" / "late.mp4"
        under_a_file = sound / "x.mp4"
        empty = tmp_path / "empty.mp4"
        empty.touch()
        paths = [sound, gone, late, under_a_file, empty]
        assert check_videos(paths, bad_list, num_workers=1) == CheckSummary(5, 5, 4, 0)
        bad, others = found(bad_list)
        assert bad[str(gone)] == bad[str(late)] == "no such file"
        assert bad[str(under_a_file)].startswith("the file cannot be looked up: ")
        before = bad_list.read_bytes()
        assert check_videos(paths, bad_list, num_workers=1) == CheckSummary(5, 0, 4, 0)
        assert bad_list.read_bytes() == before
        late.parent.mkdir()
        shutil.copy(sound, late)
        # Other videos, and those that are damaged, keep their lines.
        assert check_videos([sound, empty], bad_list) == CheckSummary(2, 0, 1, 0)
        assert bad_list.read_bytes() == before
        assert check_videos(paths, bad_list, num_workers=1) == CheckSummary(5, 1, 3, 0)
        again = dict(bad)
        del again[str(late)]
        assert found(bad_list) == (again, {**others, str(late): ""})

    @pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
    def test_kill_9_in_the_middle(self, sound, tmp_path, av_with_fits):
        folder = tmp_path / "videos"
        folder.mkdir()
        for number in range(16):
            shutil.copy(sound, folder / f"slow_{number}.mp4")
        # In order of their names: the one that the end finds at work comes in the middle.
        hanging = Path(shutil.copy(sound, folder / "slow_2_hangs.mp4"))
        bad_list = tmp_path / "bad.csv"
        others = tmp_path / "bad.checked.csv"
        script = tmp_path / "check.py"
        script.write_text(
            "import sys\nfrom pathlib import Path\nfrom gasmcast.video import check_videos\n"
            "if __name__ == '__main__':\n"
            "    paths = sorted(Path(sys.argv[1]).iterdir())\n"
            "    check_videos(paths, sys.argv[2], num_workers=1)\n"
        )
        command = [sys.executable, str(script), str(folder), str(bad_list)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
            assert wait_until(lambda: others.exists() and len(rows(others)) == 1 + 9, 60)
            children = children_of(run.pid)
            run.send_signal(signal.SIGKILL)
        assert children
        for child in children:
            assert wait_until(lambda child=child: ended(child))
        hanging.unlink()
        kept = others.read_bytes()
        again = check_videos(folder.iterdir(), bad_list, num_workers=1)
        assert (again.num_videos, again.num_read) == (16, 7)
        assert others.read_bytes().startswith(kept)
        assert len(found(bad_list)[1]) == 16

    def test_an_interruption_ends_the_processes_and_keeps_the_lists(
        self, sound, tmp_path, monkeypatch
    ):
        paths = [shutil.copy(sound, tmp_path / f"{number}.mp4") for number in range(12)]
        pools = []

        class Pool(pebble.ProcessPool):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                pools.append(self)

        def interrupt(self, path, is_bad, remark, add=CheckLists.add):
            add(self, path, is_bad, remark)
            raise KeyboardInterrupt

        monkeypatch.setattr(pebble, "ProcessPool", Pool)
        with monkeypatch.context() as patch:
            patch.setattr(CheckLists, "add", interrupt)
            with pytest.raises(KeyboardInterrupt):
                check_videos(paths, tmp_path / "bad.csv", num_workers=2)
        assert not pools[0]._pool_manager.worker_manager.workers
        assert len(found(tmp_path / "bad.csv")[1]) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
    def test_ctrl_c_while_the_processes_begin_prints_nothing_of_theirs(self, sound, tmp_path):
        script = tmp_path / "check.py"
        script.write_text(
            "import signal, sys, time\n"
            "if __name__ != '__main__':\n"
            "    time.sleep(60)\n"  # where a process of the pool is when the signal comes
            # A shell that runs the tests in the background has it ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from gasmcast.video import check_videos\n"
            "if __name__ == '__main__':\n"
            "    try:\n"
            "        check_videos(sys.argv[1:], 'bad.csv', num_workers=2)\n"
            "    except KeyboardInterrupt:\n"
            "        raise SystemExit(7)\n"
        )
        paths = [sound, shutil.copy(sound, tmp_path / "more.mp4")]
        with subprocess.Popen(
            [sys.executable, script, *paths],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as run:
            assert wait_until(lambda: spawned_by(run.pid) == 2, 60)
            time.sleep(0.5)
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does
            printed = run.communicate(timeout=60)[1]
        assert run.returncode == 7
        assert "Traceback" not in printed
        assert "KeyboardInterrupt" not in printed


def test_processes_that_begin_while_the_pool_stops_print_nothing(
    sound, tmp_path, monkeypatch, capfd
):
    """Where all files fail at once, one process has them all read while others still begin."""

    class Pool(pebble.ProcessPool):
        def schedule(self, *arguments, **options):
            super().schedule(*arguments, **options)
            future = Future()
            future.set_result((False, ""))
            return future

    ended_with = []

    def wait_for_the_end(process):
        process.join(60)
        ended_with.append(process.exitcode)

    monkeypatch.setattr(pebble, "ProcessPool", Pool)
    monkeypatch.setattr("pebble.pool.process.stop_process", wait_for_the_end)
    check_videos([sound], tmp_path / "bad.csv", num_workers=1)
    assert ended_with
    assert None not in ended_with
    assert "Traceback" not in capfd.readouterr().err


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1, max_size=12
)
findings = st.lists(
    st.tuples(
        names, st.sampled_from(["", "a reason, with a comma", 'with "quotes"', "two\nlines"])
    ),
    max_size=8,
    unique_by=lambda finding: finding[0],
)


@given(findings, findings, st.floats(0, 1), st.booleans())
def test_lists_cut_off_anywhere_go_on_with_the_whole_lines(good, bad, share, cut_bad):
    """A line is kept as soon as it is whole; the others count as never checked."""
    bad = [finding for finding in bad if finding[0] not in dict(good)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bad.csv"
        with CheckLists(file) as lists:
            for path, remark in good:
                lists.add(path, False, remark)
            for path, remark in bad:
                lists.add(path, True, remark)
        whole = {name: Path(folder, name).read_bytes() for name in ("bad.csv", "bad.checked.csv")}
        cut = file if cut_bad else file.with_suffix(".checked.csv")
        content = whole[cut.name]
        left = content[: round(share * len(content))]
        cut.write_bytes(left)
        kept = left.count(b"\n") - 1  # whole lines, without the header
        with CheckLists(file) as lists:
            for findings, cut_here, is_bad in ((good, not cut_bad, False), (bad, cut_bad, True)):
                for number, (path, remark) in enumerate(findings):
                    expected = BAD if is_bad else WARNING if remark else GOOD
                    if cut_here and number >= kept:
                        expected = None
                    assert lists.found(path) == expected
                    if expected is None:
                        lists.add(path, is_bad, remark)
        for name, content in whole.items():
            assert Path(folder, name).read_bytes() == content


def test_names_that_are_no_text_come_back(tmp_path):
    name = os.fsdecode(b"/videos/K\xe4se, 1.mp4")  # Latin-1, as old archives have it
    with CheckLists(tmp_path / "bad.csv") as lists:
        lists.add(name, True, "no such file")
    assert (tmp_path / "bad.csv").read_bytes() == (
        b'path,reason\n"/videos/K\xe4se, 1.mp4",no such file\n'
    )
    assert CheckLists(tmp_path / "bad.csv").found(name) == BAD


def test_few_videos_wait_in_the_pool(monkeypatch, tmp_path):
    """Of a data set only the paths are held: the pool keeps more for each of its tasks."""
    waiting = []

    class Pool:
        def __init__(self, max_workers, **options):
            assert max_workers == 3

        def schedule(self, function, args, timeout):
            assert (function, args[1], timeout) == (checker._check_video, 60.0, 180.0)
            waiting.append(Future())
            assert sum(not future.done() for future in waiting) <= 6
            if len(waiting) % 3 == 0:
                for future in waiting[-3:]:
                    future.set_result((False, ""))
            return waiting[-1]

        def stop(self):
            pass

        join = stop

    monkeypatch.setattr(pebble, "ProcessPool", Pool)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    paths = (f"{number}.mp4" for number in range(999))
    assert check_videos(paths, tmp_path / "bad.csv", num_workers=3).num_read == 999


def test_processes_that_cannot_start_list_nothing(monkeypatch, sound, tmp_path):
    """What a script without the main guard brings about: its processes run it again, and end."""

    class Pool:
        def __init__(self, max_workers, **options):
            pass

        def schedule(self, function, args, timeout):
            future = Future()
            future.set_exception(BrokenProcessPool("All workers expired"))
            return future

        def stop(self):
            pass

        join = stop

    monkeypatch.setattr(pebble, "ProcessPool", Pool)
    message = (
        r"^the processes that read videos end before they begin: expected the call in a file, "
    )
    with pytest.raises(RuntimeError, match=message):
        check_videos([sound], tmp_path / "bad.csv")
    assert found(tmp_path / "bad.csv") == ({}, {})


class TestCallersMistakes:
    def test_settings_out_of_range(self, tmp_path):
        with pytest.raises(ValueError, match=r"^num_workers must be at least 1, got 0$"):
            check_videos([], tmp_path / "bad.csv", num_workers=0)
        with pytest.raises(ValueError, match=r"^timeout_seconds must be positive, got -1$"):
            check_videos([], tmp_path / "bad.csv", timeout_seconds=-1)
        assert not (tmp_path / "bad.csv").exists()

    def test_a_line_break_in_a_path(self, tmp_path):
        message = r"cannot hold the line break in '.*a\\nb\.mp4'$"
        with pytest.raises(ValueError, match=message):
            check_videos(["a\nb.mp4"], tmp_path / "bad.csv")

    def test_videos_that_are_nearly_all_not_there(self, sound, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        paths = [sound, *(f"nowhere/{number:02}.mp4" for number in range(10))]
        message = (
            f"10 of 11 videos are not there, such as {tmp_path / 'nowhere' / '00.mp4'}: expected "
            "their folder, on a disk that is mounted"
        )
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            check_videos(paths, tmp_path / "bad.csv")
        assert list(tmp_path.iterdir()) == []
        # One in ten is there: the set may just not be all downloaded.
        summary = check_videos(paths[:-1], tmp_path / "bad.csv", num_workers=1)
        assert summary == CheckSummary(10, 10, 9, 0)

    @pytest.mark.parametrize(
        "content", ["my notes", "my notes\n", "path,label\na.mp4,1\n", "path,r\n"]
    )
    def test_a_file_that_is_something_else_stays_as_it_is(self, tmp_path, content):
        file = tmp_path / "notes.txt"
        file.write_text(content)
        message = r"notes\.txt is no list of a check: expected the first line path,reason, got "
        with pytest.raises(ValueError, match=message):
            check_videos([], file)
        assert file.read_text() == content

    def test_a_line_that_is_no_line_of_a_list(self, tmp_path):
        (tmp_path / "bad.csv").write_text("path,reason\na.mp4,x\nb.mp4\n")
        with pytest.raises(ValueError, match=r"bad\.csv:3: expected path,reason, got b\.mp4$"):
            check_videos([], tmp_path / "bad.csv")

    def test_no_videos_at_all(self, tmp_path):
        assert check_videos([], tmp_path / "bad.csv") == CheckSummary(0, 0, 0, 0)
        assert found(tmp_path / "bad.csv") == ({}, {})
