"""Which videos there are and what they show: records, sets of them, and parts of sets."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gasmcast.datasets._text_file import read_csv
from gasmcast.datasets.classes import check_unique, few


@dataclass(frozen=True)
class VideoRecord:
    """One labelled video.

    Attributes:
        path: The file, or the folder of its frames.
        label: Index into the classes.
        id: A name that is unique within the set and the same on every machine, under which
            features are stored. Empty: the path, with forward slashes.
    """

    path: Path
    label: int
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.path.as_posix())


@dataclass(frozen=True)
class LabeledVideos:
    """Videos and the classes that their labels count.

    Attributes:
        records: The videos.
        classes: The class names; ``classes[record.label]`` is what a video shows.

    Raises:
        ValueError: Two videos of one id, two classes of one name, or a label that no class has.
    """

    records: tuple[VideoRecord, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_unique(self.classes)
        if len({record.id for record in self.records}) < len(self.records):
            counts = Counter(record.id for record in self.records)
            twice = [name for name, count in counts.items() if count > 1]
            raise ValueError(f"each video must have an id of its own, got twice: {few(twice)}")
        for record in self.records:
            if not 0 <= record.label < len(self.classes):
                raise ValueError(
                    f"video {record.id!r} has the label {record.label}, expected 0 to "
                    f"{len(self.classes) - 1}: there are {len(self.classes)} classes"
                )

    def __len__(self) -> int:
        return len(self.records)

    def describe(self) -> str:
        """How many videos there are, and how many of each class, in the order of the labels.

        Example:
            >>> records = (VideoRecord(Path("a.mp4"), 1), VideoRecord(Path("b.mp4"), 1))
            >>> print(LabeledVideos(records, ("drop", "lift")).describe())
            2 videos, 2 classes in order:
              0  drop  (0)
              1  lift  (2)
        """
        counts = Counter(record.label for record in self.records)
        width = len(str(len(self.classes) - 1))
        lines = [f"{len(self)} videos, {len(self.classes)} classes in order:"]
        lines += [
            f"  {label:{width}}  {name}  ({counts[label]})"
            for label, name in enumerate(self.classes)
        ]
        return "\n".join(lines)

    def without(
        self, bad: Iterable[str | Path] | str | Path, *, strict: bool = True
    ) -> "LabeledVideos":
        """The videos that are not bad. The classes stay.

        Args:
            bad: Ids or paths of the bad ones; or a CSV file with a column ``path`` of either, as
                :func:`~gasmcast.video.check_videos` writes it (other columns are passed over). A
                relative path counts from the current folder, in a file from the file's folder.
            strict: Refuse a name that is none of these videos. Without it such a name is passed
                over, as one list for several sets needs it.

        Raises:
            FileNotFoundError: The file is not there.
            ValueError: A name that is none of these videos; a file that is not such CSV.
        """
        folder = ""
        if isinstance(bad, (str, Path)):
            folder, bad = os.path.dirname(bad), _read_bad(Path(bad))
        # Text alone: no file is asked for.
        paths = {name: os.path.abspath(os.path.join(folder, name)) for name in map(str, bad)}
        bad_paths = set(paths.values())
        kept, found = [], set()
        for record in self.records:
            path = os.path.abspath(record.path)
            if record.id in paths or path in bad_paths:
                found |= {record.id, path}
            else:
                kept.append(record)
        unknown = [name for name, path in paths.items() if not {name, path} & found]
        if strict and unknown:
            example = f", which are named like {self.records[0].id!r}" if self.records else ""
            raise ValueError(
                f"{len(unknown)} of the {len(paths)} bad names are none of the {len(self)} "
                f"videos{example}: {few(unknown)}"
            )
        return LabeledVideos(tuple(kept), self.classes)


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


def _read_bad(file: Path) -> list[str]:
    """The column ``path`` of a CSV file."""
    # Names of files need not be UTF-8; they are kept as Python names such files.
    columns, rows = read_csv(file, "list of bad files", errors="surrogateescape")
    if "path" not in columns:
        raise ValueError(f"{file} must be CSV whose first line names a column path, got {columns}")
    return [row["path"] for _, row in rows if row["path"]]
