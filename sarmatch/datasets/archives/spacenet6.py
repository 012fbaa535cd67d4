"""SpaceNet 6 (Rotterdam; Shermeyer et al. 2020, arXiv:2004.06500): airborne X-band SAR, WorldView-2, both at 0.5 m.

Two layouts, alone or together: the training tiles, whose names carry the two time stamps of the strip they were cut
from, and the expanded set with whole strips. The map is made of the PS-RGB tiles.
"""

import json
import re
from pathlib import Path

import pandas as pd

from sarmatch.datasets.mosaic import mosaic_scene
from sarmatch.datasets.rasters import open_raster
from sarmatch.datasets.reader import File, Reader, table_of
from sarmatch.scenes.scene import Scene

TILE = re.compile(r"SN6_\w+?_AOI_11_Rotterdam_(?P<product>PS-RGB|SAR-Intensity)_(?P<strip>\d+_\d+)_tile_\d+\.tif")
STRIP = re.compile(r"SN6_AOI_11_Rotterdam_SAR-MAG-POL_(?P<strip>\d+_\d+)\.tif")
BANDS = ("HH", "HV", "VH", "VV")
ORIENTATIONS = "SAR_orientations.txt"
LOOKS = {"0": "north", "1": "south"}


def _named(folder: Path, pattern: re.Pattern) -> list[tuple[re.Match, Path]]:
    found = ((pattern.fullmatch(p.name), p) for p in sorted(folder.rglob("SN6_*.tif")))
    return [(match, path) for match, path in found if match]


def _files(folder: Path) -> pd.DataFrame:
    """Whole strips where there are any, else the SAR tiles of each strip."""
    tiles, strips = _named(folder, TILE), _named(folder, STRIP)
    files = [File(p, "optical", p.stem) for m, p in tiles if m["product"] == "PS-RGB"]
    if strips:
        return table_of([*files, *(File(p, "sar", m["strip"]) for m, p in strips)])
    return table_of([*files, *(File(p, "sar", m["strip"]) for m, p in tiles if m["product"] == "SAR-Intensity")])


def _details(folder: Path, files: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Look direction of each strip, and its incidence angle where a file says it: it differs from strip to strip."""
    details: dict[str, dict[str, object]] = {key: {} for key in files[files.modality == "sar"]["key"]}
    for path in sorted(folder.rglob(ORIENTATIONS)):
        for line, row in enumerate(path.read_text().splitlines(), start=1):
            words = row.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in LOOKS:
                raise ValueError(f"{path}, line {line}: is {row!r}, expected a strip's two time stamps and 0 or 1")
            if words[0] in details:
                details[words[0]]["look"] = LOOKS[words[1]]
    for _, path in _named(folder, STRIP):
        angle = _incidence(path)
        if angle is not None:
            details[STRIP.fullmatch(path.name)["strip"]]["incidence_deg"] = angle
    return details


def _incidence(path: Path) -> float | None:
    """Incidence angle at the centre, from Capella's JSON in the image description."""
    try:
        with open_raster(path) as file:
            note = json.loads(file.tags().get("TIFFTAG_IMAGEDESCRIPTION", "{}"))
        return float(note["collect"]["image"]["center_pixel"]["incidence_angle"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # a broken file is reported where its pixels are read


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    strips = _named(folder, STRIP)
    return mosaic_scene(
        folder,
        files,
        name="spacenet6",
        sar_scale="amplitude" if strips else "intensity",
        sar_bands=BANDS,
        details=_details(folder, files),
        zero_is_nodata=True,  # tiles are black beyond the edge of their strip
        credit="SpaceNet 6, CC BY-SA 4.0",
    )


SPACENET6 = Reader(
    name="spacenet6",
    about="SpaceNet 6, tiles (PS-RGB/, SAR-Intensity/) or expanded strips (SAR-MAG-POL/) beside PS-RGB tiles",
    recognises=lambda folder: bool(_named(folder, TILE)),
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
