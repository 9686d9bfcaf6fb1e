"""What an evaluation found."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class EvaluationReport:
    """Accuracy on a set of videos. ``str(report)`` is a readable table.

    Attributes:
        top1: Share of videos whose class has the largest logit.
        top5: Share of videos whose class is among the five largest logits.
        mean_class: Mean over the classes of the share of their videos named right.
        confusion: [K, K], videos of class (row) that were named class (column).
        classes: The class names.
        unreadable: Each video that could not be read, in training (last epoch) or evaluation: its
            part, path and reason. Not counted above.
    """

    top1: float
    top5: float
    mean_class: float
    confusion: Tensor
    classes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def num_videos(self) -> int:
        """Videos evaluated."""
        return int(self.confusion.sum())

    @property
    def chance(self) -> float:
        """Top-1 of guessing: one in K."""
        return 1 / len(self.classes)

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
        """Write ``results.json`` and ``confusion_matrix.csv`` to a folder, made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        results = {
            "num_videos": self.num_videos,
            "top1": self.top1,
            "top5": self.top5,
            "mean_class": self.mean_class,
            "chance": self.chance,
            "unreadable": list(self.unreadable),
        }
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        with (folder / "confusion_matrix.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["shown \\ named", *self.classes])
            for name, row in zip(self.classes, self.confusion.tolist(), strict=True):
                writer.writerow([name, *row])
