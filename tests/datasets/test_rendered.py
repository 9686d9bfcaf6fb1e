"""The rendered set: what a seed fixes, what a class shows, and what ends up in the folder."""

import csv
import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from gasmcast.datasets import _drawing, _scene, _written_set, rendered
from gasmcast.datasets.rendered import (
    APPEARANCES,
    MOTIONS,
    OPPOSITE,
    RenderedClip,
    class_name,
    render_clip,
    render_object_mask,
    write_rendered_dataset,
)

# Pictures this small are drawn faster without waiting for other threads.
pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"num_frames": 6, "size": 48}
PATTERNS = [appearance for appearance in APPEARANCES if appearance != "plain"]


def digest(clip):
    return hashlib.sha256(clip.contiguous().numpy().tobytes()).hexdigest()


def ink(motion, *, seed, appearance="striped", **options):
    """Where the pattern is, as a mask [T, H, W]: nothing else differs from the plain object."""
    patterned = render_clip(motion, appearance, seed=seed, **options).int()
    plain = render_clip(motion, "plain", seed=seed, **options).int()
    return (patterned - plain).abs().amax(1) > 25


def centre(mask):
    """Mean x and y of each frame's pixels: two tensors [T]."""
    ys, xs = torch.meshgrid(*(torch.arange(n) for n in mask.shape[1:]), indexing="ij")
    count = mask.sum((1, 2))
    return (mask * xs).sum((1, 2)) / count, (mask * ys).sum((1, 2)) / count


# What version 1 draws and counts, so that neither changes unnoticed.
VERSION_1_MEANS = [96.6, 103.7, 93.7, 115.2, 96.9, 116.4, 77.9, 85.2, 85.5, 106.2, 80.7, 83.9]
FIRST_SEED = 5890958082224003283


# What a seed fixes


def test_shape_and_type():
    clip = render_clip("lift", "striped", seed=0)
    assert clip.shape == (24, 3, 96, 96)
    assert clip.dtype == torch.uint8
    assert render_clip("drop", "plain", seed=0, num_frames=2, size=33).shape == (2, 3, 33, 33)


@pytest.mark.parametrize("motion", MOTIONS)
def test_same_arguments_give_the_same_bytes(motion):
    first = render_clip(motion, "checked", seed=5, **SMALL)
    render_clip("lift", "dotted", seed=6, **SMALL)
    assert torch.equal(first, render_clip(motion, "checked", seed=5, **SMALL))
    assert not torch.equal(first, render_clip(motion, "checked", seed=6, **SMALL))


def test_another_process_and_thread_count_give_the_same_bytes():
    code = (
        "import hashlib, torch\n"
        "torch.set_num_threads(1)\n"
        "from gasmcast.datasets.rendered import render_clip\n"
        "for seed in range(4):\n"
        "    clip = render_clip('towards', 'dotted', seed=seed)\n"
        "    print(hashlib.sha256(clip.numpy().tobytes()).hexdigest())\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    torch.set_num_threads(2)
    here = [digest(render_clip("towards", "dotted", seed=seed)) for seed in reversed(range(4))]
    assert printed == here[::-1]


def test_the_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = render_clip("away", "ringed", seed=3, **SMALL)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, render_clip("away", "ringed", seed=3, **SMALL))


def test_large_seeds_are_seeds_of_their_own():
    seeds = [5, 5 + 2**32, 5 + 2**62]
    assert len({digest(render_clip("lift", "plain", seed=s, **SMALL)) for s in seeds}) == 3
    assert torch.equal(
        render_clip("lift", "plain", seed=np.int64(5), **SMALL),
        render_clip("lift", "plain", seed=5, **SMALL),
    )


def test_pictures_are_those_of_version_1():
    # When this fails on purpose, raise _VERSION: folders written before hold other pictures.
    assert rendered._VERSION == 1
    clip = render_clip("lift", "checked", seed=11, num_frames=3).float()
    means = torch.nn.functional.avg_pool2d(clip, 48)[:, 1].flatten().tolist()
    assert means == pytest.approx(VERSION_1_MEANS, abs=0.2)


# Where the object is


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_pattern_lies_on_the_object_and_reaches_its_border(motion):
    mask = render_object_mask(motion, "checked", seed=9, num_frames=6)
    assert mask.shape == (6, 96, 96)
    assert mask.dtype == torch.bool
    marked = ink(motion, seed=9, appearance="checked", num_frames=6)
    assert not (marked & ~mask).any()
    for of_object, of_ink in zip(mask, marked, strict=True):
        for axis in (0, 1):
            here, there = (frame.any(axis).nonzero()[[0, -1]] for frame in (of_object, of_ink))
            assert (here - there).abs().max() <= 5


def test_the_object_has_the_area_that_its_radius_says():
    """All outlines are made as large as each other; the motion alone says how large."""
    options = {"motion_stream": 4, "num_frames": 4, "size": 160}
    for seed in range(6):
        path = _scene._draw_scene("turn_clockwise", "plain", seed, *options.values()).things[0].path
        area = render_object_mask("turn_clockwise", "plain", seed=seed, num_frames=4, size=160)
        by_path = _drawing._AREA * path.radius**2 * (160 / 2) ** 2
        assert area.sum((1, 2)).tolist() == pytest.approx(by_path, rel=0.02)


def test_the_outline_is_that_of_all_appearances_and_of_the_opposite_backwards():
    mask = render_object_mask("away", "striped", seed=4, **SMALL)
    assert torch.equal(mask, render_object_mask("away", "plain", seed=4, **SMALL))
    assert torch.equal(mask.flip(0), render_object_mask("towards", "plain", seed=4, **SMALL))
    assert not torch.equal(mask.flip(0), mask)
    with pytest.raises(ValueError, match="motion must be one of left_to_right, .* got 'jump'"):
        render_object_mask("jump", "plain", seed=4)
    with pytest.raises(ValueError, match="size must be a whole number of at least 32, got 8"):
        render_object_mask("away", "plain", seed=4, size=8)


# Opposing motions


def test_opposites_come_in_pairs():
    assert set(OPPOSITE) == set(MOTIONS)
    for motion, opposite in OPPOSITE.items():
        assert opposite != motion
        assert OPPOSITE[opposite] == motion
    assert OPPOSITE["left_to_right"] == "right_to_left"
    assert OPPOSITE["lift"] == "drop"
    assert OPPOSITE["towards"] == "away"
    assert OPPOSITE["turn_clockwise"] == "turn_counterclockwise"
    with pytest.raises(TypeError):
        OPPOSITE["lift"] = "lift"


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("appearance", APPEARANCES)
def test_the_opposite_is_the_same_clip_backwards(motion, appearance):
    clip = render_clip(motion, appearance, seed=21, **SMALL)
    opposite = render_clip(OPPOSITE[motion], appearance, seed=21, **SMALL)
    assert torch.equal(opposite, clip.flip(0))
    assert not torch.equal(opposite, clip)


@pytest.mark.parametrize("motion", MOTIONS[::2])
def test_opposites_have_the_same_frames(motion):
    def frames(name):
        clips = [render_clip(name, "ringed", seed=seed, **SMALL) for seed in range(8)]
        return torch.stack(clips)

    one, other = frames(motion), frames(OPPOSITE[motion])
    assert sorted(digest(f) for f in one.flatten(0, 1)) == sorted(
        digest(f) for f in other.flatten(0, 1)
    )
    one, other = one.double().flatten(0, 1), other.double().flatten(0, 1)
    torch.testing.assert_close(one.mean(0), other.mean(0))
    torch.testing.assert_close(one.std(0), other.std(0))


# What a class shows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("left_to_right", 0, 1), ("right_to_left", 0, -1), ("lift", 1, -1), ("drop", 1, 1)],
)
def test_the_object_moves_along_its_axis(motion, axis, sign, seed):
    along = centre(ink(motion, seed=seed))[axis]
    moved = sign * (along[-1] - along[0])
    assert moved > 0.25 * 96
    across = centre(ink(motion, seed=seed))[1 - axis]
    assert (across[-1] - across[0]).abs() < 0.5 * moved


@pytest.mark.parametrize("seed", range(4))
def test_the_object_grows_as_it_comes_towards_the_camera(seed):
    area = ink("towards", seed=seed).sum((1, 2))
    assert area[-1] > 2 * area[0]


def test_the_object_turns_clockwise():
    checked = 0
    for seed in range(12):
        # Stripes run along one axis: its angle, from the second moments of the colour's slope.
        clip = render_clip("turn_clockwise", "striped", seed=seed, size=128).float().mean(1).numpy()
        mask = ink("turn_clockwise", seed=seed, size=128).numpy()
        slope_y, slope_x = np.gradient(clip, axis=(1, 2))
        xx, yy, xy = (
            (a * b * mask).sum((1, 2))
            for a, b in [(slope_x, slope_x), (slope_y, slope_y), (slope_x, slope_y)]
        )
        clear = np.hypot(xx - yy, 2 * xy) / (xx + yy)
        if clear.min() < 0.25:
            continue
        checked += 1
        # y points downwards, so clockwise is a growing angle; the axis repeats after half a turn.
        angle = np.degrees(np.unwrap(np.arctan2(2 * xy, xx - yy)) / 2)
        assert 60 < angle[-1] - angle[0] < 160, seed
    assert checked >= 4


@pytest.mark.parametrize("appearance", PATTERNS)
def test_the_pattern_covers_part_of_the_object(appearance):
    shares = []
    for seed in range(6):
        mask = ink("turn_clockwise", seed=seed, appearance=appearance, num_frames=4)
        shares.append(mask.float().mean())
    # The object covers about a tenth of the frame, and the pattern a third or so of the object.
    assert 0.015 < np.mean(shares) < 0.12
    assert min(shares) > 0.005


def test_patterns_differ_from_each_other():
    masks = {a: ink("lift", seed=4, appearance=a, num_frames=4) for a in PATTERNS}
    for one in PATTERNS:
        for other in PATTERNS:
            if one != other:
                common = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
                assert common < 0.75, (one, other)


def test_stripes_have_one_direction_and_checks_have_two():
    def directedness(appearance):
        values = []
        for seed in range(8):
            clip = render_clip("lift", appearance, seed=seed, num_frames=2, size=128).float()
            plain = render_clip("lift", "plain", seed=seed, num_frames=2, size=128).float()
            slope_y, slope_x = np.gradient((clip - plain).mean(1).numpy(), axis=(1, 2))
            xx, yy, xy = (slope_x**2).sum(), (slope_y**2).sum(), (slope_x * slope_y).sum()
            values.append(np.hypot(xx - yy, 2 * xy) / (xx + yy))
        return np.mean(values)

    assert directedness("striped") > 2 * directedness("checked")


def test_one_seed_shows_one_scene_in_all_classes():
    clips = [render_clip(m, a, seed=9, num_frames=5) for m in MOTIONS[::2] for a in APPEARANCES]
    # Background that the object and its shadow never reach is the same to the last bit.
    same = torch.stack([(clip == clips[0]).all(1) for clip in clips]).all(0)
    assert same.float().mean() > 0.2


def test_the_background_moves_on_its_own():
    cameras = [
        _drawing.draw_camera(_drawing.random_stream(seed, 0), np.linspace(0, 1, 24))
        for seed in range(200)
    ]
    dx = np.array([camera.x[-1] - camera.x[0] for camera in cameras])
    dy = np.array([camera.y[-1] - camera.y[0] for camera in cameras])
    # In all directions alike, and in a good part of the clips further than the shortest way of an
    # object; no clip is still.
    assert abs(np.mean(dx)) < 0.12
    assert abs(np.mean(dy)) < 0.12
    assert 0.2 < np.mean(np.hypot(dx, dy) > 0.75) < 0.8
    assert 0.3 < np.mean(dx > 0) < 0.7


def test_more_frames_and_pixels_show_the_same_scene():
    coarse = render_clip("towards", "plain", seed=2, num_frames=3, size=48).float()
    fine = render_clip("towards", "plain", seed=2, num_frames=5, size=96)[::2].float()
    fine = torch.nn.functional.avg_pool2d(fine, 2)
    assert (coarse - fine).abs().mean() < 2


# The written set


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "set"
    return root, write_rendered_dataset(root, **WRITTEN)


WRITTEN = {
    "clips_per_class": {"train": 2, "test": 1},
    "motions": ("lift", "drop"),
    "appearances": ("striped", "plain"),
    "num_frames": 8,
    "size": 64,
}


def decode(path):
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), rate


def snapshot(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_files_and_lists_agree(written):
    root, splits = written
    labels = json.loads((root / "labels.json").read_text())
    assert labels == {
        "lifting a striped object": 0,
        "lifting a plain object": 1,
        "dropping a striped object": 2,
        "dropping a plain object": 3,
    }
    assert list(splits) == ["train", "test"]
    for split, clips in splits.items():
        assert len(clips) == 4 * WRITTEN["clips_per_class"][split]
        with open(root / f"{split}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["path"], row["label"]) for row in rows] == [(c.path, c.label) for c in clips]
        for clip in clips:
            assert (root / clip.path).is_file()
            assert labels[clip.label] == clip.target
            assert clip.label == class_name(clip.motion, clip.appearance)
            assert clip.split == split
    assert splits["test"][2] == RenderedClip(
        path="test/dropping_a_striped_object/test_02_00000.mp4",
        label="dropping a striped object",
        target=2,
        motion="drop",
        appearance="striped",
        split="test",
        seed=splits["test"][2].seed,
    )
    listed = {clip.path for clips in splits.values() for clip in clips}
    others = {"labels.json", "train.csv", "test.csv", "rendered.json"}
    assert set(snapshot(root)) == listed | others


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_files_hold_the_rendered_frames(tmp_path, codec):
    splits = write_rendered_dataset(
        tmp_path,
        clips_per_class={"train": 1},
        motions=["turn_clockwise"],
        appearances=["checked", "plain"],
        codec=codec,
        fps=10,
    )
    for clip in splits["train"]:
        assert clip.path.endswith({"h264": ".mp4", "vp9": ".webm"}[codec])
        frames, rate = decode(tmp_path / clip.path)
        expected = render_clip(clip.motion, clip.appearance, seed=clip.seed)
        assert frames.shape == expected.shape
        assert rate == 10
        error = (frames.float() - expected.float()).abs()
        assert error.mean() < 4
        # Brightness, which is not stored at half resolution, is closer still.
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        brightness = ((frames.float() - expected.float()) * weights).sum(1).abs()
        assert brightness.mean() < 2


def test_no_two_clips_share_a_seed(written):
    classes = rendered._classes(MOTIONS, APPEARANCES)
    clips = _written_set.list_clips(RenderedClip, classes, "train", 50, 0, "")
    others = _written_set.list_clips(RenderedClip, classes, "test", 50, 0, "")
    one = rendered._classes(["lift"], ["plain"])
    elsewhere = _written_set.list_clips(RenderedClip, one, "train", 50, 1, "")
    seeds = [clip.seed for clip in [*clips, *others, *elsewhere]]
    assert len(set(seeds)) == len(seeds) == 40 * 50 * 2 + 50
    stems = [clip.path.rsplit("/", 1)[1] for clip in [*clips, *others]]
    assert len(set(stems)) == len(stems)
    # Fixed for good: these numbers are in people's folders.
    assert clips[0].seed == FIRST_SEED
    # A class keeps its clips when it is written with other classes, or with more clips.
    seeds = {(clip.label, clip.path[-5:]): clip.seed for clip in clips}
    for clip in written[1]["train"]:
        number = clip.path.removesuffix(".mp4")[-5:]
        assert seeds[clip.label, number] == clip.seed


def test_written_again_elsewhere_it_is_the_same_set(written, tmp_path):
    root, splits = written
    assert write_rendered_dataset(tmp_path / "deep" / "set", **WRITTEN) == splits
    assert snapshot(tmp_path / "deep" / "set") == snapshot(root)


def test_a_killed_run_is_completed(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    splits = write_rendered_dataset(whole, **WRITTEN)

    root = tmp_path / "set"
    draw, drawn = rendered.render_clip, []

    def dying(*args, **kwargs):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(kwargs["seed"])
        return draw(*args, **kwargs)

    monkeypatch.setattr(rendered, "render_clip", dying)
    with pytest.raises(KeyboardInterrupt):
        write_rendered_dataset(root, **WRITTEN)
    assert not (root / "train.csv").exists()
    kept = root / splits["train"][0].path
    modified = kept.stat().st_mtime_ns
    # What a process killed in the middle of a write leaves behind: half a file, not under its name.
    # The next call deletes it, but nothing that is not its own.
    (kept.parent / ".train_00_00001.mp4.1.part").write_bytes(b"half")
    (root / ".train.csv.1.part").write_bytes(b"half")
    foreign = kept.parent / ".mine.mp4.1.part"
    foreign.write_bytes(b"half")

    monkeypatch.setattr(rendered, "render_clip", lambda *a, **k: drawn.append(0) or draw(*a, **k))
    assert write_rendered_dataset(root, **WRITTEN) == splits
    assert len(drawn) == 12
    assert kept.stat().st_mtime_ns == modified
    foreign.unlink()
    assert snapshot(root) == snapshot(whole)

    lost = root / splits["test"][1].path
    lost.unlink()
    write_rendered_dataset(root, **WRITTEN)
    assert len(drawn) == 13
    assert snapshot(root) == snapshot(whole)


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        _written_set._write(tmp_path / "clip.mp4", b"bytes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "held", "wanted"),
    [
        ({"seed": 1}, "seed=0", "1"),
        ({"size": 96}, "size=64", "96"),
        ({"num_frames": 9}, "num_frames=8", "9"),
        ({"codec": "vp9"}, "codec='h264'", "'vp9'"),
        ({"fps": 5}, "fps=12", "5"),
        ({"motions": ["lift"]}, "motions=['lift', 'drop']", "['lift']"),
        ({"appearances": ["plain"]}, "appearances=['striped', 'plain']", "['plain']"),
        (
            {"clips_per_class": {"train": 2}},
            "clips_per_class={'train': 2, 'test': 1}",
            "{'train': 2}",
        ),
    ],
)
def test_a_folder_with_other_parameters_is_refused(written, changed, held, wanted):
    root, _ = written
    before = snapshot(root)
    message = (
        f"{root} was written with {held}, not {wanted}: use another folder, or delete this one"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        write_rendered_dataset(root, **(WRITTEN | changed))
    assert snapshot(root) == before


def test_a_folder_of_another_version_is_refused(tmp_path, monkeypatch):
    write_rendered_dataset(tmp_path, **WRITTEN)
    monkeypatch.setattr(rendered, "_VERSION", 2)
    with pytest.raises(ValueError, match="was written with version=1, not 2"):
        write_rendered_dataset(tmp_path, **WRITTEN)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / ".gitkeep").touch()
    (tmp_path / "train.csv").write_text("mine")
    message = "holds 'train.csv' but no rendered.json: a rendered set needs a folder of its own"
    with pytest.raises(ValueError, match=re.escape(message)):
        write_rendered_dataset(tmp_path, **WRITTEN)
    assert (tmp_path / "train.csv").read_text() == "mine"
    (tmp_path / "rendered.json").write_text("{")
    with pytest.raises(ValueError, match=r"rendered\.json is not readable as JSON: "):
        write_rendered_dataset(tmp_path, **WRITTEN)


def test_progress_shows_a_bar(tmp_path, capsys):
    write_rendered_dataset(tmp_path, **WRITTEN, progress=True)
    assert "12/12" in capsys.readouterr().err
    write_rendered_dataset(tmp_path, **WRITTEN)
    assert capsys.readouterr().err == ""


# What a caller can get wrong


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"motion": "up"},
            "motion must be one of left_to_right, right_to_left, lift, drop, towards, ",
        ),
        ({"motion": "up"}, ", away, turn_clockwise, turn_counterclockwise, got 'up'"),
        (
            {"appearance": "furry"},
            "appearance must be one of striped, checked, dotted, ringed, plain, got 'furry'",
        ),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
        ({"seed": True}, "seed must be a whole number of at least 0, got True"),
        ({"num_frames": 1}, "num_frames must be a whole number of at least 2, got 1"),
        ({"size": 31}, "size must be a whole number of at least 32, got 31"),
    ],
)
def test_wrong_arguments_of_render_clip(changed, message):
    arguments = {"motion": "lift", "appearance": "plain", "seed": 0} | changed
    with pytest.raises(ValueError, match=re.escape(message)):
        render_clip(**arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clips_per_class": {}}, "clips_per_class must name at least one split, got none"),
        (
            {"clips_per_class": {"test": 0}},
            "clips_per_class['test'] must be a whole number of at least 1, got 0",
        ),
        (
            {"clips_per_class": {"../up": 1}},
            "a split's name must consist of letters, digits, '_' and '-' and start with a letter "
            "or digit, got '../up'",
        ),
        ({"motions": "lift"}, "motions must be a sequence of names, got the string 'lift'"),
        ({"motions": ["lift", "up"]}, "each of motions must be one of left_to_right, "),
        ({"motions": ["lift", "up"]}, "turn_counterclockwise, got 'up'"),
        ({"motions": ["drop", "drop"]}, "motions must not name anything twice, got drop, drop"),
        ({"appearances": []}, "appearances must name at least one of striped, checked, dotted, "),
        ({"num_frames": 1}, "num_frames must be a whole number of at least 2, got 1"),
        ({"size": 30}, "size must be a whole number of at least 32, got 30"),
        ({"size": 97}, "size must be even for 4:2:0 video, got 97"),
        ({"seed": -2}, "seed must be a whole number of at least 0, got -2"),
        ({"codec": "av1"}, "codec must be one of h264, vp9, got 'av1'"),
        ({"fps": 0}, "fps must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_arguments_of_write_rendered_dataset(tmp_path, changed, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write_rendered_dataset(tmp_path / "set", **changed)
    assert not (tmp_path / "set").exists()


def test_wrong_arguments_of_class_name():
    assert class_name("towards", "ringed") == "moving a ringed object towards the camera"
    assert len({class_name(m, a) for m in MOTIONS for a in APPEARANCES}) == 40
    with pytest.raises(ValueError, match=r"appearance must be one of striped, .*, got 'round'"):
        class_name("lift", "round")
    with pytest.raises(ValueError, match=r"motion must be one of left_to_right, .*, got 'left'"):
        class_name("left", "plain")
