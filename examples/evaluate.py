"""Evaluate a saved model on videos with labels, and write every prediction.

    python examples/evaluate.py --checkpoint runs/mine/model --test VIDEOS --output results
    python examples/evaluate.py --checkpoint runs/ssv2/model --test validation.json --root VIDEOS \\
        --protocol ssv2 --output results

prints top-1, top-5 and mean class accuracy. With ``--output`` it writes ``results.json``,
``per_class.csv``, ``confusion_matrix.csv`` and ``predictions.csv``. The probabilities of a video
are the softmax of its logits, averaged over its views.
"""

import logging
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli
from train import load_part, say

from gasmcast import TemporalCrossAttentionModel
from gasmcast.datasets import check_classes
from gasmcast.feature_store import FeatureDataset, FeatureStore, FeatureStoreError
from gasmcast.training import (
    ActionDataModule,
    TooManyUnreadableVideos,
    VideoDataModule,
    evaluate,
    evaluation_views,
)


def main(
    checkpoint: Path,
    test: Path,
    output: Path | None = None,
    part: Literal["train", "validation", "test"] = "test",
    root: Path | None = None,
    split: int = 1,
    bad_files: Path | None = None,
    check_labels: Path | None = None,
    protocol: Literal["ssv2", "kinetics"] | None = None,
    clips: int = 1,
    crops: Literal[1, 3] = 1,
    stride: int | None = None,
    batch_size: int = 8,
    num_workers: int = 2,
    backend: Literal["auto", "decord", "pyav"] = "auto",
    timeout_seconds: float = 60.0,
    max_unreadable: float = 0.1,
    trainer: dict[str, Any] | None = None,
) -> None:
    """Evaluate a saved model on videos with labels.

    Args:
        checkpoint: Folder of a saved model (config.json and model.safetensors).
        test: A folder with one folder of videos per class, an annotation list, or a feature store,
            whose own views are averaged.
        output: Folder for results, tables and predictions, made if need be; null: none.
        part: Which part of test, where it has several.
        root: Folder that relative paths of a list are relative to; null: the list's own.
        split: Which split, where test holds several (HMDB51).
        bad_files: List of files that are known to be damaged and are left out.
        check_labels: File of class names; a model whose classes are others, or in another order, is
            not evaluated.
        protocol: What published results average. ssv2: 16 frames, 2 clips x 3 crops; kinetics: 16
            frames, every fourth one, 5 clips x 3 crops; null: the numbers that follow.
        clips: Clips of a video, spread over time.
        crops: Crops of a clip, 1 or 3.
        stride: Frames from one frame of a clip to the next; null: from each of equal bins.
        batch_size: Videos of a batch, in each process; one view of each is computed at a time.
        num_workers: Decoding processes for each process.
        backend: Decoder.
        timeout_seconds: How long a decoder may take for a video.
        max_unreadable: Share of the videos that may be unreadable.
        trainer: Arguments of lightning.Trainer, such as {devices: 8, precision: bf16-mixed}.
    """
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    frames = {"num_frames": model.num_frames}
    views = evaluation_views(protocol, **frames, clips=clips, crops=crops, stride=stride)
    options = {"labels": None, "root": root, "split": split, "bad_files": bad_files}
    tested = load_part(test, part, model.class_names, **options)
    if isinstance(tested, FeatureStore):
        if views != evaluation_views(**frames):
            raise ValueError(f"{test} is a feature store: its views were chosen when it was made")
        data = ActionDataModule(
            None, FeatureDataset(tested), batch_size=batch_size, num_workers=num_workers
        )
        described = f"{tested.num_views} stored views"
    else:
        data = VideoDataModule(
            None,
            tested,
            image_size=model.image_size,
            num_frames=model.num_frames,
            views=views,
            batch_size=batch_size,
            num_workers=num_workers,
            backend=backend,
            timeout_seconds=timeout_seconds,
        )
        described = f"{views.sampling.clips} clips x {views.crops} crops"
    if check_labels is not None:
        check_classes(data.classes, check_labels)
    report = evaluate(model, data, output, max_unreadable=max_unreadable, trainer=trainer)
    say(f"{described} of each video\n{report}")
    if output is not None:
        say(f"written to {output}: results.json, tables, predictions.csv")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it greets and advertises
    try:
        auto_cli(main, as_positional=False, allow_abbrev=False)
    except (OSError, ValueError, FeatureStoreError, TooManyUnreadableVideos) as error:
        raise SystemExit(f"error: {error}") from None
