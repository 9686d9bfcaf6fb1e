"""Does it help? Variants of GASM-CAST on the interactions, with everything else equal.

    pip install -e ".[study]"
    python examples/study.py

makes the benchmark and its features (docs/interactions.md), tries three learning rates for each
variant on validation clips, trains each variant with five seeds and looks at the held-out clips.
Linear probes ask what graph attention adds to the tokens. With --fights, a folder of real clips,
the variants are cross-validated on these as well. Every run is a line in
runs/study/study_runs.jsonl. Stopped at any moment, the same command goes on with the next run. At
the end it writes tables (study_results.md) and figures (images/study_*.png) beside that file.

    python examples/study.py --quick true

does all of it on a handful of clips in less than five minutes: whether it works, not what comes
out.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import as_completed
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from interaction_features import main as make_features
from interaction_study.corruption import CORRUPTIONS, extract_changed, one_frame
from interaction_study.cost import measure_cost
from interaction_study.fights import extract_fights, fight_store
from interaction_study.figure import write_figures
from interaction_study.plan import HELD_OUT, MAIN, Plan, carry_out, choose_rates
from interaction_study.probe_labels import SPLITS, write_labels
from interaction_study.processes import training_processes
from interaction_study.report import write_report
from interaction_study.runs import Run, RunsFile, read_lines
from interaction_study.training import Budget
from interaction_study.variants import REFERENCE, VARIANTS
from jsonargparse import auto_cli
from pebble import ProcessPool
from tqdm import tqdm

from gasmcast import TemporalCrossAttentionModel
from gasmcast.datasets.interactions import VERSION as BENCHMARK
from gasmcast.feature_store import FeatureStore

DESIGN = 3
"""Version of the design: the held-out clips are read once for each."""


def main(
    output: Path | None = None,
    runs: Path | None = None,
    variants: list[str] | None = None,
    fights: Path | None = None,
    processes: int = 2,
    quick: bool = False,
) -> None:
    """Make features, train all variants, write the report.

    Args:
        output: Folder for clips, extractors and stores; null: runs/study, in quick mode
            runs/quick_study.
        runs: The file of runs, beside which tables and figures go; what it holds of this version is
            not made again, whoever made it. Null: study_runs.jsonl in ``output``.
        variants: Names of the variants to compare; null: all.
        fights: Folder of real clips, one of videos for each class (``fight``, ``nofight``); null:
            this part is left out.
        processes: How many train at the same time, each with one thread.
        quick: Few clips, two seeds, four steps: whether it works.
    """
    chosen = tuple(VARIANTS) if variants is None else tuple(dict.fromkeys(variants))
    if not chosen or set(chosen) - set(VARIANTS):
        raise ValueError(f"variants must be of {', '.join(VARIANTS)}, got {list(chosen)}")
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    if fights is not None and not fights.is_dir():
        raise ValueError(f"fights must be a folder with one of videos for each class, got {fights}")
    plan = Plan(chosen)
    if quick:
        plan = Plan(chosen, (1e-3,), seeds=(1, 2), shares=(0.3,), folds=2, budget=Budget(steps=4))
    output = output or Path("runs/quick_study" if quick else "runs/study")
    runs = runs or output / "study_runs.jsonl"
    locks = {output / "study.lock": "--output", runs.with_suffix(".lock"): "--runs"}
    with ExitStack() as held:
        for lock, option in locks.items():
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(FileLock(lock, timeout=0))
            except Timeout:
                raise ValueError(
                    f"another study is at work (it holds {lock}): take another {option}"
                ) from None
        study(plan, output, runs, fights, processes, quick)


def study(
    plan: Plan, output: Path, runs: Path, fights: Path | None, processes: int, quick: bool
) -> None:
    """What :func:`main` promises, in a folder that nobody else works in."""
    made_with = {
        "version": DESIGN,
        "benchmark": BENCHMARK,
        **asdict(plan.budget),
    }
    file = RunsFile(runs, made_with)
    if file.found:
        print(f"{runs} holds {len(file.found)} runs of this version, which count as they are")
    if nothing_missing(file, plan, fights):
        print("nothing is missing: tables and figures are written anew")
    else:
        make_missing(plan, output, file, fights, processes, quick)
    page = file.path.with_name("study_results.md")
    write_report(read_lines(file.path), page)
    write_figures(read_lines(file.path), page.with_name("images"))
    print(f"what came out: {page}")


def nothing_missing(file: RunsFile, plan: Plan, fights: Path | None) -> bool:
    """Whether no run is missing, so that neither clips nor features are needed."""
    if file.missing(plan.tuning()):
        return False
    rates = choose_rates(file.select("tuning"))
    return not any(map(file.missing, stages(plan, rates, fights).values())) and not _untimed(
        file, plan
    )


def stages(plan: Plan, rates: dict[str, float], fights: Path | None) -> dict[str, list[Run]]:
    """What comes after the tuning."""
    return {
        **{f"seed {seed}": plan.of_seed(seed, rates) for seed in plan.seeds},
        **({} if fights is None else {"fights": plan.fights(rates)}),
        "rates beyond those tried": plan.beyond(rates),
    }


def make_missing(
    plan: Plan, output: Path, file: RunsFile, fights: Path | None, processes: int, quick: bool
) -> None:
    """Clips, features and all runs that are missing."""
    prepare(plan, output, processes, quick)
    if fights is None:
        print("5. no --fights: the part on real clips is left out")
    else:
        print(f"5. extracting features of {fights} to {output / 'fights'}")
        extract_fights(fights, output, processes - 1)
    file.features = fingerprint(output)
    work = partial(carry_out, plan=plan, output=output)
    with training_processes(processes) as workers:
        execute(workers, work, file, plan.tuning(), "tuning")
        rates = choose_rates(file.select("tuning"))
        if REFERENCE in plan.variants:
            write_labels(
                output,
                dict.fromkeys(SPLITS, 1) if quick else SPLITS,
                lambda label, clips: workers.map(label, clips).result(),
            )
        for name, stage in stages(plan, rates, fights).items():
            execute(workers, work, file, stage, name)
        add_costs(workers, file, plan, output, rounds=2 if quick else 30)


def prepare(plan: Plan, output: Path, processes: int, quick: bool) -> None:
    """Clips, extractors, features; what is there already is not made again."""
    small = {
        "clips_per_class": {"train": 1, "validation": 1, "test": 1, "combinations": 1},
        "semantic_frames": 32,
        "semantic_epochs": 1,
        "motion_steps": 2,
    }
    make_features(output, processes=processes, **(small if quick else {}))
    print(f"4. extracting features of changed clips to {output / 'changed'}")
    model = TemporalCrossAttentionModel.from_pretrained(output / "extractors")
    changed = []
    if any(VARIANTS[name].one_frame for name in plan.variants):
        splits = ("train", "validation", *HELD_OUT)
        changed += [(one_frame, split) for split in splits]
    if set(MAIN) & set(plan.variants):
        changed += [(change, "test") for change in CORRUPTIONS.values()]
    for change, split in changed:
        folder = output / "changed" / change.__name__ / split
        extract_changed(output / "clips", split, folder, model, change, processes - 1)
    for store in output.glob("**/manifest.json"):
        failed = FeatureStore(store.parent).failed()
        if failed and store.parent != fight_store(output):
            raise ValueError(
                f"{store.parent} lacks {len(failed)} clips that could not be read, such as "
                f"{next(iter(failed.items()))}: all of a drawn set are needed"
            )


def fingerprint(output: Path) -> str:
    """Of the extractors: runs on the features of others cannot be compared."""
    model = TemporalCrossAttentionModel.from_pretrained(output / "extractors")
    extractors = (model.semantic_extractor, model.motion_extractor)
    return "-".join(extractor.fingerprint()["weights"] for extractor in extractors)


def execute(
    workers: ProcessPool,
    work: Callable[[Run], dict[str, Any]],
    file: RunsFile,
    stage: list[Run],
    name: str,
) -> None:
    """Make the runs of a stage that have to be made; the first that fails ends the study."""
    missing = file.missing(stage)
    bar = tqdm(total=len(stage), initial=len(stage) - len(missing), desc=name, unit="run")
    begun = {workers.schedule(work, (run,)): run for run in missing}
    with bar:
        for done in as_completed(begun):
            file.add(begun[done], done.result())
            bar.update()


def add_costs(workers: ProcessPool, file: RunsFile, plan: Plan, output: Path, rounds: int) -> None:
    """Measure what variants cost that are not in the file yet, in one process with none beside."""
    missing = _untimed(file, plan)
    if missing:
        print(f"timing steps of {len(missing)} variants")
        options = {"rounds": rounds, "batch_size": plan.budget.batch_size}
        measuring = workers.schedule(
            measure_cost, ([run.variant for run in missing], output), options
        )
        costs = measuring.result()
        for run in missing:
            file.add(run, costs[run.variant])


def _untimed(file: RunsFile, plan: Plan) -> list[Run]:
    return [run for run in plan.costs() if run not in file.found]


if __name__ == "__main__":
    try:
        auto_cli(main, as_positional=False, allow_abbrev=False)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on from here") from None
