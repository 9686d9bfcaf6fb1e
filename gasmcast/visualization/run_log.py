"""The log of a training run, its starts joined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from gasmcast.visualization.run_files import read_rows, run_folder


class LogRow(NamedTuple):
    """What was logged at once.

    Attributes:
        step: Steps of the optimiser before it, from 0.
        epoch: From 0; None where the log does not say it, as for learning rates.
        values: By the names of the log.
    """

    step: int
    epoch: int | None
    values: dict[str, float]


class Best(NamedTuple):
    """The epoch that was saved: the first of the highest validation accuracy."""

    step: int
    epoch: int
    top1: float


@dataclass(frozen=True)
class RunLog:
    """What a run logged along the way.

    Attributes:
        rows: In the order of the steps.
    """

    rows: tuple[LogRow, ...]

    def series(self, column: str) -> tuple[list[int], list[float]]:
        """Steps done and values of a column; empty where there are none."""
        found = {row.step + 1: row.values[column] for row in self.rows if column in row.values}
        return list(found), list(found.values())

    @property
    def steps_per_epoch(self) -> float | None:
        """None while the first epoch is not over."""
        # The accuracy of training is logged at the end of an epoch.
        ends = [row for row in self.rows if row.epoch is not None and "train_top1" in row.values]
        return (ends[-1].step + 1) / (ends[-1].epoch + 1) if ends else None

    def epoch_means(self, column: str) -> tuple[list[float], list[float]]:
        """Means of the steps at which a column was logged within each epoch, and of its values."""
        within: dict[int, list[tuple[int, float]]] = {}
        for row in self.rows:
            if column in row.values and row.epoch is not None:
                within.setdefault(row.epoch, []).append((row.step + 1, row.values[column]))
        steps, values = [], []
        for found in within.values():
            steps.append(sum(step for step, _ in found) / len(found))
            values.append(sum(value for _, value in found) / len(found))
        return steps, values

    @property
    def best(self) -> Best | None:
        """None without validation."""
        last: dict[int, Best] = {}  # where an epoch is validated several times, the last one counts
        for row in self.rows:
            if row.epoch is not None and "validation_top1" in row.values:
                last[row.epoch] = Best(row.step + 1, row.epoch, row.values["validation_top1"])
        known = [each for each in last.values() if each.top1 == each.top1]  # not nan
        return max(known, key=lambda each: each.top1, default=None)  # the first of equals


def read_log(run: str | PathLike) -> RunLog:
    """The log of a run; of one that was resumed, of all its starts.

    A start goes on from the last checkpoint, so it takes some steps again that the one before had
    logged: from the first step that a start logged, its own values count.

    Raises:
        OSError: There is none, or it cannot be read.
        ValueError: It is damaged, or empty.
    """
    folder = run_folder(run)
    starts = sorted(_numbered(folder.glob("log/version_*/metrics.csv")))
    if not starts:
        raise FileNotFoundError(
            f"{folder} has no log/version_N/metrics.csv: expected the folder of a training run"
        )
    rows: list[LogRow] = []
    for _, file in starts:
        started = _read_start(file)
        first = min((row.step for row in started), default=None)
        if first is not None:
            rows = [row for row in rows if row.step < first] + started
    if not rows:
        raise ValueError(f"{starts[-1][1]} is empty: expected what a run logs along the way")
    return RunLog(tuple(rows))


def _numbered(files: Iterable[Path]) -> Iterable[tuple[int, Path]]:
    for file in files:
        number = file.parent.name.removeprefix("version_")
        if number.isascii() and number.isdigit() and file.is_file():
            yield int(number), file


def _read_start(file: Path) -> list[LogRow]:
    """The rows of one start; none where it was killed before it had logged anything."""
    rows = read_rows(file)
    if rows and not file.read_bytes().endswith(b"\n"):
        rows.pop()  # killed while it wrote this one
    if not rows:
        return []
    header, *rows = rows
    if not {"step", "epoch"} <= set(header):
        raise ValueError(f"{file} is damaged: expected columns step and epoch, got {header}")
    return [_parse(file, header, row) for row in rows]


def _parse(file: Path, header: list[str], row: list[str]) -> LogRow:
    try:
        cells = dict(zip(header, row, strict=True))
        step, epoch = int(cells.pop("step")), cells.pop("epoch")
        values = {name: float(cell) for name, cell in cells.items() if cell}
        return LogRow(step, int(epoch) if epoch else None, values)
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged: expected {len(header)} numbers or empty cells in a row, got "
            f"[{','.join(row)[:80]}]"
        ) from error
