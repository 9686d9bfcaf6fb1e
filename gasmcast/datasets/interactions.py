"""The interactions: rendered clips of two things, one of which does something to the other.

After the manner of Something-Something: a warm thing and a cool thing, things without a colour that
distract, an uneasy camera, and a class that says what is done, and by which: "covering a cool thing
with a warm thing", "pretending to move a warm thing closer to a cool thing".

No single look at a clip is enough, by construction:

- **Every class has an opposite with the same frames in another order.** Mostly the opposite is the
  class run backwards: ``render_interaction("lower", a, seed=s)`` equals
  ``render_interaction("lift", a, seed=s).flip(0)``. The reverse of a hit, or of a push, is the same
  action by the other thing. A pretended approach and a pretended departure have the same places, in
  another order. So what is seen without its order, or in one frame without its place in the clip,
  leaves two classes to choose from at best.
- **Which thing does it is told by colour alone.** Warm and cool things are drawn alike in all else,
  down to their luma, so that a grey picture does not tell them apart. So movement alone leaves two
  classes to choose from, too.

The splits ``train``, ``validation`` and ``test`` share no outline of a thing and no kind of
background. ``combinations`` has the outlines and backgrounds of ``train``, but each action is done
by things that do not do it there. So in these two splits alone, the outlines of the two things may
give away which is the agent; what is learned from that in ``train`` is wrong in ``combinations``.

>>> clip = render_interaction("cover", "warm", seed=7)
>>> clip.shape, clip.dtype
(torch.Size([24, 3, 96, 96]), torch.uint8)
>>> interaction_name("cover", "warm")
'covering a cool thing with a warm thing'
>>> bool((render_interaction("uncover", "warm", seed=7) == clip.flip(0)).all())
True
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from gasmcast.datasets import _interaction_scene
from gasmcast.datasets._interaction_scene import Stage
from gasmcast.datasets._written_set import (
    check_choice,
    check_set,
    check_whole,
    write_set,
)

AGENTS: tuple[str, ...] = ("warm", "cool")
"""Which thing does something to the other."""

_SENTENCES = {
    "push_right": "pushing a {agent} thing from left to right",
    "push_left": "pushing a {agent} thing from right to left",
    "lift": "lifting a {agent} thing",
    "lower": "lowering a {agent} thing",
    "turn_clockwise": "turning a {agent} thing clockwise",
    "turn_counterclockwise": "turning a {agent} thing counterclockwise",
    "bring": "moving a {agent} thing towards the camera",
    "take_away": "moving a {agent} thing away from the camera",
    "approach": "moving a {agent} thing closer to a {other} thing",
    "leave": "moving a {agent} thing away from a {other} thing",
    "cover": "covering a {other} thing with a {agent} thing",
    "uncover": "uncovering a {other} thing by taking off a {agent} thing",
    "put_in_front": "putting a {agent} thing in front of a {other} thing",
    "take_from_front": "taking a {agent} thing away from in front of a {other} thing",
    "put_behind": "putting a {agent} thing behind a {other} thing",
    "take_from_behind": "taking a {agent} thing out from behind a {other} thing",
    "pass_right": "moving a {agent} thing past a {other} thing from left to right",
    "pass_left": "moving a {agent} thing past a {other} thing from right to left",
    "pretend_to_approach": "pretending to move a {agent} thing closer to a {other} thing",
    "pretend_to_leave": "pretending to move a {agent} thing away from a {other} thing",
    "hit": "a {agent} thing hitting a {other} thing that moves on",
    "push_along": "a {agent} thing pushing a {other} thing along",
}

ACTIONS: tuple[str, ...] = tuple(_SENTENCES)
"""What is done. Each stands beside its opposite, but for the last two: their opposite is the same
action by the other thing."""

# Drawn by these and run backwards.
_BACKWARDS = {
    "push_left": "push_right",
    "lower": "lift",
    "turn_counterclockwise": "turn_clockwise",
    "take_away": "bring",
    "leave": "approach",
    "uncover": "cover",
    "take_from_front": "put_in_front",
    "take_from_behind": "put_behind",
    "pass_left": "pass_right",
}

SPLITS: tuple[str, ...] = ("train", "validation", "test", "combinations")
"""The splits, see above."""

_OUTLINES = {
    "train": ("triangle", "rectangle", "house", "star", "pebble"),
    "validation": ("kite", "drop"),
    "test": ("trapezoid", "arrow"),
}
_TEXTURES = {
    "train": ("clouds", "marble"),
    "validation": ("patches",),
    "test": ("brushed",),
}
_KEPT_BACK = 2  # of the outlines of train, so many do an action in combinations alone
# Goes up when the same arguments give other pictures, so that no folder mixes two versions, and
# when the benchmark has another number of them.
VERSION = 2
"""Of the benchmark; figures measured on two versions cannot be compared."""


@dataclass(frozen=True)
class InteractionClip:
    """One clip of a written set.

    Attributes:
        path: the video file, relative to the set's root, with forward slashes.
        label: the class name.
        target: the class index, as in ``labels.json``.
        action: one of :data:`ACTIONS`.
        agent: one of :data:`AGENTS`.
        split: one of :data:`SPLITS`.
        seed: what :func:`render_interaction` takes to draw it.
    """

    path: str
    label: str
    target: int
    action: str
    agent: str
    split: str
    seed: int


def interaction_name(action: str, agent: str) -> str:
    """The class in words, such as ``"covering a cool thing with a warm thing"``.

    Raises:
        ValueError: for an action or an agent that does not exist.
    """
    check_choice("action", action, ACTIONS)
    check_choice("agent", agent, AGENTS)
    (other,) = set(AGENTS) - {agent}
    return _SENTENCES[action].format(agent=agent, other=other)


def opposite_interaction(action: str, agent: str) -> tuple[str, str]:
    """The class that has the same frames in another order.

    Raises:
        ValueError: for an action or an agent that does not exist.

    >>> opposite_interaction("lift", "warm"), opposite_interaction("hit", "warm")
    (('lower', 'warm'), ('hit', 'cool'))
    """
    check_choice("action", action, ACTIONS)
    check_choice("agent", agent, AGENTS)
    place = ACTIONS.index(action)
    if action in ("hit", "push_along"):
        return action, AGENTS[1 - AGENTS.index(agent)]
    return ACTIONS[place ^ 1], agent


def render_interaction(
    action: str,
    agent: str,
    *,
    seed: int,
    split: str = "train",
    num_frames: int = 24,
    size: int = 96,
) -> torch.Tensor:
    """Draw one clip. The same arguments give the same bytes, in any process and any order.

    Args:
        action: one of :data:`ACTIONS`.
        agent: one of :data:`AGENTS`.
        seed: any whole number from 0 on.
        split: one of :data:`SPLITS`: from which outlines and backgrounds to choose.
        num_frames: T, at least 2.
        size: height and width in pixels, at least 32.

    Returns:
        uint8 [T, 3, size, size], RGB.

    Raises:
        ValueError: for an argument outside of what is stated above.
    """
    draw = _interaction_scene.draw_interaction
    return _draw(draw, action, agent, seed, split, num_frames, size, time_dim=0)


def render_interaction_masks(
    action: str,
    agent: str,
    *,
    seed: int,
    split: str = "train",
    num_frames: int = 24,
    size: int = 96,
) -> torch.Tensor:
    """Where the two things can be seen in the same clip.

    Args:
        action: As for :func:`render_interaction`, and so are the others.
        agent: Likewise.
        seed: Likewise.
        split: Likewise.
        num_frames: Likewise.
        size: Likewise.

    Returns:
        bool [2, T, size, size], in the order of :data:`AGENTS`: at least half of the pixel is of
        that thing, and nothing is in front of it.

    Raises:
        ValueError: As for :func:`render_interaction`.
    """
    draw = _interaction_scene.draw_interaction_masks
    return _draw(draw, action, agent, seed, split, num_frames, size, time_dim=1)


def write_interactions(
    root: str | os.PathLike[str],
    *,
    clips_per_class: Mapping[str, int] = MappingProxyType(
        {"train": 48, "validation": 36, "test": 48, "combinations": 48}
    ),
    num_frames: int = 24,
    size: int = 96,
    seed: int = 0,
    codec: str = "h264",
    fps: int = 12,
    processes: int = 1,
    progress: bool = False,
) -> dict[str, list[InteractionClip]]:
    """Render the set into a folder of video files with annotation lists.

    The folder is laid out like that of :func:`~gasmcast.write_rendered_dataset`, states its
    parameters in ``interactions.json``, and can be killed and continued in the same way. The
    defaults are the benchmark.

    Args:
        root: the folder; made if it is not there.
        clips_per_class: for each split, some of :data:`SPLITS`, how many clips each class gets.
        num_frames: T, at least 2.
        size: height and width in pixels, at least 32 and even.
        seed: another seed gives another set.
        codec: ``"h264"`` or ``"vp9"``.
        fps: frames per second that the files state.
        processes: how many draw at the same time.
        progress: whether to show a progress bar.

    Returns:
        The clips of each split, in the order of its list.

    Raises:
        ValueError: for an argument outside of what is stated above, a folder that was written with
            other parameters, or one that holds something else.
        ChildProcessError: one of several processes ended by itself, as for want of memory; the same
            call goes on from there.
    """
    options = {"num_frames": num_frames, "size": size, "seed": seed, "codec": codec, "fps": fps}
    check_set(clips_per_class, **options)
    for split in clips_per_class:
        check_choice("each split", split, SPLITS)
    check_whole("processes", processes, 1)
    classes = {
        interaction_name(action, agent): {"action": action, "agent": agent}
        for action in ACTIONS
        for agent in AGENTS
    }
    return write_set(
        Path(root),
        "interactions.json",
        VERSION,
        {},
        classes,
        InteractionClip,
        partial(_draw_clip, num_frames=num_frames, size=size),
        clips_per_class,
        **options,
        progress=progress,
        processes=int(processes),
    )


def _draw_clip(clip: InteractionClip, *, num_frames: int, size: int) -> torch.Tensor:
    return render_interaction(
        clip.action,
        clip.agent,
        seed=clip.seed,
        split=clip.split,
        num_frames=num_frames,
        size=size,
    )


def _draw(
    draw: Callable[..., torch.Tensor],
    action: str,
    agent: str,
    seed: int,
    split: str,
    num_frames: int,
    size: int,
    *,
    time_dim: int,
) -> torch.Tensor:
    check_choice("action", action, ACTIONS)
    check_choice("agent", agent, AGENTS)
    check_whole("seed", seed, 0)
    check_choice("split", split, SPLITS)
    check_whole("num_frames", num_frames, 2)
    check_whole("size", size, 32)
    drawn = _BACKWARDS.get(action, action)
    frames = draw(
        drawn,
        agent,
        _stage(split, drawn),
        seed=int(seed),
        num_frames=int(num_frames),
        size=int(size),
    )
    return frames if drawn == action else frames.flip(time_dim)


def _stage(split: str, drawn: str) -> Stage:
    """What there is to choose from; the same for a class and its opposite."""
    looks = "train" if split == "combinations" else split
    outlines = agents = _OUTLINES[looks]
    if looks == "train":
        first = ACTIONS.index(drawn)
        kept_back = {outlines[(first + k) % len(outlines)] for k in range(_KEPT_BACK)}
        agents = tuple(
            outline for outline in outlines if (outline in kept_back) == (split == "combinations")
        )
    return Stage(outlines, agents, _TEXTURES[looks])
