"""Simulated scenes: procedural towns, rendered as optical maps and SAR strips when an image is first read.

Images are kept on disk under a hash of what shaped them, so that they are rendered once.
"""

import hashlib
import inspect
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from sarmatch.files import write
from sarmatch.home import cache_dir
from sarmatch.scenes import city as city_module
from sarmatch.scenes import optical, sar
from sarmatch.scenes.city import City
from sarmatch.scenes.scene import Area, Raster, Scene, Tile

PIXEL_SIZE = 0.5  # m, as SpaceNet 6
PATCH_SIZE = 200  # px, so that a patch is 100 m wide


class Strip(NamedTuple):
    """One flight over part of a town: a band of columns seen from one side at one incidence angle."""

    name: str
    role: str
    columns: tuple[float, float]  # share of the town's width
    look: str
    incidence_deg: float


class Town(NamedTuple):
    """One town and the flights over it."""

    name: str
    seed: int
    strips: tuple[Strip, ...]


#: Two towns to learn from and one never seen. Held-out strips of `north` show seen ground at another incidence angle.
TOWNS = (
    Town(
        "north",
        1,
        (
            Strip("n1", "train", (0.0, 0.5), "east", 40.0),
            Strip("n2", "train", (0.5, 1.0), "east", 44.0),
            Strip("n3", "val", (0.0, 0.5), "east", 48.0),
            Strip("n4", "test", (0.5, 1.0), "east", 36.0),
        ),
    ),
    Town(
        "south",
        2,
        (Strip("s1", "train", (0.0, 0.5), "east", 50.0), Strip("s2", "train", (0.5, 1.0), "east", 38.0)),
    ),
    Town(
        "unseen",
        3,
        (Strip("u1", "test", (0.0, 0.5), "east", 46.0), Strip("u2", "test", (0.5, 1.0), "east", 42.0)),
    ),
)
EXTENT_PX = {"quick": 4000, "full": 8000}
GAP_M = 5000.0  # towns lie this far apart in the scene's frame


def simulate_towns(profile: str) -> Scene:
    """Three towns: two to learn from, one that training never sees; 2 x 2 km each (`quick`) or 4 x 4 km (`full`)."""
    return simulate("towns", TOWNS, EXTENT_PX[profile], test_areas=("unseen",))


def simulate(name: str, towns: tuple[Town, ...], extent_px: int, test_areas: tuple[str, ...] = ()) -> Scene:
    """A scene of towns; nothing is rendered before it is read.

    Parameters
    ----------
    name
        Of the scene.
    towns
        What is there.
    extent_px
        Side of each town in pixels of 0.5 m.
    test_areas
        Names of the towns kept for the test.
    """
    pitch = extent_px * PIXEL_SIZE + GAP_M
    areas = tuple(
        Area(
            name=town.name,
            map=Raster("map", (_tile(town, None, extent_px),), 3, "reflectance"),
            strips=tuple(
                Raster(
                    s.name,
                    (_tile(town, s, extent_px),),
                    1,
                    "intensity",
                    {"look": s.look, "incidence_deg": s.incidence_deg},
                )
                for s in town.strips
            ),
            roles=tuple(s.role for s in town.strips),
            origin=(i * pitch, 0.0),
        )
        for i, town in enumerate(towns)
    )
    return Scene(name, areas, PIXEL_SIZE, PATCH_SIZE, test_areas, simulated=True, credit="simulated by sarmatch")


def city_of(town: Town, extent_px: int) -> City:
    """The procedural city behind a town."""
    return City(seed=town.seed, extent_m=extent_px * PIXEL_SIZE)


def _window(strip: Strip | None, extent_px: int) -> tuple[int, int]:
    low, high = strip.columns if strip else (0.0, 1.0)
    return round(low * extent_px), round(high * extent_px)


def _render(town: Town, strip: Strip | None, extent_px: int) -> np.ndarray:
    city, (col0, col1) = city_of(town, extent_px), _window(strip, extent_px)
    place = (city, col0 * PIXEL_SIZE, extent_px * PIXEL_SIZE, (extent_px, col1 - col0), PIXEL_SIZE)
    if strip is None:
        return optical.render_map(*place)
    seed = int.from_bytes(hashlib.sha256(f"{town.name}/{strip.name}".encode()).digest()[:4])
    intensity = sar.render_strip(*place, look=strip.look, incidence_deg=strip.incidence_deg, seed=seed)
    return intensity.astype(np.float16)  # 11 bits over 12 decades: finer than the speckle, half the disk


def _path(town: Town, strip: Strip | None, extent_px: int) -> Path:
    """File of an image, named by everything that shapes it: its parameters and the renderers' own source."""
    sources = [inspect.getsource(module) for module in (city_module, optical, sar)]
    what = json.dumps([town.seed, town.name, strip, extent_px, sources])
    key = hashlib.sha256(what.encode()).hexdigest()[:12]
    return cache_dir() / f"{town.name}-{strip.name if strip else 'map'}-{key}.npy"


def _tile(town: Town, strip: Strip | None, extent_px: int) -> Tile:
    col0, col1 = _window(strip, extent_px)
    return Tile(0, col0, extent_px, col1 - col0, partial(_load, town, strip, extent_px))


@lru_cache(maxsize=64)
def _load(town: Town, strip: Strip | None, extent_px: int) -> np.ndarray:
    """Map an image into memory, rendering it first where no earlier call has."""
    path = _path(town, strip, extent_px)
    if not path.is_file():
        for _ in tqdm(
            [path], desc=f"rendering {town.name} {strip.name if strip else 'map'}", unit="image", disable=None
        ):
            write(path, partial(_save, array=_render(town, strip, extent_px)))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:  # an open file, because numpy appends .npy to a name
        np.save(file, array)
