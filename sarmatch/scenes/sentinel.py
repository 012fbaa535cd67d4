"""The Sentinel-1/2 tiles of github.com/VolkovVl/Optical-SAR-dataset as a georeferenced scene of two areas.

Two layouts are read, and both give the same areas, so that results can be repeated from the public set:

- the public one: `dataset/metadata.json` (or `metadata.json`), `opt/NNN.png`, `sar/NNN.png`;
- a selection of it: `tiles.json` with `id`, `region` and `corners_epsg3395`, `opt/NNN.jpg`, `sar/NNN.png`.

Coordinates are EPSG:3395 (World Mercator), whose metre is shorter than a metre on the ground: a pixel of 10 m there is
about 8.3 m at this latitude. Local metres of the scene are metres on the ground.
"""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.warp import transform as warp_points

from sarmatch.scenes.images import BadImageError, image_size, read_image, verify_images
from sarmatch.scenes.scene import Area, Raster, Scene, Tile

CRS = "EPSG:3395"
CREDIT = "contains modified Copernicus Sentinel data 2020, tiles by V. Volkov"
TILE = 1024
PIXEL_3395 = 10.0  # metres of EPSG:3395
WGS84_E2 = 6.69437999014e-3

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


def is_sentinel(folder: Path) -> bool:
    """Whether the folder has one of the two layouts."""
    return any((folder / name).is_file() for name in ("tiles.json", "metadata.json", "dataset/metadata.json"))


def read_sentinel(folder: Path) -> Scene:
    """The scene of areas `A_los_angeles` (train) and `B_orange_inland` (test).

    Every SAR tile is a strip of its own: SAR tiles were warped one by one and about one seam in five is off by some
    pixels, so that queries must lie inside one tile. Optical tiles join exactly and make one map per area.
    """
    folder, corners = _corners(folder)
    opt = {p.stem: p for p in sorted((folder / "opt").glob("*")) if p.suffix in {".png", ".jpg"}}
    sar = {p.stem: p for p in sorted((folder / "sar").glob("*.png"))}
    regions = {
        region: [name for name in names if name in corners and name in opt and name in sar]
        for region, names in REGIONS.items()
    }
    regions = {region: names for region, names in regions.items() if names}
    if not regions:
        raise ValueError(
            f"{folder}: no tile of the known regions has an entry, opt/NNN and sar/NNN; found {len(corners)} entries, "
            f"{len(opt)} optical and {len(sar)} SAR files"
        )
    for path in (files[n] for names in regions.values() for n in names for files in (opt, sar)):
        if image_size(path) != (TILE, TILE):
            raise BadImageError(f"{path}: is {image_size(path)} px (height, width), expected {(TILE, TILE)}")
    verify_images([(opt[n], 3) for names in regions.values() for n in names])
    verify_images([(sar[n], 1) for names in regions.values() for n in names])

    centre = np.mean([c for names in regions.values() for n in names for c in corners[n]], axis=0)
    scale = mercator_scale(*centre)
    first = corners[next(iter(regions.values()))[0]]
    zero = (min(x for x, _ in first), max(y for _, y in first))
    areas = []
    for region, names in regions.items():
        west = min(x for n in names for x, _ in corners[n])
        north = max(y for n in names for _, y in corners[n])
        place = {
            n: (
                _grid_step(north - max(y for _, y in corners[n])),
                _grid_step(min(x for x, _ in corners[n]) - west),
            )
            for n in names
        }
        optical = tuple(Tile(*place[n], TILE, TILE, partial(read_image, opt[n], 3)) for n in names)
        strips = tuple(
            Raster(n, (Tile(*place[n], TILE, TILE, partial(read_image, sar[n], 1)),), 1, "amplitude") for n in names
        )
        areas.append(
            Area(
                name=region,
                map=Raster("Sentinel-2", optical, 3, "reflectance"),
                strips=strips,
                roles=tuple(("train", "train", "train", "train", "val", "test")[i % 6] for i in range(len(names))),
                origin=((west - zero[0]) / scale, (north - zero[1]) / scale),
            )
        )
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


def _corners(folder: Path) -> tuple[Path, dict[str, list[list[float]]]]:
    """The folder that holds `opt/` and `sar/`, and the corners of every tile by its name."""
    if (folder / "tiles.json").is_file():
        path, name, corners = folder / "tiles.json", "id", "corners_epsg3395"
    else:
        folder = folder / "dataset" if (folder / "dataset").is_dir() else folder
        path, name, corners = folder / "metadata.json", "fragment_filename", "corners_EPSG:3395"
    try:
        # A name listed twice is right in its last entry, which is the one a dict keeps.
        return folder, {Path(entry[name]).stem: entry[corners] for entry in json.loads(path.read_text())}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of objects with {name!r} and {corners!r} ({error!r})") from error
