import hashlib
import multiprocessing
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gasmcast.datasets import LabeledVideos, VideoRecord
from gasmcast.training import PROTOCOLS, ActionDataModule, VideoDataModule, evaluation_views
from gasmcast.training.stopping import outlive_sigterm
from training.parts import StoredFeatures

NUM_FRAMES = 100
CENTRES = [12, 37, 62, 87]


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    """Stands in for ``read_video``: the same noise in all videos, and what was asked for."""
    calls = []

    def read_video(path, sample, **options):
        indices = sample(NUM_FRAMES)
        calls.append({"path": path, "indices": indices.tolist(), **options})
        return SimpleNamespace(frames=noise(len(indices)))

    monkeypatch.setattr("gasmcast.datasets.clips.read_video", read_video)
    return calls


def noise(count):
    picture = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    return picture.to(torch.uint8).repeat(count, 1, 1, 1)


def videos(number=12, name="{}.mp4", classes=("lift", "drop")):
    records = tuple(VideoRecord(Path(name.format(i)), i % len(classes)) for i in range(number))
    return LabeledVideos(records, classes)


def data_module(**options):
    parts = {name: videos(12, name + "{}.mp4") for name in ("train", "test", "validation")}
    parts |= {name: options.pop(name) for name in parts if name in options}
    sizes = {"image_size": 8, "num_frames": 4, "batch_size": 5, "num_workers": 0}
    return VideoDataModule(**parts, **(sizes | options))


def test_every_part_is_read_as_asked_for(reader):
    data = data_module(backend="pyav", timeout_seconds=9.0)
    for name, key in (("train", (0, 2)), ("test", 2), ("validation", 2)):
        clip = getattr(data, name)[key]["clip"]
        assert clip.shape == (4, 3, 8, 8)
        assert clip.dtype == torch.uint8
        call = reader.pop()
        assert call.pop("indices") == CENTRES or name == "train"
        assert call == {"path": Path(f"{name}2.mp4"), "backend": "pyav", "timeout_seconds": 9.0}


def test_strides_and_views_reach_their_parts(reader):
    views = evaluation_views(num_frames=4, clips=2, crops=3, stride=5)
    data = data_module(stride=3, views=views)
    data.train[0, 0]
    assert set(torch.tensor(reader.pop()["indices"]).diff().tolist()) == {3}
    assert data.test[0]["clip"].shape == (6, 4, 3, 8, 8)
    assert reader.pop()["indices"] == [0, 5, 10, 15, 84, 89, 94, 99]
    assert data.validation[0]["clip"].shape == (4, 3, 8, 8)
    assert reader.pop()["indices"] == [42, 47, 52, 57]


def test_protocols():
    ssv2 = data_module(num_frames=16, views=PROTOCOLS["ssv2"]).test
    assert (ssv2.sampling.num_frames, ssv2.sampling.clips, ssv2.sampling.stride) == (16, 2, None)
    assert ssv2[0]["clip"].shape == (6, 16, 3, 8, 8)
    kinetics = data_module(num_frames=16, views=PROTOCOLS["kinetics"]).test
    assert (kinetics.sampling.clips, kinetics.sampling.stride) == (5, 4)
    assert kinetics[0]["clip"].shape == (15, 16, 3, 8, 8)
    with pytest.raises(ValueError, match="these views are clips of 16 frames, got num_frames=4"):
        data_module(views=PROTOCOLS["ssv2"])


def change(**options):
    """How much training changes the picture, in the mean over ten epochs."""
    train = data_module(**options).train
    clips = torch.stack([train[epoch, 2]["clip"] for epoch in range(10)])
    return float((clips.float() - noise(4)).abs().mean())


def test_augmentation_reaches_the_training_part():
    assert change(min_scale=1.0, color_jitter=0.0) < 1
    assert change(min_scale=0.5, color_jitter=0.0) > 10
    assert change(min_scale=1.0, color_jitter=0.3) > 5
    assert change(min_scale=1.0, color_jitter=0.0, erase=1.0) > 1
    data = data_module(flip=(1, 0))
    assert {data.train[epoch, 1]["label"] for epoch in range(20)} == {0, 1}
    for part in (data.test, data.validation):
        assert torch.equal(part[2]["clip"], noise(4))


def test_the_seed_reaches_order_and_samples():
    one, same, other = (data_module(seed=seed).train_dataloader() for seed in (0, 0, 1))
    first, second, third = (
        torch.cat([batch["index"] for batch in loader]).tolist() for loader in (one, same, other)
    )
    assert first == second != third
    clip = [data_module(seed=seed).train[0, 0]["clip"] for seed in (0, 1)]
    assert not torch.equal(*clip)


def test_only_the_training_part_is_shuffled():
    def order(loader):
        return [index for batch in loader for index in batch["index"].tolist()]

    data = data_module()
    loader = data.train_dataloader()
    first = order(loader)
    loader.sampler.set_epoch(1)
    second = order(loader)
    assert sorted(first) == sorted(second) == list(range(12))
    assert len({tuple(first), tuple(second), tuple(range(12))}) == 3
    for loader in (data.test_dataloader(), data.val_dataloader()):
        assert order(loader) == list(range(12))
        assert [len(batch["label"]) for batch in loader] == [5, 5, 2]


@pytest.mark.parametrize("stuck", [False, True])
def test_a_worker_outlives_one_sigterm_and_no_second(stuck):
    def work(ready):
        outlive_sigterm(0)
        ready.set()
        if stuck:  # in a call that does not come back, as into a decoder
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        while True:
            time.sleep(0.01)

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=work, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(30)
    worker.terminate()
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


def test_any_datasets():
    train, test = StoredFeatures(6, training=True), StoredFeatures(4)
    data = ActionDataModule(train, test, batch_size=4, num_workers=0)
    assert data.classes == ("lift", "drop")
    assert data.val_dataloader() == []
    batch = next(iter(data.train_dataloader()))
    assert batch["semantic"].shape == (4, 16, 24)
    batch = next(iter(data.test_dataloader()))
    assert batch["semantic"].shape == (4, 3, 16, 24)
    assert data.state_dict()["order"]["training samples"] == 6
    assert ActionDataModule(None, test).state_dict() == {}


def test_parts_that_do_not_fit():
    one = videos(classes=("only",))
    with pytest.raises(ValueError, match=r"expected at least two classes, got \['only'\]"):
        VideoDataModule(one, one)
    for option in ("batch_size", "num_workers", "seed"):
        with pytest.raises(ValueError, match=f"{option} must be at least [01], got -1"):
            data_module(**{option: -1})
    other = videos(classes=("up", "down"))
    with pytest.raises(ValueError, match=r"the test part has the classes \['up', 'down'\], the tr"):
        VideoDataModule(videos(), other)
    for empty in ("train", "test", "validation"):
        with pytest.raises(ValueError, match=f"the {empty} part holds no video"):
            data_module(**{empty: videos(0)})


def test_more_processes_than_there_is_work_for():
    data = data_module()
    data.trainer = SimpleNamespace(world_size=3, global_rank=0)
    data.setup("fit")
    data.trainer.world_size = 4
    message = (
        "each of the 4 processes needs a batch to evaluate, got 12 validation samples in "
        "batches of 5"
    )
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
    data.setup("predict")
    data.validation = None
    data.setup("fit")
    data.trainer.world_size = 13
    with pytest.raises(ValueError, match="the 13 processes needs a sample to train on, got 12 tra"):
        data.setup("fit")
