"""What came out, as figures: the newest version of the design."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from interaction_study.corruption import CORRUPTIONS
from interaction_study.markdown import difference
from interaction_study.results import Line, Results, described, finite
from interaction_study.statistics import Interval
from interaction_study.variants import REFERENCE

# Okabe and Ito, told apart by the colour-blind; each with a marker and a line of its own for print.
LOOKS = (
    {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    {"color": "#d55e00", "marker": "s", "linestyle": "--"},
    {"color": "#009e73", "marker": "^", "linestyle": "-."},
    {"color": "#cc79a7", "marker": "D", "linestyle": ":"},
)
HELD_OUT = {"test": "test clips", "combinations": "new combinations"}
BETWEEN_GROUPS = 0.7  # rows
FAR_BELOW = -16.0
"""Points; a variant below stands at the edge with its number: else all others would be as one."""


def write_figures(lines: list[Line], folder: Path) -> list[Path]:
    """Write ``study_*.png`` of the newest version of the design; the same lines, the same bytes.

    Args:
        lines: All lines of the file of runs.
        folder: Where to; made if need be.

    Returns:
        What was written. A figure of a part without a line is left out.
    """
    drawn: dict[str, Callable[[Results], Figure | None]] = {
        "differences": differences,
        "shares": shares,
        "corruption": corruption,
        "course": course,
    }
    written = []
    for results in Results.versions(lines)[:1]:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in drawn.items():
            figure = draw(results)
            if figure is not None:
                path = folder / f"study_{name}.png"
                # Without the version of matplotlib, which else would change the bytes.
                figure.savefig(path, dpi=110, metadata={"Software": None})
                written.append(path)
    return written


def differences(results: Results) -> Figure | None:
    """Each variant against GASM-CAST, a row each, a panel for each held-out split."""
    names = [name for name in results.variants("comparison") if name != REFERENCE]
    if not names or not results.select("comparison", REFERENCE):
        return None
    rows = dict(_rows(names))
    figure = Figure(figsize=(9.6, 1.5 + 0.29 * (max(rows.values()) + 1)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (split, title) in zip(panels, HELD_OUT.items(), strict=True):
        ax.axvline(0, color="#222222", lw=1)
        found = {name: results.difference("comparison", name, split) for name in names}
        found = {name: interval for name, interval in found.items() if interval is not None}
        for name, interval in found.items():
            _draw_difference(ax, interval, rows[name])
        # Of few seeds, intervals are so wide that nothing else could be seen.
        best = max((interval.mean for interval in found.values()), default=0.0)
        ax.set_xlim(FAR_BELOW - 1, max(10.0, best + 3))
        ax.set_title(title, fontsize="medium")
        _plain(ax, grid="x")
    panels[0].set_yticks(list(rows.values()), [described(name).text for name in rows])
    panels[0].set_ylim(max(rows.values()) + 0.7, -0.7)
    for group, members in groupby(names, key=lambda name: described(name).group):
        first, *_ = places = [rows[name] for name in members]
        if first > 0:
            for ax in panels:
                ax.axhline(first - (1 + BETWEEN_GROUPS) / 2, color="#cccccc", lw=0.8)
        panels[1].text(
            1.02,
            fmean(places),
            group,
            transform=panels[1].get_yaxis_transform(),
            va="center",
            style="italic",
            color="#555555",
        )
    figure.supxlabel(
        "points of top-1 above GASM-CAST, paired by seed, with 95 % interval "
        "(filled: excludes zero; cut where it leaves the figure)",
        fontsize="medium",
    )
    return figure


def shares(results: Results) -> Figure | None:
    """Accuracy against the share of the training clips, with intervals as bands."""
    names = results.variants("share")
    if not names:
        return None
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    found = sorted({line["share"] for line in results.select("share")})
    for ax, (split, title) in zip(panels, HELD_OUT.items(), strict=True):
        for name, look in zip(names, LOOKS, strict=False):
            means = {
                100 * share: results.mean(
                    "comparison" if share == 1 else "share", name, split, share=share
                )
                for share in (*found, 1.0)
            }
            means = {share: mean for share, mean in means.items() if mean is not None}
            places = list(means)
            ax.plot(places, [m.mean for m in means.values()], label=_text(name), **look)
            low, high = zip(*(_bounds(mean) for mean in means.values()), strict=True)
            ax.fill_between(places, low, high, color=look["color"], alpha=0.18, lw=0)
        ax.set_title(title, fontsize="medium")
        ax.set(xscale="log", xlabel="share of the training clips")
        ticks = [100 * share for share in (*found, 1.0)]
        ax.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
        ax.minorticks_off()
        _plain(ax, grid="y")
    panels[0].set(ylabel="top-1 in percent", ylim=(0, None))
    _legend_below(figure, *panels[0].get_legend_handles_labels())
    return figure


def corruption(results: Results) -> Figure | None:
    """Accuracy on corrupted clips, and how many of them are predicted as the opposite."""
    names = results.variants("comparison", CORRUPTIONS)
    if not names:
        return None
    measured = {
        "top1": "top-1 in percent",
        "changed": "changed predictions in percent",
        "opposite": "predicted as the opposite, in percent",
    }
    changes = ["test", *CORRUPTIONS]
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(measured), sharey=True)
    apart = 0.22  # rows, between the variants
    for ax, (measure, text) in zip(panels, measured.items(), strict=True):
        for number, (name, look) in enumerate(zip(names, LOOKS, strict=False)):
            means = [results.mean("comparison", name, change, measure) for change in changes]
            shown = [(row, mean) for row, mean in enumerate(means) if mean is not None]
            ax.errorbar(
                [mean.mean for _, mean in shown],
                [row + apart * (number - (len(names) - 1) / 2) for row, _ in shown],
                xerr=[_whisker(mean) or 0 for _, mean in shown],
                color=look["color"],
                marker=look["marker"],
                linestyle="none",
                ms=6,
                capsize=2.5,
                label=_text(name),
            )
        ax.set(xlim=(0, min(ax.get_xlim()[1], 102)), xlabel=text)
        _plain(ax, grid="x")
        for row in range(1, len(changes)):
            ax.axhline(row - 0.5, color="#dddddd", lw=0.8)
    panels[0].set_yticks(range(len(changes)), ["as they are", *CORRUPTIONS])
    panels[0].set_ylim(len(changes) - 0.5, -0.5)
    _legend_below(figure, *panels[0].get_legend_handles_labels())
    return figure


def course(results: Results) -> Figure | None:
    """Training loss and gradient norm over the steps: mean over the seeds, and their range."""
    runs = {
        "GASM-CAST, float32": results.select("comparison", REFERENCE),
        "GASM-CAST, bfloat16": results.select("bf16", REFERENCE),
        _text("cross_attention"): results.select("comparison", "cross_attention"),
    }
    # One that diverged ended early: its points are those of fewer steps.
    runs = {text: [line for line in lines if finite(line)] for text, lines in runs.items()}
    runs = {text: lines for text, lines in runs.items() if lines}
    if not runs:
        return None
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    measured = {"loss": "training loss", "gradient_norm": "gradient norm"}
    for ax, (measure, text) in zip(panels, measured.items(), strict=True):
        for (name, lines), look in zip(runs.items(), LOOKS, strict=False):
            columns = list(zip(*(line[measure] for line in lines), strict=True))
            places = [100 * (part + 0.5) / len(columns) for part in range(len(columns))]
            ax.plot(
                places,
                [fmean(column) for column in columns],
                color=look["color"],
                linestyle=look["linestyle"],
                lw=1.8,
                label=name,
            )
            ax.fill_between(
                places,
                *map(list, zip(*((min(c), max(c)) for c in columns), strict=True)),
                color=look["color"],
                alpha=0.18,
                lw=0,
            )
        ax.set(xlabel="steps, in percent of all", ylabel=text, ylim=(0, None), xlim=(0, None))
        _plain(ax, grid="y")
    _legend_below(figure, *panels[0].get_legend_handles_labels())
    return figure


def _draw_difference(ax: Axes, found: Interval, row: float) -> None:
    """A point with its interval, filled where that excludes zero."""
    color = LOOKS[0]["color"]
    if found.mean < FAR_BELOW:
        ax.plot(FAR_BELOW, row, color=color, marker="<", ms=6)
        text = difference(found, found.count).strip("*")
        ax.text(FAR_BELOW + 0.6, row, text, va="center", fontsize="small")
        return
    face = color if found.excludes_zero else "white"
    ax.errorbar(
        found.mean, row, xerr=_whisker(found), color=color, mfc=face, marker="o", ms=6, capsize=3
    )


def _rows(names: list[str]) -> Iterator[tuple[str, float]]:
    """Where each variant stands, from the top, with room between the groups."""
    place = 0.0
    for number, name in enumerate(names):
        if number:
            same = described(name).group == described(names[number - 1]).group
            place += 1 if same else 1 + BETWEEN_GROUPS
        yield name, place


def _text(name: str) -> str:
    """The variant in a legend: what is before the colon."""
    return described(name).text.partition(":")[0]


def _whisker(interval: Interval) -> float | None:
    return interval.half if interval.count > 1 else None


def _bounds(interval: Interval) -> tuple[float, float]:
    half = _whisker(interval) or 0
    return interval.mean - half, interval.mean + half


def _plain(ax: Axes, grid: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)


def _legend_below(figure: Figure, handles: list[Line2D], labels: list[str]) -> None:
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
