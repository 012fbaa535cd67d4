"""What a scene is: areas, each with an optical map and the SAR strips acquired over it.

Everything in one area lies on one pixel grid (north up, one pixel size), so a patch is a window `(row, col, size)` on
that grid whatever image it is cut from. Positions in metres come from the scene, and only from it: a set of image pairs
without coordinates has a grid but no metres, and says so when asked.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

#: Rows and columns of a tile to its pixels `(C, rows, columns)`.
Read = Callable[[slice, slice], np.ndarray]

#: How the numbers of an image are meant. SAR is never "just 0 to 255".
SCALES = ("reflectance", "intensity", "amplitude", "decibel")

#: Side in pixels of the blocks in which a tile says where it is valid.
BLOCK = 8


class NoCoordinatesError(ValueError):
    """Metres were asked of a set that has no coordinates."""


@dataclass(frozen=True)
class Tile:
    """One image file or array on the area's pixel grid.

    Parameters
    ----------
    row, col
        Top-left pixel on the area's grid.
    height, width
        Size in pixels.
    read
        Gives the pixels of a part of the tile, `(C, rows, columns)`, `uint8` or floating point. Called for every patch,
        so what is slow in it should be cached, and a file larger than memory should be read by window.
    valid
        Which blocks of `BLOCK` x `BLOCK` px hold nothing but data, `bool (ceil(height / BLOCK), ceil(width / BLOCK))`;
        `None` where all do. Outside of them lies nodata, and no patch is cut there.
    digest
        Stands for all its pixels, where somebody has read them before; `None` where nobody has.
    """

    row: int
    col: int
    height: int
    width: int
    read: Read = field(repr=False)
    valid: NDArray[np.bool_] | None = field(default=None, repr=False)
    digest: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        expected = (-(-self.height // BLOCK), -(-self.width // BLOCK))
        if self.valid is not None and self.valid.shape != expected:
            raise ValueError(f"tile of {self.height} x {self.width} px: valid is {self.valid.shape}, not {expected}")

    @cached_property
    def _invalid_before(self) -> NDArray[np.int32]:
        """Number of invalid blocks above and left of each block corner: a window is then four look-ups."""
        return np.pad(~self.valid, ((1, 0), (1, 0))).astype(np.int32).cumsum(0).cumsum(1)

    def data_only(
        self, top: NDArray[np.int64], left: NDArray[np.int64], bottom: NDArray[np.int64], right: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which windows, in pixels of the tile and cut to it, touch no invalid block: bool `(N,)`."""
        if self.valid is None:
            return np.ones(len(top), bool)
        count, (r0, c0) = self._invalid_before, (top // BLOCK, left // BLOCK)
        r1, c1 = -(-np.maximum(bottom, top) // BLOCK), -(-np.maximum(right, left) // BLOCK)
        return count[r1, c1] - count[r0, c1] - count[r1, c0] + count[r0, c0] == 0


def valid_blocks(valid: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """A mask of pixels `(H, W)` to the blocks that are wholly valid; `None` where everything is."""
    return None if valid.all() else whole_blocks(valid)


def whole_blocks(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks `(ceil(H / BLOCK), ceil(W / BLOCK))` in which a mask of pixels `(H, W)` is true everywhere."""
    short = [-n % BLOCK for n in valid.shape]
    padded = np.pad(valid, [(0, n) for n in short], constant_values=True)
    return padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).all((1, 3))


@dataclass(frozen=True)
class Raster:
    """An image made of disjoint tiles on one pixel grid, read by window.

    Parameters
    ----------
    name
        Unique within its area.
    tiles
        At least one; they must not overlap (see `without_overlap`).
    bands
        Names of the channels of every tile, for instance `("HH", "HV")`.
    scale
        One of `SCALES`. `reflectance` is optical, 0 to 1; SAR is `intensity` (power), `amplitude` (its square root) or
        `decibel` (`10 log10` of the intensity).
    details
        What is known of the acquisition, e.g. `look` or `incidence_deg`.
    joined
        Whether the tiles make one seamless image, gridded as a whole, or stand for themselves, each with its own grid.
    window
        Of a SAR image whose values are not calibrated: the decibels `(low, high)` between which they lie, as
        `sarmatch.scenes.radiometry.percentile_window` finds them. `None` where decibels mean what they say.
    """

    name: str
    tiles: tuple[Tile, ...]
    bands: tuple[str, ...]
    scale: str
    details: dict[str, object] = field(default_factory=dict)
    joined: bool = True
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"raster {self.name!r}: scale is {self.scale!r}, expected one of {SCALES}")
        if not self.tiles:
            raise ValueError(f"raster {self.name!r} has no tile, expected at least one")
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(f"raster {self.name!r}: bands must have names that differ, got {self.bands}")

    @classmethod
    def from_array(
        cls,
        name: str,
        array: np.ndarray,
        scale: str,
        row: int = 0,
        col: int = 0,
        bands: Sequence[str] | None = None,
        **details,
    ) -> "Raster":
        """A raster of one `(C, H, W)` array; where a value is NaN, it holds no data."""
        channels, height, width = array.shape
        valid = valid_blocks(np.isfinite(array).all(0)) if array.dtype.kind == "f" else None
        tile = Tile(row, col, height, width, partial(window_of, array), valid)
        return cls(name, (tile,), tuple(bands or default_bands(channels, scale)), scale, details)

    @property
    def channels(self) -> int:
        """Number of bands."""
        return len(self.bands)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """First row, first column, one past the last row and column, in pixels of the area's grid."""
        return (
            min(t.row for t in self.tiles),
            min(t.col for t in self.tiles),
            max(t.row + t.height for t in self.tiles),
            max(t.col + t.width for t in self.tiles),
        )

    @property
    def pixels(self) -> int:
        """Number of pixels covered by tiles."""
        return sum(t.height * t.width for t in self.tiles)

    def select(self, bands: Sequence[str]) -> "Raster":
        """The same raster with some of its bands, in the order asked for."""
        unknown = [b for b in bands if b not in self.bands]
        if unknown or not bands:
            raise ValueError(f"raster {self.name!r} has bands {self.bands}, asked for {tuple(bands)}")
        if tuple(bands) == self.bands:
            return self
        picks = [self.bands.index(b) for b in bands]
        tiles = tuple(
            replace(t, read=partial(_picked, t.read, picks), digest=t.digest and f"{t.digest} {picks}")
            for t in self.tiles
        )
        return replace(self, tiles=tiles, bands=tuple(bands))

    def covers(self, row: np.ndarray, col: np.ndarray, size: int) -> np.ndarray:
        """Which windows `size` x `size` at `(row, col)` `(N,)` lie wholly on data: bool `(N,)`."""
        row, col = np.atleast_1d(row), np.atleast_1d(col)
        covered = np.zeros(len(row), dtype=np.int64)
        for t in self.tiles:
            top, left = np.clip(row - t.row, 0, t.height), np.clip(col - t.col, 0, t.width)
            bottom, right = np.clip(row + size - t.row, 0, t.height), np.clip(col + size - t.col, 0, t.width)
            covered += (bottom - top) * (right - left) * t.data_only(top, left, bottom, right)
        return covered == size * size

    def read(self, row: int, col: int, height: int, width: int, fill: float | None = None) -> np.ndarray:
        """Pixels of a window as `float32 (C, height, width)`, 8-bit data scaled to 0..1.

        Raises
        ------
        ValueError
            Where part of the window lies on no tile and no value to `fill` it with is given: nothing is invented.
        """
        window = np.full((self.channels, height, width), np.nan if fill is None else fill, dtype=np.float32)
        missing = height * width
        for t in self.tiles:
            top, left = max(row, t.row), max(col, t.col)
            bottom, right = min(row + height, t.row + t.height), min(col + width, t.col + t.width)
            if top >= bottom or left >= right:
                continue
            part = t.read(slice(top - t.row, bottom - t.row), slice(left - t.col, right - t.col))
            factor = np.float32(1 / 255) if part.dtype == np.uint8 else np.float32(1)
            np.multiply(part, factor, out=window[:, top - row : bottom - row, left - col : right - col])
            missing -= (bottom - top) * (right - left)
        if missing and fill is None:
            raise ValueError(
                f"raster {self.name!r}: the window of {height} x {width} px at row {row}, column {col} has {missing} "
                f"px outside the image, which spans rows {self.bounds[0]}..{self.bounds[2]}, "
                f"columns {self.bounds[1]}..{self.bounds[3]}"
            )
        return window


def default_bands(channels: int, scale: str) -> tuple[str, ...]:
    """Names for bands that came without."""
    return ("red", "green", "blue") if (channels, scale) == (3, "reflectance") else tuple(map(str, range(channels)))


def window_of(array: np.ndarray, rows: slice, cols: slice) -> np.ndarray:
    """A part of a `(C, H, W)` array: what a `Tile` in memory reads with."""
    return array[:, rows, cols]


def _picked(read: Read, picks: list[int], rows: slice, cols: slice) -> np.ndarray:
    return read(rows, cols)[picks]


def without_overlap(tiles: Iterable[Tile]) -> tuple[Tile, ...]:
    """Cut tiles so that none overlaps another; an earlier tile keeps what it shares with a later one.

    What a mask hides in the earlier tile is lost, so put the fuller tiles first.
    """
    kept: list[Tile] = []
    for tile in tiles:
        pieces = [(tile.row, tile.col, tile.row + tile.height, tile.col + tile.width)]
        for other in kept:
            box = (other.row, other.col, other.row + other.height, other.col + other.width)
            pieces = [rest for piece in pieces for rest in _minus(piece, box)]
        kept += [_piece(tile, *piece) for piece in pieces]
    return tuple(kept)


Box = tuple[int, int, int, int]


def _minus(box: Box, hole: Box) -> list[Box]:
    """What a hole leaves of a box (top, left, bottom, right): up to four boxes."""
    top, left, bottom, right = box
    t, l, b, r = max(top, hole[0]), max(left, hole[1]), min(bottom, hole[2]), min(right, hole[3])  # noqa: E741
    if t >= b or l >= r:
        return [box]
    rest = [(top, left, t, right), (b, left, bottom, right), (t, left, b, l), (t, r, b, right)]
    return [(r0, c0, r1, c1) for r0, c0, r1, c1 in rest if r0 < r1 and c0 < c1]


def _piece(tile: Tile, top: int, left: int, bottom: int, right: int) -> Tile:
    """A part of a tile as a tile of its own."""
    row, col = top - tile.row, left - tile.col
    height, width = bottom - top, right - left
    if (height, width) == (tile.height, tile.width):
        return tile
    valid = tile.valid
    if valid is not None:
        pixels = valid.repeat(BLOCK, 0).repeat(BLOCK, 1)[row : row + height, col : col + width]
        valid = valid_blocks(pixels)
    digest = tile.digest and f"{tile.digest} {row} {col}"
    return Tile(top, left, height, width, partial(_shifted, tile.read, row, col), valid, digest)


def _shifted(read: Read, row: int, col: int, rows: slice, cols: slice) -> np.ndarray:
    return read(slice(rows.start + row, rows.stop + row), slice(cols.start + col, cols.stop + col))


@dataclass(frozen=True)
class Area:
    """A connected region: one optical map and the SAR strips over it, on one pixel grid.

    Parameters
    ----------
    name
        Unique within the scene.
    map
        Optical raster, three channels.
    strips
        SAR rasters on the same grid.
    roles
        For each strip `train`, `val` or `test`: what the same-area protocol does with it.
    origin
        Local metres `(x, y)` of the grid's top left corner: areas of one scene lie apart in one frame.
    """

    name: str
    map: Raster
    strips: tuple[Raster, ...]
    roles: tuple[str, ...]
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.roles) != len(self.strips):
            raise ValueError(f"area {self.name!r}: {len(self.strips)} strips but {len(self.roles)} roles")
        names = [s.name for s in self.strips]
        if len(set(names)) != len(names):
            raise ValueError(f"area {self.name!r}: strip names must be unique, got {names}")

    @cached_property
    def _strips(self) -> dict[str, Raster]:
        return {s.name: s for s in self.strips}

    def strip(self, name: str) -> Raster:
        """The strip of that name."""
        return _get(self._strips, name, f"strip of area {self.name!r}")


@dataclass(frozen=True)
class Scene:
    """A set of areas with one pixel size.

    Parameters
    ----------
    name
        Shown in titles and tables.
    areas
        At least one.
    pixel_size
        Metres on the ground per pixel, or `None` where the set has no coordinates.
    patch_size
        Side of a patch in pixels that suits this set.
    test_areas
        Names of the areas that the cross-area protocol keeps for the test.
    val_areas
        The same for validation; without, a band of every training area is.
    simulated
        What is simulated is called simulated in every title and table.
    crs
        Coordinate reference system that `crs_transform` leads to, e.g. `EPSG:3395`.
    crs_transform
        `((a, b, c), (d, e, f))`: local metres `(x, y)` to the CRS, `X = a x + b y + c`, `Y = d x + e y + f`.
    credit
        Where the data come from, shown beside results.
    unplaced
        SAR strips whose place nobody knows yet, on pixel grids of their own of the same pixel size, north up.
    """

    name: str
    areas: tuple[Area, ...]
    pixel_size: float | None
    patch_size: int
    test_areas: tuple[str, ...] = ()
    val_areas: tuple[str, ...] = ()
    simulated: bool = False
    crs: str | None = None
    crs_transform: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    credit: str = ""
    unplaced: tuple[Raster, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.test_areas, *self.val_areas):
            self.area(name)
        names = [s.name for s in self.unplaced]
        if len(set(names)) != len(names):
            raise ValueError(f"scene {self.name!r}: strips without a place must have names that differ, got {names}")

    @cached_property
    def _areas(self) -> dict[str, Area]:
        return {a.name: a for a in self.areas}

    def area(self, name: str) -> Area:
        """The area of that name."""
        return _get(self._areas, name, f"area of scene {self.name!r}")

    def select(self, bands: Sequence[str]) -> "Scene":
        """The same scene with some of the SAR bands of its strips, in the order asked for."""
        areas = tuple(replace(a, strips=tuple(s.select(bands) for s in a.strips)) for a in self.areas)
        return replace(self, areas=areas, unplaced=tuple(s.select(bands) for s in self.unplaced))

    def strip(self, area: str, name: str) -> Raster:
        """The strip of that name in an area; with an empty area, the one whose place is not known."""
        if area:
            return self.area(area).strip(name)
        return _get({s.name: s for s in self.unplaced}, name, f"strip without a place in scene {self.name!r}")

    @property
    def label(self) -> str:
        """`simulated` or `real`, the word that stands beside every number."""
        return "simulated" if self.simulated else "real"

    @property
    def has_coordinates(self) -> bool:
        """Whether positions in metres exist."""
        return self.pixel_size is not None

    def metres(self, area: str, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Pixel coordinates on an area's grid (edges count from 0) to local metres `(N, 2)`: x east, y north.

        Raises
        ------
        NoCoordinatesError
            Where the set has no coordinates.
        """
        if self.pixel_size is None:
            raise NoCoordinatesError(
                f"scene {self.name!r} has no coordinates (a set of image pairs): recall can be measured, metres cannot"
            )
        row, col = np.asarray(row, dtype=np.float64), np.asarray(col, dtype=np.float64)
        return np.stack([col * self.pixel_size, -row * self.pixel_size], axis=-1) + self.area(area).origin

    def to_crs(self, xy: np.ndarray) -> np.ndarray:
        """Local metres `(N, 2)` to coordinates of the scene's CRS `(N, 2)`."""
        if self.crs is None or self.crs_transform is None:
            raise NoCoordinatesError(f"scene {self.name!r} lies in no coordinate reference system")
        matrix = np.asarray(self.crs_transform, dtype=np.float64)
        return np.asarray(xy, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def _get(things: dict[str, object], name: str, what: str):
    if name not in things:
        raise ValueError(f"no {what} is called {name!r}; there are {sorted(things)}")
    return things[name]
