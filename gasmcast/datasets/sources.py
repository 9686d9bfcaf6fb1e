"""Any of the sources of labelled videos, recognised by itself."""

import csv
import re
from pathlib import Path

from gasmcast.datasets._text_file import check_there
from gasmcast.datasets.annotations import LabeledVideos
from gasmcast.datasets.classes import Classes
from gasmcast.datasets.folders import scan_class_folders
from gasmcast.datasets.hmdb51 import is_hmdb51, read_hmdb51
from gasmcast.datasets.kinetics import read_kinetics
from gasmcast.datasets.lists import is_annotation_list, read_annotation_list
from gasmcast.datasets.something_something import read_something_something
from gasmcast.datasets.ucf101 import read_ucf101

_UNDERSTOOD = """understood are
  a folder that holds one folder of videos per class,
  a folder of HMDB51's split files <class>_test_split<N>.txt,
  JSON of Something-Something V2, a list of clips with id and template,
  CSV of Kinetics, with the columns label,youtube_id,time_start,time_end,
  UCF101's split files trainlist<N>.txt and testlist<N>.txt,
  lists of lines 'path label' or 'path total_frames label',
  tables with the columns path and label"""


def read_videos(
    source: str | Path,
    *,
    root: str | Path | None = None,
    classes: Classes | None = None,
    part: str | None = "train",
    split: int = 1,
) -> LabeledVideos:
    """Labelled videos of any source that is understood.

    - A folder: :func:`read_hmdb51` where it holds ``<class>_test_split<N>.txt``, otherwise
      :func:`scan_class_folders`.
    - A JSON list of objects with ``id``: :func:`read_something_something`.
    - CSV with a column ``youtube_id``: :func:`read_kinetics`.
    - A file called ``trainlist<N>.txt`` or ``testlist<N>.txt``: :func:`read_ucf101`.
    - Lines ``path label`` and their relatives: :func:`read_annotation_list`.

    Args:
        source: A folder or a file.
        root: The folder of the videos. A list's paths are relative to its own folder by default;
            a folder of class folders is its own root; the other sources need it.
        classes: The classes in order, or a file of them (:func:`read_classes`); by default as the
            reader of the source says.
        part: ``"train"`` or ``"test"``, for a source that holds both (HMDB51); None for both.
        split: Which split, for a source that holds several (HMDB51).

    Raises:
        FileNotFoundError: The source is not there, or what its reader needs is not.
        ValueError: The source is not understood, has no ``root`` where it needs one, or is
            refused by its reader.
    """
    source = Path(source)
    if source.is_dir():
        if is_hmdb51(source):
            videos = _required(root, source, "HMDB51")
            return read_hmdb51(source, videos, part=part, split=split, classes=classes)
        return scan_class_folders(source, classes)
    check_there(source, "source", "a folder or a file")
    head = _head(source)
    if re.match(r'\s*\[\s*\{[^{}]*"id"\s*:', head):
        videos = _required(root, source, "Something-Something V2")
        return read_something_something(source, videos, classes=classes)
    # As the readers take lines apart: strip, then pass over blank ones and comments.
    lines = (line.strip() for line in head.split("\n"))
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if "youtube_id" in next(csv.reader([first], skipinitialspace=True), []):
        return read_kinetics(source, _required(root, source, "Kinetics"), classes=classes)
    if re.fullmatch(r"(train|test)list\d+\.txt", source.name):
        return read_ucf101(source, _required(root, source, "UCF101"), classes=classes)
    if is_annotation_list(first):
        return read_annotation_list(source, root=root, classes=classes)
    raise ValueError(f"{source} is not understood, it begins with {first[:80]!r}; {_UNDERSTOOD}")


def _head(file: Path) -> str:
    """The beginning of a file as text, whatever it is."""
    with file.open("rb") as opened:
        return opened.read(65536).decode("utf-8-sig", errors="replace")


def _required(root: str | Path | None, source: Path, kind: str) -> str | Path:
    if root is None:
        raise ValueError(f"{source} is of {kind}: root must be the folder of its videos, got None")
    return root
