import doctest
import math
from statistics import stdev

import pytest
from interaction_study import statistics
from interaction_study.statistics import Interval, mean_interval, paired_difference
from scipy import stats


def test_an_interval_is_that_of_scipy():
    values = [60.1, 62.3, 59.7, 61.0, 63.2]
    mean, half, count = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, stats.tmean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert count == 5


def test_runs_that_share_training_clips_are_known_less_well():
    # Nadeau and Bengio: 1 / n + test clips / training clips in the place of 1 / n.
    values = [70.0, 75.0, 72.0, 68.0]
    half = stats.t.ppf(0.975, 3) * stdev(values) * math.sqrt(1 / 4 + 20 / 60)
    assert mean_interval(values, 20 / 60).half == pytest.approx(half)


def test_one_value_has_no_interval_and_excludes_nothing():
    alone = mean_interval([3.0])
    assert (alone.mean, alone.count) == (3.0, 1)
    assert math.isnan(alone.half)
    assert not alone.excludes_zero


@pytest.mark.parametrize(
    ("mean", "clear"), [(-2.0, True), (2.0, True), (0.5, False), (-1.0, False)]
)
def test_excludes_zero_is_a_whole_interval_on_one_side(mean, clear):
    assert Interval(mean, 1.0, 5).excludes_zero is clear


def test_a_difference_is_paired_by_seed():
    # The seeds differ much, the pairs do not: scipy's paired test says the same.
    ours, theirs = {3: 70.0, 1: 50.0, 2: 61.0}, {1: 48.0, 2: 58.0, 3: 69.0}
    low, high = stats.ttest_rel([50.0, 61.0, 70.0], [48.0, 58.0, 69.0]).confidence_interval()
    mean, half, count = paired_difference(ours, theirs)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert count == 3


def test_seeds_that_one_of_them_lacks_are_left_out_and_counted():
    assert paired_difference({1: 5.0, 2: 7.0, 9: 99.0}, {2: 4.0, 1: 2.0, 8: 0.0}) == (3.0, 0.0, 2)


def test_without_a_pair_it_says_which_seeds_there_were():
    with pytest.raises(ValueError, match=r"same seed, got seeds \[1\] and \[2\]"):
        paired_difference({1: 5.0}, {2: 4.0})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one value, got none"),
        (lambda: mean_interval([1.0], -0.1), "test_per_train must be at least 0, got -0.1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_its_examples_are_right():
    assert doctest.testmod(statistics).failed == 0
