"""What a check has found so far, on disk: a list of the bad videos, and one of the others."""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gasmcast.video._contents import NOT_FOUND
from gasmcast.whole_file import whole_file

BAD, WARNING, GOOD = "bad", "warning", "good"


class CheckLists:
    """Two CSV files that grow, and each video a line in one of them.

    A line is handed to the system before the next video counts as checked. So a process that is
    killed at any moment loses no more than the line it was writing, and the next one cuts the rest
    of that off. One process at a time may write.

    Args:
        bad_list: The file ``path,reason``. The videos that are not bad go to a file beside it whose
            name ends in ``.checked.csv``, with a warning or an empty field.

    Raises:
        ValueError: If one of the files is there and is something else, or has a broken line.
    """

    def __init__(self, bad_list: Path) -> None:
        self._bad = _Table(bad_list, "reason")
        self._others = _Table(bad_list.with_suffix(".checked.csv"), "warning")
        self._found: dict[str, str] = {}
        for path, warning in self._others.rows():
            self._found[path] = WARNING if warning else GOOD
        for path, _ in self._bad.rows():
            self._found[path] = BAD

    def __enter__(self) -> "CheckLists":
        self._bad.open()
        self._others.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._bad.close()
        self._others.close()

    def found(self, path: str) -> str | None:
        """BAD, WARNING or GOOD; None for a video that is on no list."""
        return self._found.get(path)

    def forget_not_found(self, names: Iterable[str]) -> None:
        """Takes those videos off the list that are on it because they were not there."""
        rows = list(self._bad.rows())
        not_found = {path for path, reason in rows if reason.startswith(NOT_FOUND)}
        forgotten = not_found.intersection(names)
        if forgotten:
            self._bad.replace([row for row in rows if row[0] not in forgotten])
            for path in forgotten:
                del self._found[path]

    def add(self, path: str, is_bad: bool, remark: str) -> None:
        """Writes down what was found: the reason why a video is bad, or a warning or nothing."""
        table = self._bad if is_bad else self._others
        table.add(path, " ".join(remark.split()))
        self._found[path] = BAD if is_bad else WARNING if remark else GOOD


class _Table:
    """A CSV file of two columns, ``path`` and another, that is read once and then appended to."""

    def __init__(self, file: Path, remark: str) -> None:
        self._file = file
        self._header = f"path,{remark}"

    def rows(self) -> Iterator[tuple[str, str]]:
        if not self._file.exists():
            return
        self._cut_unfinished_line()
        with self._open("r") as lines:
            for number, row in enumerate(csv.reader(lines), start=1):
                if number == 1 or not row:
                    continue
                if len(row) != 2:
                    raise ValueError(
                        f"{self._file}:{number}: expected {self._header}, got {','.join(row)}"
                    )
                yield row[0], row[1]

    def _cut_unfinished_line(self) -> None:
        content = self._file.read_bytes()
        first, _, rest = content.partition(b"\n")
        header = self._header.encode()
        if first.rstrip(b"\r") != header and (rest or not header.startswith(content)):
            raise ValueError(
                f"{self._file} is no list of a check: expected the first line {self._header}, "
                f"got {first[:80].decode(errors='replace')}"
            )
        if not content.endswith(b"\n"):
            os.truncate(self._file, content.rfind(b"\n") + 1)

    def open(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self._open("a")
        if self._file.stat().st_size == 0:
            self.add(*self._header.split(","))

    def replace(self, rows: Iterable[tuple[str, str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self._header.split(","), *rows])
        with whole_file(self._file) as file:
            file.write(text.getvalue().encode(errors="surrogateescape"))

    def add(self, path: str, remark: str) -> None:
        csv.writer(self._lines, lineterminator="\n").writerow([path, remark])
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()

    def _open(self, mode: str):
        # Names of files need not be UTF-8.
        return open(self._file, mode, newline="", encoding="utf-8", errors="surrogateescape")
