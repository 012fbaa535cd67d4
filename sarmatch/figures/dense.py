"""Pictures of dense search: maps of features, the score of every place, and what is found at which distance."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sarmatch.figures.style import (
    DARK_EDGE,
    GREEN,
    SKY,
    bare,
    frame,
    method_line,
    method_words,
    new_figure,
    scale_bar,
    show,
)

ZOOM_M = 60.0  # half the side of the enlarged part of a surface


def feature_colours(
    images: Mapping[str, NDArray], features: Mapping[str, Sequence[NDArray]], title: str, data: str
) -> Figure:
    """Maps of features as colours: their three main directions in red, green and blue, the same for both modalities.

    Parameters
    ----------
    images
        By modality in words, what there is to see: `(H, W)` or `(H, W, 3)`, 0 to 1.
    features
        By encoder in words, the features of the same area in the order of `images`: `(C, h, w)` each.
    title, data
        What is seen; simulated or real.
    """
    figure, axes = new_figure(2.9 * (1 + len(features)), 2.9 * len(images) + 0.9, len(images), 1 + len(features))
    for row, (modality, image) in zip(axes, images.items(), strict=True):
        show(row[0], image)
        row[0].set_title(modality)
    for column, (words, pair) in enumerate(features.items(), 1):
        cells = np.concatenate([f.reshape(len(f), -1).T for f in pair])
        centred = cells - cells.mean(0)
        colours = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
        low, high = np.percentile(colours, (2, 98), axis=0)
        start = 0
        for row, part in zip(axes, pair, strict=True):
            size = part[0].size
            picture = ((colours[start : start + size] - low) / (high - low)).clip(0, 1)
            show(row[column], picture.reshape(*part.shape[1:], 3).astype(np.float32))
            start += size
        axes[0, column].set_title(words)
    for ax in axes.flat[1:]:
        bare(ax)
    figure.suptitle(f"{title} ({data})")
    return figure


def score_surfaces(
    surfaces: Mapping[str, NDArray],
    corner: tuple[float, float],
    metres: float,
    true: NDArray,
    found: Mapping[str, NDArray],
    title: str,
    data: str,
) -> Figure:
    """The score of every place of a map, by method, and beside it the surroundings of the highest peak.

    Parameters
    ----------
    surfaces
        `(H, W)` scores where the query is centred, by method in words.
    corner, metres
        Local metres `(x, y)` of the middle of the first score, and between scores.
    true, found
        Where the query lies `(2,)`, and by method where the first places are `(K, 2)`; local metres.
    title, data
        What is seen; simulated or real.
    """
    figure, axes = new_figure(9.4, 4.0 * len(surfaces) + 0.3, len(surfaces), 2)
    for (words, scores), (town, zoom) in zip(surfaces.items(), axes, strict=True):
        height, width = scores.shape
        peak = found[words][0]
        finite = scores[np.isfinite(scores)]
        look = {"vmin": np.quantile(finite, 0.5), "vmax": finite.max(), "cmap": "magma", "interpolation": "nearest"}
        for ax, middle, unit in ((town, np.zeros(2), 1000.0), (zoom, peak, 1.0)):
            left, upper = (np.array(corner) - middle) / unit
            step = metres / unit
            extent = (left - step / 2, left + (width - 0.5) * step, upper - (height - 0.5) * step, upper + step / 2)
            drawn = ax.imshow(scores, extent=extent, **look)
            ring = ax.plot(*((true - middle) / unit), "o", ms=17, mfc="none", mec=GREEN, mew=2.5)
            for number, place in enumerate(found[words], 1):
                at = (place - middle) / unit
                cross = ax.plot(*at, "x", ms=8, mew=2.2, color=SKY)
                ax.annotate(
                    str(number),
                    at,
                    (6, 6),
                    textcoords="offset points",
                    color="white",
                    path_effects=DARK_EDGE,
                    clip_on=True,
                )
        zoom.set(xlim=(-ZOOM_M, ZOOM_M), ylim=(-ZOOM_M, ZOOM_M), title="around its highest score")
        zoom.set(xlabel="east of it (m)", ylabel="north of it (m)")
        town.set(xlabel="east (km)", ylabel="north (km)", title=words)
        figure.colorbar(drawn, ax=zoom, label="correlation (-1 to 1)", shrink=0.8)
    labels = ["where the query lies", "the first places found, best first"]
    figure.legend([*ring, *cross], labels, loc="outside lower center", ncols=2)
    figure.suptitle(f"{title} ({data})")
    return figure


def recall_with_intervals(table: pd.DataFrame, measure: str, title: str) -> Figure:
    """Recall of methods on several tasks, as points with their 95 % interval.

    Parameters
    ----------
    table
        `task` (in words), `method` (a code), the measure, and `MEASURE_low`, `MEASURE_high`.
    measure
        `recall@1` and the like.
    title
        With whether the data are simulated or real.
    """
    tasks, methods = list(table["task"].unique()), list(table["method"].unique())
    figure, axes = new_figure(8.6, 1.0 + 0.34 * len(table))
    ax = axes[0, 0]
    for i, method in enumerate(methods):
        rows = table[table["method"] == method]
        y = [tasks.index(task) + 0.7 * (i - (len(methods) - 1) / 2) / len(methods) for task in rows["task"]]
        value, low, high = (rows[name] for name in (measure, f"{measure}_low", f"{measure}_high"))
        line = {k: v for k, v in method_line(method).items() if k != "linestyle"} | {"ms": 7, "capsize": 3}
        ax.errorbar(value, y, xerr=[value - low, high - value], ls="", label=method_words(method), **line)
    ax.set(yticks=range(len(tasks)), yticklabels=tasks, xlim=(0, 1), ylim=(len(tasks) - 0.5, -0.5))
    ax.set(xlabel=f"{measure} with its 95 % interval (fraction of queries)", title=title)
    ax.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def by_contrast(table: pd.DataFrame, title: str, measure: str = "recall@1") -> Figure:
    """Recall by the contrast of the query, in quarters of equal number, with intervals.

    Parameters
    ----------
    table
        `queries_of` (the quarter in words, in order), `method`, the measure and its interval.
    title
        With whether the data are simulated or real.
    measure
        `recall@1` and the like.
    """
    figure, axes = new_figure(6.4, 3.8)
    ax, quarters = axes[0, 0], list(table["queries_of"].unique())
    for i, (method, rows) in enumerate(table.groupby("method", sort=False)):
        value, low, high = (rows[name].to_numpy() for name in (measure, f"{measure}_low", f"{measure}_high"))
        at, line = np.arange(len(rows)) + 0.06 * i, method_line(str(method))
        ax.errorbar(at, value, yerr=[value - low, high - value], capsize=3, label=method_words(str(method)), **line)
    ax.set(xticks=range(len(quarters)), xticklabels=quarters, ylim=(0, 1), title=title)
    ax.set(xlabel="quarter of the queries by contrast (no unit)", ylabel=f"{measure} (fraction of queries)")
    ax.grid(axis="y")
    ax.legend(loc="lower right")
    return figure


def answers(rows: Sequence[Sequence[NDArray]], captions: Sequence[str], pixel_size: float, title: str) -> Figure:
    """Queries, what lies at their true place, and what was found: a row each.

    Parameters
    ----------
    rows
        SAR `(H, W)`, the map at the true place and at the found one `(H, W, 3)`, display values 0 to 1.
    captions
        What is to be said of each row.
    pixel_size
        Metres.
    title
        With whether the data are simulated or real.
    """
    figure, axes = new_figure(7.4, 2.6 * len(rows) + 0.5, len(rows), 3)
    for line, row, caption in zip(axes, rows, captions, strict=True):
        for ax, image, place in zip(line, row, (None, "true", "wrong"), strict=True):
            show(ax, image, pixel_size)
            if ax is not axes[0, 0]:
                bare(ax)
            if place:
                frame(ax, place)
        scale_bar(line[0])
        line[0].set_title(caption, fontsize="medium")
    for ax, text in zip(axes[0, 1:], ("map at its true place", "map where it was found"), strict=True):
        ax.set_title(text, fontsize="medium")
    figure.suptitle(title)
    return figure
