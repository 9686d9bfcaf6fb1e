import os
import pickle
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.datasets import LabeledVideos, VideoRecord, scan_class_folders, split_videos
from made_files import touch, write


def some(*names, classes=("x", "y")):
    return LabeledVideos(tuple(VideoRecord(Path(n), i % 2) for i, n in enumerate(names)), classes)


def ids(videos):
    return [record.id for record in videos.records]


def test_the_path_is_the_id_unless_one_is_given():
    assert VideoRecord(Path("a") / "b.mp4", 0).id == "a/b.mp4"
    assert VideoRecord(Path("a") / "b.mp4", 0, "7").id == "7"
    assert pickle.loads(pickle.dumps(some("a", "b"))) == some("a", "b")


def test_what_a_set_refuses():
    records = (
        VideoRecord(Path("a"), 0, "7"),
        VideoRecord(Path("b"), 0),
        VideoRecord(Path("c"), 0, "7"),
    )
    with pytest.raises(ValueError, match="^each video must have an id of its own, got twice: '7'$"):
        LabeledVideos(records, ("x",))
    with pytest.raises(ValueError, match="^each class must have a name of its own.* twice: 'x'$"):
        some("a", classes=("x", "y", "x"))
    with pytest.raises(
        ValueError, match="^video 'b' has the label 1, expected 0 to 0: there are 1"
    ):
        some("a", "b", classes=("x",))
    with pytest.raises(ValueError, match="^video 'a' has the label -1, expected 0 to 1"):
        LabeledVideos((VideoRecord(Path("a"), -1),), ("x", "y"))


def test_a_description_counts_every_class():
    videos = some("a", "b", "c", classes=("drop", "lift", *(f"c{i}" for i in range(2, 11))))
    lines = videos.describe().split("\n")
    assert lines[0] == "3 videos, 11 classes in order:"
    assert lines[1:4] == ["   0  drop  (2)", "   1  lift  (1)", "   2  c2  (0)"]
    assert lines[-1] == "  10  c10  (0)"


def test_without_ids_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = tuple(VideoRecord(Path("videos") / f"{n}.webm", 0, str(n)) for n in range(5))
    videos = LabeledVideos(records, ("x", "never"))
    assert videos.without([]) == videos
    rest = videos.without(["1", "videos/2.webm", Path("./videos/../videos/3.webm")])
    assert (ids(rest), rest.classes) == (["0", "4"], ("x", "never"))
    assert ids(videos.without([tmp_path / "videos" / "0.webm"])) == ["1", "2", "3", "4"]
    assert len(videos) == 5


def test_without_the_files_of_a_list(tmp_path):
    videos = some("a.mp4", "b, b.mp4", "c.mp4")
    reason = '"cannot be opened: ""b"",\nnot even once"'
    bad = write(tmp_path / "bad.csv", f'path,reason\n"b, b.mp4",{reason}\nc.mp4,\n')
    assert ids(videos.without(bad)) == ["a.mp4"]
    assert ids(videos.without(str(bad))) == ["a.mp4"]
    assert videos.without(write(bad, "reason,path\n")) == videos


def test_a_list_means_the_same_wherever_it_is_read(tmp_path, monkeypatch):
    touch(tmp_path, "set/videos/x/a.mp4", "set/videos/x/b.mp4", "set/videos/x/c.mp4")
    videos = scan_class_folders(tmp_path / "set" / "videos", ["x"])
    rows = ["videos/x/a.mp4", str(tmp_path / "set" / "videos" / "x" / "b.mp4"), "x/c.mp4"]
    for count in (1, 2, 3):  # from the list's folder, absolute, an id
        file = write(tmp_path / "set" / "bad.csv", "\n".join(["path", *rows[:count]]))
        for folder in (".", "set", "set/videos/x"):
            monkeypatch.chdir(tmp_path / folder)
            assert ids(videos.without(file)) == ["x/a.mp4", "x/b.mp4", "x/c.mp4"][count:]
            relative = os.path.relpath(file)
            assert videos.without(relative) == videos.without(file)


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"K\xe4se.mp4")  # Latin-1, as the check writes it down
    file = tmp_path / "bad.csv"
    file.write_bytes(b"path,reason\n/v/K\xe4se.mp4,no such file\n")
    videos = LabeledVideos((VideoRecord(Path("/v") / name, 0), VideoRecord(Path("b"), 0)), ("x",))
    assert ids(videos.without(file)) == ["b"]


def test_bad_names_that_are_none_of_the_videos(tmp_path):
    videos = some("a.mp4", "b.mp4")
    message = (
        "^2 of the 3 bad names are none of the 2 videos, which are named like 'a.mp4': 'd', 'e'$"
    )
    with pytest.raises(ValueError, match=message):
        videos.without(["d", "b.mp4", "e"])
    assert ids(videos.without(["d", "b.mp4", "e"], strict=False)) == ["a.mp4"]
    with pytest.raises(ValueError, match="1 of the 1 bad names are none of the 0 videos: 'd'$"):
        LabeledVideos((), ("x",)).without(["d"])
    with pytest.raises(FileNotFoundError, match=r"list of bad files .*bad\.csv is not there"):
        videos.without(tmp_path / "bad.csv")
    file = write(tmp_path / "bad.csv", "a.mp4,broken\n")
    with pytest.raises(ValueError, match=r"must be CSV .* column path, got \['a\.mp4', 'broken'\]"):
        videos.without(file)
    with pytest.raises(ValueError, match=r"must be CSV .* column path, got \[\]"):
        videos.without(write(file, ""))
    with pytest.raises(ValueError, match=r"bad\.csv:2: not CSV: field larger than field limit"):
        videos.without(write(file, "path\n" + "x" * 200_000))


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_without_takes_the_bad_ones_and_keeps_the_order(there, bad):
    videos = some(*(f"{n}.mp4" for n in sorted(there)))
    rest = videos.without([f"{n}.mp4" for n in bad], strict=False)
    assert ids(rest) == [f"{n}.mp4" for n in sorted(there - bad)]


def test_split_takes_the_same_share_of_every_class(tmp_path):
    touch(tmp_path, *(f"{c}/{n:02}.mp4" for c in ("a", "b") for n in range(40)), "c/only.mp4")
    videos = scan_class_folders(tmp_path)
    kept, held = split_videos(videos, 0.25, seed=3)
    assert Counter(r.label for r in held.records) == {0: 10, 1: 10}
    assert Counter(r.label for r in kept.records) == {0: 30, 1: 30, 2: 1}
    assert set(kept.records) | set(held.records) == set(videos.records)
    assert not set(kept.records) & set(held.records)
    assert split_videos(videos, 0.25, seed=3) == (kept, held)
    assert split_videos(videos, 0.25, seed=4) != (kept, held)
    with pytest.raises(ValueError, match="held_out must be between 0 and 1, got 1"):
        split_videos(videos, 1)
