"""Which runs the study consists of, and what a run does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gasmcast.datasets import interaction_name, opposite_interaction
from gasmcast.datasets.interactions import ACTIONS, AGENTS
from interaction_study.corruption import CORRUPTIONS
from interaction_study.features import load, scale_of
from interaction_study.fights import FIGHT_VARIANTS, cross_validate
from interaction_study.measures import measures
from interaction_study.probes import probe
from interaction_study.runs import Run
from interaction_study.training import Budget, predict, train
from interaction_study.variants import REFERENCE, VARIANTS

MAIN = ("gasm_cast", "without_graphs", "cross_attention")
"""The variants that matter: they are trained on shares and tried on corrupted clips, too."""
LONGER = 2
"""Times the steps of the budget, in the part that asks what is left of a difference then."""
HELD_OUT = ("test", "combinations")
CHOOSING = ("tuning", "beyond")
"""Parts whose runs see no held-out clip."""


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        variants: Names of the variants.
        learning_rates: Tried for each variant, on validation clips.
        tuning_seed: Of the runs for that.
        seeds: Of the comparison.
        shares: Of the training clips, besides all of them.
        folds: Of the fights.
        budget: Of each run.
    """

    variants: tuple[str, ...] = tuple(VARIANTS)
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    tuning_seed: int = 0
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    shares: tuple[float, ...] = (0.1, 0.3)
    folds: int = 5
    budget: Budget = field(default_factory=Budget)

    def tuning(self) -> list[Run]:
        """Each variant with each learning rate."""
        return [
            Run("tuning", name, rate, self.tuning_seed)
            for rate in self.learning_rates
            for name in self.variants
        ]

    def beyond(self, rates: dict[str, float]) -> list[Run]:
        """The next learning rate, where the best one is the lowest or the highest of those tried.

        Whether a variant is held back by the range of the rates: it is looked at, and chooses
        nothing. The best one is tried again beside it, for the tuning may be on other features.
        """
        lowest, highest = min(self.learning_rates), max(self.learning_rates)
        if lowest == highest:
            return []
        following = {lowest: lowest / 2, highest: highest * 2}
        return [
            Run("beyond", name, rate, self.tuning_seed)
            for name in self.variants
            if rates[name] in following
            for rate in (rates[name], following[rates[name]])
        ]

    def of_seed(self, seed: int, rates: dict[str, float]) -> list[Run]:
        """Each variant; shares of the training clips; bfloat16; more steps; and the probes."""
        main = [name for name in MAIN if name in self.variants]
        reference = [REFERENCE] if REFERENCE in self.variants else []
        return [
            *(Run("comparison", name, rates[name], seed) for name in self.variants),
            *(
                Run("share", name, rates[name], seed, share)
                for share in self.shares
                for name in main
            ),
            *(Run("bf16", name, rates[name], seed) for name in reference),
            *(Run("longer", name, rates[name], seed) for name in main),
            *(Run("probe", name, rates[name], seed) for name in reference),
        ]

    def fights(self, rates: dict[str, float]) -> list[Run]:
        """Each variant on each fold, divided anew with each seed."""
        return [
            Run("fights", name, rates[name], seed, fold=fold)
            for seed in self.seeds
            for fold in range(1, self.folds + 1)
            for name in self.variants
            if name in FIGHT_VARIANTS
        ]

    def costs(self) -> list[Run]:
        """Each variant once; nothing is learned."""
        return [Run("cost", name, 0.0, 0) for name in self.variants]


def choose_rates(tuned: list[dict[str, Any]]) -> dict[str, float]:
    """The learning rate of each variant with the best top-1 on validation; of equals the lowest."""
    rates: dict[str, float] = {}
    for line in sorted(
        tuned, key=lambda line: (-line["validation"]["top1"], line["learning_rate"])
    ):
        rates.setdefault(line["variant"], line["learning_rate"])
    return rates


def carry_out(run: Run, plan: Plan, output: Path) -> dict[str, Any]:
    """Train and measure: what a line of the file holds besides the run itself.

    Args:
        run: What to do.
        plan: Of how much of it.
        output: Folder of the features: ``stores``, ``changed``, ``probes``, ``fights``.
    """
    how = run.variant, run.learning_rate, run.seed
    if run.part == "probe":
        return probe(*how, plan.budget, output)
    if run.part == "fights":
        return cross_validate(*how, run.fold, plan.folds, plan.budget, output)
    return on_interactions(run, plan.budget, output)


def on_interactions(run: Run, budget: Budget, output: Path) -> dict[str, Any]:
    """Train a variant on the interactions and measure it on their other splits."""
    variant = VARIANTS[run.variant]
    clean = output / ("changed/one_frame" if variant.one_frame else "stores")
    scale = scale_of(clean / "train")
    if run.part == "bf16":
        budget = replace(budget, precision="bf16-mixed")
    if run.part == "longer":
        budget = replace(budget, steps=LONGER * budget.steps)
    training = variant.feed(scale(load(clean / "train")))
    if run.share < 1:
        training = training.share(run.share, run.seed)
    model = variant.build(training, run.seed)
    began = time.perf_counter()
    course = train(model, training, budget, learning_rate=run.learning_rate, seed=run.seed)
    parts = {"validation": clean / "validation"}
    if run.part not in CHOOSING:
        parts |= {split: clean / split for split in HELD_OUT}
    if run.part == "comparison" and run.variant in MAIN:
        parts |= {name: output / "changed" / name / "test" for name in CORRUPTIONS}
    measured = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began, 1),
        "loss": _course(course.losses),
        "gradient_norm": _course(course.norms),
        "largest_gradient_norm": round(max(course.norms), 3),
    }
    opposite = opposite_classes(training.classes)
    found = {}
    for name, folder in parts.items():
        features = variant.feed(scale(load(folder)))
        found[name] = predict(model, features)
        measured[name] = {
            what: round(value, 3)
            for what, value in measures(found[name], features.labels, opposite).items()
        }
    for name in CORRUPTIONS:
        if name in found:
            changed = found[name].argmax(dim=1) != found["test"].argmax(dim=1)
            measured[name]["changed"] = round(100 * changed.float().mean().item(), 3)
    return measured


def opposite_classes(classes: tuple[str, ...]) -> torch.Tensor:
    """The opposite of each class, [K]."""
    pairs = {
        interaction_name(action, agent): interaction_name(*opposite_interaction(action, agent))
        for action in ACTIONS
        for agent in AGENTS
    }
    return torch.tensor([classes.index(pairs[name]) for name in classes])


def _course(values: list[float], points: int = 40) -> list[float]:
    """Means over equal stretches of a run."""
    parts = torch.tensor(values, dtype=torch.float64).tensor_split(min(points, len(values)))
    return [round(part.mean().item(), 4) for part in parts]
