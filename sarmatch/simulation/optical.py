"""An aerial photograph of the procedural city: albedo, sun, cast shadows, leaning buildings, season, haze."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarmatch.simulation.city import (
    FIRST_ROOF,
    MATERIALS,
    City,
    Floats,
    Grid,
    Ground,
    compiled,
    for_each,
    ground_grid,
    hash2,
    unit,
    value_noise,
)

Colour = tuple[int, int, int]


class Paint(NamedTuple):
    """Colour of a material where `tone` is 0, 0.5 and 1 (sRGB-like, 0-255), and the strength of its grain."""

    dark: Colour
    middle: Colour
    bright: Colour
    grain: float


PAINTS: dict[str, Paint] = {
    "water": Paint((38, 62, 66), (46, 74, 78), (58, 88, 88), 0.03),
    "asphalt": Paint((84, 84, 88), (112, 111, 110), (232, 232, 226), 0.05),
    "concrete": Paint((142, 140, 134), (168, 164, 156), (196, 192, 182), 0.06),
    "soil": Paint((118, 92, 66), (150, 122, 90), (184, 160, 124), 0.09),
    "grass": Paint((78, 98, 54), (98, 116, 66), (132, 134, 84), 0.12),
    "crop": Paint((86, 118, 52), (132, 146, 74), (186, 170, 104), 0.07),
    "tree": Paint((58, 82, 42), (50, 74, 38), (42, 64, 36), 0.24),
    "vehicle": Paint((46, 48, 54), (128, 130, 136), (236, 236, 234), 0.02),
    "roof_tile": Paint((104, 58, 46), (160, 84, 60), (96, 92, 92), 0.06),
    "roof_gravel": Paint((116, 114, 112), (152, 150, 146), (206, 204, 198), 0.05),
    "roof_metal": Paint((92, 118, 142), (178, 182, 186), (226, 228, 228), 0.03),
}

#: What a season makes of the vegetation of summer.
SEASONS: dict[str, dict[str, Paint]] = {
    "summer": {},
    "spring": {
        "grass": Paint((82, 116, 56), (104, 138, 68), (128, 152, 84), 0.10),
        "crop": Paint((96, 132, 58), (118, 150, 66), (140, 150, 92), 0.07),
        "tree": Paint((88, 112, 56), (76, 102, 50), (66, 92, 46), 0.26),
    },
    "autumn": {
        "grass": Paint((104, 104, 62), (122, 118, 72), (142, 132, 88), 0.12),
        "crop": Paint((140, 118, 82), (158, 136, 98), (180, 158, 118), 0.08),
        "tree": Paint((124, 92, 48), (112, 80, 42), (94, 70, 42), 0.28),
    },
    "winter": {
        "grass": Paint((112, 110, 86), (126, 122, 98), (142, 136, 112), 0.10),
        "crop": Paint((126, 110, 84), (142, 126, 98), (156, 140, 112), 0.08),
        "tree": Paint((96, 88, 74), (88, 80, 68), (78, 72, 62), 0.30),
    },
}

FACADE = np.array([0.55, 0.52, 0.48], np.float32)  # what is seen of a leaning building's side, before its own tone
SHADOW_SLACK_M = 0.3  # a sun ray that passes so little above a surface still lights it
_BLOCK = 1024  # rows rendered at a time
_LINES = 64  # of which a thread takes so many
_LIMITS = {"sun_elevation_deg": (5, 90), "lean_deg": (0, 45), "haze": (0, 1)}


def cast_shadow(
    height: Floats, pixel_size: float, sun_azimuth_deg: float, sun_elevation_deg: float, relief_m: float
) -> NDArray[np.bool_]:
    """Where the sun is hidden, by max-plus doubling; the azimuth counts clockwise from the image's up.

    `relief_m` is at least the largest difference in height.

    After k steps T(p) is the highest of the sun rays that graze the first 2^k pixels towards the sun, so that a shadow
    of n pixels costs log2(n) passes over the image.
    """
    az, el = np.deg2rad([sun_azimuth_deg, sun_elevation_deg])
    drop = pixel_size * np.tan(el)
    reach = relief_m / drop
    top = height.copy()
    length = 1.0
    while length <= 2 * reach:
        dr, dc = -round(length * np.cos(az)), round(length * np.sin(az))
        if abs(dr) >= height.shape[0] or abs(dc) >= height.shape[1]:
            break
        to = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip((dr, dc), height.shape, strict=True))
        frm = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip((dr, dc), height.shape, strict=True))
        shifted = top[frm] - np.float32(length * drop)
        np.maximum(top[to], shifted, out=shifted)
        top[to] = shifted
        length *= 2
    return top > height + np.float32(SHADOW_SLACK_M)


class _Frame(NamedTuple):
    """Where the pixels of an image lie: its corner, the cosine and sine of its turn in metres per pixel, its pixel."""

    x0: float
    y0: float
    cos: float
    sin: float
    pixel: float


class _Light(NamedTuple):
    """Colours, light and air."""

    paints: Floats  # (materials, 4, 3): three colours and the grain
    sun: tuple[float, float, float]  # unit vector to the right, up and away from the image
    haze: float


class _Lean(NamedTuple):
    """How the camera displaces what is high, in pixels."""

    per_metre: float
    reach: float  # of the highest thing
    dr: float  # unit vector in rows and columns
    dc: float


@compiled
def _shade(
    ground: Ground,
    shadow: np.ndarray,
    frame: _Frame,
    light: _Light,
    seed: int,
    first: int,
    last: int,
    image: np.ndarray,
) -> None:
    """Colour the rows `first` to `last`: paint, grain and light."""
    height, paints, sun, pixel = ground.height, light.paints, light.sun, frame.pixel
    rows, cols = height.shape
    for r in range(first, last):
        up, down = max(r - 1, 0), min(r + 1, rows - 1)
        for c in range(cols):
            left, right = max(c - 1, 0), min(c + 1, cols - 1)
            zx = (height[r, right] - height[r, left]) / ((right - left) * pixel)
            zy = (height[up, c] - height[down, c]) / ((down - up) * pixel)
            zx, zy = min(max(zx, -1.5), 1.5), min(max(zy, -1.5), 1.5)
            facing = (sun[2] - zx * sun[0] - zy * sun[1]) / math.sqrt(1 + zx * zx + zy * zy)
            lit = 0.0 if shadow[r, c] else max(0.0, facing) / sun[2]
            # grain belongs to the place, so that every window shows the same
            x = frame.x0 + (c + 0.5) * frame.cos - (r + 0.5) * frame.sin
            y = frame.y0 - (c + 0.5) * frame.sin - (r + 0.5) * frame.cos
            x, y = round(x * 1024) / 1024, round(y * 1024) / 1024
            grain = unit(hash2(seed, math.floor(x / pixel), math.floor(y / pixel)), 0) - 0.5
            patchy = value_noise(seed + 1, x, y, 7.0) - 0.5
            m = ground.material[r, c]
            brightness = (1 + paints[m, 3, 0] * (grain + 1.3 * patchy)) * (0.36 + 0.64 * lit)
            t = 2 * min(max(ground.tone[r, c], 0.0), 1.0)
            k = 1 if t >= 1 else 0
            for band in range(3):
                value = paints[m, k, band] + (t - k) * (paints[m, k + 1, band] - paints[m, k, band])
                if band == 2 and lit < 0.05:
                    value *= 1.10  # the sky lights shadows
                value = 0.035 + 0.97 * value * brightness
                value += light.haze * (0.82 - value)
                image[band, r, c] = min(max(value, 0.0), 1.0)


@compiled
def _displace(
    ground: Ground, above: np.ndarray, image: np.ndarray, lean: _Lean, first: int, last: int, out: np.ndarray
) -> None:
    """Displace what stands `above` the ground, in the rows `first` to `last`.

    Each pixel marches from the farthest place that may lie over it.

    A surface `h` above its ground appears `h * per_metre` pixels along (dr, dc); the first one met that is high enough
    hides the rest. Where it is more than high enough, its side is seen and not its roof.
    """
    rows, cols = above.shape
    per_metre, dr, dc = lean.per_metre, lean.dr, lean.dc
    for r in range(first, last):
        for c in range(cols):
            t = lean.reach
            while t > 0:
                i, j = int(round(r - t * dr)), int(round(c - t * dc))
                if 0 <= i < rows and 0 <= j < cols and above[i, j] * per_metre >= t:
                    break
                t -= 0.5
            t = max(t, 0.0)
            i, j = int(round(r - t * dr)), int(round(c - t * dc))
            side = t > 0 and ground.material[i, j] >= FIRST_ROOF and above[i, j] * per_metre > t + 1.5
            for band in range(3):
                if side:
                    shine = 0.7 + 0.5 * ground.tone[i, j]
                    storey = 0.85 if (above[i, j] - t / per_metre) % 3.0 < 1.2 else 1.0  # rows of windows
                    out[band, r - first, c] = FACADE[band] * shine * storey
                else:
                    out[band, r - first, c] = image[band, i, j]


def render_map(
    city: City,
    grid: Grid,
    *,
    epoch: int = 0,
    sun_azimuth_deg: float = 150.0,
    sun_elevation_deg: float = 42.0,
    lean_deg: float = 0.0,
    lean_azimuth_deg: float = 60.0,
    season: str = "summer",
    haze: float = 0.0,
    workers: int | None = None,
) -> NDArray[np.uint8]:
    """Colour image (3, H, W) of a grid; shadows and buildings from outside of it that reach into it are included.

    Parameters
    ----------
    city, grid
        What is seen, and on which pixels.
    epoch
        When; see `City`.
    sun_azimuth_deg, sun_elevation_deg
        Clockwise from north, and above the horizon.
    lean_deg
        Off-nadir angle of the camera: what stands `h` above its ground is displaced by `h tan(lean_deg)`, as in a map
        that is rectified to the ground and not to the roofs.
    lean_azimuth_deg
        Where buildings lean to, clockwise from north.
    season
        One of `SEASONS`.
    haze
        0 for none, 1 for nothing but haze.
    workers
        Threads; all processors by default.

    Raises
    ------
    ValueError
        Where an angle, the season or the haze is out of range.
    """
    _refuse_impossible(season, sun_elevation_deg=sun_elevation_deg, lean_deg=lean_deg, haze=haze)
    azimuth, top = sun_azimuth_deg - grid.turn_deg, city.max_height_m + city.relief_m
    light = _Light(_paints(season), _to_the_sun(azimuth, sun_elevation_deg), haze)
    lean = _lean_of(lean_deg, lean_azimuth_deg - grid.turn_deg, top, grid.pixel_size)
    shade_px = top / math.tan(math.radians(sun_elevation_deg)) / grid.pixel_size
    above, below, left, right = _margins(azimuth, shade_px, lean.reach)
    out = np.empty((3, *grid.shape), np.uint8)
    for row in range(0, grid.shape[0], _BLOCK):
        height = min(_BLOCK, grid.shape[0] - row)
        part = grid.window(row - above, -left, height + above + below, grid.shape[1] + left + right)
        ground = ground_grid(city, part, epoch=epoch, workers=workers)
        shadow = cast_shadow(ground.height, grid.pixel_size, azimuth, sun_elevation_deg, top)
        image = _shaded(ground, shadow, part, light, city.seed, workers)
        if lean_deg:
            image = _leaning(ground, image, lean, above, height, workers)
        else:
            image = image[:, above : above + height]
        visible = image[:, :, left : left + grid.shape[1]]
        out[:, row : row + height] = visible * np.float32(255) + np.float32(0.5)
    return out


def _refuse_impossible(season: str, **values: float) -> None:
    if season not in SEASONS:
        raise ValueError(f"season is {season!r}, expected one of {sorted(SEASONS)}")
    for name, value in values.items():
        low, high = _LIMITS[name]
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}, expected {low} to {high}")


def _paints(season: str) -> Floats:
    """Colours (0 to 1) and grain of every material: (materials, 4, 3)."""
    paints = np.zeros((len(MATERIALS), 4, 3), np.float32)
    for i, name in enumerate(MATERIALS):
        *colours, grain = SEASONS[season].get(name, PAINTS[name])
        paints[i] = [*(np.array(colours) / 255), [grain] * 3]
    return paints


def _to_the_sun(azimuth_deg: float, elevation_deg: float) -> tuple[float, float, float]:
    az, el = np.deg2rad([azimuth_deg, elevation_deg])
    return float(np.cos(el) * np.sin(az)), float(np.cos(el) * np.cos(az)), float(np.sin(el))


def _lean_of(lean_deg: float, azimuth_deg: float, top_m: float, pixel: float) -> _Lean:
    per_metre, azimuth = math.tan(math.radians(lean_deg)) / pixel, math.radians(azimuth_deg)
    return _Lean(per_metre, top_m * per_metre, -math.cos(azimuth), math.sin(azimuth))


def _margins(azimuth_deg: float, shade_px: float, reach_px: float) -> tuple[int, int, int, int]:
    """Pixels above, below, left and right: a shadow's length towards the sun, and all around what a building leans."""
    az = np.deg2rad(azimuth_deg)
    sides = (math.cos(az), -math.cos(az), -math.sin(az), math.sin(az))
    return tuple(math.ceil(max(0.0, s) * shade_px + reach_px) + 2 for s in sides)


def _shaded(
    ground: Ground, shadow: NDArray[np.bool_], grid: Grid, light: _Light, seed: int, workers: int | None
) -> Floats:
    """What a camera straight above sees, 0 to 1: (3, H, W)."""
    turn, rows = math.radians(grid.turn_deg), grid.shape[0]
    cos, sin = grid.pixel_size * math.cos(turn), grid.pixel_size * math.sin(turn)
    frame = _Frame(grid.x0, grid.y0, cos, sin, grid.pixel_size)
    image = np.empty((3, *grid.shape), np.float32)

    def shade(row: int) -> None:
        _shade(ground, shadow, frame, light, seed, row, min(row + _LINES, rows), image)

    for_each(shade, range(0, rows, _LINES), workers)
    return image


def _leaning(ground: Ground, image: Floats, lean: _Lean, first: int, height: int, workers: int | None) -> Floats:
    """Rows `first` to `first + height` of an image, with what stands above the ground displaced."""
    above = ground.height - ground.terrain
    out = np.empty((3, height, image.shape[2]), np.float32)

    def displace(row: int) -> None:
        end = min(row + _LINES, height)
        _displace(ground, above, image, lean, first + row, first + end, out[:, row:end])

    for_each(displace, range(0, height, _LINES), workers)
    return out
