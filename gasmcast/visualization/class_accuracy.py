"""How well each class is recognised."""

from __future__ import annotations

from math import sqrt
from os import PathLike
from statistics import NormalDist
from typing import TYPE_CHECKING

from gasmcast.visualization.canvas import check_figure_path, new_axes, save
from gasmcast.visualization.labels import plain_label
from gasmcast.visualization.run_files import ClassCount, read_class_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure

MOST_BARS = 50
EACH_END = 20  # of more classes, so many of the best and of the worst


def visualize_class_accuracy(
    run: str | PathLike, save_path: str | PathLike | None = None
) -> Figure:
    """The accuracy of each class of a training run or an evaluation, best first.

    That of :func:`draw_class_accuracy`, as high as the classes need.

    Args:
        run: Folder of a training run that has ended, or of an evaluation.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg).

    Returns:
        The matplotlib figure.

    Raises:
        OSError: There is no ``per_class.csv``; ``save_path`` cannot be written.
        ValueError: It is damaged or empty; ``save_path`` ends in no picture format.
    """
    check_figure_path(save_path)
    results = read_class_counts(run)
    ax = new_axes(_size(results))
    _draw(ax, results)
    return save(ax.figure, save_path)


def draw_class_accuracy(run: str | PathLike, ax: Axes | None = None) -> BarContainer:
    """A bar for each class: the share of its videos that were named right, best first.

    The number of videos stands behind the name. The whiskers are the 95 % interval of
    :func:`wilson_interval`: with few videos, an accuracy is known roughly only. Lines show chance,
    one in K, and the mean over the classes that have videos. A class without videos has no bar,
    and stands at the end. Of more than 50 classes with videos, the 20 best and the 20 worst are
    shown.

    Args:
        run: Folder of a training run that has ended, or of an evaluation.
        ax: Where to draw; a new figure by default.

    Returns:
        The bars of the classes that have videos, from the top, with their whiskers.

    Raises:
        OSError: There is no ``per_class.csv``.
        ValueError: It is damaged or empty.
    """
    results = read_class_counts(run)
    return _draw(ax or new_axes(_size(results)), results)


def wilson_interval(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Bounds of a share of which ``right`` in ``total`` cases were seen.

    .. math::
        \frac{1}{1 + z^2/n} \left( \hat{p} + \frac{z^2}{2n}
        \pm z \sqrt{\frac{\hat{p}(1 - \hat{p})}{n} + \frac{z^2}{4n^2}} \right)

    with :math:`\hat{p}` = ``right / total``, n = ``total`` and z the normal quantile. It
    stays within 0 and 1, and has a width also where all cases are right.

    Args:
        right: Cases seen, 0 to ``total``.
        total: Cases in all, at least 1.
        confidence: Between 0 and 1.

    Raises:
        ValueError: A number out of its range.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference (Journal of
    the American Statistical Association 22, 1927).

    >>> low, high = wilson_interval(8, 8)
    >>> round(low, 3), high
    (0.676, 1.0)
    """
    if not (0 <= right <= total and total >= 1):
        raise ValueError(f"right must be 0 to total and total at least 1, got {right} of {total}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = right / total, z * z / total
    center = share + spread / 2
    reach = z * sqrt(share * (1 - share) / total + spread / (4 * total))
    # Rounding must not take it past what it is a bound of.
    low = min((center - reach) / (1 + spread), share) if right else 0.0
    high = max((center + reach) / (1 + spread), share) if right < total else 1.0
    return low, high


def _size(results: list[ClassCount]) -> tuple[float, float]:
    return 8.6, 1.3 + 0.24 * max(len(_rows(results)), 3)


def _draw(ax: Axes, results: list[ClassCount]) -> BarContainer:
    rows = _rows(results)
    places = {row: result for row, result in enumerate(rows) if isinstance(result, ClassCount)}
    bars = {row: result for row, result in places.items() if result.videos}
    shares = [result.right / result.videos for result in bars.values()]
    bounds = [wilson_interval(result.right, result.videos) for result in bars.values()]
    whiskers = [
        [share - low for share, (low, _) in zip(shares, bounds, strict=True)],
        [high - share for share, (_, high) in zip(shares, bounds, strict=True)],
    ]
    drawn = ax.barh(
        list(bars),
        shares,
        height=0.72,
        color="#56b4e9",
        xerr=whiskers,
        error_kw={"ecolor": "#222222", "elinewidth": 0.9, "capsize": 2},
    )
    labels = [f"{plain_label(result.name)}  ({result.videos})" for result in places.values()]
    ax.set_yticks(list(places), labels, fontsize="small")
    for row, result in enumerate(rows):
        if isinstance(result, str) or not result.videos:
            text = result if isinstance(result, str) else "no videos"
            ax.text(0.01, row, text, va="center", fontsize="small", color="#555555")
    shown = [result for result in results if result.videos]
    if shown:
        mean = sum(result.right / result.videos for result in shown) / len(shown)
        ax.axvline(mean, color="#d55e00", lw=1.4, label=f"mean over classes, {mean:.1%}")
    chance = 1 / len(results)
    ax.axvline(chance, color="#222222", lw=1.2, ls=":", label=f"chance, {chance:.1%}")
    ax.set(xlim=(0, 1.02), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel("accuracy, with 95 % interval (in brackets: number of videos)", fontsize="small")
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="small")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize="small")
    return drawn


def _rows(results: list[ClassCount]) -> list[ClassCount | str]:
    """What stands in each row, from the top: a class, or what is to be said of those left out."""
    with_videos = sorted(
        (result for result in results if result.videos),
        key=lambda result: result.right / result.videos,
        reverse=True,  # stable: equals stay in the order of the classes
    )
    without = [result for result in results if not result.videos]
    if len(with_videos) > MOST_BARS:
        between = len(with_videos) - 2 * EACH_END
        with_videos[EACH_END:-EACH_END] = [f"{between} classes between"]
    if len(without) > EACH_END:
        without = [f"{len(without)} classes without videos"]
    return [*with_videos, *without]
