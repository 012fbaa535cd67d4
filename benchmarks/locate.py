"""What a strip costs against the size of the map: time and memory of `sarmatch locate`, the maps built and kept.

Usage: python benchmarks/locate.py [--sides 5000 10000 20000 40000] [--method cfog] [--folder FOLDER]

Maps are GeoTIFFs of smooth noise at 0.5 m, tiled and compressed, so their content is nothing that a town shows; strips
of five windows are cut from them, upside down in contrast and with speckle. Each size is a process of its own. The
first strip surveys the map and encodes it; the next finds what was seen and its features kept. `own` is the
most memory that the process cannot give back (Linux' `RssAnon`); `peak` has beside it pages of files, which it can.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio import Affine
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

import sarmatch as sm

PIXEL, PART, HIGH, WIDE = 0.5, 1000, 1000, 200  # metres; pixels of a part of the map, and of a strip
WEST, NORTH, UTM = 500_000.0, 5_700_000.0, "EPSG:32631"


def ground(side: int, row: int, col: int) -> np.ndarray:
    """Brightness from 0 to 1 of a part of the map, the same whenever it is asked for."""
    rng = np.random.default_rng([side, row, col])
    smooth = gaussian_filter(rng.normal(size=(PART, PART)).astype(np.float32), 3, mode="wrap")
    return (smooth - smooth.min()) / np.ptp(smooth)


def write_map(path: Path, side: int) -> None:
    """A map `side` pixels wide, written part by part."""
    place = Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)
    about = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "crs": UTM}
    about |= {"transform": place, "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with rasterio.open(path, "w", BIGTIFF="YES", **about) as file:
        for row in range(0, side, PART):
            for col in range(0, side, PART):
                pixels = np.repeat((255 * ground(side, row, col))[None], 3, 0).astype(np.uint8)
                file.write(pixels, window=Window(col, row, PART, PART))


def write_strip(path: Path, side: int, seed: int) -> tuple[float, float]:
    """A strip that lies in a part of the map; where its middle is, metres to the east and north of the corner."""
    rng = np.random.default_rng(seed)
    row, col = (PART * int(i) for i in rng.integers(0, side // PART, 2))
    left = int(rng.integers(0, PART - WIDE))
    power = 10 ** (-2 * ground(side, row, col)[:, left : left + WIDE]) * rng.gamma(4, 1 / 4, (HIGH, WIDE))
    about = {"driver": "GTiff", "count": 1, "height": HIGH, "width": WIDE, "dtype": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **about) as file:
            file.write(power.astype(np.float32), 1)
    return (col + left + WIDE / 2) * PIXEL, -(row + HIGH / 2) * PIXEL


@contextmanager
def own_memory(most: list[float]) -> Iterator[None]:
    """Watches how much memory the process holds that is no file's; the most of it is put into the list, GB."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            most[0] = max(most[0], *(int(line.split()[1]) / 1e6 for line in lines if line.startswith("RssAnon")))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measured(side: int, method: str, folder: Path) -> dict[str, float]:
    """A row of the table."""
    os.environ["SARMATCH_CACHE"] = str(folder / "cache")
    warnings.simplefilter("ignore")
    chart, times, errors, own = folder / "map.tif", [], [], [0.0]
    write_map(chart, side)
    asked = {"method": None if method == "dense" else method, "pixel_size": PIXEL}
    with own_memory(own):
        for seed in (1, 2):
            true = write_strip(folder / "strip.tif", side, seed)
            start = time.perf_counter()
            found = sm.locate(folder / "strip.tif", chart, **asked)
            times.append(time.perf_counter() - start)
            errors.append(float(np.hypot(*(found.fix.place - true))))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    kept = sum(p.stat().st_size for p in (folder / "cache").rglob("*.safetensors"))
    return {
        "side, px": side,
        "km2": (side * PIXEL / 1000) ** 2,
        "first strip, s": times[0],
        "next strip, s": times[1],
        "error, m": max(errors),
        "own, GB": own[0],
        "peak, GB": peak,
        "map, GB": chart.stat().st_size / 1e9,
        "kept features, GB": kept / 1e9,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10_000], help="pixels, multiples of 1,000")
    parser.add_argument("--method", default="cfog", help="cfog, or dense for the shipped run")
    parser.add_argument("--folder", type=Path, help="where the maps are written, and removed again")
    options = parser.parse_args()
    rows = []
    for side in options.sides:
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            ProcessPoolExecutor(1, get_context("spawn")) as pool,
        ):
            rows.append(pool.submit(measured, side, options.method, Path(folder)).result())
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
