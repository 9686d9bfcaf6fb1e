"""The example on sound and log: what it makes up, what it claims of it, what it prints."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "other_modalities.py"


def heard_at_alarm(example, recordings):
    """The bearing whose pitch is loudest at the moment of the alarm: both streams, no network."""
    moment = recordings.times[recordings.kinds == example.EVENTS.index("alarm")]
    column = (moment * example.PATCH).long()
    loudest = recordings.spectrograms[torch.arange(len(moment)), :, column].argmax(dim=1)
    pitch = loudest * example.RATE / 128
    return (pitch.unsqueeze(1) - torch.tensor(example.PITCHES)).abs().argmin(dim=1)


def test_recordings_have_the_shapes_stated(example):
    recordings = example.record(50, seed=2)
    assert [list(tensor.shape) for tensor in recordings] == [
        [50, example.ROWS * example.PATCH, example.COLUMNS * example.PATCH],
        *[[50, example.MAX_EVENTS]] * 3,
        [50],
        [50, example.RATTLES],
    ]
    assert recordings.exists.dtype == torch.bool
    assert set(recordings.exists.sum(dim=1).tolist()) == {4, 5, 6, 7, 8}
    tokens, places = example.Sound()(recordings)
    assert (tokens.shape, places.shape) == ((50, 128, 64), (128, 2))
    tokens, places = example.Log()(recordings)
    assert (tokens.shape, places.shape) == ((50, 8, 32), (50, 8, 1))
    assert example.Fused()(recordings).shape == (50, example.BEARINGS)


def test_patches_lie_where_their_places_say(example):
    recordings = example.record(1, seed=2)
    sound = example.Sound()
    before, places = sound(recordings)
    changed = recordings.spectrograms.clone()
    changed[0, 3 * 8 : 4 * 8, 5 * 8 : 6 * 8] += torch.randn(8, 8)  # fourth row, sixth column
    after, _ = sound(recordings._replace(spectrograms=changed))
    (moved,) = (before != after).any(dim=-1)[0].nonzero()
    assert places[moved].tolist() == [[5.5, 3.5]]


def test_the_answer_is_in_both_streams_together(example):
    recordings = example.record(200, seed=3)
    alarms = recordings.kinds == example.EVENTS.index("alarm")
    assert (alarms.sum(dim=1) == 1).all()
    assert recordings.exists[alarms].all()
    moment = recordings.times[alarms]
    assert ((moment >= 0) & (moment <= example.COLUMNS)).all()
    assert (heard_at_alarm(example, recordings) == recordings.labels).float().mean() > 0.97


def test_either_stream_with_another_partner_has_another_answer(example):
    recordings, other = example.record(200, seed=3), example.record(200, seed=8)
    for slot in range(example.RATTLES):  # the first events come with the rattles
        kinds = recordings.kinds.clamp(min=1)
        kinds[:, slot] = example.EVENTS.index("alarm")
        moved = recordings._replace(kinds=kinds)  # the same sound, an alarm at another rattle
        right = heard_at_alarm(example, moved) == recordings.order[:, slot]
        assert right.float().mean() > 0.97
        # The log as it is and another sound, though its rattles come at slightly other moments.
        swapped = moved._replace(spectrograms=other.spectrograms)
        right = heard_at_alarm(example, swapped) == other.order[:, slot]
        assert right.float().mean() > 0.9


def test_either_stream_alone_can_be_right_as_often_as_stated(example):
    orders = torch.cartesian_prod(*[torch.arange(example.BEARINGS)] * example.RATTLES)
    recordings = example.record(2000, seed=4)
    exact = example.at_best(recordings._replace(order=orders))
    assert exact == {"sound alone": 17 / 32, "log alone": 0.25, "fused": 1.0}
    sampled = example.at_best(recordings)
    assert sampled["sound alone"] == pytest.approx(17 / 32, abs=0.01)
    # What attains it, and what the log knows: nothing of which bearing it was.
    guess = torch.nn.functional.one_hot(recordings.order, 4).sum(dim=1).argmax(dim=1)
    right = (guess == recordings.labels).float().mean()
    assert float(right) == pytest.approx(17 / 32, abs=0.035)
    for slot in range(example.RATTLES):
        labels = recordings.labels[recordings.kinds[:, slot] == example.EVENTS.index("alarm")]
        assert (labels.bincount() / len(labels) - 0.25).abs().max() < 0.06


def test_recordings_follow_from_the_seed(example):
    once, again, other = (example.record(5, seed) for seed in (1, 1, 2))
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(once.spectrograms, other.spectrograms)


def test_training_follows_from_the_seed(example):
    recordings, states = example.record(30, seed=1), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = example.Fused()
        example.train_and_test(model, recordings, recordings, epochs=1)
        states.append(torch.cat([weight.flatten() for weight in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ["Fused", "Sound", "Log"])
def test_every_weight_is_trained(example, name):
    recordings = example.record(20, seed=5)
    model = example.Fused() if name == "Fused" else example.Alone(name.lower())
    model(recordings)  # lazy layers learn their sizes
    if name == "Fused":
        shake(model)
    model(recordings).square().sum().backward()
    assert all(bool((weight.grad != 0).any()) for weight in model.parameters())


def shake(model):
    """Expansions start at zero, and then no layer does anything."""
    for layer in model.layers:
        torch.nn.init.normal_(layer.sem_expand.weight)
        torch.nn.init.normal_(layer.mot_expand.weight)


def other_padding(recordings):
    return recordings._replace(
        kinds=recordings.kinds.masked_fill(~recordings.exists, 3),
        times=recordings.times.masked_fill(~recordings.exists, -50.0),
    )


def test_events_that_do_not_exist_change_nothing(example):
    torch.manual_seed(0)
    model = example.Fused().eval()
    shake(model)
    recordings = example.record(6, seed=5)
    assert not recordings.exists.all()
    changed = other_padding(recordings)
    assert torch.equal(model(recordings), model(changed))
    attention = model.attention_of_alarm(recordings)
    assert torch.equal(attention, model.attention_of_alarm(changed))
    assert attention.shape == (6, example.COLUMNS, example.ROWS)
    torch.testing.assert_close(attention.sum(dim=(1, 2)), torch.ones(6))
    alone = example.Alone("log").eval()
    assert torch.equal(alone(recordings), alone(changed))


def test_even_attention_gives_the_even_share(example):
    recordings = example.record(40, seed=5)
    even = torch.full((40, example.COLUMNS, example.ROWS), 1 / 128)

    class Even:
        def attention_of_alarm(self, recordings):
            return even

    assert example.attention_on_time(Even(), recordings) == pytest.approx(2 / example.COLUMNS)


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


def test_command_prints_and_draws_what_it_says(tmp_path):
    arguments = ("--recordings=60", "--held_out=20", "--epochs=1", "--picture=alarm.png")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "60 recordings to train on, 20 to test on; chance 25%"
    assert lines[1].split() == ["right", "at", "best"]
    best = (r"\d\d\.\d", r"25\.0", r"100\.0")
    for line, name, share in zip(
        lines[2:5], ("sound alone", "log alone", "fused"), best, strict=True
    ):
        assert re.fullmatch(rf"{name} +\d+\.\d% +{share}%", line)
    assert re.fullmatch(r"the alarm gives \d+% of its .*, 12% would be even", lines[5])
    assert lines[6:] == ["written: alarm.png"]
    assert (tmp_path / "alarm.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--epochs=0",
            "error: recordings, held_out and epochs must be at least 1, got 4000, 1000 and 0",
        ),
        ("--picture=nowhere/a.png", "error: cannot write nowhere/a.png: its folder is not there"),
        (
            "--picture=alarm",
            "error: cannot write alarm: its name must end as a picture's does, as in .png",
        ),
        (
            "--picture=alarm.foo",
            "error: cannot write alarm.foo: its name must end as a picture's does, as in .png",
        ),
    ],
)
def test_mistakes_get_one_clear_line(argument, message, monkeypatch, tmp_path):
    # As from the command line, without the seconds of another interpreter.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), argument])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == message
