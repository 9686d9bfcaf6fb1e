import os
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gasmcast.training.checkpoints import RunCheckpoints, WholeFiles
from gasmcast.training.stopping import StopOnSigterm


class FakeTrainer:
    """Notes what is saved."""

    def __init__(self, batches=4):
        self.global_step = 0
        self.val_check_batch = batches
        self.fast_dev_run = False
        self.callback_metrics = {}
        self.saved = []
        self.strategy = SimpleNamespace(
            broadcast=lambda decision: decision,
            reduce_boolean_decision=lambda decision, all: decision,
        )

    def save_checkpoint(self, file):
        self.saved.append(file.name)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.seconds)
    return clock


def epoch(trainer, checkpoints, clock, *, seconds=0.0, accumulate=1):
    """Batches of an epoch; after which of them something was saved."""
    saved = []
    for batch in range(trainer.val_check_batch):
        clock.seconds += seconds
        trainer.global_step += (batch + 1) % accumulate == 0
        before = len(trainer.saved)
        checkpoints.on_train_batch_end(trainer, None, None, None, batch)
        saved += [batch] * (len(trainer.saved) - before)
    checkpoints.on_train_epoch_end(trainer, None)
    return saved


def test_when_it_is_time(tmp_path, clock):
    trainer, checkpoints = FakeTrainer(10), RunCheckpoints(tmp_path, 1.0, StopOnSigterm())
    checkpoints.on_train_start(trainer, None)
    # Half a minute a batch: after every second one, but not where the epoch ends anyway.
    assert epoch(trainer, checkpoints, clock, seconds=30) == [1, 3, 5, 7]
    assert trainer.saved == ["last.ckpt"] * 5
    assert epoch(trainer, checkpoints, clock, seconds=5) == []


def test_never_while_gradients_are_accumulated(tmp_path, clock):
    trainer, checkpoints = FakeTrainer(9), RunCheckpoints(tmp_path, 0, StopOnSigterm())
    checkpoints.on_train_start(trainer, None)
    assert epoch(trainer, checkpoints, clock, accumulate=3) == [2, 5]


def test_not_at_the_first_batch_of_a_resumed_run_that_only_accumulates(tmp_path, clock):
    trainer, checkpoints = FakeTrainer(9), RunCheckpoints(tmp_path, 0, StopOnSigterm())
    trainer.global_step = 3
    checkpoints.on_train_start(trainer, None)
    checkpoints.on_train_batch_end(trainer, None, None, None, 6)
    assert trainer.saved == []


def test_sigterm_to_any_process_saves_and_ends_between_two_steps(tmp_path, clock):
    trainer, checkpoints = FakeTrainer(9), RunCheckpoints(tmp_path, 10, StopOnSigterm())
    asked = []

    def any_of_them(decision, all):
        asked.append((decision, all))
        return True

    trainer.strategy.reduce_boolean_decision = any_of_them
    checkpoints.on_train_start(trainer, None)
    checkpoints.on_train_batch_end(trainer, None, None, None, 0)  # gradients are accumulated
    trainer.global_step = 1
    with pytest.raises(SIGTERMException):
        checkpoints.on_train_batch_end(trainer, None, None, None, 1)
    assert trainer.saved == ["last.ckpt"]
    with pytest.raises(SIGTERMException):
        checkpoints.on_train_epoch_end(trainer, None)
    assert trainer.saved == ["last.ckpt"] * 2
    assert asked == [(False, False)] * 2


def test_the_clock_of_the_first_process_decides(tmp_path, clock):
    trainer, checkpoints = FakeTrainer(4), RunCheckpoints(tmp_path, 10, StopOnSigterm())
    trainer.strategy.broadcast = lambda decision: True
    checkpoints.on_train_start(trainer, None)
    assert epoch(trainer, checkpoints, clock) == [0, 1, 2]


def test_the_best_one_is_written_before_the_last_one(tmp_path):
    trainer, checkpoints = FakeTrainer(), RunCheckpoints(tmp_path, 10, StopOnSigterm())
    for score, expected in (
        (0.5, ["best.ckpt", "last.ckpt"]),
        (0.5, ["last.ckpt"]),
        (0.25, ["last.ckpt"]),
        (0.75, ["best.ckpt", "last.ckpt"]),
        (float("nan"), ["last.ckpt"]),
    ):
        trainer.saved.clear()
        trainer.callback_metrics["validation_top1"] = torch.tensor(score)
        checkpoints.on_train_epoch_end(trainer, None)
        assert trainer.saved == expected
    again = RunCheckpoints(tmp_path, 10, StopOnSigterm())
    again.load_state_dict(checkpoints.state_dict())
    assert again.best_score == 0.75


def test_a_quick_trial_saves_nothing(tmp_path):
    trainer, checkpoints = FakeTrainer(), RunCheckpoints(tmp_path, 10, StopOnSigterm())
    trainer.fast_dev_run = True
    checkpoints.on_train_epoch_end(trainer, None)
    assert trainer.saved == []


def test_negative_minutes(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint_minutes must be at least 0, got -1"):
        RunCheckpoints(tmp_path, -1, StopOnSigterm())


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "new" / "last.ckpt"
    writer = WholeFiles()
    writer.save_checkpoint({"step": torch.tensor(1)}, file)

    def killed(*args):
        raise KeyboardInterrupt

    # Whatever is written goes to the same file system: a rename does the rest.
    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.save_checkpoint({"step": torch.tensor(2)}, file)
    assert torch.load(file, weights_only=True)["step"] == 1
    monkeypatch.undo()
    writer.save_checkpoint({"step": torch.tensor(3)}, file)
    assert torch.load(file, weights_only=True)["step"] == 3
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(tmp_path, small_disk):
    file = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": torch.tensor(1)}, file)
    with pytest.raises(OSError, match=r"File too large: '.*last\.ckpt'"), small_disk(100_000):
        WholeFiles().save_checkpoint({"step": torch.zeros(100_000)}, file)
    assert torch.load(file, weights_only=True)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    for name in (".last.ckpt.12.part", "best.ckpt"):
        (tmp_path / name).write_bytes(b"half")
    WholeFiles().save_checkpoint({"step": torch.tensor(1)}, tmp_path / "last.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]
