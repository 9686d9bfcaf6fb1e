"""Do maps of attention and evidence depend on what was learned? Weights are shuffled to see."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.deletion import graph_attention_received
from benchmarks.machine import Machine
from benchmarks.measure import Effort
from benchmarks.page import table
from benchmarks.quickstart_models import models_and_clips
from gasmcast import TemporalCrossAttentionModel
from gasmcast.explanation import LAYERS, ClipInspection, inspect_clip

DRAWS = 3
# From the logits down, the order in which the cascade goes.
PARTS = {
    "classifier": ["classifier"],
    "action": ["gasm_cast.layer3_action"],
    "pattern": ["gasm_cast.layer2_pattern"],
    "basic": ["gasm_cast.layer1_basic"],
    "graph attention": ["gasm_cast.semantic_graph", "gasm_cast.motion_graph"],
    "extractors": ["semantic_extractor", "motion_extractor"],
}


def shuffled(
    model: TemporalCrossAttentionModel, parts: Sequence[str], seed: int
) -> TemporalCrossAttentionModel:
    """A copy in which every parameter of these parts has its own numbers in a random order.

    So what was learned is gone, and their distribution is not: a difference is not one of scale.
    """
    model = deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in (name for part in parts for name in PARTS[part]):
            for parameter in model.get_submodule(name).parameters():
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    return model


def maps_of(seen: ClipInspection, label: int) -> dict[str, Tensor]:
    """The maps that are compared, heads averaged."""
    return {
        "spatial graph": graph_attention_received(seen, "spatial"),
        "temporal graph": graph_attention_received(seen, "temporal"),
        **{layer: seen.cross_attention(layer, "motion_to_semantic") for layer in LAYERS},
        "evidence": seen.evidence(label).patches,
    }


def run(effort: Effort) -> str:
    """Measure all and return the section of the page."""
    machine = Machine(effort.device, ("scipy",))
    parts = list(PARTS)
    changes = {
        **{f"{part} alone": [part] for part in parts},
        **{f"{parts[i]} and all above": parts[: i + 1] for i in range(1, len(parts))},
    }
    draws = 1 if effort.tiny else DRAWS
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in changes}
    for number, (model, clips) in enumerate(models_and_clips(effort)):
        before = [inspect_clip(model, clip) for clip in clips]
        labels = [seen.label() for seen in before]
        for name, shuffled_parts in changes.items():
            for draw in range(draws):
                other = shuffled(model, shuffled_parts, seed=1000 * number + draw)
                after = [inspect_clip(other, clip) for clip in clips]
                for map_name, means in _similarities(before, after, labels).items():
                    found[name].setdefault(map_name, []).append(means)
    rows = [[name, *map(_cell, maps.values())] for name, maps in found.items()]
    header = ("shuffled", *next(iter(found.values())))
    number += 1
    return "\n\n".join(
        [
            f"Measured on: {machine}.",
            f"**Rank correlation** of each map before and after, mean over {len(clips)} clips; of "
            f"{number} models with {draws} draws each the mean and, in brackets, the lowest and "
            "the highest. *same*: no bit of it changed.",
            table(header, rows),
        ]
    )


def _similarities(
    before: Sequence[ClipInspection], after: Sequence[ClipInspection], labels: Sequence[int]
) -> dict[str, Tensor]:
    """Mean over clips; infinite where no bit of any map changed."""
    pairs = [
        (maps_of(old, label), maps_of(new, label))
        for old, new, label in zip(before, after, labels, strict=True)
    ]
    means = {}
    for name in pairs[0][0]:
        both = [(old[name].flatten(), new[name].flatten()) for old, new in pairs]
        if all(torch.equal(old, new) for old, new in both):
            means[name] = torch.tensor(torch.inf)
        else:
            means[name] = torch.tensor([spearmanr(*pair).statistic for pair in both]).mean()
    return means


def _cell(draws: list[Tensor]) -> str:
    means = torch.stack(draws)
    if means.isinf().all():
        return "same"
    return f"{means.mean():.2f} ({means.min():.2f} to {means.max():.2f})"
