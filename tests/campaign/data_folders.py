"""Bad data folders and damaged caches: a sound folder, one thing wrong with it, and whether loading says so."""

import errno
import json
import os
import pickle
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import rasterio
from PIL import Image
from rasterio import Affine

from sarmatch.datasets import load_scene, mosaic
from sarmatch.experiments.sweeps import run_sweep
from sarmatch.patches import check_data, require_splits
from sarmatch.scenes import Scene
from sarmatch.simulation import simulate
from tests import fake_data
from tests import fake_mosaics as fake
from tests.campaign.case import Case, Outcome, judge_call, judge_command

SIZE, PATCH = 256, 20  # px of the map, and of a patch
PLACE = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
Break = Callable[[Path], object]  # changes a folder
Right = Callable[[Scene], bool]
VRT = (
    '<VRTDataset rasterXSize="{n}" rasterYSize="{n}"><SRS>EPSG:32632</SRS><GeoTransform>{place}</GeoTransform>{bands}'
    "</VRTDataset>"
)


# What is tried
def cases() -> list[Case]:
    """All of them; at least 150."""
    own = [*_images(), *_kinds(), *_sidecars(), *_options(), *_positions(), *_places(), *_names()]
    pairs = [*_pairs(), *_patterns()]
    return [
        *(Case("data folder", f"own: {name}", partial(_try_own, *rest)) for name, *rest in own),
        *(Case("data folder", f"pairs: {name}", partial(_try_pairs, *rest)) for name, *rest in pairs),
        *(Case("data folder", f"tiles: {name}", partial(_try_tiles, *rest)) for name, *rest in _tables()),
        *(Case("data folder", f"name: {name}", run) for name, run in _doors()),
        *(Case("cache", name, run) for name, run in _caches()),
    ]


Tried = tuple[str, Break, Sequence[str], Right | None]  # name, what is broken, words of the error, or what is right


def _own(folder: Path, options: object = None) -> Path:
    fake.write_own(folder, size=SIZE)
    (folder / "scene.json").write_text(json.dumps({"patch_size": PATCH, **(options or {})}))
    return folder


def _try_own(break_it: Break, said: Sequence[str], right: Right | None, place: Path) -> Outcome:
    folder = _own(place / "own")
    break_it(folder)
    return _judged(folder, said, right)


def _try_pairs(break_it: Break, said: Sequence[str], right: Right | None, place: Path) -> Outcome:
    folder = fake_data.write_pairs(place / "mine")
    break_it(folder)
    return _judged(folder, said, right)


def _try_tiles(break_it: Break, said: Sequence[str], right: Right | None, place: Path) -> Outcome:
    folder = fake_data.write_sentinel(place / "tiles", tiles=1)
    break_it(folder)
    return _judged(folder, said, right)


def _judged(folder: Path, said: Sequence[str], right: Right | None) -> Outcome:
    """Load, split and check: they agree, the check writes nothing, and all of them name what is wrong."""
    with _own_cache(folder.parent / "cache") as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = _listing(folder), _listing(cache)
        try:
            report = check_data(folder)
            page = " ".join(str(report).split())
        except Exception:
            return "traceback"
        if (_listing(folder), _listing(cache)) != before:
            return "silent"
        ready: list[Scene] = []
        outcome = judge_call(
            lambda: ready.append(_ready(folder)), *said, right=lambda _: right is None or right(*ready)
        )
    if report.usable != bool(ready) or (ready and right is None):
        return "silent"
    return outcome if ready or all(word in page for word in said) else "unclear"


def _ready(folder: Path) -> Scene:
    scene = load_scene(folder)
    require_splits(scene)
    return scene


@contextmanager
def _own_cache(folder: Path) -> Iterator[Path]:
    with mock.patch.dict(os.environ, {"SARMATCH_CACHE": str(folder)}):
        yield folder


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((os.fspath(p), p.lstat().st_mtime_ns) for p in folder.rglob("*") if not p.is_dir())


def same_ground(scene: Scene) -> bool:
    """Whether map and strips show the fake ground where they say they do."""
    area = scene.areas[0]
    seen = 0
    for raster in (area.map, *area.strips):
        top, left, bottom, right = raster.bounds
        spots = np.array([(r, c) for r in range(top, bottom - 24, 24) for c in range(left, right - 24, 24)])
        spots = spots[raster.covers(spots[:, 0], spots[:, 1], 24)]
        shown, true = [], []
        for row, col in spots:
            r, c = np.meshgrid(row + np.arange(24) + 0.5, col + np.arange(24) + 0.5, indexing="ij")
            true.append(fake.field(*scene.to_crs(scene.metres(area.name, r.ravel(), c.ravel())).T))
            pixels = raster.read(row, col, 24, 24)[0].ravel()
            shown.append(pixels if raster is area.map else np.log10(np.maximum(pixels, 1e-6)))
        if not shown or np.corrcoef(np.concatenate(shown), np.concatenate(true))[0, 1] < 0.9:
            return False
        seen += len(shown)
    return seen > 20


def anything(scene: Scene) -> bool:
    """Where the folder is as sound as before, or what was added is to be passed over."""
    return bool(scene.areas)


# Files that are no sound images
def _cut(share: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def _flip(at: int, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def _replace(make: Break, path: Path) -> None:
    path.unlink()
    make(path)


def _put(content: bytes) -> Break:
    return lambda path: path.write_bytes(content)


def _vrt(source: str, bands: int = 1, padding: int = 0, n: int = SIZE) -> bytes:
    """A virtual raster that shows another file."""
    band = f"<SimpleSource><SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    numbered = "".join(f'<VRTRasterBand dataType="Byte" band="{i + 1}">{band}</VRTRasterBand>' for i in range(bands))
    text = VRT.format(n=n, place=", ".join(map(str, PLACE.to_gdal())), bands=numbered)
    return (text + f"<!--{'x' * padding}-->").encode()


def _bigger(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = struct.unpack("<I", content[4:8])[0]
    for i in range(struct.unpack("<H", content[at : at + 2])[0]):
        entry = at + 2 + 12 * i
        if struct.unpack("<H", content[entry : entry + 2])[0] in (256, 257):
            content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 2**31 - 1)[:10]
    path.write_bytes(content)


NO_IMAGE: dict[str, Break] = {
    "empty": _put(b""),
    "text": _put(b"no picture"),
    "zeros": _put(bytes(5000)),
    "HTML of a failed download": _put(b"<!DOCTYPE html><html>404</html>"),
    "GIF": _put(b"GIF89a" + bytes(200)),
    "PDF": _put(b"%PDF-1.7\n" + bytes(200)),
    "EPS": _put(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "HDF5": _put(b"\x89HDF\r\n\x1a\n" + bytes(200)),
    "netCDF": _put(b"CDF\x01" + bytes(200)),
    "zip": _put(b"PK\x03\x04" + bytes(200)),
    "JPEG 2000": _put(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200)),
    "WMS description": _put(b"<GDAL_WMS><Service><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>"),
    "VRT of a file elsewhere": _put(_vrt("/etc/hostname", padding=5000)),
    "VRT of the network": _put(_vrt("/vsicurl/http://127.0.0.1:9/x.tif", padding=5000)),
    "folder": lambda p: p.mkdir(),
    "pipe": lambda p: os.mkfifo(p),
    "dead link": lambda p: p.symlink_to(p.with_name("nowhere.tif")),
    "link to itself": lambda p: p.symlink_to(p.name),
    "PNG without content": _put(b"\x89PNG\r\n\x1a\n"),
    "TIFF without content": _put(b"II*\0\x08\0\0\0\0\0"),
    "TIFF that points behind its end": _put(b"II*\0\xff\xff\xff\x7f"),
}


def _images() -> Iterator[Tried]:
    for name in ("map.tif", "strips/s1.tif"):
        for what, make in NO_IMAGE.items():
            said = ["s1"] if name != "map.tif" else [] if "link" in what else ["map.tif"]
            yield f"{name} is {what}", lambda f, n=name, m=make: _replace(m, f / n), said, None
        for share in (0.02, 0.3, 0.6, 0.95):
            yield f"{name} cut to {share:.0%}", lambda f, n=name, s=share: _cut(s, f / n), [name], None
        yield f"{name} claims too much", lambda f, n=name: _bigger(f / n), [name], None
        for at in (0, 3, 4):
            yield f"{name} with byte {at} flipped", lambda f, n=name, a=at: _flip(a, f / n), [name], None


# Sound images that are not what they seem
def _strip(pixels: np.ndarray, **options: object) -> Break:
    return lambda folder: fake.write_tiff(folder / "strips/s1.tif", pixels, PLACE, **options)


def _map(pixels: np.ndarray, **options: object) -> Break:
    return lambda folder: fake.write_tiff(folder / "map.tif", pixels, PLACE, **options)


def _raw(name: str, pixels: np.ndarray, dtype: str | None = None, **options: object) -> Break:
    """A TIFF with options that GDAL knows."""

    def write(folder: Path) -> None:
        count, height, width = pixels.shape
        shape = {"count": count, "height": height, "width": width, "dtype": dtype or pixels.dtype}
        with rasterio.open(
            folder / name, "w", driver="GTiff", crs=fake.UTM, transform=PLACE, **shape, **options
        ) as file:
            file.write(pixels)

    return write


def _with(*changes: Break) -> Break:
    def change(folder: Path) -> None:
        for c in changes:
            c(folder)

    return change


def _says(**options: object) -> Break:
    return lambda folder: (folder / "scene.json").write_text(json.dumps({"patch_size": PATCH, **options}))


def _palette(folder: Path, name: str, pixels: np.ndarray, colours: dict[int, tuple]) -> None:
    with rasterio.open(
        folder / name, "w", driver="GTiff", crs=fake.UTM, transform=PLACE, count=1, height=SIZE, width=SIZE,
        dtype="uint8", photometric="palette",
    ) as file:  # fmt: skip
        file.write(pixels)
        file.write_colormap(1, colours)


def _kinds() -> Iterator[Tried]:
    full = (SIZE, SIZE)
    level = fake.on_grid(PLACE, full)
    amplitude = np.sqrt(fake.sar(PLACE, full))
    phase = np.exp(2j * np.pi * np.random.default_rng(0).random(amplitude.shape))
    grey = np.round(level * 255).astype(np.uint8)[None]
    rgb = fake.optical(PLACE, full)
    yield "complex64 strip", _strip((amplitude * phase).astype(np.complex64)), ["s1"], same_ground
    yield "complex128 strip", _strip((amplitude * phase).astype(np.complex128)), ["s1"], same_ground
    cint = (amplitude * phase * 3000).astype(np.complex64)
    yield "CInt16 strip", _raw("strips/s1.tif", cint, "complex_int16"), ["s1"], same_ground
    slc = _strip((amplitude * phase).astype(np.complex64))
    yield "complex strip said to be decibels", _with(slc, _says(sar_scale="decibel")), ["s1.tif", "decibel"], None
    yield "complex map", _map((level[None] * 1j).astype(np.complex64)), ["map.tif", "complex"], None

    order = np.random.default_rng(1).permutation(256)  # indices say nothing of brightness
    greys = {int(order[v]): (v, v, v, 255) for v in range(256)}
    reds = {int(order[v]): (v, v // 2, 255 - v, 255) for v in range(256)}
    index = order[grey].astype(np.uint8)
    yield "palette map of greys", lambda f: _palette(f, "map.tif", index, greys), ["map.tif"], same_ground
    yield "palette map of colours", lambda f: _palette(f, "map.tif", index, reds), ["map.tif"], same_ground
    radar = order[np.round(np.clip(amplitude, 0, 1) * 255).astype(int)].astype(np.uint8)
    yield "palette strip of greys", lambda f: _palette(f, "strips/s1.tif", radar, greys), ["s1.tif"], same_ground
    yield "palette strip of colours", lambda f: _palette(f, "strips/s1.tif", radar, reds), ["s1.tif", "palette"], None

    yield "two-band map", _map(np.concatenate([255 - grey, grey])), ["map.tif", "2 bands"], None
    opaque = np.full_like(grey, 255)
    yield "grey map with alpha", _raw("map.tif", np.concatenate([grey, opaque]), alpha="yes"), ["map.tif"], same_ground
    yield "RGBA map", _raw("map.tif", np.concatenate([rgb, opaque]), photometric="rgb"), ["map.tif"], same_ground
    yield "CMYK map", _raw("map.tif", np.concatenate([rgb, opaque]), photometric="cmyk"), ["map.tif", "red"], None
    yield "negative map", _raw("map.tif", 255 - grey, photometric="miniswhite"), ["map.tif", "negative"], None

    for dtype, value in (("float32", -9999), ("int16", -9999), ("float32", -3.4028235e38), ("int16", -32768)):
        values = np.round(rgb.astype(float) * (1 if dtype == "int16" else 1 / 255), 3).astype(dtype)
        values[:, :60, :60] = value
        name = f"map of {dtype} with {value:g}"
        yield f"{name} undeclared", _map(values.copy()), ["map.tif", "nodata"], None
        yield f"{name} declared", _map(values.copy(), nodata=value), ["map.tif"], same_ground
        said = _with(_map(values.copy()), _says(nodata={"optical": value}))
        yield f"{name} said in scene.json", said, ["map.tif"], same_ground
    decibels = 20 * np.log10(amplitude)
    decibels[:, :60, 100:160] = -9999
    yield "strip of decibels with -9999 undeclared", _strip(decibels.copy()), ["s1.tif", "-9999"], None
    said = _with(_strip(decibels.copy()), _says(nodata={"sar": -9999}, sar_scale=None))
    yield (
        "strip of decibels with -9999 in scene.json",
        said,
        ["s1.tif"],
        lambda s: s.areas[0].strips[1].scale == "decibel",
    )
    for dtype, top in (("uint8", 255), ("uint16", 4000), ("int16", 4000)):
        counts = np.maximum(np.round(amplitude * top), 1).astype(dtype)
        counts[:, :, :90] = 0
        name = f"strip of {dtype} with zeros"
        yield f"{name} undeclared", _strip(counts.copy()), ["s1.tif", "nodata"], None
        yield f"{name} declared", _strip(counts.copy(), nodata=0), ["s1.tif"], _no_black
        yield f"{name} said", _with(_strip(counts.copy()), _says(nodata={"sar": 0})), ["s1.tif"], _no_black
        yield f"{name} that are data", _with(_strip(counts.copy()), _says(nodata={"sar": None})), ["s1.tif"], _all_data
    for dtype in ("int8", "uint32", "int32", "float64"):
        values = (amplitude * (100 if dtype == "int8" else 1000)).astype(dtype)
        yield f"strip of {dtype}", _strip(values), ["s1.tif"], same_ground
    for value, name in ((np.nan, "NaN"), (np.inf, "infinity"), (5.0, "one value"), (0.0, "zero")):
        yield f"strip of {name} alone", _strip(np.full((1, *full), value, np.float32)), ["s1.tif"], None
        yield f"map of {name} alone", _map(np.full((3, *full), value, np.float32)), ["map.tif"], None
    holes = fake.sar(PLACE, full)
    holes[:, ::2, ::2] = np.nan
    yield "strip with NaN everywhere between", _strip(holes), ["s1.tif"], None
    for orientation in (2, 3, 6, 8):
        said = ["turned.png", "orientation"]
        yield f"strip with EXIF orientation {orientation}", partial(_turned_strip, grey[0], orientation), said, None


def _no_black(scene: Scene) -> bool:
    strip = scene.areas[0].strips[1]
    return same_ground(scene) and not strip.covers(np.array([40]), np.array([20]), 24)[0]


def _all_data(scene: Scene) -> bool:
    return bool(scene.areas[0].strips[1].covers(np.array([40]), np.array([20]), 24)[0])


def _turned_strip(pixels: np.ndarray, orientation: int, folder: Path) -> None:
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    image.save(folder / "strips/turned.png", exif=exif)
    (folder / "strips/turned.pgw").write_text("\n".join(map(str, (1, 0, 0, -1, fake.WEST + 0.5, fake.NORTH - 0.5))))


# Files beside an image
def _sidecars() -> Iterator[Tried]:
    evil = np.zeros((1, SIZE, SIZE), np.uint8)
    outside = (
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/etc/hostname</MDI></Metadata></PAMDataset>'
    )
    for name in ("map.tif", "strips/s1.tif"):
        beside = {
            "overviews that are a VRT": (".ovr", _vrt("/vsicurl/http://127.0.0.1:9/x.tif", 3)),
            "overviews that are text": (".ovr", b"nothing"),
            "overviews elsewhere": (".aux.xml", outside.encode()),
            "statistics": (
                ".aux.xml",
                b"<PAMDataset><PAMRasterBand band='1'><Histograms/></PAMRasterBand></PAMDataset>",
            ),
        }
        for what, (suffix, content) in beside.items():
            yield (
                f"{name} with {what}",
                lambda f, p=name + suffix, c=content: (f / p).write_bytes(c),
                [name],
                same_ground,
            )
        bad = {
            "a mask that is a VRT": (".msk", _vrt("/etc/hostname")),
            "a mask that is text": (".msk", b"nothing"),
            "an aux.xml that is no XML": (".aux.xml", b"<PAMDataset>"),
            "an aux.xml with entities": (".aux.xml", b'<!DOCTYPE a [<!ENTITY b "bb">]><PAMDataset>&b;</PAMDataset>'),
            "an aux.xml without end": (".aux.xml", b"<PAMDataset>" + b" " * 2**21),
            "an aux.xml with a strange CRS": (".aux.xml", b"<PAMDataset><SRS>http://127.0.0.1:9/</SRS></PAMDataset>"),
        }
        for what, (suffix, content) in bad.items():
            yield f"{name} with {what}", lambda f, p=name + suffix, c=content: (f / p).write_bytes(c), [name], None

        def mask(folder: Path, name: str = name) -> None:
            hidden = np.full((1, SIZE, SIZE), 255, np.uint8)
            hidden[:, :90] = 0
            fake.write_tiff(folder / f"{name}.msk", hidden, PLACE)

        yield f"{name} with a mask beside it", mask, [name, ".msk"], None

    def inner(folder: Path) -> None:
        fake.write_tiff(folder / "elsewhere.tif", evil, PLACE)
        with rasterio.open(folder / "map.tif", "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(folder / "elsewhere.tif"))

    yield "map that names overviews elsewhere", inner, ["map.tif"], None
    for what, text in {"words": "a b c d e f", "five numbers": "1\n0\n0\n-1\n5", "zeros": "0\n0\n0\n0\n0\n0"}.items():
        yield f"world file of {what}", partial(_world, text), ["plain.p"], None
    yield "world file of infinity", partial(_world, "inf\n0\n0\n-1\n0\n0"), ["plain.png"], None
    yield "world file that is right", partial(_world, _right_world()), ["plain.png"], same_ground


def _right_world() -> str:
    return "\n".join(map(str, (1, 0, 0, -1, fake.WEST + 0.5, fake.NORTH - 0.5)))


def _world(text: str, folder: Path) -> None:
    pixels = np.round(np.sqrt(fake.sar(PLACE, (SIZE, SIZE)))[0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "strips/plain.png")
    (folder / "strips/plain.pgw").write_text(text)


# scene.json
def _options() -> Iterator[Tried]:
    texts = {
        "nested deeply": '{"roles": ' + "[" * 100_000,
        "nested deeply and closed": '{"roles": ' + "[" * 50_000 + "]" * 50_000 + "}",
        "an array": "[1]",
        "null": "null",
        "a number": "1",
        "text": '"name"',
        "not JSON": "{",
        "no text": "\udcff\udcfe",
        "empty": "",
        "a huge number": '{"pixel_size": ' + "9" * 5000 + "}",
        "a key twice": '{"patch_size": 20, "patch_size": 40}',
    }
    for what, text in texts.items():
        write = partial(_write, "scene.json", text)
        yield f"scene.json is {what}", write, ["scene.json"], None
    bom = "\ufeff" + json.dumps({"patch_size": PATCH})
    yield "scene.json with a byte-order mark", partial(_write, "scene.json", bom), [], same_ground
    yield "scene.json in UTF-16", lambda f: (f / "scene.json").write_bytes(bom.encode("utf-16")), ["scene.json"], None
    for what in ("pipe", "folder", "dead link"):
        yield f"scene.json is {what}", lambda f, w=what: _replace(NO_IMAGE[w], f / "scene.json"), ["scene.json"], None
    fields = {
        "pixel_size": [1e-9, 1e9, 0.002, 0, -1, "wide", [1], True, 1e400, float("nan")],
        "patch_size": [0, 7, -20, 10**9, 10**30, "20 px", 20.5, None],
        "sar_scale": ["counts", 5, "Amplitude"],
        "sar_bands": [[], ["HH", "HV"], ["HH", "HH"], "HH", 5],
        "roles": [{"s9": "test"}, {"s1": "tset"}, {"S1": "test"}, ["s1"], {"s1": None}, "test"],
        "test_areas": [["nowhere"], "map", [5]],
        "val_areas": [["nowhere"]],
        "nodata": [0, {"SAR": 0}, {"sar": "zero"}, {"sar": float("inf")}, {"radar": 0}, [0]],
        "name": [5, ["a"]],
        "colour": ["red"],
    }
    for field, values in fields.items():
        for value in values:
            said = ["s0.tif", "expected 2"] if value in (["HH", "HV"], ["HH", "HH"]) else [field]
            yield f"scene.json: {field} = {value!r:.40}", _says(**{field: value}), said, None
    for what, roles in {"all to train": "train", "all to test": "test"}.items():
        all_alike = _says(roles={f"s{i}": roles for i in range(3)})
        yield f"scene.json: roles, {what}", all_alike, ["roles"], same_ground
    yield "scene.json: roles named rightly", _says(roles={"s1": "val"}), [], lambda s: s.areas[0].roles[1] == "val"
    yield "scene.json: name leads elsewhere", _says(name="../../x"), [], same_ground


def _write(name: str, text: str, folder: Path) -> None:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))


# positions.csv
def _positions() -> Iterator[Tried]:
    head = "file,x,y,pixel_size,heading_deg\n"
    x, y = fake.WEST + SIZE / 2, fake.NORTH - SIZE / 2
    good = f"plain.png,{x},{y},1,0\n"
    said = ["positions.csv"]
    bad = {
        "empty": "",
        "without a header": good,
        "separated by semicolons": (head + good).replace(",", ";"),
        "without y": "file,x,pixel_size\nplain.png,5,1\n",
        "with a short row": head + "plain.png\n",
        "with a row of nothing": head + ",,,,\n",
        "with NaN": head + f"plain.png,nan,{y},1,0\n",
        "with infinity": head + f"plain.png,{x},inf,1,0\n",
        "with words": head + f"plain.png,east,{y},1,0\n",
        "with decimal commas": head + 'plain.png,"5,5","6,6",1,0\n',
        "with pixels of 0": head + f"plain.png,{x},{y},0,0\n",
        "with pixels of -1": head + f"plain.png,{x},{y},-1,0\n",
        "with pixels of 1e-9": head + f"plain.png,{x},{y},1e-9,0\n",
        "with pixels of 1e9": head + f"plain.png,{x},{y},1e9,0\n",
        "with a heading of NaN": head + f"plain.png,{x},{y},1,nan\n",
        "with a heading of words": head + f"plain.png,{x},{y},1,north\n",
        "naming a file twice": head + good + good,
        "naming no file": head + f"nothing.png,{x},{y},1,0\n",
        "naming a file elsewhere": head + f"../../x.png,{x},{y},1,0\n",
        "naming an absolute file": head + f"/etc/hostname,{x},{y},1,0\n",
        "naming a folder": head + f".,{x},{y},1,0\n",
        "with NUL": head + f"plain\0.png,{x},{y},1,0\n",
        "with an open quote": head + '"plain.png,5,5,1\n',
        "that is no text": head + "\udcff\udcff",
        "with a huge field": head + "x" * 200_000 + ",1,1,1,0\n",
    }
    for what, text in bad.items():
        yield f"positions.csv {what}", _with(_plain, partial(_write, "strips/positions.csv", text)), said, None
    for what, text in {
        "that is right": head + good,
        "with a byte-order mark": "\ufeff" + head + good,
        "with a column more": head.replace("\n", ",note\n") + good.replace("\n", ",ok\n"),
        "with lines of Windows": (head + good).replace("\n", "\r\n"),
    }.items():
        yield f"positions.csv {what}", _with(_plain, partial(_write, "strips/positions.csv", text)), [], same_ground
    far = head + "plain.png,1,1,1,0\n"
    yield "positions.csv far away", _with(_plain, partial(_write, "strips/positions.csv", far)), ["plain.png"], None
    yield "positions.csv is a pipe", _with(_plain, lambda f: os.mkfifo(f / "strips/positions.csv")), said, None
    yield "strip without any position", _plain, ["plain.png"], None


def _plain(folder: Path) -> None:
    pixels = np.round(np.sqrt(fake.sar(PLACE, (SIZE, SIZE)))[0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "strips/plain.png")


# Coordinates
def _places() -> Iterator[Tried]:
    full = (SIZE, SIZE)

    def placed(name: str, place: Affine, crs: str | None = fake.UTM) -> Break:
        make = fake.sar if "s1" in name else fake.optical
        return lambda folder: fake.write_tiff(folder / name, make(place, full), place, crs)

    turned = fake.turned((fake.WEST + SIZE / 2, fake.NORTH - SIZE / 2), 1.0, 30.0, full)
    south_up = Affine(1, 0, fake.WEST, 0, 1, fake.NORTH - SIZE)
    for name in ("map.tif", "strips/s1.tif"):
        yield f"{name} is turned", placed(name, turned), [], same_ground
        yield f"{name} is south up", placed(name, south_up), [name], same_ground
        yield f"{name} has no CRS", placed(name, PLACE, None), [Path(name).name], None
        yield f"{name} in degrees beyond the Earth", placed(name, PLACE, "EPSG:4326"), [Path(name).name], None
        yield f"{name} lies elsewhere", placed(name, Affine.translation(9e4, 0) @ PLACE), ["s"], None
        yield f"{name} lies on the other side", placed(name, PLACE, "EPSG:32732"), ["s"], None
        yield f"{name} has pixels of 1e-7 m", placed(name, Affine(1e-7, 0, fake.WEST, 0, -1e-7, fake.NORTH)), [], None
        yield f"{name} has pixels of 1e5 m", placed(name, Affine(1e5, 0, fake.WEST, 0, -1e5, fake.NORTH)), [], None
        yield f"{name} in feet", placed(name, PLACE, "EPSG:2263"), [], None
        yield f"{name} at the pole", placed(name, PLACE, "EPSG:3031"), [], None
        sheared = Affine(1, 0.4, fake.WEST, 0.3, -1, fake.NORTH)
        yield f"{name} is sheared", placed(name, sheared), [], same_ground

    for dtype in ("float32", "uint16", "int16"):
        pixels = fake.optical(turned, full, "float32") * 1000
        write = partial(_placed_map, pixels.astype(dtype), turned)
        yield f"map of {dtype} is turned", write, [], same_ground
        counts = (np.sqrt(fake.sar(turned, full)) * 1000).astype(dtype)
        write = partial(_placed_strip, counts, turned)
        yield f"strip of {dtype} is turned", write, [], _nothing_beside

    def small(folder: Path) -> None:
        fake.write_tiff(folder / "strips/s1.tif", fake.sar(PLACE, (12, 12)), PLACE)

    yield "strip smaller than a patch", small, [], anything

    def tiny(folder: Path) -> None:
        fake.write_tiff(folder / "map.tif", fake.optical(PLACE, (30, 30)), PLACE)
        for s in ("s1", "s2"):
            (folder / f"strips/{s}.tif").unlink()

    yield "map smaller than its splits", tiny, ["own"], None


def _placed_map(pixels: np.ndarray, place: Affine, folder: Path) -> None:
    fake.write_tiff(folder / "map.tif", pixels, place)


def _placed_strip(pixels: np.ndarray, place: Affine, folder: Path) -> None:
    fake.write_tiff(folder / "strips/s1.tif", pixels, place)


def _nothing_beside(scene: Scene) -> bool:
    """Whether no window is cut where the turned strip is not: in the corners of its box."""
    return not scene.areas[0].strips[1].covers(np.array([0]), np.array([0]), 24)[0]


# Names
def _names() -> Iterator[Tried]:
    def rename(old: str, new: str | bytes) -> Break:
        return lambda f: os.rename(os.fsencode(f / old), os.fsencode(f) + b"/" + os.fsencode(new))

    for name in ("strips/\udcff.tif", "strips/s\udc80b.tif"):
        yield f"name {name!r} is not UTF-8", rename("strips/s1.tif", name), ["UTF-8"], None
    good = [
        "strips/a b.tif",
        "strips/é.tif",
        "strips/日本.tif",
        "strips/-rf.tif",
        "strips/a?b#c!.tif",
        "strips/%20.tif",
    ]
    for name in (*good, "strips/zip:x!y.tif", "strips/S1.TIF", "strips/a\nb.tif", "strips/'\"<b>.tif", "map.TIF"):
        old = "map.tif" if "map" in name else "strips/s1.tif"
        yield f"name {name!r}", rename(old, name), [], same_ground
    junk = b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(100)
    for name in ("._map.tif", "strips/._s1.tif", "strips/.DS_Store", ".hidden/map.tif", "__MACOSX/strips/s1.tif"):
        yield f"{name} beside", partial(_beside, name, junk), [], same_ground
    for name in ("strips/Thumbs.db", "strips/s1.tif.part", "notes.txt", "strips/deeper/s9.tif"):
        yield f"{name} beside", partial(_beside, name, b"x"), [], same_ground
    yield "no map", lambda f: (f / "map.tif").unlink(), ["own"], None
    yield "no strips", lambda f: shutil.rmtree(f / "strips"), ["own"], None
    yield "strips empty", lambda f: [p.unlink() for p in (f / "strips").iterdir()], ["own"], None
    yield "two strips of one name", lambda f: shutil.copy(f / "strips/s1.tif", f / "strips/s1.tiff"), ["s1"], None
    yield "a link that runs in circles", lambda f: (f / "loop").symlink_to(f), [], same_ground
    yield "a folder without anything", lambda f: [shutil.rmtree(f), f.mkdir()], ["own"], None
    one = lambda f: [(f / f"strips/s{i}.tif").unlink() for i in (1, 2)]  # noqa: E731
    yield "one strip", one, [], anything
    mixed = _with(
        lambda f: (f / "map").mkdir(),
        lambda f: (f / "map.tif").rename(f / "map/a.tif"),
        lambda f: fake.write_tiff(f / "map/b.tif", fake.optical(PLACE, (99, 99))[:1], PLACE),
    )
    yield "grey and colour in one map", mixed, ["map"], None


def _beside(name: str, content: bytes, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


# Pairs
def _pairs() -> Iterator[Tried]:
    for name in ("opt/003.png", "sar/004.png"):
        for what in sorted(NO_IMAGE):
            yield f"{name} is {what}", lambda f, n=name, w=what: _replace(NO_IMAGE[w], f / n), [name], None
        for share in (0.1, 0.5, 0.97):
            yield f"{name} cut to {share:.0%}", lambda f, n=name, s=share: _cut(s, f / n), [name], None
        odd = {
            "16 bits": np.arange(96 * 96, dtype=np.uint16).reshape(96, 96),
            "another size": np.random.default_rng(0).integers(0, 255, (90, 96), dtype=np.uint8),
            "four channels": np.random.default_rng(0).integers(0, 255, (96, 96, 4), dtype=np.uint8),
            "two channels": np.random.default_rng(0).integers(0, 255, (96, 96, 2), dtype=np.uint8),
            "one value": np.full((96, 96), 7, np.uint8),
            "bits": np.random.default_rng(0).random((96, 96)) > 0.5,
        }
        for what, pixels in odd.items():
            yield f"{name} of {what}", lambda f, n=name, p=pixels: Image.fromarray(p).save(f / n), [name], None
    yield (
        "sar in colour",
        lambda f: Image.fromarray(fake_data._blocks(np.random.default_rng(0), 96, 3)).save(f / "sar/004.png"),
        ["sar/004.png"],
        None,
    )
    for name in ("opt/002.png", "sar/002.png"):
        for orientation in (3, 6):
            yield f"{name} turned by EXIF {orientation}", partial(_turn, name, orientation), [name], _pair_matches
        yield f"{name} as a palette", partial(_quantise, name), [name], _pair_matches
    for name in ("opt/._002.png", "sar/._002.png", "opt/.DS_Store", "__MACOSX/opt/x.png"):
        yield f"{name} beside", partial(_beside, name, b"junk"), [], _pair_matches
    yield (
        "name not UTF-8",
        lambda f: [
            os.rename(os.fsencode(f / s / "002.png"), os.fsencode(f / s) + b"/\xff.png") for s in ("opt", "sar")
        ],
        ["UTF-8"],
        None,
    )
    yield (
        "no partner at all",
        lambda f: [p.rename(p.with_name("x" + p.name)) for p in (f / "sar").iterdir()],
        ["mine"],
        None,
    )
    yield (
        "two pairs",
        lambda f: [(f / s / f"{i:03}.png").unlink() for s in ("opt", "sar") for i in range(2, 10)],
        ["'mine'"],
        None,
    )
    yield "one file missing", lambda f: (f / "sar/005.png").unlink(), [], anything
    slc = np.random.default_rng(0).random((1, 96, 96)) * np.exp(1j * np.arange(96))
    yield "complex SAR", partial(_as_tiff, "sar/002", slc.astype(np.complex64)), [], lambda s: _magnitude(s, slc)
    yield "complex optical", partial(_as_tiff, "opt/002", slc.astype(np.complex64)), ["opt/002.tif", "complex"], None
    sentinel = np.random.default_rng(0).random((1, 96, 96)).astype(np.float32)
    sentinel[:, :30] = -9999
    yield "SAR with -9999 undeclared", partial(_as_tiff, "sar/002", sentinel), ["sar/002.tif", "-9999"], None
    yield "SAR that is a VRT", partial(_as_bytes, "sar/002.tif", _vrt("/etc/hostname", 1, 5000, 96)), ["002.tif"], None


def _as_bytes(name: str, content: bytes, folder: Path) -> None:
    (folder / name).with_suffix(".png").unlink()
    (folder / name).write_bytes(content)


def _as_tiff(name: str, pixels: np.ndarray, folder: Path) -> None:
    (folder / f"{name}.png").unlink()
    fake.write_tiff(folder / f"{name}.tif", pixels, Affine.identity(), None)


def _magnitude(scene: Scene, slc: np.ndarray) -> bool:
    strip = next(s for a in scene.areas for s in a.strips if s.name == "002")
    tile = strip.tiles[0]
    return np.allclose(strip.read(tile.row, tile.col, 96, 96), np.abs(slc), atol=1e-5)


def _pair_matches(scene: Scene) -> bool:
    """Whether the third pair shows the same field twice, as it was made."""
    area, strip = next((a, s) for a in scene.areas for s in a.strips if s.name == "002")
    tile = strip.tiles[0]
    optical = area.map.read(tile.row, tile.col, tile.height, tile.width)[0]
    return np.corrcoef(optical.ravel(), strip.read(tile.row, tile.col, tile.height, tile.width)[0].ravel())[0, 1] > 0.5


def _turn(name: str, orientation: int, folder: Path) -> None:
    """Store an image turned, with the note that undoes it: it looks as before."""
    with Image.open(folder / name) as image:
        exif = image.getexif()
        exif[274] = orientation
        back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
        image.transpose(back).save(folder / name, exif=exif)


def _quantise(name: str, folder: Path) -> None:
    """Store an image as a palette whose indices say nothing of brightness."""
    with Image.open(folder / name) as image:
        grey = np.asarray(image.convert("L"))
    order = np.random.default_rng(0).permutation(256)
    picture = Image.fromarray(order[grey].astype(np.uint8), "P")
    colours = np.zeros((256, 3), np.uint8)
    colours[order] = np.arange(256)[:, None]
    picture.putpalette(colours.ravel().tolist())
    picture.save(folder / name)


# sarmatch.json
def _patterns() -> Iterator[Tried]:
    good = {"optical": r"opt/(?P<n>\d+)[.]png", "sar": r"sar/(?P<n>\d+)[.]png"}
    said = ["sarmatch.json"]

    def pattern(**changes: object) -> Break:
        return partial(_write, "sarmatch.json", json.dumps(good | changes))

    slow = r"opt/(?P<n>([0-9]+)+)x[.]png"
    names = lambda f: (f / "opt" / ("1" * 60 + "y.png")).write_bytes(b"x")  # noqa: E731
    yield "a right pattern", pattern(), [], _pair_matches
    yield "a pattern that tries too many ways", _with(names, pattern(optical=slow)), [*said, "optical"], None
    bad = {
        "optical": ["(", r"opt/\d+[.]png", 5, None, "[" * 5000],
        "sar": [r"sar/(?P<m>\d+)[.]png", r"radar/(?P<n>\d+)[.]png"],
        "group_by": [["town"], "n", [5]],
        "sar_scale": ["counts"],
        "sar_bands": [[], ["HH", "HV"]],
        "sar_window": [[1], "wide"],
        "patch_size": [0, 10**6, "x"],
        "colour": ["red"],
        "name": [5],
    }
    for field, values in bad.items():
        for value in values:
            words = ["mine"] if (field, value) in (("sar_bands", ["HH", "HV"]), ("patch_size", 10**6)) else said
            words = ["mine"] if value == r"radar/(?P<n>\d+)[.]png" else words
            yield f"sarmatch.json: {field} = {value!r:.30}", pattern(**{field: value}), words, None
    for what, text in {
        "nested": "[" * 100_000,
        "no JSON": "{",
        "a list": "[]",
        "empty": "",
        "no text": "\udcff",
    }.items():
        yield f"sarmatch.json is {what}", partial(_write, "sarmatch.json", text), said, None
    bom = "\ufeff" + json.dumps(good)
    yield "sarmatch.json with a byte-order mark", partial(_write, "sarmatch.json", bom), [], _pair_matches
    yield "sarmatch.json is a pipe", lambda f: os.mkfifo(f / "sarmatch.json"), said, None
    split = pattern(optical=r"(?P<split>opt)/(?P<n>\d+)[.]png", sar=r"(?P<split>sar)/(?P<n>\d+)[.]png")
    yield "a split that is none", split, ["split"], None


# Tables of tiles
def _tables() -> Iterator[Tried]:
    for what, text in {
        "nested": "[" * 100_000, "null": "null", "text": '"x"', "no JSON": "[", "empty": "", "strange": "[5]",
        "a tile without corners": '[{"id": "018"}]', "no tile": "[]",
    }.items():  # fmt: skip
        yield f"tiles.json is {what}", partial(_write, "tiles.json", text), ["tiles"], None

    def corners(value: object, folder: Path) -> None:
        entries = json.loads((folder / "tiles.json").read_text())
        entries[0]["corners_epsg3395"] = value
        (folder / "tiles.json").write_text(json.dumps(entries))

    for value in ([], [[0, 0]] * 3, [[float("nan"), 0]] * 4, [["a", "b"]] * 4, "here", None, [[1e300, 0]] * 4):
        yield f"corners are {value!r:.30}", partial(corners, value), ["tiles.json", "018"], None


# Names that are no folders
def _doors() -> Iterator[tuple[str, Callable[[Path], Outcome]]]:
    for name in ("", " ", "\t"):
        yield f"load_scene({name!r})", lambda _, n=name: judge_call(lambda: load_scene(n), "scene", repr(n))
    for name in ("no/such/folder", "eesy", "~nouserhere/x", "a\0b", "x" * 5000):
        yield f"load_scene({name[:20]!r})", lambda _, n=name: judge_call(lambda: load_scene(n), n[:9])
    yield "load_scene of a file", lambda f: judge_call(lambda: load_scene(_file(f)), "file.tif")
    yield "check of a file", lambda f: judge_command(["check", str(_file(f))], "file.tif")
    yield "check easy", lambda _: judge_command(["check", "easy"], "easy", "simulated")
    yield "check of nothing", lambda _: judge_command(["check", ""], "scene")
    yield "sweep of tiles without a folder", lambda _: judge_call(lambda: run_sweep("alignment_sentinel"), "scene")
    yield "profile", lambda _: judge_call(lambda: load_scene("easy", "slow"), "profile", "slow")
    yield "bands of a preset", lambda _: judge_call(lambda: load_scene("easy", bands=("XX",)), "XX")


def _file(folder: Path) -> Path:
    (folder / "file.tif").write_bytes(b"x")
    return folder / "file.tif"


# Caches
def _caches() -> Iterator[tuple[str, Callable[[Path], Outcome]]]:
    pickled = {"valid": np.array([{}], object), "sample": np.zeros((1, 9), np.float32)}
    damages: dict[str, Break] = {
        "empty": _put(b""),
        "text": _put(b"nothing"),
        "cut in half": partial(_cut, 0.5),
        "cut at its end": partial(_cut, 0.98),
        "flipped": partial(_flip, 60),
        "pickled": lambda p: p.write_bytes(pickle.dumps({"valid": 1})),
        "of pickled arrays": lambda p: np.savez(p, **pickled),
        "of other names": lambda p: np.savez(p, a=np.zeros(3)),
        "of other shapes": lambda p: np.savez(p, valid=np.ones((2, 2), bool), sample=np.zeros((1, 9), np.float32)),
        "of other types": lambda p: np.savez(p, valid=np.ones(4), sample=np.zeros(9)),
        "a folder": partial(_replace, lambda p: p.mkdir()),
        "a pipe": partial(_replace, lambda p: os.mkfifo(p)),
        "a dead link": partial(_replace, lambda p: p.symlink_to("nowhere")),
    }
    for what, damage in damages.items():
        yield f"survey {what}", partial(_try_survey, damage)
    for what in ("empty", "text", "cut in half", "pickled"):
        yield f"rendered image {what}", partial(_try_rendered, damages[what])
    yield "cache disk full", _try_full
    yield "cache is a file", _try_cache_file


def _warned(call: Callable[[], object], *said: str) -> Outcome:
    """Good where a call answers and warns in these words."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            right = call()
        except Exception:
            return "traceback"
    texts = [str(w.message) for w in caught]
    if not right or not any(all(word in text for word in said) for text in texts):
        return "silent"
    return "unclear" if any("pickle.load" in text or "allow_pickle" in text for text in texts) else "good"


def _try_survey(damage: Break, place: Path) -> Outcome:
    folder = _own(place / "own")
    with _own_cache(place / "cache") as cache:
        load_scene(folder)
        kept = sorted(cache.glob("survey-*.npz"))
        for path in kept:
            damage(path)
        return _warned(lambda: same_ground(load_scene(folder)), "survey-", "damaged")


def _try_rendered(damage: Break, place: Path) -> Outcome:
    image = np.random.default_rng(0).random((1, 30, 30)).astype(np.float32)
    job = simulate.Job("small map", place / "small-map.npy", partial(np.copy, image))
    simulate._open.__wrapped__(job)
    damage(job.path)
    return _warned(lambda: np.array_equal(simulate._open.__wrapped__(job), image), ".npy", "damaged")


def _try_full(place: Path) -> Outcome:
    folder = _own(place / "own")
    full = mock.patch.object(mosaic, "write", side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with _own_cache(place / "cache"), full:
        usable = check_data(folder).usable
        outcome = _warned(lambda: same_ground(load_scene(folder)), "survey-", "No space left")
    return outcome if usable else "silent"


def _try_cache_file(place: Path) -> Outcome:
    folder = _own(place / "own")
    (place / "cache").write_bytes(b"")
    with _own_cache(place / "cache"):
        return _warned(lambda: same_ground(load_scene(folder)), "cache", "cannot be kept")
