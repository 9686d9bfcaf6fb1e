"""Figures without global state, and where they are written."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from gasmcast.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150


def new_figure(figsize: tuple[float, float]) -> Figure:
    """A figure of so many inches that nobody else knows of.

    Not through pyplot: nothing global is kept, and it works without a display.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(figsize: tuple[float, float]) -> Axes:
    """The axes of such a figure; ``ax.figure`` is the figure."""
    return new_figure(figsize).add_subplot()


def check_figure_path(save_path: str | PathLike | None) -> None:
    """Raise before any work where a figure could not be written; None is written nowhere.

    Raises:
        ValueError: The ending is of no picture format.
        OSError: As for :func:`check_path`.
    """
    if save_path is None:
        return
    path = Path(save_path)
    known = new_figure((1, 1)).canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise ValueError(
            f"cannot write a picture as {path.suffix!r} ({path}): expected one of "
            f"{', '.join(sorted(known))}"
        )
    check_path(path)


def check_path(path: Path) -> None:
    """Raise before any work where a file could not be written.

    Raises:
        OSError: The folder is not there or cannot be written to, the path is a folder, or its name
            is too long.
        ValueError: The name has a character that none can hold.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: its folder {path.parent} is not there")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    try:
        # Under a name as long as that of the unfinished file (whole_file).
        NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=f"{'0' * 24}.part"
        ).close()
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error}") from error


def check_folder(folder: str | PathLike) -> None:
    """Raise before any work where no files could be written into a folder.

    It need not be there yet, and is not made: then it is seen whether it could be.

    Args:
        folder: Where files are to be written.

    Raises:
        OSError: It is a file or in one, or it cannot be made or written to.

    Example:
        >>> from gasmcast.visualization import check_folder
        >>> check_folder(__file__)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        NotADirectoryError: cannot write to ...canvas.py: it is a file
    """
    folder = Path(folder)
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if there.is_dir():
            NamedTemporaryFile(dir=there).close()
            return
    except OSError as error:
        raise type(error)(f"cannot write to {folder}: {error.strerror}") from error
    what = "it" if there == folder else there
    raise NotADirectoryError(f"cannot write to {folder}: {what} is a file")


def save(figure: Figure, save_path: str | PathLike | None) -> Figure:
    """Write a figure in the format that the ending names, whole or not at all; return it.

    Text stays text: it can be searched, and edited in a drawing program.
    """
    if save_path is not None:
        import matplotlib as mpl

        path = Path(save_path)
        text = {"pdf.fonttype": 42, "svg.fonttype": "none"}
        with whole_file(path) as file, mpl.rc_context(text):
            figure.savefig(file, dpi=DOTS_PER_INCH, format=path.suffix.lstrip(".").lower())
    return figure
