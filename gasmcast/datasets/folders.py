"""One folder per class."""

from pathlib import Path

from gasmcast.datasets._video_suffixes import VIDEO_SUFFIXES
from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few

_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def scan_class_folders(root: str | Path, classes: Classes | None = None) -> LabeledVideos:
    """Videos in one folder per class: ``root/<class name>/**/<video>``.

    Classes are in the sorted order of the folder names unless an order is given. Files with other
    than a video's suffix are passed over, and so is what is hidden (its name begins with a dot).
    A link to a video that is not there counts as a video: it is named when it is read. Links to
    folders are followed where they stand for a class, and not below.
    A video's id is its path relative to ``root``.

    Args:
        root: The folder of class folders.
        classes: The classes in order, or a file of them (:func:`read_classes`); each folder must
            be one of them.

    Raises:
        FileNotFoundError: ``root`` is no folder, or holds a link to what is not there.
        ValueError: No class folder, no video in them, a folder that is not in ``classes``, or
            folders that are parts of a set (``train``, ``test``) instead of classes. Without
            ``classes`` also a folder that holds no video, which would count as a class, or a single
            folder, which is more likely that of all videos.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: expected one holding a folder per class")
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    broken = [entry.name for entry in entries if not entry.exists()]
    if broken:
        raise FileNotFoundError(f"links in {root} lead to what is not there: {few(broken)}")
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        raise ValueError(f"{root} holds no class folders: expected {root}/<class>/<video files>")
    found = tuple(folder.name for folder in folders)
    if classes is None and {name.lower() for name in found} <= _PARTS:
        raise ValueError(
            f"the folders of {root} are parts of a set, not classes: {few(found)}; give one of them"
        )
    names = found if classes is None else class_names(classes)
    index = {name: label for label, name in enumerate(names)}
    records, empty = [], []
    for folder in folders:
        if folder.name not in index:
            raise ValueError(f"folder {folder} is not among the {len(names)} classes: {few(names)}")
        paths = [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in VIDEO_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and not path.is_dir()
        ]
        empty += [] if paths else [folder.name]
        records += [
            VideoRecord(path, index[folder.name], path.relative_to(root).as_posix())
            for path in paths
        ]
    if not records:
        raise ValueError(
            f"the {len(folders)} class folders of {root} hold no video "
            f"({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    if classes is None and empty:
        raise ValueError(
            f"{len(empty)} of the {len(folders)} folders of {root} hold no video, but would count "
            f"as classes: {few(empty)}; move them away, or give the classes in order"
        )
    if classes is None and len(folders) == 1:
        raise ValueError(
            f"{root} holds one folder, {found[0]!r}, expected one per class: name the folder of "
            "class folders or the annotation file, or give the classes in order"
        )
    return LabeledVideos(tuple(records), names)
