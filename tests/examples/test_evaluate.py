"""A saved model, evaluated by itself."""

import csv
import json
from pathlib import Path

import pytest
import torch

from gasmcast.datasets import read_annotation_list, write_rendered_dataset
from gasmcast.training import VideoDataModule, evaluate, evaluation_views
from made_files import write
from small import IMAGE_SIZE, small_model

SCRIPT = Path(__file__).parents[2] / "examples" / "evaluate.py"
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with random weights, and clips."""
    root = tmp_path_factory.mktemp("saved")
    write_rendered_dataset(
        root / "clips",
        clips_per_class={"test": 3},
        motions=("lift", "drop"),
        appearances=("striped",),
        num_frames=8,
        size=40,
    )
    clips = read_annotation_list(root / "clips" / "test.csv", classes=root / "clips/labels.json")
    torch.manual_seed(0)
    small_model(2, class_names=clips.classes).save_pretrained(root / "model")
    return root


def test_it_averages_the_views_of_a_protocol_and_writes_predictions(
    example, saved, tmp_path, capsys
):
    example.main(
        saved / "model",
        saved / "clips" / "test.csv",
        tmp_path / "out",
        protocol="ssv2",
        num_workers=0,
        trainer=dict(QUIET),
    )
    printed = capsys.readouterr().out
    assert "2 clips x 3 crops of each video\nvideos      6\ntop-1 " in printed
    written = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {"per_class.csv", "confusion_matrix.csv", "predictions.csv"}
    assert written == {"results.json", *tables}

    model = example.TemporalCrossAttentionModel.from_pretrained(saved / "model")
    clips = read_annotation_list(saved / "clips/test.csv", classes=saved / "clips/labels.json")
    data = VideoDataModule(
        None, clips, image_size=IMAGE_SIZE, num_workers=0, views=evaluation_views("ssv2")
    )
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, record, sample in zip(rows, clips.records, data.test, strict=True):
        views = sample["clip"] / 255
        assert views.shape == (6, 16, 3, IMAGE_SIZE, IMAGE_SIZE)
        with torch.no_grad():
            probabilities = model(views).softmax(dim=1).mean(dim=0)
        best = clips.classes[int(probabilities.argmax())]
        assert (row["prediction"], row["class_1"]) == (best, best)
        assert row["label"] == clips.classes[record.label]
        assert float(row["probability_1"]) == pytest.approx(float(probabilities.max()), abs=1e-6)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["top1"] == evaluate(model, data, trainer=dict(QUIET)).top1


def test_numbers_of_views_and_a_class_order_that_is_another(example, saved, tmp_path, capsys):
    source = (saved / "model", saved / "clips" / "test.csv")
    options = {"num_workers": 0, "trainer": dict(QUIET)}
    example.main(*source, clips=2, stride=3, **options)
    assert "2 clips x 1 crops" in capsys.readouterr().out
    (tmp_path / "labels.txt").write_text("drop\nlift\n")
    with pytest.raises(ValueError, match="labels.txt"):
        example.main(*source, check_labels=tmp_path / "labels.txt", **options)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: expected a saved model"):
        example.main(Path("nowhere"), source[1])


def test_damaged_files_are_left_out_and_counted(example, saved, tmp_path, capsys):
    test = saved / "clips" / "test.csv"
    bad = read_annotation_list(test, classes=saved / "clips/labels.json").records[0].path
    (tmp_path / "bad.csv").write_text(f"path,reason\n{bad},cut\nof another part.mp4,cut\n")
    options = {"bad_files": tmp_path / "bad.csv", "num_workers": 0, "trainer": dict(QUIET)}
    example.main(saved / "model", test, **options)
    printed = capsys.readouterr().out
    assert f"{test}: 1 of 6 videos are left out by {tmp_path / 'bad.csv'}\n" in printed
    assert "videos      5\n" in printed


def test_an_output_that_cannot_be_is_found_before_anything_is_decoded(
    example, saved, tmp_path, monkeypatch
):
    monkeypatch.setattr("gasmcast.datasets.clips.read_video", None)
    for output in (saved / "model" / "config.json", saved / "model" / "config.json" / "results"):
        message = rf"output must be a folder to write to \(.*\): '{output}'"
        with pytest.raises(OSError, match=message):
            example.main(saved / "model", saved / "clips" / "test.csv", output)


def test_views_that_contradict():
    with pytest.raises(ValueError, match=r"leave out clips, crops and stride, got 1, 3 and None"):
        evaluation_views("ssv2", crops=3)
    with pytest.raises(ValueError, match="ssv2 takes clips of 16 frames, got num_frames=8"):
        evaluation_views("ssv2", num_frames=8)
    with pytest.raises(ValueError, match="protocol must be one of ssv2, kinetics, got 'ucf'"):
        evaluation_views("ucf")


def test_a_split_of_hmdb51_that_is_not_there(example, saved, tmp_path):
    write(tmp_path / "splits" / "lift_test_split1.txt", "a.avi 1\nb.avi 2\n")
    message = r"holds no <class>_test_split3\.txt, got the splits \[1\]$"
    with pytest.raises(ValueError, match=message):
        example.main(saved / "model", tmp_path / "splits", root=tmp_path, split=3)
