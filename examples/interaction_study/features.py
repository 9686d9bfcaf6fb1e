"""Stored features in memory: small enough for that, and a hundred runs read them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gasmcast.feature_store import FeatureStore


@dataclass(frozen=True, eq=False)
class Features(Dataset):
    """Features of labelled clips, as :class:`gasmcast.training.ActionDataModule` takes them.

    Attributes:
        semantic: [N, P, D].
        motion: [N, S, D'].
        labels: [N].
        ids: Names of the clips.
        classes: Names of the classes.
    """

    semantic: Tensor
    motion: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """All clips of a feature store that could be read, the first view of each."""
        store = FeatureStore(folder)
        failed = store.failed()
        numbers = [number for number, clip in enumerate(store.ids) if clip not in failed]
        clips = [store.read(number, view=0) for number in numbers]
        semantic, motion = (
            torch.stack([clip[name].float() for clip in clips]) for name in ("semantic", "motion")
        )
        labels = torch.tensor(store.labels)[numbers]
        ids = tuple(store.ids[number] for number in numbers)
        return cls(semantic, motion, labels, ids, store.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int | tuple[int, int]) -> dict[str, Any]:
        index = place[1] if isinstance(place, tuple) else place  # the epoch changes nothing
        return {
            "semantic": self.semantic[index],
            "motion": self.motion[index],
            "label": self.labels[index],
            "index": index,
        }

    def with_streams(self, semantic: Tensor, motion: Tensor) -> "Features":
        """Other tokens of the same clips."""
        return replace(self, semantic=semantic, motion=motion)

    def take(self, chosen: Sequence[int] | Tensor) -> "Features":
        """Some of the clips."""
        chosen = torch.as_tensor(chosen)
        return replace(
            self,
            semantic=self.semantic[chosen],
            motion=self.motion[chosen],
            labels=self.labels[chosen],
            ids=tuple(self.ids[index] for index in chosen.tolist()),
        )

    def share(self, share: float, seed: int) -> "Features":
        """A share of the clips of each class, at least one, drawn at random."""
        drawn = torch.Generator().manual_seed(seed)
        chosen = []
        for label in range(len(self.classes)):
            clips = (self.labels == label).nonzero().flatten()
            count = max(1, round(share * len(clips)))
            chosen.append(clips[torch.randperm(len(clips), generator=drawn)[:count]])
        return self.take(torch.cat(chosen).sort().values)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each channel over the training clips.

    A network learns faster from features that are scaled by them.
    """

    semantic: tuple[Tensor, Tensor]
    motion: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, features: Features) -> "Scale":
        """Of all tokens of all clips."""
        tokens = [getattr(features, name).flatten(0, 1) for name in ("semantic", "motion")]
        return cls(*((x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)) for x in tokens))

    def __call__(self, features: Features) -> Features:
        """Each channel with mean 0 and standard deviation 1 (over the training clips)."""
        scaled = (
            (tokens - mean) / deviation
            for tokens, (mean, deviation) in (
                (features.semantic, self.semantic),
                (features.motion, self.motion),
            )
        )
        return features.with_streams(*scaled)


load = cache(Features.load)


@cache
def scale_of(folder: Path) -> Scale:
    """Of the clips of a feature store."""
    return Scale.of(load(folder))
