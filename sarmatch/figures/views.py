"""Pictures of cross-view sets: a panorama beside the aerial tiles that cover its place."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Wedge

from sarmatch.datasets.crossview import CrossView
from sarmatch.datasets.images import read_image
from sarmatch.figures.style import BLACK, DARK_EDGE, PLACES, YELLOW, new_figure, outline
from sarmatch.scenes.mercator import pixel_size

TILE_PX = 640  # pixels of zoom 20 across a tile of VIGOR
COMPASS = {0: "N", 45: "NE", 90: "E", 135: "SE", 180: "S", 225: "SW", 270: "W", 315: "NW"}
FIELD_DEG = 60.0  # of view, drawn as a wedge about the heading

_PLACES = {"positive": "true", "semi-positive": "overlaps"}  # what a tile is, as in every figure


class _Tile(NamedTuple):
    image: np.ndarray  # (H, W, 3)
    x: float  # of its centre, metres east of the panorama
    y: float
    role: str  # positive, semi-positive


def panorama_on_tiles(view: CrossView, query: int, heading_deg: float = 0.0) -> Figure:
    """A panorama above, and where it stands: its positive tile, and all tiles that cover the place.

    Parameters
    ----------
    view
        As `load_crossview` gives it. Without coordinates the place is the centre of the one tile.
    query
        Row of `view.queries`.
    heading_deg
        Clockwise from north: what the middle of the panorama looks to. The published sets have north there.
    """
    asked = view.queries.iloc[query]
    tiles = _tiles_of(view, asked)
    half = TILE_PX / 2 * (pixel_size(view.references.loc[asked.positive, "latitude"]) if view.has_coordinates else 1.0)
    figure, axes = new_figure(10, 10.2)
    axes[0, 0].remove()
    rows = figure.subplot_mosaic([["panorama", "panorama"], ["tile", "around"]], height_ratios=(1, 1.1))
    _draw_panorama(rows["panorama"], read_image(asked.path, 3), heading_deg)
    _draw_tiles(rows["tile"], tiles[:1], half, heading_deg, view.has_coordinates)
    _draw_tiles(rows["around"], tiles, half, heading_deg, view.has_coordinates)
    rows["tile"].set_title("positive tile: its centre quarter (dotted) holds the place")
    rows["around"].set_title("all tiles that cover the place" if len(tiles) > 1 else "the one tile of the place")
    roles = dict.fromkeys(tile.role for tile in tiles)
    signs = [Line2D([], [], linewidth=3, label=f"{role} tile", **_line(role)) for role in roles]
    signs.append(Line2D([], [], color=YELLOW, marker="o", markeredgecolor=BLACK, label="place and heading"))
    figure.legend(handles=signs, loc="outside lower center", ncols=len(signs))
    shown = f"{len(tiles)} aerial tiles show" if len(tiles) > 1 else "one aerial tile shows"
    title = f"{asked.area}: {shown} the place of a panorama, one counts as right"
    figure.suptitle(f"{title} ({'simulated' if view.simulated else 'real'})")
    return figure


def _tiles_of(view: CrossView, asked: Any) -> list[_Tile]:
    """The positive tile first, then the semi-positive ones, about the place of the panorama."""
    tiles = []
    for row in (asked.positive, *asked.semi):
        tile = view.references.iloc[row]
        x, y = (tile.x - asked.x, tile.y - asked.y) if view.has_coordinates else (0.0, 0.0)
        role = "positive" if row == asked.positive else "semi-positive"
        tiles.append(_Tile(read_image(tile.path, 3).transpose(1, 2, 0), x, y, role))
    return tiles


def _draw_panorama(ax: Axes, image: np.ndarray, heading_deg: float) -> None:
    height, width = image.shape[1:]
    ax.imshow(image.transpose(1, 2, 0), extent=(0, width, height, 0), aspect="auto")
    ticks = {((azimuth - heading_deg + 180) % 360) / 360 * width: name for azimuth, name in COMPASS.items()}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(xlabel="direction (compass)", ylabel="row (px)")
    ax.axvline(width / 2, color=YELLOW, linewidth=1.5)
    ax.set_title(f"panorama; its middle looks {heading_deg % 360:.0f}° clockwise from north")


def _draw_tiles(ax: Axes, tiles: list[_Tile], half: float, heading_deg: float, metres: bool) -> None:
    """Tiles where they lie about the place, the positive one on top, and the place with its heading."""
    for tile in reversed(tiles):
        ax.imshow(tile.image, extent=(tile.x - half, tile.x + half, tile.y - half, tile.y + half))
    for i, tile in enumerate(tiles):
        inset = (0.02 + 0.03 * i) * half  # so that no outline hides another
        low, side = inset - half, 2 * (half - inset)
        outline(ax, (tile.x + low, tile.y + low), side, side, linewidth=3, **_line(tile.role))
    first = tiles[0]
    outline(ax, (first.x - half / 2, first.y - half / 2), half, half, color="white", linestyle=":")
    east, north = math.sin(math.radians(heading_deg)), math.cos(math.radians(heading_deg))
    middle, reach = 90 - heading_deg, 0.45 * half
    field = Wedge((0, 0), reach, middle - FIELD_DEG / 2, middle + FIELD_DEG / 2, color=YELLOW, alpha=0.45)
    ax.add_patch(field)
    arrow = {"arrowstyle": "->", "color": YELLOW, "lw": 2.5, "path_effects": DARK_EDGE}
    ax.annotate("", (reach * east, reach * north), (0, 0), arrowprops=arrow)
    ax.plot(0, 0, "o", color=YELLOW, markeredgecolor=BLACK, markersize=9)
    x, y = (np.array([getattr(tile, axis) for tile in tiles]) for axis in "xy")
    ax.set(xlim=(x.min() - half, x.max() + half), ylim=(y.min() - half, y.max() + half), aspect="equal")
    unit = "m" if metres else "px"
    ax.set(xlabel=f"east of the panorama ({unit})", ylabel=f"north of the panorama ({unit})")


def _line(role: str) -> dict[str, Any]:
    place = PLACES[_PLACES[role]]
    return {"color": place["color"], "linestyle": place["linestyle"]}
