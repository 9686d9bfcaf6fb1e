"""The runs of one version of the design, for tables and figures."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

from interaction_study.plan import CHOOSING
from interaction_study.runs import Run
from interaction_study.statistics import Interval, mean_interval, paired_difference
from interaction_study.variants import REFERENCE, VARIANTS, Variant

Line = dict[str, Any]


class Results:
    """Lines of the file of runs that belong together.

    Args:
        lines: Of one version of the design, at least one. Of two lines of the same run the later
            counts, also where another tuning had chosen another learning rate for it.
    """

    def __init__(self, lines: list[Line]):
        runs = {_told_apart(line): line for line in lines}
        self.lines = list(runs.values())
        self.version: int = lines[0]["version"]

    @classmethod
    def versions(cls, lines: list[Line]) -> list[Results]:
        """The runs of each version in a file's lines, the newest first."""
        numbers = sorted({line["version"] for line in lines}, reverse=True)
        return [cls([line for line in lines if line["version"] == number]) for number in numbers]

    def select(self, part: str, variant: str | None = None, **wanted: Any) -> list[Line]:
        """The lines of a part, of one variant or of all, with these values."""
        return [
            line
            for line in self.lines
            if line["part"] == part
            and variant in (None, line["variant"])
            and all(line[name] == value for name, value in wanted.items())
        ]

    def variants(self, part: str, splits: Iterable[str] = ()) -> list[str]:
        """The variants of a part in the order of the study; such as it no longer has come last.

        Args:
            part: Of the study.
            splits: Only variants that were measured on one of these; none: all.
        """
        there = {
            line["variant"]
            for line in self.select(part)
            if not splits or any(split in line for split in splits)
        }
        return [name for name in VARIANTS if name in there] + sorted(there - set(VARIANTS))

    def values(
        self, part: str, variant: str, split: str, measure: str = "top1", **wanted: Any
    ) -> dict[Hashable, float]:
        """A measure of each run, by seed and fold; runs that have not measured it are left out."""
        return {
            (line["seed"], line["fold"]): line[split][measure]
            for line in self.select(part, variant, **wanted)
            if measure in line.get(split, {})
        }

    def mean(
        self, part: str, variant: str, split: str, measure: str = "top1", **wanted: Any
    ) -> Interval | None:
        """Mean over the seeds with its interval; None where there is no run."""
        found = self.values(part, variant, split, measure, **wanted)
        return mean_interval(list(found.values())) if found else None

    def difference(
        self,
        part: str,
        variant: str,
        split: str,
        measure: str = "top1",
        to: str = REFERENCE,
        **wanted: Any,
    ) -> Interval | None:
        """Variant minus another, paired by seed; None for the same one, and without a pair."""
        if variant == to:
            return None
        return pair(
            self.values(part, variant, split, measure, **wanted),
            self.values(part, to, split, measure, **wanted),
        )

    def seeds(self, part: str) -> int:
        """How many runs the variant with the most has, of those that :meth:`values` tells apart."""
        counts = [
            len({(line["seed"], line["fold"]) for line in self.select(part, name)})
            for name in self.variants(part)
        ]
        return max(counts, default=0)


def pair(
    values: dict[Hashable, float], reference: dict[Hashable, float], test_per_train: float = 0.0
) -> Interval | None:
    """:func:`interaction_study.statistics.paired_difference`, or None without a pair."""
    if not values.keys() & reference.keys():
        return None
    return paired_difference(values, reference, test_per_train)


def finite(line: Line) -> bool:
    """Whether a run came to its end: no loss and no gradient norm that is not finite."""
    measured = (*line.get("loss", ()), *line.get("gradient_norm", ()))
    return all(map(math.isfinite, (*measured, line.get("largest_gradient_norm", 0.0))))


def _told_apart(line: Line) -> tuple[Any, ...]:
    run = Run(*(line[name] for name in Run._fields))
    return run if run.part in CHOOSING else run._replace(learning_rate=0.0)


def described(name: str) -> Variant:
    """The variant of a name; one that the study no longer has is called as in the file."""
    return VARIANTS.get(name) or Variant("earlier variants", name, "")
