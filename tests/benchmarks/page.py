"""Sections of a Markdown page that benchmarks write themselves: tables, markers."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import MIB, Measured


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are set to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def rounds(measured: Measured) -> str:
    """How often it was measured, and how well."""
    return f"{measured.rounds} rounds, {measured.undisturbed:.0%} of the calls undisturbed"


def timings(
    measured: Measured,
    reference: str,
    reference_column: str,
    more: dict[str, dict[str, object]] | None = None,
) -> str:
    """A table of all ways: time, ratio to one of them, peak memory, and ``more`` columns."""
    more = more or {}
    rows = [
        [
            name,
            measured.milliseconds(name),
            measured.ratio(name, reference) if name != reference else 1,
            f"{peak / MIB:.1f}",
            *(column[name] for column in more.values()),
        ]
        for name, peak in measured.peak_bytes.items()
    ]
    return table(("", "ms", reference_column, "peak MiB", *more), rows)


def write_section(page: Path, name: str, section: str) -> None:
    """Put ``section`` between the markers of ``name``, in place of what was there.

    Raises:
        ValueError: The page has not exactly one pair of these markers.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise ValueError(f"{page} must have one line {begin!r} and, below, one line {end!r}")
    page.write_text(f"{before}{begin}\n\n{section.strip()}\n\n{end}{after}", encoding="utf-8")
