"""What came out, as tables of a Markdown page that is included in another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, starmap
from pathlib import Path
from statistics import fmean

from gasmcast.datasets.interactions import ACTIONS
from interaction_study.corruption import CORRUPTIONS
from interaction_study.markdown import NOTHING, difference, mean, table
from interaction_study.plan import HELD_OUT, LONGER, choose_rates
from interaction_study.results import Line, Results, described, finite, pair
from interaction_study.statistics import Interval, mean_interval
from interaction_study.variants import REFERENCE

WITH_DIGIT = "{:.1f}"
PRETENDED = sum(action.startswith("pretend") for action in ACTIONS)
PROBED = ("before", "after", "untrained", "neighbour mean")
"""What a probe looked at: the last word of its name."""
PART_BY_PART = (
    ("bottleneck, without graphs", "without_graphs", "cross_attention"),
    ("bottleneck, with graphs", REFERENCE, "graphs_cross_attention"),
    ("graphs, at full width", "graphs_cross_attention", "cross_attention"),
    ("graphs, with the bottleneck", REFERENCE, "without_graphs"),
    ("graphs without LayerScale, with the bottleneck", "no_layer_scale", "without_graphs"),
    ("spatial graph alone, with the bottleneck", "spatial_graph", "without_graphs"),
    ("temporal graph alone, with the bottleneck", "temporal_graph", "without_graphs"),
    ("LayerScale in simple cross-attention", "cross_attention_layer_scale", "cross_attention"),
)
"""What a part of the model adds: its name, the variant with it, the one without it."""


def write_report(lines: list[Line], page: Path) -> None:
    """Write the tables of every version of the design, the newest first.

    The same lines make the same bytes. Parts without a line are left out.

    Args:
        lines: All lines of the file of runs.
        page: The file to write.
    """
    sections = [version for results in Results.versions(lines) for version in _version(results)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _version(results: Results) -> Iterator[str]:
    first = results.lines[0]
    yield f"## Version {results.version} of the design"
    yield (
        f"On version {first['benchmark']} of the benchmark, where each run takes "
        f"{first['steps']} steps of {first['batch_size']} clips, rounded up to whole passes over "
        "its training clips. Accuracies are top-1 in percent, the mean over the seeds ± half its "
        "95 % interval (Student's t). Differences are to GASM-CAST, in points, paired by seed, "
        "bold where the interval excludes zero."
    )
    titled: dict[str, Callable[[Results], str]] = {
        "Variants": variants,
        "What each part adds": part_by_part,
        "Learning rates beyond those tried": beyond,
        "Share of the training clips, and more steps": shares,
        "Corrupted and reordered clips": corruption,
        "Calibration and opposites": calibration,
        "Stability of training": stability,
        "Real clips of fights": fights,
        "Probes": probes,
    }
    for title, section in titled.items():
        text = section(results)
        if text:
            yield f"### {title}\n\n{text}"
    seconds = [line["seconds"] for line in results.lines if "seconds" in line]
    yield f"All {len(seconds)} runs of this version took {_duration(sum(seconds))} in sum."


def variants(results: Results) -> str:
    """The main table: accuracy and cost of each variant."""
    names = results.variants("comparison")
    if not names:
        return ""
    most = results.seeds("comparison")

    def cells(name: str) -> list[str]:
        line = results.select("comparison", name)[-1]
        cost = (results.select("cost", name) or [{}])[-1]
        return [
            described(name).text,
            f"{line['learning_rate']:g}",
            *(
                mean(results.mean("comparison", name, split), most)
                for split in ("validation", "test", "combinations")
            ),
            *(
                difference(results.difference("comparison", name, split), most)
                for split in HELD_OUT
            ),
            f"{cost.get('parameters', line['parameters']):,}",
            f"{cost['flops'] / 1e6:.1f}" if cost else NOTHING,
            f"{cost['step_ratio']:.2f}" if cost else NOTHING,
            described(name).expected,
        ]

    header = (
        "variant",
        "learning rate",
        "validation",
        "test",
        "combinations",
        "difference on test",
        "difference on combinations",
        "parameters",
        "MFLOPs",
        "time",
        "expected",
    )
    rows = [
        row
        for group, members in groupby(names, key=lambda name: described(name).group)
        for row in (
            [f"*{group}*", *[""] * (len(header) - 1)],
            *(cells(name) for name in members),
        )
    ]
    explained = (
        f"{_seeds(most)}; the learning rate with the best top-1 on validation clips"
        f"{_tried(results, names)}. MFLOPs are those of a forward pass for one clip, time is that "
        "of a training step relative to GASM-CAST's. Expected is what was written there before "
        "the first run of a variant in the study."
    )
    return f"{table(header, rows, (0, len(header) - 1))}\n\n{explained}"


def part_by_part(results: Results) -> str:
    """What a part adds: the variant with it minus the one without it."""
    most = results.seeds("comparison")

    def cells(text: str, with_it: str, without_it: str) -> list[str]:
        differences = (
            results.difference("comparison", with_it, split, to=without_it) for split in HELD_OUT
        )
        return [text, *(difference(found, most) for found in differences)]

    present = set(results.variants("comparison"))
    rows = [cells(*part) for part in PART_BY_PART if present.issuperset(part[1:])]
    explained = (
        "In points of top-1, paired by seed. The two variants of a row have learning rates of "
        "their own."
    )
    return f"{table(('part', *HELD_OUT), rows)}\n\n{explained}" if rows else ""


def beyond(results: Results) -> str:
    """What the next learning rate comes to, where the best one was the lowest or the highest."""
    chosen = choose_rates(results.select("tuning"))
    rows = []
    for name in results.variants("beyond"):
        found = {
            line["learning_rate"]: line["validation"]["top1"]
            for line in results.select("beyond", name)
        }
        rate = chosen[name]
        rows += [
            [name, rate, found[rate], following, found[following]]
            for following in (rate / 2, rate * 2)
            if {rate, following} <= found.keys()
        ]

    def cells(name: str, rate: float, best: float, following: float, found: float) -> list[str]:
        return [
            described(name).text,
            f"{rate:g}",
            WITH_DIGIT.format(best),
            f"{following:g}",
            WITH_DIGIT.format(found),
            difference(mean_interval([found - best]), 1).removesuffix(" (n = 1)"),
        ]

    header = ("variant", "best of those tried", "validation", "beyond", "validation", "difference")
    explained = (
        "One run each, of the seed of the tuning, on validation clips; both on the same features, "
        "which may be others than those of the tuning. These runs choose nothing: they say whether "
        "the range of the learning rates holds a variant back."
    )
    return f"{table(header, starmap(cells, rows))}\n\n{explained}" if rows else ""


def shares(results: Results) -> str:
    """Accuracy against the share of training clips, and with more steps on all of them."""
    names = results.variants("share")
    parts = [("share", share) for share in sorted({s["share"] for s in results.select("share")})]
    parts += [(part, 1.0) for part in ("comparison", "longer") if results.select(part)]
    most = results.seeds("comparison") or results.seeds("share")
    rows = []
    for split in HELD_OUT:
        for part, share in parts:
            rows.append(
                [
                    split,
                    f"{100 * share:g} %" + (f", {LONGER} x steps" if part == "longer" else ""),
                    *(mean(results.mean(part, name, split, share=share), most) for name in names),
                    *(
                        difference(results.difference(part, name, split, share=share), most)
                        for name in names
                        if name != REFERENCE
                    ),
                ]
            )
    texts = [described(name).text for name in names]
    header = [
        "clips",
        "share",
        *texts,
        *(f"difference, {described(name).text}" for name in names if name != REFERENCE),
    ]
    return table(header, rows) if names else ""


def corruption(results: Results) -> str:
    """Test clips that are corrupted, or whose frames have another order."""
    names = results.variants("comparison", CORRUPTIONS)
    most = results.seeds("comparison")

    def cells(change: str, name: str) -> list[str]:
        def of(measure: str) -> str:
            return mean(results.mean("comparison", name, change, measure), most)

        lost = pair(
            results.values("comparison", name, change), results.values("comparison", name, "test")
        )
        return [
            change if change in CORRUPTIONS else "as they are",
            described(name).text,
            of("top1"),
            difference(lost, most) if change in CORRUPTIONS else NOTHING,
            difference(results.difference("comparison", name, change), most),
            of("changed"),
            of("opposite"),
        ]

    header = (
        "clips",
        "variant",
        "top-1",
        "against clips as they are",
        "difference to GASM-CAST",
        "changed predictions",
        "predicted as the opposite",
    )
    rows = [cells(change, name) for change in ("test", *CORRUPTIONS) for name in names]
    explained = (
        "In percent of all test clips. A clip shown backwards is one of the opposite class, so "
        "there the last column is the share that is named by what it shows now. What is pretended "
        f"({PRETENDED} of the {len(ACTIONS)} actions) is the exception: it goes there and back, "
        "so backwards it keeps its class, and counts in the column of top-1."
    )
    return f"{table(header, rows, (0, 1))}\n\n{explained}" if names else ""


def calibration(results: Results) -> str:
    """Calibration error, and clips predicted as their opposite."""
    most = results.seeds("comparison")
    measured = [(measure, split) for measure in ("ece", "opposite") for split in HELD_OUT]
    rows = [
        [
            described(name).text,
            *(
                mean(results.mean("comparison", name, split, measure), most)
                for measure, split in measured
            ),
            difference(results.difference("comparison", name, "test", "opposite"), most),
        ]
        for name in results.variants("comparison")
    ]
    header = (
        "variant",
        "calibration error, test",
        "calibration error, combinations",
        "predicted as the opposite, test",
        "predicted as the opposite, combinations",
        "difference in opposites, test",
    )
    explained = (
        "In percent; clips predicted as the opposite class are in percent of all clips. Label "
        "smoothing, with which all are trained, keeps confidence low by itself."
    )
    return f"{table(header, rows)}\n\n{explained}" if rows else ""


def stability(results: Results) -> str:
    """Gradient norms, final losses, and runs that diverged."""
    runs = [(name, "comparison") for name in results.variants("comparison")]
    runs += [(name, "bf16") for name in results.variants("bf16")]

    def cells(name: str, part: str) -> list[str]:
        lines = results.select(part, name)
        norms = [line["largest_gradient_norm"] for line in lines if finite(line)]
        losses = [line["loss"][-1] for line in lines if finite(line)]
        lost = sum(not finite(line) for line in lines)
        most = results.seeds(part)
        return [
            described(name).text + (", bfloat16" if part == "bf16" else ""),
            WITH_DIGIT.format(max(norms)) if norms else NOTHING,
            mean(mean_interval(losses) if losses else None, most, digits=3),
            f"{lost} of {len(lines)}",
            mean(results.mean(part, name, "test"), most),
        ]

    header = ("variant", "largest gradient norm", "final training loss", "diverged runs", "test")
    if not runs:
        return ""
    text = table(header, [cells(name, part) for name, part in runs])
    text += (
        "\n\nThe gradient norm is that of all parameters before a step, the largest of all steps "
        "and seeds; the final training loss is the mean over the last fortieth of the steps. A run "
        "whose loss is not finite ends there, and is measured with the weights that it has."
    )
    for name in results.variants("bf16"):
        apart = pair(
            results.values("bf16", name, "test"), results.values("comparison", name, "test")
        )
        if apart is not None:
            text += (
                f" bfloat16 minus float32, {described(name).text}: "
                f"{difference(apart, results.seeds('bf16'))} points on test clips."
            )
    noted = [line for line in results.lines if "loss" in line]
    lost = sum(not finite(line) for line in noted)
    return (
        f"{text} Of all {len(noted)} runs of this version whose loss was recorded, tuning "
        f"included, {lost} had a loss or gradient that is not finite."
    )


def fights(results: Results) -> str:
    """Repeated cross-validation on real clips."""
    lines = results.select("fights")
    if not lines:
        return ""
    most = results.seeds("fights")
    # A fold may have a clip more than another.
    share = fmean(line["test_clips"] for line in lines) / fmean(
        line["train_clips"] for line in lines
    )
    of_reference = results.values("fights", REFERENCE, "test")
    rows = []
    for name in results.variants("fights"):
        found = results.values("fights", name, "test")
        apart = None if name == REFERENCE else pair(found, of_reference, share)
        rows.append(
            [
                described(name).text,
                mean(mean_interval(list(found.values()), share), most),
                difference(apart, most),
            ]
        )
    repetitions, folds = (len({line[name] for line in lines}) for name in ("seed", "fold"))
    clips = lines[0]["train_clips"] + lines[0]["test_clips"]
    return (
        table(("variant", "test", "difference"), rows)
        + f"\n\n{clips} clips, cross-validated {repetitions} times in {folds} folds. The folds "
        "share training clips, so the intervals are those of Nadeau and Bengio's corrected test."
    )


def probes(results: Results) -> str:
    """What a linear layer reads from tokens before and after graph attention."""
    lines = results.select("probe")
    if not lines:
        return ""
    most = results.seeds("probe")
    found: dict[str, dict[str, dict[int, float]]] = {}  # question, what was looked at, seed
    for line in lines:
        for name, accuracy in line["probes"].items():
            question, looked_at = _probe(name)
            found.setdefault(question, {}).setdefault(looked_at, {})[line["seed"]] = accuracy
    columns = [
        looked_at for looked_at in (*PROBED, "") if any(looked_at in of for of in found.values())
    ]

    def cells(question: str) -> list[str]:
        of = found[question]

        def against(rival: str) -> Interval | None:
            return pair(of.get("after", {}), of.get(rival, {}))

        return [
            question,
            *(
                mean(mean_interval(list(of[name].values())) if name in of else None, most)
                for name in columns
            ),
            *(difference(against(rival), most) for rival in rivals),
        ]

    rivals = [name for name in columns if name not in ("", "after")]
    header = [
        "question",
        *(name or "accuracy" for name in columns),
        *(f"after − {rival}" for rival in rivals),
    ]
    explained = (
        "Balanced accuracy in percent of a linear layer on frozen tokens, on clips that it was not "
        "fitted to. Differences are paired by seed. What the tokens are before graph attention, "
        "and the mean over their neighbours, depends on the extractors and not on the seed."
    )
    return f"{table(header, [cells(question) for question in sorted(found)])}\n\n{explained}"


def _probe(name: str) -> tuple[str, str]:
    """The question of a probe, and what it looked at, if its name ends so."""
    for looked_at in PROBED:
        if name.endswith(f" {looked_at}"):
            return name.removesuffix(f" {looked_at}"), looked_at
    return name, ""


def _tried(results: Results, names: list[str]) -> str:
    """Which learning rates there were, and how often the best one was at the end of their range."""
    rates = sorted({line["learning_rate"] for line in results.select("tuning")})
    if len(rates) < 2:
        return ""
    chosen = [results.select("comparison", name)[-1]["learning_rate"] for name in names]
    lowest, highest = chosen.count(rates[0]), chosen.count(rates[-1])
    listed = ", ".join(f"{rate:g}" for rate in rates)
    return f" of {listed} (the lowest for {lowest} of {len(names)}, the highest for {highest})"


def _seeds(most: int) -> str:
    return f"{most} seeds" if most > 1 else "One seed"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
