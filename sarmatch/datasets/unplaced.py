"""A SAR strip whose place nobody knows, and a map to look for it on: read by window, at one pixel size."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rasterio import Affine
from rasterio.crs import CRS

from sarmatch.datasets.mosaic import (
    COARSEST,
    FINEST,
    AreaGrid,
    Layout,
    Source,
    grid_of,
    read_map,
    read_strip,
    source_of,
)
from sarmatch.datasets.rasters import BadImageError, open_raster, sidecar_of
from sarmatch.scenes import Raster, Scene
from sarmatch.scenes.scene import Area

NOWHERE = CRS.from_epsg(32631)  # any system in metres: where the strip lies in it means nothing


def with_unplaced_strip(scene: Scene, path: Path | str, pixel_size: float, **layout) -> Scene:
    """The scene with a strip more, of which only the pixel size is known.

    Parameters
    ----------
    scene
        With the map in which the strip will be searched.
    path
        Image file in any format that GDAL reads, north up; georeferencing that it may have is not looked at.
    pixel_size
        Metres on the ground per pixel of the file. It is read at the map's own.
    layout
        `sar_scale`, `sar_bands` and `zero_is_nodata` of `sarmatch.datasets.mosaic.Layout`.

    Returns
    -------
    Scene with the strip in `unplaced`, called as the file; cut windows of it with ``queries(scene, "unplaced")``.

    Raises
    ------
    ValueError
        Where the scene has no pixel size to read it at, or `pixel_size` is not above 0.
    BadImageError
        Where the file cannot be used; it is named.
    """
    if scene.pixel_size is None or not pixel_size > 0:
        raise ValueError(
            f"pixel sizes are {scene.pixel_size} m of scene {scene.name!r} and {pixel_size} m of {path}, "
            "expected both to be above 0"
        )
    strip = unplaced_strip(Path(path), pixel_size, scene.pixel_size, Layout(**layout))
    return replace(scene, unplaced=(*scene.unplaced, strip))


def unplaced_strip(path: Path, pixel_size: float, map_pixel_size: float, layout: Layout) -> Raster:
    """The strip of a file as a raster whose top left pixel is row 0, column 0."""
    low, high = map_pixel_size / COARSEST, map_pixel_size * FINEST
    if not low <= pixel_size <= high:
        raise BadImageError(
            f"{path}: pixel_size is {pixel_size:g} m where that of the map is {map_pixel_size:g} m, expected {low:g} "
            f"to {high:g}"
        )
    place = Affine.scale(pixel_size, -pixel_size)
    source = source_of(path, NOWHERE, place, own_place=False)
    grid = AreaGrid(NOWHERE, 0.0, 0.0, map_pixel_size, 1.0)
    rows = pd.DataFrame({"path": [path], "source": [source]})
    raster, problems = read_strip(str(path), path.stem, rows, grid, grid.box(source), layout)
    if raster is None:
        raise BadImageError("; ".join(problems) or f"{path}: holds no data")
    return raster


def map_scene(path: Path | str, pixel_size: float | None = None, **layout) -> Scene:
    """A scene of one map and no strip.

    Parameters
    ----------
    path
        Georeferenced optical image, in any coordinate reference system; one in degrees is read in its UTM zone.
    pixel_size
        Metres on the ground at which it is read; its own by default.
    layout
        `optical_bands` and `nodata` of `sarmatch.datasets.mosaic.Layout`.

    Raises
    ------
    BadImageError
        Where the file cannot be used or does not say where it lies; it is named.
    """
    path = Path(path)
    source = source_of(path)
    grid = _grid(source, pixel_size)
    rows = pd.DataFrame({"path": [path], "source": [source]})
    chart, problems = read_map(rows, grid, Layout(**layout))
    if chart is None:
        raise BadImageError("; ".join(problems))
    scale = grid.per_metre
    return Scene(
        name=path.stem,
        areas=(Area("map", chart, (), ()),),
        pixel_size=grid.step / scale,
        patch_size=layout.get("patch_size", 200),
        crs=grid.crs.to_string(),
        crs_transform=((scale, 0.0, grid.west), (0.0, scale, grid.north)),
    )


def nominal_pose(path: Path | str) -> tuple[float, float] | None:
    """Metres on the ground per pixel of an image, and the degrees clockwise from north at which its top points.

    As it says itself, in whichever coordinate reference system, or None where it says nothing.

    Raises
    ------
    BadImageError
        Where it says something that cannot be.
    """
    path = Path(path)
    beside = sidecar_of(path)
    with open_raster(path) as file:
        if (file.crs or beside.crs) is None or (beside.transform or file.transform).is_identity:
            return None
    source = source_of(path)
    grid = _grid(source)
    up = source.transform @ (0.0, 0.0), source.transform @ (0.0, 1.0)
    east, north = (a - b for a, b in zip(*up, strict=True))
    return grid.step / grid.per_metre, math.degrees(math.atan2(east, north)) % 360


def _grid(source: Source, pixel_size: float | None = None) -> AreaGrid:
    """The grid of one file; a BadImageError names it where it has none."""
    try:
        return grid_of([source], pixel_size)
    except BadImageError:
        raise
    except ValueError as error:
        raise BadImageError(f"{source.path}: lies where no grid in metres is ({error})") from error
