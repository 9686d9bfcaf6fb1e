"""What the training script makes of its options."""

import json
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from gasmcast.datasets import LabeledVideos, VideoRecord
from gasmcast.training import PROTOCOLS
from made_files import write

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"

CLASSES = ("push left", "lift", "push right")


@pytest.mark.parametrize(
    ("flip", "mirrored"), [(None, None), ("auto", (2, 1, 0)), ("swaps.json", (1, 0, 2))]
)
def test_every_option_reaches_the_data(example, monkeypatch, tmp_path, flip, mirrored):
    monkeypatch.chdir(tmp_path)
    Path("swaps.json").write_text(json.dumps({"push left": "lift"}))
    videos = LabeledVideos((VideoRecord(Path("a.mp4"), 0),), CLASSES)
    loader = example.Loader(
        batch_size=3,
        num_workers=0,
        stride=5,
        min_scale=0.7,
        color_jitter=0.4,
        erase=0.1,
        backend="pyav",
        timeout_seconds=3.0,
    )
    given = {}
    monkeypatch.setattr(
        example, "VideoDataModule", lambda *parts, **options: given.update(options, parts=parts)
    )
    example.build_data(
        *(videos, videos, None, 7, flip),
        *(example.Model(image_size=48), loader, example.Evaluation(protocol="ssv2")),
    )
    assert given == {
        "parts": (videos, videos, None),
        "image_size": 48,
        "num_frames": 16,
        "views": PROTOCOLS["ssv2"],
        "seed": 7,
        "flip": mirrored,
        **vars(loader),
    }


@pytest.mark.parametrize("flip", ["nowhere.json", "."])
def test_a_flip_that_is_no_file_names_the_option(example, flip):
    videos = LabeledVideos((VideoRecord(Path("a.mp4"), 0),), CLASSES)
    options = (example.Model(), example.Loader(), example.Evaluation())
    message = f"^flip must be auto or a JSON file of classes that change places, got {flip}$"
    with pytest.raises(FileNotFoundError, match=message):
        example.build_data(videos, videos, None, 7, flip, *options)


def test_the_first_of_several_processes_speaks_alone(example, monkeypatch, capsys):
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        example.say(f"process {rank}")
    assert capsys.readouterr().out == "process 0\n"


def test_damaged_files_are_left_out(example, monkeypatch, capsys):
    asked = []

    class Found(list):
        def without(self, file, *, strict):
            asked.append((file, strict))
            return ["the rest"]

    def read_videos(source, **options):
        asked.append((source, options))
        return Found(range(3))

    monkeypatch.setattr(example, "read_videos", read_videos)
    options = {"labels": Path("labels.json"), "root": Path("videos"), "split": 2}
    part = example.load_part(Path("a.csv"), "train", **options, bad_files=Path("bad.csv"))
    assert part == ["the rest"]
    assert capsys.readouterr().out == "a.csv: 2 of 3 videos are left out by bad.csv\n"
    example.load_part(Path("b.csv"), "test", CLASSES, **options, bad_files=None)
    root = {"root": Path("videos"), "split": 2}
    assert asked == [
        (Path("a.csv"), {**root, "classes": Path("labels.json"), "part": "train"}),
        (Path("bad.csv"), False),  # it names files of the other parts too
        (Path("b.csv"), {**root, "classes": CLASSES, "part": "test"}),
    ]


def test_a_split_of_hmdb51_that_is_not_there(example, tmp_path):
    write(tmp_path / "splits" / "clap_test_split1.txt", "a.avi 1\nb.avi 2\n")
    message = r"holds no <class>_test_split3\.txt, got the splits \[1\]$"
    with pytest.raises(ValueError, match=message):
        example.main(tmp_path / "splits", tmp_path / "run", root=tmp_path, split=3)
