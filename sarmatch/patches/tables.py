"""Tables of patches: the reference grid of a map, the windows cut from strips, and the labels that join the two.

A patch is a square window on a pixel grid. Tables are DataFrames with these columns:

============= ========================================================================================
modality      `sar` or `optical`: what it is cut from, a strip or the map
area          name of the area; empty for a window of a strip whose place nobody knows
strip         name of the SAR strip (`sar` only)
row, col      top-left pixel on the area's grid, or on the strip's own where its place is not known
size          side in pixels
x, y          centre in local metres (absent where the scene has no coordinates or the place is not known)
============= ========================================================================================

`match` adds the labels of a query, which need a place:

============= ========================================================================================
positive      row number in the reference table of the tile with the largest overlap
overlap       fraction of the query that lies on that tile, 0 to 1
semi          tuple of the other overlapping tiles, largest overlap first
semi_overlap  tuple of their overlaps
============= ========================================================================================
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sarmatch.checks import whole_number
from sarmatch.patches.overlap import overlapping_references
from sarmatch.patches.splits import inside, regions
from sarmatch.scenes.scene import Raster, Scene

KINDS = ("aligned", "arbitrary")
MODALITIES = ("sar", "optical")
DRAWS = 50  # how often windows that fell on nodata are drawn again


def references(scene: Scene, size: int | None = None, stride: int | None = None) -> pd.DataFrame:
    """Tiles of the maps of all areas on a seamless grid, counted from each map's top left.

    Parameters
    ----------
    scene
        Where from.
    size
        Side of a tile in pixels; the scene's own patch size by default.
    stride
        Step of the grid in pixels; `size` by default, so that tiles do not overlap.

    Returns
    -------
    DataFrame with `modality`, `area`, `row`, `col`, `size` and, where the scene has coordinates, `x`, `y`.

    Raises
    ------
    ValueError
        Where no tile fits into any map.
    """
    size, stride = _checked(scene, size, stride)
    tables = []
    for area in scene.areas:
        row, col = _grid(area.map, size, stride)
        tables.append(pd.DataFrame({"area": area.name, "row": row, "col": col}))
    table = pd.concat(tables, ignore_index=True).assign(size=size, modality="optical")
    if table.empty:
        raise ValueError(f"scene {scene.name!r}: no map is large enough for one patch of {size} x {size} px")
    return _with_positions(scene, table)


def queries(
    scene: Scene,
    kind: str = "arbitrary",
    size: int | None = None,
    split: str | pd.DataFrame | None = None,
    *,
    protocol: str = "cross_area",
    guard: int | None = None,
    stride: int | None = None,
    count: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Windows cut from the SAR strips, without labels: `match` says which tile each belongs to.

    Parameters
    ----------
    scene
        Where from.
    kind
        `aligned`: cut on the reference grid, every one there is. `arbitrary`: `count` windows at random offsets.
        `unplaced`: cut on a grid of `stride` from the strips whose place nobody knows (`Scene.unplaced`).
    size
        Side in pixels; the scene's own patch size by default.
    split
        `train`, `val` or `test` of `protocol`; or rectangles as `regions` gives them; `None` takes all areas and all
        strips.
    protocol
        `same_area` or `cross_area`, see `sarmatch.patches.splits`.
    guard
        Guard band in pixels; two patches by default.
    stride
        Step of the grid that aligned and unplaced windows are cut on; `size` by default.
    count, seed
        How many arbitrary queries, and the seed they are drawn with. The other kinds need neither.

    Returns
    -------
    DataFrame, see the module's first table. Windows that leave their strip are dropped.

    Raises
    ------
    ValueError
        Where nothing is left: the sizes, the split and the protocol are named.
    """
    size, stride = _checked(scene, size, stride)
    whole_number("count", count)
    whole_number("seed", seed, 0)
    if kind not in CUTS:
        raise ValueError(f"kind is {kind!r}, expected one of {tuple(CUTS)}")
    allowed = None if split is None else _ground(scene, split, protocol, size, guard)
    windows = CUTS[kind](scene, size, stride, allowed, count, seed).assign(size=size, modality="sar")
    if allowed is not None:
        windows = windows[inside(windows, allowed, size)].reset_index(drop=True)
    if windows.empty:
        raise _nothing_left(scene, kind, size, split, protocol)
    return windows if kind == "unplaced" else _with_positions(scene, windows)


def search_task(
    scene: Scene,
    kind: str,
    size: int | None,
    split: str | pd.DataFrame,
    *,
    protocol: str,
    stride: int | None = None,
    **options,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The queries of a split with their labels, and the tiles they are searched among.

    The gallery is every tile of the split's region, in all areas that have a query: a whole map where the area is
    unseen or only its strips are held out, the validation band otherwise. A tile that crosses the band's edge is in it
    if some query belongs to it.

    Returns
    -------
    queries, tiles
        Patch tables; `positive` and `semi` of the queries count rows of `tiles`. Queries that hang over the edge of the
        grid are dropped, see `match`.

    Raises
    ------
    ValueError
        Where no query is left.
    """
    tiles = references(scene, size, stride)
    side = int(tiles["size"].iloc[0])
    windows = queries(scene, kind, size, split, protocol=protocol, stride=stride, **options)
    windows = windows[windows["area"].isin(tiles["area"])]
    asked = windows if windows.empty else match(windows, tiles, scene, stride)
    if asked.empty:
        raise _nothing_left(scene, kind, side, split, protocol)
    ground = _ground(scene, split, protocol, side)
    ground = ground[ground.area.isin(asked["area"])]
    keep = inside(tiles, ground, side)
    keep[asked["positive"]] = True
    return _renumbered(asked, keep), tiles[keep].reset_index(drop=True)


def _renumbered(labelled: pd.DataFrame, keep: np.ndarray) -> pd.DataFrame:
    """Labels that count the kept tiles only; semi-positives that are not kept are gone."""
    new = np.where(keep, np.cumsum(keep) - 1, -1)
    pairs = [
        [(int(new[i]), fraction) for i, fraction in zip(indices, overlaps, strict=True) if keep[i]]
        for indices, overlaps in zip(labelled["semi"], labelled["semi_overlap"], strict=True)
    ]
    return labelled.assign(
        positive=new[labelled["positive"]],
        semi=[tuple(i for i, _ in row) for row in pairs],
        semi_overlap=[tuple(fraction for _, fraction in row) for row in pairs],
    )


def _nothing_left(scene: Scene, kind: str, size: int, split: str | pd.DataFrame | None, protocol: str) -> ValueError:
    return ValueError(
        f"scene {scene.name!r}: no {kind} query of {size} x {size} px lies in {_named(split, protocol)}; "
        "strips, held-out regions or the map are too small for one patch"
    )


def _ground(
    scene: Scene, split: str | pd.DataFrame, protocol: str, size: int, guard: int | None = None
) -> pd.DataFrame:
    """Rectangles of a split, as `regions` gives them."""
    if isinstance(split, pd.DataFrame):
        return split
    table = regions(scene, protocol, guard_band(scene, size) if guard is None else guard)
    if split not in set(table.split):
        raise ValueError(f"scene {scene.name!r} has no {split!r} split in protocol {protocol!r}")
    return table[table.split == split]


def _named(split: str | pd.DataFrame | None, protocol: str) -> str:
    return "the given ground" if isinstance(split, pd.DataFrame) else f"split {split!r} of {protocol!r}"


def match(windows: pd.DataFrame, tiles: pd.DataFrame, scene: Scene, stride: int | None = None) -> pd.DataFrame:
    """Join labels on query windows: the tile each belongs to, see the module's second table.

    The positive is the tile with the largest overlap, any one of them where two are equal; every other overlapping tile
    is semi-positive. On a seamless grid some tile covers at least `(1 - stride / 2 size)^2` of any window; windows with
    less hang over the grid's edge and are dropped.

    Raises
    ------
    ValueError
        Where a window has no area: a strip without a known place has no positive.
    """
    if (windows["area"] == "").any():
        raise ValueError(f"{int((windows['area'] == '').sum())} windows have no known place, so no tile is theirs")
    size = int(tiles["size"].iloc[0])
    least = max(1 - (stride or size) / (2 * size), 0) ** 2
    parts = []
    for area, group in windows.groupby("area", sort=False):
        rows = np.flatnonzero(tiles["area"].to_numpy() == area)
        if not len(rows):
            continue
        corners = tiles[["row", "col"]].to_numpy()[rows]
        found, shares = overlapping_references(group[["row", "col"]].to_numpy(), corners, size, stride or size)
        found = np.where(found >= 0, rows[found], -1)
        parts.append(
            group.assign(
                positive=found[:, 0],
                overlap=shares[:, 0],
                semi=[tuple(f[1:][f[1:] >= 0].tolist()) for f in found],
                semi_overlap=[tuple(s[1:][s[1:] > 0].tolist()) for s in shares],
            )
        )
    nothing = windows.iloc[:0].assign(positive=[], overlap=[], semi=[], semi_overlap=[])
    table = pd.concat(parts) if parts else nothing
    table = table[(table.positive >= 0) & (table.overlap > least - 1e-9)].sort_index().reset_index(drop=True)
    return _with_positions(scene, table)


def guard_band(scene: Scene, size: int) -> int:
    """Default guard band in pixels: two patches, none where pairs do not overlap in the first place."""
    return 2 * size if scene.has_coordinates else 0


def draw_windows(
    rectangles: pd.DataFrame, scene: Scene, size: int, count: int, rng: np.random.Generator
) -> pd.DataFrame:
    """`count` windows of `size` px, uniform over the parts of the rectangles that their strip covers.

    Parameters
    ----------
    rectangles
        As `sarmatch.patches.splits.regions` gives them.
    scene, size, count, rng
        Where from, side in pixels, how many, and the source of chance.

    Returns
    -------
    DataFrame with `area`, `strip`, `row`, `col`; empty where no rectangle holds a window.
    """
    places = []
    for r in rectangles.itertuples():
        for t in scene.area(r.area).strip(r.strip).tiles:
            top, left = max(r.row0, t.row), max(r.col0, t.col)
            high = min(r.row1, t.row + t.height) - size - top + 1
            wide = min(r.col1, t.col + t.width) - size - left + 1
            if high > 0 and wide > 0:
                places.append((r.area, r.strip, top, left, high, wide))
    columns = ["area", "strip", "row", "col"]
    if not places:
        return pd.DataFrame(columns=columns)
    area, strip, top, left, high, wide = (np.array(column) for column in zip(*places, strict=True))
    weight = high * wide
    parts, missing = [], count
    for _ in range(DRAWS):  # windows on nodata are drawn again
        pick = rng.choice(len(places), size=missing, p=weight / weight.sum())
        row, col = top[pick] + rng.integers(0, high[pick]), left[pick] + rng.integers(0, wide[pick])
        drawn = pd.DataFrame({"area": area[pick], "strip": strip[pick], "row": row, "col": col})
        parts.append(drawn[_on_data(drawn, scene, size)])
        missing -= len(parts[-1])
        if not missing:
            return pd.concat(parts, ignore_index=True)
    found = pd.concat(parts, ignore_index=True)
    if found.empty:
        return found
    extra = found.iloc[rng.integers(0, len(found), missing)]  # so little data that windows have to repeat
    return pd.concat([found, extra], ignore_index=True)


def _on_data(windows: pd.DataFrame, scene: Scene, size: int) -> np.ndarray:
    """Which windows of strips touch no nodata: bool `(N,)`."""
    keep = np.ones(len(windows), bool)
    for (area, strip), places in windows.groupby(["area", "strip"]).indices.items():
        raster = scene.area(area).strip(strip)
        if any(t.valid is not None for t in raster.tiles):
            row, col = windows[["row", "col"]].to_numpy()[places].T
            keep[places] = raster.covers(row, col, size)
    return keep


def _aligned(scene: Scene, size: int, stride: int, allowed: pd.DataFrame | None, count: int, seed: int) -> pd.DataFrame:
    """Every window on the grid of the map that its strip covers; the rest of the arguments is not used."""
    parts = []
    for area in scene.areas:
        row, col = _grid(area.map, size, stride)
        for strip in area.strips:
            keep = strip.covers(row, col, size)
            parts.append(pd.DataFrame({"area": area.name, "strip": strip.name, "row": row[keep], "col": col[keep]}))
    return pd.concat(parts, ignore_index=True)


def _arbitrary(
    scene: Scene, size: int, stride: int, allowed: pd.DataFrame | None, count: int, seed: int
) -> pd.DataFrame:
    """Windows at random; `stride` is not used."""
    if allowed is None:
        rows = [(a.name, s.name, *s.bounds) for a in scene.areas for s in a.strips]
        allowed = pd.DataFrame(rows, columns=["area", "strip", "row0", "col0", "row1", "col1"])
    return draw_windows(allowed, scene, size, count, np.random.default_rng(seed))


def _unplaced(
    scene: Scene, size: int, stride: int, allowed: pd.DataFrame | None, count: int, seed: int
) -> pd.DataFrame:
    """Every window on a grid over the strips without a place; the rest of the arguments is not used."""
    parts = [pd.DataFrame(columns=["area", "strip", "row", "col"])]
    for strip in scene.unplaced:
        row, col = _grid(strip, size, stride)
        parts.append(pd.DataFrame({"area": "", "strip": strip.name, "row": row, "col": col}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


#: Kinds of windows: `(scene, size, stride, allowed, count, seed)` to `area`, `strip`, `row`, `col`.
CUTS = {"aligned": _aligned, "arbitrary": _arbitrary, "unplaced": _unplaced}


def _grid(raster: Raster, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    boxes = [raster.bounds]
    if not raster.joined:
        boxes = [(t.row, t.col, t.row + t.height, t.col + t.width) for t in raster.tiles]
    corners = []
    for row0, col0, row1, col1 in boxes:
        steps = np.meshgrid(
            np.arange(row0, row1 - size + 1, stride), np.arange(col0, col1 - size + 1, stride), indexing="ij"
        )
        corners.append(np.stack([s.ravel() for s in steps], axis=1))
    row, col = np.concatenate(corners).T
    keep = raster.covers(row, col, size)
    return row[keep], col[keep]


def _with_positions(scene: Scene, table: pd.DataFrame) -> pd.DataFrame:
    if not scene.has_coordinates:
        return table
    xy = np.empty((len(table), 2))
    for area, places in table.groupby("area").indices.items():
        half = table["size"].to_numpy()[places] / 2
        xy[places] = scene.metres(area, table["row"].to_numpy()[places] + half, table["col"].to_numpy()[places] + half)
    return table.assign(x=xy[:, 0], y=xy[:, 1])


def positions(table: pd.DataFrame, columns: Sequence[str] = ("x", "y")) -> np.ndarray | None:
    """Centres in metres `(N, 2)` of a patch table, `None` where it has no coordinates."""
    return table[list(columns)].to_numpy() if set(columns) <= set(table.columns) else None


def _checked(scene: Scene, size: int | None, stride: int | None) -> tuple[int, int]:
    size = scene.patch_size if size is None else size
    stride = size if stride is None else stride
    return whole_number("patch size", size, 8), whole_number("stride", stride)
