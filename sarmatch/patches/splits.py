"""Which areas and which strips are for training, validation and test.

Two protocols:

- `same_area`: the map is seen in training, whole strips are held out. Nothing of a held-out strip is trained on.
- `cross_area`: areas are held out. Test areas are never seen; validation areas, or a band of every training area where
  there are none, are for validation. A guard band that belongs to nobody lies between a band and the training area.
  Images that stand for themselves are never cut by a band's edge.

With several protocols at once, training takes only what every one of them allows.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sarmatch.scenes.scene import Raster, Scene

PROTOCOLS = ("same_area", "cross_area")
SPLITS = ("train", "val", "test")


def regions(scene: Scene, protocol: str, guard: int, val_share: float = 0.2) -> pd.DataFrame:
    """The regions and strips that a protocol gives to each split.

    Parameters
    ----------
    scene
        Where from.
    protocol
        `same_area` or `cross_area`.
    guard
        Width in pixels of the band between training and validation area that nobody uses.
    val_share
        Fraction of each training area's rows that is validation area (`cross_area`).

    Returns
    -------
    DataFrame with `area`, `strip`, `split`, `row0`, `col0`, `row1`, `col1`: a patch of that strip belongs to the
    split if it lies wholly inside the rectangle. What lies in none is dropped.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}, expected one of {PROTOCOLS}")
    rows = []
    for area in scene.areas:
        row0, col0, row1, col1 = area.map.bounds
        unseen = area.name in scene.test_areas
        if protocol == "same_area":
            if not unseen and area.name not in scene.val_areas:
                rows += [
                    (area.name, strip.name, role, row0, col0, row1, col1)
                    for strip, role in zip(area.strips, area.roles, strict=True)
                ]
            continue
        if unseen:
            pieces = [("test", row0, row1)]
        elif area.name in scene.val_areas:
            pieces = [("val", row0, row1)]
        elif scene.val_areas:
            pieces = [("train", row0, row1)]
        else:
            band = round(val_share * (row1 - row0))
            cut = _edge(area.map, row1 - band, up=True)
            pieces = [("train", row0, cut - guard), ("val", cut, row1)]
            if not scene.test_areas:  # one area only: the test region is a second band at its other end
                first = _edge(area.map, row0 + band, up=False)
                pieces = [("test", row0, first), ("train", first + guard, cut - guard), ("val", cut, row1)]
        rows += [
            (area.name, strip.name, split, top, col0, bottom, col1)
            for strip in area.strips
            for split, top, bottom in pieces
        ]
    return pd.DataFrame(rows, columns=["area", "strip", "split", "row0", "col0", "row1", "col1"])


def protocols_of(scene: Scene) -> tuple[str, ...]:
    """The protocols that a scene can be split by: those with training, validation and test strips.

    A set of image pairs has but one strip over each area, so it knows no held-out pass over a seen area.
    """
    return tuple(p for p in PROTOCOLS if set(regions(scene, p, guard=0).split) == set(SPLITS))


def _edge(raster: Raster, row: int, up: bool) -> int:
    """The row itself on a joined map; else the nearest row above or below that cuts through no tile."""
    if raster.joined:
        return row
    tops = [*(t.row for t in raster.tiles), raster.bounds[2]]
    return max(t for t in tops if t <= row) if up else min(t for t in tops if t >= row)


def training_regions(scene: Scene, protocols: Sequence[str], guard: int) -> pd.DataFrame:
    """Rectangles of `regions` that are training areas and training strips under every one of the protocols."""
    tables = [regions(scene, p, guard).query("split == 'train'") for p in protocols]
    joined = tables[0]
    for table in tables[1:]:
        joined = joined.merge(table, on=["area", "strip", "split"], suffixes=("", "_other"))
        for name, pick in (
            ("row0", np.maximum),
            ("col0", np.maximum),
            ("row1", np.minimum),
            ("col1", np.minimum),
        ):
            joined[name] = pick(joined[name], joined.pop(f"{name}_other"))
    return joined[(joined.row1 > joined.row0) & (joined.col1 > joined.col0)].reset_index(drop=True)


def fold_of(
    rectangles: pd.DataFrame, fold: tuple[int, int], guard: int, bands: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training areas without one of their folds, and that fold: for cross-fitting.

    Parameters
    ----------
    rectangles
        As `training_regions` gives them.
    fold
        `(i, n)`: the i-th of n. Folds are whole areas where there are n or more, and bands of every area otherwise.
    guard
        Width in pixels that nobody uses on either side of a band.
    bands
        Bands of every area, however many areas there are.

    Returns
    -------
    rest, held : DataFrame
        Of the same columns.

    Raises
    ------
    ValueError
        Where the areas are too small for so many bands.
    """
    number, count = fold
    areas = sorted(rectangles["area"].unique())
    if len(areas) >= count and not bands:
        held = rectangles["area"].isin(areas[number::count])
        return rectangles[~held].reset_index(drop=True), rectangles[held].reset_index(drop=True)
    top, height = rectangles["row0"], (rectangles["row1"] - rectangles["row0"]) / count
    low, high = (np.round(top + height * k).astype(int) for k in (number, number + 1))
    held = rectangles.assign(row0=low, row1=high)
    rest = pd.concat([rectangles.assign(row1=low - guard), rectangles.assign(row0=high + guard)])
    rest = rest[rest["row1"] > rest["row0"]].reset_index(drop=True)
    if rest.empty or guard >= height.min():
        raise ValueError(
            f"training ground {int(height.min() * count)} px high does not hold {count} folds with guards of {guard} px"
        )
    return rest, held.reset_index(drop=True)


def inside(windows: pd.DataFrame, table: pd.DataFrame, size: int) -> np.ndarray:
    """Which windows lie wholly inside a rectangle for their area, and for their strip if they are SAR: bool `(N,)`."""
    keys = ["area", "strip"] if (windows["modality"] == "sar").all() else ["area"]
    rectangles = table[[*keys, "row0", "col0", "row1", "col1"]].drop_duplicates()
    pairs = windows[[*keys, "row", "col"]].assign(at=np.arange(len(windows))).merge(rectangles, on=keys)
    hit = (pairs.row >= pairs.row0) & (pairs.col >= pairs.col0)
    hit &= (pairs.row + size <= pairs.row1) & (pairs.col + size <= pairs.col1)
    keep = np.zeros(len(windows), dtype=bool)
    keep[pairs["at"][hit]] = True
    return keep
