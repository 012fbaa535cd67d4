"""IEEE GRSS data fusion contest 2023, track 2: Gaofen-2 and SuperView optical against Gaofen-3 SAR, 17 cities.

Cities are areas. The name of an image holds the latitude and longitude of its place; where the TIFF carries no
georeference of its own, it is laid about that point with `PIXEL_SIZE`.
"""

import math
import re
from pathlib import Path

import pandas as pd
from rasterio import Affine

from sarmatch.datasets.images import image_size
from sarmatch.datasets.mosaic import GEOGRAPHIC, mosaic_scene
from sarmatch.datasets.rasters import BadImageError, open_raster
from sarmatch.datasets.reader import File, Reader, table_of
from sarmatch.scenes.scene import Scene

IMAGE = re.compile(r"(?P<sensor>[A-Z]{2}\d?)_(?P<city>[A-Za-z-]+)_(?P<lat>-?\d+(\.\d+)?)_(?P<lon>-?\d+(\.\d+)?)\.tiff?")
PIXEL_SIZE = 0.5  # m, of the optical images; taken where the file itself says nothing
DEGREE_M = 111_320.0  # metres of a degree of latitude
VAL_CITIES, TEST_CITIES = 2, 4  # the last in alphabetical order, where there are enough


def _images(folder: Path) -> list[tuple[re.Match, Path]]:
    found = ((IMAGE.fullmatch(p.name), p) for p in sorted(folder.glob("**/images/*/*.tif*")))
    return [(m, p) for m, p in found if m and p.parent.name in {"rgb", "sar"}]


def _files(folder: Path) -> pd.DataFrame:
    modality = {"rgb": "optical", "sar": "sar"}
    table = table_of(File(p, modality[p.parent.name], p.stem, area=m["city"]) for m, p in _images(folder))
    table["crs"], table["transform"] = GEOGRAPHIC, [_placed(path) for path in table["path"]]
    return table


def _placed(path: Path) -> Affine | None:
    """Transform by the name, about the image's centre; none where the file has its own."""
    try:
        with open_raster(path) as file:
            if file.crs is not None:
                return None
    except BadImageError:
        return None  # reported where the pixels are read
    match = IMAGE.fullmatch(path.name)
    latitude, longitude = float(match["lat"]), float(match["lon"])
    if abs(latitude) > 84 or abs(longitude) > 180:
        raise ValueError(f"{path}: latitude {latitude} and longitude {longitude} in the name are not on land")
    height, width = image_size(path)
    step = PIXEL_SIZE / DEGREE_M
    across = step / math.cos(math.radians(latitude))
    return Affine(across, 0, longitude - across * width / 2, 0, -step, latitude + step * height / 2)


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    cities = sorted(files["area"].unique())
    test = cities[-min(TEST_CITIES, len(cities) // 2) :] if len(cities) > 1 else []
    rest = [c for c in cities if c not in test]
    return mosaic_scene(
        folder,
        files,
        name="dfc2023",
        sar_scale="amplitude",
        sar_bands=("SAR",),
        test_areas=test,
        val_areas=rest[-VAL_CITIES:] if len(rest) > 4 else [],
        credit="IEEE GRSS data fusion contest 2023; its terms apply",
    )


DFC2023 = Reader(
    name="dfc2023",
    about="data fusion contest 2023, track 2: images/rgb/*.tif, images/sar/*.tif, place in the name",
    recognises=lambda folder: bool(_images(folder)),
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
