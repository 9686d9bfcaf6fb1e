"""Kinetics, as its lists of clips are given out."""

import os
import re
from collections import defaultdict
from pathlib import Path

from gasmcast.datasets._text_file import read_csv
from gasmcast.datasets._video_suffixes import VIDEO_SUFFIXES
from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few

_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def read_kinetics(
    file: str | Path, videos: str | Path, *, classes: Classes | None = None
) -> LabeledVideos:
    """Kinetics 400, 600 or 700: a CSV of ``label,youtube_id,time_start,time_end,split``.

    A clip is looked for as ``<youtube_id>_<start>_<end>`` with six digits each and any video's
    suffix, in the folder of its class or in ``videos`` itself. Names of class folders may have
    underscores or hyphens in place of spaces and signs. A clip that is not there stays in the set,
    with the path at which it was expected: it is named when it is read. Every row is taken,
    whatever its column ``split`` says.

    A clip's id is its name without the suffix, which is the same for every layout of the folders.

    Args:
        file: The CSV.
        videos: The folder of class folders or of clips. Each of them is listed once.
        classes: The classes in order, or a file of them (:func:`read_classes`); by default the
            sorted labels of the CSV.

    Raises:
        FileNotFoundError: The CSV is not there.
        ValueError: A column is missing, such as ``label`` in the lists of test clips; a row that
            cannot be read; a label that is not among the classes; an empty list.
    """
    file, videos = Path(file), Path(videos)
    columns, rows = read_csv(file, "annotation file")
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        hint = "; test clips without labels cannot be evaluated" if missing == ["label"] else ""
        raise ValueError(
            f"{file} has no column {few(missing)}, got {','.join(columns)!r}: expected "
            f"{','.join(_COLUMNS)}{hint}"
        )
    clips = [_clip(file, number, row) for number, row in rows]
    if not clips:
        raise ValueError(f"{file} lists no clip")
    labels = sorted({label for _, label in clips})
    names = tuple(labels) if classes is None else class_names(classes)
    index = {name: label for label, name in enumerate(names)}
    folders = _ClipFolders(videos)
    records = []
    for clip, label in clips:
        if label not in index:
            raise ValueError(
                f"{file}: clip {clip} has the label {label!r}, not among the {len(names)} classes: "
                f"{few(names)}"
            )
        records.append(VideoRecord(folders.path(clip, label), index[label], clip))
    return LabeledVideos(tuple(records), names)


def _clip(file: Path, line: int, row: dict[str, str]) -> tuple[str, str]:
    """Name of the clip and its label."""
    try:
        start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
        youtube_id, label = row["youtube_id"].strip(), row["label"].strip()
        # A quote without its end takes in the lines that follow.
        complete = bool(youtube_id and label) and "\n" not in youtube_id + label
    except (AttributeError, TypeError, ValueError, OverflowError):
        complete = False
    if not complete:
        got = ",".join(row[column] or "" for column in _COLUMNS)
        raise ValueError(f"{file}:{line}: expected {','.join(_COLUMNS)}, got {got!r}")
    return f"{youtube_id}_{start:06d}_{end:06d}", label


class _ClipFolders:
    """Where clips lie; each folder is listed once, at first need."""

    def __init__(self, root: Path):
        self.root = root
        self.listed: dict[Path, dict[str, str]] = {}
        folders = []
        if root.is_dir():
            with os.scandir(root) as entries:
                folders = sorted(entry.name for entry in entries if entry.is_dir())
        self.of_class = defaultdict(list)
        for name in folders:
            self.of_class[_letters(name)].append(root / name)

    def path(self, clip: str, label: str) -> Path:
        folders = [*self.of_class.get(_letters(label), []), self.root]
        for folder in folders:
            if clip in self._clips(folder):
                return folder / self._clips(folder)[clip]
        return folders[0] / f"{clip}.mp4"

    def _clips(self, folder: Path) -> dict[str, str]:
        """File names by their stems."""
        if folder not in self.listed:
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
            parts = ((os.path.splitext(name), name) for name in names)
            self.listed[folder] = {
                stem: name for (stem, suffix), name in parts if suffix.lower() in VIDEO_SUFFIXES
            }
        return self.listed[folder]


def _letters(name: str) -> str:
    """What is left of a class name when it has become the name of a folder."""
    return re.sub(r"[\W_]+", "", name).casefold()
