"""The scenes of the rendered set: one textured object that moves.

A seed fixes a scene (object, background, light, camera); a motion and an appearance are laid over
it.
"""

from __future__ import annotations

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


def draw_clip(
    motion: str, appearance: str, *, seed: int, motion_stream: int, num_frames: int, size: int
) -> torch.Tensor:
    """Draw one clip.

    Args:
        motion: the motion as seen forwards in time, one of ``"left_to_right"``, ``"lift"``,
            ``"towards"``, ``"turn_clockwise"``.
        appearance: the pattern on the object.
        seed: fixes the scene.
        motion_stream: at least 1; together with the seed fixes how this motion is performed, and
            leaves the scene as it is.
        num_frames: T.
        size: height and width in pixels.

    Returns:
        uint8 [T, 3, size, size].
    """
    return draw(_draw_scene(motion, appearance, seed, motion_stream, num_frames, size), size)


def draw_object_mask(
    motion: str, appearance: str, *, seed: int, motion_stream: int, num_frames: int, size: int
) -> torch.Tensor:
    """Where the object covers at least half of a pixel of the same clip.

    Returns:
        bool [T, size, size].
    """
    scene = _draw_scene(motion, appearance, seed, motion_stream, num_frames, size)
    return draw_mask(scene, scene.things[0], size)


def _draw_scene(
    motion: str, appearance: str, seed: int, motion_stream: int, num_frames: int, size: int
) -> Scene:
    scene_rng, motion_rng = random_stream(seed, 0), random_stream(seed, motion_stream)
    times = np.linspace(0.0, 1.0, num_frames)

    camera = draw_camera(scene_rng, times)
    light_angle = scene_rng.uniform(0, 2 * np.pi)
    stops, base, mark = _draw_colours(scene_rng)
    fields = draw_fields(scene_rng, appearance)
    texture = draw_texture(scene_rng, stops, size)
    path = _draw_path(motion_rng, motion, times)
    return Scene(camera, light_angle, texture, [Thing(fields, base, mark, path)])


def _draw_path(rng: np.random.Generator, motion: str, times: np.ndarray) -> Path:
    progress = draw_progress(rng, times)
    # What every clip has: a place, a size, an angle, and a little of every other motion.
    x, y = rng.uniform(-0.35, 0.35, 2)
    drift_x, drift_y = rng.uniform(-0.16, 0.16, 2)
    log_radius = np.log(rng.uniform(0.35, 0.47))
    growth = rng.uniform(-0.12, 0.12)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    amount = rng.uniform()

    if motion in ("left_to_right", "lift"):
        distance = 0.75 + 0.5 * amount
        middle = rng.uniform(-1, 1) * (0.75 - distance / 2)
        if motion == "left_to_right":
            x, drift_x = middle, distance
        else:
            y, drift_y = middle, -distance
    elif motion == "towards":
        log_radius, growth = np.log(rng.uniform(0.34, 0.42)), np.log(1.8 + 0.8 * amount)
    else:
        turn = np.radians(80 + 60 * amount)
    return Path(
        x=x + drift_x * progress,
        y=y + drift_y * progress,
        radius=np.exp(log_radius + growth * progress),
        angle=angle + turn * progress,
    )


def _draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three background colours [3, 3] from dark to light, and the object's two colours [3]."""
    hue, lightness = rng.uniform(0, 2 * np.pi), rng.uniform(0.42, 0.76)
    spread = rng.uniform(0.06, 0.13)
    hues, chromas = hue + rng.uniform(-0.7, 0.7, 3), rng.uniform(0.015, 0.06, 3)
    stops = np.stack(
        [oklch(lightness + k * spread, chromas[k + 1], hues[k + 1]) for k in (-1, 0, 1)]
    )
    # The object's hue stays away from the background's, one of its colours is light and one dark,
    # and the one that differs more from the background covers more of it.
    object_hue = hue + rng.uniform(0.4, 1.6) * np.pi
    light_l, dark_l = rng.uniform(0.84, 0.93), rng.uniform(0.36, 0.5)
    light = oklch(light_l, rng.uniform(0.03, 0.1), object_hue + rng.uniform(-0.6, 0.6))
    dark = oklch(dark_l, rng.uniform(0.09, 0.15), object_hue)
    if light_l - lightness > lightness - dark_l:
        return stops, light, dark
    return stops, dark, light
