"""The Sentinel-1/2 tiles of github.com/VolkovVl/Optical-SAR-dataset as a georeferenced scene of two areas.

Two layouts are read, and both give the same areas, so that results can be repeated from the public set:

- the public one: `dataset/metadata.json` (or `metadata.json`), `opt/NNN.png`, `sar/NNN.png`;
- a selection of it: `tiles.json` with `id`, `region` and `corners_epsg3395`, `opt/NNN.jpg`, `sar/NNN.png`.

Coordinates are EPSG:3395 (World Mercator), whose metre is shorter than a metre on the ground: a pixel of 10 m there is
about 8.3 m at this latitude. Local metres of the scene are metres on the ground.
"""

import json
import math
import reprlib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from rasterio.warp import transform as warp_points

from sarmatch.datasets.images import image_size, read_part, verify_images
from sarmatch.datasets.rasters import BadImageError
from sarmatch.datasets.reader import File, Reader, table_of
from sarmatch.scenes.scene import Area, Raster, Scene, Tile

CRS = "EPSG:3395"
CREDIT = "contains modified Copernicus Sentinel data 2020, tiles by V. Volkov"
TILE = 1024
PIXEL_3395 = 10.0  # metres of EPSG:3395
HALF_EQUATOR = 20_037_508.4  # metres: no coordinate of a tile is larger
WGS84_E2 = 6.69437999014e-3
ROLES = ("train", "train", "train", "train", "val", "test")

Corners = dict[str, list[list[float]]]  # four [x, y] of EPSG:3395 by the name of the tile

#: Tables of tiles in the order they are looked for, with their names of a tile's name and of its corners.
TABLES = {
    "tiles.json": ("id", "corners_epsg3395"),
    "dataset/metadata.json": ("fragment_filename", "corners_EPSG:3395"),
    "metadata.json": ("fragment_filename", "corners_EPSG:3395"),
}

#: The connected regions of the public set whose seams and registration hold; 130 is a duplicate of 142 and left out.
REGIONS = {
    "A_los_angeles": [
        "018",
        "019",
        "020",
        "021",
        "030",
        "031",
        "034",
        "035",
        "046",
        "047",
        "048",
        "049",
        "050",
        "059",
        "060",
        "061",
        "062",
        "063",
        "073",
        "074",
        "075",
        "076",
        "087",
        "088",
        "089",
        "100",
        "101",
        "102",
    ],
    "B_orange_inland": [
        "127",
        "128",
        "129",
        "139",
        "140",
        "141",
        "142",
        "151",
        "163",
        "164",
        "165",
        "175",
        "176",
        "177",
        "187",
        "188",
        "189",
        "199",
        "201",
        "202",
        "213",
        "214",
    ],
}


def _recognises(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TABLES)


def _files(folder: Path) -> pd.DataFrame:
    """Images of the known regions; a name without an entry has no position and is not listed."""
    table, corners = _corners(folder)
    region_of = {name: region for region, names in REGIONS.items() for name in names if name in corners}
    return table_of(
        File(path, modality, path.stem, area=region_of[path.stem])
        for modality, pattern in (("optical", "opt/*"), ("sar", "sar/*.png"))
        for path in table.parent.glob(pattern)
        if path.suffix in {".png", ".jpg"} and path.stem in region_of
    )


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    """The scene of areas `A_los_angeles` (train) and `B_orange_inland` (test).

    Every SAR tile is a strip of its own: SAR tiles were warped one by one and about one seam in five is off by some
    pixels, so that queries must lie inside one tile. Optical tiles join exactly and make one map per area.
    """
    table, corners = _corners(folder)
    opt, sar = (dict(files[files.modality == m][["key", "path"]].to_numpy()) for m in ("optical", "sar"))
    regions = {region: [n for n in names if n in opt and n in sar] for region, names in REGIONS.items()}
    regions = {region: names for region, names in regions.items() if names}
    if not regions:
        raise ValueError(
            f"{folder}: no tile of the known regions has an entry, opt/NNN and sar/NNN; found {len(corners)} entries, "
            f"{len(opt)} optical and {len(sar)} SAR files of the regions"
        )
    names = [n for of_region in regions.values() for n in of_region]
    _verify([opt[n] for n in names], [sar[n] for n in names])
    scale = mercator_scale(*np.mean([c for n in names for c in corners[n]], axis=0))
    zero = _north_west([names[0]], corners)
    areas = []
    for region, of_region in regions.items():
        west, north = _north_west(of_region, corners)
        origin = ((west - zero[0]) / scale, (north - zero[1]) / scale)
        areas.append(_area(region, _places(table, of_region, corners), opt, sar, origin))
    return Scene(
        name="sentinel",
        areas=tuple(areas),
        pixel_size=PIXEL_3395 / scale,
        patch_size=128,
        test_areas=tuple(a.name for a in areas[1:]),
        crs=CRS,
        crs_transform=((scale, 0.0, zero[0]), (0.0, scale, zero[1])),
        credit=CREDIT,
    )


def _verify(optical: list[Path], sar: list[Path]) -> None:
    for path in (path for pair in zip(optical, sar, strict=True) for path in pair):
        if image_size(path) != (TILE, TILE):
            raise BadImageError(f"{path}: is {image_size(path)} px (height, width), expected {(TILE, TILE)}")
    verify_images([(path, 3) for path in optical])
    verify_images([(path, 1) for path in sar])


def _north_west(names: list[str], corners: Corners) -> tuple[float, float]:
    points = [point for n in names for point in corners[n]]
    return min(x for x, _ in points), max(y for _, y in points)


def _places(table: Path, names: list[str], corners: Corners) -> dict[str, tuple[int, int]]:
    """Row and column of the tiles of a region on its grid, in pixels."""
    west, north = _north_west(names, corners)
    name_at: dict[tuple[int, int], str] = {}
    for n in names:
        x, y = _north_west([n], corners)
        try:
            at = (_grid_step(north - y), _grid_step(x - west))
        except ValueError as error:
            raise ValueError(f"{table}: {n!r}: {error}") from error
        if at in name_at:
            raise ValueError(f"{table}: {n!r} lies where {name_at[at]!r} lies, expected a place of its own")
        name_at[at] = n
    return {n: at for at, n in name_at.items()}


def _area(
    region: str,
    places: dict[str, tuple[int, int]],
    optical: dict[str, Path],
    sar: dict[str, Path],
    origin: tuple[float, float],
) -> Area:
    def tile(name: str, path: Path, channels: int) -> Tile:
        return Tile(*places[name], TILE, TILE, partial(read_part, path, channels))

    tiles = tuple(tile(n, optical[n], 3) for n in places)
    return Area(
        name=region,
        map=Raster("Sentinel-2", tiles, ("red", "green", "blue"), "reflectance"),
        strips=tuple(Raster(n, (tile(n, sar[n], 1),), ("VH",), "amplitude") for n in places),
        roles=tuple(ROLES[i % len(ROLES)] for i in range(len(places))),
        origin=origin,
    )


def mercator_scale(x: float, y: float) -> float:
    """Metres of EPSG:3395 per metre on the ground, `sqrt(1 - e^2 sin^2 lat) / cos lat` (Snyder 1987, eq. 7-8)."""
    _, (latitude,) = warp_points(CRS, "EPSG:4326", [x], [y])
    latitude = math.radians(latitude)
    return math.sqrt(1 - WGS84_E2 * math.sin(latitude) ** 2) / math.cos(latitude)


def _grid_step(distance: float) -> int:
    """Distance in EPSG:3395 metres to pixels; tiles sit on multiples of their own size, to a few centimetres a tile."""
    steps = distance / (TILE * PIXEL_3395)
    if abs(steps - round(steps)) > 0.01:
        raise ValueError(f"a tile lies {distance:.1f} m from its region's edge, expected a multiple of 10,240 m")
    return round(steps) * TILE


def _corners(folder: Path) -> tuple[Path, Corners]:
    """The table of tiles, beside which `opt/` and `sar/` lie, and the corners of every tile by its name."""
    file = next((f for f in TABLES if (folder / f).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder}: holds none of {list(TABLES)}")
    path, (name, corners) = folder / file, TABLES[file]
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    try:
        # A name listed twice is right in its last entry, which is the one a dict keeps.
        table = {Path(entry[name]).stem: entry[corners] for entry in entries}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of objects with {name!r} and {corners!r} ({error!r})") from error
    for tile in (n for names in REGIONS.values() for n in names if n in table):
        if not _four_points(table[tile]):
            raise ValueError(
                f"{path}: {tile!r} has {corners!r} {reprlib.repr(table[tile])}, expected four [x, y] in metres of {CRS}"
            )
    return path, table


def _four_points(corners: object) -> bool:
    """Whether this is a list of four points that can lie on Earth; NaN and infinity cannot."""
    return (
        isinstance(corners, list)
        and len(corners) == 4
        and all(isinstance(point, list) and len(point) == 2 for point in corners)
        and all(type(v) in (int, float) and -HALF_EQUATOR <= v <= HALF_EQUATOR for point in corners for v in point)
    )


SENTINEL = Reader(
    name="sentinel",
    about="Sentinel-1/2 tiles of github.com/VolkovVl/Optical-SAR-dataset: metadata.json or tiles.json, opt/, sar/",
    recognises=_recognises,
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
