"""Samplers: hand-computed indices, and what holds for every length."""

import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.video import FrameSampling, segment_indices, uniform_indices

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


lengths = st.one_of(st.integers(1, 80), st.integers(1, 10**7))
seeds = st.one_of(st.none(), st.integers(0, 2**32))
samplings = st.builds(
    FrameSampling,
    num_frames=st.integers(1, 40),
    stride=st.one_of(st.none(), st.integers(1, 12)),
    clips=st.integers(1, 6),
)


def clips_of(sampling, length, seed=None):
    """[V][S] indices."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    indices = sampling(length, generator)
    assert indices.dtype == torch.int64
    assert indices.shape == (sampling.clips * sampling.num_frames,)
    return indices.view(sampling.clips, sampling.num_frames).tolist()


@pytest.mark.parametrize(
    ("sampling", "num_frames", "expected"),
    [
        # Bins of 10 frames; two clips take the centres of their halves, three those of thirds.
        (FrameSampling(4), 40, [[5, 15, 25, 35]]),
        (FrameSampling(4, clips=2), 40, [[2, 12, 22, 32], [7, 17, 27, 37]]),
        (FrameSampling(2, clips=3), 24, [[2, 14], [6, 18], [10, 22]]),
        # A video of 3 in bins of 3/4: thirds of 3/4 * (k + 1/4) and of 3/4 * (k + 3/4).
        (FrameSampling(4, clips=2), 3, [[0, 0, 1, 2], [0, 1, 2, 2]]),
        (FrameSampling(4, clips=2), 1, [[0] * 4, [0] * 4]),
        # A run of 7 frames in 10: starts from 0 to 3.
        (FrameSampling(4, stride=2), 10, [[1, 3, 5, 7]]),
        (FrameSampling(4, stride=2, clips=2), 10, [[0, 2, 4, 6], [3, 5, 7, 9]]),
        (FrameSampling(4, stride=2, clips=3), 10, [[0, 2, 4, 6], [1, 3, 5, 7], [3, 5, 7, 9]]),
        # It just fits, and just does not.
        (FrameSampling(3, stride=3), 7, [[0, 3, 6]]),
        (FrameSampling(3, stride=3), 6, [[1, 3, 5]]),
        (FrameSampling(1, stride=5, clips=2), 10, [[0], [9]]),
    ],
)
def test_clips_by_hand(sampling, num_frames, expected):
    assert clips_of(sampling, num_frames) == expected


def test_two_clips_are_spread_where_one_would_stand_in_the_middle():
    """VideoMAE's clips start at 0 and half way into a bin; these stand half of that further on."""
    two = clips_of(FrameSampling(clips=2), 16 * 8)
    assert two[0] == [8 * k + 2 for k in range(16)]
    assert two[1] == [8 * k + 6 for k in range(16)]


@given(samplings, lengths, seeds)
def test_clips_are_sorted_frames_of_the_video(sampling, length, seed):
    for clip in clips_of(sampling, length, seed):
        assert clip == sorted(clip)
        assert clip[0] >= 0
        assert clip[-1] < length


@given(samplings, lengths, seeds)
def test_the_same_seed_or_none_gives_the_same_frames(sampling, length, seed):
    assert clips_of(sampling, length, seed) == clips_of(sampling, length, seed)
    again = pickle.loads(pickle.dumps(sampling))  # as a DataLoader's worker gets it
    assert clips_of(again, length, seed) == clips_of(sampling, length, seed)


@given(samplings, st.integers(1, 40), seeds)
def test_every_frame_of_a_short_video_appears_in_each_clip(sampling, length, seed):
    if length > sampling.num_frames:
        return
    for clip in clips_of(sampling, length, seed):
        assert set(clip) == set(range(length))


@given(samplings, lengths, seeds)
def test_a_stride_is_kept_wherever_the_run_fits(sampling, length, seed):
    stride = sampling.stride
    if stride is None:
        return
    fits = length > (sampling.num_frames - 1) * stride
    equal_bins = FrameSampling(sampling.num_frames, clips=sampling.clips)
    for clip in clips_of(sampling, length, seed):
        steps = {after - before for before, after in pairwise(clip)}
        if fits:
            assert steps <= {stride}
    if not fits:
        assert clips_of(sampling, length, seed) == clips_of(equal_bins, length, seed)


@given(lengths, st.integers(1, 40), seeds)
def test_one_clip_of_equal_bins_is_segment_indices(length, num_frames, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    expected = segment_indices(length, num_frames, generator)
    assert clips_of(FrameSampling(num_frames), length, seed) == [expected.tolist()]


@given(lengths, st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32))
def test_each_clip_takes_a_frame_of_each_bin(length, num_frames, clips, seed):
    if length < num_frames:
        return
    edges = [k * length // num_frames for k in range(num_frames + 1)]
    for clip in clips_of(FrameSampling(num_frames, clips=clips), length, seed):
        for k, frame in enumerate(clip):
            assert edges[k] <= frame < edges[k + 1]
    for clip in clips_of(FrameSampling(num_frames, clips=clips), length):
        for k, frame in enumerate(clip):
            # From k T / S to (k + 1) T / S, where a frame on the edge lies in both bins.
            assert k * length < (frame + 1) * num_frames
            assert frame * num_frames < (k + 1) * length


def test_clips_of_a_long_video_have_no_frame_in_common():
    clips = clips_of(FrameSampling(clips=5), 80)
    assert sorted(frame for clip in clips for frame in clip) == list(range(80))


@pytest.mark.parametrize("stride", [None, 3])
def test_random_clips_differ_from_one_another_and_reach_every_place(stride):
    generator = torch.Generator().manual_seed(0)
    sampling = FrameSampling(4, stride=stride, clips=3)
    draws = torch.stack([sampling(20, generator).view(3, 4) for _ in range(300)])
    assert len(draws.unique(dim=0)) > 200
    for clip in draws.unbind(1):
        assert set(clip.flatten().tolist()) == set(range(20))
    assert (draws[:, 0] != draws[:, 1]).any(dim=1).float().mean() > 0.8


def test_the_default_generator_serves_too():
    torch.manual_seed(3)
    first = FrameSampling(stride=2)(200, torch.default_generator)
    torch.manual_seed(3)
    assert torch.equal(FrameSampling(stride=2)(200, torch.default_generator), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stride", [None, 2])
def test_a_generator_of_a_gpu_gives_indices_on_the_cpu(stride):
    generator = torch.Generator("cuda").manual_seed(0)
    assert FrameSampling(stride=stride)(200, generator).device.type == "cpu"


@pytest.mark.parametrize("name", ["num_frames", "stride", "clips"])
def test_settings_are_named(name):
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got 0$"):
        FrameSampling(**{name: 0})
    with pytest.raises(TypeError, match=rf"^{name} must be an integer, got 2.5$"):
        FrameSampling(**{name: 2.5})


@pytest.mark.parametrize("stride", [None, 2])
def test_a_video_without_frames_is_refused(stride):
    generator = torch.Generator()
    for source in (None, generator):
        with pytest.raises(ValueError, match=r"^num_frames must be at least 1, got 0$"):
            FrameSampling(stride=stride)(0, source)
