"""Scenes of the interactions: a warm and a cool thing, one of which does something to the other.

The *agent* does what names the class, the *other* is what it is done to, or only is there. Things
without a colour of their own are there to distract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gasmcast.datasets._drawing import (
    Path,
    Scene,
    Thing,
    draw,
    draw_camera,
    draw_fields,
    draw_mask,
    draw_progress,
    draw_texture,
    oklch,
    random_stream,
)

APPEARANCES = ("striped", "checked", "dotted", "ringed", "plain")
HUES = {"warm": (0.35, 1.5), "cool": (3.5, 4.9)}  # OKLCH, radians: red to yellow, cyan to violet
_REACH = 0.86  # of a thing's circle of the same area, in radii
_ROOM = 0.92  # how far from the middle a thing may reach
_GAP = 0.06


@dataclass(frozen=True)
class Stage:
    """What there is to choose from: outlines of all things, of the agent, and backgrounds."""

    outlines: Sequence[str]
    agents: Sequence[str]
    textures: Sequence[str]


@dataclass(frozen=True)
class _Act:
    """What agent and other do, and whether the agent is in front; None: as it happens."""

    agent: Path
    other: Path
    agent_in_front: bool | None = None


def draw_interaction(
    action: str, agent: str, stage: Stage, *, seed: int, num_frames: int, size: int
) -> torch.Tensor:
    """Draw one clip of an action that is drawn forwards: uint8 [T, 3, size, size]."""
    return draw(_draw_scene(action, agent, stage, seed, num_frames, size)[0], size)


def draw_interaction_masks(
    action: str, agent: str, stage: Stage, *, seed: int, num_frames: int, size: int
) -> torch.Tensor:
    """Where the warm and the cool thing can be seen in the same clip: bool [2, T, size, size]."""
    scene, cast = _draw_scene(action, agent, stage, seed, num_frames, size)
    masks = {}
    hidden = torch.zeros(num_frames, size, size, dtype=torch.bool)
    for thing in reversed(scene.things):
        mask = draw_mask(scene, thing, size)
        masks[id(thing)] = mask & ~hidden
        hidden |= mask
    return torch.stack([masks[id(cast[kind])] for kind in HUES])


def _draw_scene(
    action: str, agent: str, stage: Stage, seed: int, num_frames: int, size: int
) -> tuple[Scene, dict[str, Thing]]:
    scene_rng, action_rng = random_stream(seed, 0), random_stream(seed, 1)
    times = np.linspace(0.0, 1.0, num_frames)
    camera = draw_camera(scene_rng, times, drift=0.5)
    light_angle = scene_rng.uniform(0, 2 * np.pi)
    lightness = scene_rng.uniform(0.45, 0.7)
    texture = draw_texture(scene_rng, _ground(scene_rng, lightness), size, stage.textures)
    looks = {
        kind: _look(scene_rng, HUES[kind], stage.agents if kind == agent else stage.outlines)
        for kind in HUES
    }
    distractors = [
        Thing(*_look(scene_rng, None, stage.outlines), _wander(scene_rng, times))
        for _ in range(scene_rng.integers(3))
    ]
    act = _ACTIONS[action](action_rng, times)
    other = next(kind for kind in HUES if kind != agent)
    cast = {agent: Thing(*looks[agent], act.agent), other: Thing(*looks[other], act.other)}
    actors = [cast[other], cast[agent]]
    as_it_happens = bool(scene_rng.integers(2))
    if not (as_it_happens if act.agent_in_front is None else act.agent_in_front):
        actors.reverse()
    return Scene(camera, light_angle, texture, distractors + actors), cast


# Looks


def _ground(rng: np.random.Generator, lightness: float) -> np.ndarray:
    """Three colours of the background, [3, 3], from dark to light; hardly coloured."""
    hue, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.1)
    return np.stack([oklch(lightness + k * spread, rng.uniform(0, 0.03), hue) for k in (-1, 0, 1)])


def _look(
    rng: np.random.Generator, hues: tuple[float, float] | None, outlines: Sequence[str]
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Fields and two colours. Warm and cool things are equally bright: only colour tells them."""
    fields = draw_fields(rng, APPEARANCES[rng.integers(len(APPEARANCES))], outlines)
    hue = rng.uniform(*hues) if hues else rng.uniform(0, 2 * np.pi)
    lumas = rng.uniform(0.62, 0.8), rng.uniform(0.2, 0.38)
    colours = [
        _of_luma(luma, rng.uniform(0.09, 0.13) if hues else 0.01, hue + rng.uniform(-0.15, 0.15))
        for luma in lumas
    ]
    if rng.integers(2):
        colours.reverse()
    return fields, colours[0], colours[1]


def _of_luma(luma: float, chroma: float, hue: float) -> np.ndarray:
    """sRGB [3] of this hue whose luma (BT.601, what a grey picture shows) is exact."""
    weights = np.array([0.299, 0.587, 0.114])
    colour = oklch(luma, chroma, hue)
    for _ in range(20):  # what is clipped at black or white shifts it again
        colour = (colour + luma - weights @ colour).clip(0.0, 1.0)
    return colour


def _still(rng: np.random.Generator, times: np.ndarray, x: float, y: float, radius: float) -> Path:
    """A thing that rests, as well as hands can hold it."""
    progress = draw_progress(rng, times)
    drift_x, drift_y = rng.uniform(-0.05, 0.05, 2)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2)
    growth = rng.uniform(-0.06, 0.06)
    return Path(
        x=x + drift_x * progress,
        y=y + drift_y * progress,
        radius=radius * np.exp(growth * progress),
        angle=angle + turn * progress,
    )


def _moved(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    return replace(path, x=path.x + x, y=path.y + y)


def _wander(rng: np.random.Generator, times: np.ndarray) -> Path:
    x, y = rng.uniform(-0.9, 0.9, 2)
    return _still(rng, times, x, y, rng.uniform(0.12, 0.2))


# Actions. Of each pair of opposites one is drawn here; the other is it backwards.


def _radius(rng: np.random.Generator) -> float:
    return rng.uniform(0.2, 0.28)


def _apart(rng: np.random.Generator, axis: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Two places that are at least so far apart along an axis, and anywhere along the other."""
    side = rng.choice([-1.0, 1.0])
    distance = rng.uniform(least, max(least, 0.95))
    middle = rng.uniform(-0.1, 0.1)
    places = rng.uniform(-0.4, 0.4, (2, 2))
    places[:, axis] = middle + side * distance / 2 * np.array([1.0, -1.0])
    return places[0], places[1]


def _slide(axis: int, sign: float) -> Callable[[np.random.Generator, np.ndarray], _Act]:
    def act(rng: np.random.Generator, times: np.ndarray) -> _Act:
        radii = _radius(rng), _radius(rng)
        place, beside = _apart(rng, 1 - axis, sum(radii) + 0.2)
        distance = sign * rng.uniform(0.7, 1.1)
        place[axis] = rng.uniform(-1, 1) * (0.65 - abs(distance) / 2)
        way = np.zeros((2, len(times)))
        way[axis] = distance * draw_progress(rng, times)
        return _Act(
            _moved(_still(rng, times, *place, radii[0]), *way),
            _still(rng, times, *beside, radii[1]),
        )

    return act


def _turn(rng: np.random.Generator, times: np.ndarray) -> _Act:
    radii = _radius(rng), _radius(rng)
    place, beside = _apart(rng, rng.integers(2), sum(radii) + 0.15)
    agent = _still(rng, times, *place, radii[0])
    turn = np.radians(rng.uniform(90, 140)) * draw_progress(rng, times)
    return _Act(replace(agent, angle=agent.angle + turn), _still(rng, times, *beside, radii[1]))


def _grow(rng: np.random.Generator, times: np.ndarray) -> _Act:
    radii = rng.uniform(0.19, 0.24), _radius(rng)
    place, beside = _apart(rng, rng.integers(2), sum(radii) + 0.3)
    agent = _still(rng, times, *place, radii[0])
    growth = np.log(rng.uniform(1.7, 2.3)) * draw_progress(rng, times)
    return _Act(
        replace(agent, radius=agent.radius * np.exp(growth)),
        _still(rng, times, *beside, radii[1]),
    )


def _towards_other(
    rng: np.random.Generator, radii: tuple[float, float], end: float, far: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the other is, and places ``far`` and ``end`` from it in a direction."""
    while True:
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        other = -direction * far / 2 + rng.uniform(-0.25, 0.25, 2)
        start = other + direction * far
        if max(abs(other).max() + radii[1], abs(start).max() + radii[0]) <= _ROOM:
            return other, start, other + direction * end


def _near_to(
    beside: bool, radii: tuple[float, float], front: bool | None
) -> Callable[[np.random.Generator, np.ndarray], _Act]:
    """The agent comes to the other: beside it, over it or behind it."""

    def act(rng: np.random.Generator, times: np.ndarray) -> _Act:
        own, others = (rng.uniform(0.9, 1.1) * radius for radius in radii)
        touching = _REACH * (own + others)
        end = touching + _GAP if beside else rng.uniform(0.0, 0.04)
        other, start, place = _towards_other(rng, (own, others), end, end + rng.uniform(0.5, 0.7))
        progress = draw_progress(rng, times) + 0.5
        way = (place - start)[:, None] * progress
        return _Act(
            _moved(_still(rng, times, *start, own), *way),
            _still(rng, times, *other, others),
            front,
        )

    return act


def _there_and_back(sign: float) -> Callable[[np.random.Generator, np.ndarray], _Act]:
    """The agent comes to the other and goes again (1), or goes and comes again (-1)."""

    def act(rng: np.random.Generator, times: np.ndarray) -> _Act:
        radii = _radius(rng), _radius(rng)
        end = _REACH * sum(radii) + _GAP
        other, start, place = _towards_other(rng, radii, end, end + rng.uniform(0.5, 0.7))
        progress = draw_progress(rng, 1 - abs(2 * times - 1)) + 0.5
        progress = progress if sign > 0 else 1 - progress
        way = (place - start)[:, None] * progress
        return _Act(
            _moved(_still(rng, times, *start, radii[0]), *way),
            _still(rng, times, *other, radii[1]),
        )

    return act


def _pass_by(rng: np.random.Generator, times: np.ndarray) -> _Act:
    radii = _radius(rng), _radius(rng)
    lane = rng.choice([-1.0, 1.0]) * (_REACH * sum(radii) + _GAP)
    middle = rng.uniform(-0.2, 0.2)
    distance = rng.uniform(1.0, 1.2)
    progress = draw_progress(rng, times)
    agent = _still(rng, times, rng.uniform(-0.05, 0.05), middle + lane / 2, radii[0])
    return _Act(
        _moved(agent, distance * progress, np.zeros_like(times)),
        _still(rng, times, rng.uniform(-0.1, 0.1), middle - lane / 2, radii[1]),
    )


def _hit(rng: np.random.Generator, times: np.ndarray) -> _Act:
    """The agent comes, touches the other and stops; the other goes on. Backwards: the reverse."""
    radii = _radius(rng), _radius(rng)
    touching = _REACH * sum(radii)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    way = rng.uniform(0.4, 0.55, 2)
    middle = rng.uniform(-0.12, 0.12, 2)
    at = middle - direction * touching / 2, middle + direction * touching / 2
    progress = draw_progress(rng, np.clip(2 * times, 0, 1)) - 0.5  # -1 to 0, then rests
    after = draw_progress(rng, np.clip(2 * times - 1, 0, 1)) + 0.5
    return _Act(
        _moved(_still(rng, times, *at[0], radii[0]), *(direction[:, None] * way[0] * progress)),
        _moved(_still(rng, times, *at[1], radii[1]), *(direction[:, None] * way[1] * after)),
    )


def _push_along(rng: np.random.Generator, times: np.ndarray) -> _Act:
    """The agent is behind the other, and both move on. Backwards: the other pushes the agent."""
    radii = _radius(rng), _radius(rng)
    touching = _REACH * sum(radii)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    middle = rng.uniform(-0.1, 0.1, 2)
    way = direction[:, None] * rng.uniform(0.6, 0.8) * draw_progress(rng, times)
    return _Act(
        _moved(_still(rng, times, *(middle - direction * touching / 2), radii[0]), *way),
        _moved(_still(rng, times, *(middle + direction * touching / 2), radii[1]), *way),
    )


_ACTIONS: dict[str, Callable[[np.random.Generator, np.ndarray], _Act]] = {
    "push_right": _slide(0, 1.0),
    "lift": _slide(1, -1.0),
    "turn_clockwise": _turn,
    "bring": _grow,
    "approach": _near_to(True, (0.24, 0.24), None),
    "cover": _near_to(False, (0.31, 0.2), True),
    "put_in_front": _near_to(False, (0.2, 0.31), True),
    "put_behind": _near_to(False, (0.2, 0.31), False),
    "pass_right": _pass_by,
    "pretend_to_approach": _there_and_back(1.0),
    "pretend_to_leave": _there_and_back(-1.0),
    "hit": _hit,
    "push_along": _push_along,
}
