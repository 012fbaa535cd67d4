"""Charts of numbers: recall, metres, training, overlaps; and the picture of the pipeline."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sarmatch.figures.style import BLACK, BLUE, GREY, ORANGE, SKY, method_line, new_figure

#: Stages of the pipeline, in their order, with what each hands on.
STAGES = {
    "scenes": "map, strips",
    "patches": "tiles, queries",
    "encoders": "embeddings",
    "retrieval": "top-K list",
    "refinement": "new order",
    "location": "x, y, error",
}


def pipeline(*highlight: str) -> Figure:
    """The way from a scene to a location, with the present stages highlighted: keys of `STAGES`."""
    unknown = set(highlight) - STAGES.keys()
    if unknown:
        raise ValueError(f"no stage is called {sorted(unknown)}; there are {list(STAGES)}")
    figure, axes = new_figure(10, 1.25)
    ax = axes[0, 0]
    for i, (name, gives) in enumerate(STAGES.items()):
        on = name in highlight
        ax.add_patch(
            FancyBboxPatch(
                (i, 0),
                0.72,
                0.62,
                "round,pad=0.04",
                facecolor=BLUE if on else "white",
                edgecolor=BLUE if on else GREY,
                lw=2,
            )
        )
        colour = "white" if on else BLACK
        ax.text(i + 0.36, 0.42, name, ha="center", va="center", color=colour, fontweight="bold")
        ax.text(i + 0.36, 0.16, gives, ha="center", va="center", color=colour, fontsize="small")
        if i:
            ax.annotate("", (i - 0.05, 0.31), (i - 0.23, 0.31), arrowprops={"arrowstyle": "-|>", "color": BLACK})
    ax.set(xlim=(-0.1, len(STAGES) - 0.18), ylim=(-0.08, 0.7))
    ax.set_axis_off()
    return figure


def overlap_histograms(offsets: np.ndarray, overlaps: np.ndarray, tile: float, unit: str, data: str) -> Figure:
    """How far queries lie from their best tile, and how much of them it holds.

    Parameters
    ----------
    offsets
        Query minus best tile `(Q, 2)`, in `unit`.
    overlaps
        Share of each query on its best tile `(Q,)`.
    tile
        Side of a tile in `unit`.
    unit
        `m`, or `px` where there are no coordinates.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(10, 3.8, 1, 2)
    left, right = axes[0]
    *_, picture = left.hist2d(*offsets.T, bins=10, range=[[-tile / 2, tile / 2]] * 2, cmap="Blues", vmin=0)
    figure.colorbar(picture, ax=left, label="queries (count)")
    left.set(
        xlabel=f"offset east ({unit})",
        ylabel=f"offset north ({unit})",
        title="offset from the best tile",
        aspect="equal",
    )
    right.hist(overlaps, bins=np.linspace(0.2, 1, 33), color=SKY, edgecolor="white")
    for value, text, style in (
        (0.25, "smallest possible 0.25", ":"),
        (0.5625, "expected mean 0.5625", "--"),
        (float(np.mean(overlaps)), f"mean here {np.mean(overlaps):.4f}", "-"),
    ):
        right.axvline(value, color=ORANGE if style == "-" else BLACK, linestyle=style, label=text)
    right.set(
        xlabel="share of the query on its best tile (0 to 1)",
        ylabel="queries (count)",
        title="overlap with the best tile",
    )
    right.legend(frameon=False)
    figure.suptitle(f"{len(overlaps)} arbitrary queries on a grid without overlap ({data})")
    return figure


def offset_errors(offsets: np.ndarray, ceiling: Mapping[str, float], tile_m: float, data: str) -> Figure:
    """Metres that are left when every query is given its best tile: the error of a perfect search on this grid.

    Parameters
    ----------
    offsets
        Distance from the query to the centre of its best tile, metres `(Q,)`.
    ceiling
        `sarmatch.evaluation.grid_ceiling`: the keys `median_m` and `within_...m` are drawn.
    tile_m
        Side of a tile, metres.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(7, 3.8)
    ax = axes[0, 0]
    ax.ecdf(offsets, color=BLUE, lw=2, label="measured on these queries")
    points = {float(key[7:-1]): value for key, value in ceiling.items() if key.startswith("within_")}
    ax.plot(points.keys(), points.values(), "o", color=ORANGE, mec="black", ms=8, label="closed form", zorder=3)
    ax.axvline(ceiling["median_m"], color=BLACK, linestyle="--", label=f"median {ceiling['median_m']:.1f} m")
    ax.set(
        xlim=(0, tile_m),
        ylim=(0, 1.02),
        xlabel="distance from the centre of the right tile (m)",
        ylabel="share of queries (0 to 1)",
        title=f"Even a perfect search errs on a grid of {tile_m:g} m ({data})",
    )
    ax.legend(frameon=False, loc="lower right")
    return figure


def recall_curves(metrics: pd.DataFrame, ks: tuple[int, ...] = (1, 5, 10)) -> Figure:
    """R@k of every method with chance, one panel per protocol and kind of query.

    Parameters
    ----------
    metrics
        A run's `metrics`. Bands are its intervals `recall@k_low` to `recall@k_high`, where it has them.
    ks
        Those the table holds.
    """
    groups = list(metrics.groupby(["protocol", "kind"], sort=False))
    figure, axes = new_figure(2.9 * len(groups) + 0.6, 3.9, 1, len(groups), sharey=True)
    for ax, ((protocol, kind), table) in zip(axes[0], groups, strict=True):
        for row in table.to_dict("records"):
            if "recall@1_low" in row:
                ends = [[row[f"recall@{k}_{end}"] for k in ks] for end in ("low", "high")]
                ax.fill_between(range(len(ks)), *ends, color=method_line(row["method"])["color"], alpha=0.2, lw=0)
            ax.plot(
                range(len(ks)),
                [row[f"recall@{k}"] for k in ks],
                lw=2,
                label=row["method"],
                **method_line(row["method"]),
            )
        row = table.iloc[0]
        ax.plot(range(len(ks)), [row[f"recall@{k}_chance"] for k in ks], label="chance", **method_line("chance"))
        ax.set(
            xticks=range(len(ks)),
            xticklabels=[str(k) for k in ks],
            xlim=(-0.25, len(ks) - 0.75),
            ylim=(-0.02, 1.02),
            xlabel="k (tiles looked at)",
        )
        ax.set_title(f"{protocol}, {kind}\n{row.queries} queries, {row.gallery} tiles", fontsize="medium")
        ax.grid(axis="y", alpha=0.4)
    axes[0, 0].set_ylabel("R@k (share of queries)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    bands = "; bands: 95 % interval over blocks of ground" if "recall@1_low" in metrics else ""
    figure.suptitle(f"How often the right tile is among the first k ({metrics['data'].iloc[0]}{bands})")
    return figure


def error_cdf(
    errors: Mapping[str, np.ndarray], points: Mapping[str, Mapping[float, float]], title: str, data: str
) -> Figure:
    """Share of queries placed within a distance.

    Parameters
    ----------
    errors
        Metres `(Q,)` by method; `ceiling` is what a perfect search would leave.
    points
        Where only shares at thresholds in metres are known: `{method: {metres: share}}`, e.g. of `chance` and `hog`.
    title
        Of the figure.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(7.6, 4.2)
    ax = axes[0, 0]
    for name, values in errors.items():
        style = method_line(name)
        # a query on the grid has an error of 0 m, which a logarithmic axis shows at its left edge
        ax.ecdf(np.maximum(values, 1), lw=2, label=name, color=style["color"], linestyle=style["linestyle"])
    for name, shares in points.items():
        style = method_line(name) | {"linestyle": "none"}  # nothing is known between the points
        ax.plot(shares.keys(), shares.values(), label=name, mec="black", mew=0.5, **style)
    ax.set(
        xscale="log",
        xlim=(1, None),
        ylim=(-0.02, 1.02),
        xlabel="distance between found and true place (m)",
        ylabel="share of queries (0 to 1)",
        title=f"{title} ({data})",
    )
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left")
    return figure


def shares_within(numbers: Mapping[str, float], prefix: str = "") -> dict[float, float]:
    """Points of an error distribution, `{metres: share}`, from the keys that `sarmatch.evaluation.error_summary` gives.

    Parameters
    ----------
    numbers
        E.g. a row of a run's metrics.
    prefix
        `chance_` or `ceiling_` for those instead.
    """
    start = f"{prefix}within_"
    points = {float(k[len(start) : -1]): v for k, v in dict(numbers).items() if k.startswith(start) and v == v}
    points |= {numbers[f"{prefix}median_m"]: 0.5, numbers[f"{prefix}p90_m"]: 0.9}
    return dict(sorted(points.items()))


def training_curve(history: pd.DataFrame, select: str = "recall@5", data: str = "") -> Figure:
    """Loss and validation recall by epoch; the epoch that was kept is marked.

    Parameters
    ----------
    history
        A run's `history`: `epoch`, `loss`, `recall@k`.
    select
        The column that chose the epoch.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(10.5, 3.5, 1, 2)
    left, right = axes[0]
    left.plot(history["epoch"], history["loss"], "-o", color=BLUE)
    left.set(xlabel="epoch (count)", ylabel="training loss (nats)", title="loss on training pairs", ylim=(0, None))
    for name, style in zip((c for c in history if c.startswith("recall@")), ("-o", "--s", ":^"), strict=False):
        right.plot(history["epoch"], history[name], style, color=BLUE if name == select else GREY, label=name)
    best = history.loc[history[select].idxmax()]
    right.axvline(best["epoch"], color=ORANGE, lw=4, alpha=0.5, label=f"kept: epoch {best['epoch']:.0f}")
    right.set(
        xlabel="epoch (count)", ylabel="share of queries (0 to 1)", title="recall on validation ground", ylim=(0, None)
    )
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    for ax in axes[0]:
        ax.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(f"Training ({data})" if data else "Training")
    return figure


def material_bars(shares: pd.DataFrame, data: str) -> Figure:
    """Ground cover by area: one bar per area, stacked materials.

    Parameters
    ----------
    shares
        One row per area (the index), one column per material, each row summing to 1.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(9, 0.55 * len(shares) + 1.7)
    ax = axes[0, 0]
    left = np.zeros(len(shares))
    for name in shares:
        ax.barh(
            shares.index, shares[name], left=left, label=name, color=MATERIAL_COLOURS.get(name, GREY), edgecolor="white"
        )
        left = left + shares[name].to_numpy()
    ax.set(xlim=(0, 1), xlabel="share of the ground (0 to 1)", title=f"What the ground is made of ({data})")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=5, frameon=False)
    return figure


MATERIAL_COLOURS = {
    "water": "#2E5C8A",
    "asphalt": "#444444",
    "concrete": "#B0ABA0",
    "soil": "#A9855C",
    "grass": "#9BBF6B",
    "crop": "#D9C75E",
    "tree": "#2F6B3A",
    "roof_tile": "#B5533C",
    "roof_gravel": "#8F8A86",
    "roof_metal": "#C9D6E2",
}
