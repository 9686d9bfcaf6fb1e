"""What the probes ask of patches and segments, answered by the masks of the drawn clips."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from interaction_features import NUM_FRAMES, PATCH_SIZE
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gasmcast import FrameSampling
from gasmcast.datasets import InteractionClip, render_interaction_masks, write_interactions
from gasmcast.datasets.interactions import AGENTS

SPLITS = {"train": 24, "test": 24}
"""From which clips the probes learn and on which they are tried, and how many of each class have
labels: half of them, for masks take their time."""

NOT_ASKED = -1
"""The label of a token that a question is not about."""

_SEEN = 0.1  # of a patch, on average over the frames: then the thing was there
_TOUCHED = 0.05  # of a patch, by each of both things in the same frame
_STILL = 1.0  # pixels from one frame of a segment to the other
_LABELS = 1  # goes up when the same clips get other labels


def write_labels(
    output: Path, per_class: dict[str, int], run: Callable[..., Iterable] = map
) -> None:
    """Label the first clips of each class; what is there already is not made again.

    Args:
        output: Folder of the study, with ``clips``; the labels go to ``probes``.
        per_class: For each split, how many clips of each class, as in :data:`SPLITS`.
        run: As ``map``; that of an executor draws several clips at the same time.
    """
    # The set knows how its clips were drawn; it finds that they are there.
    stated = json.loads((output / "clips" / "interactions.json").read_text())
    clips = write_interactions(output / "clips", clips_per_class=stated["clips_per_class"])
    for split, count in per_class.items():
        chosen = first_of_each_class([clip.target for clip in clips[split]], count)
        file = label_file(output, split)
        made_with = {"made_with": json.dumps([_LABELS, stated, chosen])}
        if file.is_file():
            with safe_open(file, "pt") as labels:
                if labels.metadata() == made_with:
                    continue
        asked = [clips[split][place] for place in chosen]
        drawn = run(label_clip, asked)
        found = list(tqdm(drawn, total=len(asked), desc=f"labels, {split}", unit="clip"))
        labels = {name: torch.stack([one[name] for one in found]) for name in found[0]}
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        save_file({"clip": torch.tensor(chosen), **labels}, partial, made_with)
        partial.replace(file)  # a file of that name is whole


def label_file(output: Path, split: str) -> Path:
    """Labels of a split: ``clip`` [N], the places of its clips in the store, and their labels."""
    return output / "probes" / f"{split}.safetensors"


def first_of_each_class(labels: Iterable[int], count: int) -> list[int]:
    """Places of the first clips of each class, in their order."""
    seen: dict[int, int] = {}
    chosen = []
    for place, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= count:
            chosen.append(place)
    return chosen


def label_clip(clip: InteractionClip) -> dict[str, Tensor]:
    """The labels of a clip of the interactions: those of its patches and of its segments."""
    masks = render_interaction_masks(clip.action, clip.agent, seed=clip.seed, split=clip.split)
    masks = masks[:, FrameSampling(NUM_FRAMES)(masks.size(1))]  # those that the extractors see
    # What hits or pushes, and what is hit or pushed, both move.
    agent = None if clip.action in ("hit", "push_along") else AGENTS.index(clip.agent)
    return {**patch_labels(masks, agent), "direction": directions(masks)}


def patch_labels(masks: Tensor, agent: int | None) -> dict[str, Tensor]:
    """What can be seen in each patch.

    Args:
        masks: bool [2, T, H, W], see :func:`gasmcast.datasets.render_interaction_masks`.
        agent: Which of both things does what is done; None: this is not asked.

    Returns:
        Three labels [P] of int64:

        - ``object``: which thing was on it: 0 neither, 1 the warm one, 2 the cool one. If both
          were, the one that covers more of it on average over the frames. A thing was on a patch
          if it covers a tenth of it on average, so one that only passed counts, too;
        - ``agent``: of patches that a thing was on, whether that was the agent;
        - ``contact``: of the same patches, whether both things were on it in the same frame.
    """
    shares = F.avg_pool2d(masks.float(), PATCH_SIZE).flatten(2)  # [2, T, P]
    mean = shares.mean(dim=1)
    most, thing = mean.max(dim=0)
    seen = most >= _SEEN
    nobody = torch.full_like(thing, NOT_ASKED)
    contact = (shares >= _TOUCHED).all(dim=0).any(dim=0)
    return {
        "object": torch.where(seen, 1 + thing, 0),
        "agent": nobody if agent is None else torch.where(seen, thing == agent, nobody),
        "contact": torch.where(seen, contact, nobody),
    }


def directions(masks: Tensor) -> Tensor:
    """Where the main movement of each segment goes, as seen in the picture.

    A segment is two frames. Of both things, the one whose centre goes farther from the one to the
    other counts.

    Args:
        masks: bool [2, T, H, W].

    Returns:
        int64 [T / 2]: 0 nowhere (less than a pixel), 1 right, 2 left, 3 down, 4 up.
    """
    height, width = masks.shape[-2:]
    seen = masks.float()
    area = seen.sum(dim=(2, 3))
    center = torch.stack(
        [
            (seen.sum(dim=2) * torch.arange(width)).sum(dim=-1),
            (seen.sum(dim=3) * torch.arange(height)).sum(dim=-1),
        ],
        dim=-1,
    ) / area.clamp_min(1).unsqueeze(-1)
    way = center[:, 1::2] - center[:, ::2]  # [2, T / 2, 2]
    way[(area[:, 1::2] == 0) | (area[:, ::2] == 0)] = 0  # hidden: it went nowhere to be seen
    length = way.norm(dim=-1)
    farther = length.argmax(dim=0)
    segments = torch.arange(way.size(1))
    way, length = way[farther, segments], length[farther, segments]
    axis = way.abs().argmax(dim=-1)
    backwards = way.gather(1, axis[:, None]).squeeze(1) < 0
    return torch.where(length < _STILL, 0, 1 + 2 * axis + backwards)
