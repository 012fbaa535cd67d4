"""How well strips are located: against the number of windows fused, how sure, and how often "not on this map" is right.

Strips are cut where they lie wholly on data. The likelihood is calibrated on validation ground (strips there, and the
same strips looked for on the map of another town), and everything is measured on the test area, which neither training
nor calibration has seen. Of a simulated strip the ground it really shows is known; of a real one, what it claims.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.warp import transform

from sarmatch.atomic_io import write
from sarmatch.datasets.rasters import write_geotiff
from sarmatch.encoders import Encoder
from sarmatch.evaluation import block_ids, bootstrap_mean
from sarmatch.evaluation.calibration import reliability
from sarmatch.experiments.provenance import made_with
from sarmatch.localization.fix import NEAR_CELLS, NEAR_M, NORTH_UP
from sarmatch.localization.fusion import Likelihood, Posterior, aligned, diffused, fuse, log_likelihood, posterior_of
from sarmatch.localization.location import LONLAT, SHIPPED, calibration_of, keep_calibration, self_similarity
from sarmatch.localization.tiles import compared_by, maps_on
from sarmatch.localization.windows import Windows, cut_windows, offsets, posed_features
from sarmatch.patches import regions
from sarmatch.progress import progress
from sarmatch.scenes import Raster, Scene
from sarmatch.search import DenseGallery, DenseSearch
from sarmatch.simulation.simulate import PRESETS, true_places
from sarmatch.training.runs import Run, load_run, map_of, query_mean

WITHIN = (10, 25, 50, 100)  # metres
LONGEST = 8  # windows
CALIBRATION = 5  # windows of a strip in calibration
TEMPERATURES, OUTLIERS = (0.005, 0.01, 0.02), (0.1,)
DRIFTS, SPREADS = (0.5, 1.0), (0.0, 1.0, 2.0, 3.0)  # cells
COUNTS = (1, 2, 3, 5, 8)  # windows fused
SURE = 0.9
EXAMPLE_CRS, EXAMPLE_CORNER = "EPSG:32632", (500_000.0, 5_000_000.0)  # where a simulated map is laid, metres


class Cut(NamedTuple):
    """A strip cut for the study: where from, its windows, where their centres truly are `(W, 2)`, local metres; its
    pixels, and where its top left is said to lie on the area's grid."""

    area: str
    windows: Windows
    true: NDArray[np.float64]
    raster: Raster
    row: int
    col: int


def cut_strips(scene: Scene, ground: pd.DataFrame, size: int, windows: int, count: int, seed: int = 0) -> list[Cut]:
    """Strips of so many windows in a row, at random places and along either axis, wholly on data.

    Parameters
    ----------
    scene
        Where from.
    ground
        Rectangles of strips as `sarmatch.patches.regions` gives them.
    size
        Pixels along the side of a window.
    windows, count, seed
        In a strip, and how many strips; fewer where the ground holds none.
    """
    rng = np.random.default_rng(seed)
    found: list[Cut] = []
    rows = list(ground.itertuples())
    for _ in range(200 * count):
        if len(found) == count:
            break
        r = rows[rng.integers(len(rows))]
        high, wide = ((windows * size, size), (size, windows * size))[rng.integers(2)]
        if r.row1 - r.row0 < high or r.col1 - r.col0 < wide:
            continue
        raster = scene.area(r.area).strip(r.strip)
        row, col = (int(rng.integers(a, b + 1)) for a, b in ((r.row0, r.row1 - high), (r.col0, r.col1 - wide)))
        tops = row + size * np.arange(windows) * (high > wide)
        lefts = col + size * np.arange(windows) * (wide > high)
        if not raster.covers(tops, lefts, size).all() or not _in_one(raster, row, col, high, wide):
            continue
        part = Raster.from_array(r.strip, raster.read(row, col, high, wide), raster.scale)
        part = replace(part, window=raster.window)
        cut = cut_windows(part, size)
        xy = scene.metres(r.area, row + cut.centre[:, 0], col + cut.centre[:, 1])
        found.append(Cut(r.area, cut, _truth(scene, r.area, r.strip, xy), part, row, col))
    return found


def _in_one(raster: Raster, row: int, col: int, high: int, wide: int) -> bool:
    """Whether a strip lies in one tile of a raster whose tiles are not seamless."""
    return raster.joined or any(
        t.row <= row and t.col <= col and row + high <= t.row + t.height and col + wide <= t.col + t.width
        for t in raster.tiles
    )


def _truth(scene: Scene, area: str, strip: str, xy: NDArray) -> NDArray[np.float64]:
    """Where a strip really is: of a simulated one what it shows, of a real one what it claims."""
    return true_places(PRESETS[scene.name], scene, area, strip, xy) if scene.name in PRESETS else xy


class Stack(NamedTuple):
    """Scores of a strip's windows at every place of a map, where they lie in the strip in cells `(W, 2)`, and the cells
    where they truly are `(W, 2)`; none where they are not on this map."""

    scores: NDArray[np.float32]
    steps: NDArray[np.float64]
    true: NDArray[np.float64] | None


def stack_of(gallery: DenseGallery, search: DenseSearch, encoder: Encoder, cut: Cut, present: bool) -> Stack:
    """Scores of a strip at every place of the one map of a gallery."""
    (fmap,) = gallery.maps.values()
    features, _ = posed_features(encoder, cut.windows, NORTH_UP[0])
    (scores,) = search.surfaces(features)
    moved = offsets(cut.windows.centre, NORTH_UP[0]) / encoder.levels[0]
    true = None
    if present:
        half = np.array(features.shape[2:]) / 2
        row, col = (fmap.corner[1] - cut.true[:, 1]) / fmap.metres, (cut.true[:, 0] - fmap.corner[0]) / fmap.metres
        true = np.stack([row, col], 1) - half
    return Stack(scores.numpy(), moved, true)


def fused(stack: Stack, model: Likelihood, cell: float, count: int, at: int) -> Posterior:
    """The posterior of window `at` by the first `count` of a strip."""
    steps = np.round(stack.steps[:count] - stack.steps[at]).astype(np.int64)
    levels = (log_likelihood(s, model).astype(np.float32) for s in stack.scores[:count])
    laid = list(aligned(levels, steps, math.log(model.outliers)))
    return posterior_of(diffused(fuse(laid, model.drift / cell, at), model.spread / cell), model)


def calibrate(stacks: Sequence[Stack], cell: float, near_m: float, absent: float = 0.2) -> tuple[Likelihood, float]:
    """The likelihood under which strips of validation ground are likeliest to lie where they do, or nowhere.

    Parameters
    ----------
    stacks
        Of strips that lie on the map and of as many that do not.
    cell, near_m
        Metres of a cell, and within which a place counts as the true one.
    absent
        Fraction of strips that is said not to lie on the map; in calibration it is half, as the strips are.

    Returns
    -------
    The likelihood, and the mean log-probability of the truth under it.
    """

    def value(model: Likelihood) -> float:
        total = 0.0
        for s in stacks:
            at = len(s.scores) // 2
            found = fused(s, model, cell, len(s.scores), at)
            given = found.absent if s.true is None else found.within(s.true[at], near_m / cell)
            total += math.log(max(given, 1e-6)) / len(stacks)
        return total

    def covers(model: Likelihood) -> bool:
        """Whether the search area holds as many true places as it says."""
        known = [s for s in stacks if s.true is not None]
        held = [_in_area(fused(s, model, cell, len(s.scores), len(s.scores) // 2), s) for s in known]
        return float(np.mean(held)) >= SURE

    first = [Likelihood(t, e, cell, 0.5, 0.0) for t, e in product(TEMPERATURES, OUTLIERS)]
    best = max(progress(first, desc="calibration", unit="model"), key=value)
    best = max((replace(best, drift=d * cell) for d in DRIFTS), key=value)
    spreads = [replace(best, spread=s * cell) for s in SPREADS]
    best = next((m for m in spreads if covers(m)), spreads[-1])
    return replace(best, absent=absent), value(best)


def _in_area(found: Posterior, stack: Stack, at: int | None = None) -> bool:
    """Whether the search area of a posterior holds the true place of a window, the middle one by default."""
    inside = found.area(SURE)
    true = stack.true[len(stack.true) // 2 if at is None else at]
    row, col = np.clip(np.round(true).astype(int), 0, np.array(inside.shape) - 1)
    return bool(inside[row, col])


def measured(stack: Stack, model: Likelihood, cell: float, near_m: float) -> Iterator[dict[str, float]]:
    """What is found with the first windows of a strip, as many as `COUNTS` says: a row each."""
    for count in (n for n in COUNTS if n <= len(stack.scores)):
        at = count // 2
        found = fused(stack, model, cell, count, at)
        place = found.peaks(1, 1).at[0]
        row = {"windows": count, "absent": found.absent, "probability": found.within(place, near_m / cell)}
        if stack.true is not None:
            true = stack.true[at]
            row["error_m"] = float(np.hypot(*(place - true))) * cell
            row["in_area"] = float(_in_area(found, stack, at))
            row["area_km2"] = float(found.area(SURE).sum()) * (cell / 1000) ** 2
            row |= {"x": float(true[1]) * cell, "y": float(true[0]) * cell}
        yield row


def locating_table(
    run: Run, folder: Path, count: int = 150, longest: int = LONGEST, calibration: int = 40
) -> pd.DataFrame:
    """Strips of the test area located by the encoder of a run and by its baseline; kept as CSV, with the calibration.

    Parameters
    ----------
    run
        Of either search; beside it stands its own baseline.
    folder
        Where `strips_METHOD.csv` (a row per strip and number of windows), `table.csv` and `calibration.json` are kept;
        what is there already is not made anew.
    count
        Strips of the test area, and half as many of other areas that are looked for there.
    longest
        Windows of a strip.
    calibration
        Strips of validation ground, and as many again that are not on the map.

    Returns
    -------
    DataFrame, a row per method and number of windows, see `summary`.

    Raises
    ------
    ValueError
        For a run on a cross-view set, or a scene without validation ground or a test area.
    """
    scene, config = map_of(run.config), run.config
    size = config.patch_size or scene.patch_size
    ground = regions(scene, "cross_area", guard=2 * size)
    test, val = ground[ground.split == "test"], ground[ground.split == "val"]
    others = ground[ground.split == "train"]
    asked = cut_strips(scene, test, size, longest, count, seed=1)
    strangers = cut_strips(scene, others, size, longest, count // 2, seed=2)
    known = cut_strips(scene, val, size, min(CALIBRATION, longest), calibration, seed=3)
    compared = {
        config.encoder: compared_by(run.encoder, config, size, lambda: run.query_mean, run.whitens),
        config.baseline: compared_by(run.baseline, config, size, lambda: query_mean(run.baseline, scene, config)),
    }
    tables: list[pd.DataFrame] = []
    models: dict[str, Likelihood] = {}
    commits: dict[str, str] = {}
    for name, encoder in compared.items():
        cell = encoder.levels[0] * scene.pixel_size
        near_m = max(NEAR_M, NEAR_CELLS * cell)
        kept = folder / f"strips_{name}.csv"
        own = calibration_of(name, folder / "calibration.json")
        if own is None or not kept.is_file():  # the same command goes on where it was cut off
            own, value = calibrate(list(_validation(scene, encoder, known, others)), cell, near_m)
            print(f"{name}: {own}, mean log-probability of the truth {value:.3f}", flush=True)
            stacks = enumerate(_tested(scene, encoder, asked, strangers))
            rows = [{"strip": i, **row} for i, stack in stacks for row in measured(stack, own, cell, near_m)]
            made = pd.DataFrame(rows).assign(method=name, near_m=near_m, scene=Path(config.scene).name)
            about = made_with()
            write(kept, partial(made.assign(data=scene.label, **about).round(4).to_csv, index=False))
            keep_calibration(models | {name: own}, commits | {name: about["commit"]}, folder / "calibration.json")
        models[name] = own
        tables.append(pd.read_csv(kept, dtype={"commit": str}))
        commits[name] = tables[-1]["commit"].iloc[0]
    table = summary(pd.concat(tables), 4 * size * scene.pixel_size)
    write(folder / "table.csv", partial(table.to_csv, index=False))
    return table


def _searches(scene: Scene, encoder: Encoder) -> Callable[[str], tuple[DenseGallery, DenseSearch, Encoder]]:
    """Gallery, search and encoder of windows of an area by its name, each made once."""
    made: dict[str, tuple[DenseGallery, DenseSearch, Encoder]] = {}

    def of(area: str) -> tuple[DenseGallery, DenseSearch, Encoder]:
        if area not in made:
            gallery, ready = maps_on(encoder, scene, [area])
            made[area] = gallery, DenseSearch(gallery, ready), ready
        return made[area]

    return of


def _validation(scene: Scene, encoder: Encoder, known: Sequence[Cut], others: pd.DataFrame) -> Iterator[Stack]:
    """Strips of validation ground on their own map, and on that of another area where there is one."""
    of = _searches(scene, encoder)
    areas = list(others["area"].unique())
    for cut in progress(known, desc="strips of validation ground", unit="strip"):
        yield stack_of(*of(cut.area), cut, True)
        elsewhere = [a for a in areas if a != cut.area]
        if elsewhere:
            yield stack_of(*of(elsewhere[0]), cut, False)


def _tested(scene: Scene, encoder: Encoder, asked: Sequence[Cut], strangers: Sequence[Cut]) -> Iterator[Stack]:
    """Strips of the test area, and strangers, on its map."""
    of = _searches(scene, encoder)
    for cut in progress(asked, desc="strips of the test area", unit="strip"):
        yield stack_of(*of(cut.area), cut, True)
    for cut in progress(strangers, desc="strips of other areas", unit="strip"):
        yield stack_of(*of(asked[0].area), cut, False)


def summary(strips: pd.DataFrame, block_m: float) -> pd.DataFrame:
    """A row per method and number of windows, of strips as `measured` gives them.

    Returns
    -------
    DataFrame with `within_Nm` and its 95 % interval over spatial blocks, `median_m`, `sure` (fraction of strips whose
    probability is 0.9 or more), `sure_right` (of those, within `near_m`), `in_area` (the true place lies in the 90 %
    search area), `area_km2` (its median), `ece` of the probability, and `called_absent`: of strips on the map and of
    strangers, what is said not to be on it.
    """
    rows = []
    for (method, windows), group in strips.groupby(["method", "windows"], sort=False):
        on, off = group[group["error_m"].notna()], group[group["error_m"].isna()]
        blocks = block_ids(on[["x", "y"]].to_numpy(), block_m)
        row = {"scene": group["scene"].iloc[0], "data": group["data"].iloc[0], "method": method, "windows": windows}
        row["commit"] = group["commit"].iloc[0]
        row |= {"strips": len(on), "strangers": len(off), "near_m": group["near_m"].iloc[0]}
        for metres in WITHIN:
            right = (on["error_m"] <= metres).to_numpy(float)
            mean, low, high = bootstrap_mean(right, blocks)
            row |= {f"within_{metres}m": mean, f"within_{metres}m_low": low, f"within_{metres}m_high": high}
        right = (on["error_m"] <= on["near_m"]).to_numpy()
        sure = ((on["probability"] >= SURE) & (on["absent"] < 0.5)).to_numpy()
        row |= {"median_m": on["error_m"].median(), "sure": sure.mean()}
        row["sure_right"] = right[sure].mean() if sure.any() else math.nan
        row |= {"in_area": on["in_area"].mean(), "area_km2": on["area_km2"].median()}
        row["ece"] = reliability(on["probability"].clip(0, 1).to_numpy(), right.astype(float), 10)["ece"]
        row["called_absent"] = float((on["absent"] >= 0.5).mean())
        row["strangers_called_absent"] = float((off["absent"] >= 0.5).mean()) if len(off) else math.nan
        row["strangers_sure"] = float((off["probability"] >= SURE).mean()) if len(off) else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def example_files(scene: Scene, cut: Cut, folder: Path) -> tuple[Path, Path]:
    """A strip and the map of its area as GeoTIFFs, as anybody's own would be; the strip does not say where it lies.

    The map is laid into UTM zone 32 where the scene has no coordinate reference system.

    Returns
    -------
    The files, `strip.tif` and `map.tif`.
    """
    chart = scene.area(cut.area).map
    top, left, bottom, right = chart.bounds
    colours = (255 * chart.read(top, left, bottom - top, right - left)).round().astype(np.uint8)
    row0, col0, row1, col1 = cut.raster.bounds
    power = cut.raster.read(row0, col0, row1 - row0, col1 - col0)
    place = Affine.translation(*EXAMPLE_CORNER) @ Affine.scale(scene.pixel_size, -scene.pixel_size)
    files = folder / "strip.tif", folder / "map.tif"
    for path, bands, more in ((files[0], power, {}), (files[1], colours, {"crs": EXAMPLE_CRS, "transform": place})):
        write_geotiff(path, bands, **more)
    return files


class Example(NamedTuple):
    """A simulated strip and a map to look for it on."""

    strip: Path
    map: Path
    pixel_size: float  # metres
    lonlat: tuple[float, float]  # of the centre of the strip's middle window, degrees


def write_example(folder: Path, run: Path = SHIPPED, windows: int = 5, seed: int = 7) -> Example:
    """Write a strip of a simulated town and the town's map, for who has no GeoTIFFs of their own.

    Parameters
    ----------
    folder
        Where to; made where it is missing.
    run
        The run of dense search whose test area it is taken from.
    windows
        In a row along the strip, an odd number: the place told is that of the middle one.
    seed
        Of the place.
    """
    finished = load_run(run)
    scene = finished.scene()
    size = scene.patch_size
    ground = regions(scene, finished.config.protocols[0], 2 * size).query("split == 'test'")
    (cut,) = cut_strips(scene, ground, size, windows, 1, seed)
    folder.mkdir(parents=True, exist_ok=True)
    strip, chart = example_files(scene, cut, folder)
    at = cut.true[windows // 2] - scene.area(cut.area).origin + EXAMPLE_CORNER
    (longitude,), (latitude,) = transform(EXAMPLE_CRS, LONLAT, [at[0]], [at[1]])
    return Example(strip, chart, scene.pixel_size, (longitude, latitude))


def ambiguity_of(gallery: DenseGallery, cells: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much each place of a map looks like another place of the same map.

    Parameters
    ----------
    gallery
        Feature maps of one map.
    cells
        Side of a place.

    Returns
    -------
    Local metres of places on a grid `(N, 2)`, and of each the highest correlation with another `(N,)`.
    """
    search = DenseSearch(gallery)
    (fmap,) = gallery.maps.values()
    side = round(cells)
    high, wide = fmap.features.shape[1:]
    grid = [np.arange(side / 2, n - side / 2 + 0.1, side) for n in (high, wide)]
    row, col = (a.ravel() for a in np.meshgrid(*grid, indexing="ij"))
    places = fmap.metres_of(row, col)
    return places, np.array([self_similarity(search, xy, side) for xy in places])
