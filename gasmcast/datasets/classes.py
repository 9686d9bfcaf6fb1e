"""Class names and their order: files of them, and whether two orders are the same."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gasmcast.datasets._text_file import read_json, read_lines
from gasmcast.datasets._video_suffixes import VIDEO_SUFFIXES

Classes = Sequence[str] | str | Path

_VIDEO = re.compile(rf"({'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))})[\s\",;]", re.IGNORECASE)


def read_classes(file: str | Path) -> tuple[str, ...]:
    """Class names in the order of their labels.

    Understood are

    - JSON (the suffix is ``.json``): a list of names; an object that maps each name to its index,
      such as the ``labels.json`` of Something-Something; an object that maps each index to its
      name. Indices may be written as strings.
    - Text: one name per line; or lines ``index name`` in any order, counted from 0 or from 1 (the
      ``classInd.txt`` of UCF101), with spaces, a tab, a comma or a semicolon in between. A first
      line ``id,name`` is passed over.

    Args:
        file: The file.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: No class in it, indices that are not 0 to K - 1 (or 1 to K), a name twice, or a
            list of videos in place of class names.
    """
    file = Path(file)
    if file.suffix.lower() == ".json":
        names = _names_of_json(file, read_json(file, "class file"))
    else:
        names = _names_of_lines(file, [line for _, line in read_lines(file, "class file")])
    # The class names of Kinetics go round with their quotes of CSV.
    names = tuple(name.strip().strip('"') for name in names)
    if not names:
        raise ValueError(f"{file} names no class")
    check_unique(names)
    return names


def check_classes(classes: Sequence[str], expected: Classes) -> None:
    """Check that classes are those of a file, in the same order.

    Published results are often missed because two scripts number the classes differently: check
    the order against the one that a model or a set came with.

    Where ``classes`` are the plain numbers ``"0"`` to ``"K - 1"`` of a list without names, no order
    is known, and only their count is checked: it must not be larger than expected.

    Args:
        classes: Class names in the order of their labels, such as ``videos.classes``.
        expected: A file of them, see :func:`read_classes`; or names in order, such as the
            ``class_names`` of a model.

    Raises:
        ValueError: They differ; the message gives the first labels at which they do.

    Example:
        >>> check_classes(("drop", "lift"), ["drop", "lift"])
        >>> check_classes(("drop", "lift"), ["lift", "drop"])
        Traceback (most recent call last):
          ...
        ValueError: 2 of 2 classes are not as expected: 0 is 'drop', expected 'lift'; 1 is ...
    """
    where = f" by {expected}" if isinstance(expected, (str, Path)) else ""
    names = class_names(expected)
    if are_numbers(classes):
        if len(classes) > len(names):
            raise ValueError(
                f"labels go up to {len(classes) - 1}, but {len(names)} classes are expected{where}"
            )
        return
    differing = [
        (label, pair)
        for label, pair in enumerate(zip_longest(classes, names))
        if pair[0] != pair[1]
    ]
    if differing:
        total = max(len(classes), len(names))
        first = "; ".join(
            f"{label} is {_shown(got)}, expected {_shown(wanted)}"
            for label, (got, wanted) in differing[:3]
        )
        more = "; ..." if len(differing) > 3 else ""
        raise ValueError(
            f"{len(differing)} of {total} classes are not as expected{where}: {first}{more}"
        )


def class_names(classes: Classes) -> tuple[str, ...]:
    """Class names in order: given, or those of a file."""
    return read_classes(classes) if isinstance(classes, (str, Path)) else tuple(classes)


def check_unique(names: Sequence[str]) -> None:
    """Refuse two classes of one name."""
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"each class must have a name of its own, got twice: {few(twice)}")


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether the classes of a list without names: ``"0"``, ``"1"``, ..."""
    return len(classes) > 0 and all(name == str(label) for label, name in enumerate(classes))


def few(names: Sequence[str], limit: int = 8) -> str:
    """The first names, for an error."""
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


def _names_of_json(file: Path, content: Any) -> list[str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if isinstance(content, dict):
        order = [str(label) for label in range(len(content))]
        # Something-Something writes its indices as strings.
        by_index = {str(index): name for name, index in content.items()}
        if set(content) == set(order) != set(by_index):
            by_index = content
        if set(by_index) == set(order) and all(isinstance(n, str) for n in by_index.values()):
            return [by_index[index] for index in order]
    raise ValueError(f"{file} must list the classes or map each to its own index 0 to K - 1")


def _names_of_lines(file: Path, lines: list[str]) -> list[str]:
    if lines and _lists_videos(lines[0]):
        raise ValueError(
            f"{file} lists videos, expected class names in order: it begins with {lines[0][:80]!r}"
        )
    if lines and re.fullmatch(r"(id|index|label)\W+(name|class|label)", lines[0], re.IGNORECASE):
        lines = lines[1:]
    numbered = [re.fullmatch(r"(\d+)\s*[\s,;]\s*(\S.*)", line) for line in lines]
    if not all(numbered):
        return lines
    by_index = {int(line[1]): line[2] for line in numbered}
    for first in (0, 1):
        order = range(first, first + len(lines))
        if by_index.keys() == set(order):
            return [by_index[index] for index in order]
    raise ValueError(
        f"{file} numbers its {len(lines)} classes {min(by_index)} to {max(by_index)}: expected "
        "each number from 0 or from 1 on once"
    )


def _lists_videos(line: str) -> bool:
    """Whether a list of videos begins so: with names of columns, or with a path."""
    columns = {cell.strip().strip('"').lower() for cell in re.split("[\t;,]", line)}
    return "youtube_id" in columns or columns >= {"path", "label"} or bool(_VIDEO.search(line))


def _shown(name: str | None) -> str:
    return "missing" if name is None else repr(name)
