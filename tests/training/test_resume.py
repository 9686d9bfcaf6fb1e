"""A run that is stopped anywhere and resumed ends with the weights of one that is not."""

import os
import random
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from gasmcast.training import ActionDataModule, VideoDataModule, train_and_test
from small import IMAGE_SIZE, small_model
from training.parts import QUIET, DieBefore, Died, Seen, StoredFeatures, fresh_process

# All that is random or remembers something: dropping, mixing, averaging, accumulated gradients.
HARD = {"optimization": {"mixup_alpha": 0.8, "ema_decay": 0.5, "learning_rate": 1e-2}}


def run(data, output, *, callbacks=(), resume=False, accumulate=2, **options):
    torch.manual_seed(5)
    model = small_model(2, trainable=isinstance(data, VideoDataModule), drop_path=0.4, dropout=0.2)
    report = train_and_test(
        model,
        data,
        output,
        epochs=2,
        seed=3,
        resume=resume,
        checkpoint_minutes=0,
        trainer={
            **QUIET,
            "accumulate_grad_batches": accumulate,
            "gradient_clip_val": 1.0,
            "callbacks": list(callbacks),
        },
        **{**HARD, **options},
    )
    return model.state_dict(), report


def features(size=11, **options):
    return ActionDataModule(
        StoredFeatures(size, training=True, seed=4),
        StoredFeatures(4),
        StoredFeatures(6),
        **{"batch_size": 2, "num_workers": 0, "seed": 2, **options},
    )


def equal(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    seen = Seen()
    weights, report = run(features(), tmp_path_factory.mktemp("whole"), callbacks=[seen])
    return weights, report, seen.batches


@pytest.mark.parametrize("stop", [0, 1, 2, 5, 6, 7, 9, 11])
def test_a_run_on_features_that_stops_before_any_batch(stop, whole, tmp_path):
    weights, report, batches = whole
    first, second = Seen(), Seen()
    with pytest.raises(Died):
        run(features(), tmp_path, callbacks=[first, DieBefore(stop)])
    data = features()
    resumed, again = run(data, tmp_path, callbacks=[second], resume=True)
    assert equal(resumed, weights)
    assert torch.equal(again.probabilities, report.probabilities)
    # No step is taken twice but those after the last checkpoint, and nothing else is loaded.
    repeated = stop % 6 % 2  # six batches an epoch, two a step
    assert second.batches == batches[stop - repeated :]
    keys = [(epoch, index) for epoch, _, indices in second.batches for index in indices]
    assert data.train.asked == keys


class TerminateInValidation(Callback):
    def on_validation_batch_end(self, trainer, *_):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_is_terminated_while_it_validates_keeps_its_epoch(whole, tmp_path):
    weights, report, _ = whole
    with pytest.raises(SystemExit, match="resume goes on from"):
        run(features(), tmp_path, callbacks=[TerminateInValidation()])
    seen = Seen()
    resumed, again = run(features(), tmp_path, resume=True, callbacks=[seen])
    assert seen.batches == []
    assert equal(resumed, weights)
    assert torch.equal(again.probabilities, report.probabilities)


def videos(clips, **options):
    return VideoDataModule(
        clips["train"],
        clips["test"],
        image_size=IMAGE_SIZE,
        **{"batch_size": 2, "num_workers": 2, "seed": 2, **options},
    )


def test_a_run_on_videos_that_two_workers_decode(clips, tmp_path):
    weights, report = run(videos(clips), tmp_path / "whole")
    for stop in (2, 7):  # the third and the last of eight batches
        with pytest.raises(Died):
            run(videos(clips), tmp_path / str(stop), callbacks=[DieBefore(stop)])
        # Another number of workers draws the same.
        resumed, again = run(videos(clips, num_workers=stop % 2), tmp_path / str(stop), resume=True)
        assert equal(resumed, weights)
        assert torch.equal(again.probabilities, report.probabilities)


def test_a_finished_run_is_resumed_to_the_same_end(whole, tmp_path):
    weights, report, _ = whole
    run(features(), tmp_path)
    seen = Seen()
    resumed, again = run(features(), tmp_path, resume=True, callbacks=[seen])
    assert seen.batches == []
    assert equal(resumed, weights)  # the averages: not the weights that training went on with
    assert torch.equal(again.probabilities, report.probabilities)


def resumed_alone(output):
    torch.set_num_threads(1)
    run(features(), output, resume=True)


def test_a_run_that_is_killed_again_and_again(whole, tmp_path):
    """SIGKILL after so many seconds, wherever the run is then."""
    weights, _, _ = whole
    output = tmp_path / "run"
    last = output / "checkpoints" / "last.ckpt"
    draw = random.Random(0)
    killed = 0
    for _ in range(4):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = fresh_process(resumed_alone, output)
        process.start()
        # It dies soon after it has written something new.
        while process.is_alive() and (not last.exists() or last.stat().st_mtime_ns == before):
            process.join(0.002)
        process.join(draw.uniform(0, 0.1))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
    assert killed > 1
    resumed, _ = run(features(), output, resume=True)
    assert equal(resumed, weights)
