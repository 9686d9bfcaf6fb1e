"""The tables that a training run or an evaluation leaves in its folder."""

from __future__ import annotations

import csv
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

CONFUSION_MATRIX = "confusion_matrix.csv"
PER_CLASS = "per_class.csv"


class Confusion(NamedTuple):
    """Which class was taken for which.

    Attributes:
        classes: The K class names.
        counts: int64 [K, K], videos of class (row) that were named class (column).
    """

    classes: tuple[str, ...]
    counts: Tensor


class ClassCount(NamedTuple):
    """A class, its videos, and how many of them were named right."""

    name: str
    videos: int
    right: int


def run_folder(run: str | PathLike) -> Path:
    """The folder of a run, which has to be there.

    Raises:
        OSError: There is none.
    """
    folder = Path(run)
    expected = "expected the folder of a training run or an evaluation"
    if not folder.exists():
        raise FileNotFoundError(f"{folder} is not there: {expected}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder: {expected}")
    return folder


def read_confusion(run: str | PathLike) -> Confusion:
    """The confusion matrix of a run.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is damaged.
    """
    file, rows = _result(run, CONFUSION_MATRIX)
    classes = tuple(rows[0][1:])
    if not classes or [row[:1] for row in rows[1:]] != [[name] for name in classes]:
        raise ValueError(f"{file} is damaged: expected the same classes by row and by column")
    counts = [_counts(file, row[1:], len(classes)) for row in rows[1:]]
    return Confusion(classes, torch.tensor(counts))


def read_class_counts(run: str | PathLike) -> list[ClassCount]:
    """Videos of each class and how many of them were named right, in the order of the classes.

    Raises:
        OSError: They are not there, or cannot be read.
        ValueError: They are damaged.
    """
    file, rows = _result(run, PER_CLASS)
    if rows[0][:3] != ["class", "videos", "right"] or len(rows) == 1:
        raise ValueError(f"{file} is damaged: expected the columns class, videos and right")
    results = [ClassCount(row[0], *_counts(file, row[1:3], 2)) for row in rows[1:]]
    for result in results:
        if result.right > result.videos:
            raise ValueError(
                f"{file} is damaged: {result.right} of {result.videos} videos of "
                f"{result.name!r} are right"
            )
    return results


def read_rows(file: Path) -> list[list[str]]:
    """The rows of a CSV file that are not empty.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no table.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
        return [row for row in csv.reader(StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is damaged: expected a CSV table ({error})") from error


def _result(run: str | PathLike, name: str) -> tuple[Path, list[list[str]]]:
    file = run_folder(run) / name
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: expected what a training run writes at its end, or an evaluation"
        )
    rows = read_rows(file)
    if not rows:
        raise ValueError(f"{file} is empty: expected a row for each class")
    return file, rows


def _counts(file: Path, cells: list[str], expected: int) -> list[int]:
    # Written as plain digits; int() would take "1_0" and " 1" too, and digits without an end.
    if len(cells) != expected or not all(
        c.isascii() and c.isdigit() and len(c) < 16 for c in cells
    ):
        shown = ", ".join(cells)[:80]
        raise ValueError(f"{file} is damaged: expected {expected} numbers of videos, got [{shown}]")
    return [int(cell) for cell in cells]
