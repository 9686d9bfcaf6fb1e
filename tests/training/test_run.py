import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from gasmcast import TemporalCrossAttentionModel
from gasmcast.datasets import ClipDataset, VideoRecord, collate_clips
from gasmcast.training import TooManyUnreadableVideos, VideoDataModule, train_and_test
from small import IMAGE_SIZE, small_model

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


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
    assert written >= {"model", "results.json", "confusion_matrix.csv", "checkpoints", "log"}
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path / "run" / "model")
    clip = data_module(clips).test[0]["clip"].unsqueeze(0)
    assert torch.equal(loaded(clip), model.eval()(clip))
    with (tmp_path / "run" / "log" / "version_0" / "metrics.csv").open() as file:
        assert any(row["train_top1"] for row in csv.DictReader(file))
    with pytest.raises(FileExistsError, match="holds a run already: resume it"):
        train_and_test(model, data_module(clips), tmp_path / "run", epochs=2, trainer=QUIET)


class DieIn(Callback):
    """Stops like a machine that is switched off, in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if (trainer.current_epoch, batch_index) == (self.epoch, 1):
            raise RuntimeError("the machine died")


class Count(Callback):
    """Counts the batches that are trained on."""

    batches = 0

    def on_train_batch_end(self, *args):
        self.batches += 1


def test_resume_goes_on_after_the_last_whole_epoch(clips, tmp_path):
    last = tmp_path / "checkpoints" / "last.ckpt"

    def train(callback, resume):
        torch.manual_seed(0)
        train_and_test(
            small_model(2),
            data_module(clips),
            tmp_path,
            epochs=3,
            trainer={**QUIET, "callbacks": [callback]},
            resume=resume,
        )

    with pytest.raises(RuntimeError, match="the machine died"):
        train(DieIn(2), resume=False)
    stopped = torch.load(last, weights_only=True)
    assert stopped["global_step"] == 4  # two batches an epoch, two whole epochs
    rest = Count()
    train(rest, resume=True)
    assert rest.batches == 2
    finished = torch.load(last, weights_only=True)
    assert finished["global_step"] == 6
    assert finished["lr_schedulers"][0]["last_epoch"] == 6
    assert not torch.equal(
        finished["state_dict"]["model.classifier.weight"],
        stopped["state_dict"]["model.classifier.weight"],
    )
    assert {path.name for path in (tmp_path / "log").iterdir()} == {"version_0", "version_1"}


def test_a_trainer_that_cannot_be(clips, tmp_path):
    with pytest.raises(ValueError, match=r"make no trainer: .*'devicez'"):
        train_and_test(
            small_model(2), data_module(clips), tmp_path, epochs=1, trainer={**QUIET, "devicez": 5}
        )


class Terminate(Callback):
    """Says what a batch system says before it kills."""

    def on_train_batch_start(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_no_success(clips, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="stopped before the end: resume goes on from"):
            train_and_test(
                small_model(2),
                data_module(clips),
                tmp_path,
                epochs=1,
                trainer={**QUIET, "callbacks": [Terminate()]},
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "model").exists()


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


def test_samples_and_batches(clips, tmp_path):
    damaged = with_unreadable(clips["test"], tmp_path, 1)
    dataset = ClipDataset(damaged, lambda frames: frames.float() / 255, num_frames=5)
    assert len(dataset) == 5
    sample = dataset[1]
    assert sample["clip"].shape == (5, 3, 32, 32)
    assert (sample["label"], sample["index"]) == (damaged.records[1].label, 1)
    batch = collate_clips([dataset[0], dataset[4], dataset[1]])
    assert batch["clip"].shape == (2, 5, 3, 32, 32)
    assert batch["index"].tolist() == [0, 1]
    assert list(batch["errors"]) == [4]
    assert str(damaged.records[4].path) in batch["errors"][4]
    assert list(collate_clips([dataset[4]])) == ["errors"]


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


def test_parts_that_do_not_fit(clips):
    first = {name: tuple(r for r in part.records if r.label == 0) for name, part in clips.items()}
    one = {name: replace(clips[name], records=r, classes=("only",)) for name, r in first.items()}
    with pytest.raises(ValueError, match=r"expected at least two classes, got \['only'\]"):
        data_module(one)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        data_module(clips, batch_size=0)
    other = replace(clips["test"], classes=("up", "down"))
    with pytest.raises(ValueError, match=r"the test part has the classes \['up', 'down'\], the tr"):
        VideoDataModule(clips["train"], other)
    with pytest.raises(ValueError, match="the test part holds no video"):
        VideoDataModule(clips["train"], replace(clips["test"], records=()))


TWO_PROCESSES = """
import sys
from dataclasses import replace
import torch
sys.path.insert(0, {tests!r})
from gasmcast.datasets import read_annotation_list
from gasmcast.training import VideoDataModule, train_and_test
from small import IMAGE_SIZE, small_model

if __name__ == "__main__":
    root, output = sys.argv[1:]
    parts = [
        read_annotation_list(f"{{root}}/{{split}}.csv", classes=f"{{root}}/labels.json")
        for split in ("train", "test")
    ]
    parts[1] = replace(parts[1], records=parts[1].records[:3])  # no equal shares
    torch.manual_seed(0)
    report = train_and_test(
        small_model(2),
        VideoDataModule(*parts, image_size=IMAGE_SIZE, batch_size=2, num_workers=0),
        output,
        epochs=2,
        trainer={{
            "accelerator": "cpu", "devices": 2, "strategy": "ddp", "enable_progress_bar": False,
        }},
    )
    import torch.distributed as dist
    print("processes", dist.get_world_size(), dist.get_backend(), "videos", report.num_videos)
"""


def test_two_processes_train_together(clips, tmp_path):
    """Lightning starts two processes that share each step through gloo."""
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parents[1])))
    root = clips["train"].records[0].path.parents[2]
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "processes 2 gloo videos 3" in done.stdout  # none counted twice
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4  # 8 clips / (2 processes x 2 clips) x 2 epochs
    TemporalCrossAttentionModel.from_pretrained(tmp_path / "run" / "model")
