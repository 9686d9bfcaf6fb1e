"""One folder per class."""

from pathlib import Path

from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "ogv", "ts", "webm", "wmv"),
    )
)
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def scan_class_folders(root: str | Path, classes: Classes | None = None) -> LabeledVideos:
    """Videos in one folder per class: ``root/<class name>/**/<video>``.

    Classes are in the sorted order of the folder names unless an order is given. Files with other
    than a video's suffix are passed over, and so is what is hidden (its name begins with a dot).
    A video's id is its path relative to ``root``.

    Args:
        root: The folder of class folders.
        classes: The classes in order, or a file of them (:func:`read_classes`); each folder must
            be one of them.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ValueError: No class folder, no video in them, a folder that is not in ``classes``, or
            folders that are parts of a set (``train``, ``test``) instead of classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: expected one holding a folder per class")
    folders = sorted(entry for entry in root.iterdir() if _is_class_folder(entry))
    if not folders:
        raise ValueError(f"{root} holds no class folders: expected {root}/<class>/<video files>")
    found = tuple(folder.name for folder in folders)
    if classes is None and {name.lower() for name in found} <= _PARTS:
        raise ValueError(
            f"the folders of {root} are parts of a set, not classes: {few(found)}; give one of them"
        )
    names = found if classes is None else class_names(classes)
    index = {name: label for label, name in enumerate(names)}
    records = []
    for folder in folders:
        if folder.name not in index:
            raise ValueError(f"folder {folder} is not among the {len(names)} classes: {few(names)}")
        records += [
            VideoRecord(path, index[folder.name], path.relative_to(root).as_posix())
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in VIDEO_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and path.is_file()
        ]
    if not records:
        raise ValueError(
            f"the {len(folders)} class folders of {root} hold no video "
            f"({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    return LabeledVideos(tuple(records), names)


def _is_class_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")
