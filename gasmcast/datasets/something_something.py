"""Something-Something V2, as it is given out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gasmcast.datasets._text_file import read_json, read_lines
from gasmcast.datasets.annotations import LabeledVideos, VideoRecord
from gasmcast.datasets.classes import Classes, class_names, few

_RELEASES = ("", "something-something-v2-")


def read_something_something(
    annotations: str | Path,
    videos: str | Path,
    *,
    classes: Classes | None = None,
    answers: str | Path | None = None,
) -> LabeledVideos:
    """Something-Something V2: ``train.json``, ``validation.json`` or ``test.json``.

    The files of the older release, ``something-something-v2-train.json`` and so on, are read the
    same way. The class of a clip is its ``template`` without the brackets; the field ``label``
    names the real objects and is not the class. Clips of ``test.json`` have no template: their
    classes come from ``test-answers.csv``.

    A video's id is its number. No video is looked for: a missing one is named when it is read.

    Args:
        annotations: The JSON file.
        videos: The folder of ``<id>.webm``.
        classes: The classes in order, or a file of them (:func:`read_classes`); by default
            ``labels.json`` or ``something-something-v2-labels.json`` beside the annotations.
        answers: Lines ``id;class``, needed where clips have no template; by default
            ``test-answers.csv`` or ``something-something-v2-test-answers.csv`` beside them.

    Raises:
        FileNotFoundError: The annotations, the classes or the answers are not there.
        ValueError: Something else than a list of clips, or a clip whose class is missing or
            not among the classes.
    """
    file, videos = Path(annotations), Path(videos)
    clips = read_json(file, "annotation file")
    if not isinstance(clips, list) or not all(_is_clip(clip) for clip in clips):
        raise ValueError(f"{file} must be a list of clips with id and template")
    if not clips:
        raise ValueError(f"{file} lists no clip")
    names = class_names(_beside(file, "labels.json") if classes is None else classes)
    of_clip = _classes_of_clips(file, clips, answers)
    index = {name: label for label, name in enumerate(names)}
    unknown = next((number for number, name in of_clip.items() if name not in index), None)
    if unknown is not None:
        raise ValueError(
            f"{file}: clip {unknown} shows {of_clip[unknown]!r}, not among the {len(names)} "
            f"classes: {few(names)}"
        )
    records = (
        VideoRecord(videos / f"{number}.webm", index[of_clip[number]], number)
        for number in (str(clip["id"]) for clip in clips)
    )
    return LabeledVideos(tuple(records), names)


def _is_clip(clip: Any) -> bool:
    return isinstance(clip, dict) and "id" in clip and isinstance(clip.get("template", ""), str)


def _classes_of_clips(
    file: Path, clips: list[dict[str, Any]], answers: str | Path | None
) -> Mapping[str, str]:
    """The class name of each clip by its number."""
    found = {
        str(clip["id"]): clip.get("template", "").replace("[", "").replace("]", "")
        for clip in clips
    }
    missing = [number for number, name in found.items() if not name]
    if missing:
        source = _beside(file, "test-answers.csv") if answers is None else Path(answers)
        by_number = _read_answers(source)
        for number in missing:
            if number not in by_number:
                raise ValueError(
                    f"{file}: clip {number} has no template, and {source} no answer for it"
                )
            found[number] = by_number[number]
    return found


def _read_answers(file: Path) -> dict[str, str]:
    answers = {}
    for number, line in read_lines(file, "file of answers"):
        clip, separator, name = line.partition(";")
        if not separator:
            raise ValueError(f"{file}:{number}: expected 'id;class', got {line!r}")
        answers[clip.strip()] = name.strip()
    return answers


def _beside(file: Path, name: str) -> Path:
    """The file of this name beside, of either release."""
    candidates = [file.with_name(prefix + name) for prefix in _RELEASES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{file} needs {candidates[0].name} or {candidates[1].name} beside it, or another named"
    )
