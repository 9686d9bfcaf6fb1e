"""Draws textured things that move over a textured background: what all rendered sets are made of.

Lengths are in frame units: the picture spans [-1, 1] in x (to the right) and y (downwards), so
the same scene can be drawn at any size, and a positive angle turns clockwise on the screen.

A thing is kept as *distance fields* (how far is the nearest edge) rather than as pixels. Sampled
with one bilinear lookup per pixel they give an edge that is one pixel soft at every size and angle,
where a scaled picture of the thing would be jagged when small and blurred when large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

# Corners of the outlines, and how much of the size goes into rounding them. None is a circle: on a
# plain or ringed disc nobody could see it turn.
OUTLINES = {
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
TEXTURES = ("clouds", "marble", "patches", "brushed")
_AREA = 2.3  # in squared units of the thing; the same for all outlines, so none looks larger
_FIELD_EXTENT = 1.9  # the fields span [-extent, extent] in units of the thing
_FIELD_SIZE = 176
# What the camera can reach: half a diagonal, zoomed, and half of the longest drift.
_TEXTURE_EXTENT = 2.25
_NOISE_CELLS = (5, 9, 17, 33, 65)


@dataclass(frozen=True)
class Path:
    """Where a thing is in each frame: arrays [T] in frame units and radians."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class Camera:
    """What the background does in each frame, apart from the things: arrays [T]."""

    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray
    angle: np.ndarray
    shake_x: np.ndarray
    shake_y: np.ndarray
    brightness: np.ndarray


@dataclass(frozen=True)
class Thing:
    """What moves: its distance fields, its two colours [3], and where it is."""

    fields: torch.Tensor
    base: np.ndarray
    mark: np.ndarray
    path: Path


@dataclass(frozen=True)
class Scene:
    """All that there is to draw; the things from the backmost to the foremost."""

    camera: Camera
    light_angle: float
    texture: torch.Tensor
    things: list[Thing]


def draw(scene: Scene, size: int) -> torch.Tensor:
    """The frames: uint8 [T, 3, size, size]."""
    camera = scene.camera
    x, y, eye_x, eye_y = _pixels(camera, size)
    cos, sin = np.cos(camera.angle) * camera.zoom, np.sin(camera.angle) * camera.zoom
    image = _sample(
        scene.texture,
        _per_frame(cos) * eye_x - _per_frame(sin) * eye_y + _per_frame(camera.x),
        _per_frame(sin) * eye_x + _per_frame(cos) * eye_y + _per_frame(camera.y),
        _TEXTURE_EXTENT,
    )
    toward_x, toward_y = np.cos(scene.light_angle), np.sin(scene.light_angle)
    room = _tensor(
        _per_frame(camera.brightness)
        * (1 + np.float32(0.1 * toward_x) * x + np.float32(0.1 * toward_y) * y)
    )
    unlit: torch.Tensor | float = room  # the background gets its light with the first shadow
    for thing in scene.things:
        view = _view(thing, eye_x, eye_y)
        image *= (_shadow(view, thing, scene.light_angle) * unlit)[:, None]
        unlit = 1.0
        surface = _surface(view, thing, scene.light_angle, room, size)
        surface -= image
        surface *= _coverage(view.outline, thing.path, size)[:, None]
        image += surface
    return image.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def draw_mask(scene: Scene, thing: Thing, size: int) -> torch.Tensor:
    """Where a thing covers at least half of a pixel, seen or not: bool [T, size, size]."""
    _, _, eye_x, eye_y = _pixels(scene.camera, size)
    return _coverage(_view(thing, eye_x, eye_y).outline, thing.path, size) >= 0.5


@dataclass(frozen=True)
class _View:
    """The pixels as a thing sees them: where they lie on it, and its fields there."""

    own_x: np.ndarray
    own_y: np.ndarray
    fields: torch.Tensor

    @property
    def outline(self) -> torch.Tensor:
        """Signed distance to the outline, [T, H, W], in the thing's units."""
        return self.fields[:, 0]


def _pixels(camera: Camera, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x and y of the pixels' centres, and where the shaking camera looks for them."""
    axis = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    return x, y, x + _per_frame(camera.shake_x), y + _per_frame(camera.shake_y)


def _view(thing: Thing, eye_x: np.ndarray, eye_y: np.ndarray) -> _View:
    path = thing.path
    cos, sin = np.cos(path.angle) / path.radius, np.sin(path.angle) / path.radius
    from_x = eye_x - _per_frame(path.x)
    from_y = eye_y - _per_frame(path.y)
    own_x = _per_frame(cos) * from_x + _per_frame(sin) * from_y
    own_y = _per_frame(cos) * from_y - _per_frame(sin) * from_x
    return _View(own_x, own_y, _sample(thing.fields, own_x, own_y, _FIELD_EXTENT))


def _coverage(outline: torch.Tensor, path: Path, size: int) -> torch.Tensor:
    """How much of each pixel a thing covers: 0 to 1, half where its edge is, [T, H, W]."""
    return (0.5 - outline * _per_pixel(path, size)).clamp_(0, 1)


def _per_pixel(path: Path, size: int) -> torch.Tensor:
    """Pixels to a unit of a thing, a fifth fewer than there are, which softens the edges."""
    return _tensor(_per_frame(0.4 * size * path.radius))


def _light(path: Path, light_angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The light in a thing's frame, [T]: it stays where it is while the thing turns."""
    toward_x, toward_y = np.cos(light_angle), np.sin(light_angle)
    light_x = np.cos(path.angle) * toward_x + np.sin(path.angle) * toward_y
    light_y = np.cos(path.angle) * toward_y - np.sin(path.angle) * toward_x
    return light_x, light_y


def _shadow(view: _View, thing: Thing, light_angle: float) -> torch.Tensor:
    """How much light a thing lets through to what is below it, [T, H, W]."""
    light_x, light_y = _light(thing.path, light_angle)
    shift_x, shift_y = _per_frame(0.2 * light_x), _per_frame(0.2 * light_y)
    below = _sample(thing.fields[:1], view.own_x + shift_x, view.own_y + shift_y, _FIELD_EXTENT)
    shadow = (0.5 - below[:, 0] / 0.5).clamp_(0, 1)
    return 1 - 0.45 * shadow * shadow * (3 - 2 * shadow)


def _surface(
    view: _View, thing: Thing, light_angle: float, room: torch.Tensor, size: int
) -> torch.Tensor:
    """The thing's colours under the light, as if it were everywhere, [T, 3, H, W]."""
    _, pattern, mottling, slope_x, slope_y = view.fields.unbind(1)
    light_x, light_y = _light(thing.path, light_angle)
    marked = (0.5 - pattern * _per_pixel(thing.path, size)).clamp_(0, 1)
    facing = slope_x * _tensor(_per_frame(light_x)) + slope_y * _tensor(_per_frame(light_y))
    shade = 1 + 0.3 * facing + 0.06 * mottling
    body, ink = (_tensor(colour).view(1, 3, 1, 1) for colour in (thing.base, thing.mark))
    surface = body + (ink - body) * marked[:, None]
    surface *= (shade * room)[:, None]
    return surface


# Movement. Whatever changes over time is drawn from a distribution that is the same forwards and
# backwards, so the only arrow of time in a clip is the motion that names its class.


def random_stream(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))))


def draw_progress(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """[T] from -0.5 to 0.5: rest, ease in, move, ease out, rest."""
    start, end = rng.uniform(0.0, 0.2), 1.0 - rng.uniform(0.0, 0.2)
    softness = rng.uniform(0.2, 1.0)
    u = np.clip((times - start) / (end - start), 0.0, 1.0)
    return (1 - softness) * u + softness * u * u * (3 - 2 * u) - 0.5


def draw_camera(rng: np.random.Generator, times: np.ndarray, *, drift: float = 1.3) -> Camera:
    """A camera that drifts at most so far, turns and zooms a little, and shakes."""
    progress = draw_progress(rng, times)
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, drift)
    growth, turn = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
    angle = rng.uniform(0, 2 * np.pi)
    phases, rates = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.8, 2.5, 5)
    waves = np.sin(phases[:, None] + 2 * np.pi * rates[:, None] * (times - 0.5))
    strength = rng.uniform(0.0, 0.02)
    return Camera(
        x=np.cos(direction) * distance * progress,
        y=np.sin(direction) * distance * progress,
        zoom=np.exp(growth * progress),
        angle=angle + turn * progress,
        shake_x=strength * (waves[0] + 0.5 * waves[1]),
        shake_y=strength * (waves[2] + 0.5 * waves[3]),
        brightness=1.0 + rng.uniform(0.0, 0.05) * waves[4],
    )


# Colours


def oklch(lightness: float, chroma: float, hue: float) -> np.ndarray:
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


def draw_texture(
    rng: np.random.Generator, stops: np.ndarray, size: int, styles: Sequence[str] = TEXTURES
) -> torch.Tensor:
    """Smooth noise through a gradient of three colours: float32 [3, R, R]."""
    resolution = int(1.25 * _TEXTURE_EXTENT * size)
    style = styles[rng.integers(len(styles))]
    frequency, phase, warp = rng.uniform(2.5, 5.0), rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.4)
    brushed = style == "brushed"
    noise = _noise(rng, resolution, brushed)
    if style == "marble":  # marble: waves along one axis, bent by the noise
        wave = np.linspace(-_TEXTURE_EXTENT, _TEXTURE_EXTENT, resolution, dtype=np.float32)
        value = 0.8 * np.sin(frequency * wave + np.float32(phase) + warp * noise) + 0.25 * noise
    elif style == "patches":  # patches: the noise's contour lines as soft steps
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


# Things


def draw_fields(
    rng: np.random.Generator, appearance: str, outlines: Sequence[str] = tuple(OUTLINES)
) -> torch.Tensor:
    """What to know of a point on a thing, in its own units: float32 [5, R, R].

    Signed distance to the outline, signed distance to the pattern's edges (both negative inside),
    a fine mottling, and x and y of the rounded border's slope.
    """
    axis = np.linspace(-_FIELD_EXTENT, _FIELD_EXTENT, _FIELD_SIZE, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    outline = _outline_distance(rng, x, y, outlines)
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


def _outline_distance(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, outlines: Sequence[str]
) -> np.ndarray:
    corners, rounding = OUTLINES[outlines[rng.integers(len(outlines))]]
    points = np.array(corners, dtype=np.float64)
    points += rng.uniform(-0.06, 0.06, points.shape)
    points *= np.exp(rng.uniform(-0.12, 0.12, 2))
    nexts = np.roll(points, -1, axis=0)
    cross = points[:, 0] * nexts[:, 1] - nexts[:, 0] * points[:, 1]
    area = cross.sum() / 2
    # Turn about the centre of the area. Rounding adds a margin: Steiner's formula gives its area.
    points -= ((points + nexts) * cross[:, None]).sum(0) / (6 * area)
    perimeter = np.hypot(*(np.roll(points, -1, axis=0) - points).T).sum()
    scale = np.sqrt(_AREA / (area + perimeter * rounding + np.pi * rounding**2))
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


# Lookup


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
