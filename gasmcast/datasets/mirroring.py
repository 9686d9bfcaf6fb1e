"""What becomes of a label when left and right are swapped in the picture."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from gasmcast.datasets._text_file import read_json
from gasmcast.datasets.classes import are_numbers, check_unique, few

_SWAPPED = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}


def mirrored_classes(
    classes: Sequence[str], swaps: Mapping[str, str] | str | Path | None = None
) -> tuple[int, ...]:
    """The label of each class after a horizontal flip of the video.

    Without ``swaps``, labels follow from the names: the words left and right change places
    (leftward and rightward too), and so do clockwise and counterclockwise (or anticlockwise). Case,
    underscores, hyphens and CamelCase make no difference. A class without such a word stays.

    Args:
        classes: Class names in the order of their labels.
        swaps: Instead of the words: which class changes places with which, by name; or a JSON file
            of such an object. A pair may be given one way or both. Classes not named stay.

    Returns:
        K labels; ``mirrored[label]`` is the label of the flipped video.

    Raises:
        FileNotFoundError: The file of ``swaps`` is not there.
        ValueError: A class whose mirrored name is not among the classes; classes that are plain
            numbers; or ``swaps`` that name an unknown class or one class in several pairs.

    Example:
        >>> mirrored_classes(["Swiping left", "Swiping right", "Stop"])
        (1, 0, 2)
        >>> mirrored_classes(["b turn", "d turn"], {"b turn": "d turn"})
        (1, 0)
    """
    check_unique(classes)
    mirrored = _by_words(classes) if swaps is None else _by_names(classes, _swaps(swaps))
    for label, other in enumerate(mirrored):
        if mirrored[other] != label:
            raise ValueError(
                f"flipped twice, class {classes[label]!r} must be itself again, but it becomes "
                f"{classes[other]!r}, and that becomes {classes[mirrored[other]]!r}"
            )
    return tuple(mirrored)


def _by_words(classes: Sequence[str]) -> list[int]:
    if are_numbers(classes):
        raise ValueError(
            f"the {len(classes)} classes are plain numbers, which do not tell left from right: "
            "read the set with the names of its classes"
        )
    words = [_words(name) for name in classes]
    flipped = [
        re.sub(
            r"\b(left|right|(?:counter)?clockwise)(?=(?:wards?)?\b)",
            lambda match: _SWAPPED[match[0]],
            text,
        )
        for text in words
    ]
    labels = {text: label for label, text in enumerate(words)}
    alone = [
        name
        for name, before, after in zip(classes, words, flipped, strict=True)
        if before != after and after not in labels
    ]
    if alone:
        raise ValueError(
            f"no class is the mirror image of {few(alone)}: say which class becomes which by swaps"
        )
    # Only what changes is looked up: other classes may differ in case alone.
    return [
        label if before == after else labels[after]
        for label, (before, after) in enumerate(zip(words, flipped, strict=True))
    ]


def _words(name: str) -> str:
    """Lower-case words with one space between, and one spelling of counterclockwise."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name).strip().casefold()
    return re.sub(r"\b(?:counter|anti) ?clockwise\b", "counterclockwise", spaced)


def _by_names(classes: Sequence[str], swaps: Mapping[str, str]) -> list[int]:
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in dict.fromkeys([*swaps, *swaps.values()]) if name not in labels]
    if unknown:
        raise ValueError(
            f"swaps names {few(unknown)}, not among the {len(classes)} classes: {few(classes)}"
        )
    both_ways = {**{other: name for name, other in swaps.items()}, **swaps}
    return [labels[both_ways.get(name, name)] for name in classes]


def _swaps(swaps: Mapping[str, str] | str | Path) -> Mapping[str, str]:
    if isinstance(swaps, Mapping):
        return swaps
    content = read_json(Path(swaps), "file of swaps")
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ValueError(f"{swaps} must map names of classes to names of classes")
    return content
