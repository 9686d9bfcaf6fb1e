"""Records to clips: the dataset that decodes, samples and transforms."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from gasmcast.datasets.annotations import LabeledVideos
from gasmcast.video import VideoReadError, read_video, segment_indices


class ClipDataset(Dataset):
    """Clips of labelled videos.

    A sample is a dict with ``clip`` (float [T, 3, H, W], RGB in [0, 1], by the transform),
    ``label`` and ``index``, its number in ``videos.records``. A file that cannot be read does not
    raise: its sample holds ``index`` and the ``error``, a text with the path, and
    :func:`collate_clips` sets it apart, so that a training run can go on and name it.

    Args:
        videos: The videos.
        transform: uint8 [T, 3, H, W] to the clip, such as :func:`~gasmcast.eval_transform`.
        num_frames: Frames T a clip is sampled to, one of each of T equal bins.
        training: Sample a random frame of each bin instead of its centre. Random choices come from
            torch's generator, which the DataLoader seeds in each worker.
        backend: Decoder, see :func:`~gasmcast.read_video`.
    """

    def __init__(
        self,
        videos: LabeledVideos,
        transform: Callable[[Tensor], Tensor],
        *,
        num_frames: int = 16,
        training: bool = False,
        backend: str = "auto",
    ):
        self.videos = videos
        self.transform = transform
        self.num_frames = num_frames
        self.training = training
        self.backend = backend

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.videos.records[index]
        generator = torch.default_generator if self.training else None
        sample = partial(segment_indices, num_samples=self.num_frames, generator=generator)
        try:
            video = read_video(record.path, sample, backend=self.backend)
        except VideoReadError as error:
            return {"index": index, "error": str(error)}
        return {"clip": self.transform(video.frames), "label": record.label, "index": index}


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples to a batch, with unreadable files set apart.

    Returns:
        A dict with ``errors``, index -> text of each unreadable file, and, where any file could be
        read, ``clip`` [B, T, 3, H, W], ``label`` [B] and ``index`` [B] of the others.
    """
    readable = [sample for sample in samples if "error" not in sample]
    errors = {sample["index"]: sample["error"] for sample in samples if "error" in sample}
    return {**(default_collate(readable) if readable else {}), "errors": errors}
