"""Pixels of patches, as the encoders take them."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sarmatch.checks import Size
from sarmatch.patches.tables import draw_windows
from sarmatch.scenes.radiometry import FLOORS, STANDARD_WINDOW
from sarmatch.scenes.scene import Raster, Scene


class Scale(NamedTuple):
    """How pixels of one scale become what an encoder sees."""

    to_mean: Callable[[torch.Tensor], torch.Tensor]  # to what may be averaged over pixels
    decibels: float  # 10 for power, 20 for its root; 0 where there is no logarithm to take
    floor: float  # values below it are raised to it before the logarithm


TO_INPUT: dict[str, Scale] = {
    "reflectance": Scale(lambda x: x, 0, 0),
    "intensity": Scale(lambda x: x, 10, FLOORS["intensity"]),
    "amplitude": Scale(lambda x: x, 20, FLOORS["amplitude"]),
    "decibel": Scale(lambda x: 10 ** (x / 10), 10, FLOORS["intensity"]),
}


def raster_of(scene: Scene, patch: Any) -> Raster:
    """The raster a row of a patch table is cut from: its strip, or the map of its area, by its `modality`."""
    if patch.modality == "optical":
        return scene.area(patch.area).map
    return scene.strip(patch.area, patch.strip)


def read_patch(scene: Scene, patch: Any) -> np.ndarray:
    """Pixels of one row of a patch table at full size, in the raster's own scale: `float32 (C, size, size)`.

    Raises
    ------
    ValueError
        Where a value is not finite: the patch cannot be matched, and its place is named.
    """
    raster = raster_of(scene, patch)
    pixels = raster.read(int(patch.row), int(patch.col), int(patch.size), int(patch.size))
    if not np.isfinite(pixels).all():
        raise ValueError(
            f"area {patch.area!r}, {raster.name!r}: the patch at row {patch.row}, column {patch.col} has "
            f"{int((~np.isfinite(pixels)).sum())} values that are not finite"
        )
    return pixels


def to_input(
    pixels: torch.Tensor, scale: str, image_size: Size | None, window: tuple[float, float] | None = None
) -> torch.Tensor:
    """Full-size pixels `(B, C, S, S)` to encoder input of a side, or of a height and width; None keeps their size.

    Pixels are averaged before the logarithm: averaging intensity is multi-looking, averaging decibels is not. SAR is
    given in decibels, where speckle is additive; those of an image with a `window` are brought to `STANDARD_WINDOW`.
    """
    to_mean, factor, floor = TO_INPUT[scale]
    pixels = to_mean(pixels)
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if sides is not None and pixels.shape[-2:] != sides:
        shrinks = pixels.shape[-1] > sides[1]
        pixels = F.interpolate(pixels, size=tuple(sides), mode="area" if shrinks else "nearest")
    if not factor:
        return pixels
    if window is None:
        return factor * torch.log10(pixels.clamp(min=floor))
    low, high = window
    bottom, top = STANDARD_WINDOW
    decibels = factor * torch.log10(pixels.clamp(min=10 ** (low / factor)))
    return (decibels - low) * ((top - bottom) / (high - low)) + bottom


class PatchImages(torch.utils.data.Dataset):
    """The images of a patch table, read when asked for.

    Parameters
    ----------
    scene
        Where from.
    table
        References or queries.
    image_size
        Size in pixels the encoder takes; where it takes two, by `modality` of the table (`sar`, `optical`). None keeps
        the pixels as they are.

    Notes
    -----
    `dataset[i]` is `float32 (C, H, W)` of that size: reflectance 0 to 1 for optical, decibels for SAR.
    """

    def __init__(self, scene: Scene, table: pd.DataFrame, image_size: Size | None | Mapping[str, Size | None]) -> None:
        self.scene, self.image_size = scene, image_size
        self.rows = list(table.itertuples(index=False))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """Several at once, which is what a `DataLoader` asks for: far fewer small operations than one by one."""
        patches = [self.rows[i] for i in indices]
        rasters = [raster_of(self.scene, p) for p in patches]
        images = [torch.empty(0)] * len(patches)
        sizes = [s[p.modality] if isinstance(s := self.image_size, Mapping) else s for p in patches]
        kinds = [(r.scale, size, r.window) for r, size in zip(rasters, sizes, strict=True)]
        for kind in set(kinds):  # mostly one
            at = [i for i, k in enumerate(kinds) if k == kind]
            pixels = torch.from_numpy(np.stack([read_patch(self.scene, patches[i]) for i in at]))
            for i, image in zip(at, to_input(pixels, *kind), strict=True):
                images[i] = image
        return images


def grey_queries(scene: Scene, queries: pd.DataFrame, resolution: int) -> torch.Tensor:
    """Queries as one channel, the mean of their bands in decibels: `float32 (Q, resolution, resolution)`."""
    return torch.stack(PatchImages(scene, queries, resolution).__getitems__(range(len(queries)))).mean(1)


class GreyMap(NamedTuple):
    """The optical map of an area, grey, at fewer pixels than it has.

    `image` is float32 `(H, W)`, mean grey where there is no data; `valid` bool `(H, W)`, or None where all is data;
    `corner` are the local metres `(x, y)` of its top left, `metres` the side of a pixel.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_] | None
    corner: tuple[float, float]
    metres: float

    def pixel_of(self, xy: NDArray) -> NDArray[np.float64]:
        """Local metres `(..., 2)` to pixels `(row, column)`, edges counting from 0."""
        x, y = np.moveaxis(np.asarray(xy, np.float64), -1, 0)
        return np.stack([(self.corner[1] - y) / self.metres, (x - self.corner[0]) / self.metres], -1)


def grey_map(scene: Scene, area: str, resolution: int, size: int) -> GreyMap:
    """The map of an area at `resolution` pixels per tile of `size` px, read a row of tiles at a time."""
    raster = scene.area(area).map
    row0, col0, row1, col1 = raster.bounds
    down, across = -(-(row1 - row0) // size), -(-(col1 - col0) // size)
    stripes = []
    for row in range(row0, row0 + down * size, size):
        stripe = torch.from_numpy(raster.read(row, col0, size, across * size, fill=np.nan).mean(0))[None, None]
        stripes.append(F.interpolate(stripe, size=(resolution, across * resolution), mode="area")[0, 0].numpy())
    image = np.concatenate(stripes)
    valid = np.isfinite(image)
    x, y = scene.metres(area, np.array([row0]), np.array([col0]))[0]
    filled = image if valid.all() else np.where(valid, image, image[valid].mean())
    metres = size * scene.pixel_size / resolution
    return GreyMap(filled.astype(np.float32), None if valid.all() else valid, (float(x), float(y)), metres)


class ScenePixels:
    """Grey pixels of some queries and of the maps of a scene, read when asked for and kept.

    Parameters
    ----------
    scene, queries
        Where from.
    size
        Side of a tile in pixels.
    """

    def __init__(self, scene: Scene, queries: pd.DataFrame, size: int) -> None:
        self.queries = lru_cache(maxsize=2)(partial(grey_queries, scene, queries))
        self.map = lru_cache(maxsize=None)(partial(grey_map, scene, size=size))


class TrainingPairs(torch.utils.data.Dataset):
    """Pairs of a SAR window and an optical window near it, drawn anew for every epoch.

    The reference lies at a uniformly random offset of up to `offset` patch widths in each direction, inside the same
    training rectangle, so that nothing of the held-out area or of the guard band is ever read.

    Parameters
    ----------
    scene
        Where from.
    rectangles
        Training areas, as `sarmatch.patches.splits.training_regions` gives it.
    size, image_size
        Side of a patch on the grid, and of the image that the encoder takes.
    count
        Pairs per epoch.
    offset
        Largest offset between query and reference, in patch widths.
    seed
        With `epoch` it fixes every pair.
    shuffle_pairs
        Negative control: references are randomly permuted, and nothing can be learned.
    window
        Side in pixels of references that are larger than a patch, for dense search: the query then lies anywhere inside
        its own, and `offset` means nothing.
    """

    def __init__(
        self,
        scene: Scene,
        rectangles: pd.DataFrame,
        size: int,
        image_size: Size | None | Mapping[str, Size | None],
        count: int,
        offset: float,
        seed: int,
        shuffle_pairs: bool = False,
        window: int | None = None,
    ) -> None:
        if window is not None and window < size:
            raise ValueError(f"window is {window} px, expected at least the {size} px of a patch")
        self.scene, self.rectangles = scene, rectangles
        self.size, self.image_size, self.count, self.offset = size, image_size, count, offset
        self.seed, self.shuffle_pairs = seed, shuffle_pairs
        self.window = window or size
        self._draw = self._near if window is None else self._within
        self._mined: tuple[PatchImages, np.ndarray] | None = None
        self.draw(0)

    def draw(self, epoch: int) -> None:
        """Draw the pairs of that epoch. Not called `set_epoch`, which accelerate would call by a count of its own."""
        rng = np.random.default_rng([self.seed, epoch])
        self._mined = None
        query, corner = self._draw(rng)
        reference = pd.DataFrame({"area": query["area"], "row": corner[:, 0], "col": corner[:, 1]})
        query, reference = query.assign(modality="sar"), reference.assign(modality="optical")
        if self.shuffle_pairs:
            reference = reference.iloc[rng.permutation(len(reference))].reset_index(drop=True)
        self.query, self.reference = query.assign(size=self.size), reference.assign(size=self.window)
        self._images = [PatchImages(self.scene, t, self.image_size) for t in (self.query, self.reference)]
        codes = query["area"].astype("category").cat.codes.to_numpy()
        # with shuffled pairs, too, an offset is what it would be: the labels of the control look like any other's
        self._offset = (corner - query[["row", "col"]].to_numpy() + (self.window - self.size) / 2).astype(np.float32)
        self._place = np.concatenate(
            [query[["row", "col"]].to_numpy(), reference[["row", "col"]].to_numpy(), codes[:, None]], axis=1
        )

    @property
    def truth(self) -> pd.DataFrame:
        """Where the labels of this epoch say that each query lies: `area`, and the corner `row`, `col`."""
        corner = self.reference[["row", "col"]] + (self.window - self.size) / 2 - self._offset
        return pd.concat([self.reference["area"], corner.round().astype(int)], axis=1)

    def join(self, windows: pd.DataFrame) -> None:
        """Give every pair of this epoch a further window of the map, where its query does not lie.

        Parameters
        ----------
        windows
            `area`, `row`, `col` of windows of the side of references, indexed by the number of the pair that each was
            chosen for; one at least. A pair without one gets that of another.
        """
        of = np.resize(np.arange(len(windows)), len(self))
        of[windows.index] = np.arange(len(windows))
        table, truth = windows.iloc[of], self.truth
        number = {area.name: i for i, area in enumerate(self.scene.areas)}
        areas = [side["area"].map(number).to_numpy() for side in (truth, table)]
        place = np.column_stack([truth[["row", "col"]], table[["row", "col"]], *areas])
        images = PatchImages(self.scene, table.assign(modality="optical", size=self.window), self.image_size)
        self._mined = images, place

    def _near(self, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
        """Queries, and corners `(N, 2)` of references of the same size near them."""
        query = self._windows(self.size, rng)
        low, high = self._limits(query)
        reach = int(self.offset * self.size)
        corner = query[["row", "col"]].to_numpy() + rng.integers(-reach, reach + 1, size=(len(query), 2))
        corner = np.clip(corner, low, high)
        # Where a map has gaps the jittered window may leave it; the unjittered one never does.
        for area in query["area"].unique():
            rows = np.flatnonzero(query["area"].to_numpy() == area)
            covered = self.scene.area(area).map.covers(corner[rows, 0], corner[rows, 1], self.size)
            corner[rows[~covered]] = query[["row", "col"]].to_numpy()[rows[~covered]]
        return query, corner

    def _within(self, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
        """Queries, and corners `(N, 2)` of the larger references around them."""
        query = self._windows(self.window, rng)
        corner = query[["row", "col"]].to_numpy()
        inside = rng.integers(0, self.window - self.size + 1, size=corner.shape)
        return query.assign(row=corner[:, 0] + inside[:, 0], col=corner[:, 1] + inside[:, 1]), corner

    def _windows(self, size: int, rng: np.random.Generator) -> pd.DataFrame:
        windows = draw_windows(self.rectangles, self.scene, size, self.count, rng)
        if windows.empty:
            around = "" if size == self.size else f"a window of {size} x {size} px around "
            patch = f"a patch of {self.size} x {self.size} px"
            raise ValueError(f"scene {self.scene.name!r}: no training strip holds {around}{patch}")
        return windows

    @property
    def place(self) -> np.ndarray:
        """Where the pairs of this epoch lie `(N, 5)`: corners of query and reference, number of the area."""
        return self._place

    def _limits(self, query: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        key = ["area", "strip"]
        box = query[key].merge(self.rectangles.drop_duplicates(key), on=key, how="left")
        low = box[["row0", "col0"]].to_numpy()
        return low, box[["row1", "col1"]].to_numpy() - self.size

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One pair: `query (C, s, s)`, `reference (C, s, s)`, `place (5,)`: the two corners and the area's number;
        `offset (2,)`, rows and columns in pixels from the query's middle to the reference's; and `sample`, its own
        number in the epoch. After `join` also `mined (C, s, s)`, the further window, and `mined_place (6,)`: corners of
        where the query is said to lie and of the window, numbers of their areas."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several pairs at once."""
        query, reference = (images.__getitems__(indices) for images in self._images)
        place = torch.from_numpy(self._place[list(indices)].astype(np.int64))
        offset = torch.from_numpy(self._offset[list(indices)])
        columns = {"query": query, "reference": reference, "place": place, "offset": offset, "sample": indices}
        if self._mined is not None:
            images, places = self._mined
            columns |= {"mined": images.__getitems__(indices), "mined_place": torch.from_numpy(places[list(indices)])}
        return [dict(zip(columns, pair, strict=True)) for pair in zip(*columns.values(), strict=True)]


def pair_overlap(place: torch.Tensor, size: int, window: int | None = None) -> torch.Tensor:
    """Fraction of each query on each reference of a batch: `(B, B)` from `place (B, 5)` or `(B, 6)` of `TrainingPairs`.

    A reference has a side of `window` pixels, `size` like a query by default.
    """
    area = place[:, 4]
    shown = shown_fraction(place[:, None, :2], place[None, :, 2:4], size, window or size)
    return shown * (area[:, None] == place[None, :, -1])


def shown_fraction(query: torch.Tensor, window: torch.Tensor, size: int, side: int) -> torch.Tensor:
    """Fraction of squares of `size` px that windows of `side` px show, of one area: of corners `(..., 2)`."""
    top, bottom = torch.maximum(query, window).float(), torch.minimum(query + size, window + side).float()
    return ((bottom - top) / size).clamp(min=0).prod(-1)
