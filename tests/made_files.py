"""Small files for the readers of annotations, and what came of them."""

import json
from pathlib import Path

from gasmcast.datasets import LabeledVideos


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(file: Path, content) -> Path:
    """Text as it is, everything else as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")
    return file


def shown(videos: LabeledVideos, root: Path) -> list[tuple[str, str]]:
    """Path from the root and class of each video."""
    return [(r.path.relative_to(root).as_posix(), videos.classes[r.label]) for r in videos.records]
