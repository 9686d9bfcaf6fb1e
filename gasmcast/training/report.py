"""What an evaluation found."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gasmcast.whole_file import whole_file


class ClassResult(NamedTuple):
    """How the videos of one class were named.

    Attributes:
        name: The class.
        videos: Videos of it that were evaluated.
        right: How many of them were named right.
        accuracy: Their share, nan where there are none.
    """

    name: str
    videos: int
    right: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Accuracy on a set of videos. ``str(report)`` is a readable table.

    All numbers are computed from the predictions, so they do not depend on batches or processes.

    Attributes:
        classes: The K class names.
        ids: The name of each of N videos, in the order of the data set.
        labels: int64 [N], what each video shows.
        ranked: int64 [N, min(5, K)], the classes of each video that are most probable, best first.
        probabilities: float [N, min(5, K)], their probabilities: the softmax of the logits,
            averaged over the views of the video.
        unreadable: Each video that could not be read, in training (last epoch) or evaluation: its
            part, path and reason. Not among the videos above.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Tensor
    ranked: Tensor
    probabilities: Tensor
    unreadable: tuple[str, ...] = ()

    @property
    def num_videos(self) -> int:
        """Videos evaluated."""
        return len(self.labels)

    @property
    def chance(self) -> float:
        """Top-1 of guessing: one in K."""
        return 1 / len(self.classes)

    @property
    def top1(self) -> float:
        """Share of videos whose class is the most probable; nan without a video."""
        return self._found_among(1)

    @property
    def top5(self) -> float:
        """Share of videos whose class is among the five most probable; nan without a video."""
        return self._found_among(5)

    @property
    def mean_class(self) -> float:
        """Mean over the classes that have videos of the share of them that was named right."""
        shown = [result.accuracy for result in self.per_class if result.videos]
        return sum(shown) / len(shown) if shown else float("nan")

    @cached_property
    def confusion(self) -> Tensor:
        """int64 [K, K], videos of class (row) that were named class (column)."""
        size = len(self.classes)
        cells = self.labels * size + self.ranked[:, 0]
        return torch.bincount(cells, minlength=size * size).view(size, size)

    @cached_property
    def per_class(self) -> tuple[ClassResult, ...]:
        """One result for each class, in their order."""
        videos = self.confusion.sum(dim=1).tolist()
        right = self.confusion.diag().tolist()
        return tuple(
            ClassResult(name, shown, found, found / shown if shown else float("nan"))
            for name, shown, found in zip(self.classes, videos, right, strict=True)
        )

    def __str__(self) -> str:
        rows = [
            ("videos", f"{self.num_videos}"),
            ("top-1", f"{self.top1:.1%}  (chance {self.chance:.1%})"),
            ("top-5", f"{self.top5:.1%}  (chance {min(5 * self.chance, 1):.1%})"),
            ("mean class", f"{self.mean_class:.1%}"),
        ]
        lines = [f"{name:<12}{value}" for name, value in rows]
        if self.unreadable:
            lines += [f"not readable, left out: {len(self.unreadable)}"]
            lines += [f"  {error}" for error in self.unreadable]
        return "\n".join(lines)

    def save(self, folder: str | Path) -> None:
        """Write all of it to a folder, made if need be; each file whole or not at all.

        - ``results.json``: the numbers, and each video that was left out and why
        - ``per_class.csv``: class, videos, right, accuracy (empty where there are no videos)
        - ``confusion_matrix.csv``: videos of each class (row) by the class they were given (column)
        - ``predictions.csv``: id, label, prediction, and the most probable classes with their
          probabilities, for each video

        Raises:
            OSError: A file could not be written, such as on a full disk.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {name: getattr(self, name) for name in ("top1", "top5", "mean_class", "chance")}
        results = {
            "num_videos": self.num_videos,
            # JSON has no nan, which they are where no video could be read.
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            "unreadable": list(self.unreadable),
        }
        _write(folder / "results.json", json.dumps(results, indent=2) + "\n")
        _write_table(
            folder / "per_class.csv",
            ("class", "videos", "right", "accuracy"),
            ((*result[:3], result.accuracy if result.videos else "") for result in self.per_class),
        )
        _write_table(
            folder / "confusion_matrix.csv",
            ("shown \\ named", *self.classes),
            ([name, *row] for name, row in zip(self.classes, self.confusion.tolist(), strict=True)),
        )
        header = ["id", "label", "prediction"]
        for place in range(1, self.ranked.size(1) + 1):
            header += [f"class_{place}", f"probability_{place}"]
        _write_table(folder / "predictions.csv", header, self._prediction_rows())

    def _found_among(self, places: int) -> float:
        if not self.num_videos:
            return float("nan")
        found = (self.ranked[:, :places] == self.labels.unsqueeze(1)).any(dim=1)
        return int(found.sum()) / self.num_videos

    def _prediction_rows(self) -> Iterable[tuple[Any, ...]]:
        for name, label, ranked, probabilities in zip(
            self.ids,
            self.labels.tolist(),
            self.ranked.tolist(),
            self.probabilities.tolist(),
            strict=True,
        ):
            named = [self.classes[place] for place in ranked]
            pairs = zip(named, probabilities, strict=True)
            yield name, self.classes[label], named[0], *(cell for pair in pairs for cell in pair)


def _write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = StringIO()
    writer = csv.writer(table)
    writer.writerow(header)
    writer.writerows(rows)
    _write(file, table.getvalue())


def _write(file: Path, text: str) -> None:
    with whole_file(file) as out:
        # A file name can hold bytes that are no text.
        out.write(text.encode(errors="backslashreplace"))
