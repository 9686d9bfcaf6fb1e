"""Clips that are corrupted or reordered, and their features."""

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image, to_tensor

from gasmcast import FeatureExtractor, TemporalCrossAttentionModel, read_annotation_list
from gasmcast.extraction import extract_features

Change = Callable[[Tensor, torch.Generator], Tensor]

CHANGES = 1
"""Goes up when a change gives other clips, so that no features of others are taken for its own."""


def noise(clip: Tensor, drawn: torch.Generator) -> Tensor:
    """Gaussian noise with a standard deviation of 0.1 in each pixel and channel."""
    return (clip + 0.1 * torch.randn(clip.shape, generator=drawn)).clamp(0, 1)


def compression(clip: Tensor, drawn: torch.Generator) -> Tensor:
    """Every frame as a JPEG of quality 10."""
    frames = []
    for frame in clip:
        file = BytesIO()
        to_pil_image(frame).save(file, "jpeg", quality=10)
        frames.append(to_tensor(Image.open(file)))
    return torch.stack(frames)


def dropped(clip: Tensor, drawn: torch.Generator) -> Tensor:
    """Half of the frames after the first are lost: the last one that came is shown again."""
    count = len(clip)
    came = torch.arange(count)
    lost = 1 + torch.randperm(count - 1, generator=drawn)[: (count - 1) // 2]
    came[lost] = 0
    return clip[came.cummax(dim=0).values]


def shuffled(clip: Tensor, drawn: torch.Generator) -> Tensor:
    """The frames in a random order."""
    return clip[torch.randperm(len(clip), generator=drawn)]


def backwards(clip: Tensor, drawn: torch.Generator) -> Tensor:
    """The last frame first."""
    return clip.flip(0)


def one_frame(clip: Tensor, drawn: torch.Generator) -> Tensor:
    """The middle frame all the time."""
    return clip[len(clip) // 2].expand_as(clip)


CORRUPTIONS: dict[str, Change] = {
    change.__name__: change for change in (noise, compression, dropped, shuffled, backwards)
}


class ChangedClips(FeatureExtractor):
    """An extractor that sees each clip changed; what is random follows from the clip alone."""

    def __init__(self, extractor: FeatureExtractor, change: Change):
        super().__init__(
            extractor.backbone,
            feature_dim=extractor.feature_dim,
            image_size=extractor.image_size,
            mean=extractor.mean.flatten().tolist(),
            std=extractor.std.flatten().tolist(),
        )
        self.extractor = extractor
        self.change = change

    def extract(self, clip: Tensor) -> Tensor:
        """Features of the changed clips."""
        return self.extractor.extract(torch.stack([self._changed(one) for one in clip]))

    def fingerprint(self) -> dict[str, Any]:
        """That of the extractor, and what is changed."""
        return {**self.extractor.fingerprint(), "change": f"{self.change.__name__} {CHANGES}"}

    def _changed(self, clip: Tensor) -> Tensor:
        drawn = torch.Generator().manual_seed(zlib.crc32(clip.contiguous().numpy()))
        return self.change(clip, drawn)


def extract_changed(
    clips: Path,
    split: str,
    folder: Path,
    model: TemporalCrossAttentionModel,
    change: Change,
    num_workers: int,
) -> None:
    """The features of a split of the interactions with every clip changed."""
    extract_features(
        read_annotation_list(clips / f"{split}.csv", classes=clips / "labels.json"),
        folder,
        ChangedClips(model.semantic_extractor, change),
        ChangedClips(model.motion_extractor, change),
        batch_size=16,
        num_workers=num_workers,
    )
