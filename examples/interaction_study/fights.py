"""A second data set that is not drawn: clips of surveillance cameras, with and without a fight.

The extractors are those of the interactions; nothing is tuned on these clips. So few clips say
little once, so they are divided several times: repeated stratified cross-validation.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.model_selection import StratifiedKFold

from gasmcast import TemporalCrossAttentionModel
from gasmcast.datasets import scan_class_folders
from gasmcast.extraction import extract_features
from interaction_study.features import Scale, load
from interaction_study.measures import measures
from interaction_study.training import Budget, predict, train
from interaction_study.variants import VARIANTS

FIGHT_VARIANTS = (
    "gasm_cast",
    "without_graphs",
    "cross_attention",
    "self_attention",
    "grid_only",
    "late_fusion",
    "semantic_alone",
    "motion_alone",
)
MAX_STEPS = 100
"""Of the budget's steps, at most so many: there are few clips. Fixed beforehand."""


def extract_fights(clips: Path, output: Path, num_workers: int = 0) -> None:
    """Extract the features of the clips to ``fights``; what is there already is not made again.

    A video that cannot be read is named and left out.

    Args:
        clips: Folder of one folder of videos a class, such as ``fight`` and ``nofight``.
        output: Folder of the study, with ``extractors``.
        num_workers: Processes that decode.
    """
    model = TemporalCrossAttentionModel.from_pretrained(output / "extractors")
    store = extract_features(
        scan_class_folders(clips),
        fight_store(output),
        model.semantic_extractor,
        model.motion_extractor,
        batch_size=16,
        num_workers=num_workers,
    )
    for clip, reason in store.failed().items():
        print(f"left out: {clip}: {reason}")


def fight_store(output: Path) -> Path:
    """Where the features are."""
    return output / "fights"


def cross_validate(
    variant_name: str,
    learning_rate: float,
    repetition: int,
    fold: int,
    num_folds: int,
    budget: Budget,
    output: Path,
) -> dict[str, Any]:
    """Train on all folds but one and measure on that one: what a line of the file holds.

    Args:
        variant_name: Name of the variant.
        learning_rate: As chosen for it on the interactions.
        repetition: Seed of the division into folds, and of the training.
        fold: The one to measure on, from 1 on.
        num_folds: Into how many the clips are divided.
        budget: At most :data:`MAX_STEPS` of its steps are taken.
        output: Folder of the study, with ``fights``.
    """
    clips = load(fight_store(output))
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=repetition)
    divided = list(folds.split(clips.labels, clips.labels))
    training, test = (clips.take(chosen) for chosen in divided[fold - 1])
    scale = Scale.of(training)
    variant = VARIANTS[variant_name]
    training, test = (variant.feed(scale(part)) for part in (training, test))
    model = variant.build(training, repetition)
    began = time.perf_counter()
    budget = replace(budget, steps=min(budget.steps, MAX_STEPS))
    course = train(model, training, budget, learning_rate=learning_rate, seed=repetition)
    seconds = time.perf_counter() - began
    measured = measures(predict(model, test), test.labels)
    return {
        "train_clips": len(training),
        "test_clips": len(test),
        "steps_taken": len(course.losses),
        "seconds": round(seconds, 1),
        "test": {name: round(value, 3) for name, value in measured.items()},
    }
