"""A SAR strip whose place nobody knows: read by window, on a grid of its own, at the pixel size of the map."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from rasterio import Affine
from rasterio.crs import CRS

from sarmatch.datasets.mosaic import COARSEST, FINEST, AreaGrid, Layout, read_strip, source_of
from sarmatch.datasets.rasters import BadImageError
from sarmatch.scenes import Raster, Scene

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
