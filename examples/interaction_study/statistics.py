"""Means over seeds with 95 % intervals, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t as student_t

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and how well it is known.

    Attributes:
        mean: In the unit of the values.
        half: Half the width of the 95 % interval; NaN where one value says nothing of the spread.
        count: How many values, or pairs, it is of.
    """

    mean: float
    half: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return abs(self.mean) > self.half


def mean_interval(values: Sequence[float], test_per_train: float = 0.0) -> Interval:
    r"""Mean of n values with its 95 % interval by Student's t.

    .. math:: \bar{x} \pm t_{0.975,\,n-1} \sqrt{\left(\frac{1}{n} + r\right) s^2}

    with s the standard deviation of the values and r = ``test_per_train``. For independent runs
    r is 0. Those of a repeated cross-validation share training clips, so they differ too little
    from each other; r is then the number of test clips for each training clip.

    Args:
        values: Of the runs, at least one.
        test_per_train: Test clips for each training clip in cross-validation; 0: the runs are
            independent.

    Raises:
        ValueError: No value; ``test_per_train`` below 0.

    Source: Nadeau, Bengio, `Inference for the Generalization Error
    <https://doi.org/10.1023/A:1024068626366>`_ (Machine Learning 52, 2003), for r.

    >>> mean, half, count = mean_interval([60.0, 62.0, 64.0])
    >>> round(mean, 2), round(half, 2), count
    (62.0, 4.97, 3)
    """
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    if not test_per_train >= 0:
        raise ValueError(f"test_per_train must be at least 0, got {test_per_train}")
    count = len(values)
    if count == 1:
        return Interval(values[0], math.nan, 1)
    reach = student_t.ppf((1 + CONFIDENCE) / 2, count - 1).item() * stdev(values)
    return Interval(fmean(values), reach * math.sqrt(1 / count + test_per_train), count)


def paired_difference(
    values: Mapping[Hashable, float],
    reference: Mapping[Hashable, float],
    test_per_train: float = 0.0,
) -> Interval:
    """Mean of value minus reference over the runs that both have, with its 95 % interval.

    Two variants with one seed see the same clips in the same order. What they have in common so
    falls out of the difference. Runs that only one of them has are left out: ``count`` of the
    result says how many pairs there were.

    Args:
        values: By what tells the runs apart: the seed, or repetition and fold.
        reference: Likewise.
        test_per_train: As for :func:`mean_interval`.

    Raises:
        ValueError: No run is in both.

    >>> paired_difference({1: 60.0, 2: 62.0, 3: 1.0}, {1: 63.0, 2: 65.0, 4: 2.0})
    Interval(mean=-3.0, half=0.0, count=2)
    """
    both = [key for key in values if key in reference]
    if not both:
        raise ValueError(
            "a paired difference needs runs with the same seed, got seeds "
            f"{list(values)} and {list(reference)}"
        )
    return mean_interval([values[key] - reference[key] for key in both], test_per_train)
