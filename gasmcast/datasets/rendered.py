"""The rendered set: short clips that need no download and cannot be solved by one stream alone.

A textured object moves over a textured background that moves too. A class is a motion crossed with
an appearance, as in "moving a striped object from left to right":

- **Motions come in opposing pairs.** Run backwards, a clip of one is a clip of the other, frame by
  frame: ``render_clip("drop", a, seed=s)`` equals ``render_clip("lift", a, seed=s).flip(0)``. So
  the two classes of a pair have the same frames, in the opposite order, and nothing in the frames
  without their order tells them apart. (One frame *with* its place in the clip does tell something:
  what is lifted starts low.)
- **Appearances are patterns on the object.** They say nothing about the motion.

Everything else is drawn freely for every clip: the object's outline, colours, size and place; the
background's pattern and colours; the light; how fast the object moves and how long it rests; a
shaking camera whose view of the background drifts, turns and zooms in directions of its own, often
faster than the object. With one seed, all classes show the same outline, colours, background, light
and camera.

>>> clip = render_clip("lift", "dotted", seed=7)
>>> clip.shape, clip.dtype
(torch.Size([24, 3, 96, 96]), torch.uint8)
>>> bool((render_clip("drop", "dotted", seed=7) == clip.flip(0)).all())
True
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from gasmcast.datasets import _scene
from gasmcast.datasets._written_set import (
    check_choice,
    check_choices,
    check_set,
    check_whole,
    write_set,
)

MOTIONS: tuple[str, ...] = (
    "left_to_right",
    "right_to_left",
    "lift",
    "drop",
    "towards",
    "away",
    "turn_clockwise",
    "turn_counterclockwise",
)
"""The motions; each stands next to its opposite."""

OPPOSITE: Mapping[str, str] = MappingProxyType(
    {motion: MOTIONS[index ^ 1] for index, motion in enumerate(MOTIONS)}
)
"""Each motion's opposite: the same motion run backwards."""

APPEARANCES: tuple[str, ...] = ("striped", "checked", "dotted", "ringed", "plain")
"""The patterns on the object."""

_SENTENCES = {
    "left_to_right": "moving a {} object from left to right",
    "right_to_left": "moving a {} object from right to left",
    "lift": "lifting a {} object",
    "drop": "dropping a {} object",
    "towards": "moving a {} object towards the camera",
    "away": "moving a {} object away from the camera",
    "turn_clockwise": "turning a {} object clockwise",
    "turn_counterclockwise": "turning a {} object counterclockwise",
}
# The first of each pair is drawn, from a random stream of its own; the second is it backwards.
_DRAWN = {"left_to_right": 1, "lift": 2, "towards": 3, "turn_clockwise": 4}
# Goes up when the same arguments give other pictures, so that no folder mixes two versions.
_VERSION = 1


@dataclass(frozen=True)
class RenderedClip:
    """One clip of a written set.

    Attributes:
        path: the video file, relative to the set's root, with forward slashes.
        label: the class name.
        target: the class index, as in ``labels.json``.
        motion: one of :data:`MOTIONS`.
        appearance: one of :data:`APPEARANCES`.
        split: the split's name.
        seed: what :func:`render_clip` takes to draw it.
    """

    path: str
    label: str
    target: int
    motion: str
    appearance: str
    split: str
    seed: int


def class_name(motion: str, appearance: str) -> str:
    """The class in words, such as ``"moving a striped object from left to right"``.

    Raises:
        ValueError: for a motion or an appearance that does not exist.
    """
    check_choice("motion", motion, MOTIONS)
    check_choice("appearance", appearance, APPEARANCES)
    return _SENTENCES[motion].format(appearance)


def render_clip(
    motion: str, appearance: str, *, seed: int, num_frames: int = 24, size: int = 96
) -> torch.Tensor:
    """Draw one clip. The same arguments give the same bytes, in any process and any order.

    The opposite motion with the same seed is exactly the same clip backwards. Another appearance
    with the same seed puts another pattern on the same object and changes nothing else. Another
    size or number of frames shows the same scene more or less finely.

    Args:
        motion: one of :data:`MOTIONS`.
        appearance: one of :data:`APPEARANCES`.
        seed: any whole number from 0 on.
        num_frames: T, at least 2.
        size: height and width in pixels, at least 32.

    Returns:
        uint8 [T, 3, size, size], RGB.

    Raises:
        ValueError: for an argument outside of what is stated above.
    """
    return _draw(_scene.draw_clip, motion, appearance, seed, num_frames, size)


def render_object_mask(
    motion: str, appearance: str, *, seed: int, num_frames: int = 24, size: int = 96
) -> torch.Tensor:
    """Where the object is in each frame of the clip that :func:`render_clip` draws.

    These are the pixels of which the object, without its shadow, covers at least half. The
    appearance changes nothing here. They serve to see whether a model looks at the object.

    Args:
        motion: as for :func:`render_clip`, and so are the others.
        appearance: likewise.
        seed: likewise.
        num_frames: likewise.
        size: likewise.

    Returns:
        bool [T, size, size].

    Raises:
        ValueError: as for :func:`render_clip`.

    Example:
        >>> mask = render_object_mask("lift", "dotted", seed=7)
        >>> mask.shape, mask.dtype
        (torch.Size([24, 96, 96]), torch.bool)
        >>> bool((render_object_mask("drop", "dotted", seed=7) == mask.flip(0)).all())
        True
    """
    return _draw(_scene.draw_object_mask, motion, appearance, seed, num_frames, size)


def write_rendered_dataset(
    root: str | os.PathLike[str],
    *,
    clips_per_class: Mapping[str, int] = MappingProxyType({"train": 20, "test": 5}),
    motions: Sequence[str] = MOTIONS,
    appearances: Sequence[str] = APPEARANCES,
    num_frames: int = 24,
    size: int = 96,
    seed: int = 0,
    codec: str = "h264",
    fps: int = 12,
    progress: bool = False,
) -> dict[str, list[RenderedClip]]:
    """Render a set of clips into a folder of video files with annotation lists.

    The folder then holds::

        labels.json                            class name -> class index
        train.csv, test.csv                    path,label: relative to the folder, class name
        train/<class_name>/train_00_00000.mp4  split, class index and number; spaces become _
        rendered.json                          the parameters it was written with

    Classes are numbered motion by motion in the order given, and within a motion by appearance. No
    two clips share a seed, within a split or across splits; a clip's seed follows from ``seed``,
    its split, its class name and its number in the class, so it stays what it is in a set of more
    classes or more clips.

    A video file gets its name once it is complete and a split's list is written last, so the
    function can be killed at any moment: called again with the same arguments, it writes what is
    missing.

    Args:
        root: the folder; made if it is not there.
        clips_per_class: for each split, how many clips each class gets.
        motions: some of :data:`MOTIONS`.
        appearances: some of :data:`APPEARANCES`.
        num_frames: T, at least 2.
        size: height and width in pixels, at least 32 and even (4:2:0 video stores colour for blocks
            of 2 x 2 pixels).
        seed: another seed gives another set.
        codec: ``"h264"`` (.mp4; the same bytes every time with one build of the encoder) or
            ``"vp9"`` (.webm, as in Something-Something V2; two runs may give other bytes).
        fps: frames per second that the files state.
        progress: whether to show a progress bar.

    Returns:
        The clips of each split, in the order of its list.

    Raises:
        ValueError: for an argument outside of what is stated above, a folder that was written with
            other parameters, or one that holds something else.
    """
    options = {"num_frames": num_frames, "size": size, "seed": seed, "codec": codec, "fps": fps}
    check_set(clips_per_class, **options)
    check_choices("motions", motions, MOTIONS)
    check_choices("appearances", appearances, APPEARANCES)
    return write_set(
        Path(root),
        "rendered.json",
        _VERSION,
        {"motions": list(motions), "appearances": list(appearances)},
        _classes(motions, appearances),
        RenderedClip,
        partial(_draw_clip, num_frames=num_frames, size=size),
        clips_per_class,
        **options,
        progress=progress,
    )


def _classes(motions: Sequence[str], appearances: Sequence[str]) -> dict[str, dict[str, str]]:
    """What each class is made of, by its name."""
    return {
        class_name(motion, appearance): {"motion": motion, "appearance": appearance}
        for motion in motions
        for appearance in appearances
    }


def _draw_clip(clip: RenderedClip, *, num_frames: int, size: int) -> torch.Tensor:
    return render_clip(
        clip.motion, clip.appearance, seed=clip.seed, num_frames=num_frames, size=size
    )


def _draw(
    draw: Callable[..., torch.Tensor],
    motion: str,
    appearance: str,
    seed: int,
    num_frames: int,
    size: int,
) -> torch.Tensor:
    check_choice("motion", motion, MOTIONS)
    check_choice("appearance", appearance, APPEARANCES)
    check_whole("seed", seed, 0)
    check_whole("num_frames", num_frames, 2)
    check_whole("size", size, 32)
    forwards = motion in _DRAWN
    drawn = motion if forwards else OPPOSITE[motion]
    frames = draw(
        drawn,
        appearance,
        seed=int(seed),
        motion_stream=_DRAWN[drawn],
        num_frames=int(num_frames),
        size=int(size),
    )
    return frames if forwards else frames.flip(0)
