import json

import pytest
from interaction_study.plan import Plan, choose_rates
from interaction_study.runs import Run, RunsFile, read_lines
from interaction_study.variants import VARIANTS

MADE_WITH = {"version": 1, "steps": 4}
RUN = Run("comparison", "gasm_cast", 0.001, 2)


def test_a_run_that_is_written_is_found_again(tmp_path):
    path = tmp_path / "docs" / "runs.jsonl"
    RunsFile(path, MADE_WITH, "abc").add(RUN, {"test": {"top1": 50.0}})
    (line,) = RunsFile(path, MADE_WITH, "abc").select("comparison")
    assert line == {**MADE_WITH, "features": "abc", **RUN._asdict(), "test": {"top1": 50.0}}
    assert RUN in RunsFile(path, MADE_WITH, "abc").found
    assert not RunsFile(path, MADE_WITH, "abc").select("tuning")


def test_a_line_that_was_cut_off_is_made_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    file = RunsFile(path, MADE_WITH, "abc")
    file.add(RUN, {})
    file.add(RUN._replace(seed=3), {})
    text = path.read_bytes()
    path.write_bytes(text[:-5])
    again = RunsFile(path, MADE_WITH, "abc")
    assert list(again.found) == [RUN]
    again.add(RUN._replace(seed=3), {})
    assert path.read_bytes() == text


def test_a_line_that_lacks_its_end_alone_is_a_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH, "abc").add(RUN, {})
    text = path.read_bytes()
    path.write_bytes(text[:-1])
    assert RUN in RunsFile(path, MADE_WITH, "abc").found
    assert path.read_bytes() == text


def test_reading_changes_nothing(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH, "abc").add(RUN, {})
    path.write_bytes(path.read_bytes() + b'{"version": 1, "fea')
    text = path.read_bytes()
    assert len(read_lines(path)) == 1
    assert path.read_bytes() == text


@pytest.mark.parametrize("text", ["no runs", '{"epochs": 3}', "{\n  3\n}"])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json, line 1 is no run of the study"):
        RunsFile(path, MADE_WITH, "abc")
    assert path.read_text() == text


def test_another_budget_is_refused_and_other_versions_left_alone(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH, "abc").add(RUN, {})
    with pytest.raises(ValueError, match="made with .* 4}, got .* 5}.*another file of runs"):
        RunsFile(path, {**MADE_WITH, "steps": 5}, "abc")
    later = RunsFile(path, {**MADE_WITH, "version": 2}, "abc")
    assert not later.found
    later.add(RUN, {})
    assert [line["version"] for line in read_lines(path)] == [1, 2]


def test_all_runs_of_a_stage_are_on_the_same_features(tmp_path):
    path = tmp_path / "runs.jsonl"
    stage = [RUN._replace(variant=name) for name in ("gasm_cast", "one_layer", "two_layers")]
    file = RunsFile(path, MADE_WITH, "abc")
    assert file.missing(stage) == stage
    file.add(stage[0], {})
    file.add(stage[1], {})
    assert file.missing(stage) == stage[2:]

    others = RunsFile(path, MADE_WITH, "def")
    assert others.missing(stage) == stage
    assert others.missing(stage[:2]) == []  # whole as it is
    others.add(stage[0], {"seconds": 1.0})
    again = RunsFile(path, MADE_WITH, "def")
    assert again.missing(stage) == stage[1:]
    assert len(read_lines(path)) == 3
    (first, _) = again.select("comparison")
    assert first["seconds"] == 1.0
    again.add(stage[2], {})  # the second is still that of the features before
    assert again.missing(stage) == [stage[1]]
    assert RunsFile(path, MADE_WITH, "abc").missing(stage) == [stage[0], stage[2]]


@pytest.mark.parametrize("line", ["{", "[]", '{"part": "tuning"}', json.dumps(RUN._asdict())])
def test_what_is_no_run_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH, "abc").add(RUN, {})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 2 is no run of the study"):
        RunsFile(path, MADE_WITH, "abc")


def test_the_rate_that_is_best_on_validation_is_chosen_and_of_equals_the_lowest():
    tuned = [
        {"variant": variant, "learning_rate": rate, "validation": {"top1": top1}}
        for variant, rate, top1 in (
            ("a", 0.001, 50.0),
            ("a", 0.002, 60.0),
            ("b", 0.002, 70.0),
            ("b", 0.001, 70.0),
        )
    ]
    assert choose_rates(tuned) == {"a": 0.002, "b": 0.001}


def test_where_the_best_rate_is_at_the_end_of_the_range_the_next_one_is_looked_at():
    plan = Plan(("gasm_cast", "late_fusion", "one_layer"), (0.001, 0.002, 0.004))
    chosen = {"gasm_cast": 0.002, "late_fusion": 0.004, "one_layer": 0.001}
    assert plan.beyond(chosen) == [
        Run("beyond", "late_fusion", 0.004, 0),
        Run("beyond", "late_fusion", 0.008, 0),
        Run("beyond", "one_layer", 0.001, 0),
        Run("beyond", "one_layer", 0.0005, 0),
    ]
    assert Plan(plan.variants, (0.001,)).beyond(dict.fromkeys(plan.variants, 0.001)) == []


def test_every_variant_gets_the_same_tuning_and_the_same_seeds():
    plan = Plan()
    rates = dict.fromkeys(plan.variants, 0.001)
    compared = [run for seed in plan.seeds for run in plan.of_seed(seed, rates)]
    for runs, each in ((plan.tuning(), 3), ([r for r in compared if r.part == "comparison"], 5)):
        of_variant = [[run[2:] for run in runs if run.variant == name] for name in plan.variants]
        assert all(of == of_variant[0] and len(of) == each for of in of_variant)
    assert not {run.seed for run in plan.tuning()} & set(plan.seeds)
    everything = [*plan.tuning(), *compared, *plan.fights(rates)]
    assert len(set(everything)) == len(everything)
    json.dumps(everything)


def test_what_is_asked_of_the_reference_alone_is_left_out_without_it():
    parts = [run.part for run in Plan().of_seed(3, dict.fromkeys(VARIANTS, 0.001))]
    assert parts.count("share") == 6
    assert parts.count("longer") == 3
    assert parts.count("probe") == parts.count("bf16") == 1
    few = Plan(variants=("late_fusion", "cross_attention"))
    parts = [run.part for run in few.of_seed(3, dict.fromkeys(few.variants, 0.001))]
    assert parts == ["comparison"] * 2 + ["share"] * 2 + ["longer"]
