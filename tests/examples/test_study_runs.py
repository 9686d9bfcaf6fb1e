import json

import pytest
from interaction_study.plan import Plan, choose_rates
from interaction_study.runs import Run, RunsFile, read_lines

MADE_WITH = {"version": 1, "features": "abc", "steps": 4}
RUN = Run("comparison", "gasm_cast", 0.001, 2)


def test_a_run_that_is_written_is_found_again(tmp_path):
    path = tmp_path / "docs" / "runs.jsonl"
    RunsFile(path, MADE_WITH).add(RUN, {"test": {"top1": 50.0}})
    (line,) = RunsFile(path, MADE_WITH).select("comparison")
    assert line == {**MADE_WITH, **RUN._asdict(), "test": {"top1": 50.0}}
    assert RUN in RunsFile(path, MADE_WITH).found
    assert not RunsFile(path, MADE_WITH).select("tuning")


def test_a_line_that_was_cut_off_is_made_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    file = RunsFile(path, MADE_WITH)
    file.add(RUN, {})
    file.add(RUN._replace(seed=3), {})
    text = path.read_bytes()
    path.write_bytes(text[:-5])
    again = RunsFile(path, MADE_WITH)
    assert list(again.found) == [RUN]
    again.add(RUN._replace(seed=3), {})
    assert path.read_bytes() == text


def test_a_line_that_lacks_its_end_alone_is_a_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH).add(RUN, {})
    text = path.read_bytes()
    path.write_bytes(text[:-1])
    assert RUN in RunsFile(path, MADE_WITH).found
    assert path.read_bytes() == text


def test_reading_changes_nothing(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH).add(RUN, {})
    path.write_bytes(path.read_bytes() + b'{"version": 1, "fea')
    text = path.read_bytes()
    assert len(read_lines(path)) == 1
    assert path.read_bytes() == text


@pytest.mark.parametrize("text", ["no runs", '{"epochs": 3}', "{\n  3\n}"])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json, line 1 is no run of the study"):
        RunsFile(path, MADE_WITH)
    assert path.read_text() == text


def test_other_features_are_refused_and_other_versions_left_alone(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH).add(RUN, {})
    with pytest.raises(ValueError, match="made with .*'abc'.*, got .*'def'.*another file of runs"):
        RunsFile(path, {**MADE_WITH, "features": "def"})
    later = RunsFile(path, {**MADE_WITH, "version": 2, "features": "def"})
    assert not later.found
    later.add(RUN, {})
    assert [line["version"] for line in read_lines(path)] == [1, 2]


@pytest.mark.parametrize("line", ["{", "[]", '{"part": "tuning"}', json.dumps(RUN._asdict())])
def test_what_is_no_run_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "runs.jsonl"
    RunsFile(path, MADE_WITH).add(RUN, {})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 2 is no run of the study"):
        RunsFile(path, MADE_WITH)


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


def test_every_variant_gets_the_same_tuning_and_the_same_seeds():
    plan = Plan()
    rates = dict.fromkeys(plan.variants, 0.001)
    for runs, each in ((plan.tuning(), 4), (plan.comparison(rates), 5)):
        of_variant = [[run[2:] for run in runs if run.variant == name] for name in plan.variants]
        assert all(of == of_variant[0] and len(of) == each for of in of_variant)
    assert not {run.seed for run in plan.tuning()} & set(plan.seeds)
    everything = [*plan.tuning(), *plan.comparison(rates), *plan.further(rates)]
    assert len(set(everything)) == len(everything)
    json.dumps(everything)
