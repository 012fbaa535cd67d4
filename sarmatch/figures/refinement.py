"""Figures of refinement: lists on the map, what their length allows, similarity and overlap, calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sarmatch.figures.maps import Frame, _area_of
from sarmatch.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    WHITE_EDGE,
    method_line,
    method_words,
    new_figure,
)
from sarmatch.scenes.scene import Scene


def list_on_map(
    scene: Scene,
    query: pd.DataFrame,
    tiles: pd.DataFrame,
    lists: Mapping[str, Sequence[int]],
    edges: np.ndarray,
    first: int = 5,
) -> Figure:
    """Candidates of one query where they lie, before and after refinement, with the edges between them.

    Parameters
    ----------
    scene
        Where the map is read.
    query
        Query table of one row.
    tiles
        The gallery.
    lists
        Rows of `tiles`, best first, by name of the list; a panel each.
    edges
        Pairs of rows of `tiles` that exchange messages `(E, 2)`.
    first
        How many of each list are numbered.
    """
    row, area = query.iloc[0], _area_of(scene, query)
    map_frame = Frame(scene, area)
    figure, axes = new_figure(6.1 * len(lists), 6.2, 1, len(lists), sharey=True)
    place = map_frame.of_table(tiles)
    (true,) = map_frame.of_table(query)
    for ax, (name, found) in zip(axes[0], lists.items(), strict=True):
        map_frame.draw(ax, fade=0.45)
        ax.add_collection(LineCollection(place[np.asarray(edges)], colors=BLACK, linewidths=0.9, alpha=0.8, zorder=2))
        found_tiles = np.asarray(found)
        _numbered(ax, place[found_tiles], first)
        ax.plot(*true, "o", ms=22, mfc="none", mec=GREEN, mew=3, zorder=5)
        at = np.flatnonzero(found_tiles == row.positive)
        where = f"the true tile is number {at[0] + 1}" if len(at) else "the true tile is not in the list"
        ax.set_title(f"{name}: {where}", fontsize="medium")
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    handles = [
        Line2D([], [], ls="", marker="o", ms=9, color=ORANGE, mec="black", label=f"first {first} of the list"),
        Line2D([], [], ls="", marker="o", ms=6, color=GREY, label="the others"),
        Line2D([], [], color=BLACK, lw=1, label="edge: neighbours in metres"),
        Line2D([], [], ls="", marker="o", ms=13, mfc="none", mec=GREEN, mew=3, label="where the query lies"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.suptitle(f"One query and its candidates on the map ({scene.label})")
    return figure


def _numbered(ax: Axes, places: np.ndarray, first: int) -> None:
    """Candidates `(K, 2)` in their order, the first of them large and with their numbers."""
    ax.scatter(places[first:, 0], places[first:, 1], s=28, color=GREY, edgecolor="white", linewidth=0.6, zorder=3)
    ax.scatter(places[:first, 0], places[:first, 1], s=95, color=ORANGE, edgecolor="black", linewidth=0.8, zorder=4)
    style = {"textcoords": "offset points", "fontweight": "bold", "path_effects": WHITE_EDGE, "zorder": 6}
    for rank, place in enumerate(places[:first], start=1):
        ax.annotate(str(rank), place, (6, 5), **style)


def length_of_lists(rank: Mapping[str, np.ndarray], chosen: int, gallery: int, data: str) -> Figure:
    """How many queries have their true tile among the first K, which no refinement of K candidates can exceed.

    Parameters
    ----------
    rank
        Place of the true tile in the search `(Q,)`, by kind of query.
    chosen
        K that is used, marked.
    gallery
        Number of tiles.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(7.6, 4.0)
    ax = axes[0, 0]
    ks = np.unique(np.round(np.geomspace(1, gallery, 60)).astype(int))
    for (kind, ranks), colour, line in zip(rank.items(), (BLUE, ORANGE, GREEN), ("-", "--", "-."), strict=False):
        fraction = [(np.asarray(ranks) < k).mean() for k in ks]
        at = (np.asarray(ranks) < chosen).mean()
        ax.plot(ks, fraction, line, color=colour, lw=2, label=f"{kind}: {at:.1%} at K = {chosen}")
        ax.plot(chosen, at, "o", color=colour, mec="black", ms=8)
    ax.plot(ks, ks / gallery, color=GREY, linestyle=":", label="chance")
    ax.axvline(chosen, color=BLACK, lw=1)
    ax.set(
        xscale="log",
        xlim=(1, gallery),
        ylim=(0, 1.02),
        xlabel="K, length of the list (tiles looked at)",
        ylabel="truth in the list (fraction of queries)",
        title=f"Oracle of a list of K out of {gallery} tiles ({data})",
    )
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def lengths(tables: Mapping[str, pd.DataFrame], data: str) -> Figure:
    """Recall@1 after refinement against the length of the list, under its oracle.

    Parameters
    ----------
    tables
        By name of the scene: `arm`, `k`, `recall@1`, `oracle`; a row per seed.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(5.2 * len(tables), 4.2, 1, len(tables), sharey=True)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        oracle = table.groupby("k")["oracle"].mean()
        ax.plot(oracle.index, oracle, lw=2, label="oracle of the list", **method_line("ceiling"))
        for arm, rows in table.groupby("arm", sort=False):
            mean = rows.groupby("k")["recall@1"].mean()
            ax.plot(mean.index, mean, lw=2, label=method_words(arm), **method_line(arm))
        ax.set(xscale="log", ylim=(0, 1.02), xlabel="K, length of the list (tiles looked at)", title=name)
        ax.set_xticks(oracle.index, [str(k) for k in oracle.index])
        ax.minorticks_off()
        ax.grid(alpha=0.4)
    axes[0, 0].set_ylabel("recall@1 (fraction of queries)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    figure.suptitle(f"Does a longer list help? ({data})")
    return figure


def similarity_by_overlap(overlap: np.ndarray, similarity: np.ndarray, data: str, bins: int = 10) -> Figure:
    """How similarity rises with overlap, which is what neighbours on the map have to tell.

    Parameters
    ----------
    overlap, similarity
        Of pairs of query and tile `(N,)`: overlap 0 to 1, and cosine.
    data
        `simulated` or `real`.
    bins
        Of equal width over the pairs that overlap; those that do not stand at 0.
    """
    overlap, similarity = np.asarray(overlap), np.asarray(similarity)
    figure, axes = new_figure(7.6, 4.0)
    ax = axes[0, 0]
    number = np.where(overlap > 0, np.minimum((overlap * bins).astype(int), bins - 1) + 1, 0)
    at: list[float] = []
    low: list[float] = []
    middle: list[float] = []
    high: list[float] = []
    for n in range(bins + 1):
        inside = similarity[number == n]
        if len(inside):
            at.append(0.0 if n == 0 else (n - 0.5) / bins)
            for values, level in ((low, 0.1), (middle, 0.5), (high, 0.9)):
                values.append(np.quantile(inside, level))
    ax.fill_between(at, low, high, color=SKY, alpha=0.35, lw=0, label="eight pairs in ten")
    ax.plot(at, middle, "-o", color=BLUE, lw=2, label="median")
    ax.set(
        xlabel="overlap of query and tile (0 to 1)",
        ylabel="cosine of their embeddings (-1 to 1)",
        title=f"Similarity rises with overlap ({data})",
    )
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def metre_curves(errors: Mapping[str, np.ndarray], data: str, longest: float = 200.0) -> Figure:
    """Fraction of queries placed within a distance, up to `longest` metres.

    Parameters
    ----------
    errors
        Metres `(Q,)` by method; `ceiling` is what a perfect choice of tiles would leave.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(7.8, 4.2)
    ax = axes[0, 0]
    for name, values in errors.items():
        style = method_line(name)
        ax.ecdf(np.asarray(values), color=style["color"], linestyle=style["linestyle"], lw=2, label=method_words(name))
    ax.set(
        xlim=(0, longest),
        ylim=(0, 1.02),
        xlabel="distance between found and true place (m)",
        ylabel="fraction of queries (0 to 1)",
        title=f"How near the first prediction lies ({data})",
    )
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def calibration(
    bins: Mapping[str, Mapping[str, np.ndarray | float]],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]],
    data: str,
) -> Figure:
    """Reliability diagram, and what goes wrong when only the most confident predictions are given.

    Parameters
    ----------
    bins
        By name, what `sarmatch.evaluation.reliability` gives.
    curves
        By method, what `sarmatch.evaluation.risk_coverage` gives.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(10.5, 4.2, 1, 2)
    left, right = axes[0]
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as often right as it says")
    for (name, found), colour, marker in zip(bins.items(), (BLUE, ORANGE, GREEN), "osD", strict=False):
        count = np.asarray(found["count"])
        where = found["confidence"], found["accuracy"]
        left.plot(*where, color=colour, lw=1)
        left.scatter(
            *where, s=60 * count / count.max(), color=colour, marker=marker, label=f"{name}: ECE {found['ece']:.3f}"
        )
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability it gives (0 to 1)", ylabel="fraction that is right (0 to 1)")
    left.set_title("reliability; a mark's size is its number of queries")
    for name, (coverage, risk, area) in curves.items():
        style = method_line(name)
        right.plot(
            coverage,
            risk,
            color=style["color"],
            linestyle=style["linestyle"],
            lw=2,
            label=f"{method_words(name)}: area {area:.3f}",
        )
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="queries answered (0 to 1)", ylabel="wrong predictions (0 to 1)")
    right.set_title("risk and coverage")
    for ax in (left, right):
        ax.grid(alpha=0.4)
        ax.legend(frameon=False, fontsize="small")
    figure.suptitle(f"How often is a prediction right? ({data})")
    return figure


def strides(table: pd.DataFrame, data: str) -> Figure:
    """A denser map: what it finds and how near, against its cost in tiles.

    Parameters
    ----------
    table
        `stride` in pixels, `gallery`, `method`, `median_m`, `within_25m`, `ceiling_m`.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(10.5, 3.9, 1, 2)
    for ax, column, label in (
        (axes[0, 0], "median_m", "median error (m)"),
        (axes[0, 1], "within_25m", "within 25 m (fraction of queries)"),
    ):
        for name, rows in table.groupby("method", sort=False):
            ax.plot(rows["gallery"], rows[column], lw=2, label=method_words(name), **method_line(name))
        _gallery_axis(ax, table)
        ax.set_ylabel(label)
    ceiling = table.drop_duplicates("gallery")
    axes[0, 0].plot(ceiling["gallery"], ceiling["ceiling_m"], label=method_words("ceiling"), **method_line("ceiling"))
    axes[0, 0].set_yscale("log")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"A denser map, or a second look? ({data})")
    return figure


def _gallery_axis(ax: Axes, table: pd.DataFrame) -> None:
    ticks = table.drop_duplicates("gallery")
    ax.set_xscale("log")
    ax.set_xticks(
        ticks["gallery"], [f"{g:,}\n({s} px)" for g, s in zip(ticks["gallery"], ticks["stride"], strict=True)]
    )
    ax.minorticks_off()
    ax.set_xlabel("tiles in the gallery (count), and stride")
    ax.grid(alpha=0.4)
