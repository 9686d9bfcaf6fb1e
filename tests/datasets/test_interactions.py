import json
from collections import Counter

import numpy as np
import pytest
import torch

from gasmcast.datasets import (
    interaction_name,
    opposite_interaction,
    read_annotation_list,
    render_interaction,
    render_interaction_masks,
    write_interactions,
)
from gasmcast.datasets._interaction_scene import _ACTIONS, _look, _of_luma
from gasmcast.datasets.interactions import ACTIONS, AGENTS, SPLITS, _stage

TIMES = np.linspace(0, 1, 24)


def acts(action, count=400):
    """What agent and other do in so many clips."""
    return [_ACTIONS[action](np.random.default_rng(seed), TIMES) for seed in range(count)]


def distances(act):
    return np.hypot(act.agent.x - act.other.x, act.agent.y - act.other.y)


def test_there_are_44_classes_with_names_of_their_own():
    names = [interaction_name(action, agent) for action in ACTIONS for agent in AGENTS]
    assert len(set(names)) == 44
    assert interaction_name("hit", "cool") == "a cool thing hitting a warm thing that moves on"


def test_opposites_are_mutual():
    for action in ACTIONS:
        for agent in AGENTS:
            opposite = opposite_interaction(action, agent)
            assert opposite != (action, agent)
            assert opposite_interaction(*opposite) == (action, agent)


@pytest.mark.parametrize("action", [a for a in ACTIONS if a not in _ACTIONS])
def test_a_clip_backwards_is_a_clip_of_the_opposite(action):
    drawn, _ = opposite_interaction(action, "warm")
    options = {"seed": 5, "num_frames": 6, "size": 32}
    forwards = render_interaction(drawn, "warm", **options)
    assert torch.equal(render_interaction(action, "warm", **options), forwards.flip(0))
    masks = render_interaction_masks(drawn, "warm", **options)
    assert torch.equal(render_interaction_masks(action, "warm", **options), masks.flip(1))


def test_pretended_ways_have_the_same_places_in_another_order():
    for action, starts_far in (("pretend_to_approach", True), ("pretend_to_leave", False)):
        ways = np.stack([distances(act) for act in acts(action)])
        assert (abs(ways[:, 0] - ways[:, -1]) < 0.2).all()  # back where it was
        assert ((ways[:, 0] > ways[:, 12]) == starts_far).all()
    near, far = (
        np.stack([distances(act) for act in acts(f"pretend_to_{way}")])
        for way in ("approach", "leave")
    )
    for share in (10, 50, 90):  # of the places, whenever
        assert np.percentile(near, share) == pytest.approx(np.percentile(far, share), abs=0.05)


@pytest.mark.parametrize("action", ["hit", "push_along"])
def test_backwards_the_other_thing_does_the_same(action):
    """Who is ahead, how far both go and when: the same after time and roles are exchanged."""
    forwards = acts(action)

    def described(one, other):
        """Along the way from start to end of both: how far each goes, early and late."""
        step = (one[:, -1] - one[:, 0]) + (other[:, -1] - other[:, 0])
        way = step / np.linalg.norm(step)
        early, late = (way @ (path[:, 11] - path[:, 0]) for path in (one, other))
        ahead = way @ (other - one).mean(axis=1)
        whole = [way @ (path[:, -1] - path[:, 0]) for path in (one, other)]
        return [early, late, ahead, *whole]

    def path(thing):
        return np.stack([thing.x, thing.y])

    as_drawn = np.array([described(path(a.agent), path(a.other)) for a in forwards])
    exchanged = np.array(
        [described(path(a.other)[:, ::-1], path(a.agent)[:, ::-1]) for a in forwards]
    )
    assert as_drawn.mean(axis=0) == pytest.approx(exchanged.mean(axis=0), abs=0.03)
    assert as_drawn.std(axis=0) == pytest.approx(exchanged.std(axis=0), abs=0.03)
    assert as_drawn[:, 2].min() > 0.2  # the other is ahead
    assert all(act.agent_in_front is None for act in forwards)  # or that would tell


def test_a_grey_picture_does_not_tell_warm_from_cool():
    """The luma of a colour is what was drawn for it, whatever the hue."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        luma, chroma, hue = rng.uniform(0.2, 0.8), rng.uniform(0.09, 0.13), rng.uniform(0, 6.28)
        colour = _of_luma(luma, chroma, hue)
        assert colour.min() >= 0
        assert colour.max() <= 1
        assert colour @ [0.299, 0.587, 0.114] == pytest.approx(luma, abs=2e-3)
    warm, cool = (
        [_look(np.random.default_rng(seed), hues, ["star"]) for seed in range(30)]
        for hues in ((0.35, 1.5), (3.5, 4.9))
    )
    for (fields, *colours), (others, *other_colours) in zip(warm, cool, strict=True):
        assert torch.equal(fields, others)
        for one, other in zip(colours, other_colours, strict=True):
            weights = np.array([0.299, 0.587, 0.114])
            assert weights @ one == pytest.approx(weights @ other, abs=2e-3)
            assert abs(one - other).max() > 0.05


def test_masks_are_where_the_colours_are():
    clip = render_interaction("approach", "warm", seed=3, num_frames=6, size=64).float()
    warm, cool = render_interaction_masks("approach", "warm", seed=3, num_frames=6, size=64)
    redness = clip[:, 0] - clip[:, 2]
    assert redness[warm].mean() > 20
    assert redness[cool].mean() < -20
    assert not (warm & cool).any()
    assert abs(float(redness[~(warm | cool)].mean())) < 25


def test_what_is_behind_or_covered_is_not_seen():
    for action, hidden in (("cover", 1), ("put_behind", 0)):
        masks = render_interaction_masks(action, "warm", seed=1, num_frames=12, size=64)
        seen = masks.flatten(2).sum(dim=2)[hidden]
        assert seen[-1] < 0.3 * seen[0]
    masks = render_interaction_masks("put_in_front", "warm", seed=1, num_frames=12, size=64)
    warm, cool = masks.flatten(2).sum(dim=2)
    assert warm[-1] > 0.8 * warm[0]
    assert cool[-1] < 0.9 * cool[0]


def test_everything_stays_in_the_picture():
    for action in _ACTIONS:
        for act in acts(action, 200):
            for path in (act.agent, act.other):
                assert np.abs(path.x).max() < 1.05
                assert np.abs(path.y).max() < 1.05


def test_splits_share_no_outline_and_no_background():
    stages = {split: _stage(split, "lift") for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(stages[one].outlines) & set(stages[other].outlines)
        assert not set(stages[one].textures) & set(stages[other].textures)


def test_combinations_are_those_that_train_lacks():
    done = Counter()
    for action in _ACTIONS:
        train, new = _stage("train", action), _stage("combinations", action)
        assert train.outlines == new.outlines
        assert not set(train.agents) & set(new.agents)
        assert set(train.agents) | set(new.agents) == set(train.outlines)
        done.update(train.agents)
    assert set(done) == set(_stage("train", "lift").outlines)  # every outline does something


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jump", "warm"), "action must be one of push_right, .* got 'jump'"),
        (("lift", "hot"), "agent must be one of warm, cool, got 'hot'"),
    ],
)
def test_what_is_not_there_is_named(arguments, message):
    for function in (interaction_name, opposite_interaction):
        with pytest.raises(ValueError, match=message):
            function(*arguments)
    for function in (render_interaction, render_interaction_masks):
        with pytest.raises(ValueError, match=message):
            function(*arguments, seed=0)
    with pytest.raises(ValueError, match="split must be one of train, .* got 'dev'"):
        render_interaction("lift", "warm", seed=0, split="dev")


def test_a_written_set(tmp_path, monkeypatch):
    monkeypatch.setattr("gasmcast.datasets.interactions.ACTIONS", ("lift", "hit"))
    options = {"clips_per_class": {"train": 2, "test": 1}, "num_frames": 4, "size": 32}
    splits = write_interactions(tmp_path, **options)
    assert {split: len(clips) for split, clips in splits.items()} == {"train": 8, "test": 4}
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert list(labels)[2] == "a warm thing hitting a cool thing that moves on"
    read = read_annotation_list(tmp_path / "train.csv", classes=tmp_path / "labels.json")
    assert [record.label for record in read.records] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({clip.seed for clips in splits.values() for clip in clips}) == 12
    with pytest.raises(ValueError, match="was written with seed=0, not 1"):
        write_interactions(tmp_path, seed=1, **options)
    with pytest.raises(ValueError, match="each split must be one of train, .* got 'dev'"):
        write_interactions(tmp_path / "other", clips_per_class={"dev": 1})


def test_several_processes_write_the_same(tmp_path, monkeypatch):
    options = {"clips_per_class": {"validation": 1}, "num_frames": 2, "size": 32}
    for name, processes in (("one", 1), ("two", 2)):
        write_interactions(tmp_path / name, processes=processes, **options)
    files = sorted((tmp_path / "one").rglob("*.*"))
    assert len(files) == 44 + 3
    for file in files:
        twin = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert twin.read_bytes() == file.read_bytes()
