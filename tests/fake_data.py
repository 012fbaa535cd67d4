"""Tiny fake data, made on the spot: folders in every layout that is read, and a scene small enough to train on."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import zoom

from sarmatch.datasets.sentinel import REGIONS
from sarmatch.scenes import Area, Raster, Scene

TILE = 1024
STEP = 10240.2  # metres of EPSG:3395; real tiles drift by centimetres from 10,240 too
NORTH_WEST = {"A_los_angeles": (-13214463.08, 4037900.67), "B_orange_inland": (-13144549.63, 4029487.76)}


def sentinel_corners(region: str, number: int) -> list[list[float]]:
    """Corners of the `number`-th tile of a region: two columns, filled row by row."""
    west, north = NORTH_WEST[region]
    west, north = west + number % 2 * STEP, north - number // 2 * STEP
    return [[west, north], [west + STEP, north], [west + STEP, north - STEP], [west, north - STEP]]


def write_sentinel(folder: Path, layout: str = "local", tiles: int = 2) -> Path:
    """Write a Sentinel folder with the first `tiles` tiles of both regions.

    `local` is tiles.json with JPEG maps and one-channel SAR; `public` is dataset/metadata.json with PNG maps, SAR as
    RGB of equal channels, and one name listed twice, of which the last entry is right.
    """
    public = layout == "public"
    images = folder / "dataset" if public else folder
    rng, entries = np.random.default_rng(0), []
    for region, names in REGIONS.items():
        for number, name in enumerate(names[:tiles]):
            corners = sentinel_corners(region, number)
            optical = _blocks(rng, TILE, 3)
            sar = _blocks(rng, TILE, 1)[..., 0]
            save_image(images / "opt" / (f"{name}.png" if public else f"{name}.jpg"), optical)
            save_image(images / "sar" / f"{name}.png", np.stack([sar] * 3, axis=-1) if public else sar)
            if public:
                entries.append({"fragment_filename": f"{name}.png", "corners_EPSG:3395": corners})
            else:
                entries.append({"id": name, "region": region, "corners_epsg3395": corners})
    if public:
        twice = entries[1]
        wrong = [[x + 3 * STEP, y] for x, y in twice["corners_EPSG:3395"]]
        entries.insert(0, {**twice, "corners_EPSG:3395": wrong})
    (images / ("metadata.json" if public else "tiles.json")).write_text(json.dumps(entries))
    return folder


def write_pairs(folder: Path, count: int = 10, size: int = 96) -> Path:
    """Write `opt/` and `sar/` with `count` pairs of `size` x `size` px: grey and RGB files in turn."""
    rng = np.random.default_rng(1)
    for i in range(count):
        field = smooth(rng, size)
        optical, sar = _as_bytes(field), _as_bytes(field * rng.gamma(4, 1 / 4, field.shape))
        save_image(folder / "opt" / f"{i:03d}.png", optical if i % 2 else np.stack([optical] * 3, axis=-1))
        save_image(folder / "sar" / f"{i:03d}.png", np.stack([sar] * 3, axis=-1) if i % 2 else sar)
    return folder


def tiny_scene(size: int = 320, test_areas: tuple[str, ...] = ("unseen",), seed: int = 0) -> Scene:
    """Areas `one`, `two` and `unseen` of `size` px at 0.5 m, with SAR that follows the map so closely that it is easy.

    A patch is 32 px. Every area has a strip over its left and one over its right half; `one` is flown twice, and what
    was seen the second time is held out. Without test areas there is only area `one`.
    """
    rng = np.random.default_rng(seed)
    roles = {"one": ("train", "train", "val", "test"), "two": ("train", "train"), "unseen": ("test", "test")}
    areas = []
    for number, name in enumerate(roles if test_areas else ["one"]):
        field = smooth(rng, size)
        colours = np.array([1.0, 0.8, 0.6])[:, None, None] * field
        optical = np.clip(colours + 0.02 * rng.standard_normal((3, size, size)), 0, 1).astype(np.float32)
        strips = []
        for i, _ in enumerate(roles[name]):
            half = slice(0, size // 2) if i % 2 == 0 else slice(size // 2, size)
            part = field[None, :, half]
            intensity = 10 ** (2 * part - 1) * rng.gamma(8, 1 / 8, part.shape)
            strips.append(
                Raster.from_array(f"{name}{i}", intensity.astype(np.float32), "intensity", col=half.start, look="east")
            )
        areas.append(
            Area(
                name=name,
                map=Raster.from_array("map", optical, "reflectance"),
                strips=tuple(strips),
                roles=roles[name],
                origin=(1000.0 * number, -50.0),
            )
        )
    return Scene("tiny", tuple(areas), 0.5, 32, test_areas, simulated=True)


def smooth(rng: np.random.Generator, size: int, cell: int = 8) -> np.ndarray:
    """A random field of blobs about `cell` px wide, `(size, size)` from 0 to 1."""
    field = zoom(rng.random((size // cell + 2,) * 2), (size + cell) / (size // cell + 2), order=1)[:size, :size]
    return (field - field.min()) / (field.max() - field.min())


def save_image(path: Path, pixels: np.ndarray) -> None:
    """Write an array as an image, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 60} if path.suffix == ".jpg" else {"compress_level": 1}))


def _as_bytes(field: np.ndarray) -> np.ndarray:
    return np.round(np.clip(field, 0, 1) * 255).astype(np.uint8)


def _blocks(rng: np.random.Generator, size: int, channels: int, cell: int = 16) -> np.ndarray:
    small = rng.integers(20, 236, (size // cell, size // cell, channels), dtype=np.uint8)
    return small.repeat(cell, 0).repeat(cell, 1)
