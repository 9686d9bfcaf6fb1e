"""Sections of a Markdown page that benchmarks write themselves: tables, markers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks.measure import MIB, Measured


class Illustrated(NamedTuple):
    """A section with a picture.

    Attributes:
        text: The section.
        file: Where the picture goes, from the folder of the page.
        figure: The picture.
        alt: What it shows, for those who cannot see it.
    """

    text: str
    file: str
    figure: Figure
    alt: str


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


def write_section(page: Path, name: str, section: str | Illustrated) -> None:
    """Put ``section`` between the markers of ``name``, in place of what was there.

    Raises:
        ValueError: The page has not exactly one pair of these markers.
    """
    if isinstance(section, Illustrated):
        section.figure.savefig(page.parent / section.file, dpi=110)
        section = f"{section.text}\n\n![{section.alt}]({section.file})"
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise ValueError(f"{page} must have one line {begin!r} and, below, one line {end!r}")
    page.write_text(f"{before}{begin}\n\n{section.strip()}\n\n{end}{after}", encoding="utf-8")
