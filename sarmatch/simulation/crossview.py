"""Simulated cross-view sets: street panoramas and aerial tiles of procedural towns, in the layouts of published sets.

What reads the published set reads the simulated one, so that what runs on it runs on the real set. The tiles are of the
time of the photograph, the panoramas of the later one: cars have moved, and a fraction of lots and trees is another.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from sarmatch.atomic_io import read_json, write, write_json
from sarmatch.progress import progress
from sarmatch.scenes.mercator import EARTH_M, pixel_size
from sarmatch.simulation.city import City, Grid, for_each
from sarmatch.simulation.optical import render_map
from sarmatch.simulation.panorama import ELEVATION_DEG, SHAPE, Survey, render_panorama, street_places, survey

MARK = "simulated.json"  # lies in the folder of every simulated set, and says what it was made of
PLACES = "panoramas.csv"  # where every panorama truly is and looks to; no published set has it
TILE_PX = 640  # pixels of zoom 20 across a tile of VIGOR: what its labels count in
PER_TILE = 2  # panoramas that VIGOR's balanced labels keep of one positive tile
SURVEY_PX_M = 0.25
RIVER_M = 40.0  # narrower than that of a whole town, of which a set shows a few streets


class ViewTown(NamedTuple):
    """A town of a set, and where on earth it claims to lie: the size of a pixel depends on the latitude."""

    name: str
    style: str
    latitude: float
    longitude: float


class ViewPreset(NamedTuple):
    """What a simulated cross-view set holds.

    Attributes
    ----------
    about : str
        For lists.
    layout : str
        Name in `LAYOUTS`.
    towns : tuple of ViewTown
        VIGOR's layout wants its four cities.
    tiles : int
        VIGOR: tiles along each side of a town, half of them overlapping. Others: sides of a tile along a town's.
    tile_px : int
        Pixels along the side of a tile's image. VIGOR's labels count in pixels of zoom 20, of which a tile has 640
        however it is stored.
    zoom_px : int
        Pixels of zoom 20 along the side of a tile.
    panorama : tuple
        Rows and columns.
    elevation_deg : tuple
        Of a panorama's lower and upper edge.
    heading : str
        `known`: north is in the middle of every panorama. `unknown`: it looks anywhere.
    change : float
        Fraction of lots, trees and fields that are others in the panoramas than on the tiles.
    spacing_m : float
        Centre-aligned sets: panoramas are at least so far apart.
    view_m : float
        Panoramas see at least so far beyond the tiles.
    """

    about: str
    layout: str
    towns: tuple[ViewTown, ...]
    tiles: int
    tile_px: int
    zoom_px: int = TILE_PX
    panorama: tuple[int, int] = SHAPE
    elevation_deg: tuple[float, float] = ELEVATION_DEG
    heading: str = "known"
    change: float = 0.1
    spacing_m: float = 20.0
    view_m: float = 100.0


_VIGOR = (
    ViewTown("NewYork", "old_town", 40.75, -73.98),
    ViewTown("Seattle", "suburb", 47.61, -122.33),
    ViewTown("Chicago", "mixed", 41.88, -87.63),
    ViewTown("SanFrancisco", "harbour", 37.77, -122.42),
)
CROSSVIEWS: dict[str, ViewPreset] = {
    "vigor": ViewPreset(
        "panoramas anywhere on streets, tiles that overlap by half, north known", "vigor", _VIGOR, 11, 320
    ),
    "vigor_unknown_heading": ViewPreset(
        "as vigor, but nobody knows where a panorama looks to", "vigor", _VIGOR, 11, 320, heading="unknown"
    ),
    "vigor_small": ViewPreset(
        "as vigor, of more streets in smaller images", "vigor", _VIGOR, 20, 128, panorama=(96, 192)
    ),
    "vigor_small_unknown_heading": ViewPreset(
        "as vigor_small, but nobody knows where a panorama looks to", "vigor", _VIGOR, 20, 128, panorama=(96, 192),
        heading="unknown",
    ),
    "cvusa": ViewPreset(
        "a tile centred on every panorama, north known, another town to test on", "cvusa",
        (ViewTown("first", "suburb", 40.0, -90.0), ViewTown("second", "mixed", 36.0, -95.0)),
        4, 320, zoom_px=1500, panorama=(224, 1232), elevation_deg=(-38.0, 27.0),
    ),
    "cvact": ViewPreset(
        "a tile centred on every panorama, north known, one town to learn from and to test on", "cvact",
        (ViewTown("canberra", "suburb", -35.3, 149.1),), 4, 320, zoom_px=1200,
    ),
}  # fmt: skip
"""Sets by name; quick ones. `full` ones have towns of three times the side, and VIGOR's tiles all of their pixels."""


class _Views(NamedTuple):
    """A town as it will be written: its tiles and its panoramas, in metres of its own frame."""

    town: ViewTown
    map_of: City
    seen: Survey
    tile_m: float
    centres: NDArray[np.float64]  # (N, 2) of tiles
    places: NDArray[np.float64]  # (M, 2) of panoramas
    headings: NDArray[np.float64]  # (M,) degrees


def simulate_crossview(
    folder: Path | str,
    preset: str = "vigor",
    *,
    seed: int = 0,
    profile: str = "quick",
    workers: int | None = None,
    **changes: Any,
) -> Path:
    """Render a simulated cross-view set into a folder, in the layout that `load_crossview` reads.

    Parameters
    ----------
    folder
        New, empty, or one in which this very set was begun.
    preset
        One of `CROSSVIEWS`.
    seed
        Of the towns and of where panoramas are taken.
    profile
        `quick`, or `full` for towns of three times the side and tiles of as many pixels as they are published with.
    workers
        Threads; all processors by default.
    changes
        Fields of `ViewPreset` that differ from the preset.

    Returns
    -------
    The folder. Beside the layout it holds `simulated.json`, what it was made of, and `panoramas.csv`: for every
    panorama its file, town, `x`, `y` in metres from the corner of the town and `heading_deg`.

    Raises
    ------
    ValueError
        For a name or field nobody knows, or where the folder holds something else.

    Examples
    --------
    >>> import tempfile
    >>> from sarmatch import load_crossview
    >>> folder = simulate_crossview(tempfile.mkdtemp(), tiles=3, tile_px=32, panorama=(16, 32))
    >>> view = load_crossview(folder, "cross_area", "test")
    >>> len(view.references), view.simulated
    (18, True)
    """
    if preset not in CROSSVIEWS:
        raise ValueError(f"no cross-view set is called {preset!r}; there are {sorted(CROSSVIEWS)}")
    if profile not in ("quick", "full"):
        raise ValueError(f"profile is {profile!r}, expected quick or full")
    plan = CROSSVIEWS[preset]
    if profile == "full":
        plan = plan._replace(tiles=3 * plan.tiles, tile_px=max(plan.tile_px, TILE_PX))
    unknown = sorted(set(changes) - set(plan._fields))
    if unknown:
        raise ValueError(f"no field of a cross-view preset is called {unknown}; there are {list(plan._fields)}")
    plan = plan._replace(**changes)
    _check(plan)
    folder = Path(folder).expanduser()
    made = _plain({"preset": preset, "seed": seed, **plan._asdict()})
    if not _begin(folder, made):
        return folder
    rows: list[dict[str, Any]] = []
    LAYOUTS[plan.layout](folder, plan, seed, workers, rows)
    write(folder / PLACES, partial(_write_rows, rows=rows))
    return folder


def _check(plan: ViewPreset) -> None:
    if plan.layout not in LAYOUTS:
        raise ValueError(f"layout is {plan.layout!r}, expected one of {sorted(LAYOUTS)}")
    if plan.heading not in ("known", "unknown"):
        raise ValueError(f"heading is {plan.heading!r}, expected known or unknown")
    if plan.tiles < 2 or plan.tile_px < 1:
        raise ValueError(f"tiles is {plan.tiles} and tile_px {plan.tile_px}, expected at least 2 and 1")


def _begin(folder: Path, made: dict[str, Any]) -> bool:
    """Mark a folder as the one of this set; False where the set is there already, whole."""
    mark = folder / MARK
    if mark.is_file():
        held = read_json(mark, dict)
        if held != made:
            other = sorted(k for k in {*held, *made} if held.get(k) != made.get(k))
            raise ValueError(f"{folder}: holds another simulated set, which differs in {other}; take another folder")
        return not (folder / PLACES).is_file()
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: is not empty; give the simulated set a folder of its own")
    write_json(mark, made)
    return True


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, ["path", "area", "x", "y", "heading_deg"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    path.write_text(text.getvalue())


# ------------------------------------------------------------------------------------------------------------- towns
def _views(plan: ViewPreset, number: int, seed: int, workers: int | None) -> _Views:
    """Where the tiles and panoramas of a town are; VIGOR's on a grid, all others centred on their panorama."""
    town = plan.towns[number]
    tile_m = plan.zoom_px * pixel_size(town.latitude)
    on_grid = plan.layout == "vigor"
    extent = (plan.tiles + 1) * tile_m / 2 if on_grid else plan.tiles * tile_m
    rng = np.random.default_rng([seed, number])
    city = City(int(rng.integers(2**31)), extent, town.style, river_m=RIVER_M, change=plan.change)
    side = math.ceil((extent + 2 * plan.view_m) / SURVEY_PX_M)
    grid = Grid(-plan.view_m, side * SURVEY_PX_M - plan.view_m, (side, side), SURVEY_PX_M)
    seen = survey(city, grid, epoch=1, workers=workers)
    wanted = 4 * PER_TILE * plan.tiles**2 if on_grid else math.ceil(4 * (extent / plan.spacing_m) ** 2)
    drawn = street_places(seen, wanted, int(rng.integers(2**31)), plan.view_m + tile_m / 2)
    if not len(drawn):
        raise ValueError(f"town {town.name!r}: no street in the {extent:.0f} m of it; take more tiles or another seed")
    if on_grid:
        centres = _lattice(plan.tiles, tile_m / 2, extent)
        places = drawn[_balanced(_positive(drawn, tile_m / 2, extent, plan.tiles))]
    else:
        places = centres = drawn[_apart(drawn, plan.spacing_m)]
    headings = rng.uniform(0, 360, len(places)) if plan.heading == "unknown" else np.zeros(len(places))
    return _Views(town, city, seen, tile_m, centres, places, headings)


def _lattice(tiles: int, pitch_m: float, extent_m: float) -> NDArray[np.float64]:
    """Centres of the tiles, from the north-west row by row."""
    row, col = np.divmod(np.arange(tiles * tiles), tiles)
    return np.stack([(col + 1) * pitch_m, extent_m - (row + 1) * pitch_m], axis=1)


def _positive(places: NDArray, pitch_m: float, extent_m: float, tiles: int) -> NDArray[np.int64]:
    """The tile whose centre quarter holds each place."""
    row, col = _in_pitches(places, pitch_m, extent_m)
    return np.round(row).astype(int) * tiles + np.round(col).astype(int)


def _in_pitches(places: NDArray, pitch_m: float, extent_m: float) -> tuple[NDArray, NDArray]:
    """Row and column of places on the lattice, fractions included."""
    return (extent_m - places[:, 1]) / pitch_m - 1, places[:, 0] / pitch_m - 1


def _balanced(positive: NDArray) -> NDArray[np.int64]:
    """Of the places of each tile the first few, in the order of their tiles."""
    order = np.argsort(positive, kind="stable")
    first = np.searchsorted(positive[order], positive[order])
    return order[np.arange(len(order)) - first < PER_TILE]


def _apart(places: NDArray, spacing_m: float) -> list[int]:
    """Places from the first on that lie far enough from all that were taken before."""
    taken: list[int] = []
    for i, place in enumerate(places):
        if not taken or np.hypot(*(places[taken] - place).T).min() >= spacing_m:
            taken.append(i)
    return taken


def _degrees(views: _Views, xy: NDArray) -> NDArray[np.float64]:
    """Latitude and longitude of metres in a town's frame, as the reader of VIGOR undoes it: about the first tile."""
    first = views.town.latitude + math.degrees(views.centres[0, 1] / EARTH_M)
    north, east = np.degrees(xy[:, 1] / EARTH_M), np.degrees(xy[:, 0] / EARTH_M) / math.cos(math.radians(first))
    return np.stack([views.town.latitude + north, views.town.longitude + east], axis=1)


# ------------------------------------------------------------------------------------------------------------ images
def _save(image: NDArray[np.uint8], path: Path) -> None:
    kind = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    options = {"quality": 92} if kind == "JPEG" else {"compress_level": 3}
    write(path, lambda p: Image.fromarray(image.transpose(1, 2, 0)).save(p, format=kind, **options))


def _write_panoramas(
    views: _Views, plan: ViewPreset, names: Sequence[str], folder: Path, workers: int | None, rows: list[dict[str, Any]]
) -> None:
    def render(i: int) -> None:
        (x, y), heading = views.places[i], float(views.headings[i])
        image = render_panorama(
            views.seen, x, y, heading_deg=heading, shape=plan.panorama, elevation_deg=plan.elevation_deg
        )
        _save(image, folder / names[i])

    _for_each(render, len(names), f"panoramas of {views.town.name}", workers)
    for name, (x, y), heading in zip(names, views.places, views.headings, strict=True):
        at = {"x": f"{x:.3f}", "y": f"{y:.3f}", "heading_deg": f"{heading:.3f}"}
        rows.append({"path": name, "area": views.town.name, **at})


def _write_grid(views: _Views, plan: ViewPreset, names: Sequence[str], folder: Path, workers: int | None) -> None:
    """Tiles that overlap, cut from one map; the last pixel of a half tile is shared where their number is odd."""
    pixel = views.tile_m / plan.tile_px
    side = math.ceil((plan.tiles + 1) * plan.tile_px / 2)
    extent = views.map_of.extent_m
    whole = render_map(views.map_of, Grid(0.0, extent, (side, side), pixel), workers=workers)

    def cut(i: int) -> None:
        row, col = (round(k * plan.tile_px / 2) for k in divmod(i, plan.tiles))
        _save(whole[:, row : row + plan.tile_px, col : col + plan.tile_px], folder / names[i])

    _for_each(cut, len(names), f"tiles of {views.town.name}", workers)


def _write_centred(views: _Views, plan: ViewPreset, names: Sequence[str], folder: Path) -> None:
    """A tile around every panorama."""
    pixel, half = views.tile_m / plan.tile_px, views.tile_m / 2
    for i in progress(range(len(names)), desc=f"tiles of {views.town.name}", unit="image"):
        x, y = views.centres[i]
        grid = Grid(x - half, y + half, (plan.tile_px, plan.tile_px), pixel)
        _save(render_map(views.map_of, grid), folder / names[i])


def _for_each(work: Callable[[int], None], count: int, what: str, workers: int | None) -> None:
    bar = progress(total=count, desc=what, unit="image")

    def one(i: int) -> None:
        work(i)
        bar.update(1)

    for_each(one, range(count), workers)
    bar.close()


# ----------------------------------------------------------------------------------------------------------- layouts
def _write_vigor(folder: Path, plan: ViewPreset, seed: int, workers: int | None, rows: list[dict[str, Any]]) -> None:
    """`{City}/panorama`, `{City}/satellite`, `splits/{City}`, with a positive, three semi-positives and offsets."""
    for number, town in enumerate(plan.towns):
        views = _views(plan, number, seed, workers)
        tiles = [f"satellite_{lat:.9f}_{lon:.9f}.png" for lat, lon in _degrees(views, views.centres)]
        at = _degrees(views, views.places)
        panoramas = [f"pano{i:06d},{lat:.7f},{lon:.7f},.jpg" for i, (lat, lon) in enumerate(at)]
        _write_grid(views, plan, [f"{town.name}/satellite/{name}" for name in tiles], folder, workers)
        names = [f"{town.name}/panorama/{name}" for name in panoramas]
        _write_panoramas(views, plan, names, folder, workers, rows)
        lines = _vigor_lines(views, plan.tiles, tiles, panoramas)
        splits = folder / "splits" / town.name
        for name, chosen in {
            "satellite_list.txt": tiles,
            "pano_label_balanced.txt": lines,
            "same_area_balanced_train.txt": lines[::2],  # of a tile's two panoramas one is for training
            "same_area_balanced_test.txt": lines[1::2],
        }.items():
            write(splits / name, partial(Path.write_text, data="\n".join(chosen) + "\n"))


def _vigor_lines(views: _Views, tiles: int, names: Sequence[str], panoramas: Sequence[str]) -> list[str]:
    """A line per panorama: its name and four times a tile with its offset in pixels, the positive first."""
    pitch, extent = views.tile_m / 2, views.map_of.extent_m
    lines = []
    for name, place, row, col in zip(panoramas, views.places, *_in_pitches(views.places, pitch, extent), strict=True):
        corners = [
            (i, j) for i in (math.floor(row), math.floor(row) + 1) for j in (math.floor(col), math.floor(col) + 1)
        ]
        around = np.array([min(i, tiles - 1) * tiles + min(j, tiles - 1) for i, j in corners])
        offset = (views.centres[around] - place) / (views.tile_m / TILE_PX)
        overlap = np.prod(1 - np.abs(offset) / TILE_PX, axis=1)
        words = [name]
        for k in np.argsort(-overlap, kind="stable"):
            words += [names[around[k]], f"{offset[k, 1]:.4f}", f"{offset[k, 0]:.4f}"]
        lines.append(" ".join(words))
    return lines


def _write_cvusa(folder: Path, plan: ViewPreset, seed: int, workers: int | None, rows: list[dict[str, Any]]) -> None:
    """`bingmap/19`, `streetview/panos` and two tables of pairs; the last town is for the test."""
    pairs: dict[str, list[str]] = {"train": [], "val": []}
    for number in range(len(plan.towns)):
        views = _views(plan, number, seed, workers)
        start = sum(map(len, pairs.values())) + 1
        ids = [f"{start + i:07d}" for i in range(len(views.places))]
        ground, aerial = [f"streetview/panos/{i}.jpg" for i in ids], [f"bingmap/19/{i}.jpg" for i in ids]
        _write_centred(views, plan, aerial, folder)
        _write_panoramas(views, plan, ground, folder, workers, rows)
        lines = [f"{a},{g},{g.replace('panos', 'annotations')}" for a, g in zip(aerial, ground, strict=True)]
        pairs["val" if number == len(plan.towns) - 1 else "train"] += lines
    for name, chosen in pairs.items():
        write(folder / "splits" / f"{name}-19zl.csv", partial(Path.write_text, data="\n".join(chosen) + "\n"))


def _write_cvact(folder: Path, plan: ViewPreset, seed: int, workers: int | None, rows: list[dict[str, Any]]) -> None:
    """`ANU_data_small` and `ACT_data.mat`; a fifth of the panoramas, drawn at random, is for the test."""
    ids: list[str] = []
    for number in range(len(plan.towns)):
        views = _views(plan, number, seed, workers)
        own = [f"{views.town.name}{i:06d}" for i in range(len(views.places))]
        images = "ANU_data_small"
        _write_centred(views, plan, [f"{images}/satview_polish/{i}_satView_polish.jpg" for i in own], folder)
        ground = [f"{images}/streetview/{i}_grdView.jpg" for i in own]
        _write_panoramas(views, plan, ground, folder, workers, rows)
        ids += own
    order = np.random.default_rng(seed).permutation(len(ids)) + 1  # rows count from 1, as in Matlab
    test = max(1, len(ids) // 5)
    content = {
        "panoIds": np.array(ids, dtype=object),
        "trainSet": {"trainInd": np.sort(order[test:])},
        "valSet": {"valInd": np.sort(order[:test])},
    }
    write(folder / "ACT_data.mat", lambda p: savemat(p, content, appendmat=False))


#: Layouts of published sets, made as `(folder, plan, seed, workers, rows)`; `rows` gathers what `panoramas.csv` holds.
LAYOUTS: dict[str, Callable[[Path, ViewPreset, int, int | None, list[dict[str, Any]]], None]] = {
    "vigor": _write_vigor,
    "cvusa": _write_cvusa,
    "cvact": _write_cvact,
}
