"""Extract the features of videos once, to train on them as often as wanted.

    python examples/extract_features.py --videos train.json --root VIDEOS --random_views 4 \\
        --model.motion_extractor.checkpoint rgb_imagenet.pt --output stores/train
    python examples/extract_features.py --videos validation.json --root VIDEOS --protocol ssv2 \\
        --model.motion_extractor.checkpoint rgb_imagenet.pt --output stores/validation

Killed at any moment, the same command goes on where it stopped. Several processes, on one machine
or many that share the folder, each with its ``--worker`` of so many ``--workers`` (or started by
torchrun or srun, which say it in the environment), write one store.

    python examples/extract_features.py --output stores/train --verify true

reads every byte again and names what is damaged; ``--repair true`` deletes that, and extracting
once more makes it again. Without options the extractors are the full-size frozen ones, see
``examples/train.py``, whose ``model`` options have to be the same.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from tqdm import tqdm
from train import Extractors, load_part

from gasmcast import DINOv3SemanticExtractor, I3DMotionExtractor, WeightsNotFoundError
from gasmcast.datasets import check_classes
from gasmcast.extraction import TooManyUnreadableClips, extract_features
from gasmcast.feature_store import FeatureStore, FeatureStoreError, verify_store
from gasmcast.training import evaluation_views


def main(
    output: Path,
    videos: Path | None = None,
    part: Literal["train", "validation", "test"] = "train",
    labels: Path | None = None,
    root: Path | None = None,
    split: int = 1,
    bad_files: Path | None = None,
    check_labels: Path | None = None,
    protocol: Literal["ssv2", "kinetics"] | None = None,
    clips: int = 1,
    crops: Literal[1, 3] = 1,
    stride: int | None = None,
    random_views: int = 0,
    augmentation: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: Literal["float16", "bfloat16", "float32"] = "float16",
    autocast: Literal["bfloat16", "float16"] | None = None,
    batch_size: int = 8,
    num_workers: int = 2,
    device: str | None = None,
    backend: Literal["auto", "decord", "pyav"] = "auto",
    clips_per_shard: int = 64,
    worker: int | None = None,
    workers: int | None = None,
    max_unreadable: float = 0.5,
    retry_unreadable: bool = False,
    verify: bool = False,
    repair: bool = False,
    model: Extractors = Extractors(),  # noqa: B008 - read only
) -> None:
    """Extract the features of videos to a store, or verify one.

    Args:
        output: The store.
        videos: A folder with one folder of videos per class, or an annotation list.
        part: Which part of videos, where it has several.
        labels: File of the class names in order; null: as the kind of list has it.
        root: Folder that relative paths of a list are relative to; null: the list's own.
        split: Which split, where videos holds several (HMDB51).
        bad_files: List of files that are known to be damaged and are left out.
        check_labels: File of class names; videos whose classes are others, or in another order, are
            refused.
        protocol: Views that published results average. ssv2: 16 frames, 2 clips x 3 crops;
            kinetics: 16 frames, every fourth one, 5 clips x 3 crops; null: the numbers that follow.
        clips: Clips of a video, spread over time.
        crops: Crops of a clip, 1 or 3.
        stride: Frames from one frame of a clip to the next; null: from each of equal bins.
        random_views: Instead so many views of each video, drawn at random as for training.
        augmentation: How random views are drawn, such as {min_scale: 0.5, color_jitter: 0.2}.
        seed: Of random views, and of weights that are not loaded.
        dtype: Of the numbers on disk.
        autocast: Type to compute in where that is safe; null: float32.
        batch_size: Views that are computed at a time.
        num_workers: Decoding processes.
        device: Where to compute, such as cuda:1; null: this process's GPU, or the CPU.
        backend: Decoder.
        clips_per_shard: Videos of a file.
        worker: Number of this worker, from 0; null: as torchrun or Slurm say, or the only one.
        workers: Workers that share the store; null: likewise.
        max_unreadable: Share of a shard's videos that may be unreadable.
        retry_unreadable: Make the shards again that hold videos without features.
        verify: Read the store and name what is damaged; nothing is extracted.
        repair: The same, and delete what is damaged.
        model: The extractors.
    """
    if verify or repair:
        check_store(output, repair)
        return
    if videos is None:
        raise ValueError("name the videos to extract features of: --videos VIDEOS")
    if random_views and protocol is not None:
        raise ValueError(f"random_views and protocol={protocol!r} exclude each other")
    options = {"labels": labels, "root": root, "split": split, "bad_files": bad_files}
    listed = load_part(videos, part, **options)
    if isinstance(listed, FeatureStore):
        raise ValueError(f"{videos} is a feature store: expected videos")
    if check_labels is not None:
        check_classes(listed.classes, check_labels)
    views = evaluation_views(
        protocol, num_frames=model.num_frames, clips=clips, crops=crops, stride=stride
    )
    place = launched()
    store = extract_features(
        listed,
        output,
        *build_extractors(model, seed),
        sampling=views.sampling,
        crops=views.crops,
        random_views=random_views,
        augmentation=augmentation,
        seed=seed,
        dtype=dtype,
        autocast=autocast,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device or own_device(),
        backend=backend,
        clips_per_shard=clips_per_shard,
        worker=place[0] if worker is None else worker,
        workers=place[1] if workers is None else workers,
        max_unreadable=max_unreadable,
        retry_unreadable=retry_unreadable,
    )
    if store.missing:
        print(f"{len(store.missing)} of {store.manifest.num_shards} shards are left to others")
    else:
        print(f"{output}: {len(store)} videos, {store.num_views} views each")
        print_failed(store)


def build_extractors(
    options: Extractors, seed: int
) -> tuple[DINOv3SemanticExtractor, I3DMotionExtractor]:
    """The extractors of these options; random weights are those of a model of this seed."""
    torch.manual_seed(seed)
    size = {"image_size": options.image_size}
    semantic = DINOv3SemanticExtractor(**asdict(options.semantic_extractor), **size)
    return semantic, I3DMotionExtractor(**asdict(options.motion_extractor), **size)


def launched() -> tuple[int, int]:
    """Number of this process and of all, as torchrun or srun say."""
    for number, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if number in os.environ and count in os.environ:
            return int(os.environ[number]), int(os.environ[count])
    return 0, 1


def own_device() -> str:
    """The GPU of this process among those of its machine, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return f"cuda:{int(local) % torch.cuda.device_count()}"


def check_store(folder: Path, repair: bool) -> None:
    """Print what is damaged; an error status if anything is and stays."""
    found = verify_store(folder, remove=repair, progress=lambda shards: tqdm(shards, unit="shard"))
    print("\n".join(map(str, found)) or f"{folder} is sound")
    if found and not repair:
        raise SystemExit(
            f"{len(found)} shard files are damaged or missing: --repair true deletes those that "
            "are there"
        )
    store = FeatureStore(folder)
    print_failed(store)
    if store.missing:
        print(f"{len(store.missing)} of {store.manifest.num_shards} shards are to be extracted")


def print_failed(store: FeatureStore) -> None:
    """Name the videos without features, if there are any."""
    failed = store.failed()
    if failed:
        print(
            f"{len(failed)} videos could not be read (--retry_unreadable true tries again):\n  "
            + "\n  ".join(failed.values())
        )


if __name__ == "__main__":
    try:
        auto_cli(main, as_positional=False, allow_abbrev=False)
    except (
        *(OSError, ValueError, WeightsNotFoundError),
        *(FeatureStoreError, TooManyUnreadableClips),
    ) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on from here") from None
