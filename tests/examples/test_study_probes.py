import pytest
import torch
from interaction_study import probe_labels, probes
from interaction_study.features import Features, Scale
from interaction_study.linear_probe import linear_probe
from interaction_study.probe_labels import (
    NOT_ASKED,
    directions,
    first_of_each_class,
    label_clip,
    label_file,
    patch_labels,
    write_labels,
)
from interaction_study.probes import PAIRS, PATCH_QUESTIONS, ask, order_labels, stages
from interaction_study.training import Budget
from interaction_study.variants import VARIANTS
from safetensors.torch import load_file, save_file

from gasmcast import generate_temporal_positions
from gasmcast.datasets import InteractionClip, interaction_name
from gasmcast.datasets.interactions import ACTIONS, AGENTS

CLASSES = tuple(interaction_name(action, agent) for action in ACTIONS for agent in AGENTS)


def test_a_probe_tells_what_a_plane_can_part_however_rare_and_however_scaled():
    labels = torch.tensor([0] * 900 + [1] * 100)
    drawn = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 1000, 2, generator=drawn)
    told, mixed = (
        linear_probe(*[x for half in noise for x in (half + shift * labels[:, None], labels)])
        for shift in (9, 1)
    )
    assert told == 100
    assert 70 < mixed < 85  # 76 %: the frequent one is not preferred
    far = 1000 * noise[0] + 9000 * labels[:, None] + 5
    assert linear_probe(far, labels, far, labels) == 100


def test_a_probe_of_tokens_that_tell_nothing_is_at_chance_whatever_is_frequent():
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert linear_probe(torch.ones(100, 2), labels, torch.ones(100, 2), labels) == 50


def test_a_probe_of_one_class_is_refused():
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="at least 2 classes"):
        linear_probe(x, torch.ones(4, dtype=int), x, torch.ones(4, dtype=int))


def two_things(num_frames=4):
    """Warm is still in the first patch; cool comes from the right and touches it at the end."""
    masks = torch.zeros(2, num_frames, 24, 36, dtype=torch.bool)
    masks[0, :, 2:10, 2:8] = True
    for frame in range(num_frames):
        left = 8 + 5 * (num_frames - 1 - frame)
        masks[1, frame, 2:10, left : left + 8] = True
    return masks


def test_patches_are_labelled_by_what_is_on_them():
    labels = patch_labels(two_things(), agent=1)
    no = NOT_ASKED
    assert labels["object"].tolist() == [1, 2, 2, 0, 0, 0]
    assert labels["agent"].tolist() == [0, 1, 1, no, no, no]
    assert labels["contact"].tolist() == [1, 0, 0, no, no, no]
    assert set(patch_labels(two_things(), agent=None)["agent"].tolist()) == {no}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda masks: masks, 2),
        (lambda masks: masks.flip(1), 1),
        (lambda masks: masks.flip(0), 2),  # the cool thing is the still one
        (lambda masks: masks.mT, 4),
        (lambda masks: masks.mT.flip(1), 3),
        (lambda masks: masks[:, :1].expand(-1, 4, -1, -1), 0),
        (lambda masks: masks & (torch.arange(4) % 2 == 0)[:, None, None], 0),  # hidden
    ],
)
def test_segments_are_labelled_by_the_main_movement(change, expected):
    assert directions(change(two_things())).tolist() == [expected] * 2


def clip(action, agent="warm", number=0):
    name = interaction_name(action, agent)
    return InteractionClip(f"{number}", name, CLASSES.index(name), action, agent, "test", number)


def test_the_labels_of_a_clip_follow_its_action():
    right, left = (label_clip(clip(f"push_{way}", number=3)) for way in ("right", "left"))
    assert right["direction"].shape == (8,)
    assert (right["direction"] == 1).sum() >= 4
    assert (left["direction"] == 2).sum() >= 4
    assert set(right["agent"].tolist()) == {NOT_ASKED, 0, 1}
    warm = right["object"] == 1
    assert torch.equal(right["agent"] == 1, warm)
    assert set(label_clip(clip("hit"))["agent"].tolist()) == {NOT_ASKED}


def test_labels_are_drawn_once(tmp_path, monkeypatch):
    clips = [clip("lift", number=number) for number in range(3)] + [clip("lower")]
    monkeypatch.setattr(probe_labels, "write_interactions", lambda *_, **__: {"test": clips})
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/interactions.json").write_text('{"clips_per_class": {"test": 3}}')
    drawn = []

    def run(label, asked):
        drawn.append(len(asked))
        return map(label, asked)

    write_labels(tmp_path, {"test": 2}, run)
    write_labels(tmp_path, {"test": 2}, run)
    assert drawn == [3]
    found = load_file(label_file(tmp_path, "test"))
    assert found["clip"].tolist() == [0, 1, 3]
    assert found["object"].shape == (3, 64)
    assert torch.equal(found["direction"][1], label_clip(clips[1])["direction"])
    write_labels(tmp_path, {"test": 1}, run)
    assert drawn == [3, 2]
    stated = '{"clips_per_class": {"test": 3}, "version": 9}'  # the same places, other clips
    (tmp_path / "clips/interactions.json").write_text(stated)
    write_labels(tmp_path, {"test": 1}, run)
    assert drawn == [3, 2, 2]


def test_the_first_of_each_class():
    assert first_of_each_class([1, 1, 0, 1, 0, 0], 2) == [0, 1, 2, 4]


def features(count=4, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    semantic, motion = (torch.randn(count, n, 32, generator=drawn) for n in (16, 8))
    return Features(semantic, motion, labels, tuple(map(str, range(count))), CLASSES)


def test_the_order_is_asked_of_pairs_of_opposites_alone():
    assert len(PAIRS) == 10
    assert not {"hit", "push_along"} & set(PAIRS)
    labels = order_labels(features(44), "lift")
    asked = {CLASSES[place]: label for place, label in enumerate(labels) if label != NOT_ASKED}
    assert asked == {
        "lifting a warm thing": 0,
        "lifting a cool thing": 0,
        "lowering a warm thing": 1,
        "lowering a cool thing": 1,
    }


def test_stages_by_what_they_have_seen():
    motion = features().motion
    before, after = (
        VARIANTS["gasm_cast"].build(features(), seed).gasm_cast.eval().motion_graph
        for seed in (0, 1)
    )
    positions = generate_temporal_positions(16, 8)
    found = {name: stage(motion) for name, stage in stages(before, after, positions).items()}
    assert torch.equal(found["before"], motion)
    torch.testing.assert_close(found["after"], after(motion, positions))
    torch.testing.assert_close(found["untrained"], before(motion, positions))
    assert not torch.allclose(found["after"], found["untrained"])
    # Random segments are not similar: the neighbours are those at most two away, and itself.
    mean = [motion[:, max(0, place - 2) : place + 3].mean(dim=1) for place in range(8)]
    torch.testing.assert_close(found["neighbour mean"], motion + torch.stack(mean, dim=1))


def test_tokens_that_a_question_is_not_about_are_left_out():
    drawn = torch.Generator().manual_seed(0)
    right = torch.randint(2, (2, 50), generator=drawn)
    told = {
        split: torch.stack([labels.float(), torch.zeros(50)], dim=-1)
        for split, labels in zip(("train", "test"), right, strict=True)
    }
    labels = {
        split: {"it": torch.where(torch.arange(50) < 40, labels, NOT_ASKED)}
        for split, labels in zip(("train", "test"), right, strict=True)
    }
    told["test"][40:] = float("nan")
    assert ask(told, labels, "it") == 100


def test_each_question_is_put_to_its_tokens(tmp_path, monkeypatch):
    """What a label is stands in a channel of the tokens that should be asked, and nowhere else."""
    stores = {split: features(440, seed) for seed, split in enumerate(("train", "test"))}
    for split, store in stores.items():
        clip = torch.arange(0, 440, 4)
        patches = {
            question: (store.semantic[clip, :, channel] > 0).long()
            for channel, question in enumerate(PATCH_QUESTIONS)
        }
        direction = (store.motion[clip, :, 0] > 0).long()
        label_file(tmp_path, split).parent.mkdir(exist_ok=True)
        save_file({"clip": clip, "direction": direction, **patches}, label_file(tmp_path, split))
        for pair in PAIRS:
            order = order_labels(store, pair)
            store.motion[order != NOT_ASKED, :, 1] += 9 * order[order != NOT_ASKED, None]
    monkeypatch.setattr(probes, "load", lambda folder: stores[folder.name])
    monkeypatch.setattr(probes, "scale_of", lambda folder: Scale.of(stores[folder.name]))
    found = probes.probe("gasm_cast", 1e-3, 1, Budget(steps=3, batch_size=32), tmp_path)["probes"]
    stages = ("before", "after", "untrained", "neighbour mean")
    questions = (*PATCH_QUESTIONS, "direction", "order", "pretence")
    assert set(found) == {f"{question} {stage}" for question in questions for stage in stages}
    for question in questions:
        assert found[f"{question} before"] > 90
    for question in (*PATCH_QUESTIONS, "direction"):  # attention mixes in what others are
        assert 60 < found[f"{question} after"] < found[f"{question} before"]
