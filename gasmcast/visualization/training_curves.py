"""How a training run went, as curves."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gasmcast.visualization.canvas import check_figure_path, new_axes, new_figure, save
from gasmcast.visualization.labels import plain_label
from gasmcast.visualization.run_log import RunLog, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Runs = str | PathLike | Sequence[str | PathLike]
Measure = Literal["loss", "top1", "learning_rate"]

MEASURES = {"loss": "loss", "top1": "top-1 accuracy", "learning_rate": "learning rate"}
# Okabe and Ito, those that are dark enough for lines.
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = {
    "training": {"ls": "--", "marker": "o", "ms": 3.5, "mfc": "white", "lw": 1.4},
    "validation": {"ls": "-", "marker": "o", "ms": 3.5, "lw": 1.6},
    "training, single batches": {"ls": "-", "lw": 0.7, "alpha": 0.35},
    "epoch that was saved": {
        "ls": "none",
        "marker": "*",
        "ms": 13,
        "mec": "black",
        "mew": 0.7,
        "clip_on": False,
    },
    "learning rate": {"ls": "-", "lw": 1.6},
}


def visualize_training_curves(runs: Runs, save_path: str | PathLike | None = None) -> Figure:
    """Loss, accuracy and learning rate of one training run, or of several to compare.

    Each panel is a :func:`draw_training_curve`, against epochs; against steps where a run has not
    finished its first epoch. Training is dashed, validation is solid; of several runs, each has
    a colour.

    Args:
        runs: Folder of a run, finished or not; or several folders.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg).

    Returns:
        The matplotlib figure.

    Raises:
        OSError: A folder is not there or has no log; ``save_path`` cannot be written.
        ValueError: A log is damaged or empty; no folder; ``save_path`` ends in no picture format.
    """
    check_figure_path(save_path)
    logs = _read(runs)
    figure = new_figure(figsize=(12, 4.2))
    panels = figure.subplots(1, len(MEASURES), width_ratios=(1, 1, 0.8))
    drawn = [
        line
        for ax, measure in zip(panels, MEASURES, strict=True)
        for line in _draw(ax, logs, measure)
    ]
    _legend(figure, logs, {line.get_gid() for line in drawn})
    return save(figure, save_path)


def draw_training_curve(runs: Runs, measure: Measure, ax: Axes | None = None) -> list[Line2D]:
    """One measure of one training run, or of several, as its log has it.

    Nothing is smoothed. ``"loss"`` shows the loss of the single batches that were logged, faint,
    and over it their mean in each epoch, in the middle of them, and the validation loss, where it
    was logged. In training the loss is that of smoothed labels and of mixed videos, where the run
    had them, in validation it is not: the two can lie apart without overfitting.

    ``"top1"`` shows the share of videos named right: in training over each epoch, while the weights
    changed, in validation at its end. A star marks the epoch that was saved, the first of the
    highest validation accuracy. ``"learning_rate"`` is that of all parameters.

    A run that was resumed is shown as one: from the first step that a later start logged, its
    values replace those of the start before. In an epoch that was resumed in its middle, the
    accuracy of training is that of the part since.

    Args:
        runs: Folder of a run, finished or not; or several folders.
        measure: ``"loss"``, ``"top1"`` or ``"learning_rate"``.
        ax: Where to draw; a new figure by default.

    Returns:
        The lines, their ``gid`` saying what each shows: ``"training, single batches"``,
        ``"training"``, ``"validation"``, ``"epoch that was saved"``, ``"learning rate"``.

    Raises:
        OSError: A folder is not there or has no log.
        ValueError: A log is damaged or empty; no folder; another measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    logs = _read(runs)
    return _draw(ax or new_axes((4.5, 3.6)), logs, measure)


def run_names(runs: Sequence[str | PathLike]) -> list[str]:
    """What tells the runs apart: the name of each folder, or all of its path where two share it."""
    names = [Path(run).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [fspath(run) for run in runs]


def _read(runs: Runs) -> dict[str, RunLog]:
    folders = [runs] if isinstance(runs, str | PathLike) else list(runs)
    if not folders:
        raise ValueError("expected the folder of at least one run, got none")
    return {
        name: read_log(folder) for name, folder in zip(run_names(folders), folders, strict=True)
    }


def _draw(ax: Axes, logs: dict[str, RunLog], measure: str) -> list[Line2D]:
    in_epochs = all(log.steps_per_epoch for log in logs.values())
    lines = []
    for log, color in zip(logs.values(), _colors(len(logs)), strict=True):
        unit = log.steps_per_epoch if in_epochs else 1
        for what, steps, values in _series(log, measure):
            done = [step / unit for step in steps]
            shade = _single_color(what) if len(logs) == 1 else color
            lines += ax.plot(done, values, color=shade, gid=what, **STYLES[what])
    ax.set(title=MEASURES[measure], xlabel="epochs" if in_epochs else "steps")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlim(left=0)
    if measure == "top1":
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.set_ylim(0, 1.03)
    else:
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", scilimits=(-2, 4))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    if not lines:
        ax.text(
            0.5, 0.5, "nothing logged yet", transform=ax.transAxes, ha="center", color="#555555"
        )
    return lines


def _series(log: RunLog, measure: str) -> list[tuple[str, list[int], list[float]]]:
    """What is drawn, at which steps, of which values; only what the log has."""
    if measure == "loss":
        found = [
            ("training, single batches", *log.series("train_loss")),
            ("training", *log.epoch_means("train_loss")),
            ("validation", *log.series("validation_loss")),
        ]
    elif measure == "top1":
        found = [
            ("training", *log.series("train_top1")),
            ("validation", *log.series("validation_top1")),
        ]
        if log.best is not None:
            found.append(("epoch that was saved", [log.best.step], [log.best.top1]))
    else:
        # All groups of parameters have the same.
        column = next((name for row in log.rows for name in row.values if name[:3] == "lr-"), "lr-")
        found = [("learning rate", *log.series(column))]
    return [series for series in found if series[1]]


def _legend(figure: Figure, logs: dict[str, RunLog], shown: set[str]) -> None:
    """A line for each run, where there are several, and one for each style that is shown."""
    from matplotlib.lines import Line2D

    several = len(logs) > 1
    colors = _colors(len(logs))
    handles = {}
    for (name, log), color in zip(logs.items(), colors, strict=True):
        saved = f"{log.best.epoch + 1}, {log.best.top1:.1%}" if log.best else ""
        if several:
            label = plain_label(name) + (f" (saved: epoch {saved})" if saved else "")
            handles[label] = Line2D([], [], color=color, lw=3)
    for what, style in STYLES.items():
        if what in shown and what != "learning rate":
            label = what if several or what != "epoch that was saved" else f"{what} ({saved})"
            shade = "#555555" if several else _single_color(what)
            handles[label] = Line2D([], [], color=shade, **style)
    if handles:
        widths = [len(label) + 8 for label in handles]  # in letters; so many find room
        columns = len(widths) if sum(widths) <= 160 else max(1, 160 // max(widths))
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )


def _single_color(what: str) -> str:
    """A run by itself leaves a second colour to tell training from validation."""
    return RUN_COLORS[1] if what in ("validation", "epoch that was saved") else RUN_COLORS[0]


def _colors(count: int) -> list:
    from matplotlib import colormaps

    if count <= len(RUN_COLORS):
        return list(RUN_COLORS[:count])
    return [colormaps["viridis"](0.95 * run / (count - 1)) for run in range(count)]
