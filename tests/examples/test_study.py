import json
import re
import shutil

import pytest
import torch
from filelock import FileLock
from interaction_study.measures import measures
from interaction_study.plan import opposite_classes

from examples.running import EXAMPLES, QUICK_STUDY, run
from gasmcast.datasets import interaction_name
from gasmcast.datasets.interactions import ACTIONS, AGENTS
from gasmcast.feature_store import FeatureStore

SCRIPT = EXAMPLES / "study.py"


@pytest.fixture(scope="module")
def folder(quick_study):
    return quick_study


def trained(folder):
    """The lines of runs that are trained and measured alike."""
    lines = map(json.loads, (folder / "it/study_runs.jsonl").read_text().splitlines())
    return [
        line
        for line in lines
        if line["part"] in ("tuning", "beyond", "comparison", "share", "bf16", "longer")
    ]


def test_the_held_out_clips_are_looked_at_in_the_comparison_only(folder):
    for line in trained(folder):
        assert "validation" in line
        assert ("test" in line) == ("combinations" in line) == (line["part"] != "tuning")
        assert ("backwards" in line) == (
            line["part"] == "comparison" and line["variant"] == "gasm_cast"
        )


def test_every_run_says_what_became_of_it(folder):
    for line in trained(folder):
        steps = 8 if line["part"] == "longer" else 4  # two batches, twice
        assert len(line["loss"]) == len(line["gradient_norm"]) == steps
        assert all(0 < value < 10 for value in line["loss"])
        assert line["largest_gradient_norm"] >= max(line["gradient_norm"]) - 1e-3
        for part in ("validation", "test", "combinations"):
            assert part not in line or set(line[part]) == {"top1", "opposite", "ece"}


def test_what_is_done_is_not_done_again_and_a_run_comes_out_the_same(folder):
    path = folder / "it/study_runs.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    (last,) = (
        number for number, line in enumerate(whole) if '"bf16"' in line and '"seed": 2' in line
    )
    again = whole[last]
    path.write_text("".join(whole[:last] + whole[last + 1 :]))
    run(SCRIPT.name, *QUICK_STUDY, cwd=folder)
    written = path.read_text().splitlines(keepends=True)
    assert written[:-1] == whole[:last] + whole[last + 1 :]
    before, after = ({**json.loads(line), "seconds": 0} for line in (again, written[-1]))
    assert before == after


def test_a_variant_that_is_not_there_is_named(folder):
    printed = run(SCRIPT.name, "--variants=[gasm]", "--quick=true", cwd=folder, status=1).stderr
    assert "variants must be of gasm_cast, " in printed
    assert "got ['gasm']" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--variants=[]", "variants must be of gasm_cast, .*got \\[\\]"),
        ("--processes=0", "processes must be at least 1, got 0"),
        ("--fights=nowhere", "fights must be a folder .*got nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, option, message):
    printed = run(SCRIPT.name, option, "--output=it", cwd=tmp_path, status=1).stderr
    assert re.search(message, printed)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lock", "option"), [("it/study.lock", "--output"), ("runs.lock", "--runs")]
)
def test_two_studies_share_neither_a_folder_nor_a_file_of_runs(tmp_path, lock, option):
    (tmp_path / "it").mkdir()
    with FileLock(tmp_path / lock):
        printed = run(
            SCRIPT.name, "--output=it", "--runs=runs.jsonl", "--quick=true", cwd=tmp_path, status=1
        ).stderr
    assert "another study is at work" in printed
    assert f"take another {option}" in printed
    assert not [file for file in tmp_path.glob("**/*.*") if file.suffix != ".lock"]


def test_runs_made_with_another_budget_are_refused_before_anything_is_made(folder, tmp_path):
    runs = tmp_path / "runs.jsonl"
    runs.write_text((folder / "it/study_runs.jsonl").read_text())
    printed = run(
        SCRIPT.name, "--output=it", f"--runs={runs}", cwd=tmp_path, status=1
    ).stderr  # not quick: 1,600 steps
    assert "made with" in printed
    assert not (tmp_path / "it" / "clips").exists()


def test_where_no_run_is_missing_tables_and_figures_need_no_clips(folder, tmp_path):
    runs = tmp_path / "elsewhere" / "study_runs.jsonl"
    runs.parent.mkdir()
    shutil.copy(folder / "it/study_runs.jsonl", runs)
    count = len(runs.read_text().splitlines())
    printed = run(SCRIPT.name, *QUICK_STUDY, f"--runs={runs}", "--output=new", cwd=tmp_path).stdout
    assert f"holds {count} runs of this version, which count as they are" in printed
    assert "nothing is missing" in printed
    assert not [path for path in (tmp_path / "new").iterdir() if path.name != "study.lock"]
    page = "study_results.md"
    assert runs.with_name(page).read_bytes() == (folder / "it" / page).read_bytes()
    assert list(runs.with_name("images").glob("*.png"))


def test_a_drawn_clip_that_was_not_read_ends_the_study(folder, tmp_path, monkeypatch):
    runs = tmp_path / "runs.jsonl"  # with one run missing
    *lines, _ = (folder / "it/study_runs.jsonl").read_text().splitlines(keepends=True)
    runs.write_text("".join(lines))
    monkeypatch.setattr(FeatureStore, "failed", lambda _: {"cover/1.mp4": "cut off"})
    printed = run(SCRIPT.name, *QUICK_STUDY, f"--runs={runs}", cwd=folder, status=1).stderr
    assert "lacks 1 clips that could not be read, such as ('cover/1.mp4', 'cut off')" in printed


def test_every_class_has_an_opposite():
    classes = tuple(interaction_name(action, agent) for action in ACTIONS for agent in AGENTS)
    opposite = opposite_classes(classes)
    assert torch.equal(opposite[opposite], torch.arange(len(classes)))
    covering = classes.index("covering a cool thing with a warm thing")
    assert "uncovering" in classes[opposite[covering]]


def test_measures_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    found = measures(probabilities, torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0]))
    # Four bins of one clip: |1 - .9|, |0 - .6|, |1 - .7|, |0 - .8|
    assert found == pytest.approx({"top1": 50, "opposite": 50, "ece": 100 * 1.8 / 4})
