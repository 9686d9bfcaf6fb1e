"""Tables of Markdown, and how numbers stand in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from interaction_study.statistics import Interval

NOTHING = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[int] = (0,)) -> str:
    """A table; columns are set to the right, but those of the places in ``texts``."""
    rule = ["---" if place in texts else "--:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def mean(interval: Interval | None, most: int, digits: int = 1) -> str:
    """Mean ± half the interval; with the number of runs where there are fewer than ``most``.

    >>> mean(Interval(61.25, 1.31, 5), 5), mean(Interval(61.25, 4.0, 3), 5)
    ('61.2 ± 1.3', '61.2 ± 4.0 (n = 3)')
    """
    return NOTHING if interval is None else _known(f"{interval.mean:.{digits}f}", interval, most)


def difference(interval: Interval | None, most: int, digits: int = 1) -> str:
    """As :func:`mean`, with its sign; bold where the interval excludes zero.

    >>> difference(Interval(-3.0, 1.0, 5), 5), difference(Interval(0.5, 1.0, 5), 5)
    ('**−3.0 ± 1.0**', '+0.5 ± 1.0')
    """
    if interval is None:
        return NOTHING
    rounded = round(interval.mean, digits)
    text = f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"
    text = _known(text, interval, most)
    return f"**{text}**" if interval.excludes_zero else text


def _known(text: str, interval: Interval, most: int) -> str:
    digits = len(text.partition(".")[2])
    if not math.isnan(interval.half):
        text += f" ± {interval.half:.{digits}f}"
    return text if interval.count == most > 1 else f"{text} (n = {interval.count})"
