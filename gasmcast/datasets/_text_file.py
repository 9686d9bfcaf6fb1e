"""Annotation and class files as text."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any


def read_text(file: Path, what: str, errors: str = "strict") -> str:
    """The text of a file, without a byte order mark; ``what`` names the file in errors."""
    check_there(file, what, "a file")
    try:
        return file.read_text(encoding="utf-8-sig", errors=errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file: {error}") from error


def check_there(file: Path, what: str, expected: str) -> None:
    """Refuse what is no regular file, and say what it is."""
    if not file.exists():
        raise FileNotFoundError(f"{what} {file} is not there: expected {expected}")
    if not file.is_file():
        kind = "folder" if file.is_dir() else "pipe, socket or device"
        raise ValueError(f"{what} {file} is a {kind}: expected {expected}")


def read_lines(file: Path, what: str) -> list[tuple[int, str]]:
    """Number and stripped text of each line that is not blank."""
    # Not splitlines(), which breaks at signs that a file name may hold.
    lines = enumerate(read_text(file, what).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_json(file: Path, what: str) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(read_text(file, what))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def read_csv(
    file: Path, what: str, errors: str = "strict"
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns that a CSV file names in its first line; number and content of each row."""
    rows = csv.DictReader(StringIO(read_text(file, what, errors)), skipinitialspace=True)
    try:
        return list(rows.fieldnames or []), [(rows.line_num, row) for row in rows]
    except csv.Error as error:
        raise ValueError(f"{file}:{rows.line_num + 1}: not CSV: {error}") from error
