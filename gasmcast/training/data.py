"""Datasets to batches, for the Lightning trainer."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset

from gasmcast.datasets import ClipDataset, LabeledVideos, collate_clips
from gasmcast.training.order import EpochSampler, TrainingLoader, WholeBatchSampler
from gasmcast.training.stopping import outlive_sigterm
from gasmcast.training.views import EvaluationViews
from gasmcast.transforms import eval_transform, train_transform
from gasmcast.video import FrameSampling


class ActionDataModule(LightningDataModule):
    """Loads batches of any datasets: clips of videos, or features of a store.

    A dataset has ``classes`` (the names that its labels count), ``ids`` (the name of each sample)
    and a length. A sample is a dict with either ``clip`` or ``semantic`` and ``motion``, with
    ``label`` and ``index``; or with ``index`` and ``error`` where it could not be read. The dataset
    to train on is asked for ``dataset[epoch, index]`` and has to draw at random from these two
    numbers and a seed alone; the others are asked for ``dataset[index]``, which may be several
    views of a video. :class:`~gasmcast.datasets.ClipDataset` is such a dataset.

    The order of an epoch depends on ``seed`` and its number only. Checkpoints keep where in an
    epoch a run is, so that a run that goes on loads no batch twice.

    Args:
        train: What to train on; None: nothing, for an evaluation.
        test: What to evaluate on at the end.
        validation: What to choose the best epoch by; None: the last epoch is taken.
        batch_size: Samples of a batch, in each process.
        num_workers: Processes that load, for each training process; 0: load in the training
            process itself.
        seed: Of the order of the training samples, at least 0.

    Raises:
        ValueError: The parts have different classes, or fewer than two; a part is empty, or has too
            few samples for the number of processes; a number out of its range; a run that is
            resumed with another seed, batch size or number of processes, with other classes or
            other samples.
    """

    def __init__(
        self,
        train: Dataset | None,
        test: Dataset,
        validation: Dataset | None = None,
        *,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ):
        super().__init__()
        parts = {"train": train, "test": test, "validation": validation}
        _check_parts({name: part for name, part in parts.items() if part is not None})
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.train = train
        self.test = test
        self.validation = validation
        self.classes = tuple(test.classes)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._training: TrainingLoader | None = None
        self._position: dict[str, int] | None = None

    def setup(self, stage: str) -> None:
        """Check before anything is loaded that every process has something to do."""
        needed = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}
        for name in needed.get(stage, ()):
            dataset = getattr(self, name)
            if dataset is None:
                continue
            size = 1 if name == "train" else self.batch_size
            batches = -(-len(dataset) // size)
            if batches < self._processes():
                what = "a sample to train on" if name == "train" else "a batch to evaluate"
                raise ValueError(
                    f"each of the {self._processes()} processes needs {what}, got {len(dataset)} "
                    f"{name} samples in batches of {self.batch_size}"
                )

    def train_dataloader(self) -> TrainingLoader:
        """Batches in the order of the epoch."""
        sampler = EpochSampler(self.train, self._processes(), self._rank(), self.seed)
        self._training = TrainingLoader(self.train, sampler, **self._options())
        if self._position is not None:
            self._training.load_state_dict(self._position)
            self._position = None  # of this run alone
        return self._training

    def val_dataloader(self) -> DataLoader | list:
        """Batches of the validation part, in order; none without one."""
        return [] if self.validation is None else self._evaluation_loader(self.validation)

    def test_dataloader(self) -> DataLoader:
        """Batches of the test part, in order."""
        return self._evaluation_loader(self.test)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: where the run is, and what the order depends on."""
        if self._training is None:
            return {}
        return {"position": self._training.state_dict(), "order": self._order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from where a run was."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        before, now = state_dict["order"], self._order()
        for name, value in now.items():
            if before.get(name) != value:
                raise ValueError(
                    f"this run was begun with {name} {before.get(name)} and cannot go on with "
                    f"{value}: its batches would not be the same"
                )
        # Kept until the loader is made: Lightning's own way of handing a loader its state comes too
        # late where the schedule asks for the number of steps.
        self._position = state_dict["position"]

    def _order(self) -> dict[str, Any]:
        names = "\n".join(map(str, self.train.ids)).encode(errors="surrogateescape")
        return {
            "classes": list(self.classes),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "training samples": len(self.train),
            "checksum of their names": zlib.crc32(names),
            "processes": self._processes(),
        }

    def _evaluation_loader(self, dataset: Dataset) -> DataLoader:
        sampler = WholeBatchSampler(dataset, self._processes(), self._rank(), self.batch_size)
        return DataLoader(dataset, sampler=sampler, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": collate_clips,
            "worker_init_fn": outlive_sigterm,
        }

    def _processes(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank


class VideoDataModule(ActionDataModule):
    """Loads clips of videos: random crops and frames in training, all views in evaluation.

    Clips come as uint8, a quarter of the size of float, and are converted where they are used
    (:class:`ActionRecognition` does).

    Args:
        train: Videos to train on; None: none, for an evaluation.
        test: Videos to evaluate on at the end.
        validation: Videos to choose the best epoch by; None: the last epoch is taken.
        image_size: Height and width of the clips in pixels.
        num_frames: Frames T of a clip.
        stride: Frames from one frame of a training clip to the next; None: one of each of equal
            bins.
        views: Views of each test video; None: one clip of bin centres, the centre crop. Validation
            takes one view, sampled likewise.
        batch_size: Videos of a batch, in each process.
        num_workers: Processes that decode, for each training process; 0: decode in the training
            process itself.
        seed: Of the order, the frames and the augmentation in training, at least 0.
        min_scale: See :func:`~gasmcast.train_transform`.
        color_jitter: See :func:`~gasmcast.train_transform`.
        erase: See :func:`~gasmcast.train_transform`.
        flip: See :class:`~gasmcast.datasets.ClipDataset`.
        backend: Decoder, see :func:`~gasmcast.read_video`.
        timeout_seconds: See :func:`~gasmcast.read_video`.

    Raises:
        ValueError: As in :class:`ActionDataModule`; views of another number of frames.
    """

    def __init__(
        self,
        train: LabeledVideos | None,
        test: LabeledVideos,
        validation: LabeledVideos | None = None,
        *,
        image_size: int = 224,
        num_frames: int = 16,
        stride: int | None = None,
        views: EvaluationViews | None = None,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        min_scale: float = 0.5,
        color_jitter: float = 0.2,
        erase: float = 0.0,
        flip: Sequence[int] | None = None,
        backend: str = "auto",
        timeout_seconds: float = 60.0,
    ):
        views = views or EvaluationViews(FrameSampling(num_frames))
        if views.sampling.num_frames != num_frames:
            raise ValueError(
                f"these views are clips of {views.sampling.num_frames} frames, got "
                f"num_frames={num_frames}"
            )
        augment = train_transform(
            image_size,
            min_scale=min_scale,
            color_jitter=color_jitter,
            erase=erase,
            dtype=torch.uint8,
        )

        def clips(videos: LabeledVideos | None, transform: Any, **options: Any) -> Any:
            reader = {"backend": backend, "timeout_seconds": timeout_seconds}
            return None if videos is None else ClipDataset(videos, transform, **options, **reader)

        super().__init__(
            clips(
                train,
                augment,
                sampling=FrameSampling(num_frames, stride),
                training=True,
                seed=seed,
                flip=flip,
            ),
            clips(
                test,
                eval_transform(image_size, crops=views.crops, dtype=torch.uint8),
                sampling=views.sampling,
            ),
            clips(
                validation,
                eval_transform(image_size, dtype=torch.uint8),
                sampling=replace(views.sampling, clips=1),
            ),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.image_size = image_size
        self.num_frames = num_frames


def _check_parts(parts: dict[str, Dataset]) -> None:
    name, first = next(iter(parts.items()))
    for other, part in parts.items():
        if not len(part):
            raise ValueError(f"the {other} part holds no video")
        if tuple(part.classes) != tuple(first.classes):
            raise ValueError(
                f"the {other} part has the classes {list(part.classes)}, the {name} part "
                f"{list(first.classes)}: expected the same classes in the same order"
            )
    if len(first.classes) < 2:
        raise ValueError(f"expected at least two classes, got {list(first.classes)}")
