"""The family of georeferenced images: maps and strips in any coordinate system, brought onto one grid per area.

Nothing is copied: every file is read by window through a warped view of it (GDAL), so a map may be larger than memory.
When a scene is loaded each file is surveyed once, by window: that it can be decoded at all, where it holds data, and
between which values it lies. The survey is kept in the cache.
"""

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio import Affine
from rasterio._err import CPLE_BaseError  # what PROJ's refusals are raised as; rasterio.errors has no name for them
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from sarmatch.atomic_io import write
from sarmatch.datasets.images import DENSEST, undeclared_nodata, version_of
from sarmatch.datasets.rasters import (
    BadImageError,
    has_palette,
    open_raster,
    orientation,
    reading,
    require_file,
    sidecar_of,
    stored_type,
)
from sarmatch.paths import cache_dir
from sarmatch.progress import progress
from sarmatch.scenes.radiometry import to_decibels
from sarmatch.scenes.scene import BLOCK, Area, Raster, Scene, Tile, whole_blocks, without_overlap

GEOGRAPHIC = "EPSG:4326"
MOST_PIXELS = 2**36  # of one file: more is a forged header, not a map
FARTHEST = 1e8  # units of a metric CRS
FINEST, COARSEST = 16, 64  # a map is read at no less than 1/16 and no more than 64 times its own pixel size
SURVEY_PX = 1024  # side of the windows that a survey reads
SURVEYED = 2  # of a kept survey; another number where it changes, and old ones are left alone
SAMPLE = 16  # every so many pixels are kept for percentiles
PERCENTILES = (1.0, 99.0)
BLACK = 0.005  # share of blocks without a single return: more is the border of a strip rather than shadow
ROLES = ("train", "train", "train", "train", "val", "test")


Box = tuple[int, int, int, int]  # first row, first column, height, width on an area's grid


class Source(NamedTuple):
    """A georeferenced file as its header tells it, or as the data set says where the header is silent."""

    path: Path
    crs: CRS
    transform: Affine
    height: int
    width: int
    count: int  # type: ignore[assignment]  # hides a tuple's own count
    dtype: str  # as stored: that of complex values, whose magnitude is read, starts with `complex`
    descriptions: tuple[str | None, ...]
    alpha: bool  # whether the last band says how opaque a pixel is
    palette: bool  # whether the bands are the colours of a palette
    declares: bool  # whether the file says where it holds no data
    nodata: float | None  # that value where a file beside it says it
    version: tuple[int, int, int]  # of the file, so that one that has replaced it is not taken for it


def source_of(path: Path, crs: CRS | None = None, transform: Affine | None = None, own_place: bool = True) -> Source:
    """Read a file's header.

    Parameters
    ----------
    path
        A TIFF, PNG, JPEG or BMP.
    crs, transform
        Where the file lies if it does not say so itself, inside or by a world file or `.aux.xml` beside it.
    own_place
        Whether it is asked where it lies; else it lies where it is said to.

    Raises
    ------
    BadImageError
        Where it cannot be opened, has no place on the ground, is not stored upright, or claims an impossible size.
    """
    beside = sidecar_of(path)
    with open_raster(path) as file:
        crs = (file.crs or beside.crs if own_place else None) or crs
        transform = transform or (beside.transform if file.transform.is_identity else None) or file.transform
        height, width, count, dtype = file.height, file.width, file.count, stored_type(file)
        raw = height * width * (1 if has_palette(file) else count * np.dtype(file.dtypes[0]).itemsize)
        alpha = count > 1 and file.colorinterp[-1] == ColorInterp.alpha
        declares = file.mask_flag_enums[0] != [MaskFlags.all_valid]
        found = Source(
            Path(path), crs, transform, height, width, count, dtype, file.descriptions, alpha, has_palette(file),
            declares or beside.nodata is not None, None if declares else beside.nodata, version_of(Path(path)),
        )  # fmt: skip
    size = Path(path).stat().st_size
    if height * width > MOST_PIXELS or raw > DENSEST * size:
        raise BadImageError(f"{path}: its header claims {height} x {width} px in {size} bytes, which cannot be")
    if crs is None:
        raise BadImageError(f"{path}: has no coordinate reference system, expected a georeferenced image")
    if transform.is_identity or abs(transform.determinant) == 0 or not np.isfinite(transform).all():
        raise BadImageError(f"{path}: its pixels have no place on the ground (transform {tuple(transform)[:6]})")
    if (turned := orientation(path)) != 1:
        raise BadImageError(f"{path}: its EXIF orientation is {turned}, expected pixels stored upright (1)")
    return found


# ------------------------------------------------------------------------------------------------- coordinates
class CoordinateError(ValueError):
    """Coordinates that cannot be brought into another system, or not without bending the ground."""


def _points(source: CRS | str, target: CRS | str, x: Sequence[float], y: Sequence[float]) -> tuple[list, list]:
    """Coordinates in another system."""
    try:
        return warp_points(source, target, x, y)
    except (RasterioError, CPLE_BaseError) as error:
        raise CoordinateError(f"no way leads from {_name(source)} to {_name(target)} ({error})") from error


def _bounds(source: CRS, target: CRS, *box: float) -> tuple[float, float, float, float]:
    """The box around a box in another system."""
    try:
        return transform_bounds(source, target, *box)
    except (RasterioError, CPLE_BaseError) as error:
        raise CoordinateError(f"no way leads from {_name(source)} to {_name(target)} ({error})") from error


def _name(crs: CRS | str) -> str:
    return crs if isinstance(crs, str) else crs.to_string()[:60]


def metric_crs(source: Source) -> CRS:
    """The file's own CRS where it counts in metres, else the UTM zone of its centre."""
    if source.crs.is_projected and math.isclose(source.crs.linear_units_factor[1], 1.0):
        return source.crs
    x, y = source.transform @ (source.width / 2, source.height / 2)
    (longitude,), (latitude,) = _points(source.crs, GEOGRAPHIC, [x], [y])
    if not (abs(longitude) <= 180 and abs(latitude) <= 84):
        raise BadImageError(
            f"{source.path}: its centre lies at longitude {longitude}, latitude {latitude}; expected degrees on land"
        )
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) % 60 + 1)


def units_per_metre(crs: CRS, x: float, y: float) -> float:
    """Units of a metric CRS per metre on the ground, at a place: 1 in UTM, but 1.2 in Mercator at 34 degrees.

    Measured in an azimuthal equidistant projection about the place, where distances from it are those of the ellipsoid.
    """
    (longitude,), (latitude,) = _points(crs, GEOGRAPHIC, [x], [y])
    plane = CRS.from_proj4(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +ellps=WGS84 +units=m")
    step = 100.0
    u, v = _points(crs, plane, [x - step, x + step, x, x], [y, y, y - step, y + step])
    across = math.hypot(u[1] - u[0], v[1] - v[0]) / (2 * step)
    along = math.hypot(u[3] - u[2], v[3] - v[2]) / (2 * step)
    if not 0.98 < across / along < 1.02:
        raise CoordinateError(
            f"{crs.to_string()}: at {x:.0f}, {y:.0f} a unit is {across:.3f} m to the east and {along:.3f} m to the "
            "north; expected a projection that keeps angles"
        )
    return 2 / (across + along)


class AreaGrid(NamedTuple):
    """The pixel grid of an area: north up, in a metric CRS."""

    crs: CRS
    west: float
    north: float
    step: float  # units of the CRS per pixel
    per_metre: float  # units of the CRS per metre on the ground

    @property
    def transform(self) -> Affine:
        """Pixel `(column, row)` to coordinates."""
        return Affine(self.step, 0, self.west, 0, -self.step, self.north)

    def box(self, source: Source) -> Box:
        """Where a file lies on the grid."""
        corners = [source.transform @ c for c in ((0, 0), (source.width, 0), (0, source.height))]
        corners.append(source.transform @ (source.width, source.height))
        xs, ys = zip(*corners, strict=True)
        box = (min(xs), min(ys), max(xs), max(ys))
        if source.crs != self.crs:
            try:
                box = _bounds(source.crs, self.crs, *box)
            except CoordinateError as error:
                raise BadImageError(f"{source.path}: {error}") from error
        if not np.isfinite(box).all():
            raise BadImageError(f"{source.path}: its corners {box} do not exist in {self.crs.to_string()}")
        if max(map(abs, (box[0] - self.west, box[1] - self.north, box[2], box[3]))) > FARTHEST:
            raise BadImageError(f"{source.path}: its corners {box} lie beyond the Earth; expected coordinates of a CRS")
        left, top = (box[0] - self.west) / self.step, (self.north - box[3]) / self.step
        right, bottom = (box[2] - self.west) / self.step, (self.north - box[1]) / self.step
        low = [math.floor(round(v, 4)) for v in (top, left)]
        high = [math.ceil(round(v, 4)) for v in (bottom, right)]
        return low[0], low[1], high[0] - low[0], high[1] - low[1]


def bounded(source: Source, box: Box) -> Box:
    """The box of a file on a grid, unless it has far more pixels than the file: it would be read for days."""
    if box[2] * box[3] > 4 * FINEST**2 * source.height * source.width:
        raise BadImageError(
            f"{source.path}: its {source.height} x {source.width} px cover {box[2]} x {box[3]} px of the map, expected "
            f"at most {2 * FINEST} times as many a side; is a pixel size wrong?"
        )
    return box


def grid_of(sources: Sequence[Source], pixel_size: float | None) -> AreaGrid:
    """The grid of an area from the files of its map: its own pixels where no other size is asked for."""
    first = sources[0]
    crs = metric_crs(first)
    boxes = []
    for s in sources:
        corners = [s.transform @ c for c in ((0, 0), (s.width, 0), (0, s.height), (s.width, s.height))]
        xs, ys = zip(*corners, strict=True)
        box = (min(xs), min(ys), max(xs), max(ys))
        boxes.append(box if s.crs == crs else _bounds(s.crs, crs, *box))
    west, south, east, north = (f(b[i] for b in boxes) for i, f in enumerate((min, min, max, max)))
    per_metre = units_per_metre(crs, (west + east) / 2, (south + north) / 2)
    if first.crs == crs:
        step = math.sqrt(abs(first.transform.determinant))
    else:  # the size of a pixel in the middle of the first file
        col, row = first.width / 2, first.height / 2
        corners = [first.transform @ c for c in ((col, row), (col + 1, row), (col, row + 1))]
        x, y = _points(first.crs, crs, *zip(*corners, strict=True))
        step = math.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])))
    if pixel_size is not None:
        own = step / per_metre
        if not own / FINEST <= pixel_size <= own * COARSEST:
            raise BadImageError(
                f"{first.path}: pixel_size is {pixel_size:g} m where the map's own pixels are {own:g} m, expected "
                f"{own / FINEST:g} to {own * COARSEST:g}"
            )
        step = pixel_size * per_metre
    return AreaGrid(crs, west, north, step, per_metre)


# ------------------------------------------------------------------------------------------------------- pixels
class Warped(NamedTuple):
    """A file as it lies on an area's grid."""

    source: Source
    grid: AreaGrid
    box: Box
    indexes: tuple[int, ...]  # bands of the file, counted from 1
    zero_is_nodata: bool
    nodata: float | None = None  # value that means no data, instead of what the file declares
    settled: bool = False  # whether somebody said what is nodata, so that no value is doubted
    doubts_zero: bool = False  # whether zeros over large parts are refused rather than taken for data

    def read(self, rows: slice, cols: slice) -> NDArray:
        """Pixels of a part of the box, float32, 8-bit values divided by 255, NaN where there is no data."""
        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        view = _view(os.getpid(), threading.get_ident(), self)
        try:
            with reading():
                values = view.read(self.indexes, window=window, masked=True)
        except RasterioError as error:
            raise BadImageError(f"{self.source.path}: pixels are not readable ({error})") from error
        pixels = values.data.astype(np.float32)
        if self.source.dtype == "uint8":
            pixels /= 255
        hidden = np.ma.getmaskarray(values).any(0)
        if self.zero_is_nodata:
            hidden |= (pixels == 0).all(0)
        pixels[:, hidden] = np.nan
        return pixels


@lru_cache(maxsize=128)
def _view(process: int, thread: int, warped: Warped) -> WarpedVRT:
    """An open file. Handles of GDAL may be shared neither by threads nor across a fork, so each has its own."""
    source, grid = warped.source, warped.grid
    row, col, height, width = warped.box
    file = open_raster(source.path)
    return WarpedVRT(
        file,
        src_crs=source.crs,
        src_transform=source.transform,
        crs=grid.crs,
        transform=grid.transform @ Affine.translation(col, row),
        height=height,
        width=width,
        resampling=Resampling.bilinear,
        **_hidden(warped, file.mask_flag_enums[0] == [MaskFlags.all_valid], file.dtypes[0]),
    )


def _hidden(warped: Warped, unmasked: bool, dtype: str) -> dict[str, Any]:
    """Options of a warp that keep from being read as 0 what is no data: beside a file, or of a given value."""
    options: dict[str, Any] = {}
    if warped.nodata is not None:
        # A colour may hold a 0 in one of its bands, but no -9999.
        options = {"src_nodata": warped.nodata, "UNIFIED_SRC_NODATA": "YES" if warped.nodata >= 0 else "NO"}
    if not (unmasked or options) or warped.source.alpha:
        return options
    if dtype in ("uint8", "uint16"):
        return options | {"add_alpha": True}
    return options | {"nodata": math.nan, "dtype": "float64" if dtype == "float64" else "float32"}


class Survey(NamedTuple):
    """What one look at all pixels of a file found."""

    valid: NDArray[np.bool_]  # blocks that hold nothing but data
    sample: NDArray[np.float32]  # (bands, N) valid values
    digest: str  # stands for all pixels


#: Whether surveys are written to the cache; a check of somebody's data only reads.
KEEP: ContextVar[bool] = ContextVar("KEEP", default=True)


def survey(warped: Warped) -> Survey:
    """Read a file once, by window; the result is kept in the cache until the file changes.

    That is until its size or its time of modification does: another file with both is taken for the old one.
    A survey in the cache that cannot be read is said and made anew; one that cannot be written is said and not kept.

    Raises
    ------
    BadImageError
        Where a part cannot be decoded, nothing is valid, all valid values are equal, or some look like a nodata value
        that is not declared.
    """
    path = warped.source.path
    state = path.stat()
    what = repr(
        (SURVEYED, str(path.resolve()), state.st_size, state.st_mtime_ns, warped[1:], tuple(warped.source.transform))
    )
    kept = cache_dir() / f"survey-{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz"
    found = _kept_survey(kept, warped)
    if found is None:
        found = _look_at(warped)
        if KEEP.get():
            try:
                write(kept, partial(_save, found=found))
            except OSError as error:
                warnings.warn(f"{kept}: the survey of {path.name} cannot be kept ({error})", stacklevel=2)
    return found


def _kept_survey(kept: Path, warped: Warped) -> Survey | None:
    """The survey of an earlier load, where there is one that is whole."""
    if not os.path.lexists(kept):
        return None
    try:
        require_file(kept)
        with np.load(kept, allow_pickle=False) as arrays:
            found = Survey(arrays["valid"], arrays["sample"], str(arrays["digest"]))
        valid, sample, digest = found
        kinds = (valid.dtype, valid.shape, sample.dtype, sample.ndim, len(sample), len(digest))
        if kinds != (bool, _blocks_of(warped.box), np.float32, 2, len(warped.indexes), 32) or not sample.size:
            raise ValueError(f"valid {valid.shape} and sample {sample.shape} are not of this file")
        return found
    except Exception as error:  # whatever damage makes numpy, zip and zlib raise; their advice is not passed on
        said = "it holds pickled objects" if "pickle" in str(error) else f"{type(error).__name__}: {error}"
        warnings.warn(f"{kept}: damaged, and made anew from {warped.source.path} ({said})", stacklevel=3)
        return None


def _blocks_of(box: Box) -> tuple[int, int]:
    return -(-box[2] // BLOCK), -(-box[3] // BLOCK)


def _look_at(warped: Warped) -> Survey:
    """Read all pixels of a file by window."""
    path, (_, _, height, width) = warped.source.path, warped.box
    valid = np.zeros(_blocks_of(warped.box), bool)
    samples, black, digest = [], 0, hashlib.blake2b(digest_size=16)
    starts = [(row, col) for row in range(0, height, SURVEY_PX) for col in range(0, width, SURVEY_PX)]
    for row, col in progress(starts, desc=f"reading {path.name}", unit="window", delay=2):
        rows, cols = slice(row, min(row + SURVEY_PX, height)), slice(col, min(col + SURVEY_PX, width))
        pixels = warped.read(rows, cols)
        digest.update(pixels)
        if not warped.settled and (odd := undeclared_nodata(pixels)).any():
            raise BadImageError(
                f"{path}: {odd.sum()} values are {pixels[odd][0]:g}, which looks like nodata that the file does not "
                f"declare; {_ASK.format(value=f'{pixels[odd][0]:g}')}"
            )
        good = np.isfinite(pixels).all(0)
        blocks = whole_blocks(good)
        black += int(whole_blocks((pixels == 0).all(0)).sum())
        valid[row // BLOCK :, col // BLOCK :][: blocks.shape[0], : blocks.shape[1]] = blocks
        samples.append(pixels[:, ::SAMPLE, ::SAMPLE][:, good[::SAMPLE, ::SAMPLE]])
    sample = np.concatenate(samples, axis=1)
    if not valid.any() or not sample.size:
        raise BadImageError(f"{path}: holds no data, expected at least one block of {BLOCK} x {BLOCK} valid pixels")
    if (sample.min(1) == sample.max(1)).all():
        raise BadImageError(f"{path}: every pixel is {sample[0, 0]:g}, a constant image cannot be matched")
    if warped.doubts_zero and black > BLACK * valid.size:
        raise BadImageError(
            f"{path}: {black / valid.size:.1%} of its blocks of {BLOCK} x {BLOCK} px are 0, and nothing says whether "
            f"that is nodata; {_ASK.format(value=0)}, or null where it is data"
        )
    return Survey(valid, sample, digest.hexdigest())


_ASK = 'expected a nodata value in the file, or "nodata": {{"sar": {value}}} (or "optical") in scene.json'


def _save(path: Path, found: Survey) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **found._asdict())


def _stretched(
    warped: Warped, low: NDArray[np.float32], high: NDArray[np.float32], rows: slice, cols: slice
) -> NDArray[np.float32]:
    """Optical pixels scaled so that the percentiles of the whole map are 0 and 1; grey is repeated."""
    pixels = (warped.read(rows, cols) - low[:, None, None]) / (high - low)[:, None, None]
    return np.repeat(np.clip(pixels, 0, 1), 3 // len(pixels), axis=0)


# -------------------------------------------------------------------------------------------------------- scene
@dataclass(frozen=True)
class Layout:
    """What is to be known of a set of georeferenced files beside the files.

    Parameters
    ----------
    pixel_size
        Metres on the ground; that of the first area's map by default.
    sar_scale
        See `Raster`. By default `amplitude` for integers, `decibel` for floats with negative values, else `intensity`.
    sar_bands
        Names; those in the files by default, else `band 1` and so on. As many bands are read.
    optical_bands
        Bands of the optical files that are red, green and blue, counted from 1; a file with fewer bands is read as
        grey. 8-bit values are divided by 255; others, by area, scaled so that the 1st and 99th percentile of all valid
        pixels of the map are 0 and 1.
    patch_size
        Pixels.
    roles
        By strip; by default four of six strips are for training, one for validation, one for the test (`same_area`),
        and a single strip is for training.
    details
        By strip: what is known of the acquisition.
    test_areas, val_areas
        See `Scene`.
    zero_is_nodata
        Whether pixels that are 0 in all bands hold no data, as where strips end without a declared nodata value.
    nodata
        Value that means no data by modality, instead of what the files declare; `None` where every value is data.
    asks_nodata
        Whether SAR of integers with large black parts is refused where neither the file nor `nodata` says what 0 is.
    credit
        Shown beside results.
    """

    pixel_size: float | None = None
    sar_scale: str | None = None
    sar_bands: Sequence[str] | None = None
    optical_bands: Sequence[int] = (1, 2, 3)
    patch_size: int = 200
    roles: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    test_areas: Sequence[str] = ()
    val_areas: Sequence[str] = ()
    zero_is_nodata: bool = False
    nodata: Mapping[str, float | None] = field(default_factory=dict)
    asks_nodata: bool = False
    credit: str = ""

    def warped(self, source: Source, grid: AreaGrid, box: Box, indexes: tuple[int, ...], modality: str) -> Warped:
        """A file on a grid, with all that is known of its nodata value."""
        settled, zero = modality in self.nodata, self.zero_is_nodata
        given = self.nodata.get(modality) if settled else source.nodata
        integers = not source.dtype.startswith(("float", "complex"))
        if modality == "sar":
            zero |= not integers and self.sar_scale != "decibel" and not (settled and given is None)
        doubts = self.asks_nodata and modality == "sar" and integers and not (settled or zero or source.declares)
        return Warped(source, grid, box, indexes, zero, given, settled, doubts)


def mosaic_scene(folder: Path, files: pd.DataFrame, *, name: str, **fields: Any) -> Scene:
    """A scene from georeferenced files.

    Parameters
    ----------
    folder
        Named in errors.
    files
        See `sarmatch.datasets.reader.Reader`. Optical files of one `area` make its map; SAR files of one `area` and
        `key` a strip. Columns `crs` and `transform`, where there are any, place files that do not say where they lie.
    name
        Of the scene.
    fields
        Of `Layout`.

    Raises
    ------
    BadImageError
        Where files cannot be used; all of them are named.
    ValueError
        Where an area lacks a map or strips, or a strip lies beside its map.
    """
    layout = Layout(**fields)
    _known_names(folder, files, layout)
    areas, grids, problems = [], [], []
    for area, rows in files.assign(source=_sources(files)).groupby("area", sort=True):
        label = f"{folder}: area {area!r}" if area else f"{folder}"
        grid = _area_grid(label, rows, layout.pixel_size)
        grids.append(grid)
        if layout.pixel_size is None:  # all areas have that of the first
            layout = replace(layout, pixel_size=grid.step / grid.per_metre)
        chart, strips, bad = _rasters(label, rows, grid, layout)
        problems += bad
        if not problems and chart is not None and strips:
            roles = _roles([s.name for s in strips], layout.roles)
            areas.append(Area(area or "map", chart, strips, roles, _origin(grid, grids[0])))
    if problems:
        raise _unusable(problems)
    first, one_crs = grids[0], all(g.crs == grids[0].crs for g in grids)
    scale = first.per_metre
    return Scene(
        name=name,
        areas=tuple(areas),
        pixel_size=float(layout.pixel_size),
        patch_size=layout.patch_size,
        test_areas=tuple(layout.test_areas),
        val_areas=tuple(layout.val_areas),
        crs=first.crs.to_string() if one_crs else None,
        crs_transform=((scale, 0.0, first.west), (0.0, scale, first.north)) if one_crs else None,
        credit=layout.credit,
    )


def _known_names(folder: Path, files: pd.DataFrame, layout: Layout) -> None:
    """Refuse a name of a strip or an area that there is not: a typo would change the split without a word."""
    strips = {str(k) for k in files.loc[files["modality"] == "sar", "key"]}
    areas = {a or "map" for a in files["area"]}
    named = {"roles": (layout.roles, strips), "test_areas": (layout.test_areas, areas)}
    for what, (given, known) in (named | {"val_areas": (layout.val_areas, areas)}).items():
        if unknown := sorted(set(given) - known):
            raise ValueError(f"{folder}: {what} names {unknown[0]!r}, which is none of {sorted(known)}")


def _unusable(problems: list[str]) -> BadImageError:
    more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
    return BadImageError(f"{len(problems)} unusable file(s):\n  " + "\n  ".join(problems[:10]) + more)


def _area_grid(label: str, rows: pd.DataFrame, pixel_size: float | None) -> AreaGrid:
    """The grid of an area that has a map and strips."""
    optical = rows[rows.modality == "optical"]
    if optical.empty or len(optical) == len(rows):
        counts = f"{len(optical)} optical and {len(rows) - len(optical)} SAR files"
        raise ValueError(f"{label}: {counts}, expected at least one of each")
    try:
        return grid_of(list(optical.source), pixel_size)
    except CoordinateError as error:
        raise BadImageError(f"{optical.path.iloc[0]}: {error}") from error


def _rasters(
    label: str, rows: pd.DataFrame, grid: AreaGrid, layout: Layout
) -> tuple[Raster | None, tuple[Raster, ...], list[str]]:
    """Map and strips of an area, and what is wrong with its files."""
    optical, sar = (rows[rows.modality == m] for m in ("optical", "sar"))
    chart, problems = read_map(optical, grid, layout)
    reach = _reach([grid.box(s) for s in optical.source])
    strips = []
    for key, parts in sar.groupby("key", sort=True):
        raster, bad = read_strip(label, key, parts, grid, reach, layout)
        problems += bad
        if raster is not None:
            strips.append(raster)
    return chart, tuple(strips), problems


def read_map(rows: pd.DataFrame, grid: AreaGrid, layout: Layout) -> tuple[Raster | None, list[str]]:
    """The map of some optical files on a grid, or what is wrong with them."""
    tiles, problems = _optical_tiles(rows, grid, layout)
    return Raster("map", tiles, ("red", "green", "blue"), "reflectance") if tiles else None, problems


def _roles(strips: Sequence[str], given: Mapping[str, str]) -> tuple[str, ...]:
    usual = ROLES if len(strips) > 2 else ("train", "test") if len(strips) == 2 else ("train",)
    return tuple(given.get(name) or usual[i % len(usual)] for i, name in enumerate(strips))


def _sources(files: pd.DataFrame) -> list[Source]:
    """Headers of all files; the unusable ones are reported together."""
    sources, problems = [], []
    places = files.reindex(columns=["crs", "transform"])
    for path, crs, transform in zip(files["path"], places["crs"], places["transform"], strict=True):
        try:
            known = CRS.from_user_input(crs) if isinstance(crs, str) and crs else None
            sources.append(source_of(path, known, transform if isinstance(transform, Affine) else None))
        except BadImageError as error:
            problems.append(str(error))
    if problems:
        raise BadImageError(f"{len(problems)} unusable file(s):\n  " + "\n  ".join(problems[:10]))
    return sources


def _surveyed(warped: Sequence[Warped], title: str) -> tuple[list[tuple[Warped, Survey]], list[str]]:
    """Files with their survey, the fullest first, and what is wrong with the others."""
    found, problems = [], []
    for w in progress(warped, desc=f"reading {title}", unit="file", delay=2):
        try:
            found.append((w, survey(w)))
        except BadImageError as error:
            problems.append(str(error))
    return sorted(found, key=lambda pair: -pair[1].valid.mean()), problems


def _tile(warped: Warped, found: Survey, read, *means: object) -> Tile:
    """A surveyed file that is read as `means` say."""
    row, col, height, width = warped.box
    valid, digest = None if found.valid.all() else found.valid, " ".join(map(str, (found.digest, *means)))
    return Tile(row, col, height, width, read, valid, digest)


def _optical_tiles(rows: pd.DataFrame, grid: AreaGrid, layout: Layout) -> tuple[tuple[Tile, ...], list[str]]:
    warped, problems, bands = [], [], layout.optical_bands
    for source in rows.source:
        count = source.count - source.alpha
        if source.dtype.startswith("complex"):
            problems.append(f"{source.path}: holds complex values, expected an optical image")
        elif count != 1 and count < max(bands):
            problems.append(f"{source.path}: has {count} bands, expected 1 (grey) or {len(bands)} (red, green, blue)")
        else:
            indexes = (1,) if count == 1 else tuple(bands)
            warped.append(layout.warped(source, grid, bounded(source, grid.box(source)), indexes, "optical"))
    if problems:
        return (), problems
    found, problems = _surveyed(warped, "map")
    if problems or not found:
        return (), problems
    widths = {len(w.indexes) for w, _ in found}
    if len(widths) > 1:
        return (), [f"{rows.path.iloc[0].parent}: some optical files have three bands and some one, expected the same"]
    if {w.source.dtype for w, _ in found} == {"uint8"}:
        low, high = (np.full(len(found[0][0].indexes), v, np.float32) for v in (0, 1))
    else:
        sample = np.concatenate([s.sample for _, s in found], axis=1)
        low, high = np.percentile(sample, PERCENTILES, axis=1).astype(np.float32)
        high = np.maximum(high, low + 1e-6)
    return without_overlap([_tile(w, s, partial(_stretched, w, low, high), low, high) for w, s in found]), []


def _reach(boxes: Sequence[Box]) -> Box:
    """The box around boxes."""
    top, left = (min(b[i] for b in boxes) for i in (0, 1))
    return top, left, max(b[0] + b[2] for b in boxes) - top, max(b[1] + b[3] for b in boxes) - left


def _cut(box: Box, other: Box) -> Box | None:
    """What two boxes share."""
    top, left = max(box[0], other[0]), max(box[1], other[1])
    bottom, right = min(box[0] + box[2], other[0] + other[2]), min(box[1] + box[3], other[1] + other[3])
    return (top, left, bottom - top, right - left) if top < bottom and left < right else None


def read_strip(
    label: str, key: str, rows: pd.DataFrame, grid: AreaGrid, reach: Box, layout: Layout
) -> tuple[Raster | None, list[str]]:
    """A strip, cut to the map's box, or what is wrong with its files."""
    first, scale = rows.source.iloc[0], layout.sar_scale
    bands = _band_names(first) if layout.sar_bands is None else layout.sar_bands
    complex_values = first.dtype.startswith("complex")
    for source in rows.source:
        if (count := source.count - source.alpha) < len(bands):
            return None, [f"{source.path}: has {count} bands, expected {len(bands)}: {tuple(bands)}"]
        if source.palette and source.count > 1:
            return None, [f"{source.path}: has a palette of colours, expected SAR in grey"]
        if source.dtype.startswith("complex") != complex_values:
            return None, [f"{source.path}: holds {source.dtype}, but {first.path.name} {first.dtype}"]
    if complex_values:
        if scale not in (None, "amplitude"):
            return None, [f"{first.path}: its complex values are read as amplitude, but sar_scale is {scale!r}"]
        scale = "amplitude"
        warnings.warn(f"{first.path}: holds complex values; their magnitude is read, as amplitude", stacklevel=2)
    floats = complex_values or first.dtype.startswith("float")
    parts = _parts(label, key, rows, grid, reach, tuple(range(1, len(bands) + 1)), layout)
    found, problems = _surveyed(parts, str(key))
    if problems or not found:
        return None, problems
    sample = np.concatenate([s.sample for _, s in found], axis=1)
    if scale is None:
        scale = ("decibel" if (sample < 0).any() else "intensity") if floats else "amplitude"
    window = tuple(float(v) for v in np.nanpercentile(to_decibels(sample, scale), PERCENTILES))
    if not window[1] - window[0] > 1e-3:
        return None, [f"{first.path}: read as {scale}, its values span {window} dB, expected some contrast"]
    tiles = without_overlap([_tile(w, s, w.read) for w, s in found])
    return Raster(str(key), tiles, tuple(bands), scale, dict(layout.details.get(key, {})), window=window), []


def _band_names(source: Source) -> Sequence[str]:
    names = source.descriptions[: source.count - source.alpha]
    return names if all(names) and len(set(names)) == len(names) else [f"band {i + 1}" for i in range(len(names))]


def _parts(
    label: str, key: str, rows: pd.DataFrame, grid: AreaGrid, reach: Box, indexes: tuple[int, ...], layout: Layout
) -> list[Warped]:
    """The files of a strip, each cut to the map's box; those beside it are left out."""
    boxes = [grid.box(s) for s in rows.source]
    cuts = [(s, _cut(b, reach)) for s, b in zip(rows.source, boxes, strict=True)]
    parts = [layout.warped(s, grid, box, indexes, "sar") for s, box in cuts if box]
    if not parts:  # nearly always a wrong CRS; say so before a search finds nothing
        raise ValueError(
            f"{label}: strip {key!r} ({rows.path.iloc[0].name}) starts at row {boxes[0][0]}, column {boxes[0][1]} of "
            f"the map's grid, which spans {reach[2]} x {reach[3]} px: they share no ground; is a coordinate system "
            "wrong?"
        )
    return parts


def _origin(grid: AreaGrid, first: AreaGrid) -> tuple[float, float]:
    """Local metres of an area's corner: its offset from the first area's, in the first area's CRS."""
    x, y = grid.west, grid.north
    if grid.crs != first.crs:
        (x,), (y,) = _points(grid.crs, first.crs, [x], [y])
    return (x - first.west) / first.per_metre, (y - first.north) / first.per_metre
