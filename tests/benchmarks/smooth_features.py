"""Features that resemble those of an image or a clip: neighbours look alike.

Random vectors will not do: in 768 dimensions no two of them are similar.
"""

import math

import torch
from torch import Tensor


def smooth_features(
    clips: int,
    grid: tuple[int, ...],
    width: int,
    *,
    smoothness: float = 3.0,
    themes: int = 8,
    noise: float = 0.25,
    seed: int = 0,
) -> Tensor:
    """A few smooth random fields over a grid, mixed into many channels, and a little noise.

    Args:
        clips: Clips B, drawn independently of each other.
        grid: Nodes along each axis; N is their product, in row-major order.
        width: Channels D.
        smoothness: Standard deviation of the Gaussian that the fields are blurred with, in nodes.
        themes: Number of fields. Where few are mixed, nodes far apart look alike now and then, as
            two patches of sky do.
        noise: Standard deviation of the noise of each channel; that of the mixture is about 1.
        seed: Of all that is drawn.

    Returns:
        [B, N, D].
    """
    generator = torch.Generator().manual_seed(seed)
    fields = torch.randn(clips, themes, *grid, generator=generator)
    for axis, length in enumerate(grid, start=2):
        place = torch.arange(length, dtype=torch.float32)
        blur = torch.exp(-((place[:, None] - place) ** 2) / (2 * smoothness**2))
        blur /= blur.norm(dim=1, keepdim=True)  # the variance stays 1
        fields = (fields.movedim(axis, -1) @ blur.T).movedim(-1, axis)
    mixture = torch.randn(themes, width, generator=generator) / math.sqrt(themes)
    features = fields.flatten(2).transpose(1, 2) @ mixture
    return features + noise * torch.randn(features.shape, generator=generator)
