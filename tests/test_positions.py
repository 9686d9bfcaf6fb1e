import numpy as np
import pytest
import torch

from gasmcast import generate_spatial_positions, generate_temporal_positions
from gasmcast.positions import generate_spatiotemporal_positions


def test_spatial_positions_are_row_major_patch_units():
    positions = generate_spatial_positions()
    assert positions.shape == (196, 2)
    assert positions.dtype == torch.float32
    # patch 30 = row 2, column 2 of 14 columns
    assert positions[[0, 1, 13, 14, 30, 195]].tolist() == [
        [0, 0],
        [1, 0],
        [13, 0],
        [0, 1],
        [2, 2],
        [13, 13],
    ]


def test_spatial_positions_of_a_rectangle():
    assert generate_spatial_positions((1, 3)).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert generate_spatial_positions((3, 1)).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_numbers_of_numpy_are_numbers():
    assert torch.equal(generate_spatial_positions(np.int64(2)), generate_spatial_positions(2))
    assert generate_spatial_positions((np.int32(1), 3)).shape == (3, 2)
    assert generate_spatiotemporal_positions(np.int64(2), (1, 2)).shape == (4, 3)


def test_temporal_positions_count_segments():
    positions = generate_temporal_positions()
    assert positions.shape == (8, 1)
    assert positions.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert generate_temporal_positions(64, 32).shape == (32, 1)


@pytest.mark.parametrize("grid_size", [0, -1, 14.0, (3, 0), (2.5, 2), (1, 2, 3)])
def test_impossible_grid(grid_size):
    with pytest.raises(
        ValueError, match=r"grid_size must be a positive integer or \(rows, columns\)"
    ):
        generate_spatial_positions(grid_size)


@pytest.mark.parametrize(("frames", "segments"), [(16, 0), (4, 8), (0, 0)])
def test_impossible_segments(frames, segments):
    expected = f"num_segments must be between 1 and num_frames={frames}, got {segments}"
    with pytest.raises(ValueError, match=expected):
        generate_temporal_positions(frames, segments)
