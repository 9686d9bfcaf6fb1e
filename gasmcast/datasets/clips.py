"""Records to clips: the dataset that decodes, samples and transforms."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from gasmcast.datasets.annotations import LabeledVideos
from gasmcast.seeds import derive_seed
from gasmcast.video import FrameSampling, VideoReadError, read_video


class ClipDataset(Dataset):
    """Clips of labelled videos.

    A sample is a dict with ``clip`` (RGB, by the transform), ``label`` and ``index``, its number in
    ``videos.records``. A file that cannot be read does not raise: its sample holds ``index`` and
    the ``error``, a text with the path, and :func:`collate_clips` sets it apart, so that a training
    run can go on and name it.

    For evaluation, ``dataset[index]`` is a video with all its views: clips by ``sampling``, crops
    by the transform. For training, ``dataset[epoch, index]`` is one clip of it, and all that is
    random (frames, crop, colours, flip) is drawn from ``(seed, epoch, index)`` alone: worker,
    process, order and what was read before do not matter.

    Args:
        videos: The videos.
        transform: uint8 [T, 3, H, W] to a clip, such as :func:`~gasmcast.train_transform`; or to
            several crops of it, [crops, T, 3, S, S], as :func:`~gasmcast.eval_transform` can make
            them. What is random in it has to draw from torch's generator, as
            torchvision.transforms.v2 does.
        sampling: Which frames make a clip, and how many clips a video has: one in training.
        training: Draw at random, and count samples as (epoch, index).
        seed: Of the random choices, at least 0.
        flip: Training clips are mirrored with a probability of 1/2; ``flip[label]`` is the class
            of a mirrored clip (the same one, but where left and right matter). None: never.
        backend: Decoder, see :func:`~gasmcast.read_video`.
        timeout_seconds: How long a decoder may take for a video, see
            :func:`~gasmcast.read_video`.

    Shapes:
        - **clip:** [T, 3, S, S]; in evaluation with several views [V, T, 3, S, S], clip by clip and
          the crops of a clip together

    Raises:
        ValueError: Several clips in training; a flip without training, or that does not map each
            class to a class; a negative seed; when asked for, a sample that is not counted as said
            above.
    """

    def __init__(
        self,
        videos: LabeledVideos,
        transform: Callable[[Tensor], Tensor],
        *,
        sampling: FrameSampling = FrameSampling(),  # noqa: B008 - frozen
        training: bool = False,
        seed: int = 0,
        flip: Sequence[int] | None = None,
        backend: str = "auto",
        timeout_seconds: float = 60.0,
    ):
        if training and sampling.clips > 1:
            raise ValueError(f"training takes one clip of a video, got clips={sampling.clips}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        if flip is not None:
            _check_flip(flip, len(videos.classes), training)
        self.videos = videos
        self.transform = transform
        self.sampling = sampling
        self.training = training
        self.seed = seed
        self.flip = None if flip is None else tuple(flip)
        self.backend = backend
        self.timeout_seconds = timeout_seconds

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that the labels count."""
        return self.videos.classes

    @property
    def ids(self) -> tuple[str, ...]:
        """What each sample is called in a table of predictions."""
        return tuple(record.id for record in self.videos.records)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(key, tuple) != self.training:
            expected = "(epoch, index) in training" if self.training else "an index in evaluation"
            raise ValueError(f"a sample is asked for by {expected}, got {key!r}")
        if not self.training:
            return self._sample(key, None)
        epoch, index = key
        frames = torch.Generator().manual_seed(derive_seed(self.seed, epoch, index))
        # Transforms draw from torch's generator; the one of a GPU is left alone.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index, 1))
            return self._sample(index, frames)

    def _sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        record = self.videos.records[index]
        try:
            video = read_video(
                record.path,
                partial(self.sampling, generator=generator),
                backend=self.backend,
                timeout_seconds=self.timeout_seconds,
            )
        except VideoReadError as error:
            return {"index": index, "error": str(error)}
        label = record.label
        frames = video.frames
        if self.flip is not None and torch.rand(()) < 0.5:
            frames, label = frames.flip(-1), self.flip[label]
        clips = [self.transform(clip) for clip in frames.split(self.sampling.num_frames)]
        if len(clips) > 1:
            # A clip has four dimensions, several crops of it have five.
            clips = [clip if clip.dim() == 5 else clip.unsqueeze(0) for clip in clips]
            clips = [torch.cat(clips)]
        # Decoders give channels last. A worker's batch is in planes, and arithmetic may differ in
        # the last digit between the two.
        return {"clip": clips[0].contiguous(), "label": label, "index": index}


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples to a batch, with those that could not be read set apart.

    Returns:
        A dict with ``errors``, index -> text of each sample that could not be read, and, where any
        could, the other samples' entries stacked, such as ``clip`` [B, T, 3, H, W] or
        [B, V, T, 3, H, W], ``label`` [B] and ``index`` [B].
    """
    readable = [sample for sample in samples if "error" not in sample]
    errors = {sample["index"]: sample["error"] for sample in samples if "error" in sample}
    return {**(default_collate(readable) if readable else {}), "errors": errors}


def _check_flip(flip: Sequence[int], num_classes: int, training: bool) -> None:
    if not training:
        raise ValueError("only training clips are flipped, got a flip without training=True")
    # Mirrored twice, a clip is what it was.
    if len(flip) != num_classes or any(
        not 0 <= other < num_classes or flip[other] != label for label, other in enumerate(flip)
    ):
        raise ValueError(
            f"flip must give each of the {num_classes} classes its mirrored class, and back, got "
            f"{list(flip)}"
        )
