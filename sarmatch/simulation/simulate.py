"""Simulated scenes: procedural towns, rendered as optical maps and SAR strips when an image is first read.

A photograph is taken at one time and the strips are acquired at another; a preset says what happened in between and how
well the platform knew where it was. Strips are rendered along their own track and then laid onto the grid
of the map, as a processor of real data does. Images are kept on disk under a hash of what shaped them, so that they are
rendered once.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject

from sarmatch.atomic_io import write
from sarmatch.paths import cache_dir
from sarmatch.progress import progress
from sarmatch.scenes.scene import BLOCK, Area, Raster, Scene, Tile
from sarmatch.simulation import optical, sar
from sarmatch.simulation.city import City, Grid

PIXEL_SIZE = 0.5  # m, as SpaceNet 6
PATCH_SIZE = 200  # px, so that a patch is 100 m wide
SWATH_M = 1000.0  # a pass over a wider area is acquired as several strips
OVERLAP_M = 100.0  # which share this much
MAP_EPOCH, ACQUISITION_EPOCH = 0, 1
EXTENT_PX = {"quick": 4000, "full": 8000}
RENDERERS = 1  # version of what `city`, `optical` and `sar` draw: raised whenever a pixel changes, kept where none does
GAP_M = 5000.0  # towns lie this far apart in the scene's frame


class Pass(NamedTuple):
    """One pass over a town: parallel strips over a part of it, with one look direction."""

    name: str
    role: str
    across: tuple[float, float]  # from the left to the right edge as seen along the heading, 0 to 1 of the town's width
    incidence_deg: float  # in the middle of each strip
    heading_deg: float = 0.0
    look_direction: str = "right"


class Town(NamedTuple):
    """One town and the passes over it."""

    name: str
    seed: int
    style: str
    passes: tuple[Pass, ...]


class Preset(NamedTuple):
    """How hard the search is: what differs between photograph and acquisition.

    Errors are drawn once per strip from its name, uniformly up to the value given.
    """

    about: str
    towns: tuple[Town, ...]
    change: float  # fraction of lots, trees and fields that are others when the strips are acquired
    offset_m: float  # error of the navigation to the east and to the north
    heading_error_deg: float
    gain_db: float
    lean_deg: float  # what stands on the ground leans so far in the photograph
    altitude_m: float  # the lower the platform, the more the incidence changes across the swath
    looks: float
    texture_order: float | None
    season: str = "summer"


HALVES = ((0.0, 0.5), (0.5, 1.0))
LEFT, RIGHT = HALVES

#: Two towns to learn from and one never seen. Held-out passes over `north` show a known area at another incidence
#: angle, and under another look direction where the preset says so.
_EASY = (
    Town(
        "north",
        1,
        "mixed",
        (
            Pass("n1", "train", LEFT, 40.0),
            Pass("n2", "train", RIGHT, 44.0),
            Pass("n3", "val", LEFT, 48.0),
            Pass("n4", "test", RIGHT, 36.0),
        ),
    ),
    Town("south", 2, "mixed", (Pass("s1", "train", LEFT, 50.0), Pass("s2", "train", RIGHT, 38.0))),
    Town("unseen", 3, "mixed", (Pass("u1", "test", LEFT, 46.0), Pass("u2", "test", RIGHT, 42.0))),
)
_VARIED = (
    Town(
        "north",
        1,
        "mixed",
        (
            Pass("n1", "train", LEFT, 44.0, 0.0, "right"),
            Pass("n2", "train", RIGHT, 46.0, 20.0, "left"),
            Pass("n3", "train", LEFT, 50.0, 200.0, "right"),
            Pass("n4", "train", RIGHT, 42.0, 90.0, "right"),
            Pass("n5", "val", LEFT, 52.0, 290.0, "left"),
            Pass("n6", "test", RIGHT, 42.0, 165.0, "right"),
        ),
    ),
    Town(
        "south",
        2,
        "harbour",
        (
            Pass("s1", "train", LEFT, 42.0, 45.0, "right"),
            Pass("s2", "train", RIGHT, 48.0, 225.0, "right"),
            Pass("s3", "train", LEFT, 52.0, 110.0, "left"),
            Pass("s4", "train", RIGHT, 44.0, 310.0, "right"),
        ),
    ),
    Town(
        "unseen",
        3,
        "suburb",
        (Pass("u1", "test", LEFT, 47.0, 15.0, "right"), Pass("u2", "test", RIGHT, 43.0, 240.0, "left")),
    ),
)

PRESETS: dict[str, Preset] = {
    "easy": Preset(
        "nothing changed, a true map, perfect navigation, one look direction",
        _EASY,
        change=0.0,
        offset_m=0.0,
        heading_error_deg=0.0,
        gain_db=0.0,
        lean_deg=0.0,
        altitude_m=20_000.0,
        looks=4.0,
        texture_order=None,
    ),
    "standard": Preset(
        "a quarter has changed, 3 m and 2 degrees of error, buildings lean, both sides and any heading",
        _VARIED,
        change=0.25,
        offset_m=3.0,
        heading_error_deg=2.0,
        gain_db=1.5,
        lean_deg=10.0,
        altitude_m=3_000.0,
        looks=4.0,
        texture_order=4.0,
    ),
    "hard": Preset(
        "half has changed, 6 m and 5 degrees of error, strong lean, autumn, 30 to 60 degrees across a low swath",
        _VARIED,
        change=0.5,
        offset_m=6.0,
        heading_error_deg=5.0,
        gain_db=1.5,
        lean_deg=18.0,
        altitude_m=1_500.0,
        looks=2.0,
        texture_order=2.0,
        season="autumn",
    ),
}


def simulate_preset(name: str, profile: str, bands: Sequence[str] = ("HH",), towns: int = 0) -> Scene:
    """Three towns of a preset, one of which training never sees; 2 x 2 km each (`quick`) or 4 x 4 km (`full`).

    With `towns` of 1 or more they are others than its own, see `with_other_towns`.
    """
    preset, called = (with_other_towns(name, towns), f"{name}, towns {towns}") if towns else (PRESETS[name], name)
    return simulate(called, preset, EXTENT_PX[profile], bands, test_areas=("unseen",))


def true_places(preset: Preset, scene: Scene, area: str, strip: str, xy: NDArray) -> NDArray[np.float64]:
    """The ground that a strip of a preset really shows, where it claims to show `xy` `(N, 2)`; local metres.

    The strip's navigation and heading are off, and only a simulation knows by how much.
    """
    (town,) = (t for t in preset.towns if t.name == area)
    extent_px = scene.area(area).map.bounds[2]
    for over in town.passes:
        for called, acquisition in acquisitions_of(preset, over, extent_px):
            if called == strip:
                claimed, true = (affine_of(sar.strip_grid(acquisition, PIXEL_SIZE, true=t)) for t in (False, True))
                height = extent_px * PIXEL_SIZE  # the scene's frame counts from the top of the town
                origin = np.array(scene.area(area).origin) - (0.0, height)
                seen = (true @ ~claimed) @ tuple((np.asarray(xy, np.float64) - origin).T)
                return np.stack(seen, 1) + origin
    raise ValueError(f"scene {scene.name!r}: no strip of {area!r} is called {strip!r}")


def passes_table(name: str) -> pd.DataFrame:
    """The passes of a preset, and where each looks from above the ground.

    Returns
    -------
    One row per pass: `town`, `name`, `role`, `incidence_deg`, `heading_deg`, `look_direction`, and `view_deg`, the
    direction in which the radar looks, clockwise from north: shadows fall that way.
    """
    rows = []
    for town in PRESETS[name].towns:
        for p in town.passes:
            view = (p.heading_deg + (90 if p.look_direction == "right" else -90)) % 360
            rows.append({"town": town.name, **p._asdict(), "view_deg": view})
    columns = ["town", "name", "role", "incidence_deg", "heading_deg", "look_direction", "view_deg"]
    return pd.DataFrame(rows)[columns]


def with_acquisition(
    name: str,
    profile: str,
    bands: Sequence[str] = ("HH",),
    looks: float | None = None,
    incidence_shift: float = 0.0,
    opposite_look: bool = False,
) -> Scene:
    """A preset with the same towns and photographs under another acquisition: what a trained encoder has to stand.

    Parameters
    ----------
    name, profile, bands
        As for `simulate_preset`.
    looks
        Looks of the speckle, instead of the preset's.
    incidence_shift
        Degrees added to the incidence angle of every pass.
    opposite_look
        Every pass looks to the other side of its track.
    """
    preset, opposite = PRESETS[name], {"left": "right", "right": "left"}

    def changed(p: Pass) -> Pass:
        look_direction = opposite[p.look_direction] if opposite_look else p.look_direction
        return p._replace(incidence_deg=p.incidence_deg + incidence_shift, look_direction=look_direction)

    towns = tuple(t._replace(passes=tuple(map(changed, t.passes))) for t in preset.towns)
    preset = preset._replace(towns=towns, looks=preset.looks if looks is None else looks)
    return simulate(name, preset, EXTENT_PX[profile], bands, test_areas=("unseen",))


def with_other_towns(name: str, seed: int) -> Preset:
    """A preset with towns that it does not have, of the same styles under the same passes.

    Towns without end: what was learned on a preset's own ground can be tested, and more be learned, on ground that it
    has never seen; `simulate` makes the scene.

    Parameters
    ----------
    name
        A key of `PRESETS`.
    seed
        1 or more, one for each set of towns; also of what navigation gets wrong.
    """
    if seed < 1:
        raise ValueError(f"seed is {seed}, expected 1 or more: other towns than those of preset {name!r}")

    def other(town: Town) -> Town:
        # errors of navigation are drawn by the name of a strip, which therefore is another one
        passes = tuple(p._replace(name=f"{p.name}-{seed}") for p in town.passes)
        return town._replace(seed=town.seed + 1000 * seed, passes=passes)

    return PRESETS[name]._replace(towns=tuple(map(other, PRESETS[name].towns)))


def simulate(
    name: str,
    preset: Preset,
    extent_px: int,
    bands: Sequence[str] = ("HH",),
    test_areas: tuple[str, ...] = (),
) -> Scene:
    """A scene of towns; nothing is rendered before it is read.

    Parameters
    ----------
    name
        Of the scene.
    preset
        What is there.
    extent_px
        Side of each town in pixels of 0.5 m.
    bands
        Polarisations that are rendered.
    test_areas
        Names of the towns kept for the test.
    """
    unknown = sorted(set(bands) - set(sar.POLARISATIONS))
    if unknown:
        raise ValueError(f"scene {name!r}: no band is called {unknown}, expected some of {list(sar.POLARISATIONS)}")
    pitch = extent_px * PIXEL_SIZE + GAP_M
    areas = []
    for i, town in enumerate(preset.towns):
        strips = [(p, s, a) for p in town.passes for s, a in acquisitions_of(preset, p, extent_px)]
        areas.append(
            Area(
                name=town.name,
                map=Raster("map", (_map_tile(preset, town, extent_px),), ("red", "green", "blue"), "reflectance"),
                strips=tuple(
                    Raster(
                        strip,
                        (_strip_tile(preset, town, strip, acquisition, extent_px, tuple(bands)),),
                        tuple(bands),
                        "intensity",
                        {"heading_deg": p.heading_deg, "side": p.look_direction, "incidence_deg": p.incidence_deg},
                    )
                    for p, strip, acquisition in strips
                ),
                roles=tuple(p.role for p, _, _ in strips),
                origin=(i * pitch, 0.0),
            )
        )
    return Scene(name, tuple(areas), PIXEL_SIZE, PATCH_SIZE, test_areas, simulated=True, credit="simulated by sarmatch")


def city_of(preset: Preset, town: Town, extent_px: int) -> City:
    """The procedural city behind a town."""
    return City(seed=town.seed, extent_m=extent_px * PIXEL_SIZE, style=town.style, change=preset.change)


def acquisitions_of(preset: Preset, over: Pass, extent_px: int) -> list[tuple[str, sar.Acquisition]]:
    """Name and acquisition of the strips of a pass, side by side from left to right, with what each gets wrong."""
    extent = extent_px * PIXEL_SIZE
    low, high = (part * extent for part in over.across)
    count = max(1, round((high - low) / SWATH_M))
    width = (high - low) / count
    heading = np.deg2rad(over.heading_deg)
    acquisitions = []
    for i in range(count):
        name = over.name if count == 1 else f"{over.name}.{i + 1}"
        # a swath reaches over its neighbour, but not over the edge of the pass
        left = low + i * width - (OVERLAP_M / 2 if i else 0)
        right = low + (i + 1) * width + (OVERLAP_M / 2 if i < count - 1 else 0)
        across = (left + right) / 2 - extent / 2
        rng = np.random.default_rng(list(name.encode()))
        east, north, turn, gain = rng.uniform(-1, 1, 4)
        acquisition = sar.Acquisition(
            x=extent / 2 + across * np.cos(heading),
            y=extent / 2 - across * np.sin(heading),
            length_m=_length(over.heading_deg, extent),
            swath_m=right - left,
            heading_deg=over.heading_deg,
            look_direction=over.look_direction,
            incidence_deg=over.incidence_deg,
            altitude_m=preset.altitude_m,
            offset_m=(east * preset.offset_m, north * preset.offset_m),
            heading_error_deg=turn * preset.heading_error_deg,
            gain_db=gain * preset.gain_db,
        )
        acquisitions.append((name, acquisition))
    return acquisitions


def _length(heading_deg: float, extent: float) -> float:
    """Enough to cross a square town under a heading."""
    angle = np.deg2rad(heading_deg)
    return PIXEL_SIZE * round(extent * (abs(np.cos(angle)) + abs(np.sin(angle))) / PIXEL_SIZE)


# ------------------------------------------------------------------------------------- from a strip to the map's grid
def affine_of(grid: Grid) -> Affine:
    """Pixel coordinates `(column, row)` of a grid to metres, for rasterio."""
    turn = np.deg2rad(grid.turn_deg)
    cos, sin = grid.pixel_size * np.cos(turn), grid.pixel_size * np.sin(turn)
    return Affine(cos, -sin, grid.x0, -sin, -cos, grid.y0)


def map_grid(extent_px: int) -> Grid:
    """The north-up grid of a town."""
    return Grid(0.0, extent_px * PIXEL_SIZE, (extent_px, extent_px), PIXEL_SIZE)


def footprint(strip: Grid, grid: Grid) -> tuple[int, int, int, int]:
    """Rows and columns of a grid (first, last, first, last) around a strip, not beyond the grid's edge."""
    rows, cols = strip.shape
    to_grid = ~affine_of(grid) @ affine_of(strip)
    corner = np.array([to_grid @ c for c in ((0, 0), (cols, 0), (0, rows), (cols, rows))])
    (left, top), (right, bottom) = np.round(corner.min(0), 6), np.round(corner.max(0), 6)
    low = np.maximum(np.floor([top, left]), 0).astype(int)
    high = np.minimum(np.ceil([bottom, right]), grid.shape).astype(int)
    return int(low[0]), int(high[0]), int(low[1]), int(high[1])


def covered_blocks(strip: Grid, grid: Grid) -> NDArray[np.bool_] | None:
    """Which blocks of a north-up grid lie wholly inside a strip; `None` where all do (see `Tile.valid`)."""
    rows, cols = grid.shape
    col, row = np.meshgrid(
        np.minimum(np.arange(0, cols + BLOCK, BLOCK), cols), np.minimum(np.arange(0, rows + BLOCK, BLOCK), rows)
    )
    u, v = (~affine_of(strip) @ affine_of(grid)) @ (col.astype(float), row.astype(float))
    slack = 1e-6
    inside = (u > -slack) & (v > -slack) & (u < strip.shape[1] + slack) & (v < strip.shape[0] + slack)
    blocks = inside[1:, 1:] & inside[:-1, 1:] & inside[1:, :-1] & inside[:-1, :-1]
    return None if blocks.all() else blocks


def geocode(image: NDArray[np.float32], strip: Grid, grid: Grid) -> NDArray[np.float32]:
    """Lay `(B, H, W)` in strip geometry onto a north-up grid by bilinear interpolation, NaN outside of the strip."""
    out = np.full((len(image), *grid.shape), np.nan, np.float32)
    plane = CRS.from_wkt('LOCAL_CS["town",UNIT["metre",1]]')
    reproject(
        image,
        out,
        src_transform=affine_of(strip),
        dst_transform=affine_of(grid),
        src_crs=plane,
        dst_crs=plane,
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
        num_threads=2,
    )
    return out


# ------------------------------------------------------------------------------------------------ rendering and cache
def _render_map(city: City, extent_px: int, lean_deg: float, season: str) -> np.ndarray:
    return optical.render_map(city, map_grid(extent_px), epoch=MAP_EPOCH, lean_deg=lean_deg, season=season)


def _render_strip(
    city: City,
    acquisition: sar.Acquisition,
    window: Grid,
    bands: tuple[str, ...],
    seed: int,
    looks: float,
    texture_order: float | None,
) -> np.ndarray:
    options = {"bands": bands, "looks": looks, "texture_order": texture_order}
    intensity = sar.render_strip(city, acquisition, PIXEL_SIZE, seed=seed, epoch=ACQUISITION_EPOCH, **options)
    intensity = geocode(intensity, sar.strip_grid(acquisition, PIXEL_SIZE), window)
    return intensity.astype(np.float16)  # 11 bits over 12 decades: finer than the speckle, half the disk


def _map_tile(preset: Preset, town: Town, extent_px: int) -> Tile:
    render = partial(_render_map, city_of(preset, town, extent_px), extent_px, preset.lean_deg, preset.season)
    return Tile(0, 0, extent_px, extent_px, partial(_read, _job(f"{town.name} map", render)))


def _strip_tile(
    preset: Preset, town: Town, name: str, acquisition: sar.Acquisition, extent_px: int, bands: tuple[str, ...]
) -> Tile:
    grid, strip = map_grid(extent_px), sar.strip_grid(acquisition, PIXEL_SIZE)
    row0, row1, col0, col1 = footprint(strip, grid)
    window = grid.window(row0, col0, row1 - row0, col1 - col0)
    seed = int.from_bytes(hashlib.sha256(f"{town.name}/{name}".encode()).digest()[:4])
    city = city_of(preset, town, extent_px)
    render = partial(_render_strip, city, acquisition, window, bands, seed, preset.looks, preset.texture_order)
    job = _job(f"{town.name} {name}", render)
    return Tile(row0, col0, *window.shape, partial(_read, job), covered_blocks(strip, window))


class Job(NamedTuple):
    """An image to render, and the file that keeps it."""

    name: str
    path: Path
    render: partial


def _job(name: str, render: partial) -> Job:
    """A job whose file is named by everything that shapes the image: its parameters and the renderers' version."""
    key = hashlib.sha256(json.dumps([render.args, RENDERERS], default=asdict).encode()).hexdigest()[:12]
    return Job(name, cache_dir() / f"{name.replace(' ', '-')}-{key}.npy", render)


def _read(job: Job, rows: slice, cols: slice) -> np.ndarray:
    return _open(job)[:, rows, cols]


@lru_cache(maxsize=256)
def _open(job: Job) -> np.ndarray:
    """Map an image into memory, rendering it first where no earlier call has, or where what it kept is damaged."""
    if job.path.is_file():
        try:
            return np.load(job.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            said = "it holds pickled objects" if "pickle" in str(error) else str(error)
            warnings.warn(f"{job.path}: damaged, and rendered anew ({said})", stacklevel=2)
    for _ in progress([job.path], desc=f"rendering {job.name}", unit="image"):
        image = job.render()
    try:
        write(job.path, partial(_save, array=image))
    except OSError as error:
        warnings.warn(f"{job.path}: the rendered image cannot be kept ({error})", stacklevel=2)
        return image
    return np.load(job.path, mmap_mode="r", allow_pickle=False)


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:  # an open file, because numpy appends .npy to a name
        np.save(file, array)
