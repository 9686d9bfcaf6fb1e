import math

import pytest
from interaction_study.figure import (
    FAR_BELOW,
    corruption,
    course,
    differences,
    shares,
    write_figures,
)
from interaction_study.results import Results

from examples.study_lines import compared, study


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture(scope="module")
def results():
    return Results(study())


def test_all_figures_are_written_and_the_same_each_time(tmp_path):
    first = write_figures([*study(1), *study(2)], tmp_path / "a")
    assert [path.name for path in first] == [
        "study_differences.png",
        "study_shares.png",
        "study_corruption.png",
        "study_course.png",
    ]
    again = write_figures([*study(1), *study(2)], tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    newest = write_figures(study(2), tmp_path / "c")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in newest]


def test_differences_stand_where_they_are(results):
    test, combinations = differences(results).axes
    points = {line.get_ydata()[0]: line for line in test.lines if line.get_marker() == "o"}
    names = [label.get_text() for label in test.get_yticklabels()]
    assert names[0] == "without graphs"
    assert points[0.0].get_xdata() == [-3.0]
    assert points[0.0].get_mfc() == points[0.0].get_color()  # excludes zero: filled
    assert points[test.get_yticks()[-1]].get_mfc() == "white"  # one seed: never
    assert texts(combinations) == ["graphs", "fusion", "layers"]


def test_what_is_far_below_stands_at_the_edge_with_its_number():
    lines = [*study(), *(compared("semantic_alone", seed, 10.0 + seed) for seed in (1, 2))]
    test, _ = differences(Results(lines)).axes
    assert texts(test) == ["−50.0 ± 0.0"]
    assert test.get_xlim()[0] > FAR_BELOW - 3


def test_shares_are_those_of_the_runs_and_end_with_all_clips(results):
    test, combinations = shares(results).axes
    ours = test.lines[0]
    assert ours.get_xdata().tolist() == [10, 100]
    assert ours.get_ydata().tolist() == [31.5, 61.5]
    assert combinations.lines[0].get_ydata().tolist() == [21.5, 51.5]
    assert [label.get_text() for label in test.get_xticklabels()] == ["10 %", "100 %"]


def test_the_course_is_in_percent_of_the_steps(results):
    loss, norm = course(results).axes
    assert loss.lines[0].get_xdata().tolist() == [25.0, 75.0]  # two stretches
    assert loss.lines[0].get_ydata().tolist() == [3.0, 2.0]
    assert norm.lines[0].get_ydata().tolist() == [1.0, 1.5]
    assert [line.get_label() for line in loss.lines] == [
        "GASM-CAST, float32",
        "GASM-CAST, bfloat16",
        "simple cross-attention",
    ]


def test_a_run_that_diverged_is_not_in_the_course():
    lost = compared("gasm_cast", 3, 5.0) | {"loss": [9.0], "largest_gradient_norm": math.nan}
    loss, _ = course(Results([*study(), lost])).axes
    assert loss.lines[0].get_ydata().tolist() == [3.0, 2.0]


def test_parts_without_a_line_have_no_figure(tmp_path):
    only = [compared("one_layer", seed, 50.0) for seed in (1, 2)]
    assert write_figures(only, tmp_path) == []


def test_changed_clips_stand_below_those_that_are_as_they_are(results):
    panels = corruption(results).axes
    top1, changed, opposite = (
        {container.get_label(): container[0] for container in ax.containers} for ax in panels
    )
    assert [label.get_text() for label in panels[0].get_yticklabels()][:2] == [
        "as they are",
        "noise",
    ]
    assert top1["without graphs"].get_xdata().tolist() == [58.5, *[38.5] * 5]
    assert changed["GASM-CAST"].get_xdata().tolist() == [30.0] * 5  # nothing for clips as they are
    assert opposite["GASM-CAST"].get_xdata().tolist() == [10.0] * 6
