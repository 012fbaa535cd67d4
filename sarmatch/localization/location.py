"""From two image files to a place: a strip whose place nobody knows, looked for on a map."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from sarmatch.atomic_io import read_json, write_json
from sarmatch.checks import whole_number
from sarmatch.datasets.mosaic import Layout
from sarmatch.datasets.unplaced import map_scene, nominal_pose, unplaced_strip
from sarmatch.encoders import Encoder, create_encoder
from sarmatch.localization.fix import Fix, Near, find_strip
from sarmatch.localization.fusion import Likelihood, rivals
from sarmatch.localization.tiles import compared_by, maps_on
from sarmatch.localization.windows import LEAST, PLAIN_DB, Windows, contrast, cut_windows, poses
from sarmatch.paths import shipped
from sarmatch.scenes import Raster, Scene
from sarmatch.search import DenseSearch
from sarmatch.search.correlate import Correlator
from sarmatch.search.keeping import on_own_device
from sarmatch.training.runs import Run, load_run, map_of

SHIPPED = shipped("data/dense")
CALIBRATED = shipped("data/results/localization/calibration.json")
OWN_CALIBRATION = "localization.json"  # in the folder of a run of one's own
TRAINING_FREE = ("cfog",)
WINDOW = 200  # pixels of a window where no run says it
CELL_M = 2.0  # metres of a cell without training, at least two pixels and four at most
COARSER = 2.0  # times the pixels of the encoder that those of a map may have
SCALE_STEP = 0.05
TURNED = tuple(range(0, 360, 10))  # north among them, as of many a strip: no finer heading is tried before the fit
BRIGHT_DB, BRIGHT = 8.0, 0.17  # decibels above the median, and the fraction of pixels, of tall buildings: the best of
# `benchmarks/layover.py`, balanced accuracy 0.77 on 300 strips of simulated training towns, 0.87 on 300 of another
ALIKE = 0.8  # correlation of the map with another place of its own above which it counts as self-similar
SECOND = 0.05  # probability of a runner-up that is worth a warning
LONLAT = CRS.from_epsg(4326)


class Finder(NamedTuple):
    """What a strip is looked for with."""

    encoder: Encoder
    name: str  # of the encoder
    pixel_size: float | None  # metres that the encoder has learned from; None where it takes the map's own
    window: int  # pixels
    likelihood: Likelihood | None  # None where nobody has calibrated it


class LocationWarning(UserWarning):
    """Something that one should know before believing where a strip is said to lie."""


@dataclass(frozen=True, eq=False)
class Location:
    """Where a strip lies on a map, with all that is shown of it.

    Attributes
    ----------
    fix : Fix
        In local metres.
    scene : Scene
        The map, in its coordinate reference system.
    strip : Raster
        At the pixel size of the map as it was read.
    zoom : float
        Pixels of its file along one of them.
    window : int
        Pixels along the side of a window.
    method : str
        Name of the encoder.
    calibrated : bool
        Whether the probability was calibrated for this method, on simulated validation ground or by its owner.
    warnings : tuple of str
        What one should know before believing it.
    """

    fix: Fix
    scene: Scene
    strip: Raster
    zoom: float
    window: int
    method: str
    calibrated: bool
    warnings: tuple[str, ...]

    @property
    def on_map(self) -> bool:
        """Whether the strip lies on this map; if not, that is the answer."""
        return self.fix.on_map

    @property
    def probability(self) -> float:
        """That the middle of the strip lies within `fix.near_m` of where it is said to."""
        return self.fix.probability

    @property
    def absent(self) -> float:
        """Probability that the strip does not lie on this map."""
        return self.fix.posterior.absent

    @cached_property
    def lonlat(self) -> NDArray[np.float64]:
        """Longitude and latitude of the middle window's centre."""
        return self.to_lonlat(self.fix.place[None])[0]

    def to_lonlat(self, xy: NDArray) -> NDArray[np.float64]:
        """Local metres `(N, 2)` to longitude and latitude in WGS 84."""
        return np.stack(warp_points(self.scene.crs, LONLAT, *self.scene.to_crs(np.reshape(xy, (-1, 2))).T), 1)

    def corners(self, row: float, col: float, height: float, width: float) -> NDArray[np.float64]:
        """Local metres `(4, 2)` of a rectangle of the strip's pixels, clockwise from its top left."""
        at = np.array([(col, row), (col + width, row), (col + width, row + height), (col, row + height)])
        return np.stack(self.fix.affine @ tuple(at.T), 1)

    @property
    def footprint(self) -> NDArray[np.float64]:
        """Local metres `(4, 2)` of the strip's corners."""
        row0, col0, row1, col1 = self.strip.bounds
        return self.corners(row0, col0, row1 - row0, col1 - col0)

    @property
    def affine(self) -> Affine:
        """Pixels `(column, row)` of the strip as it was read to coordinates of the map's reference system."""
        return frame_of(self.scene) @ self.fix.affine

    def __str__(self) -> str:
        if not self.on_map:
            return f"not on this map (probability {self.absent:.2f})"
        lon, lat = self.lonlat
        return (
            f"longitude {lon:.6f}, latitude {lat:.6f}, within {self.fix.near_m:.0f} m with probability "
            f"{self.probability:.2f}{'' if self.calibrated else ' (not calibrated)'}"
        )


def frame_of(scene: Scene) -> Affine:
    """Local metres of a scene to coordinates of its reference system."""
    assert scene.crs_transform is not None  # as of every map of one file
    return Affine(*scene.crs_transform[0], *scene.crs_transform[1])


def finder(run: Run | Path | str | None = None, method: str | None = None) -> Finder:
    """What a strip is looked for with: a run, the shipped one by default, or a method by name.

    Raises
    ------
    ValueError
        For both at once, a method that nobody knows, or a run on data without a map in metres.
    FileNotFoundError
        Where there is no such run.
    """
    if method is not None:
        if run is not None:
            raise ValueError(f"method is {method!r} and run is {run}: expected one of the two")
        if method not in TRAINING_FREE:
            raise ValueError(f"method is {method!r}, expected one of {TRAINING_FREE}, or a run")
        return Finder(create_encoder(method), method, None, WINDOW, calibration_of(method))
    run = load_run(SHIPPED if run is None else run) if not isinstance(run, Run) else run
    scene = map_of(run.config)
    if scene.pixel_size is None:
        raise ValueError(f"{run.path}: was trained on {scene.name!r}, which does not say how large its pixels are")
    own = run.path / OWN_CALIBRATION
    is_shipped = run.path.resolve() == SHIPPED.resolve()
    known = _likelihood(own, read_json(own, dict)) if own.is_file() else calibration_of("dense") if is_shipped else None
    size = run.config.patch_size or scene.patch_size
    encoder = compared_by(run.encoder, run.config, size, lambda: run.query_mean, run.whitens)
    if encoder.inputs["query"].image_size is not None and size < LEAST:
        raise ValueError(f"{run.path}: compares tiles of {size} px, expected {LEAST} or more to locate a strip")
    return Finder(encoder, run.config.encoder, scene.pixel_size, max(LEAST, size), known)


def calibration_of(name: str, path: Path = CALIBRATED) -> Likelihood | None:
    """The likelihood of a method as it was calibrated on validation ground; None where nobody has."""
    known = read_json(path, dict) if path.is_file() else {}
    fields = {k: v for k, v in known.get(name, {}).items() if k != "commit"}
    return _likelihood(path, fields) if name in known else None


def _likelihood(path: Path, fields: dict) -> Likelihood:
    """The likelihood of a file; a ValueError names a file that holds none."""
    try:
        return Likelihood(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not usable as a likelihood ({error})") from error


def keep_calibration(likelihoods: dict[str, Likelihood], commits: dict[str, str], path: Path = CALIBRATED) -> None:
    """Keep calibrated likelihoods by the name of their method, each with the commit it was calibrated at."""
    write_json(path, {name: asdict(model) | {"commit": commits[name]} for name, model in likelihoods.items()})


def locate(
    strip: Path | str,
    map: Path | str,  # the word that users say
    run: Run | Path | str | None = None,
    *,
    method: str | None = None,
    heading: float | str | None = None,
    scale: float | Sequence[float] = 1.0,
    pixel_size: float | None = None,
    near: tuple[float, float] | None = None,
    radius: float | None = None,
    window: int | None = None,
    **layout,
) -> Location:
    """Where on a map a SAR strip lies, of which only the pixel size and the nominal heading are known.

    Parameters
    ----------
    strip
        SAR image. Where it claims to lie is not looked at; its pixel size and heading are, where it says them.
    map
        Georeferenced optical image, of any size: it is read and encoded by window, and its features are kept.
    run
        Run, or its folder; the shipped one of dense search by default. One of vector search compares the vector of a
        window with those of tiles of its own size and stride, which are kept, and whitened as by `Run.find`. Places are
        as coarse as its grid then: the probability is that of lying within three of its steps, and no tie points
        correct the pose.
    method
        A method that needs no training instead, `cfog`.
    heading
        Degrees clockwise from north at which the strip's top points, or `unknown` to try all; as its file says, else 0.
    scale
        How much larger its pixels may be than `pixel_size` says: a number, or the ends of a range.
    pixel_size
        Metres on the ground per pixel of the strip; as its file says by default.
    near, radius
        Longitude and latitude near which it should lie, and within how many metres (95 %).
    window
        Side of a window in pixels of the map as it is read; that of the run by default, less where the strip is
        narrower. For a run of vector search it is the side of a tile, and cannot be another.
    layout
        `sar_scale`, `sar_bands`, `zero_is_nodata` and the like of `sarmatch.datasets.mosaic.Layout`.

    Raises
    ------
    ValueError
        For options that do not fit, a strip or a map that cannot be used, or a run that was trained on no map, as on a
        cross-view set; the file and the value are named. That a strip does not lie on this map is no error but the
        answer: `Location.on_map`.

    Notes
    -----
    The processes of an `accelerate launch` share what is made of a new map and the search, each on its own device: all
    of them have to ask, and get the same answer.

    Examples
    --------
    >>> found = sm.locate("strip.tif", "map.tif")  # doctest: +SKIP
    >>> found.lonlat, found.probability  # doctest: +SKIP
    """
    if near is None and radius is not None:
        raise ValueError(f"radius is {radius} and near is None, expected both or neither")
    if window is not None:
        whole_number("window", window, LEAST)
    wanted = finder(run, method)
    strip, map = Path(strip), Path(map)
    scene = _map_for(map, wanted, layout)
    pixel_size, headings = _nominal(strip, pixel_size, heading)
    raster = unplaced_strip(strip, pixel_size, scene.pixel_size, Layout(**layout))
    encoder = _encoder_for(wanted, scene)
    raster = _bands_for(raster, encoder, strip)
    whole = encoder.inputs["query"].image_size is not None
    cell = wanted.window if whole else max(encoder.levels)
    if whole and window not in (None, cell):
        raise ValueError(f"window is {window}, and the run compares tiles of {cell} px: expected no other")
    side = _window(raster, scene, window or wanted.window, cell, strip, map)
    windows, small = cut_windows(raster, side), None if whole else _small(raster, side, cell)
    gallery, encoder = maps_on(encoder, scene)
    (fmap,) = gallery.maps.values()
    model = wanted.likelihood or _usual(fmap.metres)
    tried = list(poses(headings, _scales(scale)))
    about = None if near is None else _near(scene, near, radius)
    with on_own_device(encoder):
        fix = find_strip(gallery, encoder, windows, model, tried, about, small)
    said = tuple(_warnings(fix, windows, DenseSearch(gallery, encoder), max(1, side // encoder.levels[0])))
    for text in said:
        warnings.warn(f"{strip.name}: {text}", LocationWarning, stacklevel=2)
    zoom = scene.pixel_size / pixel_size
    return Location(fix, scene, raster, zoom, side, wanted.name, wanted.likelihood is not None, said)


def _encoder_for(wanted: Finder, scene: Scene) -> Encoder:
    """The encoder at the cells that it has on a map."""
    if wanted.pixel_size is not None:
        return wanted.encoder
    return create_encoder(wanted.name, stride=int(np.clip(round(CELL_M / scene.pixel_size), 2, 4)))


def _usual(cell: float) -> Likelihood:
    """The likelihood of a method that nobody has calibrated: a cell of drift and of spread, at least."""
    usual = Likelihood()
    return replace(usual, drift=max(usual.drift, cell), spread=max(usual.spread, cell))


def _map_for(path: Path, wanted: Finder, layout: dict) -> Scene:
    """The map at the pixel size that an encoder has learned from."""
    options = {k: v for k, v in layout.items() if k in ("optical_bands", "nodata")}
    own = nominal_pose(path)
    # rounded: a metre of a map projection is a little more or less than one on the ground
    if own is not None and wanted.pixel_size is not None and round(own[0] / wanted.pixel_size, 2) > COARSER:
        raise ValueError(
            f"{path}: its pixels are {own[0]:g} m and the encoder has learned from {wanted.pixel_size:g} m, expected "
            f"{COARSER * wanted.pixel_size:g} m or finer; take a run that was trained at such a size, or method 'cfog'"
        )
    return map_scene(path, wanted.pixel_size, **options)


def _nominal(path: Path, pixel_size: float | None, heading: float | str | None) -> tuple[float, tuple[float, ...]]:
    """Pixel size and headings of a strip: as somebody says, else as its file does."""
    own = nominal_pose(path)
    if pixel_size is None:
        if own is None:
            raise ValueError(f"{path}: does not say how large its pixels are; expected a pixel_size in metres")
        pixel_size = own[0]
    if not (isinstance(pixel_size, Real) and math.isfinite(pixel_size) and pixel_size > 0):
        raise ValueError(f"pixel_size is {pixel_size!r}, expected metres above 0")
    if heading == "unknown":
        return pixel_size, TURNED
    if heading is None:
        heading = 0.0 if own is None else round(own[1], 6) % 360
    if not isinstance(heading, (int, float, np.number)) or not math.isfinite(heading):
        raise ValueError(f"heading is {heading!r}, expected degrees clockwise from north, or 'unknown'")
    return pixel_size, (float(heading),)


def _scales(scale: float | Sequence[float]) -> tuple[float, ...]:
    """The scales that are tried: one, or a range in steps of 5 %."""
    ends = [scale, scale] if isinstance(scale, Real) else list(scale) if isinstance(scale, Sequence) else []
    if len(ends) != 2 or not all(isinstance(v, Real) for v in ends) or not 0.5 <= ends[0] <= ends[1] <= 2:
        raise ValueError(f"scale is {scale!r}, expected a number or a range from 0.5 to 2")
    low, high = ends
    return tuple(np.linspace(low, high, 1 + math.ceil((high - low) / SCALE_STEP - 1e-9)))


def _bands_for(raster: Raster, encoder: Encoder, path: Path) -> Raster:
    """The bands that an encoder takes, the first ones of the strip."""
    count = encoder.inputs["query"].channels
    if raster.channels < count:
        raise ValueError(f"{path}: has {raster.channels} bands, and the encoder was trained on {count}")
    return raster.select(raster.bands[:count])


def _window(raster: Raster, scene: Scene, window: int, cell: int, strip: Path, path: Path) -> int:
    """Side of a window that fits strip and map; a ValueError says which is too small or too large."""
    (row0, col0, row1, col1), (top, left, bottom, right) = raster.bounds, scene.areas[0].map.bounds
    high, wide, height, width = row1 - row0, col1 - col0, bottom - top, right - left
    metres = scene.pixel_size
    if high * wide > height * width or max(high, wide) > math.hypot(height, width):
        raise ValueError(
            f"{strip}: shows {wide * metres:,.0f} x {high * metres:,.0f} m, more than the map {path.name}, "
            f"{width * metres:,.0f} x {height * metres:,.0f} m; is a pixel size wrong?"
        )
    side = min(window, high, wide) // cell * cell
    if side < LEAST:
        least = max(LEAST, cell)
        raise ValueError(
            f"{strip}: is {wide} x {high} px at the map's {metres:g} m, expected {least} px or more a side"
        )
    if min(height, width) < side or (height - side) * (width - side) < side**2:
        raise ValueError(
            f"{path}: its {width} x {height} px are hardly more than one window of {side} px, so there is nothing to "
            "look for; expected a larger map, or a smaller window"
        )
    return side


def _small(raster: Raster, side: int, cell: int) -> Windows | None:
    """Half as large windows, overlapping, that become tie points."""
    half = max(LEAST, side // 2 // cell * cell)
    try:
        return cut_windows(raster, half, max(1, half * 2 // 3), most=64)
    except ValueError:  # too narrow a strip, or nodata in each of them
        return None


def _near(scene: Scene, near: tuple[float, float], radius: float | None) -> Near:
    """Where on a map somebody says that the strip lies."""
    if radius is None or not radius > 0:
        raise ValueError(f"radius is {radius}, expected metres above 0 about the place {near}")
    try:
        longitude, latitude = map(float, near)
    except (TypeError, ValueError):
        longitude = latitude = math.nan
    if not (abs(longitude) <= 180 and abs(latitude) <= 90):
        raise ValueError(f"near is {near!r}, expected a longitude and a latitude in degrees")
    x, y = (v[0] for v in warp_points(LONLAT, scene.crs, [longitude], [latitude]))
    east, north = ~frame_of(scene) @ (x, y)
    (area,) = scene.areas
    top, left, bottom, right = area.map.bounds
    (west, upper), (last, lower) = scene.metres(area.name, np.array([top, bottom]), np.array([left, right]))
    off = math.hypot(east - np.clip(east, west, last), north - np.clip(north, lower, upper))
    if off > radius:
        raise ValueError(f"near is {near}, {off:,.0f} m beside the map, and radius is {radius:g} m")
    return Near((east, north), radius)


def bright_fraction(windows: Windows, above_db: float = BRIGHT_DB) -> float:
    """Fraction of a strip's pixels that are so many decibels brighter than its median."""
    power = windows.images.mean(1)
    return float((power > power.median() + above_db).float().mean())


def _warnings(fix: Fix, windows: Windows, search: DenseSearch, cells: int) -> list[str]:
    """What one should know before believing a fix."""
    said = []
    plain = contrast(windows.images) < PLAIN_DB
    if plain.any():
        said.append(f"{plain.sum()} of {len(plain)} windows show next to nothing: water, or bare ground; expect less")
    if bright_fraction(windows) > BRIGHT:
        said.append(
            "it shows many bright edges, as tall buildings do: they are displaced towards the radar by their height "
            "over the tangent of the incidence angle, and the fix may be drawn with them"
        )
    if not fix.on_map:
        return said
    if len(fix.runners_up) and fix.runners_up[0, 2] > SECOND:
        said.append(
            f"the map is ambiguous: {(fix.runners_up[:, 2] > SECOND).sum()} other places have a probability of more "
            f"than {SECOND}"
        )
    elif (alike := self_similarity(search, fix.place, cells)) > ALIKE:
        said.append(f"the map is self-similar here: another place correlates with this one at {alike:.2f}")
    return said


def self_similarity(search: DenseSearch, xy: NDArray, cells: int) -> float:
    """The highest correlation of a map's own window about a place with any other place of the map.

    Parameters
    ----------
    search
        Over one map.
    xy
        Local metres `(2,)`.
    cells
        Side of the window.
    """
    (fmap,) = search.gallery.maps.values()
    height, width = fmap.features.shape[1:]
    row = int(np.clip(round((fmap.corner[1] - xy[1]) / fmap.metres - cells / 2), 0, height - cells))
    col = int(np.clip(round((xy[0] - fmap.corner[0]) / fmap.metres - cells / 2), 0, width - cells))
    whole = Correlator(fmap, (cells, cells), device=search.device)
    blocks = whole.blocks(fmap.cut(row, col, cells, cells).float()[None])
    return max(rivals(b.scores[0].cpu().numpy(), (row - b.row, col - b.col), cells // 2) for b in blocks)
