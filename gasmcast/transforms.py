"""Frames of any size to clips of the size the extractors take."""

import torch
from torchvision.transforms import v2


def eval_transform(image_size: int = 224) -> v2.Compose:
    """Short side to ``image_size``, centre crop, float in [0, 1]; nothing random.

    Args:
        image_size: Height and width of the clip in pixels.

    Shapes:
        uint8 [T, 3, H, W] to float [T, 3, image_size, image_size].
    """
    return v2.Compose(
        [
            v2.Resize(image_size, antialias=True),
            v2.CenterCrop(image_size),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def train_transform(
    image_size: int = 224, *, min_scale: float = 0.5, color_jitter: float = 0.2
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
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
