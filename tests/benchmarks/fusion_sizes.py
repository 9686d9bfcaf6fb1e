"""What fusion costs as the work grows: more patches, more segments, a wider bottleneck."""

import gc
import sys
from dataclasses import replace

from matplotlib.figure import Figure

from benchmarks.fusion import ABSORBED, OURS, PLAIN, TINY, VANILLA, Case, Stacks, flops_of
from benchmarks.machine import Machine
from benchmarks.measure import Effort, Way, measure
from benchmarks.page import Illustrated, table

PICTURE = "images/fusion_cost.png"
WAYS = (VANILLA, ABSORBED, PLAIN, OURS)
COLOURS = dict(zip(WAYS, ("#7f7f7f", "#d98c00", "#7fb2e5", "#0b4f8a"), strict=True))
BASE = Case(4)
GROWING = {
    "patches": [replace(BASE, grid=(side, side)) for side in (14, 28, 56)],
    "segments": [replace(BASE, segments=segments) for segments in (8, 16, 32, 64)],
    "bottleneck": [replace(BASE, dim=dim) for dim in (64, 128, 256, 512)],
}
TINY_GROWING = {
    "patches": [TINY, replace(TINY, grid=(3, 4))],
    "segments": [TINY],
    "bottleneck": [TINY],
}


def run(effort: Effort) -> Illustrated:
    """Measure a training step at every size; the section of the page, with a picture."""
    machine = Machine(effort.device, ())
    growing = TINY_GROWING if effort.tiny else GROWING
    brief = replace(effort, seconds=effort.seconds / 8, min_rounds=min(effort.min_rounds, 3))
    points = [_measure_case(what, case, brief) for what, cases in growing.items() for case in cases]
    rows = [
        [
            point["what"],
            point["size"],
            *(f"{point['flops'][name] / 1e9:.1f}" for name in WAYS),
            *(f"{1000 * point['seconds'][name]:.0f}" for name in WAYS),
            f"{point['seconds'][OURS] / point['seconds'][VANILLA]:.2f}",
        ]
        for point in points
    ]
    header = (
        "grows",
        "to",
        *(f"GFLOPs, {name}" for name in WAYS),
        *(f"ms, {name}" for name in WAYS),
        "time, bottleneck / vanilla",
    )
    text = "\n\n".join([f"Measured on: {machine}.", table(header, rows)])
    return Illustrated(text, PICTURE, draw(points), "Cost as the work grows")


def _measure_case(what: str, case: Case, effort: Effort) -> dict[str, object]:
    gc.collect()  # of the last case; the largest are large
    stacks = Stacks(case, effort.device)
    steps = {name: stacks.step(name) for name in WAYS}
    measured = measure([Way(name, step) for name, step in steps.items()], effort)
    point = {
        "what": what,
        "size": {"patches": case.patches, "segments": case.segments, "bottleneck": case.dim}[what],
        "flops": {name: flops_of(step) for name, step in steps.items()},
        "seconds": {name: measured.milliseconds(name).median / 1000 for name in WAYS},
    }
    print(what, point["size"], point["seconds"], file=sys.stderr, flush=True)
    return point


def draw(points: list[dict[str, object]]) -> Figure:
    """One column for each thing that grows: operations above, time below."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    growing = list(dict.fromkeys(point["what"] for point in points))
    axes = figure.subplots(2, len(growing), sharex="col", sharey="row", squeeze=False)
    units = (("flops", 1e9, "GFLOPs, training step"), ("seconds", 1e-3, "ms, training step"))
    for column, what in enumerate(growing):
        mine = [point for point in points if point["what"] == what]
        sizes = [point["size"] for point in mine]
        for row, (quantity, unit, label) in enumerate(units):
            ax = axes[row, column]
            for name in WAYS:
                values = [point[quantity][name] / unit for point in mine]
                ax.plot(sizes, values, marker="o", color=COLOURS[name], label=name)
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(sizes, [str(size) for size in sizes])
            ax.set_xticks([], minor=True)
            ax.grid(alpha=0.3, which="both")
            if column == 0:
                ax.set_ylabel(label)
        axes[0, column].set_title(
            {"patches": "patches", "segments": "segments", "bottleneck": "width of the bottleneck"}[
                what
            ]
        )
    axes[0, 0].legend(fontsize="small")
    return figure
