"""Labelled videos to batches of clips, for the Lightning trainer."""

from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader

from gasmcast.datasets import ClipDataset, LabeledVideos, collate_clips
from gasmcast.transforms import eval_transform, train_transform


class VideoDataModule(LightningDataModule):
    """Loads clips of videos: random crops and frames in training, centres in evaluation.

    Args:
        train: Videos to train on.
        test: Videos to evaluate on at the end.
        validation: Videos to choose the best epoch by; None: the last epoch is taken.
        image_size: Height and width of the clips in pixels.
        num_frames: Frames T of a clip.
        batch_size: Clips of a batch, in each process.
        num_workers: Processes that decode, for each training process; 0: decode in the training
            process itself.
        min_scale: See :func:`~gasmcast.train_transform`.
        color_jitter: See :func:`~gasmcast.train_transform`.
        backend: Decoder, see :func:`~gasmcast.read_video`.

    Raises:
        ValueError: The parts have different classes, or fewer than two; a part is empty, or, when
            evaluated, smaller than the number of processes; a number out of its range.
    """

    def __init__(
        self,
        train: LabeledVideos,
        test: LabeledVideos,
        validation: LabeledVideos | None = None,
        *,
        image_size: int = 224,
        num_frames: int = 16,
        batch_size: int = 8,
        num_workers: int = 2,
        min_scale: float = 0.5,
        color_jitter: float = 0.2,
        backend: str = "auto",
    ):
        super().__init__()
        for name, part in (("train", train), ("test", test), ("validation", validation)):
            if part is None:
                continue
            if not len(part):
                raise ValueError(f"the {name} part holds no video")
            if part.classes != train.classes:
                raise ValueError(
                    f"the {name} part has the classes {list(part.classes)}, the train part "
                    f"{list(train.classes)}: expected the same classes in the same order"
                )
        if len(train.classes) < 2:
            raise ValueError(f"expected at least two classes, got {list(train.classes)}")
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.classes = train.classes
        self.image_size = image_size
        self.num_frames = num_frames
        self.batch_size = batch_size
        self.num_workers = num_workers
        clip = {"num_frames": num_frames, "backend": backend}
        evaluate = eval_transform(image_size)
        self.train = ClipDataset(
            train,
            train_transform(image_size, min_scale=min_scale, color_jitter=color_jitter),
            training=True,
            **clip,
        )
        self.test = ClipDataset(test, evaluate, **clip)
        self.validation = None if validation is None else ClipDataset(validation, evaluate, **clip)

    def train_dataloader(self) -> DataLoader:
        """Batches in random order."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader | list:
        """Batches of the validation part, in order; none without one."""
        return [] if self.validation is None else self._evaluation_loader(self.validation)

    def test_dataloader(self) -> DataLoader:
        """Batches of the test part, in order."""
        return self._evaluation_loader(self.test)

    def _evaluation_loader(self, dataset: ClipDataset) -> DataLoader:
        if not torch.distributed.is_initialized():
            return self._loader(dataset)
        processes = torch.distributed.get_world_size()
        if len(dataset) < processes:
            raise ValueError(
                f"each of the {processes} processes needs a video to evaluate, got {len(dataset)}"
            )
        # Lightning's own sampler would give some videos to two processes, to make equal shares.
        return self._loader(dataset, sampler=UnrepeatedDistributedSampler(dataset, shuffle=False))

    def _loader(self, dataset: ClipDataset, **options: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate_clips,
            **options,
        )
