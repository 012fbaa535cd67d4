"""What a simulated scene costs on this machine, per stage: seconds, megapixels per second, and memory.

Usage: python benchmarks/scenes.py [SIDE ...]     (pixels; 4000 and 8000 by default)

Every stage runs in a process of its own, so that its peak memory is its own; functions are compiled by a small run
before the clock starts. The last column sets the time beside one Gaussian filter of an image of
the same size by scipy, single-threaded, in the same run: what it costs merely to touch every pixel a few times.
Last comes a street panorama, 320 x 640 px, on one core, beside the same filter of an image of its size.
"""

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage

from sarmatch.simulation import optical, render_panorama, sar, street_places, survey
from sarmatch.simulation.city import City, Grid, ground_grid
from sarmatch.simulation.simulate import PIXEL_SIZE, PRESETS, geocode

PRESET = PRESETS["standard"]
PLACES = 30  # of panoramas


def city(side: int) -> City:
    return City(seed=7, extent_m=side * PIXEL_SIZE, change=PRESET.change)


def grid(side: int) -> Grid:
    return Grid(0.0, side * PIXEL_SIZE, (side, side), PIXEL_SIZE)


def flight(side: int, heading: float = 0.0) -> sar.Acquisition:
    half = side * PIXEL_SIZE / 2
    return sar.Acquisition(x=half, y=half, length_m=2 * half, swath_m=2 * half, heading_deg=heading, altitude_m=3000.0)


def strip(side: int, bands: tuple[str, ...] = ("HH",)) -> np.ndarray:
    return sar.render_strip(city(side), flight(side), PIXEL_SIZE, seed=0, bands=bands, looks=4.0, texture_order=4.0)


def laid_onto_the_map(side: int) -> np.ndarray:
    turned = sar.strip_grid(flight(side, heading=30.0), PIXEL_SIZE)
    return geocode(np.ones((1, side, side), np.float32), turned, grid(side))


STAGES: dict[str, Callable[[int], object]] = {
    "city": lambda side: ground_grid(city(side), grid(side)),
    "optical map, with its city": lambda side: optical.render_map(city(side), grid(side), lean_deg=PRESET.lean_deg),
    "SAR strip HH, with its city": strip,
    "SAR strip HH VV HV, with its city": lambda side: strip(side, ("HH", "VV", "HV")),
    "strip laid onto the map": laid_onto_the_map,
    "baseline: Gaussian filter": lambda side: ndimage.gaussian_filter(np.ones((side, side), np.float32), 1.0),
}


def measure(stage: str, side: int) -> tuple[float, float]:
    """Seconds and peak memory in GB of one stage; called in a process of its own."""
    STAGES[stage](256)
    start = time.perf_counter()
    STAGES[stage](side)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def panorama() -> pd.Series:
    """Milliseconds of a panorama, the mean over places in a town 600 m wide, and of the filter of a colour image."""
    town = survey(City(seed=7, extent_m=600.0), Grid(0.0, 600.0, (2400, 2400), 0.25))
    places = street_places(town, PLACES, seed=0, margin_m=50.0)
    image = render_panorama(town, *places[0]).astype(np.float32)
    jobs: dict[str, Callable[[], object]] = {
        "a street panorama": lambda: [render_panorama(town, *place) for place in places],
        "baseline: Gaussian filter": lambda: [ndimage.gaussian_filter(image, (0, 1, 1)) for _ in places],
    }
    spent = {}
    for name, job in jobs.items():
        start = time.perf_counter()
        job()
        spent[name] = 1e3 * (time.perf_counter() - start) / len(places)
    return pd.Series(spent)


def main(sides: list[int]) -> None:
    context = multiprocessing.get_context("spawn")
    for side in sides:
        rows = {}
        for stage in STAGES:
            with context.Pool(1) as pool:
                rows[stage] = pool.apply(measure, (stage, side))
        table = pd.DataFrame(rows, index=["seconds", "peak GB"]).T
        table["Mpx/s"] = side**2 / 1e6 / table["seconds"]
        table["times the baseline"] = table["seconds"] / table["seconds"].iloc[-1]
        scene = table["seconds"].iloc[1:3].sum()
        print(f"{side} x {side} px, {os.cpu_count()} processors\n{table.round(2).to_string()}")
        print(f"a scene, optical map and one SAR channel: {scene:.1f} s\n")
    spent = panorama()
    table = pd.DataFrame({"ms": spent, "times the baseline": spent / spent.iloc[-1]})
    print(f"{PLACES} panoramas, mean\n{table.round(2).to_string()}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [4000, 8000])
