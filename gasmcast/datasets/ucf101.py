"""UCF101, as its split files are given out."""

from pathlib import Path

from gasmcast.datasets._text_file import read_lines
from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few


def read_ucf101(
    file: str | Path, videos: str | Path, *, classes: Classes | None = None
) -> LabeledVideos:
    """UCF101: ``trainlist01.txt`` to ``testlist03.txt``.

    Lines are ``<class>/<video>``, in the lists of training videos with a number, which counts the
    classes from 1. The class is the folder; its number must be that of ``classInd.txt``.

    A video's id is its path relative to ``videos``. No video is looked for.

    Args:
        file: The list.
        videos: The folder of class folders.
        classes: The classes in order, or a file of them (:func:`read_classes`); by default
            ``classInd.txt`` beside the list.

    Raises:
        FileNotFoundError: The list or ``classInd.txt`` is not there.
        ValueError: A line that cannot be read, a class that is not among the classes or has
            another number in ``classInd.txt``, an empty list; the message gives file and line.
    """
    file, videos = Path(file), Path(videos)
    lines = read_lines(file, "split file")
    if not lines:
        raise ValueError(f"{file} lists no video")
    names = class_names(file.with_name("classInd.txt") if classes is None else classes)
    index = {name: label for label, name in enumerate(names)}
    records = []
    for number, line in lines:
        path, _, label = line.partition(" ")
        name, slash, _ = path.partition("/")
        if not slash or not (label == "" or label.strip().isdecimal()):
            raise ValueError(f"{file}:{number}: expected '<class>/<video> 1', got {line!r}")
        if name not in index:
            raise ValueError(
                f"{file}:{number}: class {name!r} is not among the {len(names)} classes: "
                f"{few(names)}"
            )
        # An order that was given numbers the classes in its own way.
        if classes is None and label and int(label) != index[name] + 1:
            raise ValueError(
                f"{file}:{number}: class {name!r} has the number {int(label)} here, but "
                f"{index[name] + 1} in classInd.txt"
            )
        records.append(VideoRecord(videos / path, index[name], path))
    return LabeledVideos(tuple(records), names)
