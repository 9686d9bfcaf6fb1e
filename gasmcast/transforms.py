"""Frames of any size to clips of the size the extractors take, and clips mixed with one another.

Clips stay bytes through resizing, cropping and colour. The last step makes them floats in [0, 1];
with ``dtype=torch.uint8`` it is left out, for a loader that ships a quarter of the memory and a
device that converts: ``v2.functional.to_dtype(clip, torch.float32, scale=True)`` gives the same
floats.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2


def eval_transform(
    image_size: int = 224, crops: int = 1, *, dtype: torch.dtype = torch.float32
) -> v2.Compose:
    """Short side to ``image_size``, then one crop or three; nothing random.

    Args:
        image_size: Height and width of the clip in pixels.
        crops: 1 for the centre; 3 for the two ends and the centre of the long side: left or top,
            centre, right or bottom.
        dtype: A floating type for values in [0, 1], or ``torch.uint8`` for bytes.

    Shapes:
        uint8 [T, 3, H, W] to [T, 3, image_size, image_size], or with three crops
        [3, T, 3, image_size, image_size].

    Raises:
        ValueError: If ``crops`` is neither 1 nor 3, or the type neither floating nor uint8.
    """
    if crops not in (1, 3):
        raise ValueError(f"crops must be 1 or 3, got {crops}")
    crop = v2.CenterCrop(image_size) if crops == 1 else _ThreeCrops(image_size)
    return v2.Compose([v2.Resize(image_size, antialias=True), crop, _last_step(dtype)])


def train_transform(
    image_size: int = 224,
    *,
    min_scale: float = 0.5,
    color_jitter: float = 0.2,
    erase: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> v2.Compose:
    """One random crop, colour change and erased box for all frames of a clip.

    It does not flip, which would swap the meaning of classes such as "moving left to right":
    :class:`~gasmcast.datasets.ClipDataset` does that on request, and swaps their labels. Random
    choices come from torch's global generator.

    Args:
        image_size: Height and width of the clip in pixels.
        min_scale: The crop covers at least this share of the frame's area, above 0 and at most 1.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        erase: Probability that a box of 2 to 33 % of the clip's area is made black.
        dtype: A floating type for values in [0, 1], or ``torch.uint8`` for bytes.

    Shapes:
        uint8 [T, 3, H, W] to [T, 3, image_size, image_size].

    Raises:
        ValueError: If a setting is out of its range, or the type neither floating nor uint8.
    """
    if not 0 < min_scale <= 1:
        raise ValueError(f"min_scale must be above 0 and at most 1, got {min_scale}")
    if not color_jitter >= 0:
        raise ValueError(f"color_jitter must not be negative, got {color_jitter}")
    if not 0 <= erase <= 1:
        raise ValueError(f"erase must be between 0 and 1, got {erase}")
    steps = [
        v2.RandomResizedCrop(image_size, scale=(min_scale, 1.0), ratio=(0.8, 1.25), antialias=True),
        v2.ColorJitter(color_jitter, color_jitter, color_jitter),
    ]
    if erase:
        steps.append(v2.RandomErasing(erase))
    return v2.Compose([*steps, _last_step(dtype)])


def _last_step(dtype: torch.dtype) -> v2.ToDtype:
    if not (dtype.is_floating_point or dtype == torch.uint8):
        raise ValueError(f"dtype must be a floating type or torch.uint8, got {dtype}")
    return v2.ToDtype(dtype, scale=True)


class _ThreeCrops(nn.Module):
    """Squares at the two ends and in the centre of frames whose short side is ``size``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, clip: Tensor) -> Tensor:
        size = self.size
        height, width = clip.shape[-2:]
        first = v2.functional.crop(clip, 0, 0, size, size)
        centre = v2.functional.center_crop(clip, [size, size])
        last = v2.functional.crop(clip, height - size, width - size, size, size)
        return torch.stack([first, centre, last])

    def extra_repr(self) -> str:
        return f"size={self.size}"


class Mix:
    r"""Mixes each clip of a batch with the one before it, and their labels alike.

    .. math:: x_i' = \lambda x_i + (1 - \lambda) x_{i-1}, \quad
              y_i' = \lambda y_i + (1 - \lambda) y_{i-1}

    with one-hot labels y and one :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` a batch
    (mixup). CutMix instead pastes a box of the other clip, the same in all frames, and
    :math:`\lambda` is the share of the area that is left. With both, one of the two is drawn for
    each batch, evenly. They are those of ``torchvision.transforms.v2``; random choices come from
    torch's global generator.

    Stored features mix as clips do. Both streams of a clip get the same partner and the same
    :math:`\lambda`: CutMix cuts its box out of the grid of patches, and mixes the segments, which
    lie nowhere in the picture, in the proportion of the areas.

    The papers are `mixup <https://arxiv.org/abs/1710.09412>`_ and
    `CutMix <https://arxiv.org/abs/1905.04899>`_.

    Args:
        num_classes: Number of classes K.
        mixup_alpha: :math:`\alpha` of mixup, 0 for none.
        cutmix_alpha: :math:`\alpha` of CutMix, 0 for none.

    Raises:
        ValueError: If an alpha is negative, both are 0, or ``num_classes`` is below 1.

    Example:
        >>> batch = {"clip": torch.rand(4, 16, 3, 32, 32), "label": torch.tensor([0, 2, 1, 2])}
        >>> mixed = Mix(num_classes=3, mixup_alpha=0.8, cutmix_alpha=1.0)(batch)
        >>> mixed["clip"].shape, mixed["label"].shape
        (torch.Size([4, 16, 3, 32, 32]), torch.Size([4, 3]))
    """

    def __init__(
        self, num_classes: int, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if mixup_alpha < 0 or cutmix_alpha < 0 or mixup_alpha + cutmix_alpha == 0:
            raise ValueError(
                "mixup_alpha and cutmix_alpha must not be negative and one of them be positive, "
                f"got {mixup_alpha} and {cutmix_alpha}"
            )
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Mixes a batch, which stays as it is.

        Args:
            batch: ``label``, integers, with ``clip`` or with ``semantic`` and ``motion``, floating.
                CutMix needs a square grid of patches. What else is in the batch is passed on.

        Shapes:
            ``clip`` [B, T, 3, H, W]; ``semantic`` [B, P, D] and ``motion`` [B, S, D'];
            ``label`` [B], mixed [B, K].

        Raises:
            ValueError: If what is to be mixed is missing, of another shape or type, or a label is
                no class.
        """
        label = self._label(batch)
        if "clip" in batch:
            clip = _floating(batch, "clip", "[B, T, 3, H, W]", len(label))
            picture, kept = self._mix(tv_tensors.Video(clip))
            mixed = {"clip": picture}
        else:
            semantic = _floating(batch, "semantic", "[B, P, D]", len(label))
            motion = _floating(batch, "motion", "[B, S, D]", len(label))
            picture, kept = self._mix(tv_tensors.Image(self._as_picture(semantic)))
            mixed = {
                "semantic": picture.flatten(2).transpose(1, 2).contiguous(),
                "motion": _blend(motion, kept),
            }
        own = F.one_hot(label.long(), self.num_classes).float()
        return {**batch, **mixed, "label": _blend(own, kept)}

    def _mix(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed pictures, and [B]: which share of each one is its own."""
        size = len(pictures)
        transforms = []
        if self.mixup_alpha:
            transforms.append(v2.MixUp(alpha=self.mixup_alpha, num_classes=size))
        if self.cutmix_alpha:
            transforms.append(v2.CutMix(alpha=self.cutmix_alpha, num_classes=size))
        # Each picture a class of its own: what comes back as labels says how much of it was kept.
        own = torch.arange(size, device=pictures.device)
        mixed, shares = v2.RandomChoice(transforms)(pictures, own)
        return mixed.as_subclass(Tensor), shares.diagonal()

    def _as_picture(self, semantic: Tensor) -> Tensor:
        """[B, P, D] -> [B, D, rows, columns]."""
        patches = semantic.size(1)
        side = math.isqrt(patches)
        if side * side == patches:
            return semantic.transpose(1, 2).unflatten(2, (side, side))
        if self.cutmix_alpha:
            raise ValueError(f"CutMix needs a square grid of patches, got {patches} of them")
        return semantic.transpose(1, 2).unsqueeze(2)

    def _label(self, batch: dict[str, Any]) -> Tensor:
        label = batch.get("label")
        if not isinstance(label, Tensor) or label.ndim != 1 or label.is_floating_point():
            raise ValueError(f"label must be integers of shape [B], got {_describe(label)}")
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < self.num_classes:
            raise ValueError(
                f"labels must be from 0 to {self.num_classes - 1}, got {int(label.min())} to "
                f"{int(label.max())}"
            )
        return label


def _blend(values: Tensor, kept: Tensor) -> Tensor:
    """[B, ...] mixed with those before them, as pictures are, where [B] says what share is kept."""
    # Not by a product of matrices: autocast would round it, and a nan spread to the whole batch.
    kept = kept.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return kept * values + (1 - kept) * values.roll(1, 0)


def _floating(batch: dict[str, Any], name: str, shape: str, size: int) -> Tensor:
    value = batch.get(name)
    dims = shape.count(",") + 1
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or value.ndim != dims
        or len(value) != size
    ):
        raise ValueError(
            f"{name} must be floating and {shape} with B = {size}, as label is, "
            f"got {_describe(value)}"
        )
    return value


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
