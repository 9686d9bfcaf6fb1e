"""Train and evaluate on videos with labels, or on features of them that are stored already.

    python examples/train.py --config examples/configs/small.yaml --train VIDEOS --output runs/mine
    python examples/train.py --train stores/train --test stores/validation \\
        --model.motion_extractor.checkpoint rgb_imagenet.pt --output runs/stored
    python examples/train.py --train train.csv --test test.csv --labels labels.json \\
        --model.motion_extractor.checkpoint rgb_imagenet.pt --output runs/full

Every option can stand in a YAML file (``--config``) and be overridden on the command line.
``--print_config`` shows all of them with their defaults. Without a configuration the extractors are
the full-size frozen ones: DINOv3 ViT-B/16, whose weights come from the Hugging Face hub, and I3D,
whose weights are the file given as ``--model.motion_extractor.checkpoint``. Stores are written by
``examples/extract_features.py`` with the same extractors.

Interrupted at any moment, the same command with ``--resume true`` goes on and takes the same steps.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from lightning.pytorch.utilities import rank_zero_only

from gasmcast import TemporalCrossAttentionModel, WeightsNotFoundError
from gasmcast.datasets import (
    LabeledVideos,
    check_classes,
    mirrored_classes,
    read_videos,
    split_videos,
)
from gasmcast.feature_store import FeatureDataset, FeatureStore, FeatureStoreError
from gasmcast.training import (
    ActionDataModule,
    TooManyUnreadableVideos,
    VideoDataModule,
    evaluation_views,
    train_and_test,
)

say = rank_zero_only(print)  # in the first of several processes alone


@dataclass
class SemanticExtractor:
    """The semantic extractor, see gasmcast.DINOv3SemanticExtractor.

    Args:
        model_name: Any timm model that gives patch tokens.
        pretrained: Load its weights from the Hugging Face hub.
        num_frames: Frames of the clip that it looks at.
        pooling: How the patches of these frames are pooled.
        model_kwargs: Further arguments of timm.create_model.
        trainable: Train it jointly with the head instead of keeping it frozen.
    """

    model_name: str = "vit_base_patch16_dinov3.lvd1689m"
    pretrained: bool = True
    num_frames: int = 4
    pooling: Literal["mean", "max"] = "mean"
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    trainable: bool = False


@dataclass
class MotionExtractor:
    """The motion extractor, see gasmcast.I3DMotionExtractor.

    Args:
        checkpoint: File of I3D weights; null: random weights.
        width: Factor on the number of channels of I3D.
        trainable: Train it jointly with the head instead of keeping it frozen.
    """

    checkpoint: Path | None = None
    width: float = 1.0
    trainable: bool = False


@dataclass
class Extractors:
    """What turns clips into features.

    Args:
        semantic_extractor: What is there.
        motion_extractor: How it moves.
        image_size: Height and width of the clips in pixels.
        num_frames: Frames a clip is sampled to.
    """

    semantic_extractor: SemanticExtractor = field(default_factory=SemanticExtractor)
    motion_extractor: MotionExtractor = field(default_factory=MotionExtractor)
    image_size: int = 224
    num_frames: int = 16


@dataclass
class Model(Extractors):
    """The model, see gasmcast.TemporalCrossAttentionModel.

    Args:
        semantic_extractor: What is there.
        motion_extractor: How it moves.
        image_size: Height and width of the clips in pixels.
        num_frames: Frames a clip is sampled to.
        fusion: What the streams meet in: bottleneck, cross_attention (the simple baseline, at full
            width) or late (nothing but the classifier).
        bottleneck_dim: Width of the bottleneck.
        num_heads: Heads of graph and cross-attention.
        similarity_threshold: Cosine similarity that connects two nodes of a graph.
        adjacency_window: Segments at most so far apart are adjacent.
        max_similar: At most so many edges a node receives through similarity alone.
        dropout: Probability of dropping a graph attention weight.
        drop_path: Probability of skipping a fusion layer for a clip.
    """

    fusion: Literal["bottleneck", "cross_attention", "late"] = "bottleneck"
    bottleneck_dim: int = 256
    num_heads: int = 8
    similarity_threshold: float = 0.8
    adjacency_window: float = 2
    max_similar: int | None = 16
    dropout: float = 0.0
    drop_path: float = 0.1


@dataclass
class Loader:
    """How clips are loaded.

    Args:
        batch_size: Videos of a batch, in each process.
        num_workers: Decoding processes for each training process.
        stride: Frames from one frame of a training clip to the next; null: from each of equal bins.
        min_scale: Smallest share of a frame's area that a training crop covers.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        erase: Probability of erasing a rectangle of a training clip.
        backend: Decoder.
        timeout_seconds: How long a decoder may take for a video.
    """

    batch_size: int = 8
    num_workers: int = 2
    stride: int | None = None
    min_scale: float = 0.5
    color_jitter: float = 0.2
    erase: float = 0.0
    backend: Literal["auto", "decord", "pyav"] = "auto"
    timeout_seconds: float = 60.0


@dataclass
class Evaluation:
    """Which views of a test video are averaged.

    Args:
        protocol: What published results average. ssv2: 16 frames, 2 clips x 3 crops; kinetics: 16
            frames, every fourth one, 5 clips x 3 crops; null: the numbers below.
        clips: Clips of a video, spread over time.
        crops: Crops of a clip, 1 or 3.
        stride: Frames from one frame of a clip to the next; null: from each of equal bins.
    """

    protocol: Literal["ssv2", "kinetics"] | None = None
    clips: int = 1
    crops: Literal[1, 3] = 1
    stride: int | None = None


@dataclass
class Optimization:
    """How the weights are found.

    Args:
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_share: Share of all steps over which the learning rate rises.
        label_smoothing: Share of a label's weight spread over all classes.
        mixup_alpha: Training clips are mixed in pairs, with a share drawn from Beta(alpha, alpha);
            0: not.
        cutmix_alpha: A rectangle of another clip takes the place of a training clip's, likewise.
        ema_decay: Evaluate and save a moving average of the weights with this decay; null: the last
            weights.
        max_unreadable: Share of the videos that may be unreadable before the run stops.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    label_smoothing: float = 0.1
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    ema_decay: float | None = None
    max_unreadable: float = 0.1


def main(
    train: Path,
    output: Path,
    test: Path | None = None,
    validation: Path | None = None,
    labels: Path | None = None,
    root: Path | None = None,
    split: int = 1,
    bad_files: Path | None = None,
    check_labels: Path | None = None,
    flip: str | None = None,
    held_out: float = 0.25,
    epochs: int = 20,
    seed: int = 0,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    model: Model = Model(),  # noqa: B008 - read only
    loader: Loader = Loader(),  # noqa: B008
    optimization: Optimization = Optimization(),  # noqa: B008
    evaluation: Evaluation = Evaluation(),  # noqa: B008
    trainer: dict[str, Any] | None = None,
) -> None:
    """Train and evaluate on videos with labels.

    Args:
        train: A folder with one folder of videos per class, an annotation list, or a feature store.
        output: Folder for the model, results, log and checkpoints.
        test: The like, to evaluate on; null: a share of the train videos is held out.
        validation: The like, to choose the best epoch by; null: the last epoch is taken.
        labels: JSON file with the class names in order; null: sorted names.
        root: Folder that relative paths of lists are relative to; null: the list's own.
        split: Which split, where a source holds several (HMDB51).
        bad_files: List of files that are known to be damaged and are left out of all parts.
        check_labels: File of class names; a run whose classes are others, or in another order, ends
            at once.
        flip: Mirror half of the training clips. auto: names of classes that tell left from right
            change places; a JSON file: an object of the classes that change places; null: no clip
            is mirrored.
        held_out: Share of train to evaluate on where test is null.
        epochs: Passes over the training videos.
        seed: Of the split, the weights and the training.
        resume: Go on from the last checkpoint in output.
        checkpoint_minutes: Write a checkpoint within an epoch when so many minutes have passed.
        model: The model.
        loader: How clips are loaded.
        optimization: How the weights are found.
        evaluation: Which views of a test video are averaged.
        trainer: Arguments of lightning.Trainer, such as {devices: 8, num_nodes: 2, precision:
            bf16-mixed, accumulate_grad_batches: 4, gradient_clip_val: 1.0}.
    """
    options = {"labels": labels, "root": root, "split": split, "bad_files": bad_files}
    trained = load_part(train, "train", **options)
    if test is not None:
        tested = load_part(test, "test", trained.classes, **options)
    elif isinstance(trained, FeatureStore):
        raise ValueError("a store cannot be split: give another one to evaluate on, --test STORE")
    else:
        trained, tested = split_videos(trained, held_out, seed)
    validated = validation and load_part(validation, "validation", trained.classes, **options)
    say(f"{len(trained)} videos to train on, {len(tested)} to test on; classes in order:")
    say("\n".join(f"  {label}  {name}" for label, name in enumerate(trained.classes)))
    if check_labels is not None:
        check_classes(trained.classes, check_labels)

    torch.manual_seed(seed)  # of the weights
    report = train_and_test(
        build_model(model, trained.classes),
        build_data(trained, tested, validated, seed, flip, model, loader, evaluation),
        output,
        epochs=epochs,
        seed=seed,
        resume=resume,
        checkpoint_minutes=checkpoint_minutes,
        optimization=asdict(optimization),
        trainer=trainer,
    )
    say(f"\n{report}\nwritten to {output}: model, results.json, tables, log")


def load_part(
    source: Path,
    part: str,
    classes: Sequence[str] | None = None,
    *,
    labels: Path | None,
    root: Path | None,
    split: int,
    bad_files: Path | None,
) -> LabeledVideos | FeatureStore:
    """The videos of a source without those that are known to be damaged, or a store as it is."""
    if (source / "manifest.json").is_file():
        if bad_files is not None:
            raise ValueError(f"bad_files are for videos, got the feature store {source}")
        return FeatureStore(source)
    videos = read_videos(source, root=root, classes=classes or labels, part=part, split=split)
    if bad_files is None:
        return videos
    # One list for all parts: it names files of the others too.
    kept = videos.without(bad_files, strict=False)
    say(f"{source}: {len(videos) - len(kept)} of {len(videos)} videos are left out by {bad_files}")
    return kept


def build_data(
    train: LabeledVideos | FeatureStore,
    test: LabeledVideos | FeatureStore,
    validation: LabeledVideos | FeatureStore | None,
    seed: int,
    flip: str | None,
    model: Model,
    loader: Loader,
    evaluation: Evaluation,
) -> ActionDataModule:
    """Batches of clips, or of stored features."""
    parts = [part for part in (train, test, validation) if part is not None]
    if not any(isinstance(part, FeatureStore) for part in parts):
        swaps = None if flip == "auto" else flip
        if swaps is not None and not Path(swaps).is_file():
            raise FileNotFoundError(
                f"flip must be auto or a JSON file of classes that change places, got {flip}"
            )
        return VideoDataModule(
            train,
            test,
            validation,
            image_size=model.image_size,
            num_frames=model.num_frames,
            views=evaluation_views(num_frames=model.num_frames, **asdict(evaluation)),
            seed=seed,
            flip=None if flip is None else mirrored_classes(train.classes, swaps),
            **asdict(loader),
        )
    if not all(isinstance(part, FeatureStore) for part in parts):
        raise ValueError("train, test and validation must all be videos, or all be feature stores")
    # What was decided when the features were extracted cannot be asked for here.
    for name, value, unset in (
        ("flip", flip, None),
        ("evaluation", evaluation, Evaluation()),
        ("loader", replace(loader, batch_size=0, num_workers=0), Loader(0, 0)),
    ):
        if value != unset:
            raise ValueError(
                f"{name} is for videos, and stores hold features: {name} must stay at its default "
                f"but for batch_size and num_workers, got {value}"
            )
    return ActionDataModule(
        FeatureDataset(train, training=True, seed=seed),
        FeatureDataset(test),
        validation and FeatureDataset(validation),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        seed=seed,
    )


def build_model(options: Model, classes: tuple[str, ...]) -> TemporalCrossAttentionModel:
    """The model of these options, for these classes."""
    arguments = asdict(options)
    image_size = arguments.pop("image_size")
    for extractor in ("semantic_extractor", "motion_extractor"):
        arguments[extractor]["image_size"] = image_size
    return TemporalCrossAttentionModel(num_classes=len(classes), class_names=classes, **arguments)


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it greets and advertises
    try:
        auto_cli(main, as_positional=False, allow_abbrev=False)
    except (
        *(OSError, ValueError, WeightsNotFoundError),
        *(FeatureStoreError, TooManyUnreadableVideos),
    ) as error:
        raise SystemExit(f"error: {error}") from None
