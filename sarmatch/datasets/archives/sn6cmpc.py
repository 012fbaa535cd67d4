"""SN6-CMPC (Li et al., JSTARS 16:9816, 2023): patches of 200 px cut from SpaceNet 6, with positions in JSON.

```
{train,test}/imgs/{opt,sar}/*.png
{train,test}/annotations/{opt,sar}/*.json    {"id", "file_path", "pos": {"x", "y"}, "near_id"}
```

Positions are the centres of the patches in metres. Optical patches lie on a grid and make the map; every SAR patch is a
strip of its own, so that the queries are those of the set. Which tile is right follows from the positions; where
`near_id` says otherwise, that is reported. An area is the region of a split where the splits do not overlap
(cross-area), else all of it.
"""

import json
import math
import warnings
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from sarmatch.datasets.images import image_size, read_part, verify_images
from sarmatch.datasets.reader import File, Reader, table_of
from sarmatch.scenes.scene import Area, Raster, Scene, Tile, without_overlap

PIXEL_SIZE = 0.5
SIDE = 200  # px
SPLITS = ("train", "test")
MODALITIES = {"opt": "optical", "sar": "sar"}


def _annotations(folder: Path) -> list[tuple[str, str, Path, dict]]:
    found = []
    for split in SPLITS:
        for short, modality in MODALITIES.items():
            for path in sorted((folder / split / "annotations" / short).glob("*.json")):
                found.append((split, modality, path, _read(path)))
    return found


@lru_cache(maxsize=65536)
def _read(path: Path) -> dict:
    try:
        note = json.loads(path.read_bytes())
        place = note["pos"]
        x, y = float(place["x"]), float(place["y"])
        if not math.isfinite(x + y):
            raise ValueError(f"pos is {place}")
        return {"id": str(note["id"]), "file": str(note["file_path"]), "x": x, "y": y, "near": note.get("near_id")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON with id, file_path and pos: {{x, y}} ({error!r})") from error


def _files(folder: Path) -> pd.DataFrame:
    files, notes = [], {}
    seen: dict = {}
    for split, modality, path, note in _annotations(folder):
        short = "opt" if modality == "optical" else "sar"
        image = folder / split / "imgs" / short / Path(note["file"]).name
        if ".." in Path(note["file"]).parts:
            raise ValueError(f"{path}: file_path {note['file']!r} leads outside of the folder")
        if not image.is_file():
            raise ValueError(f"{path}: there is no image {image.relative_to(folder)}")
        key = (split, modality, note["id"])
        if key in seen:
            raise ValueError(f"{path}: id {note['id']!r} is also that of {seen[key]}")
        seen[key] = path
        files.append(File(image, modality, f"{split}_{note['id']}", split=split))
        notes[image] = note
    table = table_of(files)
    for name in ("x", "y", "near"):
        table[name] = [notes[p][name] for p in table["path"]]
    return table


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    optical, sar = (files[files.modality == m] for m in ("optical", "sar"))
    if optical.empty or sar.empty:
        raise ValueError(f"{folder}: {len(optical)} optical and {len(sar)} SAR patches, expected some of each")
    for path in files["path"]:
        if image_size(path) != (SIDE, SIDE):
            raise ValueError(f"{path}: is {image_size(path)} px (height, width), expected {(SIDE, SIDE)}")
    verify_images([*((p, 3) for p in optical["path"]), *((p, 3) for p in sar["path"])])
    ground = {s: set(zip(g["x"].round(1), g["y"].round(1), strict=True)) for s, g in optical.groupby("split")}
    apart = len(ground) == 2 and not ground["train"] & ground["test"]
    corner = (files["x"].min() - SIDE * PIXEL_SIZE / 2, files["y"].max() + SIDE * PIXEL_SIZE / 2)
    areas = []
    for name in SPLITS if apart else ("all",):
        part = files if name == "all" else files[files.split == name]
        areas.append(_area(name, part, corner))
    scene = Scene(
        name="sn6cmpc",
        areas=tuple(areas),
        pixel_size=PIXEL_SIZE,
        patch_size=SIDE,
        test_areas=("test",) if apart else (),
        credit="SN6-CMPC, from SpaceNet 6 (CC BY-SA 4.0)",
    )
    _compare_labels(folder, scene, files)
    return scene


def _area(name: str, files: pd.DataFrame, corner: tuple[float, float]) -> Area:
    row = ((corner[1] - files["y"]) / PIXEL_SIZE - SIDE / 2).round().astype(int)
    col = ((files["x"] - corner[0]) / PIXEL_SIZE - SIDE / 2).round().astype(int)
    files = files.assign(row=row, col=col)
    optical = files[files.modality == "optical"].drop_duplicates(["row", "col"])
    sar = files[files.modality == "sar"]
    tiles = [Tile(f.row, f.col, SIDE, SIDE, partial(read_part, f.path, 3)) for f in optical.itertuples()]
    strips = tuple(
        Raster(f.key, (Tile(f.row, f.col, SIDE, SIDE, partial(read_part, f.path, 3)),), ("HH", "VV", "VH"), "amplitude")
        for f in sar.itertuples()
    )
    train = sar[sar.split == "train"]["key"].tolist()
    val = set(train[-max(1, len(train) // 10) :])
    roles = tuple("val" if f.key in val else f.split for f in sar.itertuples())
    bands = ("red", "green", "blue")
    return Area(name, Raster("map", without_overlap(tiles), bands, "reflectance", joined=False), strips, roles)


def _compare_labels(folder: Path, scene: Scene, files: pd.DataFrame) -> None:
    """Warn where the set's own positive overlaps the query less than another tile does."""
    place = files.set_index("key")
    wrong = 0
    labelled = files[(files.modality == "sar") & files["near"].map(lambda n: isinstance(n, list) and len(n) > 0)]
    for f in labelled.itertuples():
        tiles = place[(place.modality == "optical") & (place.split == f.split)]
        named = f"{f.split}_{f.near[0]}"
        if named not in tiles.index:
            raise ValueError(f"{f.path}: near_id names {f.near[0]!r}, but there is no such optical patch")
        distance = np.maximum(abs(tiles["x"] - f.x), abs(tiles["y"] - f.y))
        wrong += distance[named] > distance.min() + PIXEL_SIZE
    if wrong:
        warnings.warn(
            f"{folder}: near_id of {wrong} of {len(labelled)} queries is not the tile with the largest overlap",
            stacklevel=2,
        )


SN6CMPC = Reader(
    name="sn6cmpc",
    about="SN6-CMPC: {train,test}/imgs/{opt,sar}/*.png with {train,test}/annotations/{opt,sar}/*.json",
    recognises=lambda folder: any((folder / s / "annotations" / "opt").is_dir() for s in SPLITS),
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
