"""Pictures of patches: what a place looks like in both images, and what a search found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, maximum_filter1d

from sarmatch.figures.style import (
    DARK_EDGE,
    PLACES,
    PURPLE,
    YELLOW,
    bare,
    frame,
    new_figure,
    outline,
    scale_bar,
    show,
    to_display,
)
from sarmatch.patches.images import raster_of, read_patch
from sarmatch.scenes.scene import Scene


def pair(
    sar: np.ndarray, optical: np.ndarray, sar_scale: str, pixel_size: float | None, title: str, data: str
) -> Figure:
    """SAR and optical image of one place side by side.

    Parameters
    ----------
    sar, optical
        `(1, H, W)` and `(3, H, W)` in their own scales.
    sar_scale
        `intensity` or `amplitude`.
    pixel_size
        Metres, `None` where there are no coordinates.
    title
        Of the figure.
    data
        `simulated` or `real`, part of the title.
    """
    figure, axes = new_figure(9, 4.6, 1, 2)
    for ax, image, name in zip(
        axes[0],
        (to_display(sar, sar_scale), to_display(optical, "reflectance")),
        ("SAR (dB, grey)", "optical map (RGB)"),
        strict=True,
    ):
        show(ax, image, pixel_size)
        scale_bar(ax, "m" if pixel_size else "px")
        ax.set_title(name)
    figure.suptitle(f"{title} ({data})")
    return figure


def image_grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    pixel_size: float | Sequence[float] | None,
    title: str,
    data: str,
    from_left: bool = False,
) -> Figure:
    """Display images in rows under one title.

    Parameters
    ----------
    rows
        Images as `to_display` gives them, by row and column.
    titles
        Of the columns, above the first row.
    pixel_size
        Metres; one per column where they differ, and then each image has a scale bar instead of axes.
    title, data
        As for `pair`.
    from_left
        Mark in each image that the radar looks from the left.
    """
    columns = len(titles)
    differ = isinstance(pixel_size, Sequence)
    sizes = pixel_size if differ else [pixel_size] * columns
    figure, axes = new_figure(min(2.6 * columns, 10.5), 0.8 + len(rows) * min(2.5, 10 / columns), len(rows), columns)
    for line, images in zip(axes, rows, strict=True):
        for ax, image, size in zip(line, images, sizes, strict=True):
            show(ax, image, size)
            scale_bar(ax, "m" if size else "px")
            if differ:
                bare(ax)
            if from_left:
                _look(ax)
        for ax in line[1:]:
            ax.set(ylabel="", yticklabels=[])
    for ax, name in zip(axes[0], titles, strict=True):
        ax.set_title(name)
    for ax in axes[:-1].ravel():
        ax.set(xlabel="", xticklabels=[])
    figure.suptitle(f"{title} ({data})")
    return figure


def annotated_pair(
    sar: np.ndarray,
    optical: np.ndarray,
    masks: dict[str, np.ndarray],
    sar_scale: str,
    pixel_size: float,
    title: str,
    data: str,
) -> Figure:
    """Close-up of a building seen from the west: optical image, SAR, and SAR with its effects coloured and named.

    Parameters
    ----------
    sar, optical
        `(1, H, W)` and `(3, H, W)`.
    masks
        Some of `layover`, `shadow`, `double bounce`: bool `(H, W)` each, on the same grid. The effect is named at a
        spot near the middle that lies deep inside it.
    sar_scale, pixel_size, title, data
        As for `pair`.
    """
    figure, axes = new_figure(12.5, 4.8, 1, 3)
    grey = to_display(sar, sar_scale)
    for ax, image, name in zip(
        axes[0],
        (to_display(optical, "reflectance"), grey, grey),
        ("optical map", "SAR: radar looks from the left", "the same SAR, explained"),
        strict=True,
    ):
        show(ax, image, pixel_size)
        scale_bar(ax)
        ax.set_title(name)
    for ax in axes[0, 1:]:
        ax.set(ylabel="", yticklabels=[])
    height = len(grey)
    _look(axes[0, 1])
    texts = {"layover": (0.03, 0.74), "shadow": (0.62, 0.80), "double bounce": (0.3, 0.1)}
    for name, mask in masks.items():
        colour = EFFECTS[name]
        tint = np.zeros((*mask.shape, 4))
        tint[mask] = (*_rgb(colour), 0.5)
        axes[0, 2].imshow(tint, extent=axes[0, 2].images[0].get_extent(), interpolation="nearest")
        if not mask.any():
            continue
        row, col = _deepest(mask)
        axes[0, 2].annotate(
            name,
            (col * pixel_size, (height - row) * pixel_size),
            texts[name],
            textcoords="axes fraction",
            color=colour,
            fontweight="bold",
            path_effects=DARK_EDGE,
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2},
        )
    figure.suptitle(f"{title} ({data})")
    return figure


def _look(ax: Axes) -> None:
    """An arrow from the left, the way that the radar looks."""
    arrow = {"arrowstyle": "-|>", "color": YELLOW, "lw": 3, "mutation_scale": 18, "path_effects": DARK_EDGE}
    ax.annotate("", (0.26, 0.92), (0.03, 0.92), "axes fraction", arrowprops=arrow)


def edges_over(
    sar: Sequence[np.ndarray],
    optical: Sequence[np.ndarray],
    changed: Sequence[np.ndarray],
    titles: Sequence[str],
    pixel_size: float,
    title: str,
    data: str,
) -> Figure:
    """Edges of the SAR image over the map, with what has changed between the two; the SAR image below.

    Parameters
    ----------
    sar, optical
        Display images of one place, `(H, W)` and `(H, W, 3)`, a column each.
    changed
        bool `(H, W)`: what is another thing in the SAR image than it was on the map.
    titles
        Of the columns.
    pixel_size, title, data
        As for `pair`; the size is in metres.
    """
    figure, axes = new_figure(3.5 * len(titles), 7.6, 2, len(titles), sharex=True, sharey=True)
    for column, radar, photo, mask, name in zip(axes.T, sar, optical, changed, titles, strict=True):
        for ax, image in zip(column, (photo, radar), strict=True):
            show(ax, image, pixel_size)
            scale_bar(ax)
        extent = column[0].images[0].get_extent()
        tint = np.zeros((*radar.shape, 4))
        tint[binary_dilation(_strong_edges(radar))] = (*_rgb(YELLOW), 1.0)
        column[0].imshow(tint, extent=extent, interpolation="nearest")
        if mask.any():
            for ax in column:
                ax.contour(mask, [0.5], colors=PURPLE, linewidths=2, extent=extent, origin="upper")
        column[0].set(title=name, xlabel="")
    for ax in axes[:, 1:].ravel():
        ax.set_ylabel("")
    handles = [
        Line2D([], [], color=YELLOW, lw=3, path_effects=DARK_EDGE, label="edges of the SAR image"),
        Line2D([], [], color=PURPLE, lw=3, label="changed since the photograph"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle(f"{title} ({data})")
    return figure


def _strong_edges(image: np.ndarray, width: float = 2.0, strongest: float = 0.25) -> np.ndarray:
    """Ridges of the gradient of a grey image at a scale of `width` pixels, the `strongest` of them: bool `(H, W)`."""
    east, north = (gaussian_filter(image, width, order) for order in ((0, 1), (1, 0)))
    steep = np.hypot(east, north)
    flat = np.abs(east) < np.abs(north)  # an edge that runs east has its ridge across, in a column
    ridge = np.where(flat, steep >= maximum_filter1d(steep, 3, 0), steep >= maximum_filter1d(steep, 3, 1))
    return ridge & (steep >= np.quantile(steep[ridge], 1 - strongest))


#: Colours of the effects of side-looking geometry.
EFFECTS = {"layover": "#EE6677", "shadow": "#66CCEE", "double bounce": "#FFDD55"}


def _rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    """Pixel in the middle of the picture that lies deepest in the mask: a safe spot for the tip of an arrow."""
    height, width = mask.shape
    middle = np.zeros_like(mask)
    middle[height // 4 : -height // 4, width // 8 : -width // 8] = True
    depth = distance_transform_edt(mask) * middle
    row, col = np.unravel_index(depth.argmax(), mask.shape)
    return row + 0.5, col + 0.5


def place_of(tile: int, positive: int, semi: Sequence[int]) -> str:
    """What a found tile is to its query: a key of `PLACES`."""
    return "true" if tile == positive else "overlaps" if tile in semi else "wrong"


def retrieval_rows(
    scene: Scene,
    asked: pd.DataFrame,
    tiles: pd.DataFrame,
    found: np.ndarray,
    scores: np.ndarray,
    distances: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    title: str = "Queries and the tiles found for them",
) -> Figure:
    """One row per query: the SAR patch, its true tile, and the first tiles found, framed by what they are.

    Parameters
    ----------
    scene
        Where the pixels are read.
    asked
        Query table, `R` rows; `tiles`: the gallery its `positive` and `semi` count in.
    found, scores
        Tiles found `(R, K)`, best first, and how well they match.
    distances
        From the true place to the centre of each, metres `(R, K)`; leave out where there are no coordinates.
    names
        Written beside each row.
    title
        Of the figure; whether the data are simulated or real is added.
    """
    count, width = np.shape(found)
    figure, axes = new_figure(1.75 * (width + 2), 2.15 * count + 0.5, count, width + 2)
    for r, query in enumerate(asked.itertuples(index=False)):
        show(axes[r, 0], to_display(read_patch(scene, query), raster_of(scene, query).scale), scene.pixel_size)
        scale_bar(axes[r, 0], "m" if scene.has_coordinates else "px")
        axes[r, 0].set_title("SAR query", fontsize="small")
        true = list(tiles.iloc[[query.positive]].itertuples(index=False))[0]
        show(axes[r, 1], to_display(read_patch(scene, true), "reflectance"))
        axes[r, 1].set_title(f"true tile\n{query.overlap:.0%} overlap", fontsize="small")
        for ax, tile in zip(axes[r, 2:], tiles.iloc[list(found[r])].itertuples(index=False), strict=True):
            show(ax, to_display(read_patch(scene, tile), "reflectance"))
        for k, ax in enumerate(axes[r, 2:]):
            place = place_of(found[r][k], query.positive, query.semi)
            far = "" if distances is None else f"{distances[r][k]:,.0f} m, "
            ax.set_title(f"{k + 1}: {PLACES[place]['sign']}\n{far}score {scores[r][k]:.3f}", fontsize="small")
            frame(ax, place)
        for ax in axes[r]:
            bare(ax)
        frame(axes[r, 1], "true", 2)
        if names is not None:
            axes[r, 0].set_ylabel(names[r], fontsize="small")
    figure.suptitle(f"{title} ({scene.label})")
    return figure


def tiling(scene: Scene, tiles: pd.DataFrame, aligned: Any, arbitrary: Any) -> Figure:
    """An aligned and an arbitrary query on the reference grid, with the overlap of the query with each tile.

    Parameters
    ----------
    scene
        Where the map is read.
    tiles
        Reference table that the queries are matched to.
    aligned, arbitrary
        One row each of a query table.
    """
    figure, axes = new_figure(10, 5.4, 1, 2)
    for ax, query, kind in zip(axes[0], (aligned, arbitrary), ("aligned", "arbitrary"), strict=True):
        own = tiles.iloc[[query.positive, *query.semi]].assign(overlap=[query.overlap, *query.semi_overlap])
        size, raster = int(query.size), scene.area(query.area).map
        top, left, bottom, right = raster.bounds
        row0, col0 = max(top, own.row.min() - size // 2), max(left, own.col.min() - size // 2)
        row1, col1 = min(bottom, own.row.max() + 3 * size // 2), min(right, own.col.max() + 3 * size // 2)
        show(ax, to_display(raster.read(int(row0), int(col0), int(row1 - row0), int(col1 - col0)), "reflectance"))
        for tile in own.itertuples():
            is_true = tile.Index == query.positive
            style = {k: PLACES["true" if is_true else "overlaps"][k] for k in ("color", "linestyle")}
            corner = np.array([tile.col - col0, tile.row - row0])
            outline(ax, corner, size, size, linewidth=4 if is_true else 2, **style)
            away = np.where(corner + [col0, row0] <= [query.col, query.row], 0.14, 0.86)  # from the query's own centre
            ax.text(
                *(corner + away * size),
                f"{tile.overlap:.0%}",
                ha="center",
                va="center",
                color="white",
                fontweight="bold",
                path_effects=DARK_EDGE,
            )
        outline(ax, (query.col - col0, query.row - row0), size, size, color=YELLOW, linewidth=3, linestyle=(0, (4, 2)))
        ax.set_title(f"{kind}: the best tile covers {query.overlap:.1%} of the query")
    styles = (
        (PLACES["true"], "tile it belongs to (positive)"),
        (PLACES["overlaps"], "other tiles it touches (semi-positive)"),
        ({"color": YELLOW, "linestyle": (0, (4, 2))}, "SAR query"),
    )
    handles = [Line2D([], [], color=s["color"], linestyle=s["linestyle"], lw=3, label=text) for s, text in styles]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(f"A query cut anywhere lies on {1 + len(arbitrary.semi)} tiles at once ({scene.label})")
    return figure
