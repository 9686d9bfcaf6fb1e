"""The checking script: what it writes and prints, and that each flag reaches what it names."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest

from gasmcast import datasets
from gasmcast.datasets import write_rendered_dataset
from gasmcast.video import CheckSummary
from made_files import write

SCRIPT = Path(__file__).parents[2] / "examples" / "check_videos.py"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture
def folder(tmp_path):
    """Two classes of two videos, one of them broken."""
    made = tmp_path / "made"
    write_rendered_dataset(
        made, clips_per_class={"train": 2}, motions=["lift", "drop"], appearances=["plain"]
    )
    for number, path in enumerate(sorted(made.rglob("*.mp4"))):
        target = tmp_path / "videos" / f"class_{number // 2}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (target / "broken.mp4").write_text("no video")
    return tmp_path / "videos"


def test_command_writes_and_prints_what_it_says(folder, tmp_path, monkeypatch, capsys):
    bad_list = tmp_path / "bad.csv"
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "videos", "--output", bad_list, "--num_workers=2")
    lines = bad_list.read_text().splitlines()
    assert lines[0] == "path,reason"
    broken = folder / "class_1" / "broken.mp4"
    assert [line.partition(",")[0] for line in lines[1:]] == [str(broken)]
    assert len((tmp_path / "bad.checked.csv").read_text().splitlines()) == 5
    assert capsys.readouterr().out == (
        f"5 videos, 5 of them read now\n1 of them bad, with the reason in {bad_list}\n"
        f"0 of them with a warning, in {tmp_path / 'bad.checked.csv'}\n"
    )
    monkeypatch.chdir(folder)  # from where the same videos have another relative name
    run(monkeypatch, ".", "--output", bad_list)
    assert capsys.readouterr().out.startswith("5 videos, 0 of them read now\n1 of them bad, ")
    # Another set that shares the list: what is bad is counted of this one.
    for name in ("a", "b"):
        (tmp_path / "other" / name).mkdir(parents=True)
        shutil.copy(next(folder.glob("class_0/*.mp4")), tmp_path / "other" / name)
    run(monkeypatch, tmp_path / "other", "--output", bad_list)
    assert capsys.readouterr().out.startswith("2 videos, 2 of them read now\n0 of them bad, ")
    rest = datasets.read_videos(folder).without(bad_list)
    assert len(rest) == 4
    assert "class_1/broken.mp4" not in [record.id for record in rest.records]


def test_both_parts_of_hmdb51_are_checked(tmp_path, monkeypatch):
    checked = []

    def check(paths, *arguments, **options):
        checked.extend(paths)
        return CheckSummary(2, 2, 0, 0)

    write(tmp_path / "splits" / "clap_test_split1.txt", "a.avi 1\nb.avi 2\nc.avi 0\n")
    monkeypatch.setattr("gasmcast.video.check_videos", check)
    run(monkeypatch, tmp_path / "splits", "--root=/v", "--output", tmp_path / "bad.csv")
    assert checked == [Path("/v/clap/a.avi"), Path("/v/clap/b.avi")]
    checked.clear()
    write(tmp_path / "splits" / "clap_test_split2.txt", "a.avi 0\nb.avi 1\nc.avi 2\n")
    arguments = (tmp_path / "splits", "--root=/v", "--split=2", "--output", tmp_path / "bad.csv")
    run(monkeypatch, *arguments)
    assert checked == [Path("/v/clap/b.avi"), Path("/v/clap/c.avi")]


def test_a_wrong_root_is_an_error_and_leaves_no_list(tmp_path, monkeypatch):
    source = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\n")
    message = rf"^error: 2 of 2 videos are not there, such as {tmp_path}/nowhere/a\.mp4: expected "
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, source, "--root", tmp_path / "nowhere", "--output", tmp_path / "bad.csv")
    assert list(tmp_path.iterdir()) == [source]


def test_an_interruption_gets_one_line_too(folder, tmp_path, monkeypatch):
    def check(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("gasmcast.video.check_videos", check)
    with pytest.raises(SystemExit, match=r"^stopped: the same command goes on from here$"):
        run(monkeypatch, folder, "--output", tmp_path / "bad.csv")


def test_options_reach_what_they_name(tmp_path, monkeypatch):
    calls = []

    def check(*arguments, **options):
        calls.append((arguments, options))
        return CheckSummary(1, 1, 0, 0)

    def read(source, **options):
        calls.append((source, options))
        return datasets.LabeledVideos((datasets.VideoRecord(Path("a.mp4"), 0),), ("a",))

    monkeypatch.setattr("gasmcast.video.check_videos", check)
    monkeypatch.setattr("gasmcast.datasets.read_videos", read)
    run(
        monkeypatch,
        "list.csv",
        "--root=clips",
        "--labels=labels.json",
        "--split=3",
        f"--output={tmp_path / 'x.csv'}",
        "--num_workers=7",
        "--timeout_seconds=2.5",
    )
    options = {"root": Path("clips"), "classes": Path("labels.json"), "part": None, "split": 3}
    assert calls == [
        ("list.csv", options),
        (([Path("a.mp4")], tmp_path / "x.csv"), {"num_workers": 7, "timeout_seconds": 2.5}),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_workers=0"], r"^error: num_workers must be at least 1, got 0$"),
        (["--timeout_seconds=0"], r"^error: timeout_seconds must be positive, got 0.0$"),
    ],
)
def test_mistakes_get_one_clear_line(folder, arguments, message, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, folder, "--output", tmp_path / "bad.csv", *arguments)
