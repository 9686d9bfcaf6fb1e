import os
import re

import pytest

from gasmcast.datasets import scan_class_folders
from gasmcast.video import VideoReadError, read_video
from made_files import shown, touch, write


def test_folders_are_classes(tmp_path):
    names = (
        "walk/b.mp4",
        "walk/a.WEBM",
        "run/deep/c.mkv",
        "run/notes.txt",
        ".cache/x.mp4",
        "walk/._b.mp4",  # what macOS leaves behind
        "walk/.thumbs/b.mp4",
        "l.csv",
    )
    touch(tmp_path, *names)
    videos = scan_class_folders(tmp_path)
    assert videos.classes == ("run", "walk")
    assert shown(videos, tmp_path) == [
        ("run/deep/c.mkv", "run"),
        ("walk/a.WEBM", "walk"),
        ("walk/b.mp4", "walk"),
    ]
    assert [r.id for r in videos.records] == ["run/deep/c.mkv", "walk/a.WEBM", "walk/b.mp4"]


def test_an_order_of_the_classes(tmp_path):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4")
    ordered = scan_class_folders(tmp_path, ["walk", "sit", "run"])
    assert ordered.classes == ("walk", "sit", "run")
    assert [r.label for r in ordered.records] == [2, 0]
    file = write(tmp_path / "classes.txt", "walk\nsit\nrun\n")
    assert scan_class_folders(tmp_path, file) == ordered


def test_folders_that_do_not_serve(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is no folder"):
        scan_class_folders(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no class folders: expected .*/<class>/<video"):
        scan_class_folders(tmp_path)
    touch(tmp_path, "walk/readme.txt")
    with pytest.raises(ValueError, match="the 1 class folders of .* hold no video"):
        scan_class_folders(tmp_path)
    with pytest.raises(ValueError, match=r"walk is not among the 2 classes: 'run', 'sit'"):
        scan_class_folders(tmp_path, ["run", "sit"])


def test_parts_are_no_classes(tmp_path):
    touch(tmp_path, "train/walk/a.mp4", "Val/walk/b.mp4")
    with pytest.raises(ValueError, match=r"parts of a set, not classes: 'Val', 'train'; give one"):
        scan_class_folders(tmp_path)
    touch(tmp_path, "one/test/walk/a.mp4")
    with pytest.raises(ValueError, match="parts of a set, not classes: 'test'; give one of them"):
        scan_class_folders(tmp_path / "one")
    assert scan_class_folders(tmp_path / "train", ["walk"]).classes == ("walk",)
    order = ["Val", "one", "train"]
    assert scan_class_folders(tmp_path, order).classes == tuple(order)


def test_links_to_videos_that_are_not_there_stay(tmp_path):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4")
    (tmp_path / "walk" / "gone.mp4").symlink_to(tmp_path / "unmounted" / "gone.mp4")
    os.mkdir(tmp_path / "walk" / "folder.mp4")
    videos = scan_class_folders(tmp_path)
    assert [r.id for r in videos.records] == ["run/b.mp4", "walk/a.mp4", "walk/gone.mp4"]
    with pytest.raises(VideoReadError, match=r"walk/gone\.mp4: no such file$"):
        read_video(videos.records[2].path)


@pytest.mark.parametrize("classes", [None, ["run", "walk"]])
def test_a_class_that_is_a_link_to_nothing(tmp_path, classes):
    touch(tmp_path / "set", "run/b.mp4")
    link = tmp_path / "set" / "walk"
    link.symlink_to(tmp_path / "unmounted")
    message = re.escape(f"links in {tmp_path / 'set'} lead to what is not there: 'walk'") + "$"
    with pytest.raises(FileNotFoundError, match=message):
        scan_class_folders(tmp_path / "set", classes)
    touch(tmp_path, "unmounted/deep/a.mp4")
    assert [r.id for r in scan_class_folders(tmp_path / "set").records] == [
        "run/b.mp4",
        "walk/deep/a.mp4",
    ]


def test_an_empty_folder_is_no_class_unless_it_is_named_as_one(tmp_path):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4", "notes/read.me", "sit/.c.mp4")
    message = (
        f"2 of the 4 folders of {tmp_path} hold no video, but would count as classes: 'notes', "
        "'sit'; move them away, or give the classes in order"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scan_class_folders(tmp_path)
    order = ["notes", "run", "sit", "walk"]
    assert [r.label for r in scan_class_folders(tmp_path, order).records] == [1, 3]


def test_the_folder_above_the_videos_is_no_set_of_one_class(tmp_path):
    touch(tmp_path, "train.json", "videos/1.webm", "videos/2.webm")
    message = (
        f"{tmp_path} holds one folder, 'videos', expected one per class: name the folder of class "
        "folders or the annotation file, or give the classes in order"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scan_class_folders(tmp_path)
    assert len(scan_class_folders(tmp_path, ["videos"])) == 2
