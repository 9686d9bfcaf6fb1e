import doctest
import math

import pytest
from interaction_study import markdown
from interaction_study.report import write_report

from examples.study_lines import compared, found, line, study


@pytest.fixture
def written(tmp_path):
    """What a report of these lines says."""

    def write(lines):
        page = tmp_path / "new" / "study_results.md"
        write_report(lines, page)
        return page.read_text(encoding="utf-8")

    return write


def row(text, *begin):
    """The cells of the first row that begins so, after that beginning."""
    for written in text.splitlines():
        cells = [cell.strip() for cell in written.strip("|").split("|")]
        if written.startswith("|") and cells[: len(begin)] == list(begin):
            return cells[len(begin) :]
    raise LookupError(f"no row begins with {begin}")


def section(text, title):
    return text.split(f"### {title}\n")[1].split("\n### ")[0]


def test_the_main_table_says_what_came_out_and_what_it_costs(written):
    table = section(written(study()), "Variants")
    # Two seeds one point apart: 12.706 * 0.7071 / sqrt(2).
    known = ["66.5 ± 6.4", "61.5 ± 6.4", "51.5 ± 6.4"]
    cost = ["1,000", "2.5", "0.50", "the best"]
    assert row(table, "GASM-CAST", "0.001") == [*known, "–", "–", *cost]
    # Three points less with every seed, so this is known exactly.
    assert row(table, "without graphs")[4:6] == ["**−3.0 ± 0.0**"] * 2
    assert "2 seeds" in table


def test_what_has_fewer_seeds_says_so_and_what_has_no_cost_shows_none(written):
    cells = row(section(written(study()), "Variants"), "1 fusion layer")
    assert cells[2] == "60.0 (n = 1)"
    assert cells[4] == "−1.0 (n = 1)"  # with one pair no interval excludes zero
    assert cells[6:9] == ["1,234", "–", "–"]


def test_groups_follow_each_other_in_the_order_of_the_study(written):
    table = section(written(study()[::-1]), "Variants")
    names = ("*graphs*", "GASM-CAST", "without graphs", "*fusion*", "*layers*", "1 fusion layer")
    places = [table.index(f"| {name} |") for name in names]
    assert places == sorted(places)


def test_shares_end_with_all_training_clips(written):
    table = section(written(study()), "Share of the training clips, and more steps")
    assert row(table, "test", "10 %")[:2] == ["31.5 ± 6.4"] * 2
    assert row(table, "test", "100 %")[3:] == ["**−3.0 ± 0.0**", "**−5.0 ± 0.0**"]
    assert row(table, "combinations", "100 %, 2 x steps")[:4] == ["66.5 ± 6.4"] * 3 + ["0.0 ± 0.0"]


def test_corrupted_clips_are_compared_with_the_same_clips_as_they_are(written):
    table = section(written(study()), "Corrupted and reordered clips")
    expected = ["38.5 ± 6.4", "**−20.0 ± 0.0**", "**−3.0 ± 0.0**", "30.0 ± 0.0", "10.0 ± 0.0"]
    assert row(table, "backwards", "without graphs") == expected
    assert "1 fusion layer" not in table


def test_calibration_and_opposites_are_of_all_variants(written):
    table = section(written(study()), "Calibration and opposites")
    expected = ["5.0 ± 0.0", "5.0 ± 0.0", "10.0 ± 0.0", "10.0 ± 0.0", "0.0 ± 0.0"]
    assert row(table, "without graphs") == expected
    assert row(table, "1 fusion layer")[0] == "5.0 (n = 1)"


def test_runs_that_are_not_finite_are_counted_and_spoil_no_number(written):
    lost = {"loss": [3.0, math.nan], "largest_gradient_norm": math.nan}
    table = section(
        written([*study(), compared("one_layer", 2, 1.0) | lost]), "Stability of training"
    )
    assert row(table, "1 fusion layer")[:3] == ["1.8", "2.000 (n = 1)", "1 of 2"]
    assert row(table, "GASM-CAST, bfloat16")[2] == "0 of 2"
    assert "Of all 28 runs of this version whose loss was recorded" in table  # not that of probes
    assert "1 had a loss or gradient that is not finite" in table


def test_bfloat16_is_paired_with_float32(written):
    assert "float32, GASM-CAST: −0.5 ± 6.4 points" in section(
        written(study()), "Stability of training"
    )


def test_fights_have_intervals_for_cross_validation(written):
    text = section(written(study()), "Real clips of fights")
    # Values 72, 74, 76, three folds: 4.303 * 2 * sqrt(1 / 3 + 20 / 60).
    assert row(text, "GASM-CAST") == ["74.0 ± 7.0", "–"]
    assert row(text, "simple cross-attention: no graphs, no bottleneck")[1] == "**−2.0 ± 0.0**"
    assert "80 clips, cross-validated 1 times in 3 folds" in text


def test_probes_that_come_in_pairs_are_subtracted(written):
    table = section(written(study()), "Probes")
    assert row(table, "question") == ["before", "after", "accuracy", "after − before"]
    assert row(table, "object") == ["51.5 ± 6.4", "61.5 ± 6.4", "–", "**+10.0 ± 0.0**"]
    assert row(table, "order") == ["–", "–", "40.0 ± 0.0", "–"]


def test_it_says_how_often_the_best_rate_was_at_the_end_of_what_was_tried(written):
    assert "on validation clips. MFLOPs" in written(study())  # no tuning: nothing is said
    tuned = [
        line("tuning", "gasm_cast", 0, validation=found(50.0)) | {"learning_rate": rate}
        for rate in (0.001, 0.002, 0.0005)
    ]
    text = section(written([*study(), *tuned]), "Variants")
    assert "of 0.0005, 0.001, 0.002 (the lowest for 0 of 4, the highest for 0)" in text
    text = section(written([*study(), *tuned[:2]]), "Variants")
    assert "of 0.001, 0.002 (the lowest for 4 of 4, the highest for 0)" in text


def test_a_part_is_the_difference_between_the_variants_with_and_without_it(written):
    table = section(written(study()), "What each part adds")
    # 63.5 and 61.5 points: paired by seed, so known exactly.
    assert row(table, "bottleneck, without graphs") == ["**+2.0 ± 0.0**"] * 2
    assert row(table, "graphs, with the bottleneck") == ["**+3.0 ± 0.0**"] * 2
    assert "full width" not in table  # this variant was not run


def test_a_rate_beyond_is_compared_on_the_same_features(written):
    tuned = [
        line("tuning", "late_fusion", 0, validation=found(top1)) | {"learning_rate": rate}
        for rate, top1 in ((0.001, 40.0), (0.002, 50.0))
    ]
    best, further = (
        line("beyond", "late_fusion", 0, validation=found(top1))
        | {"learning_rate": rate, "features": "others"}
        for rate, top1 in ((0.002, 47.0), (0.004, 48.5))
    )
    heading = "Learning rates beyond those tried"
    text = section(written([*study(), *tuned, further, best]), heading)
    expected = ["0.002", "47.0", "0.004", "48.5", "+1.5"]
    assert row(text, "late fusion without graphs") == expected
    assert "choose nothing" in text
    assert heading not in written([*study(), *tuned, further])  # not with the tuning's features


def test_a_run_made_again_with_another_rate_counts_once(written):
    again = compared("gasm_cast", 1, 71.0) | {"learning_rate": 0.002}
    text = written([*study(), again])
    assert row(section(text, "Stability of training"), "GASM-CAST")[2] == "0 of 2"
    assert "All 7 runs" in text


def test_a_run_that_is_there_twice_counts_once_and_the_later_one(written):
    once, later = study(), compared("gasm_cast", 1, 71.0)
    text = written([*once, *once, later])
    assert row(section(text, "Variants"), "GASM-CAST", "0.001")[1].startswith("66.5 ± ")
    assert "All 7 runs" in text
    assert "(n = 2)" not in text


def test_of_clips_backwards_it_says_which_are_not_of_the_opposite_class(written):
    assert "2 of the 22 actions" in section(written(study()), "Corrupted and reordered clips")


def test_every_version_is_there_the_newest_first(written):
    text = written([*study(version=1), *study(version=2)])
    assert text.index("## Version 2") < text.index("## Version 1")
    assert "All 7 runs of this version took 7 minutes in sum." in text


def test_the_same_lines_make_the_same_page(written):
    assert written(study()) == written(study())


def test_parts_without_a_line_are_left_out(written):
    text = written([compared("without_graphs", 1, 50.0)])
    assert row(text, "without graphs")[2] == "50.0 (n = 1)"
    for title in ("Share", "Real clips", "Probes"):
        assert f"### {title}" not in text
    assert "### " not in written([line("tuning", "gasm_cast", validation=found(50.0))])


def test_a_variant_that_the_study_no_longer_has_is_called_by_its_name(written):
    text = written([*study(), compared("gone", 1, 50.0)])
    assert "*earlier variants*" in text
    assert row(text, "gone")[2] == "50.0 (n = 1)"


def test_its_examples_are_right():
    assert doctest.testmod(markdown).failed == 0
