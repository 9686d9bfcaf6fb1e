"""Which classes a model takes for which."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from torch import Tensor

from gasmcast.visualization.canvas import check_figure_path, new_axes, new_figure, save
from gasmcast.visualization.labels import plain_label
from gasmcast.visualization.run_files import Confusion, read_confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST_COUNTS = 20  # classes up to which the cells have room for numbers
MOST_NAMES = 60  # classes up to which the rows have room for names
MOST_PAIRS = 25  # listed beside a matrix whose rows have no names
SHARES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
NO_VIDEOS = "#d9d9d9"


def visualize_confusion_matrix(
    run: str | PathLike, save_path: str | PathLike | None = None
) -> Figure:
    """The confusion matrix of a training run or an evaluation.

    That of :func:`draw_confusion_matrix`, with a colour bar. Where there are too many classes for
    their names, the pairs that were confused most often are listed beside it.

    Args:
        run: Folder of a training run that has ended, or of an evaluation.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg).

    Returns:
        The matplotlib figure.

    Raises:
        OSError: There is no ``confusion_matrix.csv``; ``save_path`` cannot be written.
        ValueError: It is damaged or empty; ``save_path`` ends in no picture format.
    """
    check_figure_path(save_path)
    confusion = read_confusion(run)
    size = len(confusion.classes)
    named = size <= MOST_NAMES
    side = min(max(3.2, (0.42 if size <= MOST_COUNTS else 0.15) * size), 9.0)
    longest = max(len(plain_label(name)) for name in confusion.classes)
    beside = 0.075 * longest + 1.6 if named else 7.0
    figure = new_figure(figsize=(side + beside, side + 0.8))
    widths = (side + beside,) if named else (side + 1.4, beside - 1.4)
    columns = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    image = _draw(columns[0], confusion)
    bar = figure.colorbar(image, ax=columns[0], shrink=0.8, aspect=30, pad=0.02, ticks=SHARES)
    bar.set_label("share of the videos of a class (square-root scale)", fontsize="small")
    bar.ax.set_yticklabels([f"{share:.0%}" for share in SHARES], fontsize="small")
    if not named:
        _list_pairs(columns[1], confusion)
    return save(figure, save_path)


def draw_confusion_matrix(run: str | PathLike, ax: Axes | None = None) -> AxesImage:
    """Videos of each class (row) by the class they were named (column), as shares of the row.

    Classes are in their order in the model, numbered from 0, as in labels. Up to 20 classes, cells
    hold the numbers of videos, an empty one is 0; up to 60, rows hold the names. The colour goes
    with the square root of the share, so that rare confusions are seen too. A class without videos
    has no shares: its row is grey.

    Args:
        run: Folder of a training run that has ended, or of an evaluation.
        ax: Where to draw; a new figure by default.

    Returns:
        The drawn matrix, [K, K], each row that has videos summing to 1.

    Raises:
        OSError: There is no ``confusion_matrix.csv``.
        ValueError: It is damaged or empty.
    """
    confusion = read_confusion(run)
    return _draw(ax or new_axes((8, 6)), confusion)


def most_confused(counts: Tensor, most: int) -> list[tuple[int, int, int]]:
    """Pairs of classes (shown, named) and how often, the most frequent first; equals in order.

    >>> import torch
    >>> most_confused(torch.tensor([[5, 1, 0], [3, 9, 0], [0, 0, 2]]), 5)
    [(1, 0, 3), (0, 1, 1)]
    """
    wrong = counts.clone().fill_diagonal_(0).flatten()
    order = wrong.sort(descending=True, stable=True).indices[:most]
    cells = [(*divmod(cell, counts.size(1)), int(wrong[cell])) for cell in order.tolist()]
    return [cell for cell in cells if cell[2]]


def _draw(ax: Axes, confusion: Confusion) -> AxesImage:
    from matplotlib.colors import PowerNorm

    classes, counts = confusion
    size = len(classes)
    videos = counts.sum(dim=1, keepdim=True)
    shares = counts.double() / videos  # nan without videos
    ax.set_facecolor(NO_VIDEOS)
    # Each cell to its pixels: smoothed, the shares of a large matrix would be mixed with others.
    image = ax.imshow(
        shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest"
    )
    ax.set(xlabel="named", ylabel="shown")
    step = max(1, -(-size // 40) if size <= 80 else 10)
    ax.set_xticks(range(0, size, step))
    if size <= MOST_NAMES:
        font = "small" if size <= MOST_COUNTS else 6.5
        names = [f"{plain_label(name)}  {label}" for label, name in enumerate(classes)]
        ax.set_yticks(range(size), names, fontsize=font)
    else:
        ax.set_yticks(range(0, size, step))
        ax.tick_params(axis="y", labelsize="small")
    ax.tick_params(axis="x", labelsize=6.5 if MOST_COUNTS < size <= MOST_NAMES else "small")
    ax.tick_params(length=2)
    if size <= MOST_COUNTS:
        _write_counts(ax, counts, shares)
        ax.set_xticks([edge - 0.5 for edge in range(1, size)], minor=True)
        ax.set_yticks([edge - 0.5 for edge in range(1, size)], minor=True)
        ax.grid(which="minor", color="#eeeeee", lw=0.6)
        ax.tick_params(which="minor", length=0)
    without = int((videos == 0).sum())
    if without:
        ax.set_title(f"grey: {without} of {size} classes without videos", fontsize="small")
    return image


def _write_counts(ax: Axes, counts: Tensor, shares: Tensor) -> None:
    for row, column in counts.nonzero().tolist():
        ax.text(
            column,
            row,
            f"{int(counts[row, column])}",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if shares[row, column] > 0.35 else "black",
        )


def _list_pairs(ax: Axes, confusion: Confusion) -> None:
    classes, counts = confusion
    ax.set_axis_off()
    ax.set_title("confused most often", fontsize="medium", loc="left")
    videos = counts.sum(dim=1).tolist()
    lines = [
        f"{number} of {videos[shown]}: {shown} {plain_label(classes[shown])}\n"
        f"      named {named} {plain_label(classes[named])}"
        for shown, named, number in most_confused(counts, MOST_PAIRS)
    ]
    text = "\n".join(lines) or "no video was named wrong"
    ax.text(0, 1, text, transform=ax.transAxes, va="top", fontsize="small", linespacing=1.3)
