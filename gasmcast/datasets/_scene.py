"""Draws one clip of the rendered set: a textured object that moves over a textured background.

A seed fixes a scene (object, background, light, camera); a motion and an appearance are laid over
it. Lengths are in frame units: the picture spans [-1, 1] in x (to the right) and y (downwards), so
the same scene can be drawn at any size, and a positive angle turns clockwise on the screen.

The object is kept as *distance fields* (how far is the nearest edge) rather than as pixels. Sampled
with one bilinear lookup per pixel they give an edge that is one pixel soft at every size and angle,
where a scaled picture of the object would be jagged when small and blurred when large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

# Corners of the outlines, and how much of the size goes into rounding them. None is a circle: on a
# plain or ringed disc nobody could see it turn.
_OUTLINES = {
    "triangle": ([(0, -1), (0.85, 0.7), (-0.85, 0.7)], 0.25),
    "rectangle": ([(-1, -0.6), (1, -0.6), (1, 0.6), (-1, 0.6)], 0.2),
    "house": ([(0, -1), (0.8, -0.2), (0.8, 0.9), (-0.8, 0.9), (-0.8, -0.2)], 0.12),
    "kite": ([(0, -1), (0.75, -0.25), (0, 1.2), (-0.75, -0.25)], 0.2),
    "trapezoid": ([(-0.55, -0.7), (0.55, -0.7), (1, 0.7), (-1, 0.7)], 0.2),
    "pebble": ([(-0.5, -0.4), (0.6, -0.25), (0.1, 0.5)], 0.6),
    "drop": ([(0, -1.3), (0.3, 0.15), (0, 0.35), (-0.3, 0.15)], 0.45),
    "arrow": (
        [(-1, -0.4), (0.1, -0.4), (0.1, -0.9), (1.1, 0), (0.1, 0.9), (0.1, 0.4), (-1, 0.4)],
        0.1,
    ),
    "star": (
        [
            (r * np.sin(k * np.pi / 5), -r * np.cos(k * np.pi / 5))
            for k, r in enumerate([1.25, 0.55, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 1.0, 0.55])
        ],
        0.12,
    ),
}
_OBJECT_AREA = 2.3  # in squared object units; the same for all outlines, so none looks larger
_FIELD_EXTENT = 1.9  # the fields span [-extent, extent] in object units
_FIELD_SIZE = 176
# What the camera can reach: half a diagonal, zoomed, and half of the longest drift.
_TEXTURE_EXTENT = 2.25
_NOISE_CELLS = (5, 9, 17, 33, 65)


@dataclass(frozen=True)
class _Path:
    """Where the object is in each frame: arrays [T] in frame units and radians."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class _Camera:
    """What the background does in each frame, apart from the object: arrays [T]."""

    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray
    angle: np.ndarray
    shake_x: np.ndarray
    shake_y: np.ndarray
    brightness: np.ndarray


@dataclass(frozen=True)
class _Scene:
    """All that a seed, a motion and an appearance fix, before anything is drawn."""

    camera: _Camera
    light_angle: float
    base: np.ndarray
    mark: np.ndarray
    fields: torch.Tensor
    texture: torch.Tensor
    path: _Path


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
    return _compose(_draw_scene(motion, appearance, seed, motion_stream, num_frames, size), size)


def draw_object_mask(
    motion: str, appearance: str, *, seed: int, motion_stream: int, num_frames: int, size: int
) -> torch.Tensor:
    """Where the object covers at least half of a pixel of the same clip.

    Returns:
        bool [T, size, size].
    """
    scene = _draw_scene(motion, appearance, seed, motion_stream, num_frames, size)
    view = _object_view(scene, size)
    return _coverage(view.outline, scene.path, size) >= 0.5


def _draw_scene(
    motion: str, appearance: str, seed: int, motion_stream: int, num_frames: int, size: int
) -> _Scene:
    scene_rng, motion_rng = _random(seed, 0), _random(seed, motion_stream)
    times = np.linspace(0.0, 1.0, num_frames)

    camera = _draw_camera(scene_rng, times)
    light_angle = scene_rng.uniform(0, 2 * np.pi)
    stops, base, mark = _draw_colours(scene_rng)
    fields = _object_fields(scene_rng, appearance)
    texture = _background_texture(scene_rng, stops, size)
    path = _draw_path(motion_rng, motion, times)
    return _Scene(camera, light_angle, base, mark, fields, texture, path)


def _random(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))))


# Movement. Whatever changes over time is drawn from a distribution that is the same forwards and
# backwards, so the only arrow of time in a clip is the motion that names its class.


def _progress(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """[T] from -0.5 to 0.5: rest, ease in, move, ease out, rest."""
    start, end = rng.uniform(0.0, 0.2), 1.0 - rng.uniform(0.0, 0.2)
    softness = rng.uniform(0.2, 1.0)
    u = np.clip((times - start) / (end - start), 0.0, 1.0)
    return (1 - softness) * u + softness * u * u * (3 - 2 * u) - 0.5


def _draw_path(rng: np.random.Generator, motion: str, times: np.ndarray) -> _Path:
    progress = _progress(rng, times)
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
    return _Path(
        x=x + drift_x * progress,
        y=y + drift_y * progress,
        radius=np.exp(log_radius + growth * progress),
        angle=angle + turn * progress,
    )


def _draw_camera(rng: np.random.Generator, times: np.ndarray) -> _Camera:
    progress = _progress(rng, times)
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 1.3)
    growth, turn = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
    angle = rng.uniform(0, 2 * np.pi)
    phases, rates = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.8, 2.5, 5)
    waves = np.sin(phases[:, None] + 2 * np.pi * rates[:, None] * (times - 0.5))
    strength = rng.uniform(0.0, 0.02)
    return _Camera(
        x=np.cos(direction) * distance * progress,
        y=np.sin(direction) * distance * progress,
        zoom=np.exp(growth * progress),
        angle=angle + turn * progress,
        shake_x=strength * (waves[0] + 0.5 * waves[1]),
        shake_y=strength * (waves[2] + 0.5 * waves[3]),
        brightness=1.0 + rng.uniform(0.0, 0.05) * waves[4],
    )


# Colours


def _draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three background colours [3, 3] from dark to light, and the object's two colours [3]."""
    hue, lightness = rng.uniform(0, 2 * np.pi), rng.uniform(0.42, 0.76)
    spread = rng.uniform(0.06, 0.13)
    hues, chromas = hue + rng.uniform(-0.7, 0.7, 3), rng.uniform(0.015, 0.06, 3)
    stops = np.stack(
        [_oklch(lightness + k * spread, chromas[k + 1], hues[k + 1]) for k in (-1, 0, 1)]
    )
    # The object's hue stays away from the background's, one of its colours is light and one dark,
    # and the one that differs more from the background covers more of it.
    object_hue = hue + rng.uniform(0.4, 1.6) * np.pi
    light_l, dark_l = rng.uniform(0.84, 0.93), rng.uniform(0.36, 0.5)
    light = _oklch(light_l, rng.uniform(0.03, 0.1), object_hue + rng.uniform(-0.6, 0.6))
    dark = _oklch(dark_l, rng.uniform(0.09, 0.15), object_hue)
    if light_l - lightness > lightness - dark_l:
        return stops, light, dark
    return stops, dark, light


def _oklch(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """sRGB [3] in [0, 1] of an OKLCH colour (Ottosson, 2020): equal lightness looks equal."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.array(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# Background


def _background_texture(rng: np.random.Generator, stops: np.ndarray, size: int) -> torch.Tensor:
    """Smooth noise through a gradient of three colours: float32 [3, R, R]."""
    resolution = int(1.25 * _TEXTURE_EXTENT * size)
    style = rng.integers(4)
    frequency, phase, warp = rng.uniform(2.5, 5.0), rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.4)
    brushed = style == 3
    noise = _noise(rng, resolution, brushed)
    if style == 1:  # marble: waves along one axis, bent by the noise
        wave = np.linspace(-_TEXTURE_EXTENT, _TEXTURE_EXTENT, resolution, dtype=np.float32)
        value = 0.8 * np.sin(frequency * wave + np.float32(phase) + warp * noise) + 0.25 * noise
    elif style == 2:  # patches: the noise's contour lines as soft steps
        value = np.tanh(3.5 * np.sin(2.2 * noise + np.float32(phase))) * 0.8 + 0.3 * noise
    else:  # clouds, or brushed along one axis
        value = 1.3 * noise
    value = np.clip(value, -1.0, 1.0, dtype=np.float32)

    below, middle, above = stops.astype(np.float32)[:, :, None, None]
    rising, falling = np.maximum(value, 0), np.maximum(-value, 0)
    texture = middle + rising * (above - middle) + falling * (below - middle)
    return torch.from_numpy(texture.astype(np.float32))


def _noise(rng: np.random.Generator, resolution: int, brushed: bool) -> np.ndarray:
    """Octaves of random lattices, interpolated: float32 [R, R], mostly within [-1, 1]."""
    total = np.zeros((resolution, resolution), dtype=np.float32)
    gain = 1.0
    for cells in _NOISE_CELLS:
        lattice = rng.uniform(-1, 1, (cells, max(3, cells // 6) if brushed else cells))
        octave = torch.from_numpy(lattice.astype(np.float32))[None, None]
        octave = F.interpolate(octave, (resolution, resolution), mode="bicubic", align_corners=True)
        total += np.float32(gain) * octave[0, 0].numpy()
        gain *= 0.62
    return total


# Object


def _object_fields(rng: np.random.Generator, appearance: str) -> torch.Tensor:
    """What to know of a point on the object, in object units: float32 [5, R, R].

    Signed distance to the outline, signed distance to the pattern's edges (both negative inside),
    a fine mottling, and x and y of the rounded border's slope.
    """
    axis = np.linspace(-_FIELD_EXTENT, _FIELD_EXTENT, _FIELD_SIZE, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    outline = _outline_distance(rng, x, y)
    # A narrow border of the first colour keeps the silhouette whole where the second one happens to
    # be close to the background.
    pattern = np.maximum(_pattern_distance(rng, appearance, x, y, outline), outline + 0.07)

    lattice = torch.from_numpy(rng.uniform(-1, 1, (33, 33)).astype(np.float32))[None, None]
    mottling = F.interpolate(lattice, (_FIELD_SIZE,) * 2, mode="bicubic", align_corners=True)
    border = np.clip(1 + outline / 0.2, 0, 1) ** 2
    slope_y, slope_x = np.gradient(outline, axis[1] - axis[0])
    fields = np.stack(
        [outline, pattern, mottling[0, 0].numpy(), border * slope_x, border * slope_y]
    )
    return torch.from_numpy(fields.astype(np.float32))


def _outline_distance(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    corners, rounding = list(_OUTLINES.values())[rng.integers(len(_OUTLINES))]
    points = np.array(corners, dtype=np.float64)
    points += rng.uniform(-0.06, 0.06, points.shape)
    points *= np.exp(rng.uniform(-0.12, 0.12, 2))
    nexts = np.roll(points, -1, axis=0)
    cross = points[:, 0] * nexts[:, 1] - nexts[:, 0] * points[:, 1]
    area = cross.sum() / 2
    # Turn about the centre of the area. Rounding adds a margin: Steiner's formula gives its area.
    points -= ((points + nexts) * cross[:, None]).sum(0) / (6 * area)
    perimeter = np.hypot(*(np.roll(points, -1, axis=0) - points).T).sum()
    scale = np.sqrt(_OBJECT_AREA / (area + perimeter * rounding + np.pi * rounding**2))
    points, rounding = (points * scale).astype(np.float32), np.float32(rounding * scale)

    squared = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, dtype=np.float32)
    inside = np.zeros(squared.shape, dtype=bool)
    for (px, py), (qx, qy) in zip(points, np.roll(points, -1, axis=0), strict=True):
        ex, ey = qx - px, qy - py
        along = np.clip(((x - px) * ex + (y - py) * ey) / (ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (x - px - along * ex) ** 2 + (y - py - along * ey) ** 2)
        # Even-odd rule: count the edges that a ray to the right crosses.
        if ey != 0:
            inside ^= ((py > y) != (qy > y)) & (x < px + (y - py) * (ex / ey))
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance) - rounding


def _pattern_distance(
    rng: np.random.Generator, appearance: str, x: np.ndarray, y: np.ndarray, outline: np.ndarray
) -> np.ndarray:
    # Every appearance takes the same draws, so that what is drawn afterwards does not depend on it.
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(0.58, 0.76)
    shift_u, shift_v = rng.uniform(0, 1, 2)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = cos * x + sin * y, cos * y - sin * x
    if appearance == "striped":
        return _bands(u, period, shift_u)
    if appearance == "checked":
        across, along = _bands(u, period * 1.25, shift_u), _bands(v, period * 1.25, shift_v)
        nearest = np.minimum(np.abs(across), np.abs(along))
        return np.where((across < 0) == (along < 0), -nearest, nearest)
    if appearance == "dotted":
        # Two rectangular lattices, one in the gaps of the other, make a triangular one.
        width, height = period, period * np.sqrt(3)
        first = np.hypot(_offset(u, width, shift_u), _offset(v, height, shift_v))
        second = np.hypot(_offset(u, width, shift_u + 0.5), _offset(v, height, shift_v + 0.5))
        return np.minimum(first, second) - 0.3 * width
    if appearance == "ringed":
        return _bands(outline, 0.42, 0.2)
    return np.ones_like(outline)


def _offset(coordinate: np.ndarray, period: float, shift: float) -> np.ndarray:
    """Signed offset from the nearest point of a lattice."""
    cycles = coordinate / np.float32(period) + np.float32(shift)
    return (cycles - np.round(cycles)) * np.float32(period)


def _bands(coordinate: np.ndarray, period: float, shift: float) -> np.ndarray:
    """Signed distance to the edges of bands that are half a period wide."""
    return np.abs(_offset(coordinate, period, shift)) - np.float32(period / 4)


# Composition


@dataclass(frozen=True)
class _ObjectView:
    """The pixels as the object sees them: where they lie on it, and its fields there."""

    own_x: np.ndarray
    own_y: np.ndarray
    fields: torch.Tensor

    @property
    def outline(self) -> torch.Tensor:
        """Signed distance to the outline, [T, H, W], in object units."""
        return self.fields[:, 0]


def _object_view(scene: _Scene, size: int) -> _ObjectView:
    path = scene.path
    _, _, eye_x, eye_y = _pixels(scene.camera, size)
    cos, sin = np.cos(path.angle) / path.radius, np.sin(path.angle) / path.radius
    from_x = eye_x - _per_frame(path.x)
    from_y = eye_y - _per_frame(path.y)
    own_x = _per_frame(cos) * from_x + _per_frame(sin) * from_y
    own_y = _per_frame(cos) * from_y - _per_frame(sin) * from_x
    return _ObjectView(own_x, own_y, _sample(scene.fields, own_x, own_y, _FIELD_EXTENT))


def _pixels(camera: _Camera, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x and y of the pixels' centres, and where the shaking camera looks for them."""
    axis = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    return x, y, x + _per_frame(camera.shake_x), y + _per_frame(camera.shake_y)


def _coverage(outline: torch.Tensor, path: _Path, size: int) -> torch.Tensor:
    """How much of each pixel the object covers: 0 to 1, half where its edge is, [T, H, W]."""
    return (0.5 - outline * _per_pixel(path, size)).clamp_(0, 1)


def _per_pixel(path: _Path, size: int) -> torch.Tensor:
    """Pixels to a unit of the object, a fifth fewer than there are, which softens the edges."""
    return _tensor(_per_frame(0.4 * size * path.radius))


def _compose(scene: _Scene, size: int) -> torch.Tensor:
    path, camera, light_angle = scene.path, scene.camera, scene.light_angle
    x, y, eye_x, eye_y = _pixels(camera, size)

    cos, sin = np.cos(camera.angle) * camera.zoom, np.sin(camera.angle) * camera.zoom
    image = _sample(
        scene.texture,
        _per_frame(cos) * eye_x - _per_frame(sin) * eye_y + _per_frame(camera.x),
        _per_frame(sin) * eye_x + _per_frame(cos) * eye_y + _per_frame(camera.y),
        _TEXTURE_EXTENT,
    )

    toward_x, toward_y = np.cos(light_angle), np.sin(light_angle)
    view = _object_view(scene, size)
    own_x, own_y = view.own_x, view.own_y
    outline, pattern, mottling, slope_x, slope_y = view.fields.unbind(1)

    # The light in the object's frame: it stays where it is while the object turns.
    light_x = np.cos(path.angle) * toward_x + np.sin(path.angle) * toward_y
    light_y = np.cos(path.angle) * toward_y - np.sin(path.angle) * toward_x
    shift_x, shift_y = _per_frame(0.2 * light_x), _per_frame(0.2 * light_y)
    below = _sample(scene.fields[:1], own_x + shift_x, own_y + shift_y, _FIELD_EXTENT)[:, 0]
    shadow = (0.5 - below / 0.5).clamp_(0, 1)
    shadow = 1 - 0.45 * shadow * shadow * (3 - 2 * shadow)

    covered = _coverage(outline, path, size)
    marked = (0.5 - pattern * _per_pixel(path, size)).clamp_(0, 1)
    facing = slope_x * _tensor(_per_frame(light_x)) + slope_y * _tensor(_per_frame(light_y))
    shade = 1 + 0.3 * facing + 0.06 * mottling

    room = _tensor(
        _per_frame(camera.brightness)
        * (1 + np.float32(0.1 * toward_x) * x + np.float32(0.1 * toward_y) * y)
    )
    body, ink = (_tensor(colour).view(1, 3, 1, 1) for colour in (scene.base, scene.mark))
    thing = body + (ink - body) * marked[:, None]
    thing *= (shade * room)[:, None]
    image *= (shadow * room)[:, None]
    thing -= image
    thing *= covered[:, None]
    image += thing
    return image.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _sample(fields: torch.Tensor, x: np.ndarray, y: np.ndarray, extent: float) -> torch.Tensor:
    """Look up [C, R, R] fields, which span [-extent, extent], at [T, H, W] points: [T, C, H, W]."""
    grid = np.stack([x, y], axis=-1) * np.float32(1 / extent)
    return F.grid_sample(
        fields.expand(len(grid), -1, -1, -1),
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )


def _per_frame(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
