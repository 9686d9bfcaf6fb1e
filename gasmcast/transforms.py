"""Frames of any size to clips of the size the extractors take."""

import torch
from torchvision.transforms import v2


def eval_transform(
    image_size: int = 224, *, crops: int = 1, dtype: torch.dtype = torch.float32
) -> v2.Compose:
    """Short side to ``image_size``, centre crop, float in [0, 1]; nothing random.

    Args:
        image_size: Height and width of the clip in pixels.

    Shapes:
        uint8 [T, 3, H, W] to float [T, 3, image_size, image_size].
    """
    return v2.Compose(
        [
            v2.Resize(image_size, antialias=True),
            v2.CenterCrop(image_size)
            if crops == 1
            else v2.Lambda(lambda clip: _three_crops(clip, image_size)),
            v2.ToDtype(dtype, scale=True),
        ]
    )


def train_transform(
    image_size: int = 224,
    *,
    min_scale: float = 0.5,
    color_jitter: float = 0.2,
    erase: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> v2.Compose:
    """One random crop and colour change for all frames of a clip, float in [0, 1].

    There is no horizontal flip: it would swap the meaning of classes such as "moving left to
    right".

    Args:
        image_size: Height and width of the clip in pixels.
        min_scale: The crop covers at least this share of the frame's area, between 0 and 1.
        color_jitter: Largest relative change of brightness, contrast and saturation.

    Shapes:
        uint8 [T, 3, H, W] to float [T, 3, image_size, image_size].
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                image_size, scale=(min_scale, 1.0), ratio=(0.8, 1.25), antialias=True
            ),
            v2.ColorJitter(color_jitter, color_jitter, color_jitter),
            v2.RandomErasing(erase),
            v2.ToDtype(dtype, scale=True),
        ]
    )


def _three_crops(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Stand-in."""
    height, width = clip.shape[-2:]
    places = [(place * (height - size) // 2, place * (width - size) // 2) for place in range(3)]
    return torch.stack([clip[..., top : top + size, left : left + size] for top, left in places])


class Mix:
    """Stand-in."""

    def __init__(self, num_classes: int, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0):
        self.num_classes, self.mixup_alpha = num_classes, mixup_alpha

    def __call__(self, batch: dict) -> dict:
        """Stand-in."""
        order = torch.randperm(len(batch["label"]))
        share = torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample()
        label = torch.nn.functional.one_hot(batch["label"], self.num_classes).float()
        mixed = {**batch, "label": label}
        return {name: share * value + (1 - share) * value[order] for name, value in mixed.items()}
