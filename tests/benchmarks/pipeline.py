"""The way from video files to a trained head: where the time goes, and what decoding costs."""

import itertools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import Machine
from benchmarks.measure import Effort, Measured, Way, measure
from benchmarks.page import rounds, table
from gasmcast import TemporalCrossAttentionModel, eval_transform, read_video
from gasmcast.datasets import LabeledVideos, read_annotation_list, write_rendered_dataset
from gasmcast.extraction import extract_features
from gasmcast.feature_store import FeatureStore

VIDEOS, BATCH, SIZE = 64, 8, 240  # as high as the clips of Something-Something V2
ALONE = "the two extractors alone, on prepared tensors"
WHOLE = "videos to store: read, sample, resize, crop, extract, write"
TINY = {
    "semantic_extractor": {
        "model_name": "vit_tiny_patch16_224",
        "image_size": 32,
        "model_kwargs": {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
    },
    "motion_extractor": {"width": 0.0625, "image_size": 32},
    "num_heads": 4,
    "bottleneck_dim": 16,
}


def run(effort: Effort) -> str:
    """Measure all and return the section of the page."""
    machine = Machine(effort.device, ("timm", "av"))
    count = 4 if effort.tiny else VIDEOS
    # Minutes a round, and the start of the processes counts: rather many videos than many rounds.
    effort = replace(effort, min_rounds=min(3, effort.min_rounds))
    model = make_model(TINY if effort.tiny else {})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        videos = write_videos(root / "videos", count, 48 if effort.tiny else SIZE)
        stores = map(str, itertools.count())
        whole = measure(
            [
                Way(ALONE, partial(extract_alone, model, prepare(videos, model.image_size))),
                Way(WHOLE, lambda: extract_all(model, videos, root / next(stores), effort)),
            ],
            effort,
        )
        parts = measure(make_parts(model, videos, root), effort)
    return "\n\n".join(
        [
            f"Measured on: {machine}.",
            f"**{count} videos** of 48 frames, {SIZE} x {SIZE}, VP9 in WebM, batches of {BATCH}, "
            f"DINOv3 ViT-B/16 and I3D at full size in float32; {rounds(whole)}.",
            throughput(whole, count),
            f"**The parts one by one**, each with all cores to itself; {rounds(parts)}.",
            shares(parts, count),
        ]
    )


def make_model(options: dict) -> TemporalCrossAttentionModel:
    """The model at full size unless told otherwise, with random weights: time is the same."""
    torch.manual_seed(0)
    semantic = {**options.get("semantic_extractor", {}), "pretrained": False}
    motion = {**options.get("motion_extractor", {}), "allow_random_weights": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TemporalCrossAttentionModel(
            **{**options, "semantic_extractor": semantic, "motion_extractor": motion}
        )


def write_videos(root: Path, count: int, size: int) -> LabeledVideos:
    """Rendered videos as files."""
    write_rendered_dataset(
        root,
        clips_per_class={"train": count // 2},
        motions=("lift", "drop"),
        appearances=("checked",),
        num_frames=48,
        size=size,
        codec="vp9",
    )
    return read_annotation_list(root / "train.csv", classes=root / "labels.json")


def prepare(videos: LabeledVideos, image_size: int) -> list[Tensor]:
    """Batches of clips as the extractors take them."""
    transform = eval_transform(image_size)
    clips = [transform(read_video(record.path).frames) for record in videos.records]
    return list(torch.stack(clips).split(BATCH))


def extract_alone(model: TemporalCrossAttentionModel, batches: list[Tensor]) -> list[Tensor]:
    """What any way to extract features has to compute."""
    with torch.inference_mode():
        return [
            extractor(batch)
            for batch in batches
            for extractor in (model.semantic_extractor, model.motion_extractor)
        ]


def extract_all(
    model: TemporalCrossAttentionModel, videos: LabeledVideos, folder: Path, effort: Effort
) -> FeatureStore:
    """The whole way, the start of the decoding processes included."""
    return extract_features(
        videos,
        folder,
        model.semantic_extractor,
        model.motion_extractor,
        batch_size=BATCH,
        num_workers=0 if effort.tiny else 2,
        progress=False,
    )


def make_parts(model: TemporalCrossAttentionModel, videos: LabeledVideos, root: Path) -> list[Way]:
    """Each step of the way over all videos."""
    frames = [read_video(record.path).frames for record in videos.records]
    batches = prepare(videos, model.image_size)
    store = extract_features(
        videos,
        root / "parts",
        model.semantic_extractor,
        model.motion_extractor,
        batch_size=BATCH,
        num_workers=0,
        progress=False,
    )
    transform = eval_transform(model.image_size)
    ways: dict[str, Callable[[], object]] = {
        "read 16 frames of each file": lambda: [read_video(r.path) for r in videos.records],
        "resize and crop": lambda: [transform(clip) for clip in frames],
        "semantic extractor": lambda: _features(model.semantic_extractor, batches),
        "motion extractor": lambda: _features(model.motion_extractor, batches),
        "read features from the store": lambda: [
            {name: part.float() for name, part in store[number].items()}
            for number in range(len(store))
        ],
        "graphs, attention, fusion, classifier: a training step": lambda: train_head(model, store),
    }
    return [Way(name, call) for name, call in ways.items()]


def train_head(model: TemporalCrossAttentionModel, store: FeatureStore) -> None:
    """Forward and backward of the head over all clips of a store, without an update."""
    labels = torch.tensor(store.labels)
    for numbers in torch.arange(len(store)).split(BATCH):
        records = [store.read(int(number), 0) for number in numbers]
        semantic, motion = (
            torch.stack([record[name] for record in records]).float()
            for name in ("semantic", "motion")
        )
        F.cross_entropy(model.forward_features(semantic, motion), labels[numbers]).backward()
    model.zero_grad(set_to_none=True)


def throughput(measured: Measured, count: int) -> str:
    """Clips a second, and in shares of what the extractors reach alone."""
    rows = [
        [
            name,
            f"{count / measured.milliseconds(name).median * 1000:.2f}",
            measured.ratio(ALONE, name) if name != ALONE else 1,
        ]
        for name in (ALONE, WHOLE)
    ]
    return table(("", "clips a second", "extractors alone = 1"), rows)


def shares(measured: Measured, count: int) -> str:
    """Time of each part for a clip, and its share of all."""
    times = {name: measured.milliseconds(name).median / count for name in measured.peak_bytes}
    total = sum(times.values())
    rows = [[name, f"{time:.2f}", f"{time / total:.1%}"] for name, time in times.items()]
    return table(("", "ms a clip", "share"), rows)


def _features(extractor: torch.nn.Module, batches: list[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [extractor(batch) for batch in batches]
