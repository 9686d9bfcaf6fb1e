"""The example on sound and log: what it makes up, what it claims of it, what it prints."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "other_modalities.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("other_modalities", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_answer_is_in_both_streams_together(example):
    recordings = example.record(200, seed=3)
    alarms = recordings.kinds == example.EVENTS.index("alarm")
    assert (alarms.sum(dim=1) == 1).all()
    assert recordings.exists[alarms].all()
    moment = recordings.times[alarms]
    assert ((moment >= 0) & (moment <= example.COLUMNS)).all()
    # The pitch that is loudest at the moment of the alarm is that of the bearing asked for.
    column = (moment * example.PATCH).long().clamp(max=127)
    loudest = recordings.spectrograms[torch.arange(200), :, column].argmax(dim=1)
    pitch = loudest * example.RATE / 128
    nearest = (pitch.unsqueeze(1) - torch.tensor(example.PITCHES)).abs().argmin(dim=1)
    assert (nearest == recordings.labels).float().mean() > 0.97


def test_the_sound_alone_can_be_right_as_often_as_stated(example):
    recordings = example.record(3000, seed=4)
    rattles = torch.nn.functional.one_hot(recordings.order, example.BEARINGS).sum(dim=1)
    # Each rattle is as likely to be the one, so the best guess is the bearing that rattled most.
    assert abs(float(rattles.max(dim=1).values.float().mean()) / 4 - 0.53) < 0.01
    assert abs(float((recordings.labels == 0).float().mean()) - 0.25) < 0.03


def test_recordings_follow_from_the_seed(example):
    once, again, other = (example.record(5, seed) for seed in (1, 1, 2))
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(once.spectrograms, other.spectrograms)


def test_events_that_do_not_exist_change_nothing(example):
    torch.manual_seed(0)
    model = example.Fused().eval()
    for layer in model.layers:
        torch.nn.init.normal_(layer.sem_expand.weight)
        torch.nn.init.normal_(layer.mot_expand.weight)
    recordings = example.record(6, seed=5)
    assert not recordings.exists.all()
    changed = recordings._replace(
        kinds=recordings.kinds.masked_fill(~recordings.exists, 3),
        times=recordings.times.masked_fill(~recordings.exists, -50.0),
    )
    assert torch.equal(model(recordings), model(changed))
    attention = model.attention_of_alarm(recordings)
    assert attention.shape == (6, example.COLUMNS, example.ROWS)
    torch.testing.assert_close(attention.sum(dim=(1, 2)), torch.ones(6))


@pytest.mark.parametrize("stream", ["sound", "log"])
def test_a_stream_alone_does_not_see_the_other(example, stream):
    model = example.Alone(stream).eval()
    recordings = example.record(4, seed=6)
    model(recordings)  # lazy layers learn their sizes
    other = example.record(4, seed=7)
    names = ("kinds", "times", "exists") if stream == "sound" else ("spectrograms",)
    mixed = recordings._replace(**{name: getattr(other, name) for name in names})
    assert torch.equal(model(recordings), model(mixed))
    mine = {"sound": ("spectrograms",), "log": ("kinds", "times", "exists")}[stream]
    mixed = recordings._replace(**{name: getattr(other, name) for name in mine})
    assert not torch.equal(model(recordings), model(mixed))


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_prints_and_draws(tmp_path):
    arguments = ("--recordings=60", "--held_out=20", "--epochs=1", "--picture=alarm.png")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "60 recordings to train on, 20 to test on; chance 25%"
    for line, name in zip(lines[1:4], ("sound alone", "log alone", "fused"), strict=True):
        assert re.fullmatch(rf"{name} +\d+\.\d% right", line)
    assert re.fullmatch(r"the alarm gives \d+% of its .*, 12% would be even", lines[4])
    assert (tmp_path / "alarm.png").stat().st_size > 10_000


def test_mistakes_get_one_line(tmp_path):
    done = run("--epochs=0", cwd=tmp_path)
    message = "error: recordings, held_out and epochs must be at least 1, got 4000, 1000 and 0\n"
    assert done.stderr == message
    done = run("--picture=nowhere/a.png", cwd=tmp_path)
    assert done.stderr == "error: cannot write nowhere/a.png: its folder is not there\n"
