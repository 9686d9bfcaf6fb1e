"""Does what is attended to matter to the class? Tokens and pixels are deleted to see."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from scipy.stats import t as student
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import Machine
from benchmarks.measure import Effort
from benchmarks.page import Illustrated, table
from benchmarks.quickstart_models import models_and_clips
from gasmcast.explanation import (
    LAYERS,
    ClipInspection,
    DeletionCurve,
    deletion_curve,
    inspect_clip,
    pixel_deletion_curve,
)
from gasmcast.explanation.inspection import Stream

PICTURE = "images/deletion.png"
RANDOM = "random"
# What is deleted, and how many random orders stand for chance.
DELETED = {"tokens of patches": 20, "pixels of patches": 6, "tokens of segments": 20}
STEPS = {"tokens of patches": 16, "pixels of patches": 7, "tokens of segments": 7}
DRAWN = {
    "class evidence": ("#0072b2", "-"),
    "cross-attention, action": ("#d55e00", "--"),
    "graph attention": ("#009e73", "-."),
    "change of the pixels": ("#cc79a7", ":"),
    RANDOM: ("#555555", "-"),
}


class Curves(NamedTuple):
    """Of one ranking over all models M and clips N: most important first, and least first.

    Of random orders, both are the mean over the orders.
    """

    most: Tensor
    least: Tensor
    removed: Tensor

    def areas(self) -> tuple[Tensor, Tensor]:
        """[M, N] each."""
        return tuple(DeletionCurve(self.removed, None, p).area for p in (self.most, self.least))


def graph_attention_received(seen: ClipInspection, stream: Stream) -> Tensor:
    """How much the other tokens of a graph attend to each, [N]; the mean over heads."""
    graph, attention = seen.graph(stream), seen.graph_attention(stream)
    source, target = graph.edge_index
    others = source != target
    return torch.zeros(graph.num_nodes).index_add_(0, source[others], attention[others])


def importance(seen: ClipInspection, stream: Stream) -> dict[str, Tensor]:
    """What may say how much each token of a stream matters to the predicted class, [N]."""
    direction = "motion_to_semantic" if stream == "spatial" else "semantic_to_motion"
    second = seen.top(2)[1][0]
    evidence, difference = seen.evidence(), seen.evidence(against=second)
    index = 0 if stream == "spatial" else 1
    scores = {
        **{
            f"cross-attention, {layer}": seen.cross_attention(layer, direction).mean(dim=0)
            for layer in LAYERS
        },
        "graph attention": graph_attention_received(seen, stream),
        "class evidence": evidence[index],
        "class evidence against the second class": difference[index],
    }
    if stream == "spatial":
        change = seen.frames.std(dim=0).mean(dim=0)
        scores["change of the pixels"] = F.adaptive_avg_pool2d(
            change[None], seen.grid_size
        ).flatten()
    return scores


def measure_curves(effort: Effort) -> dict[str, dict[str, Curves]]:
    """Curves of every ranking for all that is deleted, the class that each clip was given."""
    found: dict[str, dict[str, list]] = {what: {} for what in DELETED}
    removed = {}
    generator = torch.Generator().manual_seed(0)
    count = 0
    for model, clips in models_and_clips(effort):
        count += 1
        for clip in clips:
            seen = inspect_clip(model, clip)
            for what, random_orders in DELETED.items():
                stream = "temporal" if what.endswith("segments") else "spatial"
                scores = importance(seen, stream)
                orders = torch.stack([s.argsort(descending=True) for s in scores.values()])
                random = torch.stack(
                    [
                        torch.randperm(orders.size(1), generator=generator)
                        for _ in range(2 if effort.tiny else random_orders)
                    ]
                )
                delete: Callable[..., DeletionCurve] = (
                    pixel_deletion_curve
                    if what.startswith("pixels")
                    else partial(deletion_curve, stream=stream)
                )
                curve = delete(
                    model,
                    seen,
                    torch.cat([orders, orders.flip(1), random]),
                    steps=2 if effort.tiny else STEPS[what],
                )
                removed[what] = curve.removed
                most, least, chance = curve.probabilities.split(
                    [len(orders), len(orders), len(random)]
                )
                for name, *both in zip(scores, most, least, strict=True):
                    found[what].setdefault(name, []).append(torch.stack(both))
                chance = chance.mean(dim=0)
                found[what].setdefault(RANDOM, []).append(torch.stack([chance, chance]))
    return {
        what: {
            name: Curves(*torch.stack(curves).unflatten(0, (count, -1)).unbind(2), removed[what])
            for name, curves in rankings.items()
        }
        for what, rankings in found.items()
    }


def run(effort: Effort) -> Illustrated:
    """Measure all and return the section of the page, with a picture."""
    machine = Machine(effort.device, ("scipy",))
    curves = measure_curves(effort)
    return report(curves, str(machine))


def report(curves: dict[str, dict[str, Curves]], machine: str) -> Illustrated:
    """What :func:`measure_curves` found, as tables and a picture."""
    parts = [f"Measured on: {machine}."]
    for what, rankings in curves.items():
        chance = rankings[RANDOM]
        models, clips, points = chance.most.shape
        begin, end = chance.most[..., 0].mean(), chance.most[..., -1].mean()
        parts.append(
            f"**{what.capitalize()}**, {points} points, {DELETED[what]} random orders a clip. "
            f"{models} models, {clips} clips: the predicted class has a probability of {begin:.3f} "
            f"with nothing deleted and of {end:.3f} with all but one deleted at random."
        )
        rows = []
        for name, ranking in rankings.items():
            most, least = ranking.areas()
            if name == RANDOM:
                rows.append([name, f"{most.mean():.3f}", "0", "", ""])
                continue
            by_chance = chance.areas()[0]
            rows.append(
                [
                    name,
                    f"{most.mean():.3f}",
                    _mean_and_interval(most - by_chance),
                    ", ".join(f"{difference:+.3f}" for difference in (most - by_chance).mean(1)),
                    _mean_and_interval(least - by_chance),
                ]
            )
        header = (
            "deleted first",
            "area",
            "area - random",
            "of each model",
            "least important first - random",
        )
        parts.append(table(header, rows))
    alt = "Probability of the predicted class as tokens or pixels are deleted, in five orders"
    return Illustrated("\n\n".join(parts), PICTURE, draw(curves), alt)


def _mean_and_interval(differences: Tensor) -> str:
    """Mean and 95 % interval over clips of the mean over models; ``differences`` is [M, N]."""
    middle, half = _interval(differences)
    return f"{middle:+.3f} ± {half:.3f}"


def _interval(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and half the 95 % t interval over clips; [M, N, ...] gives [...]."""
    clips = values.mean(dim=0)
    half = student.ppf(0.975, len(clips) - 1) * clips.std(dim=0) / len(clips) ** 0.5
    return clips.mean(dim=0), half


def draw(curves: dict[str, dict[str, Curves]]) -> Figure:
    """Mean probability as more is deleted, with 95 % intervals over clips."""
    figure = Figure(figsize=(9.5, 3.5), layout="constrained")
    # One scale for all: what looks like a fall must be one.
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (what, rankings) in zip(axes, curves.items(), strict=True):
        for name, (colour, style) in DRAWN.items():
            if name not in rankings:
                continue
            ranking = rankings[name]
            removed = ranking.removed / (ranking.removed[-1] + 1)
            middle, half = _interval(ranking.most)
            ax.plot(removed, middle, style, color=colour, label=name)
            ax.fill_between(removed, middle - half, middle + half, color=colour, alpha=0.18, lw=0)
        ax.set_title(what, fontsize="medium")
        ax.set_xlabel("share deleted")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylim=(0, 1), ylabel="probability of the predicted class")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    return figure
