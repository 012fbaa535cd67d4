"""Maps of whole areas: where things lie, what was found, and which part is for what."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sarmatch.figures.style import (
    BLACK,
    DARK_EDGE,
    GREEN,
    PLACES,
    PROTOCOL_WORDS,
    SPLIT_COLOURS,
    WHITE_EDGE,
    YELLOW,
    new_figure,
    outline,
)
from sarmatch.scenes.scene import Area, Raster, Scene


def overview(raster: Raster, longest: int = 1024) -> np.ndarray:
    """A raster averaged over blocks of pixels, `float32 (C, h, w)` with `h, w <= longest`; NaN where no tile lies."""
    row0, col0, row1, col1 = raster.bounds
    side = max(row1 - row0, col1 - col0)
    step = 2 ** max(0, int(np.ceil(np.log2(side / longest))))  # tiles are mostly multiples of it, so no seam shows
    image = np.full((raster.channels, -(-(row1 - row0) // step), -(-(col1 - col0) // step)), np.nan, np.float32)
    for t in raster.tiles:
        skip_row, skip_col = -(t.row - row0) % step, -(t.col - col0) % step
        part = t.read(slice(skip_row, t.height), slice(skip_col, t.width))
        height, width = part.shape[1] // step, part.shape[2] // step
        blocks = part[:, : height * step, : width * step].reshape(len(part), height, step, width, step)
        top, left = (t.row - row0 + skip_row) // step, (t.col - col0 + skip_col) // step
        mean = blocks.mean((2, 4), dtype=np.float32) / (255 if part.dtype == np.uint8 else 1)
        image[:, top : top + height, left : left + width] = mean
    return image


class Frame:
    """Coordinates of an area's map: kilometres of the scene where there are any, else pixels of the area's grid."""

    def __init__(self, scene: Scene, area: Area) -> None:
        self.scene, self.area = scene, area
        row0, col0, row1, col1 = area.map.bounds
        (left, top), (right, bottom) = self.of_grid([row0, row1], [col0, col1])
        self.extent = (left, right, bottom, top)
        self.labels = ("east (km)", "north (km)") if scene.has_coordinates else ("column (px)", "row (px)")

    def of_grid(self, row: Sequence[float], col: Sequence[float]) -> np.ndarray:
        """Rows and columns of the grid to `(N, 2)` coordinates of the figure."""
        if self.scene.has_coordinates:
            return self.scene.metres(self.area.name, row, col) / 1000
        return np.stack([col, row], axis=-1).astype(float)

    def of_table(self, table: pd.DataFrame) -> np.ndarray:
        """Centres of a patch table, `(N, 2)`."""
        half = table["size"].to_numpy() / 2
        return self.of_grid(table["row"].to_numpy() + half, table["col"].to_numpy() + half)

    def box(self, axes: Axes, bounds: Sequence[float], **style) -> None:
        """Outline of `(row0, col0, row1, col1)`."""
        (left, top), (right, bottom) = self.of_grid(bounds[0::2], bounds[1::2])
        outline(axes, (left, top), right - left, bottom - top, **style)

    def fill(self, axes: Axes, bounds: Sequence[float], **style) -> None:
        """The same, filled."""
        (left, top), (right, bottom) = self.of_grid(bounds[0::2], bounds[1::2])
        axes.fill([left, right, right, left], [top, top, bottom, bottom], **style)

    def draw(self, axes: Axes, fade: float = 0.0) -> None:
        """The optical map, blended towards white by `fade`; where there is no tile it is white."""
        image = np.moveaxis(overview(self.area.map), 0, -1)
        image = np.nan_to_num(np.clip(image, 0, 1), nan=1.0) * (1 - fade) + fade
        axes.imshow(image, extent=self.extent, interpolation="antialiased", aspect="equal")
        axes.set(xlabel=self.labels[0], ylabel=self.labels[1])


def _area_of(scene: Scene, table: pd.DataFrame) -> Area:
    names = table["area"].unique()
    if len(names) != 1:
        raise ValueError(f"a map shows one area, but the table has {sorted(names)}; filter it by `area` first")
    return scene.area(names[0])


def _legend(axes: Axes, handles: list) -> None:
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, frameon=False)


def map_with_places(
    scene: Scene, query: pd.DataFrame, tiles: pd.DataFrame, found: Sequence[int], title: str = "True and found places"
) -> Figure:
    """The map with the strip a query was cut from, where the query lies, and the first tiles found.

    Parameters
    ----------
    scene
        Where the map is read.
    query
        Query table of one row.
    tiles
        The gallery.
    found
        Rows of `tiles`, best first; the first is the prediction.
    title
        Whether the data are simulated or real is added.
    """
    row, area = query.iloc[0], _area_of(scene, query)
    map_frame = Frame(scene, area)
    figure, axes = new_figure(8.6, 6.2)
    ax = axes[0, 0]
    map_frame.draw(ax, fade=0.25)
    handles = _draw_strips(ax, map_frame, row.strip)
    states = []
    for k, tile in enumerate(found):
        if tiles["area"].iloc[tile] != area.name:
            continue  # its number is missing on the map, as it should be
        state = "true" if tile == row.positive else "overlaps" if tile in row.semi else "wrong"
        state = "candidate" if state == "wrong" and k else state
        ((x, y),) = map_frame.of_table(tiles.iloc[[tile]])
        style = PLACES[state]
        ax.plot(x, y, style["marker"], ms=13 if k == 0 else 11, color=style["color"], mec="black", mew=0.8, zorder=4)
        ax.annotate(
            str(k + 1), (x, y), (7, 5), textcoords="offset points", fontweight="bold", path_effects=WHITE_EDGE, zorder=6
        )
        states.append(state)
    (true,) = map_frame.of_table(query)
    ax.plot(*true, "o", ms=24, mfc="none", mec=GREEN, mew=3, zorder=5)
    handles += [
        Line2D([], [], ls="", marker="o", ms=14, mfc="none", mec=GREEN, mew=3, label="where the query lies"),
        *(
            Line2D([], [], ls="", marker=PLACES[s]["marker"], ms=10, color=PLACES[s]["color"], mec="black", label=text)
            for s, text in (
                ("true", "found: the true tile"),
                ("overlaps", "found: overlaps"),
                ("wrong", "found first, wrong"),
                ("candidate", "found later, wrong"),
            )
            if s in states
        ),
    ]
    _legend(ax, handles)
    ax.set_title(f"{title} ({scene.label})\n{area.name}; numbers: order in the list of results", fontsize="medium")
    return figure


def _draw_strips(ax: Axes, map_frame: Frame, own: str) -> list[Line2D]:
    """The strip a query was cut from, the others too where they are few; gives what the legend says of them."""
    area, handles = map_frame.area, []
    if len(area.strips) <= 6:
        edge = {"color": BLACK, "linewidth": 1, "linestyle": (0, (1, 2))}
        for strip in area.strips:
            map_frame.box(ax, strip.bounds, **edge)
        handles.append(Line2D([], [], label="edge of a SAR strip", **edge))
    map_frame.fill(ax, area.strip(own).bounds, facecolor=YELLOW, alpha=0.15, lw=0)
    map_frame.box(ax, area.strip(own).bounds, color=YELLOW, linewidth=3)
    return [*handles, Line2D([], [], color=YELLOW, linewidth=3, label=f"strip of the query ({own})")]


def map_of_outcomes(scene: Scene, queries: pd.DataFrame, found: np.ndarray, title: str = "Test queries") -> Figure:
    """Where queries were answered rightly and where not; queries of one area.

    Parameters
    ----------
    scene
        Where the map is read.
    queries
        Query table.
    found
        bool `(Q,)`.
    title
        Whether the data are simulated or real is added.
    """
    area, found = _area_of(scene, queries), np.asarray(found, dtype=bool)
    map_frame = Frame(scene, area)
    figure, axes = new_figure(8.6, 6.2)
    ax = axes[0, 0]
    map_frame.draw(ax, fade=0.5)
    xy = map_frame.of_table(queries)
    for state, mask, text, look in (
        ("true", found, "found", {"marker": "o", "ms": 5, "mec": "white", "mew": 0.5, "zorder": 3}),
        ("wrong", ~found, "not found", {"marker": "x", "ms": 4, "mew": 1.1, "zorder": 2}),
    ):
        label = f"{text}: {mask.sum()} of {len(mask)}"
        ax.plot(*xy[mask].T, linestyle="none", color=PLACES[state]["color"], label=label, **look)
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, frameon=False)
    ax.set_title(f"{title}: {area.name} ({scene.label})")
    return figure


def split_map(scene: Scene, tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """Which part of the areas and which strips each protocol gives to training, validation and test.

    Parameters
    ----------
    scene
        Its areas are the columns.
    tables
        By name of the protocol, what `sarmatch.patches.regions` gives; a row of maps each.
    title
        What is seen; whether the data are simulated or real is added.
    """
    figure, axes = new_figure(3.6 * len(scene.areas) + 1.2, 3.7 * len(tables) + 0.6, len(tables), len(scene.areas))
    for r, (protocol, table) in enumerate(tables.items()):
        for ax, area in zip(axes[r], scene.areas, strict=True):
            map_frame = Frame(scene, area)
            map_frame.draw(ax, fade=0.55)
            pieces = table[table.area == area.name]
            bands = sorted(set(zip(pieces["row0"], pieces["row1"], strict=True)))
            for (_, above), (below, _) in pairwise(bands):
                box = (above, area.map.bounds[1], below, area.map.bounds[3])
                map_frame.fill(ax, box, facecolor="none", edgecolor=SPLIT_COLOURS["guard"], hatch="xxx", lw=0)
            _draw_pieces(ax, map_frame, pieces)
            ax.set_title(
                f"{PROTOCOL_WORDS.get(protocol, protocol)}: {area.name}" + ("" if len(pieces) else " (not used)"),
                fontsize="medium",
            )
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    handles = [
        Patch(facecolor=SPLIT_COLOURS[s], alpha=0.6, edgecolor="black", label=s) for s in ("train", "val", "test")
    ]
    handles.append(Patch(facecolor="none", edgecolor=SPLIT_COLOURS["guard"], hatch="xx", label="guard band, not used"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.suptitle(f"{title} ({scene.label})")
    return figure


def _draw_pieces(axes: Axes, map_frame: Frame, pieces: pd.DataFrame) -> None:
    """Strips clipped to their regions; where splits overlap, the later one is drawn inside the first."""
    names: dict[tuple[tuple, str], list[str]] = {}
    for piece in pieces.itertuples():
        row0, col0, row1, col1 = map_frame.area.strip(piece.strip).bounds
        box = (max(row0, piece.row0), max(col0, piece.col0), min(row1, piece.row1), min(col1, piece.col1))
        if box[0] < box[2] and box[1] < box[3]:
            names.setdefault((box, piece.split), []).append(piece.strip)
    boxes = [box for box, _ in names]
    for i, ((box, split), strips) in enumerate(names.items()):
        inset = (box[3] - box[1]) * 0.22 * boxes[:i].count(box)
        inner = (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
        map_frame.fill(axes, inner, facecolor=SPLIT_COLOURS[split], alpha=0.75 if inset else 0.45, lw=0)
        map_frame.box(axes, inner, color=BLACK, linewidth=1)
        if len(map_frame.area.strips) <= 6:
            middle = (box[0] + box[2]) / 2
            row = box[0] + (box[3] - box[1]) * 0.12 if boxes.count(box) > 1 and not inset else middle
            ((x, y),) = map_frame.of_grid([row], [(box[1] + box[3]) / 2])
            text = f"{', '.join(strips)}: {split}"
            axes.text(x, y, text, ha="center", va="center", color="white", path_effects=DARK_EDGE)
