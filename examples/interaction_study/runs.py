"""The runs of the study in a file: one line of JSON each, and none is made twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Run(NamedTuple):
    """What tells one run from another.

    Attributes:
        part: Of the study: ``"tuning"``, ``"beyond"``, ``"comparison"``, ``"share"``, ``"bf16"``,
            ``"longer"``, ``"probe"``, ``"fights"`` or ``"cost"``.
        variant: Name in :data:`interaction_study.variants.VARIANTS`.
        learning_rate: Peak learning rate.
        seed: Of weights, order of the clips, dropout and stochastic depth.
        share: Share of the training clips.
        fold: Of the cross-validation; 0 where there is none.
    """

    part: str
    variant: str
    learning_rate: float
    seed: int
    share: float = 1.0
    fold: int = 0


class RunsFile:
    """Lines with the fields of a :class:`Run`, the version of the design, and what it measured.

    A last line that was cut off, as by a kill or on a full disk, is cut away. Numbers that are not
    finite stand as ``NaN`` and ``Infinity``, as Python reads and writes them.

    Args:
        path: The file; made with the first run.
        made_with: What all runs of one version share (version of the design, budget). Runs made
            with something else stay in the file and are not taken for runs of this one; the same
            version made with something else is refused.
        features: Fingerprint of the features at hand; it can be set later, before the first run is
            made. They may be others than those of runs in the file: see :meth:`missing`.

    Raises:
        ValueError: A line that is no run; runs of this version that were made with something else.
    """

    def __init__(self, path: Path, made_with: dict[str, Any], features: str = ""):
        self.path = path
        self.made_with = made_with
        self.features = features
        self.found: dict[Run, dict[str, Any]] = {}
        for line in read_lines(path):
            if line["version"] != made_with["version"]:
                continue
            before = {name: line.get(name) for name in made_with}
            if before != made_with:
                raise ValueError(
                    f"{path} holds runs of version {line['version']} that were made with {before}, "
                    f"got {made_with}: go on with the same, or give another file of runs"
                )
            self.found[_run(line)] = line
        if path.exists():
            _end_after_a_line(path)

    def missing(self, stage: list[Run]) -> list[Run]:
        """Those of the runs of a stage that have to be made.

        Runs that are compared with each other have to be on the same features. If a stage was left
        half done and the features at hand are others, it is made as a whole; of two lines of the
        same run the later counts.
        """
        used = {self.found.get(run, {}).get("features") for run in stage}
        if len(used) == 1 and None not in used:
            return []
        return [run for run in stage if self.found.get(run, {}).get("features") != self.features]

    def add(self, run: Run, measured: dict[str, Any]) -> None:
        """Write a run, so that it is on the disk when this returns."""
        line = {**self.made_with, "features": self.features, **run._asdict(), **measured}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[run] = line

    def select(self, part: str) -> list[dict[str, Any]]:
        """The lines of a part."""
        return [line for run, line in self.found.items() if run.part == part]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The runs of a file, of all versions; a last line that was cut off is passed over.

    Raises:
        ValueError: A line that is no run.
    """
    return list(_parsed(path, _split(path)[0])) if path.exists() else []


def _split(path: Path) -> tuple[list[bytes], bytes]:
    """The lines of a file, and the beginning of one that was cut off."""
    *lines, last = path.read_bytes().split(b"\n")
    if not last or (last.startswith(b"{") and not _is_json(last)):
        return lines, last
    return [*lines, last], b""  # whole but for its end


def _end_after_a_line(path: Path) -> None:
    """Cut off the beginning of a line, so that the next one begins where it has to."""
    lines, cut_off = _split(path)
    if cut_off:
        os.truncate(path, path.stat().st_size - len(cut_off))
    elif lines and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parsed(path: Path, lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            _run(line), line["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no run of the study: {error!r}") from error
        yield line


def _run(line: dict[str, Any]) -> Run:
    return Run(*(line[name] for name in Run._fields))
