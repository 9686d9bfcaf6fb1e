"""Train and evaluate on a folder of videos (one folder per class) or on annotation lists.

    python examples/train.py --config examples/configs/small.yaml --train VIDEOS --output runs/mine
    python examples/train.py --train train.csv --test test.csv --labels labels.json \\
        --model.motion_extractor.checkpoint rgb_imagenet.pt --output runs/full

Every option can stand in a YAML file (``--config``) and be overridden on the command line.
``--print_config`` shows all of them with their defaults. Without a configuration the extractors are
the full-size frozen ones: DINOv3 ViT-B/16, whose weights come from the Hugging Face hub, and I3D,
whose weights are the file given as ``--model.motion_extractor.checkpoint``.

Interrupted at any moment, the same command with ``--resume true`` goes on from the last epoch.
"""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli

from gasmcast import TemporalCrossAttentionModel, WeightsNotFoundError
from gasmcast.datasets import (
    LabeledVideos,
    read_annotation_list,
    scan_class_folders,
    split_videos,
)
from gasmcast.training import TooManyUnreadableVideos, VideoDataModule, train_and_test


@dataclass
class SemanticExtractor:
    """The semantic extractor, see gasmcast.DINOv3SemanticExtractor.

    Args:
        model_name: Any timm model that gives patch tokens.
        pretrained: Load its weights from the Hugging Face hub.
        num_frames: Frames of the clip that it looks at.
        pooling: How the patches of these frames are pooled.
        model_kwargs: Further arguments of timm.create_model.
        trainable: Train it along instead of keeping it frozen.
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
        trainable: Train it along instead of keeping it frozen.
    """

    checkpoint: Path | None = None
    width: float = 1.0
    trainable: bool = False


@dataclass
class Model:
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
        similarity_threshold: Cosine similarity that ties two nodes of a graph.
        adjacency_window: Segments at most so far apart are adjacent.
        max_similar: At most so many edges a node receives through similarity alone.
        dropout: Probability of dropping a graph attention weight.
        drop_path: Probability of skipping a fusion layer for a clip.
    """

    semantic_extractor: SemanticExtractor = field(default_factory=SemanticExtractor)
    motion_extractor: MotionExtractor = field(default_factory=MotionExtractor)
    image_size: int = 224
    num_frames: int = 16
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
        batch_size: Clips of a batch, in each process.
        num_workers: Decoding processes for each training process.
        min_scale: Smallest share of a frame's area that a training crop covers.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        backend: Decoder.
    """

    batch_size: int = 8
    num_workers: int = 2
    min_scale: float = 0.5
    color_jitter: float = 0.2
    backend: Literal["auto", "decord", "pyav"] = "auto"


@dataclass
class Optimization:
    """How the weights are found.

    Args:
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_share: Share of all steps over which the learning rate rises.
        label_smoothing: Share of a label's weight spread over all classes.
        max_unreadable: Share of the videos that may be unreadable before the run stops.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    label_smoothing: float = 0.1
    max_unreadable: float = 0.1


def main(
    train: Path,
    output: Path,
    test: Path | None = None,
    validation: Path | None = None,
    labels: Path | None = None,
    root: Path | None = None,
    held_out: float = 0.25,
    epochs: int = 20,
    seed: int = 0,
    resume: bool = False,
    model: Model = Model(),  # noqa: B008 - read only
    loader: Loader = Loader(),  # noqa: B008
    optimization: Optimization = Optimization(),  # noqa: B008
    trainer: dict[str, Any] | None = None,
) -> None:
    """Train and evaluate on a folder of videos or on annotation lists.

    Args:
        train: A folder with one folder of videos per class, or a list (path label).
        output: Folder for the model, results, log and checkpoints.
        test: Folder or list to evaluate on; null: a share of train is held out.
        validation: Folder or list to choose the best epoch by; null: the last epoch is taken.
        labels: JSON file with the class names in order; null: sorted names.
        root: Folder that relative paths of lists are relative to; null: the list's own.
        held_out: Share of train to evaluate on where test is null.
        epochs: Passes over the training videos.
        seed: Of the split, the weights and the training.
        resume: Go on from the last checkpoint in output.
        model: The model.
        loader: How clips are loaded.
        optimization: How the weights are found.
        trainer: Arguments of lightning.Trainer, such as {devices: 8, num_nodes: 2}.
    """
    videos = load_videos(train, labels, root)
    if test is None:
        videos, tested = split_videos(videos, held_out, seed)
    else:
        tested = load_videos(test, labels, root, videos.classes)
    validated = validation and load_videos(validation, labels, root, videos.classes)
    print(f"{len(videos)} videos to train on, {len(tested)} to test on; classes in order:")
    print("\n".join(f"  {label}  {name}" for label, name in enumerate(videos.classes)))

    torch.manual_seed(seed)  # of the weights
    report = train_and_test(
        build_model(model, videos.classes),
        VideoDataModule(
            videos,
            tested,
            validated,
            image_size=model.image_size,
            num_frames=model.num_frames,
            **asdict(loader),
        ),
        output,
        epochs=epochs,
        seed=seed,
        resume=resume,
        optimization=asdict(optimization),
        trainer=trainer,
    )
    print(f"\n{report}\nwritten to {output}: model, results.json, confusion_matrix.csv, log")


def load_videos(
    source: Path, labels: Path | None, root: Path | None, classes: tuple[str, ...] | None = None
) -> LabeledVideos:
    """A folder per class, or a list."""
    if source.is_dir():
        return scan_class_folders(source, classes or labels)
    return read_annotation_list(source, root=root, classes=classes or labels)


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
        auto_cli(main, as_positional=False)
    except (OSError, ValueError, WeightsNotFoundError, TooManyUnreadableVideos) as error:
        raise SystemExit(f"error: {error}") from None
