"""The page on which a reader looks around in what a model sees."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from gasmcast.explanation import ClipInspection, inspect_clip
from gasmcast.explanation.clip import sample_clip
from gasmcast.explanation.inspection import class_names_of, find_class
from gasmcast.video import VideoReadError
from gasmcast.visualization.canvas import check_path
from gasmcast.visualization.inspected import Video
from gasmcast.visualization.page_data import clip_data, color_data, rule_data
from gasmcast.whole_file import whole_file

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel

SCRIPTS = ("numbers.js", "viewer.js", "page.js")  # in the order in which they need each other


def write_report(
    model: TemporalCrossAttentionModel | None,
    videos: Video | Iterable[Video],
    path: str | PathLike,
    *,
    labels: int | str | Sequence[int | str | None] | None = None,
    names: str | Sequence[str | None] | None = None,
) -> Path:
    """One HTML file in which to see what a model saw in one clip or several.

    The file holds all it needs and opens without a network. It plays the clip; a patch or a segment
    under the pointer shows its edges with their rules and its attention; switches choose layer,
    head, direction, and class. Several clips come with an index, and two can be compared side by
    side. Attention and evidence are in the file as the model computed them, in float32; the frames
    are JPEG. The same input gives the same bytes.

    Args:
        model: Any :class:`~gasmcast.TemporalCrossAttentionModel`. None where all ``videos`` are
            inspections.
        videos: One video or several: each whatever
            :func:`~gasmcast.explanation.inspect_clip` takes, or what it returned.
        path: Where to write; its folder has to be there.
        labels: The true class of each video, by number or name, to mark right and wrong; None
            where it is not known.
        names: What to call each video; None or by default the name of its file, with as much of
            its path as tells it from another of this name, or ``"clip 1"`` and so on.

    Returns:
        ``path``.

    Raises:
        OSError: The file cannot be written.
        VideoReadError: Files that cannot be read, all of them, a line each. All are read before the
            model runs, and once more when it does, so that they do not have to fit in memory.
        ValueError: No videos, or one that :func:`~gasmcast.explanation.inspect_clip` does not take;
            labels or names that do not fit them; a class that the model does not have; no model
            where one is needed; logits that are not finite; a ``path`` with a character that no
            file name can hold.

    Example:
        >>> from gasmcast.visualization import write_report
        >>> write_report(model, ["a.mp4", "b.mp4"], "report.html")  # doctest: +SKIP
    """
    path = Path(path)
    check_path(path)
    videos = [videos] if isinstance(videos, Video) else list(videos)
    if not videos:
        raise ValueError("videos must hold at least one video, got none")
    truths = _check_labels(model, videos, _one_a_video("labels", labels, videos))
    titles = _one_a_video("names", names, videos)
    for title in titles:
        if not isinstance(title, str | None):
            raise ValueError(f"a name must be text, or None for that of the file, got {title!r}")
    titles = _titles(titles, _read_all(model, videos))
    clips = []
    for video, truth, title in zip(videos, truths, titles, strict=True):
        seen = video if isinstance(video, ClipInspection) else inspect_clip(model, video)
        if not seen.logits.isfinite().all():
            raise ValueError(f"the logits of {title!r} are not finite: {seen.logits.tolist()}")
        # Encoded one by one: many clips do not have to fit in memory as tensors.
        clips.append(clip_data(seen, title, truth))
    html = _page({"clips": clips, "rules": rule_data(), "colors": color_data()})
    with whole_file(path) as file:
        file.write(html.encode())
    return path


def _one_a_video(what: str, values: int | str | Sequence | None, videos: list) -> list:
    if values is None:
        return [None] * len(videos)
    several = isinstance(values, Iterable) and not isinstance(values, str)
    values = list(values) if several else [values]
    if len(values) != len(videos):
        raise ValueError(f"{what} must be one a video, {len(videos)}, got {len(values)}")
    return values


def _check_labels(
    model: TemporalCrossAttentionModel | None, videos: list[Video], labels: list
) -> list[int | None]:
    """The numbers of the classes."""
    truths = []
    for video, label in zip(videos, labels, strict=True):
        if isinstance(video, ClipInspection):
            known = video.class_names
        elif model is not None:
            known = class_names_of(model)
        else:
            raise ValueError("a model is needed for videos that are not inspected yet, got None")
        truths.append(None if label is None else find_class(known, label))
    return truths


def _read_all(model: TemporalCrossAttentionModel | None, videos: list[Video]) -> list[str | None]:
    """The path of each video, None for a tensor; read to know that they can be."""
    paths, failures = [], []
    for video in videos:
        try:
            seen = video if isinstance(video, ClipInspection) else sample_clip(model, video)
        except VideoReadError as error:
            failures.append(error)
        else:
            paths.append(seen.name)
    if failures:
        first, *others = failures
        raise VideoReadError(first.path, "\n".join([first.reason, *map(str, others)]))
    return paths


def _titles(given: list[str | None], paths: list[str | None]) -> list[str]:
    """What each video is called: as the caller says, by its file, or by its number."""
    pairs = list(zip(given, paths, strict=True))
    short = _told_apart({path for title, path in pairs if path and not title})
    return [
        title or short.get(path) or f"clip {number}"
        for number, (title, path) in enumerate(pairs, start=1)
    ]


def _told_apart(paths: set[str]) -> dict[str, str]:
    """Of each path the end that no other has."""
    parts = {path: Path(path).parts for path in paths}

    def end(own: tuple[str, ...]) -> str:
        others = [other for other in parts.values() if other != own]
        ends = (own[-count:] for count in range(1, len(own)))
        alone = (end for end in ends if all(other[-len(end) :] != end for other in others))
        return str(Path(*next(alone, own)))

    return {path: end(own) for path, own in parts.items()}


def _page(data: dict) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=PackageLoader("gasmcast.visualization", "page"),
        autoescape=True,
        undefined=StrictUndefined,
    )

    def source(name: str) -> str:
        return templates.loader.get_source(templates, name)[0]

    style, script = source("page.css"), "\n".join(map(source, SCRIPTS))
    # The browser itself holds the page to what it promises: only these two run, nothing is fetched.
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return templates.get_template("page.html.j2").render(
        policy=policy, style=Markup(style), script=Markup(script), data=data
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
