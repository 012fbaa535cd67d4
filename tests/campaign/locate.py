"""A strip looked for on a map: bad images, options, weights and places to write to, by the command line."""

import json
import os
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from rasterio import Affine
from scipy.ndimage import gaussian_filter

import sarmatch as sm
from tests.campaign.case import Case, Outcome, judge_call, judge_command
from tests.campaign.dense_search import finished
from tests.campaign.run_folders import DAMAGES
from tests.campaign.samples import finished_run
from tests.fake_mosaics import NORTH, UTM, WEST, write_tiff

DOOR = "locate"
MAP_PX, STRIP_PX, AT = (480, 440), (288, 96), (120, 200)  # rows and columns; of the strip's corner on the map
PLACE = Affine(1, 0, WEST, 0, -1, NORTH)
CFOG = ["--method", "cfog"]
NAN, INFINITE = float("nan"), float("inf")
Words = Sequence[str]
Right = Callable[[str], bool]


def cases() -> list[Case]:
    """A case per image, option, run and place to write to."""
    found = [Case(DOOR, f"strip {name}", partial(_image, "strip", *rest)) for name, rest in STRIPS.items()]
    found += [Case(DOOR, f"map {name}", partial(_image, "map", *rest)) for name, rest in MAPS.items()]
    found += [Case(DOOR, name, partial(_line, *line)) for name, line in _lines()]
    found += [Case(DOOR, name, partial(_called, options, said)) for name, options, said in _calls()]
    found += [Case(DOOR, f"weights {name}", partial(_weights, damage)) for name, damage in DAMAGES.items()]
    return [*found, *(Case(DOOR, name, run) for name, run in SITUATIONS.items())]


def _folder() -> Path:
    return Path(os.environ["SARMATCH_CAMPAIGN"])


@cache
def ground() -> np.ndarray:
    """Brightness of the ground from 0 to 1."""
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=MAP_PX), 3)
    return (smooth - smooth.min()) / np.ptp(smooth)


def optical(image: np.ndarray | None = None) -> np.ndarray:
    """Three bands of the ground."""
    return np.repeat((255 * (ground() if image is None else image))[None], 3, 0).astype(np.uint8)


def sar(shape: tuple[int, int] = STRIP_PX) -> np.ndarray:
    """Intensity of the ground from the strip's corner on; repeated where there is no more of it."""
    wide = np.pad(ground()[AT[0] :, AT[1] :], [(0, n) for n in shape], "symmetric")[: shape[0], : shape[1]]
    return sar_of(wide)


def sar_of(part: np.ndarray) -> np.ndarray:
    """Intensity `(1, H, W)` of a part of some ground `(H, W)`, with speckle."""
    return (10 ** (-2 * part) * np.random.default_rng(9).gamma(20, 1 / 20, part.shape)).astype(np.float32)[None]


@cache
def files() -> dict[str, Path]:
    """A sound map and a strip on it; not to be changed."""
    folder = _folder() / "locate"
    return {
        "map": write_tiff(folder / "map.tif", optical(), PLACE),
        "strip": write_tiff(folder / "strip.tif", sar(), PLACE),
    }


def _judged(folder: Path, words: Words, said: Words = (), right: Right | None = None) -> Outcome:
    """The outcome of `sarmatch locate WORDS -o out/fix.geojson`; where it is an error, nothing may be left behind."""
    out = folder / "out" / "fix.geojson"
    with mock.patch.dict(os.environ, {"SARMATCH_CACHE": str(_folder() / "cache")}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = judge_command(["locate", *words, *([] if "-o" in words else ["-o", str(out)])], *said, right=right)
    return "silent" if right is None and out.parent.exists() else outcome


def _found(said: str) -> bool:
    """Whether the strip is found where it lies."""
    return "longitude 9.003" in said and "latitude 45.15" in said


# Images
Break = Callable[[Path], object]  # changes a file


def _image(which: str, change: Break, said: Words, words: Words, right: Right | None, folder: Path) -> Outcome:
    path = Path(shutil.copy(files()[which], folder / f"{which}.tif"))
    change(path)
    given = {**files(), which: path}
    return _judged(folder, [str(given["strip"]), str(given["map"]), *CFOG, *words], said, right)


def _changed(change: Callable[[np.ndarray], np.ndarray | None], which: str, **about: Any) -> Break:
    """The image with its pixels changed, and its place where `about` says so."""

    def damage(path: Path) -> None:
        image = sar() if which == "strip" else optical()
        made = change(image)
        write_tiff(path, image if made is None else made, **{"transform": PLACE, "crs": UTM, **about})

    return damage


def _holed(values: float, every: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """Every so manieth row is of a value that is none."""

    def change(image: np.ndarray) -> np.ndarray:
        image = image.astype(np.float32)
        image[:, ::every] = values
        return image

    return change


def _replaced(make: Callable[[Path], object]) -> Break:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _large_claim(path: Path) -> None:
    """The header says two million pixels a side and the file holds the first of them."""
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")  # of the tags that count: older ones may lie before
    for tag in (256, 257):
        at = content.index(tag.to_bytes(2, "little") + b"\3\0", first)
        content[at + 2 : at + 12] = b"\4\0\1\0\0\0" + (2_000_000).to_bytes(4, "little")
    path.write_bytes(content)


def _upside_down(path: Path) -> None:
    image = Image.fromarray(np.zeros((64, 64), np.uint8))
    exif = image.getexif()
    exif[274] = 3
    image.save(path, exif=exif)


#: What is changed, words of the error, more words of the line, or who says whether an answer is right.
Tried = tuple[Break, Words, Words, Right | None]


def _both(which: str) -> dict[str, Tried]:
    """What may be wrong with any image."""
    name, changed = f"{which}.tif", partial(_changed, which=which)
    bad: dict[str, tuple[Break, Words]] = {
        **{f"is {damage}": (change, [name]) for damage, change in DAMAGES.items()},
        "is cut off after its header": (lambda path: path.write_bytes(path.read_bytes()[:600]), [name]),
        "is a pipe": (_replaced(os.mkfifo), [name, "not a file"]),
        "is a dead link": (_replaced(lambda path: path.symlink_to("nowhere")), [name]),
        "claims two million pixels a side": (_large_claim, [name]),
        "is an SVG": (lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), [name]),
        "follows other files": (lambda path: path.write_text("<VRTDataset></VRTDataset>"), [name, "known format"]),
        "stands on its head": (_replaced(_upside_down), [name]),
        "is constant": (changed(lambda image: np.full_like(image, 7)), [name, "constant"]),
        "is of NaN": (changed(_holed(NAN)), [name, "no data"]),
        "is of infinity": (changed(_holed(INFINITE)), [name, "no data"]),
        "is nodata": (changed(lambda image: np.full_like(image, 9), nodata=9), [name, "no data"]),
        "holds an undeclared -9999": (changed(_holed(-9999, 5)), [name, "-9999"]),
        "has a pixel size of NaN": (changed(np.copy, transform=Affine(NAN, 0, WEST, 0, -1, NORTH)), [name]),
        "has pixels of no width": (changed(np.copy, transform=Affine(0, 0, WEST, 0, -1, NORTH)), [name]),
        "lies beyond the Earth": (changed(np.copy, transform=Affine(1, 0, 1e30, 0, -1, NORTH)), [name]),
        "counts metres as degrees": (changed(np.copy, crs="EPSG:4326"), [name]),
        "has pixels of 100 km": (changed(np.copy, transform=Affine(1e5, 0, WEST, 0, -1e5, NORTH)), [name]),
        "has pixels of a tenth of a millimetre": (
            changed(np.copy, transform=Affine(1e-4, 0, WEST, 0, -1e-4, NORTH)),
            ["strip.tif", "pixel_size is", "that of the map is"],
        ),
        "is of one pixel": (changed(lambda image: image[:, :1, :1]), [name]),
        "is of one row": (changed(lambda image: image[:, :1]), [name]),
        "is of 20 x 20 px": (changed(lambda image: image[:, :20, :20]), [name]),
    }
    return {key: (change, said, (), None) for key, (change, said) in bad.items()}


STRIPS: dict[str, Tried] = _both("strip") | {
    "says no pixel size": (_changed(np.copy, "strip", crs=None), ["strip.tif", "pixel_size"], (), None),
    "says no pixel size, but the line": (_changed(np.copy, "strip", crs=None), (), ["--pixel-size", "1"], _found),
    "is larger than the map": (
        _changed(lambda image: sar((600, 500)), "strip"),
        ["strip.tif", "500 x 600 m", "map.tif"],
        (),
        None,
    ),
    "is longer than the map": (
        _changed(lambda image: sar((1200, 100)), "strip"),
        ["strip.tif", "100 x 1,200 m", "map.tif"],
        (),
        None,
    ),
    "is zero": (_changed(np.zeros_like, "strip"), ["strip.tif"], (), None),
    "has holes everywhere": (_changed(_holed(NAN, 4), "strip"), ["strip.tif", "no data"], (), None),
    "has some infinite pixels": (_changed(_holed(INFINITE, 100), "strip"), (), (), _found),
    "has some holes": (_changed(_holed(NAN, 100), "strip"), (), (), _found),
    "claims another place": (_changed(np.copy, "strip", transform=Affine(1, 0, 1e5, 0, -1, 10)), (), (), _found),
    "counts feet": (
        _changed(np.copy, "strip", crs="EPSG:2263", transform=Affine(3.2808, 0, 1e6, 0, -3.2808, 2e5)),
        (),
        (),
        _found,
    ),
    "counts degrees": (
        _changed(np.copy, "strip", crs="EPSG:4326", transform=Affine(1.2689e-5, 0, 9, 0, -8.9977e-6, 45.15)),
        (),
        (),
        _found,
    ),
    "is complex": (
        _changed(lambda image: np.sqrt(image).astype(np.complex64), "strip"),
        (),
        (),
        _found,
    ),
}
MAPS: dict[str, Tried] = _both("map") | {
    "says not where it lies": (_changed(np.copy, "map", crs=None), ["map.tif", "reference system"], (), None),
    "is of one tile": (_changed(lambda image: image[:, :290, :98], "map"), ["map.tif", "one window"], (), None),
    "is narrower than the strip": (_changed(lambda image: image[..., :90], "map"), ["map.tif", "90 x 480"], (), None),
    "has two bands": (_changed(lambda image: image[:2], "map"), ["map.tif", "2 bands"], (), None),
    "is complex": (_changed(lambda image: image.astype(np.complex64), "map"), ["map.tif", "complex"], (), None),
    "is in no system on Earth": (
        _changed(np.copy, "map", crs='LOCAL_CS["here", UNIT["metre", 1]]'),
        ["map.tif"],
        (),
        None,
    ),
    "is half nodata": (_changed(_holed(NAN, 2), "map"), ["map.tif"], (), None),
    "has some holes": (_changed(_holed(NAN, 200), "map"), (), (), _found),
    "is grey": (_changed(lambda image: image[:1], "map"), (), (), _found),
    "is of 16 bits": (_changed(lambda image: image.astype(np.uint16) * 40, "map"), (), (), _found),
}


# Options
OPTIONS: dict[str, tuple[Words, Words]] = {
    "--heading": (("north", "nan", "inf", "-inf", "1,2", "", "1e400"), ["heading"]),
    "--scale": (("0", "-1", "3", "nan", "1.1:0.9", "0.9:1.1:1.2", "", "x", "0.1:9", "inf"), ["scale"]),
    "--pixel-size": (("0", "-1", "nan", "inf", "x", "", "1e9", "1e-9"), ["pixel"]),
    "--near": (("9", "9,45,3", "200,0", "9,95", "nan,nan", "x,y", "", "9;45"), ["near"]),
    "--radius": (("0", "-5", "nan", "x", ""), ["radius"]),
    "--method": (("nope", "", "hog", "dense"), ["method"]),
    "--run": (("no/such", "", "."), ["run"]),
    "--nope": (("1",), ["--nope"]),
}


def _lines() -> list[tuple[str, tuple[Words, Words]]]:
    """Options of values that they must not take, and what they must not be given with."""
    found: list[tuple[str, tuple[Words, Words]]] = []
    for option, (values, said) in OPTIONS.items():
        beside = {"--near": ["--radius", "100"], "--radius": ["--near", "9.003,45.15"]}.get(option, [])
        method = [] if option in ("--method", "--run") else CFOG
        found += [(f"{option} {value!r}", ([option, value, *beside, *method], said)) for value in values]
    return [
        *found,
        ("--near without --radius", (["--near", "9.003,45.15", *CFOG], ["radius is None"])),
        ("--radius without --near", (["--radius", "100", *CFOG], ["radius is 100", "near"])),
        ("--near beside the map", (["--near", "12,50", "--radius", "100", *CFOG], ["beside the map"])),
        ("--run and --method", (["--run", "data/dense", *CFOG], ["cfog", "data/dense"])),
    ]


def _line(words: Words, said: Words, folder: Path) -> Outcome:
    return _judged(folder, [str(files()["strip"]), str(files()["map"]), *words], said)


def _calls() -> list[tuple[str, dict[str, Any], Words]]:
    """What a notebook may give by mistake."""
    values: dict[str, tuple[Sequence[Any], str]] = {
        "window": ((-1, 0, 7, 1.5, NAN, "wide", True), "window"),
        "heading": (([1], {}, 1j, "north"), "heading"),
        "scale": (([], [1], [1, 1, 1], "1", "12", None, {}), "scale"),
        "pixel_size": (("1", [1], 1j), "pixel_size"),
        "near": ((5, (9,), "9,45", (None, None), (9, 45, 3)), "near"),
        "sar_scale": (("nope",), "scale"),
        "optical_bands": (((7, 8, 9),), "map.tif"),
        "sar_bands": ((("a", "b", "c"),), "strip.tif"),
        "junk": ((1,), "junk"),
    }
    return [
        (f"{name}={value!r}", {name: value, **({"radius": 100.0} if name == "near" else {})}, [said])
        for name, (given, said) in values.items()
        for value in given
    ]


def _called(options: dict[str, Any], said: Words, folder: Path) -> Outcome:
    with mock.patch.dict(os.environ, {"SARMATCH_CACHE": str(_folder() / "cache")}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge_call(lambda: sm.locate(files()["strip"], files()["map"], method="cfog", **options), *said)


# Runs
def _weights(damage: Callable[[Path], object], folder: Path) -> Outcome:
    path = Path(shutil.copytree(finished(), folder / "run"))
    damage(path / "model.safetensors")
    return _judged(folder, [*map(str, (files()["strip"], files()["map"])), "--run", str(path)], ["model.safetensors"])


def _without_metres(folder: Path) -> Outcome:
    words = [*map(str, (files()["strip"], files()["map"])), "--run", str(finished_run())]
    return _judged(folder, words, ["pairs", "how large its pixels are"])


def _of_other_pixels(folder: Path) -> Outcome:
    path = write_tiff(folder / "map.tif", optical(), PLACE @ Affine.scale(10))
    return _judged(folder, [str(files()["strip"]), str(path), "--run", str(finished())], ["map.tif", "pixels are 10"])


def _own_run(folder: Path) -> Outcome:
    """Not a mistake: a run of one's own, whatever it finds after one epoch."""
    words = [*map(str, (files()["strip"], files()["map"])), "--run", str(finished())]
    return "good" if _judged(folder, words, ["not on this map"], lambda said: "not calibrated" in said) else "silent"


def _calibration(content: str, folder: Path) -> Outcome:
    path = Path(shutil.copytree(finished(), folder / "run"))
    (path / "localization.json").write_text(content)
    words = [*map(str, (files()["strip"], files()["map"])), "--run", str(path)]
    return _judged(folder, words, ["localization.json"])


# Where to write
def _out(make: Callable[[Path], Path], said: Words, folder: Path) -> Outcome:
    return _judged(folder, [*map(str, (files()["strip"], files()["map"])), *CFOG, "-o", str(make(folder))], said)


def _under_a_file(folder: Path) -> Path:
    (folder / "kept").write_text("in the way")
    return folder / "kept" / "fix.geojson"


def _in_the_way(name: str, folder: Path) -> Path:
    (folder / "kept" / name).mkdir(parents=True)
    return folder / "kept" / "fix.geojson"


def _over_an_input(which: str, folder: Path) -> Outcome:
    """The GeoTIFF would be laid over an image that was given."""
    own = {key: Path(shutil.copy(path, folder / path.name)) for key, path in files().items()}
    before = own[which].read_bytes()
    words = [*map(str, (own["strip"], own["map"])), *CFOG, "-o", str(folder / f"{which}.geojson")]
    outcome = _judged(folder, words, [f"{which}.tif"])
    return outcome if own[which].read_bytes() == before else "silent"


def _full_disk(folder: Path) -> Outcome:
    """No file may grow beyond 20 kB, which is what a full disk is to who writes: what is there is whole."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    files()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        words = [*map(str, (files()["strip"], files()["map"])), *CFOG, "-o", str(folder / "full" / "fix.geojson")]
        outcome = _judged(folder, words, ["fix.", "could not be written"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = list((folder / "full").iterdir())
    whole = all(json.loads(path.read_text()) for path in left if path.suffix == ".geojson")
    return outcome if whole and not [p for p in left if p.suffix in (".part", ".tif", ".points", ".png")] else "silent"


def _closed_cache(folder: Path) -> Outcome:
    """Not a mistake: maps that cannot be kept are used all the same."""
    (folder / "cache").write_bytes(b"")
    out = folder / "out" / "fix.geojson"
    words = ["locate", *map(str, (files()["strip"], files()["map"])), *CFOG, "-o", str(out)]
    with mock.patch.dict(os.environ, {"SARMATCH_CACHE": str(folder / "cache")}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge_command(words, right=_found)


def _right(folder: Path) -> Outcome:
    """Not a mistake: the strip on its map, with all files that are promised and no others."""
    outcome = _judged(folder, [*map(str, (files()["strip"], files()["map"])), *CFOG], right=_found)
    names = {path.name for path in (folder / "out").iterdir()}
    return outcome if names == {f"fix.{end}" for end in ("geojson", "csv", "tif", "png", "points")} else "silent"


SITUATIONS: dict[str, Callable[[Path], Outcome]] = {
    "a run on pairs without a place": _without_metres,
    "a run of other pixels": _of_other_pixels,
    "a run of one's own": _own_run,
    **{
        f"a calibration of {content[:30]}": partial(_calibration, content)
        for content in ("", "3", "{}}", '{"junk": 1}', '{"temperature": -1}', '{"outliers": NaN}', '{"drift": "x"}')
    },
    "no ending of GeoJSON": partial(_out, lambda folder: folder / "fix.txt", ["fix.txt", ".geojson"]),
    "out under a file": partial(_out, _under_a_file, ["kept"]),
    "out where nobody may write": partial(_out, lambda folder: Path("/proc/fix.geojson"), ["/proc"]),
    **{
        f"a folder called {name}": partial(_out, partial(_in_the_way, name), [name])
        for name in ("fix.geojson", "fix.csv", "fix.tif", "fix.png")
    },
    "out over the strip": partial(_over_an_input, "strip"),
    "out over the map": partial(_over_an_input, "map"),
    "a full disk": _full_disk,
    "a cache that cannot be written to": _closed_cache,
    "a strip on its map": _right,
}
