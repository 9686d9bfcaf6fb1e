"""Videos to a feature store: the long job, which can stop anywhere and go on."""

from __future__ import annotations

import inspect
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_dtype
from tqdm import tqdm

from gasmcast.datasets import ClipDataset, LabeledVideos, collate_clips
from gasmcast.extractors import FeatureExtractor
from gasmcast.feature_store import FeatureStore, FeatureStoreWriter, Manifest, Stream
from gasmcast.transforms import eval_transform, train_transform
from gasmcast.video import FrameSampling


class TooManyUnreadableClips(RuntimeError):
    """So many videos of a shard cannot be read that something else must be wrong."""


def extract_features(
    videos: LabeledVideos,
    folder: str | os.PathLike[str],
    semantic_extractor: FeatureExtractor,
    motion_extractor: FeatureExtractor,
    *,
    sampling: FrameSampling = FrameSampling(),  # noqa: B008 - immutable
    crops: int = 1,
    random_views: int = 0,
    augmentation: Mapping[str, Any] | None = None,
    seed: int = 0,
    dtype: str = "float16",
    autocast: str | None = None,
    batch_size: int = 8,
    num_workers: int = 2,
    device: str | torch.device | None = None,
    backend: str = "auto",
    clips_per_shard: int = 64,
    worker: int = 0,
    workers: int = 1,
    max_unreadable: float = 0.5,
    retry_unreadable: bool = False,
    progress: bool = True,
) -> FeatureStore:
    """Write the features of videos to a store, or what is missing of them.

    Stopped at any moment, kill -9 and power cuts included, the same call goes on: it makes the
    shards that are not there. A batch never crosses from one shard into the next, so the finished
    store is the same, bit for bit on one machine, however often it was stopped and however many
    workers shared it. Videos that cannot be read are noted in the store with the reason.

    While the extractors compute, ``num_workers`` processes decode what comes next.

    Args:
        videos: The videos; their ids become those of the clips.
        folder: The store, made if need be. One that holds other features is refused.
        semantic_extractor: Clips to patches, [B, T, 3, H, W] -> [B, P, D].
        motion_extractor: Clips to segments, [B, T, 3, H, W] -> [B, S, D].
        sampling: Frames of a clip and clips of a video.
        crops: Crops of each clip, 1 or 3; a record has ``sampling.clips * crops`` views, clip by
            clip.
        random_views: Instead of these, so many views drawn at random as for training, each by
            (seed, number of the view, place of the video); 0 for none.
        augmentation: Arguments of :func:`~gasmcast.train_transform` for random views.
        seed: Of the random views.
        dtype: Of the numbers on disk: float16, bfloat16 or float32.
        autocast: Type the extractors compute in where autocast allows it, such as bfloat16; None:
            float32 throughout.
        batch_size: Views that the extractors take at a time.
        num_workers: Decoding processes; 0: decode in this one.
        device: Where to compute; None: the first GPU, or the CPU without one.
        backend: Decoder, see :func:`~gasmcast.read_video`.
        clips_per_shard: Clips of a file. This many at most are lost when the job is killed.
        worker: Number of this worker, from 0.
        workers: Workers that share the store, on one machine or many; each makes every
            ``workers``-th shard.
        max_unreadable: A shard is not written, and the job stops, if more than this share of its
            videos cannot be read: then the paths are wrong rather than the videos.
        retry_unreadable: Make shards with videos that could not be read again, as after a disk was
            not there for a while. Until the new one is written, the old one stays.
        progress: Show a bar with clips per second and the time left.

    Returns:
        The store; complete unless other workers are still at their shards.

    Raises:
        FeatureStoreError: The folder holds another store, or the disk is full; what is written
            stays.
        TooManyUnreadableClips: See ``max_unreadable``.
        ValueError: Arguments or extractors that do not fit, or a device that is not there.
    """
    image_size = semantic_extractor.image_size
    if motion_extractor.image_size != image_size:
        raise ValueError(
            f"the extractors must take clips of one size, got image_size={image_size} and "
            f"{motion_extractor.image_size}"
        )
    if random_views < 0 or (random_views and (crops > 1 or sampling.clips > 1)):
        raise ValueError(
            "random_views must be a number of views in place of several clips and crops, got "
            f"random_views={random_views}, clips={sampling.clips}, crops={crops}"
        )
    if augmentation and not random_views:
        raise ValueError(f"augmentation is for random views, got {dict(augmentation)} without any")
    if not 0 <= max_unreadable <= 1:
        raise ValueError(f"max_unreadable must be between 0 and 1, got {max_unreadable}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if autocast not in (None, "bfloat16", "float16"):
        raise ValueError(f"autocast must be bfloat16, float16 or None, got {autocast!r}")
    device = _device(device)
    extractors = {"semantic": semantic_extractor, "motion": motion_extractor}
    for extractor in extractors.values():
        extractor.to(device).eval()
    num_views = random_views or sampling.clips * crops
    if random_views:
        transform = _augment(image_size, augmentation or {})
    else:
        transform = eval_transform(image_size, crops=crops, dtype=torch.uint8)
    compute = partial(_compute, extractors, device, autocast)
    manifest = Manifest(
        ids=tuple(record.id for record in videos.records),
        labels=tuple(record.label for record in videos.records),
        classes=videos.classes,
        streams={
            name: Stream(tuple(shape), dtype)
            for name, shape in _shapes(compute, sampling.num_frames, image_size).items()
        },
        num_views=num_views,
        fingerprint={
            **{name: extractor.fingerprint() for name, extractor in extractors.items()},
            "sampling": asdict(sampling),
            # As it is, with the defaults of today: those of tomorrow may be others.
            "transform": repr(transform).splitlines(),
            "random_views": {"number": random_views, "seed": seed} if random_views else None,
            "autocast": autocast,
        },
        clips_per_shard=clips_per_shard,
    )
    writer = FeatureStoreWriter(folder, manifest)
    clips = ClipDataset(
        videos,
        transform,
        sampling=sampling,
        training=bool(random_views),
        seed=seed,
        backend=backend,
    )
    pending = writer.pending(worker, workers, retry_failed=retry_unreadable)
    videos_a_batch = max(1, batch_size // num_views)
    batches = [
        list(numbers[begin : begin + videos_a_batch])
        for numbers in map(manifest.clips_of, pending)
        for begin in range(0, len(numbers), videos_a_batch)
    ]
    loader = DataLoader(
        _Views(clips, random_views),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate_clips,
        pin_memory=device.type == "cuda",
    )
    own = range(worker, manifest.num_shards, workers)
    total = sum(len(manifest.clips_of(shard)) for shard in own)
    left = sum(map(len, batches))
    with tqdm(total=total, initial=total - left, unit="clip", disable=not progress) as bar:
        for shard, records, failed in _shards(loader, compute, manifest, batch_size, bar):
            if len(failed) > max_unreadable * (len(records) + len(failed)):
                listed = "\n  ".join(list(failed.values())[:5])
                raise TooManyUnreadableClips(
                    f"{len(failed)} of {len(records) + len(failed)} videos of shard {shard} cannot "
                    f"be read, more than the allowed share of {max_unreadable:.0%}; among them:\n"
                    f"  {listed}"
                )
            writer.write(shard, records, failed)
    return FeatureStore(folder)


def _device(device: str | torch.device | None) -> torch.device:
    """The device to compute on, which has to be there."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n")[0]  # torch goes on with advice
        raise ValueError(f"expected a device to compute on, got {chosen!r}: {reason}") from error


def _augment(image_size: int, options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """The transform of random views, on bytes."""
    names = set(inspect.signature(train_transform).parameters) - {"image_size", "dtype"}
    unknown = sorted(set(options) - names)
    if unknown:
        raise ValueError(
            f"augmentation must be of {', '.join(sorted(names))}, got {', '.join(unknown)}"
        )
    return train_transform(image_size, dtype=torch.uint8, **options)


class _Views(Dataset):
    """All views of a video as one sample: clip [V, T, 3, S, S]."""

    def __init__(self, clips: ClipDataset, random_views: int) -> None:
        self.clips = clips
        self.random_views = random_views

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.random_views:
            sample = self.clips[index]
            if "clip" in sample and sample["clip"].ndim == 4:
                sample["clip"] = sample["clip"].unsqueeze(0)
            return sample
        views = []
        for view in range(self.random_views):
            sample = self.clips[view, index]
            if "error" in sample:
                return sample
            views.append(sample["clip"])
        return {**sample, "clip": torch.stack(views)}


def _shards(
    loader: DataLoader, compute: Any, manifest: Manifest, batch_size: int, bar: tqdm
) -> Iterator[tuple[int, dict[str, dict[str, Tensor]], dict[str, str]]]:
    """Each shard once all its clips have been through: its number, its records, what failed."""
    records: dict[str, dict[str, Tensor]] = defaultdict(dict)
    failed: dict[str, str] = {}
    for batch in loader:
        before = len(records) + len(failed)
        for index, error in batch["errors"].items():
            shard, failed[manifest.ids[index]] = index // manifest.clips_per_shard, error
        if "clip" in batch:
            clips = batch["clip"]
            parts = [compute(part) for part in clips.flatten(0, 1).split(batch_size)]
            for name in manifest.streams:
                features = torch.cat([part[name] for part in parts])
                for index, record in zip(
                    batch["index"].tolist(), features.unflatten(0, clips.shape[:2]), strict=True
                ):
                    records[manifest.ids[index]][name] = record
            shard = index // manifest.clips_per_shard
        through = len(records) + len(failed)
        bar.update(through - before)
        if through == len(manifest.clips_of(shard)):
            yield shard, dict(records), dict(failed)
            records.clear()
            failed.clear()


def _compute(
    extractors: Mapping[str, FeatureExtractor],
    device: torch.device,
    autocast: str | None,
    clips: Tensor,
) -> dict[str, Tensor]:
    """uint8 clips [B, T, 3, S, S] -> features by stream, on the CPU."""
    clips = to_dtype(clips.to(device, non_blocking=True), torch.float32, scale=True)
    kind = getattr(torch, autocast) if autocast else None
    with torch.inference_mode(), torch.autocast(device.type, kind, enabled=kind is not None):
        return {name: extractor(clips).cpu() for name, extractor in extractors.items()}


def _shapes(compute: Any, num_frames: int, image_size: int) -> dict[str, torch.Size]:
    """The shape of the features of one view, found by trying."""
    black = torch.zeros(1, num_frames, 3, image_size, image_size, dtype=torch.uint8)
    return {name: features.shape[1:] for name, features in compute(black).items()}
