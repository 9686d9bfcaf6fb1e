import json
from collections import Counter

import pytest

from gasmcast.datasets import read_annotation_list, scan_class_folders, split_videos


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def shown(videos, root):
    return [(str(r.path.relative_to(root)), videos.classes[r.label]) for r in videos.records]


def test_folders_are_classes(tmp_path):
    make(
        tmp_path,
        *(
            "walk/b.mp4",
            "walk/a.WEBM",
            "run/deep/c.mkv",
            "run/notes.txt",
            ".cache/x.mp4",
            "list.csv",
        ),
    )
    videos = scan_class_folders(tmp_path)
    assert videos.classes == ("run", "walk")
    assert shown(videos, tmp_path) == [
        ("run/deep/c.mkv", "run"),
        ("walk/a.WEBM", "walk"),
        ("walk/b.mp4", "walk"),
    ]
    ordered = scan_class_folders(tmp_path, ["walk", "sit", "run"])
    assert [r.label for r in ordered.records] == [2, 0, 0]


def test_folders_that_do_not_serve(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is no folder"):
        scan_class_folders(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no class folders: expected .*/<class>/<video"):
        scan_class_folders(tmp_path)
    make(tmp_path, "walk/readme.txt")
    with pytest.raises(ValueError, match="the 1 class folders of .* hold no video"):
        scan_class_folders(tmp_path)
    with pytest.raises(ValueError, match=r"walk is not among the 2 classes: 'run', 'sit'"):
        scan_class_folders(tmp_path, ["run", "sit"])


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na b.mp4,lift\n"c,d.mp4","drop, then lift"\n',
        "# made by hand\na b.mp4,lift\n\nc.mp4,drop\n",
        "a b.mp4 lift\nc.mp4 drop\n",
        "\ufeffpath, label\r\na b.mp4, lift\r\nc.mp4, drop\r\n",
        "codec,label,path\nh264,lift,a b.mp4\nvp9,drop,c.mp4\n",
        "a b.mp4\tlift\nc.mp4\t drop\n",
        "a b.mp4,lift\nc.mp4, drop\n",
    ],
)
def test_lists_of_names(tmp_path, text):
    file = tmp_path / "list.csv"
    file.write_text(text, encoding="utf-8")
    videos = read_annotation_list(file)
    first, second = shown(videos, tmp_path)
    assert first == ("a b.mp4", "lift")
    assert second in [("c.mp4", "drop"), ("c,d.mp4", "drop, then lift")]
    assert videos.classes == tuple(sorted(videos.classes))


def test_numbers_are_indices(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 2\nb.mp4 0\n")
    videos = read_annotation_list(tmp_path / "list.txt", root="/elsewhere")
    assert videos.classes == ("0", "1", "2")
    assert [r.label for r in videos.records] == [2, 0]
    assert str(videos.records[0].path) == "/elsewhere/a.mp4"
    named = read_annotation_list(tmp_path / "list.txt", classes=["x", "y", "z"])
    assert [named.classes[r.label] for r in named.records] == ["z", "x"]


@pytest.mark.parametrize(
    "content", [["drop", "lift"], {"lift": 1, "drop": 0}, {"lift": "1", "drop": "0"}]
)
def test_class_files(tmp_path, content):
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (tmp_path / "list.csv").write_text("path,label\na.mp4,lift\n")
    videos = read_annotation_list(tmp_path / "list.csv", classes=tmp_path / "labels.json")
    assert videos.classes == ("drop", "lift")
    assert videos.records[0].label == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no video: expected lines"),
        ("path,label\n", "lists no video"),
        ("path,label\na.mp4,lift\nb.mp4\n", r"list\.csv:3: expected path,label, got 'b\.mp4'"),
        ("path,label\na.mp4,\n", r"list\.csv:2: expected path,label, got 'a\.mp4,'"),
        ("a.mp4\n", r"list\.csv:1: expected 'path label' with a video file.* got 'a\.mp4'"),
        ("video,label\na.mp4,lift\n", r"list\.csv:1: .*got 'video,label'"),
        ("label,youtube_id,time_start\nlift,abc,1\n", r"list\.csv:1: .*got 'label,youtube_id,time"),
        ("a.mp4 30 lift\n", r"list\.csv:1: .*got 'a\.mp4 30 lift'"),
        ("frames/a 30 1\n", r"list\.csv:1: .*got 'frames/a 30 1'"),
        ("a.mp4 ²\n", r"list\.csv:1: label '²' is not among"),
        ("a.mp4 fly\n", r"list\.csv:1: label 'fly' is not among the 2 classes: 'drop', 'lift'"),
        ("a.mp4 2\n", r"list\.csv:1: label '2' is not among the 2 classes"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, text, message):
    file = tmp_path / "list.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotation_list(file, classes=["drop", "lift"])


def test_a_comma_in_a_path_is_no_separator(tmp_path):
    (tmp_path / "list.txt").write_text("dir,1/a.mp4 fight\n")
    (record,) = read_annotation_list(tmp_path / "list.txt").records
    assert record.path == tmp_path / "dir,1" / "a.mp4"


def test_class_names_are_unique(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 x\n")
    with pytest.raises(ValueError, match="a name of its own, got twice: 'x'"):
        read_annotation_list(tmp_path / "list.txt", classes=["x", "y", "x"])


def test_files_that_are_not_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv is not there"):
        read_annotation_list(tmp_path / "none.csv")
    (tmp_path / "video.mp4").write_bytes(b"\x00\xff\xfe\x90")
    with pytest.raises(ValueError, match=r"video\.mp4 is not a text file"):
        read_annotation_list(tmp_path / "video.mp4")
    (tmp_path / "list.csv").write_text("a.mp4 lift\n")
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(ValueError, match=r"labels\.json is not JSON"):
        read_annotation_list(tmp_path / "list.csv", classes=tmp_path / "labels.json")
    (tmp_path / "labels.json").write_text('{"lift": 5}')
    with pytest.raises(ValueError, match="map each to its own index 0 to K - 1"):
        read_annotation_list(tmp_path / "list.csv", classes=tmp_path / "labels.json")
    with pytest.raises(FileNotFoundError, match=r"class file .*none\.json is not there"):
        read_annotation_list(tmp_path / "list.csv", classes=tmp_path / "none.json")


def test_split_takes_the_same_share_of_every_class(tmp_path):
    make(tmp_path, *(f"{c}/{n:02}.mp4" for c in ("a", "b") for n in range(40)), "c/only.mp4")
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
