"""What the training script makes of its options."""

import json
from pathlib import Path

import pytest

from gasmcast.datasets import LabeledVideos, VideoRecord
from gasmcast.training import PROTOCOLS

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"

CLASSES = ("push left", "lift", "push right")


def test_every_option_reaches_the_data(example, monkeypatch):
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
        *(videos, videos, None, 7, "auto"),
        *(example.Model(image_size=48), loader, example.Evaluation(protocol="ssv2")),
    )
    assert given == {
        "parts": (videos, videos, None),
        "image_size": 48,
        "num_frames": 16,
        "views": PROTOCOLS["ssv2"],
        "seed": 7,
        "flip": (2, 1, 0),
        **vars(loader),
    }


def test_damaged_files_are_left_out(example, monkeypatch, tmp_path):
    asked = []

    class Found:
        def without(self, file, *, strict):
            asked.append((file, strict))
            return "the rest"

    def read_videos(source, **options):
        asked.append((source, options))
        return Found()

    monkeypatch.setattr(example, "read_videos", read_videos)
    options = {"labels": Path("labels.json"), "root": Path("videos")}
    part = example.load_part(Path("a.csv"), "train", **options, bad_files=Path("bad.csv"))
    assert part == "the rest"
    example.load_part(Path("b.csv"), "test", CLASSES, **options, bad_files=None)
    root = {"root": Path("videos")}
    assert asked == [
        (Path("a.csv"), {**root, "classes": Path("labels.json"), "part": "train"}),
        (Path("bad.csv"), False),  # it names files of the other parts too
        (Path("b.csv"), {**root, "classes": CLASSES, "part": "test"}),
    ]


def test_mirrored_classes_of_a_file(example, tmp_path):
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps({"push left": "push right"}))
    assert example.mirrored(str(file), CLASSES) == (2, 1, 0)
    assert example.mirrored(None, CLASSES) is None
    file.write_text(json.dumps({"push left": "pull right"}))
    with pytest.raises(ValueError, match=r"pairs\.json names 'pull right', which is not among the"):
        example.mirrored(str(file), CLASSES)
    for text in ("left", "3", '["push left"]'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"pairs\.json is no JSON object of classes"):
            example.mirrored(str(file), CLASSES)
