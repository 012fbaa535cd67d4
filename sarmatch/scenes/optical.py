"""An aerial photograph of the procedural city: albedo, sun, cast shadows, texture, haze."""

import numpy as np
from numpy.typing import NDArray

from sarmatch.scenes.city import (
    MATERIALS,
    City,
    Floats,
    Ground,
    for_each,
    ground_grid,
    hash_cells,
    tiles,
    unit,
    value_noise,
)

# Colour of a material where `tone` is 0, 0.5 and 1 (sRGB-like, 0-255), and the strength of its grain.
_COLOURS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int], float]] = {
    "water": ((38, 62, 66), (46, 74, 78), (58, 88, 88), 0.03),
    "asphalt": ((84, 84, 88), (112, 111, 110), (232, 232, 226), 0.05),
    "concrete": ((142, 140, 134), (168, 164, 156), (196, 192, 182), 0.06),
    "soil": ((118, 92, 66), (150, 122, 90), (184, 160, 124), 0.09),
    "grass": ((78, 98, 54), (98, 116, 66), (132, 134, 84), 0.12),
    "crop": ((86, 118, 52), (132, 146, 74), (186, 170, 104), 0.07),
    "tree": ((58, 82, 42), (50, 74, 38), (42, 64, 36), 0.24),
    "roof_tile": ((104, 58, 46), (160, 84, 60), (96, 92, 92), 0.06),
    "roof_gravel": ((116, 114, 112), (152, 150, 146), (206, 204, 198), 0.05),
    "roof_metal": ((92, 118, 142), (178, 182, 186), (226, 228, 228), 0.03),
}
_TABLE = np.array([_COLOURS[m][:3] for m in MATERIALS], np.float32) / 255
_GRAIN = np.array([_COLOURS[m][3] for m in MATERIALS], np.float32)


def cast_shadow(
    height: Floats, pixel_size: float, sun_azimuth_deg: float, sun_elevation_deg: float
) -> NDArray[np.bool_]:
    """Where the sun is hidden, by max-plus doubling.

    After k steps T(p) is the highest of the sun rays that graze the first 2^k pixels towards the sun, so that a
    shadow of n pixels costs log2(n) passes over the image.
    """
    az, el = np.deg2rad([sun_azimuth_deg, sun_elevation_deg])
    drop = pixel_size * np.tan(el)
    reach = float(height.max() - height.min()) / drop
    top = height.copy()
    step = 1.0
    while step <= 2 * reach:
        dr, dc = -round(step * np.cos(az)), round(step * np.sin(az))
        if abs(dr) >= height.shape[0] or abs(dc) >= height.shape[1]:
            break
        to = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip((dr, dc), height.shape, strict=True))
        frm = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip((dr, dc), height.shape, strict=True))
        shifted = top[frm] - np.float32(step * drop)
        np.maximum(top[to], shifted, out=shifted)
        top[to] = shifted
        step *= 2
    return top > height + np.float32(0.3)


def render_optical(
    ground: Ground,
    pixel_size: float,
    *,
    seed: int,
    x0: float = 0.0,
    y_top: float = 0.0,
    sun_azimuth_deg: float = 150.0,
    sun_elevation_deg: float = 42.0,
    workers: int | None = None,
) -> NDArray[np.uint8]:
    """Colour image (3, H, W) of a north-up ground grid whose corner lies at (x0, y_top)."""
    height = ground.height
    rows, cols = height.shape
    az, el = np.deg2rad([sun_azimuth_deg, sun_elevation_deg])
    sx, sy, sz = np.cos(el) * np.sin(az), np.cos(el) * np.cos(az), np.sin(el)
    shadow = cast_shadow(height, pixel_size, sun_azimuth_deg, sun_elevation_deg)
    x = x0 + (np.arange(cols) + 0.5) * pixel_size
    y = y_top - (np.arange(rows) + 0.5) * pixel_size
    i, j = np.floor(x / pixel_size).astype(np.int64), np.floor(y / pixel_size).astype(np.int64)
    framed = np.pad(height, 1, mode="edge")
    image = np.empty((3, rows, cols), np.uint8)

    def shade(tile: tuple[slice, slice]) -> None:
        r, c = tile
        z = framed[r.start : r.stop + 2, c.start : c.stop + 2]
        zx = (z[1:-1, 2:] - z[1:-1, :-2]) / np.float32(2 * pixel_size)
        zy = (z[:-2, 1:-1] - z[2:, 1:-1]) / np.float32(2 * pixel_size)
        zx, zy = np.clip(zx, -1.5, 1.5), np.clip(zy, -1.5, 1.5)
        facing = (np.float32(sz) - zx * np.float32(sx) - zy * np.float32(sy)) / np.sqrt(1 + zx * zx + zy * zy)
        sun = np.maximum(0, facing) / np.float32(sz) * ~shadow[tile]
        m = ground.material[tile]
        t = np.clip(ground.tone[tile], 0, 1) * 2
        k = np.minimum(t, 1).astype(np.int8)
        f = t - k
        grain = unit(hash_cells(seed, i[c][None, :], j[r][:, None])) - np.float32(0.5)
        patchy = value_noise(seed + 1, x[c][None, :], y[r][:, None], 7.0) - np.float32(0.5)
        texture = 1 + _GRAIN[m] * (grain + 1.3 * patchy)
        light = texture * (np.float32(0.36) + np.float32(0.64) * sun)
        blue = 1 + np.float32(0.10) * (sun < 0.05)
        at = m.astype(np.intp) * 3 + k
        for band in range(3):
            lo = _TABLE[..., band].ravel()
            colour = lo[at] + f * (lo[at + 1] - lo[at])
            value = colour * light * (blue if band == 2 else 1)
            value = np.float32(0.035) + np.float32(0.97) * value
            image[band][tile] = (np.clip(value, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)

    for_each(shade, tiles(height.shape), workers)
    return image


def render_map(
    city: City,
    x0: float,
    y_top: float,
    shape: tuple[int, int],
    pixel_size: float,
    *,
    sun_azimuth_deg: float = 150.0,
    sun_elevation_deg: float = 42.0,
    workers: int | None = None,
) -> NDArray[np.uint8]:
    """North-up colour image (3, H, W) of a window of the city, shadows from outside of it included."""
    reach = (city.max_height_m + city.relief_m) / np.tan(np.deg2rad(sun_elevation_deg)) / pixel_size
    az = np.deg2rad(sun_azimuth_deg)
    east, north = np.sin(az) * reach, np.cos(az) * reach
    top, bottom, left, right = (int(np.ceil(max(0, m))) + 2 for m in (north, -north, -east, east))
    wide = (shape[0] + top + bottom, shape[1] + left + right)
    x, y = x0 - left * pixel_size, y_top + top * pixel_size
    whole = render_optical(
        ground_grid(city, x, y, wide, pixel_size, workers=workers),
        pixel_size,
        seed=city.seed,
        x0=x,
        y_top=y,
        sun_azimuth_deg=sun_azimuth_deg,
        sun_elevation_deg=sun_elevation_deg,
        workers=workers,
    )
    return np.ascontiguousarray(whole[:, top : top + shape[0], left : left + shape[1]])
