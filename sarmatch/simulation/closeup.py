"""A close look at a simulated town: one building in both images with what the radar did to it, and the materials.

Only a simulated town can be asked this: it knows its own heights and materials.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from sarmatch.scenes.scene import Scene
from sarmatch.simulation import optical, sar
from sarmatch.simulation.city import FIRST_ROOF, MATERIALS, City, Grid, Ground, ground_grid
from sarmatch.simulation.simulate import ACQUISITION_EPOCH, MAP_EPOCH, PIXEL_SIZE, PRESETS, city_of, map_grid

ALTITUDE_M = 20_000.0  # so high that the incidence is one angle over a window
COARSE = 4  # the town is surveyed on every fourth pixel, 2 m


class Building(NamedTuple):
    """A building that stands alone."""

    row: int  # of its middle, on the area's pixel grid
    col: int
    height_m: float  # above its ground


class Closeup(NamedTuple):
    """A window of a town in both images, and the effects of side-looking geometry in it."""

    optical: np.ndarray  # float32 (3, H, W), reflectance
    sar: np.ndarray  # float32 (1, H, W), intensity with speckle
    effects: dict[
        str, np.ndarray
    ]  # `layover`, `shadow`, `double bounce`: bool (H, W), in the geometry of the SAR image


def closeup(scene: Scene, area: str, row: int, col: int, size: int, incidence_deg: float) -> Closeup:
    """Look east at a window of a simulated town, at any incidence angle.

    Parameters
    ----------
    scene, area
        Which town.
    row, col, size
        The window on the area's pixel grid.
    incidence_deg
        Angle between the rays and the vertical.

    Raises
    ------
    ValueError
        Where the area is no simulated town.
    """
    city, extent_px = _city(scene, area)
    grid = map_grid(extent_px).window(row, col, size, size)
    acquisition = _acquisition(grid, incidence_deg)
    image = sar.render_strip(city, acquisition, PIXEL_SIZE, seed=city.seed)
    photo = optical.render_map(city, grid).astype(np.float32) / 255
    return Closeup(photo, image, _effects(city, acquisition, grid))


def material_values(
    scene: Scene,
    area: str,
    size: int = 2000,
    bands: tuple[str, ...] = ("HH", "VV", "HV"),
    count: int = 400,
    incidence_deg: float = 42.5,
) -> pd.DataFrame:
    """SAR level and photographic brightness of places of each material.

    A surface is looked up where the radar puts it, `h / tan(theta)` nearer than it is; what it cannot see is left out.

    Parameters
    ----------
    scene, area
        Which simulated town; a square of `size` px in its middle is looked at.
    bands
        Polarisations.
    count
        Places of each material at most.
    incidence_deg
        Angle between the rays and the vertical.

    Returns
    -------
    DataFrame with `material`, a column of decibels per band (mean intensity over 3 x 3 px), and `brightness`, 0 to 1.
    """
    city, extent_px = _city(scene, area)
    corner = (extent_px - size) // 2
    grid = map_grid(extent_px).window(corner, corner, size, size)
    acquisition = _acquisition(grid, incidence_deg)
    ground = ground_grid(city, grid)
    intensity = sar.render_strip(city, acquisition, PIXEL_SIZE, seed=city.seed, bands=bands)
    image = np.stack([ndimage.uniform_filter(band, 3) for band in intensity])
    shadow = sar.trace(ground, PIXEL_SIZE, sar.view_of(acquisition)).shadow
    brightness = optical.render_map(city, grid).mean(0) / 255
    shift = np.round(ground.height / np.tan(np.deg2rad(incidence_deg)) / PIXEL_SIZE).astype(int)
    at = np.arange(size) - shift
    usable = ~shadow & (at >= 0) & (at < size)
    rng, parts = np.random.default_rng(0), []
    for code, name in enumerate(MATERIALS):
        row, col = np.nonzero(usable & (ground.material == code))
        pick = rng.choice(len(row), min(count, len(row)), replace=False)
        row, col = row[pick], col[pick]
        levels = dict(zip(bands, 10 * np.log10(image[:, row, at[row, col]]), strict=True))
        parts.append(pd.DataFrame({"material": name, **levels, "brightness": brightness[row, col]}))
    return pd.concat(parts, ignore_index=True)


def changes(scene: Scene, area: str, row: int, col: int, size: int, least_m: float = 1.0) -> np.ndarray:
    """Where a simulated town is another one when its strips are acquired than it was in the photograph.

    Parameters
    ----------
    scene, area
        Which town.
    row, col, size
        The window on the area's pixel grid.
    least_m
        By how much a surface must be higher or lower; another material counts too.

    Returns
    -------
    bool (size, size), on the grid of the map: what has changed is marked where it stands. Vehicles, which are elsewhere
    at any other time, do not count.

    Raises
    ------
    ValueError
        Where the area is no simulated town.
    """
    city, extent_px = _city(scene, area)
    grid = map_grid(extent_px).window(row, col, size, size)
    before, after = (ground_grid(city, grid, epoch=epoch) for epoch in (MAP_EPOCH, ACQUISITION_EPOCH))
    other = (before.material != after.material) | (np.abs(before.height - after.height) > least_m)
    vehicle = MATERIALS.index("vehicle")
    return other & (before.material != vehicle) & (after.material != vehicle)


def _city(scene: Scene, area: str) -> tuple[City, int]:
    """The city behind an area, and its side in pixels."""
    towns = {town.name: town for town in PRESETS[scene.name].towns} if scene.name in PRESETS else {}
    if not scene.simulated or area not in towns:
        raise ValueError(f"area {area!r} of scene {scene.name!r} is no simulated town; those are {sorted(towns)}")
    extent_px = scene.area(area).map.bounds[2]
    return city_of(PRESETS[scene.name], towns[area], extent_px), extent_px


def _acquisition(grid: Grid, incidence_deg: float) -> sar.Acquisition:
    """A pass over a window that looks east and makes no error."""
    x, y = grid.xy(grid.shape[0] / 2, grid.shape[1] / 2)
    length, swath = (n * grid.pixel_size for n in grid.shape)
    return sar.Acquisition(float(x), float(y), length, swath, incidence_deg=incidence_deg, altitude_m=ALTITUDE_M)


def _effects(city: City, acquisition: sar.Acquisition, grid: Grid) -> dict[str, np.ndarray]:
    """Masks of the window, traced with a margin as wide as the longest shadow or layover that may reach into it."""
    tan = np.tan(np.deg2rad(acquisition.incidence_deg))
    margin = int(np.ceil((city.max_height_m + city.relief_m) * max(tan, 1 / tan) / PIXEL_SIZE))
    rows, cols = grid.shape
    wide = grid.window(0, -margin, rows, cols + 2 * margin)
    near = sar.view_of(acquisition).near_m - margin * PIXEL_SIZE
    traced = sar.trace(ground_grid(city, wide), PIXEL_SIZE, sar.View(near, acquisition.altitude_m))
    masks = {
        "layover": traced.layover_count > 1.5,
        "shadow": traced.layover_count < 0.5,
        "double bounce": ndimage.binary_dilation(traced.double_bounce > 0),  # a line one pixel thin cannot be seen
    }
    return {name: mask[:, margin : margin + cols] for name, mask in masks.items()}


def _survey(scene: Scene, area: str) -> Ground:
    city, extent_px = _city(scene, area)
    side = extent_px // COARSE
    return ground_grid(city, Grid(0.0, extent_px * PIXEL_SIZE, (side, side), COARSE * PIXEL_SIZE))


def roof_heights(scene: Scene, area: str) -> np.ndarray:
    """Metres of roofs above their ground, `(H / 4, W / 4)`: every fourth pixel of a simulated town's map.

    Not a number where no roof is; a ValueError where the area is no simulated town.
    """
    ground = _survey(scene, area)
    return np.where(ground.material >= FIRST_ROOF, ground.height - ground.terrain, np.nan)


def lone_building(scene: Scene, area: str, around_m: float = 100.0, least_height_m: float = 15.0) -> Building:
    """The tall building with the least other tall things around it: where a textbook figure can be had.

    Parameters
    ----------
    scene, area
        Which simulated town.
    around_m
        Side of the window that should hold nothing else.
    least_height_m
        Of the building.

    Raises
    ------
    ValueError
        Where the area is no simulated town, or has no building that high away from its edge.
    """
    ground = _survey(scene, area)
    above = ground.height - ground.terrain
    labels, count = ndimage.label(ground.material >= FIRST_ROOF)
    index = np.arange(1, count + 1)
    heights, pixels = ndimage.median(above, labels, index), np.bincount(labels.ravel(), minlength=count + 1)[1:]
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, index)).reshape(-1, 2)
    pixel = COARSE * PIXEL_SIZE
    half = int(around_m / pixel / 2)
    inside = ((middles >= half) & (middles < len(above) - half)).all(axis=1)
    fits = inside & (heights >= least_height_m) & (pixels * pixel**2 >= 200) & (pixels * pixel**2 <= 1500)
    if not fits.any():
        raise ValueError(f"area {area!r} has no building of {least_height_m:g} m or more away from its edge")

    def clutter(i: int) -> float:
        r, c = (int(m) for m in middles[i])
        window = (slice(r - half, r + half), slice(c - half, c + half))
        return float(((above[window] > 2) & (labels[window] != index[i])).mean())

    best = min(np.flatnonzero(fits), key=clutter)
    row, col = (int(m * COARSE) for m in middles[best])
    return Building(row, col, float(heights[best]))


def material_fractions(scene: Scene, windows: pd.DataFrame) -> pd.DataFrame:
    """What the surface of each window is made of.

    Parameters
    ----------
    scene
        A simulated one.
    windows
        Patch table.

    Returns
    -------
    DataFrame with the index of `windows` and a column per material, fractions of the window that sum to 1.
    """
    fractions = np.empty((len(windows), len(MATERIALS)))
    for area, places in windows.groupby("area").indices.items():
        material = _survey(scene, area).material
        for i, (r, c, n) in zip(places, windows[["row", "col", "size"]].to_numpy()[places] // COARSE, strict=True):
            counts = np.bincount(material[r : r + n, c : c + n].ravel(), minlength=len(MATERIALS))
            fractions[i] = counts / counts.sum()
    return pd.DataFrame(fractions, index=windows.index, columns=list(MATERIALS))
