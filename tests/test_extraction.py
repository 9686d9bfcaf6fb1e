"""Videos to features on disk: right, resumable, shared, and clear about what is wrong."""

import errno
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch

from gasmcast.datasets import (
    ClipDataset,
    VideoRecord,
    read_annotation_list,
    write_rendered_dataset,
)
from gasmcast.extraction import TooManyUnreadableClips, extract_features
from gasmcast.feature_store import FeatureStore, FeatureStoreError, verify_store
from gasmcast.transforms import eval_transform, train_transform
from gasmcast.video import FrameSampling
from small import IMAGE_SIZE, small_model


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Ten videos, 48 x 48 pixels, of two classes."""
    root = tmp_path_factory.mktemp("videos")
    write_rendered_dataset(
        root,
        clips_per_class={"train": 5},
        motions=["lift", "drop"],
        appearances=["striped"],
        num_frames=20,
        size=48,
    )
    return read_annotation_list(root / "train.csv", classes=root / "labels.json")


def extractors(seed=0):
    torch.manual_seed(seed)
    model = small_model(2, trainable=False)
    return model.semantic_extractor, model.motion_extractor


def extract(videos, folder, weights=0, **options):
    settings = {"clips_per_shard": 4, "batch_size": 3, "num_workers": 0, "progress": False}
    return extract_features(videos, folder, *extractors(weights), **{**settings, **options})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def compare(store, videos, number, clips):
    """Holds a record against features of ``clips`` [V, T, 3, S, S] computed on their own."""
    record = store[videos.records[number].id]
    with torch.no_grad():
        for stream, extractor in zip(("semantic", "motion"), extractors(), strict=True):
            torch.testing.assert_close(
                record[stream].float(), extractor(clips), atol=2e-3, rtol=2e-3
            )


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (2, 3), (2, 1), (1, 3)])
def test_a_record_is_the_features_of_every_view(videos, tmp_path, clips, crops):
    sampling = FrameSampling(clips=clips)
    wide = eval_transform(IMAGE_SIZE, crops=crops)
    store = extract(videos, tmp_path, sampling=sampling, crops=crops)
    assert (len(store), store.num_views, store.missing) == (10, clips * crops, ())
    assert store.classes == videos.classes
    assert list(store.labels) == [record.label for record in videos.records]
    assert store[0]["semantic"].shape == (clips * crops, 16, 24)
    assert store[0]["motion"].shape == (clips * crops, 8, 32)
    expected = ClipDataset(videos, wide, sampling=sampling)
    for number in (0, 6, 9):
        clip = expected[number]["clip"]
        compare(store, videos, number, clip if clip.dim() == 5 else clip.unsqueeze(0))


def test_random_views_are_those_of_training(videos, tmp_path):
    store = extract(
        videos, tmp_path, random_views=3, augmentation={"min_scale": 0.3}, seed=5, num_workers=2
    )
    training = ClipDataset(
        videos, train_transform(IMAGE_SIZE, min_scale=0.3), training=True, seed=5
    )
    for number in (1, 8):
        drawn = torch.stack([training[view, number]["clip"] for view in range(3)])
        # Colours are changed on bytes here and there alike, and rounded to bytes.
        compare(store, videos, number, drawn)
    assert not torch.equal(store[1]["motion"][0], store[1]["motion"][1])


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"weights": 1}, r"fingerprint.semantic.weights: '\w+' and '\w+'"),
        ({"sampling": FrameSampling(clips=2)}, "fingerprint.sampling.clips: 1 and 2"),
        ({"sampling": FrameSampling(stride=1)}, "fingerprint.sampling.stride: None and 1"),
        ({"crops": 3}, r"fingerprint.transform\[2\]: .*CenterCrop.* and .*_ThreeCrops"),
        ({"random_views": 1}, "fingerprint.random_views: None and {'number': 1, 'seed': 0}"),
        ({"dtype": "bfloat16"}, "streams.semantic.dtype: 'float16' and 'bfloat16'"),
        ({"autocast": "bfloat16"}, "fingerprint.autocast: None and 'bfloat16'"),
        ({"clips_per_shard": 5}, "clips_per_shard: 4 and 5"),
    ],
)
def test_other_features_never_get_into_the_same_store(videos, tmp_path, options, difference):
    extract(videos, tmp_path)
    before = files(tmp_path)
    with pytest.raises(FeatureStoreError, match=difference):
        extract(videos, tmp_path, **options)
    assert files(tmp_path) == before


def test_what_random_views_depend_on(videos, tmp_path, monkeypatch):
    extract(videos, tmp_path, random_views=1)
    for options, difference in (
        ({"seed": 1}, "fingerprint.random_views.seed: 0 and 1"),
        ({"augmentation": {"min_scale": 0.3}}, r"transform\[1\]: .*scale=\(0.5, .*scale=\(0.3, "),
    ):
        with pytest.raises(FeatureStoreError, match=difference):
            extract(videos, tmp_path, random_views=1, **options)
    extract(videos, tmp_path, random_views=1, augmentation={"min_scale": 0.5})  # the default
    # A release whose defaults are others.
    monkeypatch.setitem(train_transform.__kwdefaults__, "color_jitter", 0.1)
    with pytest.raises(FeatureStoreError, match=r"transform\[2\]: .*ColorJitter"):
        extract(videos, tmp_path, random_views=1)


def test_other_videos_never_get_into_the_same_store(videos, tmp_path):
    extract(videos, tmp_path)
    with pytest.raises(FeatureStoreError, match="labels: 10 and 9 of them"):
        extract(replace(videos, records=videos.records[1:]), tmp_path)


def test_workers_share_a_store_without_trace(videos, tmp_path):
    whole = extract(videos, tmp_path / "whole")
    for worker in (2, 0, 1):
        shared = extract(videos, tmp_path / "shared", worker=worker, workers=3)
    assert shared.missing == whole.missing == ()
    assert files(tmp_path / "shared") == files(tmp_path / "whole")


def test_loading_processes_change_nothing(videos, tmp_path):
    extract(videos, tmp_path / "none", num_workers=0)
    extract(videos, tmp_path / "two", num_workers=2)
    assert files(tmp_path / "none") == files(tmp_path / "two")


def test_half_precision_on_the_way(videos, tmp_path):
    exact = extract(videos, tmp_path / "exact")
    rough = extract(videos, tmp_path / "rough", autocast="bfloat16", dtype="bfloat16")
    assert rough[0]["semantic"].dtype == torch.bfloat16
    assert not torch.equal(exact[0]["semantic"].float(), rough[0]["semantic"].float())
    torch.testing.assert_close(
        exact[0]["semantic"].float(), rough[0]["semantic"].float(), atol=0.1, rtol=0.1
    )


def unreadable(videos, tmp_path, places):
    """Some of the videos replaced by files that are none."""
    records = list(videos.records)
    for place in places:
        path = tmp_path / f"broken {place}.mp4"
        path.write_bytes(b"nothing")
        records[place] = VideoRecord(path, records[place].label, f"broken {place}")
    return replace(videos, records=tuple(records))


def test_unreadable_videos_are_noted_and_the_others_go_on(videos, tmp_path):
    some = unreadable(videos, tmp_path, (1, 9))
    store = extract(some, tmp_path / "store")
    assert sorted(store.failed()) == ["broken 1", "broken 9"]
    assert "broken 9.mp4: expected a video file" in store.failed()["broken 9"]
    assert verify_store(tmp_path / "store") == []
    compare(store, some, 0, ClipDataset(some, eval_transform(IMAGE_SIZE))[0]["clip"][None])
    compare(store, some, 2, ClipDataset(some, eval_transform(IMAGE_SIZE))[2]["clip"][None])


def test_videos_that_are_there_again(videos, tmp_path):
    moved = videos.records[1].path.rename(tmp_path / "elsewhere.mp4")
    store = extract(videos, tmp_path / "store")
    assert list(store.failed()) == [videos.records[1].id]
    moved.rename(videos.records[1].path)
    assert list(extract(videos, tmp_path / "store").failed()) == [videos.records[1].id]
    store = extract(videos, tmp_path / "store", retry_unreadable=True)
    assert store.failed() == {}
    extract(videos, tmp_path / "whole")
    assert files(tmp_path / "store") == files(tmp_path / "whole")


def test_a_whole_shard_without_a_readable_video(videos, tmp_path):
    some = unreadable(videos, tmp_path, (4, 5, 6, 7))
    with pytest.raises(TooManyUnreadableClips, match=r"4 of 4 videos of shard 1 cannot .* of 50%"):
        extract(some, tmp_path / "store")
    assert FeatureStore(tmp_path / "store").missing == (1, 2)
    store = extract(some, tmp_path / "store", max_unreadable=1.0)
    assert (store.missing, len(store.failed())) == ((), 4)


def test_a_full_disk_loses_nothing_that_is_written(videos, tmp_path, monkeypatch):
    whole = extract(videos, tmp_path / "whole")
    assert whole.missing == ()
    sync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:  # manifest and its folder, the first shard and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FeatureStoreError, match="No space left on device; what is in the store is"):
        extract(videos, tmp_path / "store")
    monkeypatch.undo()
    assert FeatureStore(tmp_path / "store").missing == (1, 2)
    extract(videos, tmp_path / "store")
    assert files(tmp_path / "store") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"random_views": 2, "crops": 3}, "random_views=2, clips=1, crops=3"),
        ({"random_views": -1}, "random_views must be a number of views .* got random_views=-1"),
        ({"augmentation": {"min_scale": 0.3}}, "augmentation is for random views, got {'min_scale"),
        ({"max_unreadable": 50}, "max_unreadable must be between 0 and 1, got 50"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"worker": 2, "workers": 2},
            "worker must be between 0 and 1 with 2 workers .*got 2",
        ),
        ({"dtype": "int8"}, "dtype must be one of float16, bfloat16, float32, got 'int8'"),
        (
            {"device": "gpu"},
            "expected a device to compute on, got 'gpu': Expected one of",
        ),
        (
            {"random_views": 1, "augmentation": {"min_scal": 1}},
            "augmentation must be of color_jitter, .*min_scale.*, got min_scal$",
        ),
        ({"autocast": "float17"}, "autocast must be bfloat16, float16 or None, got 'float17'"),
    ],
)
def test_arguments_that_do_not_fit(videos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        extract(videos, tmp_path, **options)


def test_extractors_that_do_not_fit(videos, tmp_path):
    semantic, _ = extractors()
    other = type(extractors()[1])(width=0.0625, image_size=64, allow_random_weights=True)
    with pytest.raises(ValueError, match="clips of one size, got image_size=32 and 64"):
        extract_features(videos, tmp_path, semantic, other)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_at_random_it_comes_out_the_same(videos, tmp_path, one_thread):
    def start(name):
        # A fork has imported torch already; of its threads it has none.
        process = multiprocessing.get_context("fork").Process(
            target=extract,
            args=(videos, tmp_path / name),
            kwargs={"clips_per_shard": 1, "num_workers": 2},
        )
        process.start()
        return process

    begin = time.monotonic()
    start("whole").join()
    seconds = time.monotonic() - begin
    draw, stopped = random.Random(1), 0
    for _ in range(4):
        process = start("stopped")
        time.sleep(seconds * draw.uniform(0.2, 0.8))
        process.kill()
        process.join()
        stopped += process.exitcode == -signal.SIGKILL
    process = start("stopped")
    process.join()
    assert process.exitcode == 0
    assert stopped >= 1
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
