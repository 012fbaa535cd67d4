"""A close look at a simulated town: one building in both images with what the radar did to it, and what the ground is.

Only a simulated town can be asked this: it knows its own heights and materials.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from sarmatch.scenes import optical, sar
from sarmatch.scenes.city import FIRST_ROOF, MATERIALS, City, Ground, ground_grid
from sarmatch.scenes.scene import Scene
from sarmatch.scenes.simulate import PIXEL_SIZE, TOWNS, Town, city_of

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
    town, extent_px = _town(scene, area)
    city = city_of(town, extent_px)
    place = (city, col * PIXEL_SIZE, (extent_px - row) * PIXEL_SIZE, (size, size), PIXEL_SIZE)
    image = sar.render_strip(*place, look="east", incidence_deg=incidence_deg, seed=town.seed)
    photo = optical.render_map(*place).astype(np.float32) / 255
    return Closeup(photo, image, _effects(city, place[1], place[2], size, incidence_deg))


def _town(scene: Scene, area: str) -> tuple[Town, int]:
    """The recipe behind an area, and its side in pixels."""
    towns = {town.name: town for town in TOWNS}
    if not scene.simulated or area not in towns:
        raise ValueError(f"area {area!r} of scene {scene.name!r} is no simulated town; those are {sorted(towns)}")
    return towns[area], scene.area(area).map.bounds[2]


def _effects(city: City, x0: float, y_top: float, size: int, incidence_deg: float) -> dict[str, np.ndarray]:
    """Masks of the window, traced with a margin as wide as the longest shadow or layover that may reach into it."""
    tan = np.tan(np.deg2rad(incidence_deg))
    margin = int(np.ceil((city.max_height_m + city.relief_m) * max(tan, 1 / tan) / PIXEL_SIZE))
    ground = ground_grid(city, x0 - margin * PIXEL_SIZE, y_top, (size, size + 2 * margin), PIXEL_SIZE)
    traced = sar.trace(ground, PIXEL_SIZE, incidence_deg)
    masks = {
        "layover": traced.layover_count > 1.5,
        "shadow": traced.layover_count < 0.5,
        "double bounce": ndimage.binary_dilation(traced.double_bounce > 0),  # a line one pixel thin cannot be seen
    }
    return {name: mask[:, margin : margin + size] for name, mask in masks.items()}


def _survey(scene: Scene, area: str) -> Ground:
    town, extent_px = _town(scene, area)
    side = extent_px // COARSE
    return ground_grid(city_of(town, extent_px), 0.0, extent_px * PIXEL_SIZE, (side, side), COARSE * PIXEL_SIZE)


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


def material_share(scene: Scene, windows: pd.DataFrame) -> pd.DataFrame:
    """What the ground of each window is made of.

    Parameters
    ----------
    scene
        A simulated one.
    windows
        Patch table.

    Returns
    -------
    DataFrame with the index of `windows` and a column per material, shares of the window that sum to 1.
    """
    shares = np.empty((len(windows), len(MATERIALS)))
    for area, places in windows.groupby("area").indices.items():
        material = _survey(scene, area).material
        for i, (r, c, n) in zip(places, windows[["row", "col", "size"]].to_numpy()[places] // COARSE, strict=True):
            counts = np.bincount(material[r : r + n, c : c + n].ravel(), minlength=len(MATERIALS))
            shares[i] = counts / counts.sum()
    return pd.DataFrame(shares, index=windows.index, columns=list(MATERIALS))
