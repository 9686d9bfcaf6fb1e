import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

from gasmcast.training import EvaluationReport


def report_of(probabilities, labels, classes=None, **options):
    best = probabilities.topk(min(5, probabilities.size(1)), dim=1)
    return EvaluationReport(
        classes=classes or tuple(map(str, range(probabilities.size(1)))),
        ids=tuple(f"v{number}" for number in range(len(labels))),
        labels=labels,
        ranked=best.indices,
        probabilities=best.values,
        **options,
    )


@pytest.fixture
def report():
    answers = [[0.5, 0.25, 0.25], [0.5, 0.375, 0.125], [0.125, 0.75, 0.125], [0.5, 0.25, 0.25]]
    return report_of(
        torch.tensor(answers),
        torch.tensor([0, 1, 1, 0]),
        ("lift", "drop", "a, b"),
        unreadable=("test: x.mp4: empty",),
    )


def test_numbers_by_hand(report):
    assert report.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert (report.num_videos, report.top1, report.top5) == (4, 3 / 4, 1.0)
    # A class without a video does not count as missed.
    assert report.mean_class == (1 + 1 / 2) / 2
    assert [tuple(row) for row in report.per_class[:2]] == [
        ("lift", 2, 2, 1.0),
        ("drop", 2, 1, 0.5),
    ]
    assert report.per_class[2][:3] == ("a, b", 0, 0)
    assert math.isnan(report.per_class[2].accuracy)
    text = str(report)
    assert "top-1       75.0%  (chance 33.3%)" in text
    assert "not readable, left out: 1\n  test: x.mp4: empty" in text


def test_files_by_hand(report, tmp_path):
    report.save(tmp_path / "new")
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert json.loads(written.pop("results.json")) == {
        "num_videos": 4,
        "top1": 0.75,
        "top5": 1.0,
        "mean_class": 0.75,
        "chance": 1 / 3,
        "unreadable": ["test: x.mp4: empty"],
    }
    assert {name: text.splitlines() for name, text in written.items()} == {
        "per_class.csv": [
            "class,videos,right,accuracy",
            "lift,2,2,1.0",
            "drop,2,1,0.5",
            '"a, b",0,0,',
        ],
        "confusion_matrix.csv": [
            'shown \\ named,lift,drop,"a, b"',
            "lift,2,0,0",
            "drop,1,1,0",
            '"a, b",0,0,0',
        ],
        "predictions.csv": [
            "id,label,prediction,class_1,probability_1,class_2,probability_2,class_3,probability_3",
            'v0,lift,lift,lift,0.5,drop,0.25,"a, b",0.25',
            'v1,drop,lift,lift,0.5,drop,0.375,"a, b",0.125',
            'v2,drop,drop,drop,0.75,lift,0.125,"a, b",0.125',
            'v3,lift,lift,lift,0.5,drop,0.25,"a, b",0.25',
        ],
    }


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), classes=st.integers(6, 12))
def test_numbers_against_scikit_learn(seed, size, classes):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(size, classes, generator=generator).softmax(dim=1)
    labels = torch.randint(classes, (size,), generator=generator)
    report = report_of(probabilities, labels)
    named = probabilities.argmax(dim=1)
    every = list(range(classes))
    assert report.top1 == pytest.approx(accuracy_score(labels, named))
    assert report.top5 == pytest.approx(
        top_k_accuracy_score(labels, probabilities, k=5, labels=every)
    )
    assert report.confusion.tolist() == confusion_matrix(labels, named, labels=every).tolist()
    rows = [row for row in report.per_class if row.videos]
    assert report.mean_class == pytest.approx(sum(row.accuracy for row in rows) / len(rows))
    assert sum(row.right for row in report.per_class) / size == pytest.approx(report.top1)


def test_a_full_disk_leaves_the_table_of_before(report, tmp_path, small_disk):
    report.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    more = replace(report, unreadable=("test: y.mp4: empty",) * 100)
    with pytest.raises(OSError, match=r"File too large: '.*results\.json'$"), small_disk(1000):
        more.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_video_at_all(tmp_path):
    report = report_of(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert all(math.isnan(value) for value in (report.top1, report.top5, report.mean_class))
    report.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["top1"] is None
    with (tmp_path / "predictions.csv").open() as file:
        assert len(list(csv.reader(file))) == 1


def test_a_name_that_is_no_text_is_written(tmp_path):
    report = report_of(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    object.__setattr__(report, "ids", ("\udcff.mp4",))
    report.save(tmp_path)
    assert "\n\\udcff.mp4,0,0" in (tmp_path / "predictions.csv").read_text()
