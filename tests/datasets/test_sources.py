import os
import re
from pathlib import Path

import pytest

from gasmcast.datasets import (
    read_annotation_list,
    read_hmdb51,
    read_kinetics,
    read_something_something,
    read_ucf101,
    read_videos,
    scan_class_folders,
)
from made_files import shown, touch, write


def test_class_folders(tmp_path):
    touch(tmp_path, "walk/a.mp4", "run/b.mp4")
    assert read_videos(tmp_path) == scan_class_folders(tmp_path)
    assert read_videos(str(tmp_path), classes=["walk", "run"]).classes == ("walk", "run")


def test_hmdb51(tmp_path):
    write(tmp_path / "clap_test_split1.txt", "a.avi 1\nb.avi 2\n")
    write(tmp_path / "clap_test_split2.txt", "a.avi 2\nc.avi 1\n")
    write(tmp_path / "wave_test_split2.txt", "d.avi 2\n")
    options = {"part": "test", "split": 2, "classes": ["wave", "clap"]}
    videos = read_videos(tmp_path, root="/v", **options)
    assert videos == read_hmdb51(tmp_path, "/v", **options)
    assert [record.id for record in videos.records] == ["clap/a.avi", "wave/d.avi"]
    assert [r.id for r in read_videos(tmp_path, root="/v").records] == ["clap/a.avi"]
    both = read_videos(tmp_path, root="/v", part=None)
    assert [record.id for record in both.records] == ["clap/a.avi", "clap/b.avi"]


def test_something_something(tmp_path):
    write(tmp_path / "labels.json", {"Holding something": "0"})
    file = write(tmp_path / "mine.json", '\ufeff [\n {"label": "x", "id": "7",\n "template": ""}]')
    write(tmp_path / "test-answers.csv", "7;Holding something\n")
    assert read_videos(file, root="/v") == read_something_something(file, "/v")
    assert read_videos(file, root="/v", classes=["x", "Holding something"]).records[0].label == 1


def test_kinetics(tmp_path):
    text = '"label","youtube_id","time_start","time_end"\nrun,a,1,2\n'
    file = write(tmp_path / "val.csv", text)
    assert read_videos(file, root="/v") == read_kinetics(file, "/v")
    assert read_videos(file, root="/v", classes=["x", "run"]).records[0].label == 1
    write(file, "youtube_id,time_start,time_end,split\na,1,2,test\n")
    with pytest.raises(ValueError, match="test clips without labels cannot be evaluated"):
        read_videos(file, root="/v")


@pytest.mark.parametrize("name", ["trainlist01.txt", "testlist03.txt"])
def test_ucf101(tmp_path, name):
    file = write(tmp_path / name, "Archery/a.avi 1\n")
    write(tmp_path / "classInd.txt", "1 Archery\n2 Biking\n")
    assert read_videos(file, root="/v") == read_ucf101(file, "/v")
    assert read_videos(file, root="/v", classes=["Archery"]).classes == ("Archery",)


@pytest.mark.parametrize(
    "text",
    [
        "# mine\n\na.mp4 run\n",
        " # mine\n a\u2028b.mp4 run\n",
        "label,path\nrun,a.mp4\n",
        "frames/a 30 1\n",
        "a.mp4;1\n",
        "7;Drumming Fingers\n",
    ],
)
def test_lists(tmp_path, text):
    file = write(tmp_path / "list.csv", text)
    assert read_videos(file) == read_annotation_list(file)
    assert read_videos(file, root="/v") == read_annotation_list(file, root="/v")


def test_classes_of_a_list(tmp_path):
    file = write(tmp_path / "list.csv", "a.mp4 0\n")
    videos = read_videos(file, classes=write(tmp_path / "labels.json", ["run", "walk"]))
    assert shown(videos, tmp_path) == [("a.mp4", "run")]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("train.json", [{"id": "1"}], "Something-Something V2"),
        ("train.csv", "label,youtube_id,time_start,time_end\n", "Kinetics"),
        ("trainlist01.txt", "A/a.avi 1\n", "UCF101"),
        ("splits/a_test_split1.txt", "a.avi 1\n", "HMDB51"),
    ],
)
def test_sources_that_do_not_know_where_their_videos_are(tmp_path, name, content, kind):
    source = write(tmp_path / name, content)
    source = source.parent if kind == "HMDB51" else source
    message = f"{source} is of {kind}: root must be the folder of its videos, got None"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_videos(source)


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        (b"", "''"),
        (b'{"walk": 0}', "'{\"walk\": 0}'"),
        (b"[1, 2]", "'[1, 2]'"),
        (b"name,class\na.mp4,walk\n", "'name,class'"),
        (b"\x1aE\xdf\xa3" + bytes(range(256)) * 400, "'\\x1aE"),
        (b"x" * 200_000, f"'{'x' * 80}'"),
    ],
)
def test_sources_that_are_not_understood(tmp_path, content, begins):
    file = tmp_path / "source"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not understood, it begins with") as error:
        read_videos(file)
    text = str(error.value)
    assert text.startswith(f"{file} is not understood, it begins with {begins}")
    for kind in ("one folder of videos per class", "HMDB51", "Something-Something V2", "Kinetics"):
        assert kind in text
    for kind in ("UCF101", "'path label'", "'path total_frames label'", "columns path and label"):
        assert kind in text


def test_sources_that_are_not_there(tmp_path):
    message = r"^source .*none is not there: expected a folder or a file$"
    with pytest.raises(FileNotFoundError, match=message):
        read_videos(tmp_path / "none")


@pytest.mark.skipif(not Path(os.devnull).exists(), reason="a device that is no file")
def test_sources_that_are_no_files():
    message = rf"^source {os.devnull} is a pipe, socket or device: expected a folder or a file$"
    with pytest.raises(ValueError, match=message):
        read_videos(os.devnull)
    message = rf"^annotation list {os.devnull} is a pipe, socket or device: expected a file$"
    with pytest.raises(ValueError, match=message):
        read_annotation_list(os.devnull)
