"""Does graph attention improve what each patch, and each segment, tells? Linear probes.

The questions are those of the specification. Of patches, before and after the semantic graph
attention of a trained model: ``object`` (what is under it), ``agent`` (is the thing on it the one
that does it), ``contact`` (were both things on it at once). Of segments, before and after the
motion graph attention: ``direction`` (where does it move in this segment). Of the mean over the
segments of a clip: ``order`` (which of two actions that are each other backwards), and
``pretence``, the same for the two pretended actions alone, in which a thing goes there and back.

What comes after has seen more of the clip than what was before. So there are two controls that have
seen as much: the graph attention as it was before the training (``untrained``; it changes little,
for its update is multiplied by 0.1 then), and the tokens plus the mean over their neighbours in the
same graph (``neighbour mean``).
"""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_geometric.utils import scatter

from gasmcast import generate_spatial_positions, generate_temporal_positions
from gasmcast.datasets import interaction_name, opposite_interaction
from gasmcast.datasets.interactions import ACTIONS, AGENTS
from interaction_study.features import Features, load, scale_of
from interaction_study.linear_probe import linear_probe
from interaction_study.probe_labels import NOT_ASKED, SPLITS, label_file
from interaction_study.training import Budget, train
from interaction_study.variants import VARIANTS

PATCH_QUESTIONS = ("object", "agent", "contact")
PAIRS = tuple(
    action for action in ACTIONS[::2] if opposite_interaction(action, AGENTS[0])[0] != action
)
"""Of each two actions with the same frames in another order, the first."""

Stage = Callable[[Tensor], Tensor]
Labels = Mapping[str, Mapping[str, Tensor]]


def probe(
    variant_name: str, learning_rate: float, seed: int, budget: Budget, output: Path
) -> dict[str, Any]:
    """Train as in the comparison, then ask: what a line of the file holds besides the run itself.

    Args:
        variant_name: Name of a variant that has graph attention.
        learning_rate: As in the comparison.
        seed: Likewise.
        budget: Likewise.
        output: Folder of the study, with ``stores`` and ``probes``.
    """
    variant = VARIANTS[variant_name]
    scale = scale_of(output / "stores" / "train")
    features = {split: variant.feed(scale(load(output / "stores" / split))) for split in SPLITS}
    labels = {split: load_file(label_file(output, split)) for split in SPLITS}
    model = variant.build(features["train"], seed)
    before = deepcopy(model.gasm_cast).eval()
    began = time.perf_counter()
    train(model, features["train"], budget, learning_rate=learning_rate, seed=seed)
    after = model.gasm_cast.eval()
    grid, segments = model.semantic_extractor.grid_size, features["train"].motion.size(1)
    places = (
        generate_spatial_positions(grid),
        generate_temporal_positions(model.num_frames, segments),
    )
    of_patches = stages(before.semantic_graph, after.semantic_graph, places[0])
    of_segments = stages(before.motion_graph, after.motion_graph, places[1])
    found: dict[str, float] = {}
    for name, stage in of_patches.items():
        found |= _ask_patches(name, stage, features, labels)
    for name, stage in of_segments.items():
        found |= _ask_segments(name, stage, features, labels)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "probes": {name: round(value, 3) for name, value in found.items()},
    }


def stages(before: nn.Module, after: nn.Module, positions: Tensor) -> dict[str, Stage]:
    """What the probes look at: features of a stream [N, count, D] to tokens of the same shape.

    Args:
        before: The graph attention of the stream before the training.
        after: The same after it.
        positions: Of the tokens.
    """

    def neighbour_mean(features: Tensor) -> Tensor:
        graph = after.build_graph(positions, features=features)
        source, target = graph.edge_index
        update = scatter(graph.x[source], target, dim_size=len(graph.x), reduce="mean")
        return features + update.view_as(features)

    return {
        "before": lambda features: features,
        "after": _in_parts(lambda features: after(features, positions)),
        "untrained": _in_parts(lambda features: before(features, positions)),
        "neighbour mean": _in_parts(neighbour_mean),
    }


def ask(tokens: Mapping[str, Tensor], labels: Labels, question: str) -> float:
    """Learn on the training clips, try on the test clips: balanced accuracy in percent.

    Args:
        tokens: [..., D] of each split.
        labels: [...] of each split, for the question; :data:`NOT_ASKED` where it is not asked.
        question: Name of the labels.
    """
    parts = []
    for split in SPLITS:
        asked = labels[split][question] != NOT_ASKED
        parts += [tokens[split][asked], labels[split][question][asked]]
    return linear_probe(*parts)


def order_labels(features: Features, action: str) -> Tensor:
    """Of each clip, whether it shows the opposite of an action (1) or this one (0), by any agent.

    Returns:
        int64 [N], :data:`NOT_ASKED` for all other actions.
    """
    of_class = torch.full((len(features.classes),), NOT_ASKED)
    for agent in AGENTS:
        pair = ((action, agent), opposite_interaction(action, agent))
        for label, (name, by) in enumerate(pair):
            of_class[features.classes.index(interaction_name(name, by))] = label
    return of_class[features.labels]


def _ask_patches(
    name: str, stage: Stage, features: Mapping[str, Features], labels: Labels
) -> dict[str, float]:
    tokens = {
        split: stage(features[split].take(labels[split]["clip"]).semantic) for split in SPLITS
    }
    return {f"{question} {name}": ask(tokens, labels, question) for question in PATCH_QUESTIONS}


def _ask_segments(
    name: str, stage: Stage, features: Mapping[str, Features], labels: Labels
) -> dict[str, float]:
    tokens = {split: stage(features[split].motion) for split in SPLITS}
    labelled = {split: tokens[split][labels[split]["clip"]] for split in SPLITS}
    means = {split: tokens[split].mean(dim=1) for split in SPLITS}
    pairs = {}
    for pair in PAIRS:
        order = {split: {"order": order_labels(features[split], pair)} for split in SPLITS}
        pairs[pair] = ask(means, order, "order")
    return {
        f"direction {name}": ask(labelled, labels, "direction"),
        f"order {name}": sum(pairs.values()) / len(pairs),
        f"pretence {name}": pairs["pretend_to_approach"],
    }


def _in_parts(stage: Stage) -> Stage:
    @torch.inference_mode()
    def parts(features: Tensor) -> Tensor:
        return torch.cat([stage(part) for part in features.split(256)]).clone()

    return parts
