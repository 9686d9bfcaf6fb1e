"""The plotting script: what it writes for which runs, and its errors."""

import pytest
import torch

from examples.running import run
from gasmcast.training import EvaluationReport
from made_files import write

LOG = "epoch,lr-AdamW/pg1,step,train_loss,train_top1\n0,0.1,9,1.5,\n0,,9,,0.5\n"


@pytest.fixture
def runs(tmp_path):
    """A finished run, one that is running, and an evaluation."""
    for name in ("finished/run", "running/run"):
        write(tmp_path / name / "log" / "version_0" / "metrics.csv", LOG)
    labels = torch.tensor([0, 1, 1])
    report = EvaluationReport(
        ("up", "down"), ("a", "b", "c"), labels, labels[:, None], torch.ones(3, 1)
    )
    for name in ("finished/run", "evaluation"):
        report.save(tmp_path / name)
    return tmp_path


def test_one_run(runs):
    done = run("plot_run.py", "finished/run", "--output=new/figures", "--format=svg", cwd=runs)
    written = ["training_curves.svg", "confusion_matrix.svg", "class_accuracy.svg"]
    assert done.stdout == "".join(f"written: new/figures/{name}\n" for name in written)
    assert {path.name for path in (runs / "new" / "figures").iterdir()} == set(written)
    assert "<svg" in (runs / "new" / "figures" / "training_curves.svg").read_text()


def test_several_runs(runs):
    done = run("plot_run.py", "running/run", "finished/run", "evaluation", cwd=runs)
    assert done.stdout.splitlines() == [
        "written: figures/training_curves.png",
        "running/run is not evaluated yet: no confusion matrix, no accuracy by class",
        "written: figures/2_run_confusion_matrix.png",
        "written: figures/2_run_class_accuracy.png",
        "written: figures/3_evaluation_confusion_matrix.png",
        "written: figures/3_evaluation_class_accuracy.png",
    ]


def test_errors_are_one_line(runs):
    done = run("plot_run.py", "finished/run", ".", cwd=runs, status=1)
    assert done.stderr == (
        "error: . is no run: expected a folder with log, or with results.json of an evaluation\n"
    )
    assert not (runs / "figures").exists()
    (runs / "finished/run/per_class.csv").write_text("")
    done = run("plot_run.py", "finished/run", cwd=runs, status=1)
    assert done.stderr == (
        "error: finished/run/per_class.csv is empty: expected a row for each class\n"
    )
