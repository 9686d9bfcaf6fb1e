"""HMDB51, as its split files are given out."""

import re
from pathlib import Path

from gasmcast.datasets._text_file import read_lines
from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few

_MARKS = {"train": "1", "test": "2"}
_FILE_NAME = re.compile(r"(?P<name>.+)_test_split(?P<split>\d+)\.txt")


def read_hmdb51(
    folder: str | Path,
    videos: str | Path,
    *,
    part: str | None = "train",
    split: int = 1,
    classes: Classes | None = None,
) -> LabeledVideos:
    """HMDB51: the folder of ``<class>_test_split1.txt`` and so on.

    Lines are ``<video> <mark>``: 1 is a video to train on, 2 one to test on, 0 neither.

    A video's id is ``<class>/<video>``. No video is looked for.

    Args:
        folder: The folder of split files, one for each class and split.
        videos: The folder of class folders.
        part: ``"train"`` or ``"test"``; None for both.
        split: Which of the three splits.
        classes: The classes in order, or a file of them (:func:`read_classes`); by default the
            sorted classes of the split files.

    Raises:
        FileNotFoundError: ``folder`` is no folder.
        ValueError: Another ``part``, no file of this split, a line that cannot be read, a class
            that is not among the classes, or no video of this part.
    """
    folder, videos = Path(folder), Path(videos)
    if part is not None and part not in _MARKS:
        raise ValueError(f"part of HMDB51 must be 'train', 'test' or None, got {part!r}")
    marks = _MARKS.values() if part is None else [_MARKS[part]]
    files = _split_files(folder, split)
    names = tuple(files) if classes is None else class_names(classes)
    index = {name: label for label, name in enumerate(names)}
    records = []
    for name, file in files.items():
        if name not in index:
            raise ValueError(f"{file} is of no class among the {len(names)}: {few(names)}")
        # No line is a comment: names of videos begin with '#' too.
        for number, line in read_lines(file, "split file"):
            video, _, mark = line.rpartition(" ")
            if not video or mark not in ("0", "1", "2"):
                raise ValueError(
                    f"{file}:{number}: expected '<video> <mark>' with 0, 1 or 2, got {line!r}"
                )
            if mark in marks:
                clip = f"{name}/{video.strip()}"
                records.append(VideoRecord(videos / clip, index[name], clip))
    if not records:
        of_part = "" if part is None else f" of the part {part!r}"
        raise ValueError(f"split {split} in {folder} has no video{of_part}")
    return LabeledVideos(tuple(records), names)


def is_hmdb51(folder: Path) -> bool:
    """Whether a folder holds the split files."""
    return any(_FILE_NAME.fullmatch(entry.name) for entry in folder.iterdir())


def _split_files(folder: Path, split: int) -> dict[str, Path]:
    """The file of each class, in the order of the names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: expected one of HMDB51's split files")
    matches = [_FILE_NAME.fullmatch(entry.name) for entry in folder.iterdir()]
    found = [(match["name"], int(match["split"])) for match in matches if match]
    files = {
        name: folder / f"{name}_test_split{of}.txt" for name, of in sorted(found) if of == split
    }
    if not files:
        splits = sorted({of for _, of in found})
        raise ValueError(
            f"{folder} holds no <class>_test_split{split}.txt, got the splits {splits}"
        )
    return files
