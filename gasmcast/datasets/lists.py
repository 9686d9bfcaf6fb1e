"""Lists of paths and labels, in the dialects that go round."""

import csv
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from gasmcast.datasets._text_file import read_lines
from gasmcast.datasets._video_suffixes import VIDEO_SUFFIXES
from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few


def _dialects() -> list[re.Pattern[str]]:
    """What a line can be, path first and label last; a list is the first that fits every line."""
    suffixes = "|".join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES))
    video = rf'(?:"(?P<quoted>[^"]+\.(?:{suffixes}))"|(?P<path>[^"].*\.(?:{suffixes})))'
    label = r'(?:"(?P<quoted_label>[^"]+)"|(?P<label>[^\s"].*))'
    shapes = []
    # A separator takes all the space around it, and none of it is given back: from every place of
    # a long run of spaces anew, a line would take the square of its length.
    tab, space = r"(?<!\s)(?=[^\S\t]*\t)\s++", r"(?<!\s)\s++"
    for between in (tab, r"(?<!\s)\s*+;\s*+", r"(?<!\s)\s*+,\s*+", space):
        # Two numbers in a row are several labels, or the columns of another kind of list.
        end = rf"{between}(?!\d+{between}){label}"
        number = rf"{between}[1-9]\d*(?={between})"
        # Atomic: of several numbers, the first must be the one before the label.
        frames = rf'(?>(?:"(?P<quoted>[^"]+)"|(?P<path>[^"].*?)){number})'
        shapes.append((video + end, video + number + end, frames + end))
    # A video file is certain by its suffix, so that comes before the folder of frames.
    patterns = [pattern for kind in zip(*shapes, strict=True) for pattern in kind]
    patterns.append(rf"(?P<quoted>)(?P<path>\d+)\s*+;\s*+{label}")
    return [re.compile(pattern, re.IGNORECASE) for pattern in patterns]


_DIALECTS = _dialects()

# A date or a number of bytes in the place of the label would give so many classes that making
# their names takes all the memory.
_MOST_CLASSES = 1_000_000


def read_annotation_list(
    file: str | Path,
    *,
    root: str | Path | None = None,
    classes: Classes | None = None,
) -> LabeledVideos:
    """Videos of a list: a table with the columns ``path`` and ``label``, or lines ``path label``.

    A table says so by a first line that names both columns; other columns are passed over. Without
    one, all lines of a list have one of these shapes, with a tab, semicolon, comma or space between
    the columns:

    - ``path label``: the path ends in a video's suffix;
    - ``path total_frames label``: a video, or a folder of frames. The number is not used;
    - ``number;label``: the folder of frames of that number (Something-Something V1, Jester).

    A path or label that begins with ``"`` ends with the next one. Unquoted, the path ends with the
    last video's suffix before a separator, and the label is the rest of the line. Labels are class
    names, or class indices from 0 where all of them are integers.

    A video's id is its path as the list gives it, relative to ``root`` where it lies there. No file
    is looked for.

    Args:
        file: The list; blank lines and lines that begin with ``#`` are passed over.
        root: What relative paths are relative to; the list's folder by default.
        classes: The classes in order, or a file of them (:func:`read_classes`). By default the
            sorted names of the list; for integer labels ``"0"`` to the largest.

    Raises:
        FileNotFoundError: The list is not there.
        ValueError: A line that cannot be read, a label that is not among the classes, an empty
            list; the message gives file and line. Or a video that is listed twice.
    """
    file = Path(file)
    rows = _read_rows(file)
    if not rows:
        raise ValueError(f"{file} lists no video: expected lines 'path label' or CSV 'path,label'")
    root = file.parent if root is None else Path(root)
    indices, names = _indices(file, rows, classes)
    records = [
        VideoRecord(root / path, index, _id(Path(path), root))
        for (_, path, _), index in zip(rows, indices, strict=True)
    ]
    return LabeledVideos(tuple(records), names)


def is_annotation_list(line: str) -> bool:
    """Whether a list can begin with this line."""
    return _header(line) is not None or any(shape.fullmatch(line) for shape in _DIALECTS)


_Row = tuple[int, str, str]  # number of the line, path, label


def _read_rows(file: Path) -> list[_Row]:
    lines = [
        (number, line)
        for number, line in read_lines(file, "annotation list")
        if not line.startswith("#")
    ]
    header = _header(lines[0][1]) if lines else None
    return _read_lines(file, lines) if header is None else _read_table(file, lines, *header)


def _header(line: str) -> tuple[list[str], str] | None:
    """The columns and what is between them, where the line names them."""
    for between in ("\t", ";", ",", " "):
        columns = [cell.strip().strip('"').lower() for cell in line.split(between)]
        if "path" in columns and "label" in columns:
            return columns, between
    return None


def _read_table(
    file: Path, lines: list[tuple[int, str]], columns: list[str], between: str
) -> list[_Row]:
    path_at, label_at = columns.index("path"), columns.index("label")
    rows = []
    for number, line in lines[1:]:
        # One line at a time, so that a quote without its end stays in its line.
        cells = next(csv.reader([line], delimiter=between, skipinitialspace=True))
        row = [cells[at].strip() for at in (path_at, label_at) if at < len(cells)]
        if len(row) < 2 or not all(row):
            empty = f"the {('path', 'label')[row.index('')]} is empty: " if "" in row else ""
            raise ValueError(
                f"{file}:{number}: {empty}expected {between.join(columns)}, got {line!r}"
            )
        rows.append((number, *row))
    return rows


def _read_lines(file: Path, lines: list[tuple[int, str]]) -> list[_Row]:
    best: list[_Row] = []
    for shape in _DIALECTS:
        rows = [
            (
                number,
                (match["quoted"] or match["path"]).strip(),
                (match["quoted_label"] or match["label"]).strip(),
            )
            for number, match in takewhile(
                lambda found: found[1], ((n, shape.fullmatch(line)) for n, line in lines)
            )
        ]
        if len(rows) == len(lines):
            return rows
        best = max(best, rows, key=len)
    number, line = lines[len(best)]
    like = f" like line {best[0][0]}" if best else ""
    raise ValueError(
        f"{file}:{number}: expected 'path label' with a video file or 'path total_frames label'"
        f"{like}, or a first line that names the columns path and label, got {line[:200]!r}"
    )


def _indices(
    file: Path, rows: list[_Row], classes: Classes | None
) -> tuple[list[int], Sequence[str]]:
    """The index of each row's label, and the class names."""
    labels = {label for *_, label in rows}
    numbered = all(re.fullmatch(r"-?[0-9]+", label) for label in labels)
    if classes is not None:
        names = class_names(classes)
    elif numbered:
        names = tuple(map(str, range(_num_classes(file, rows))))
    else:
        names = tuple(sorted(labels))
    index = {name: label for label, name in enumerate(names)}
    if numbered:
        index |= {
            label: int(label)
            for label in labels
            if label not in index and 0 <= int(label) < len(names)
        }
    for number, _, label in rows:
        if label not in index:
            raise ValueError(
                f"{file}:{number}: label {label!r} is not among the {len(names)} classes: "
                f"{few(names)}"
            )
    return [index[label] for *_, label in rows], names


def _num_classes(file: Path, rows: list[_Row]) -> int:
    """How many classes a list of class indices has."""
    number, largest = max(((n, int(label)) for n, _, label in rows), key=lambda row: row[1])
    if largest >= _MOST_CLASSES:
        raise ValueError(
            f"{file}:{number}: expected a class index from 0 to {_MOST_CLASSES - 1}, got {largest}"
        )
    return largest + 1


def _id(path: Path, root: Path) -> str:
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix()
