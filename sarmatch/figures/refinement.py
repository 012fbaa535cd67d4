"""Figures of refinement: lists on the map, what their length allows, similarity and overlap, calibration."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from sarmatch.figures.maps import Frame, _area_of
from sarmatch.figures.style import (
    BLACK,
    GREEN,
    GREY,
    OVER_METRES,
    PLACES,
    SKY,
    SLATES,
    WHITE_EDGE,
    method_line,
    method_words,
    new_figure,
    outline,
)
from sarmatch.scenes.scene import Scene


def list_on_map(
    scene: Scene,
    query: pd.DataFrame,
    tiles: pd.DataFrame,
    lists: Mapping[str, Sequence[int]],
    edges: np.ndarray,
    title: str = "One query and its candidates on the map",
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
    title
        What is found.
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
        Line2D([], [], ls="", marker="o", ms=9, color=SKY, mec="black", label=f"first {first} of the list"),
        Line2D([], [], ls="", marker="o", ms=6, color=GREY, label="the others"),
        Line2D([], [], color=BLACK, lw=1, label="edge: neighbours in metres"),
        Line2D([], [], ls="", marker="o", ms=13, mfc="none", mec=GREEN, mew=3, label="where the query lies"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.suptitle(f"{title} ({scene.label})")
    return figure


def messages(
    place: np.ndarray,
    receives: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    true: int,
    title: str,
    data: str,
) -> Figure:
    """A few tiles, who receives from whom as a matrix, and their scores before and after messages.

    Parameters
    ----------
    place
        Centres of the tiles `(K, 2)`, in tile widths.
    receives
        By what has been done, bool `(K, K)`: whether the tile of the row receives from that of the column. The last is
        shown as a matrix.
    scores
        `(K,)` by what has been done; a panel each, with its edges where it has any.
    true
        Which tile is the right one.
    title, data
        What is found; `simulated` or `real`.
    """
    count = len(place)
    figure, axes = new_figure(3.2 + 3.6 * len(scores), 3.6, 1, 1 + len(scores))
    names = [str(i) for i in range(1, count + 1)]
    matrix, (last, shown) = axes[0, 0], list(receives.items())[-1]
    edges = np.arange(count + 1) + 0.5
    matrix.pcolormesh(edges, edges, shown, cmap="Greys", vmin=0, vmax=2.5, edgecolors="white", lw=2)
    for i, j in np.ndindex(shown.shape):
        matrix.text(j + 1, i + 1, int(shown[i, j]), ha="center", va="center")
    matrix.set(xticks=range(1, count + 1), yticks=range(1, count + 1), aspect="equal", title=f"adjacency, {last}")
    matrix.set(ylim=(count + 0.5, 0.5), xlabel="source node (count)", ylabel="target node (count)")
    for ax, (name, values) in zip(axes[0, 1:], scores.items(), strict=True):
        exchanged = receives.get(name, np.zeros((count, count), bool))
        lines = place[np.argwhere(np.triu(exchanged, 1))]
        ax.add_collection(LineCollection(lines, colors=BLACK, linewidths=1.5, zorder=1))
        outward = place + 0.45 * np.sign(place - place.mean(0))  # where no other tile is in the way
        for corner in outward[np.diag(exchanged)]:
            ax.add_patch(Circle(corner, 0.13, fill=False, edgecolor=BLACK, linewidth=1.5, zorder=1))
        for i, (at, value) in enumerate(zip(place, values, strict=True)):
            outline(ax, tuple(at - 0.45), 0.9, 0.9, **_place_line("true" if i == true else "candidate"))
            best = value == max(values)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            text = f"tile {names[i]}\n{value:.2f}"
            ax.text(*at, text, ha="center", va="center", fontweight="bold" if best else "normal", bbox=box)
        ax.set(xlim=(place[:, 0].min() - 0.7, place[:, 0].max() + 0.7), aspect="equal", title=name)
        ax.set(ylim=(place[:, 1].min() - 0.7, place[:, 1].max() + 0.7), xlabel="east (tile widths)")
    axes[0, 1].set_ylabel("north (tile widths)")
    handles = [Line2D([], [], **_place_line(what), label=PLACES[what]["sign"]) for what in ("true", "candidate")]
    handles.append(Line2D([], [], color=BLACK, lw=1.5, label="edge, both ways"))
    loop = {"marker": "o", "ms": 8, "mfc": "none", "mec": BLACK, "mew": 1.5}
    handles.append(Line2D([], [], linestyle="none", label="self-loop", **loop))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.suptitle(f"{title} ({data})")
    return figure


def _place_line(what: str) -> dict[str, object]:
    return {name: PLACES[what][name] for name in ("color", "linestyle")}


def _numbered(ax: Axes, places: np.ndarray, first: int) -> None:
    """Candidates `(K, 2)` in their order, the first of them large and with their numbers."""
    ax.scatter(places[first:, 0], places[first:, 1], s=28, color=GREY, edgecolor="white", linewidth=0.6, zorder=3)
    ax.scatter(places[:first, 0], places[:first, 1], s=95, color=SKY, edgecolor="black", linewidth=0.8, zorder=4)
    style = {"textcoords": "offset points", "fontweight": "bold", "path_effects": WHITE_EDGE, "zorder": 6}
    for rank, place in enumerate(places[:first], start=1):
        ax.annotate(str(rank), place, (6, 5), **style)


def length_of_lists(rank: Mapping[str, np.ndarray], chosen: int, gallery: int, data: str, title: str = "") -> Figure:
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
    title
        What is found; without it, how many have their tile among the chosen.
    """
    figure, axes = new_figure(7.6, 4.0)
    ax = axes[0, 0]
    ks = np.unique(np.round(np.geomspace(1, gallery, 60)).astype(int))
    reached = []
    for (kind, ranks), colour, line in zip(rank.items(), SLATES, ("-", "--", "-."), strict=False):
        fraction = [(np.asarray(ranks) < k).mean() for k in ks]
        at = (np.asarray(ranks) < chosen).mean()
        reached.append(f"{at:.1%} of {kind}")
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
    )
    title = title or f"{' and '.join(reached)} queries have their tile among {chosen} of {gallery:,}"
    figure.suptitle(f"{title} ({data})")
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def lengths(tables: Mapping[str, pd.DataFrame], gaps: Mapping[str, pd.DataFrame], data: str, title: str) -> Figure:
    """Recall@1 after refinement against the length of the list, under its oracle; below, the difference to a baseline.

    Parameters
    ----------
    tables
        By name of the scene: `arm`, `k`, `recall@1`, `oracle`; a row per seed.
    gaps
        By the same names, paired differences in recall@1 to the one `control`: `arm`, `k`, `difference`, `low`, `high`.
    data, title
        `simulated` or `real`; what is found.
    """
    figure, axes = new_figure(5.2 * len(tables), 7.0, 2, len(tables), sharex=True, sharey="row")
    for column, (name, table) in zip(axes.T, tables.items(), strict=True):
        above, below = column
        oracle = table.groupby("k")["oracle"].mean()
        above.plot(oracle.index, oracle, lw=2, label="oracle of the list", **method_line("ceiling"))
        for arm, rows in table.groupby("arm", sort=False):
            mean = rows.groupby("k")["recall@1"].mean()
            above.plot(mean.index, mean, lw=2, label=method_words(arm), **method_line(arm))
        arms = [arm for arm in dict.fromkeys(gaps[name]["arm"]) if arm != "correlation"]  # which is off the scale
        for number, arm in enumerate(arms):
            rows = gaps[name].query("arm == @arm").sort_values("k")
            beside = rows["k"] * 1.05 ** (number - (len(arms) - 1) / 2)  # intervals do not hide each other
            below.plot(beside, 100 * rows["difference"], lw=1, **method_line(arm))
            below.vlines(beside, 100 * rows["low"], 100 * rows["high"], color=method_line(arm)["color"], lw=2)
        below.axhline(0, color=BLACK, lw=1)
        above.set(xscale="log", ylim=(0, 1.02), title=name)
        below.set_xlabel("K, length of the list (tiles looked at)")
        below.set_xticks(oracle.index, [str(k) for k in oracle.index])
        for ax in column:
            ax.minorticks_off()
            ax.grid(alpha=0.4)
    axes[0, 0].set_ylabel("recall@1 (fraction of queries)")
    (control,) = {name for of_scene in gaps.values() for name in of_scene["control"]}
    axes[1, 0].set_ylabel(textwrap.fill(f"difference to {method_words(control)}", 26) + "\n(percentage points)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    figure.suptitle(f"{title} ({data}; below without the pixels, 95 % intervals)")
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
    ax.fill_between(at, low, high, color=SLATES[2], alpha=0.6, lw=0, label="eight pairs in ten")
    ax.plot(at, middle, "-o", color=SLATES[0], lw=2, label="median")
    ax.set(
        xlabel="overlap of query and tile (0 to 1)",
        ylabel="cosine of their embeddings (-1 to 1)",
        title=f"Similarity rises with overlap ({data})",
    )
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def metre_curves(
    errors: Mapping[str, np.ndarray],
    data: str,
    longest: float = 200.0,
    title: str = "How near the first prediction lies",
) -> Figure:
    """Fraction of queries placed within a distance, up to `longest` metres.

    Parameters
    ----------
    errors
        Metres `(Q,)` by method; `ceiling` is what a perfect choice of tiles would leave.
    data
        `simulated` or `real`.
    longest
        Metres, the end of the axis.
    title
        What is found; without it, what is drawn.
    """
    figure, axes = new_figure(7.8, 4.2)
    ax = axes[0, 0]
    for name, values in errors.items():
        style = method_line(name)
        ax.ecdf(np.asarray(values), color=style["color"], linestyle=style["linestyle"], lw=2, label=method_words(name))
    ax.set(
        xlim=(0, longest),
        ylim=(0, 1.02),
        **OVER_METRES,
    )
    figure.suptitle(f"{title} ({data})")
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


#: Of probabilities, which are no methods.
_CALIBRATIONS = (
    {"color": SLATES[0], "linestyle": "-", "marker": "o"},
    {"color": SLATES[1], "linestyle": "--", "marker": "s"},
)


def calibration(
    bins: Mapping[str, Mapping[str, np.ndarray | float]],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]],
    data: str,
    title: str = "How often is a prediction right?",
) -> Figure:
    """Reliability diagram, and what goes wrong when only the most confident predictions are given.

    Parameters
    ----------
    bins
        By name, what `sarmatch.evaluation.reliability` gives.
    curves
        By method, what `sarmatch.evaluation.risk_coverage` gives.
    data, title
        `simulated` or `real`; what is found.
    """
    figure, axes = new_figure(10.5, 4.2, 1, 2)
    left, right = axes[0]
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as often right as it says")
    for (name, found), line in zip(bins.items(), _CALIBRATIONS, strict=False):
        left.plot(found["confidence"], found["accuracy"], lw=1.2, ms=6, label=f"{name}: ECE {found['ece']:.3f}", **line)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability it gives (0 to 1)", ylabel="fraction that is right (0 to 1)")
    left.set_title("reliability: bins of equally many queries")
    for name, (coverage, risk, area) in curves.items():
        style = method_line(name)
        right.plot(
            coverage,
            risk,
            color=style["color"],
            linestyle=style["linestyle"],
            lw=2,
            label=f"{method_words(name)}: AURC {area:.3f}",
        )
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="queries answered (0 to 1)", ylabel="wrong predictions (0 to 1)")
    right.set_title("risk and coverage; AURC: area under the curve")
    for ax in (left, right):
        ax.grid(alpha=0.4)
        ax.legend(frameon=False, fontsize="small")
    figure.suptitle(f"{title} ({data})")
    return figure


def strides(table: pd.DataFrame, data: str, title: str) -> Figure:
    """A denser map: what it finds and how near, against its cost in tiles.

    Parameters
    ----------
    table
        `stride` in pixels, `gallery`, `method`, `median_m`, `within_25m`, `ceiling_m`.
    data, title
        `simulated` or `real`; what is found.
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
    figure.suptitle(f"{title} ({data})")
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
