import csv
import json
import multiprocessing
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from gasmcast import TemporalCrossAttentionModel
from gasmcast.datasets import ClipDataset, VideoRecord
from gasmcast.training import (
    ActionDataModule,
    TooManyUnreadableVideos,
    VideoDataModule,
    evaluate,
    evaluation_views,
    train_and_test,
)
from gasmcast.training.run import _make_trainer
from small import IMAGE_SIZE, small_model
from training.parts import QUIET, DieBefore, Died, Seen, StoredFeatures


def data_module(clips, **options):
    return VideoDataModule(
        clips["train"],
        clips["test"],
        **{"image_size": IMAGE_SIZE, "batch_size": 4, "num_workers": 0, **options},
    )


def with_unreadable(videos, folder, count):
    bad = []
    for number in range(count):
        path = folder / f"bad{number}.mp4"
        path.write_text("no video")
        bad.append(VideoRecord(path, 0))
    return replace(videos, records=videos.records + tuple(bad))


def test_trains_tests_and_saves(clips, tmp_path):
    torch.manual_seed(0)
    model = small_model(2)
    report = train_and_test(model, data_module(clips), tmp_path / "run", epochs=2, trainer=QUIET)
    assert report.num_videos == 4
    assert report.classes == clips["train"].classes
    assert model.class_names == list(clips["train"].classes)  # it had none of its own
    written = {path.name for path in (tmp_path / "run").iterdir()}
    tables = {"confusion_matrix.csv", "per_class.csv", "predictions.csv"}
    assert written == {"model", "results.json", "checkpoints", "log", *tables}
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path / "run" / "model")
    clip = data_module(clips).test[0]["clip"].unsqueeze(0) / 255
    assert torch.equal(loaded(clip), model.eval()(clip))
    with (tmp_path / "run" / "log" / "version_0" / "metrics.csv").open() as file:
        assert any(row["train_top1"] for row in csv.DictReader(file))
    with pytest.raises(FileExistsError, match="holds a run already: resume it"):
        train_and_test(model, data_module(clips), tmp_path / "run", epochs=2, trainer=QUIET)


def test_a_trainer_that_cannot_be(clips, tmp_path):
    with pytest.raises(ValueError, match=r"make no trainer: .*'devicez'"):
        train_and_test(
            small_model(2), data_module(clips), tmp_path, epochs=1, trainer={**QUIET, "devicez": 5}
        )


class Terminate(Callback):
    """What a batch system does before it kills: SIGTERM to every process of the job."""

    def on_train_batch_start(self, *args):
        processes = (*multiprocessing.active_children(), multiprocessing.current_process())
        # By another process: a worker dies in silence where its parent sends it.
        subprocess.run(["kill", "-TERM", *(str(process.pid) for process in processes)], check=True)
        time.sleep(0.2)

    on_test_batch_start = on_train_batch_start


@pytest.fixture
def sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_to_all_processes_saves_and_is_no_success(clips, tmp_path, sigterm):
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit, match=f"^stopped before the end: resume goes on from {last}$"):
        train_and_test(
            small_model(2),
            data_module(clips, num_workers=1),
            tmp_path,
            epochs=1,
            trainer={**QUIET, "callbacks": [Terminate()]},
        )
    assert torch.load(last, weights_only=True)["global_step"] == 1
    assert not (tmp_path / "model").exists()


def test_sigterm_in_an_evaluation_is_no_success(tmp_path, sigterm):
    data = ActionDataModule(None, StoredFeatures(4), batch_size=2, num_workers=1)
    message = "^stopped before the end: there is nothing to go on from$"
    with pytest.raises(SystemExit, match=message):
        evaluate(small_model(2), data, tmp_path, trainer={**QUIET, "callbacks": [Terminate()]})
    assert list(tmp_path.iterdir()) == []


def features():
    return ActionDataModule(StoredFeatures(6, training=True), StoredFeatures(4), num_workers=0)


def test_a_full_disk_is_named_with_what_is_left(tmp_path, small_disk):
    def start():
        model = small_model(2, trainable=False)
        return train_and_test(model, features(), tmp_path, epochs=1, resume=True, trainer=QUIET)

    torch.manual_seed(0)
    last = tmp_path / "checkpoints" / "last.ckpt"
    message = rf"File too large \(there is nothing to go on from\): '{last}'$"
    with pytest.raises(OSError, match=message), small_disk(20_000):
        start()
    torch.manual_seed(0)
    start()
    torch.manual_seed(0)
    # A run that is finished writes its model and no checkpoint.
    message = rf"File too large .*\(resume goes on from {last}\)$"
    with pytest.raises(OSError, match=message), small_disk(20_000):
        start()


def test_numbers_and_folders_that_cannot_be(tmp_path):
    model = small_model(2, trainable=False)
    with pytest.raises(ValueError, match=r"^epochs must be at least 1, got 0$"):
        train_and_test(model, features(), tmp_path / "run", epochs=0, trainer=QUIET)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    message = r"output must be a folder to write to \(File exists\): '.*file'$"
    with pytest.raises(FileExistsError, match=message):
        train_and_test(model, features(), tmp_path / "file", epochs=1, trainer=QUIET)
    with pytest.raises(FileExistsError, match=message):
        evaluate(model, features(), tmp_path / "file", trainer=QUIET)


def test_validation_chooses_the_epoch(clips, tmp_path):
    torch.manual_seed(0)
    model = small_model(2)
    data = data_module(clips)
    chosen = VideoDataModule(
        clips["train"], clips["test"], clips["test"], image_size=IMAGE_SIZE, num_workers=0
    )
    report = train_and_test(model, chosen, tmp_path, epochs=3, trainer=QUIET)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    torch.testing.assert_close(
        best["state_dict"]["model.classifier.weight"], model.classifier.weight.detach()
    )
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        scores = [
            float(row["validation_top1"]) for row in csv.DictReader(file) if row["validation_top1"]
        ]
    assert report.top1 == pytest.approx(max(scores))
    assert data.val_dataloader() == []


def test_unreadable_videos_are_left_out_and_named(clips, tmp_path):
    torch.manual_seed(0)
    damaged = {name: with_unreadable(part, tmp_path, 1) for name, part in clips.items()}
    report = train_and_test(
        small_model(2),
        data_module(damaged),
        tmp_path / "run",
        epochs=1,
        optimization={"max_unreadable": 0.5},
        trainer=QUIET,
    )
    assert report.num_videos == 4
    bad = tmp_path / "bad0.mp4"
    assert [error.split(": expected")[0] for error in report.unreadable] == [
        f"train: {bad}",
        f"test: {bad}",
    ]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["unreadable"] == list(report.unreadable)


def test_too_many_unreadable_videos(clips, tmp_path):
    damaged = {**clips, "train": with_unreadable(clips["train"], tmp_path, 3)}
    with pytest.raises(TooManyUnreadableVideos, match=r"of 11 train videos .* share of 10%"):
        train_and_test(
            small_model(2), data_module(damaged), tmp_path / "run", epochs=1, trainer=QUIET
        )


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ({"num_classes": 3}, {}, "differ in classes: 3 and 2"),
        (
            {"class_names": ["up", "down"]},
            {},
            r"names in order: \['up', 'down'\] and \['lift",
        ),
        ({}, {"image_size": 48}, "differ in image_size: 32 and 48"),
        ({}, {"num_frames": 8}, "differ in num_frames: 16 and 8"),
    ],
)
def test_model_and_data_that_do_not_fit(model, data, message, clips, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_and_test(
            small_model(**{"num_classes": 2, **model}),
            data_module(clips, **data),
            tmp_path,
            epochs=1,
            trainer=QUIET,
        )


def test_the_same_seed_gives_the_same_model(clips, tmp_path):
    weights = []
    for name in ("one", "two"):
        torch.manual_seed(3)
        model = small_model(2)
        data = data_module(clips, num_workers=1)
        train_and_test(model, data, tmp_path / name, epochs=1, seed=3, trainer=QUIET)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_validation_without_a_readable_video(clips, tmp_path):
    data = data_module(clips)
    none = replace(clips["test"], records=())
    data.validation = ClipDataset(with_unreadable(none, tmp_path, 2), data.test.transform)
    report = train_and_test(
        small_model(2),
        data,
        tmp_path / "run",
        epochs=1,
        optimization={"max_unreadable": 1.0},
        trainer=QUIET,
    )
    assert len(report.unreadable) == 2


def test_evaluation_by_itself_gives_the_report_of_the_run(clips, tmp_path):
    torch.manual_seed(0)
    views = evaluation_views(clips=2, crops=3)
    data = data_module(clips, views=views)
    model = small_model(2)
    report = train_and_test(model, data, tmp_path, epochs=1, trainer=QUIET)
    assert data.test[0]["clip"].shape == (6, 16, 3, 32, 32)
    alone = VideoDataModule(
        None, clips["test"], image_size=IMAGE_SIZE, batch_size=4, num_workers=0, views=views
    )
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path / "model")
    again = evaluate(loaded, alone, trainer=QUIET)
    assert torch.equal(again.probabilities, report.probabilities)
    assert again.ids == report.ids == tuple(r.id for r in clips["test"].records)
    with pytest.raises(ValueError, match="there is nothing to train on: the data has no train pa"):
        train_and_test(model, alone, tmp_path / "new", epochs=1)


def test_runs_that_cannot_be_resumed(tmp_path):
    def start(size=6, batch_size=2, order_seed=0, classes=("a", "b"), prefix="clip ", **options):
        parts = StoredFeatures(size, training=True, prefix=prefix), StoredFeatures(4)
        for part in parts:
            part.classes = classes
        data = ActionDataModule(
            *parts,
            batch_size=batch_size,
            num_workers=0,
            seed=order_seed,
        )
        model = small_model(2, trainable=False)
        settings = {"epochs": 1, "resume": True, "trainer": QUIET, **options}
        return train_and_test(model, data, tmp_path, **settings)

    torch.manual_seed(0)
    start()
    for options, message in (
        ({"batch_size": 3}, "begun with batch_size 2 and cannot go on with 3"),
        ({"size": 8}, "begun with training samples 6 and cannot go on with 8"),
        ({"order_seed": 1}, "begun with seed 0 and cannot go on with 1"),
        ({"seed": 7}, "begun with seed 0 and cannot go on with 7"),
        ({"classes": ("b", "a")}, r"begun with classes \['a', 'b'\] and cannot go on with \['b', "),
        ({"prefix": "other/"}, "begun with checksum of their names"),
        ({"optimization": {"ema_decay": 0.9}}, "begun with ema_decay=None and cannot go on with"),
        ({"optimization": {"learning_rate": 1e-5}}, "begun with learning_rate=0.001 and cannot go"),
        ({"epochs": 2}, "begun with epochs=1 and cannot go on with epochs=2"),
    ):
        torch.manual_seed(0)
        with pytest.raises(ValueError, match=message):
            start(**options)
    torch.manual_seed(1)  # of the frozen weights
    with pytest.raises(ValueError, match=r"the frozen model\.semantic_extractor has other weights"):
        start()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_steps": 3}, "give the length of a run in epochs, got max_steps=3"),
        (
            {"max_time": {"hours": 1}},
            "length of a run in epochs, got max_time={'hours': 1}",
        ),
        ({"val_check_interval": 0.5}, "give check_val_every_n_epoch, got val_check_interval=0.5"),
    ],
)
def test_what_would_end_or_validate_within_an_epoch_is_refused(tmp_path, option, message):
    model = small_model(2, trainable=False)
    with pytest.raises(ValueError, match=message):
        train_and_test(model, features(), tmp_path, epochs=1, trainer={**QUIET, **option})


def test_under_slurm_nothing_of_another_run_is_taken_up(tmp_path, monkeypatch):
    """Lightning would load the newest hpc_ckpt of the working folder, and write one on a signal."""
    slurm = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "7"}
    for name, value in {**slurm, "JOB_NAME": "train", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    model = small_model(2, trainable=False)
    train_and_test(model, features(), tmp_path / "run", epochs=1, trainer=QUIET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, features(), trainer=QUIET)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    run = _make_trainer({**QUIET, "logger": False})
    assert isinstance(run._accelerator_connector.cluster_environment, SLURMEnvironment)
    assert not run._accelerator_connector.cluster_environment.auto_requeue


def test_features_that_do_not_say_where_they_come_from(tmp_path):
    data = features()
    data.train.fingerprint = {"made by": "hand"}
    message = "the train features do not say which semantic extractor .* got {'made by': 'hand'}"
    with pytest.raises(ValueError, match=message):
        train_and_test(small_model(2), data, tmp_path, epochs=1, trainer=QUIET)


def test_data_that_resumed_a_run_begins_the_next_one_at_its_beginning(tmp_path):
    def start(data, output, *callbacks):
        torch.manual_seed(0)
        train_and_test(
            small_model(2, trainable=False),
            data,
            output,
            epochs=1,
            resume=True,
            checkpoint_minutes=0,
            trainer={**QUIET, "callbacks": list(callbacks)},
        )

    def data():
        parts = StoredFeatures(6, training=True), StoredFeatures(4)
        return ActionDataModule(*parts, batch_size=2, num_workers=0)

    with pytest.raises(Died):
        start(data(), tmp_path / "a", DieBefore(2))
    twice, seen = data(), Seen()
    start(twice, tmp_path / "a")
    start(twice, tmp_path / "b", seen)
    assert len(seen.batches) == 3


def test_frozen_weights_are_not_in_the_checkpoints(tmp_path):
    data = ActionDataModule(StoredFeatures(6, training=True), StoredFeatures(4), num_workers=0)
    train_and_test(small_model(2, trainable=False), data, tmp_path, epochs=1, trainer=QUIET)
    held = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[1] for name in held} == {"gasm_cast", "classifier"}


def test_brain_floats_gradient_clipping_and_no_logger(tmp_path):
    data = ActionDataModule(StoredFeatures(6, training=True), StoredFeatures(4), num_workers=0)
    options = {"precision": "bf16-mixed", "gradient_clip_val": 0.5, "logger": False}
    report = train_and_test(
        small_model(2, trainable=False), data, tmp_path, epochs=1, trainer={**QUIET, **options}
    )
    assert report.probabilities.dtype == torch.float32
    assert report.num_videos == 4


def test_the_average_is_what_is_evaluated_and_saved(tmp_path):
    data = ActionDataModule(StoredFeatures(6, training=True), StoredFeatures(4), num_workers=0)
    model = small_model(2, trainable=False)
    options = {"ema_decay": 0.5, "learning_rate": 1e-2}
    train_and_test(model, data, tmp_path, epochs=3, optimization=options, trainer=QUIET)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    saved = TemporalCrossAttentionModel.from_pretrained(tmp_path / "model").state_dict()
    for name, average in last["average"]["averages"].items():
        assert torch.equal(saved[name.removeprefix("model.")], average), name
    changed = last["state_dict"]["model.classifier.weight"]
    assert not torch.equal(saved["classifier.weight"], changed)
