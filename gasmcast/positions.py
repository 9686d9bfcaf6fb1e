"""Where patches and segments lie."""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor


def generate_spatial_positions(grid_size: int | tuple[int, int] = 14) -> Tensor:
    """Positions of the patches of an image, in patch units.

    Patch ``row * columns + column`` lies at ``(x, y) = (column, row)``: row-major, ``x`` to the
    right, ``y`` down, so two patches that touch are one unit apart.

    Args:
        grid_size: Patches along one side, or ``(rows, columns)``. 14 is a 224 x 224 image cut into
            patches of 16 x 16.

    Returns:
        Float tensor [P, 2] with ``P = rows * columns``; [196, 2] by default.

    Raises:
        ValueError: A side is not a positive integer.

    Example:
        >>> generate_spatial_positions((2, 3)).tolist()
        [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    sides = grid_size if isinstance(grid_size, Sequence) else (grid_size, grid_size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(
            f"grid_size must be a positive integer or (rows, columns) of them, got {grid_size!r}"
        )
    rows, columns = map(int, sides)
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32),
        torch.arange(columns, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def generate_temporal_positions(num_frames: int = 16, num_segments: int = 8) -> Tensor:
    """Positions of the segments of a clip: the segment index, one unit a segment.

    Segment ``s`` stands for the frames ``[s * num_frames / num_segments, (s + 1) * num_frames /
    num_segments)``. The unit is the segment, not the frame, so a window of 2 means two segments
    however long they are.

    Args:
        num_frames: Frames of the clip; only checked, for a segment cannot be shorter than a frame.
        num_segments: Segments S of the clip.

    Returns:
        Float tensor [S, 1]; [8, 1] by default.

    Raises:
        ValueError: ``num_segments`` is not between 1 and ``num_frames``.

    Example:
        >>> generate_temporal_positions(16, 4).tolist()
        [[0.0], [1.0], [2.0], [3.0]]
    """
    if not 1 <= num_segments <= num_frames:
        raise ValueError(
            f"num_segments must be between 1 and num_frames={num_frames}, got {num_segments}"
        )
    return torch.arange(num_segments, dtype=torch.float32).unsqueeze(1)


def generate_spatiotemporal_positions(
    num_frames: int = 16, grid_size: int | tuple[int, int] = 14
) -> Tensor:
    """Positions of the patches of several frames, frame by frame: patch units and frames.

    Patch ``p`` of frame ``t`` is node ``t * P + p`` and lies at ``(x, y, t)``, with x and y as
    :func:`generate_spatial_positions` gives them. Features [B, T, P, D] become nodes in this order
    by ``features.flatten(1, 2)``.

    Args:
        num_frames: Frames T.
        grid_size: As for :func:`generate_spatial_positions`.

    Returns:
        Float tensor [T * P, 3]; [3136, 3] by default.

    Raises:
        ValueError: ``num_frames`` or a side is not a positive integer.

    Example:
        >>> generate_spatiotemporal_positions(2, (1, 2)).tolist()
        [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    """
    if not isinstance(num_frames, Integral) or num_frames < 1:
        raise ValueError(f"num_frames must be a positive integer, got {num_frames!r}")
    patches = generate_spatial_positions(grid_size)
    frame = torch.arange(num_frames, dtype=torch.float32).repeat_interleave(len(patches))
    return torch.cat([patches.repeat(num_frames, 1), frame.unsqueeze(1)], dim=1)
