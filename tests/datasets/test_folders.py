import pytest

from gasmcast.datasets import scan_class_folders
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
    assert scan_class_folders(tmp_path / "train").classes == ("walk",)
    order = ["Val", "one", "train"]
    assert scan_class_folders(tmp_path, order).classes == tuple(order)
