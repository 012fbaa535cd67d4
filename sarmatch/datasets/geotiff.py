"""Your own map and strips: GeoTIFFs, or images with a world file or a table of positions.

```
FOLDER/map.tif  or  FOLDER/map/*.tif       the optical map
FOLDER/strips/*                            SAR, a strip per file
FOLDER/strips/positions.csv                file,x,y,pixel_size[,heading_deg]: for images that do not say where they lie
FOLDER/scene.json                          options, see `Options`
```

Several areas are several such folders in one.
"""

import csv
import os
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from rasterio import Affine

from sarmatch.datasets.images import image_size
from sarmatch.datasets.mosaic import FARTHEST, mosaic_scene, source_of
from sarmatch.datasets.rasters import BadImageError, open_raster, world_file
from sarmatch.datasets.reader import File, Reader, read_options, read_text, said_of, table_of, visible
from sarmatch.scenes.scene import Scene

TIFF = frozenset({".tif", ".tiff"})
IMAGES = TIFF | {".png", ".jpg", ".jpeg"}
POSITIONS = "positions.csv"


class Options(BaseModel):
    """What `scene.json` may say."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="of the scene; the folder's by default")
    pixel_size: float | None = Field(
        None, gt=0, strict=True, description="metres on the ground; the map's own by default"
    )
    patch_size: int = Field(200, ge=8, le=100_000, strict=True, description="pixels")
    sar_scale: Literal["intensity", "amplitude", "decibel"] | None = None
    sar_bands: tuple[str, ...] | None = Field(None, min_length=1)
    nodata: dict[Literal["optical", "sar"], FiniteFloat | None] = Field(
        {}, description="value that means no data, instead of what the files say; null where every value is data"
    )
    roles: dict[str, Literal["train", "val", "test"]] = Field({}, description="by strip, for the same-area protocol")
    test_areas: tuple[str, ...] = ()
    val_areas: tuple[str, ...] = ()
    credit: str = ""


def _areas(folder: Path) -> dict[str, Path]:
    """Folders that hold a map and strips, by the name of the area."""
    if _is_area(folder):
        return {"": folder}
    return {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and visible(p, folder) and _is_area(p)}


def _is_area(folder: Path) -> bool:
    return (folder / "strips").is_dir() and bool(_maps(folder))


def _maps(folder: Path) -> list[Path]:
    places = [*folder.glob("map.*"), *(folder / "map").glob("*")]
    return sorted(p for p in places if p.suffix.lower() in TIFF and visible(p, folder))


def _files(folder: Path) -> pd.DataFrame:
    """Maps and strips, with the place of those that do not say it themselves."""
    files, places = [], {}
    for area, place in _areas(folder).items():
        maps = _maps(place)
        files += [File(p, "optical", p.stem, area=area) for p in maps]
        strips = sorted(p for p in (place / "strips").iterdir() if p.suffix.lower() in IMAGES and visible(p, place))
        names = [p.stem for p in strips]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"{place / 'strips'}: two strips are called {doubled[0]!r}, expected names that differ")
        files += [File(p, "sar", p.stem, area=area) for p in strips]
        listed = _positions(place / "strips")
        crs = None
        for path in strips:
            if path.suffix.lower() in TIFF and path not in listed and _has_crs(path):
                continue
            if path not in listed and world_file(path) is None:
                raise ValueError(
                    f"{path}: does not say where it lies, expected a GeoTIFF, a world file beside it, or a row in "
                    f"{path.parent / POSITIONS}"
                )
            crs = crs or source_of(maps[0]).crs.to_wkt()
            places[path] = (crs, listed.get(path))
    table = table_of(files)
    table["crs"] = [places.get(p, ("", None))[0] for p in table["path"]]
    table["transform"] = [places.get(p, ("", None))[1] for p in table["path"]]
    return table


def _has_crs(path: Path) -> bool:
    try:
        with open_raster(path) as file:
            return file.crs is not None
    except BadImageError:
        return True  # it is reported together with all other broken files


def _positions(folder: Path) -> dict[Path, Affine]:
    """Rows of `positions.csv` as transforms: centre, pixel size, and a heading clockwise from north."""
    path = folder / POSITIONS
    if not os.path.lexists(path):
        return {}
    found = {}
    try:
        reader = csv.DictReader(read_text(path).splitlines())
        rows, columns = list(reader), reader.fieldnames or ()
    except csv.Error as error:
        raise ValueError(f"{path}: not readable as a table ({error})") from error
    missing = {"file", "x", "y", "pixel_size"} - set(columns)
    if missing:
        raise ValueError(f"{path}: has columns {columns}, misses {sorted(missing)}")
    for line, row in enumerate(rows, start=2):
        if not row["file"]:
            raise ValueError(f"{path}, line {line}: names no file")
        image = folder / row["file"]
        if "\0" in row["file"] or not image.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}, line {line}: {row['file']!r} lies outside of the folder")
        if not image.is_file():
            raise ValueError(f"{path}, line {line}: there is no file {row['file']!r}")
        if image in found:
            raise ValueError(f"{path}, line {line}: {row['file']!r} is listed twice")
        try:
            x, y, size = (float(row[name]) for name in ("x", "y", "pixel_size"))
            heading = float(row.get("heading_deg") or 0)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {line}: expected numbers ({error})") from error
        if not (abs(x) + abs(y) + abs(heading) < FARTHEST and 1e-6 < size < FARTHEST):
            raise ValueError(f"{path}, line {line}: expected places on Earth and a pixel_size above 0, got {row}")
        height, width = image_size(image)
        found[image] = (
            Affine.translation(x, y)
            @ Affine.rotation(-heading)
            @ Affine.scale(size, -size)
            @ Affine.translation(-width / 2, -height / 2)
        )
    return found


def _options(folder: Path) -> Options:
    path = folder / "scene.json"
    if not os.path.lexists(path):
        return Options()
    try:
        return Options(**read_options(path))
    except ValidationError as error:
        raise ValueError(f"{path}: not usable as options of a scene ({said_of(error)})") from error


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    options = _options(folder).model_dump()
    name = options.pop("name") or folder.name
    return mosaic_scene(folder, files, name=name, asks_nodata=True, **options)


GEOTIFF = Reader(
    name="geotiff",
    about="your own map and strips: map.tif and strips/*.tif, or images with positions",
    recognises=lambda folder: bool(_areas(folder)),
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
