"""Which videos there are and what they show: folders and annotation lists to records."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "ogv", "ts", "webm", "wmv"),
    )
)


@dataclass(frozen=True)
class VideoRecord:
    """One labelled video.

    Attributes:
        path: The file.
        label: Index into the classes.
    """

    path: Path
    label: int


@dataclass(frozen=True)
class LabeledVideos:
    """Videos and the classes that their labels count.

    Attributes:
        records: The videos.
        classes: The class names; ``classes[record.label]`` is what a video shows.
    """

    records: tuple[VideoRecord, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)


def scan_class_folders(
    root: str | Path, classes: Sequence[str] | str | Path | None = None
) -> LabeledVideos:
    """Videos in one folder per class: ``root/<class name>/**/<video>``.

    Classes are in the sorted order of the folder names unless an order is given. Files with other
    than a video's suffix are passed over.

    Args:
        root: The folder of class folders.
        classes: The classes in order, or a file of them as for :func:`read_annotation_list`; each
            folder must be one of them.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ValueError: No class folder, no video in them, or a folder that is not in ``classes``.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: expected one holding a folder per class")
    folders = sorted(entry for entry in root.iterdir() if _is_class_folder(entry))
    if not folders:
        raise ValueError(f"{root} holds no class folders: expected {root}/<class>/<video files>")
    names = _class_names(classes)
    if names is None:
        names = tuple(folder.name for folder in folders)
    index = {name: label for label, name in enumerate(names)}
    records = []
    for folder in folders:
        if folder.name not in index:
            raise ValueError(
                f"folder {folder} is not among the {len(names)} classes: {_few(names)}"
            )
        records += [
            VideoRecord(path, index[folder.name])
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        ]
    if not records:
        raise ValueError(
            f"the {len(folders)} class folders of {root} hold no video "
            f"({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    return LabeledVideos(tuple(records), names)


def read_annotation_list(
    file: str | Path,
    *,
    root: str | Path | None = None,
    classes: Sequence[str] | str | Path | None = None,
) -> LabeledVideos:
    """Videos of a list: a CSV with the columns ``path`` and ``label``, or lines ``path label``.

    A CSV says so by a header that names both columns; others are passed over. Without a header each
    line is a video file, a space, tab or comma, and the label; the path may hold spaces, the label
    not. Labels are class names, or class indices where all of them are integers.

    Args:
        file: The list; blank lines and lines that begin with ``#`` are passed over.
        root: What relative paths are relative to; the list's folder by default.
        classes: The classes in order, or a ``labels.json`` file that maps each name to its index
            or lists them. By default the sorted names of the list; for integer labels
            ``"0"`` to the largest.

    Raises:
        FileNotFoundError: The list is not there.
        ValueError: A line that cannot be read, a label that is not among the classes, an empty
            list; the message gives file and line.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"annotation list {file} is not there")
    root = file.parent if root is None else Path(root)
    rows = _read_rows(file)
    if not rows:
        raise ValueError(f"{file} lists no video: expected lines 'path label' or CSV 'path,label'")
    numbered = all(label.isascii() and label.isdecimal() for *_, label in rows)
    names = _class_names(classes)
    if names is None and numbered:
        names = tuple(str(label) for label in range(max(int(label) for *_, label in rows) + 1))
    elif names is None:
        names = tuple(sorted({label for *_, label in rows}))
    index = {name: label for label, name in enumerate(names)}
    records = []
    for line, path, label in rows:
        known = index.get(label)
        if known is None and numbered and int(label) < len(names):
            known = int(label)
        if known is None:
            raise ValueError(
                f"{file}:{line}: label {label!r} is not among the {len(names)} classes: "
                f"{_few(names)}"
            )
        records.append(VideoRecord(root / path, known))
    return LabeledVideos(tuple(records), names)


def split_videos(
    videos: LabeledVideos, held_out: float = 0.25, seed: int = 0
) -> tuple[LabeledVideos, LabeledVideos]:
    """Split at random, the same share of every class.

    Args:
        videos: What to split.
        held_out: Share of each class that goes to the second part, between 0 and 1; rounded to
            whole videos, with at least one on each side where a class has two.
        seed: The same seed gives the same split.

    Returns:
        The part to train on and the part held out.

    Raises:
        ValueError: ``held_out`` is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out}")
    by_class = defaultdict(list)
    for record in videos.records:
        by_class[record.label].append(record)
    random = Random(seed)
    kept, held = [], []
    for label in sorted(by_class):
        records = by_class[label]
        random.shuffle(records)
        count = round(held_out * len(records))
        if len(records) > 1:
            count = min(max(count, 1), len(records) - 1)
        held += records[:count]
        kept += records[count:]
    return LabeledVideos(tuple(kept), videos.classes), LabeledVideos(tuple(held), videos.classes)


def _read_rows(file: Path) -> list[tuple[int, str, str]]:
    """Line number, path and label of each video."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file: {error}") from error
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    header = [cell.strip().lower() for cell in next(csv.reader([lines[0][1]]))] if lines else []
    if "path" in header and "label" in header:
        return [_read_cells(file, number, line, header) for number, line in lines[1:]]
    return [_read_line(file, number, line) for number, line in lines]


def _read_cells(file: Path, number: int, line: str, header: list[str]) -> tuple[int, str, str]:
    row = dict(zip(header, next(csv.reader([line], skipinitialspace=True)), strict=False))
    path, label = row.get("path", "").strip(), row.get("label", "").strip()
    if not path or not label:
        raise ValueError(f"{file}:{number}: expected {','.join(header)}, got {line!r}")
    return number, path, label


def _read_line(file: Path, number: int, line: str) -> tuple[int, str, str]:
    match = re.fullmatch(r"(.*[^\s,])\s+([^\s,]+)|([^,]*\S)\s*,\s*([^,]+)", line)
    path, label = (match[1] or match[3], match[2] or match[4]) if match else ("", "")
    # The suffix tells a video from a header or from another kind of list.
    if Path(path).suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(
            f"{file}:{number}: expected 'path label' with a video file, or a first line that names "
            f"the columns path and label, got {line!r}"
        )
    return number, path, label


def _class_names(classes: Sequence[str] | str | Path | None) -> tuple[str, ...] | None:
    """Class names in order: given, or those of a JSON file."""
    if classes is None:
        return None
    names = _read_class_file(Path(classes)) if isinstance(classes, (str, Path)) else tuple(classes)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"each class must have a name of its own, got twice: {_few(twice)}")
    return names


def _read_class_file(file: Path) -> tuple[str, ...]:
    """Class names of a JSON list or of an object name -> index."""
    if not file.is_file():
        raise FileNotFoundError(f"class file {file} is not there")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if isinstance(content, list):
        return tuple(str(name) for name in content)
    if isinstance(content, dict):
        # Something-Something writes its indices as strings.
        names = {str(index): name for name, index in content.items()}
        order = [str(index) for index in range(len(content))]
        if sorted(names) == sorted(order):
            return tuple(names[index] for index in order)
    raise ValueError(f"{file} must list the classes or map each to its own index 0 to K - 1")


def _is_class_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _few(names: Sequence[str], limit: int = 8) -> str:
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
