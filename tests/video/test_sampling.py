"""Samplers: hand-computed indices, and what holds for every length."""

import pytest
import torch

from gasmcast.video import segment_indices, uniform_indices

FIVE_IN_SIXTEEN = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [0] * 16),
        (5, FIVE_IN_SIXTEEN),
        (16, list(range(16))),
        # (2k + 1) * 17 // 32: the only frame to be passed over is the one in the middle, 8.
        (17, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]),
        (160, list(range(5, 160, 10))),
    ],
)
def test_segment_centres_by_hand(num_frames, expected):
    indices = segment_indices(num_frames)
    assert indices.dtype == torch.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [0] * 16),
        # round(4k / 15): 0, .27, .53, .8, 1.07, 1.33, 1.6, 1.87, 2.13, 2.4, 2.67, 2.93, 3.2, ...
        (5, [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4]),
        (16, list(range(16))),
        # round(16k / 15): the step grows by one at k = 8, where 8.53 rounds to 9.
        (17, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]),
        # round(10.6 k)
        (160, [0, 11, 21, 32, 42, 53, 64, 74, 85, 95, 106, 117, 127, 138, 148, 159]),
    ],
)
def test_uniform_by_hand(num_frames, expected):
    indices = uniform_indices(num_frames)
    assert indices.dtype == torch.int64
    assert indices.tolist() == expected


def test_uniform_rounds_halves_up_and_one_sample_is_the_first_frame():
    assert uniform_indices(4, 3).tolist() == [0, 2, 3]
    assert uniform_indices(100, 1).tolist() == [0]


@pytest.mark.parametrize("num_samples", [1, 2, 7, 16])
@pytest.mark.parametrize("sampler", ["uniform", "centres", "random"])
def test_every_length_gives_sorted_indices_within_the_video(sampler, num_samples):
    generator = torch.Generator().manual_seed(0)
    draw = {
        "uniform": uniform_indices,
        "centres": segment_indices,
        "random": lambda frames, samples: segment_indices(frames, samples, generator),
    }[sampler]
    for num_frames in range(1, 70):
        indices = draw(num_frames, num_samples).tolist()
        assert len(indices) == num_samples
        assert indices == sorted(indices)
        assert indices[0] >= 0
        assert indices[-1] < num_frames
        if num_frames <= num_samples:
            assert set(indices) == set(range(num_frames))
        else:
            assert len(set(indices)) == num_samples


def test_random_draws_reach_every_frame_of_their_bin_and_no_other():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([segment_indices(10, 4, generator) for _ in range(300)])
    # The bins of 10 frames in 4: edges 0, 2, 5, 7, 10.
    seen = [sorted(set(column.tolist())) for column in draws.T]
    assert seen == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_random_draws_repeat_with_the_seed():
    first = segment_indices(200, 16, torch.Generator().manual_seed(3))
    again = segment_indices(200, 16, torch.Generator().manual_seed(3))
    other = segment_indices(200, 16, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_short_video_is_repeated_in_order_with_a_generator_too():
    generator = torch.Generator().manual_seed(0)
    assert segment_indices(5, 16, generator).tolist() == FIVE_IN_SIXTEEN


@pytest.mark.parametrize("sampler", [uniform_indices, segment_indices])
def test_counts_below_one_are_named(sampler):
    with pytest.raises(ValueError, match=r"^num_frames must be at least 1, got 0$"):
        sampler(0)
    with pytest.raises(ValueError, match=r"^num_samples must be at least 1, got -2$"):
        sampler(10, -2)
