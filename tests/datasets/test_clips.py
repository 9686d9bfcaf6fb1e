from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gasmcast import VideoReadError, eval_transform
from gasmcast.datasets import ClipDataset, LabeledVideos, VideoRecord, collate_clips
from gasmcast.training import VideoDataModule

NUM_FRAMES = 100
CENTRES = [12, 37, 62, 87]  # of the four bins 0-24, 25-49, 50-74, 75-99


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


def still(indices):
    """The same coloured noise, whichever frames are asked for."""
    noise = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    return noise.to(torch.uint8).repeat(len(indices), 1, 1, 1)


def videos(number=12, name="{}.mp4"):
    records = tuple(VideoRecord(Path(name.format(i)), i % 2) for i in range(number))
    return LabeledVideos(records, ("lift", "drop"))


def frame_numbers(clip):
    return (clip[:, 0, 0, 0] * 255).round().long().tolist()


def data_module(**options):
    parts = {name: videos(12, name + "{}.mp4") for name in ("train", "test", "validation")}
    sizes = {"image_size": 8, "num_frames": 4, "batch_size": 5, "num_workers": 0}
    return VideoDataModule(**parts, **(sizes | options))


def parts(data):
    return {"train": data.train, "test": data.test, "validation": data.validation}


def test_evaluation_takes_the_centre_of_each_bin(reader):
    dataset = ClipDataset(videos(), eval_transform(8), num_frames=4)
    for _ in range(3):
        assert frame_numbers(dataset[3]["clip"]) == CENTRES


def test_training_takes_a_random_frame_of_each_bin(reader):
    dataset = ClipDataset(videos(), eval_transform(8), num_frames=4, training=True)
    torch.manual_seed(0)
    drawn = [frame_numbers(dataset[3]["clip"]) for _ in range(20)]
    assert len(set(map(tuple, drawn))) == 20
    assert all([k // 25 for k in frames] == [0, 1, 2, 3] for frames in drawn)
    torch.manual_seed(0)  # torch's generator, which the loader seeds in its workers
    assert frame_numbers(dataset[3]["clip"]) == drawn[0]


def test_a_sample_is_transformed_and_labelled(reader):
    dataset = ClipDataset(
        videos(), lambda frames: frames.float() + 0.5, num_frames=6, backend="pyav"
    )
    sample = dataset[5]
    assert (sample["label"], sample["index"], len(dataset)) == (1, 5, 12)
    assert sample["clip"].shape == (6, 3, 8, 8)
    assert sample["clip"][:, 0, 0, 0].tolist() == [8.5, 25.5, 41.5, 58.5, 75.5, 91.5]
    assert reader.calls == [{"path": Path("5.mp4"), "backend": "pyav"}]


def test_an_unreadable_file_is_set_apart(reader):
    records = (VideoRecord(Path("bad.mp4"), 0), VideoRecord(Path("good.mp4"), 1))
    dataset = ClipDataset(LabeledVideos(records, ("lift", "drop")), eval_transform(8), num_frames=4)
    batch = collate_clips([dataset[0], dataset[1]])
    assert "bad.mp4" in batch["errors"][0]
    assert (batch["index"].tolist(), batch["label"].tolist()) == ([1], [1])
    assert batch["clip"].shape == (1, 4, 3, 8, 8)
    alone = collate_clips([dataset[0]])
    assert alone == {"errors": batch["errors"]}


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
def test_every_part_is_read_by_the_backend_asked_for(backend, reader):
    for name, part in parts(data_module(backend=backend, num_frames=3)).items():
        assert part[2]["clip"].shape == (3, 3, 8, 8)
        assert reader.calls.pop() == {"path": Path(f"{name}2.mp4"), "backend": backend}


def test_only_the_training_part_is_read_at_random(reader):
    torch.manual_seed(0)
    drawn = {
        name: {tuple(frame_numbers(part[2]["clip"])) for _ in range(10)}
        for name, part in parts(data_module(color_jitter=0.0)).items()
    }
    assert len(drawn.pop("train")) == 10
    assert drawn == {"test": {tuple(CENTRES)}, "validation": {tuple(CENTRES)}}


def test_only_the_training_part_is_cropped_and_coloured_at_random(reader):
    torch.manual_seed(0)
    reader.picture = still
    plain = still(range(4)) / 255
    for name, part in parts(data_module()).items():
        clips = torch.stack([part[2]["clip"] for _ in range(10)])
        if name == "train":
            assert (clips - plain).abs().mean(dim=(1, 2, 3, 4)).min() > 0.02
            assert len({float(clip.mean()) for clip in clips}) == 10
        else:
            torch.testing.assert_close(clips, plain.expand_as(clips))


def test_crop_and_colour_options_reach_the_training_part(reader):
    def change(**options):  # of the picture, in the mean over ten draws
        train = data_module(**options).train
        clips = torch.stack([train[2]["clip"] for _ in range(10)])
        return float((clips - still(range(4)) / 255).abs().mean())

    reader.picture = still
    torch.manual_seed(0)
    assert change(min_scale=1.0, color_jitter=0.0) < 1e-6
    assert change(min_scale=0.5, color_jitter=0.0) > 0.05
    assert change(min_scale=1.0, color_jitter=0.3) > 0.02


def test_only_the_training_part_is_shuffled(reader):
    def order(loader):
        return [index for batch in loader for index in batch["index"].tolist()]

    torch.manual_seed(0)
    data = data_module()
    first, second = (order(data.train_dataloader()) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(12))
    assert len({tuple(first), tuple(second), tuple(range(12))}) == 3
    for loader in (data.test_dataloader(), data.val_dataloader()):
        assert order(loader) == list(range(12))
        assert [len(batch["label"]) for batch in loader] == [5, 5, 2]
