import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from gasmcast import VideoReadError, eval_transform, train_transform
from gasmcast.datasets import ClipDataset, LabeledVideos, VideoRecord, collate_clips, derive_seed
from gasmcast.video import FrameSampling

NUM_FRAMES = 100
CENTRES = [12, 37, 62, 87]  # of the four bins 0-24, 25-49, 50-74, 75-99
FOUR = FrameSampling(4)


@pytest.fixture
def reader(monkeypatch):
    """Stands in for ``read_video``: videos whose frame k is all k, and what was asked for."""
    calls = []

    def read_video(path, sample, **options):
        calls.append({"path": path, **options})
        if path.name == "bad.mp4":
            raise VideoReadError(str(path), "it is empty")
        return SimpleNamespace(frames=reader.picture(sample(NUM_FRAMES)))

    reader = SimpleNamespace(calls=calls, picture=counters)
    monkeypatch.setattr("gasmcast.datasets.clips.read_video", read_video)
    return reader


def counters(indices):
    return indices.to(torch.uint8)[:, None, None, None].repeat(1, 3, 8, 8)


def ramps(indices):
    """Brightness rises from left to right; channels lie together, as decoders give them."""
    picture = torch.arange(0, 240, 30, dtype=torch.uint8).expand(len(indices), 3, 8, 8)
    return picture.contiguous(memory_format=torch.channels_last)


def as_it_is(frames):
    return frames


def videos(number=12, name="{}.mp4"):
    records = tuple(VideoRecord(Path(name.format(i)), i % 2) for i in range(number))
    return LabeledVideos(records, ("lift", "drop"))


def frame_numbers(clip):
    return clip[:, 0, 0, 0].tolist()


def test_evaluation_takes_the_centre_of_each_bin(reader):
    dataset = ClipDataset(videos(), as_it_is, sampling=FOUR)
    for _ in range(3):
        assert frame_numbers(dataset[3]["clip"]) == CENTRES


def test_views_lie_clip_by_clip_with_the_crops_of_a_clip_together(reader):
    def crops(clip):  # the second one is marked
        return torch.stack([clip, clip + 100])

    sampling = FrameSampling(2, stride=3, clips=3)
    clip = ClipDataset(videos(), crops, sampling=sampling)[0]["clip"]
    assert clip.shape == (6, 2, 3, 8, 8)
    starts = [(0, 3), (48, 51), (96, 99)]
    assert [tuple(frame_numbers(view)) for view in clip] == [
        tuple(frame + mark for frame in start) for start in starts for mark in (0, 100)
    ]
    assert ClipDataset(videos(), crops, sampling=FOUR)[0]["clip"].shape == (2, 4, 3, 8, 8)
    clips = ClipDataset(videos(), as_it_is, sampling=sampling)[0]["clip"]
    assert [tuple(frame_numbers(view)) for view in clips] == starts


def test_training_takes_a_random_frame_of_each_bin(reader):
    dataset = ClipDataset(videos(), as_it_is, sampling=FOUR, training=True)
    drawn = [frame_numbers(dataset[epoch, 3]["clip"]) for epoch in range(20)]
    assert len(set(map(tuple, drawn))) == 20
    assert all([k // 25 for k in frames] == [0, 1, 2, 3] for frames in drawn)


def noisy(frames):
    """A transform that draws like those of torchvision."""
    return frames + torch.randint(0, 100, frames.shape, dtype=torch.uint8)


@given(keys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11)), min_size=1, max_size=8))
def test_a_sample_depends_on_seed_epoch_and_index_only(keys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "gasmcast.datasets.clips.read_video",
            lambda path, sample, **options: SimpleNamespace(frames=counters(sample(NUM_FRAMES))),
        )
        dataset = ClipDataset(videos(), noisy, sampling=FOUR, training=True, seed=5, flip=(1, 0))
        alone = {key: dataset[key] for key in set(keys)}
        torch.manual_seed(random.randrange(99))
        before = torch.get_rng_state()
        for key in keys:
            sample = dataset[key]
            assert torch.equal(sample["clip"], alone[key]["clip"])
            assert sample["label"] == alone[key]["label"]
        assert torch.equal(torch.get_rng_state(), before)  # the caller's choices stay his own


@pytest.mark.parametrize("drawn", ["frames", "transform"])
def test_seed_epoch_and_index_each_matter(drawn, reader):
    reader.picture = counters if drawn == "frames" else ramps
    transform = as_it_is if drawn == "frames" else noisy

    def clip(seed, *key):
        dataset = ClipDataset(videos(), transform, sampling=FOUR, training=True, seed=seed)
        return dataset[key]["clip"]

    keys = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert len({tuple(clip(*key).flatten().tolist()) for key in keys}) == 4


def test_workers_draw_the_same(reader):
    dataset = ClipDataset(
        videos(), train_transform(8), sampling=FOUR, training=True, flip=(1, 0), seed=1
    )
    keys = [(epoch, index) for epoch in (0, 1) for index in (5, 2, 9, 0)]
    loaded = {}
    for workers in (0, 2):
        loader = DataLoader(
            dataset, sampler=keys, batch_size=2, num_workers=workers, collate_fn=collate_clips
        )
        loaded[workers] = list(loader)
    for one, other in zip(loaded[0], loaded[2], strict=True):
        assert torch.equal(one["clip"], other["clip"])
        assert one["clip"].stride() == other["clip"].stride()
        assert torch.equal(one["label"], other["label"])


def test_a_flip_mirrors_half_of_the_clips_and_swaps_their_label(reader):
    reader.picture = ramps
    dataset = ClipDataset(videos(), as_it_is, sampling=FOUR, training=True, flip=[1, 0])
    mirrored = 0
    for epoch in range(100):
        sample = dataset[epoch, 3]  # of class 1
        row = sample["clip"][0, 0, 0].tolist()
        flipped = row == sorted(row, reverse=True)
        assert sample["label"] == (0 if flipped else 1)
        assert flipped or row == sorted(row)
        mirrored += flipped
    assert 30 < mirrored < 70
    plain = ClipDataset(videos(), as_it_is, sampling=FOUR, training=True)
    assert all(plain[epoch, 3]["label"] == 1 for epoch in range(20))


def test_a_sample_is_transformed_and_labelled(reader):
    dataset = ClipDataset(
        videos(),
        v2.Lambda(lambda frames: frames.float() + 0.5),
        sampling=FrameSampling(6),
        backend="pyav",
        timeout_seconds=7.0,
    )
    sample = dataset[5]
    assert (sample["label"], sample["index"], len(dataset)) == (1, 5, 12)
    assert sample["clip"].shape == (6, 3, 8, 8)
    assert sample["clip"][:, 0, 0, 0].tolist() == [8.5, 25.5, 41.5, 58.5, 75.5, 91.5]
    assert reader.calls == [{"path": Path("5.mp4"), "backend": "pyav", "timeout_seconds": 7.0}]
    assert dataset.classes == ("lift", "drop")
    assert dataset.ids[:2] == ("0.mp4", "1.mp4")


def test_a_clip_lies_in_planes(reader):
    reader.picture = ramps
    assert ClipDataset(videos(), as_it_is, sampling=FOUR)[0]["clip"].is_contiguous()


def test_an_unreadable_file_is_set_apart(reader):
    records = (VideoRecord(Path("bad.mp4"), 0), VideoRecord(Path("good.mp4"), 1))
    bad = LabeledVideos(records, ("lift", "drop"))
    for training in (False, True):
        dataset = ClipDataset(bad, eval_transform(8), sampling=FOUR, training=training)
        keys = [(3, 0), (3, 1)] if training else [0, 1]
        batch = collate_clips([dataset[key] for key in keys])
        assert "bad.mp4" in batch["errors"][0]
        assert (batch["index"].tolist(), batch["label"].tolist()) == ([1], [1])
        assert batch["clip"].shape == (1, 4, 3, 8, 8)
        assert collate_clips([dataset[keys[0]]]) == {"errors": batch["errors"]}


def test_keys_of_the_other_kind():
    with pytest.raises(ValueError, match=r"asked for by \(epoch, index\) in training, got 3"):
        ClipDataset(videos(), as_it_is, training=True)[3]
    with pytest.raises(ValueError, match=r"asked for by an index in evaluation, got \(0, 3\)"):
        ClipDataset(videos(), as_it_is)[0, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"training": True, "sampling": FrameSampling(4, clips=2)},
            "training takes one clip of a video, got clips=2",
        ),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"flip": (0, 1)}, "only training clips are flipped, got a flip without training=True"),
        (
            {"training": True, "flip": (0,)},
            r"flip must give each of the 2 classes its mirrored class, and back, got \[0\]",
        ),
        ({"training": True, "flip": (1, 1)}, r"mirrored class, and back, got \[1, 1\]"),
        ({"training": True, "flip": (0, 2)}, r"mirrored class, and back, got \[0, 2\]"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ClipDataset(videos(), as_it_is, **options)


numbers = st.lists(st.integers(0, 2**40), max_size=4)


@given(one=numbers, other=numbers)
def test_seeds_differ_where_the_numbers_do(one, other):
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    torch.Generator().manual_seed(derive_seed(*one))


def test_seeds_are_the_same_everywhere():
    """A run can go on where another release, or machine, began it."""
    assert derive_seed(0, 3, 7) == 10152549728739047394
