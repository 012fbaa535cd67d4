"""Pictures of feature distributions: how far two modalities are apart, what that is worth, and what they look like."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sarmatch.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    method_line,
    method_words,
    new_figure,
    task_words,
)

if TYPE_CHECKING:
    from sarmatch.evaluation import Discrepancy

#: Discrepancies in words.
DISCREPANCY_WORDS = {
    "wasserstein_1": "Wasserstein-1, exact",
    "wasserstein_2": "Wasserstein-2, exact",
    "sliced": "sliced Wasserstein-2",
    "sinkhorn": "Sinkhorn divergence",
    "mmd": "maximum mean discrepancy",
    "bures": "Fréchet distance (Gaussian)",
    "centroid": "distance of the means",
    "probe": "linear classifier",
}

#: The modalities, the same in every figure.
MODALITIES = {
    "SAR": {"color": BLACK, "marker": "o"},
    "optical": {"color": ORANGE, "marker": "^"},
}


def transport(x: np.ndarray, y: np.ndarray, plans: Mapping[str, np.ndarray], data: str) -> Figure:
    """Two samples in the plane and what is moved where, a panel per plan.

    Parameters
    ----------
    x, y
        `(N, 2)` and `(M, 2)`.
    plans
        Mass `(N, M)` by title; lines are as strong as the fraction of a point that goes along them.
    data
        What the points are, part of the title.
    """
    figure, axes = new_figure(3.6 * len(plans), 3.8, 1, len(plans), sharex=True, sharey=True)
    for ax, (name, plan) in zip(axes[0], plans.items(), strict=True):
        fractions = plan * max(plan.shape) / plan.sum()  # of the mass of one point
        rows, columns = np.nonzero(fractions > 0.01)
        strength = np.minimum(fractions[rows, columns], 1)
        segments = np.stack([x[rows], y[columns]], axis=1)
        colours = np.zeros((len(rows), 4))
        colours[:, 3] = 0.75 * strength
        ax.add_collection(LineCollection(segments, colors=colours, linewidths=0.3 + 1.2 * strength))
        for (label, style), points in zip(MODALITIES.items(), (x, y), strict=True):
            ax.scatter(*points.T, s=26, label=label, zorder=3, edgecolor="white", lw=0.4, **style)
        ax.set(xlabel="first coordinate (unit of the features)", title=name, aspect="equal")
    axes[0, 0].set_ylabel("second coordinate (unit of the features)")
    axes[0, 0].legend(frameon=False, loc="best")
    figure.suptitle(f"What is moved where ({data})")
    return figure


def layers(table: pd.DataFrame, measures: Mapping[str, str], data: str) -> Figure:
    """Discrepancies layer by layer, a panel per measure and a line per encoder.

    Parameters
    ----------
    table
        `encoder`, `layer` (in their order) and a column per measure.
    measures
        Column to axis label. A column `..._null` is drawn beside its measure in grey.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(4.6 * len(measures), 5.0, 1, len(measures))
    names = list(dict.fromkeys(table["layer"]))
    for ax, (column, label) in zip(axes[0], measures.items(), strict=True):
        for encoder, rows in table.groupby("encoder", sort=False):
            at = [names.index(name) for name in rows["layer"]]
            ax.plot(at, rows[column], lw=2, label=method_words(encoder), **method_line(encoder))
            if f"{column}_null" in rows:
                ax.plot(at, rows[f"{column}_null"], lw=1, color=method_line(encoder)["color"], linestyle=":")
        if column == "probe":
            ax.axhline(0.5, color=GREY, linestyle=":", label="chance")
        ax.set(xlabel="layer (count)", ylabel=label)
        ax.set_xticks(range(len(names)), [name.removeprefix("layer ").replace("embedding", "out") for name in names])
        ax.grid(axis="y", alpha=0.4)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3))
    figure.suptitle(f"How far SAR and optical features are apart, layer by layer ({data})")
    return figure


def nulls(found: "Sequence[Discrepancy]", data: str) -> Figure:
    """Values beside what they would be without a difference between the modalities, each over the mean of its null."""
    figure, axes = new_figure(9.5, 0.55 * len(found) + 1.6)
    ax = axes[0, 0]
    for row, result in enumerate(found):
        scale = result.null.mean()
        ax.plot(result.null / scale, np.full(len(result.null), row), "|", color=GREY, ms=12)
        ax.plot(result.value / scale, row, "D", color=RED, ms=8)
        ax.annotate(f"p = {result.p_value:.3f}", (result.value / scale, row), (10, -3), textcoords="offset points")
    ax.set_yticks(range(len(found)), [DISCREPANCY_WORDS.get(result.metric, result.metric) for result in found])
    ax.set(
        xlabel="discrepancy over the mean of its null (count of times)",
        ylim=(len(found) - 0.5, -0.5),
        title=f"SAR against optical (diamond) and the points randomly permuted (ticks) ({data})",
    )
    ax.margins(x=0.15)
    ax.grid(axis="x", alpha=0.4)
    return figure


def estimates(table: pd.DataFrame, data: str) -> Figure:
    """Estimates of one distance as the sample grows.

    Parameters
    ----------
    table
        `points` and a column per estimator.
    """
    figure, axes = new_figure(7.6, 4.0)
    ax = axes[0, 0]
    styles = zip((BLUE, RED, GREEN, PURPLE, SKY), ("-o", "--D", "-.P", ":s", "-^"), strict=True)
    for (color, style), column in zip(styles, table.columns.drop("points"), strict=False):
        ax.plot(table["points"], table[column], style, color=color, lw=2, label=column)
    ax.set(
        xscale="log",
        ylim=(0, None),
        xlabel="points in each sample (count)",
        ylabel="distance (unit of the features)",
        title=f"One pair of distributions, several estimates ({data})",
    )
    ax.set_xticks(table["points"], [f"{n:,}" for n in table["points"]])
    ax.minorticks_off()
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def apart_and_found(table: pd.DataFrame, data: str, measure: str = "recall@10") -> Figure:
    """Discrepancy against recall over runs: is what brings the distributions together also what finds the place?

    Parameters
    ----------
    table
        `arm`, `wasserstein_1`, `protocol`, `kind` and the measure, one row per run.
    """
    groups = list(table.groupby(["protocol", "kind"], sort=False))
    figure, axes = new_figure(3.2 * len(groups), 3.7, 1, len(groups), sharex=True, sharey=True)
    for ax, ((protocol, kind), rows) in zip(axes[0], groups, strict=True):
        for arm, points in rows.groupby("arm", sort=False):
            style = method_line(arm)
            ax.scatter(
                points["wasserstein_1"],
                points[measure],
                label=method_words(arm),
                s=70,
                color=style["color"],
                marker=style["marker"],
            )
        ax.set(xlabel="exact $W_1$ on validation area (0 to 2)", title=task_words(protocol, kind))
        ax.grid(alpha=0.4)
    axes[0, 0].set_ylabel(f"{measure} (fraction of queries)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    figure.suptitle(f"A point is a run ({data})")
    return figure


def forest(gaps: pd.DataFrame, measure: str, data: str) -> Figure:
    """Each method against the control with its interval, a panel per protocol and kind.

    Parameters
    ----------
    gaps
        `arm`, `control`, `protocol`, `kind`, `measure`, `difference`, `low`, `high`.
    """
    rows = gaps[gaps["measure"] == measure]
    groups = list(rows.groupby(["protocol", "kind"], sort=False))
    arms = list(dict.fromkeys(rows["arm"]))
    figure, axes = new_figure(3.0 * len(groups) + 1.2, 0.45 * len(arms) + 1.9, 1, len(groups), sharex=True, sharey=True)
    for ax, ((protocol, kind), of_group) in zip(axes[0], groups, strict=True):
        for row in of_group.itertuples():
            at, style = arms.index(row.arm), method_line(row.arm)
            ax.plot([100 * row.low, 100 * row.high], [at, at], color=style["color"], lw=2.5)
            ax.plot(100 * row.difference, at, marker=style["marker"], color=style["color"], mec="black", ms=8)
        ax.axvline(0, color=BLACK, lw=1)
        ax.set(title=task_words(protocol, kind), xlabel=f"{measure} (percentage points)")
        ax.grid(axis="x", alpha=0.4)
    axes[0, 0].set_yticks(range(len(arms)), [method_words(arm) for arm in arms])
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    figure.suptitle(
        f"Difference to {method_words(rows['control'].iloc[0])} with its 95 % interval over spatial blocks ({data})"
    )
    return figure


def robustness(table: pd.DataFrame, data: str, measure: str = "recall@10") -> Figure:
    """Recall as the acquisition departs from what training saw, a panel per change.

    Parameters
    ----------
    table
        `change`, `value`, `arm`, the measure and its chance, a row per run.
    """
    groups = list(table.groupby("change", sort=False))
    figure, axes = new_figure(3.3 * len(groups) + 0.8, 3.8, 1, len(groups), sharey=True)
    for ax, (change, rows) in zip(axes[0], groups, strict=True):
        values = list(dict.fromkeys(rows["value"]))
        for arm, points in rows.groupby("arm", sort=False):
            by_value = points.groupby("value", sort=False)[measure]
            at = [values.index(v) for v in by_value.mean().index]
            spread = (by_value.min(), by_value.max())
            ax.fill_between(at, *spread, color=method_line(arm)["color"], alpha=0.15, lw=0)
            ax.plot(at, by_value.mean(), lw=2, label=method_words(arm), **method_line(arm))
        ax.axhline(rows[f"{measure}_chance"].iloc[0], color=GREY, linestyle=":", label="chance")
        ax.set_xticks(range(len(values)), [str(v) for v in values])
        ax.set(xlabel=change, xlim=(-0.4, len(values) - 0.6))
        ax.grid(axis="y", alpha=0.4)
    axes[0, 0].set(ylabel=f"{measure} (fraction of queries)", ylim=(0, 1.1 * table[measure].max()))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"Means over seeds, bands from the worst to the best ({data})")
    return figure


def groups(table: pd.DataFrame, measure: str, title: str, data: str) -> Figure:
    """A fraction in each of several groups of queries with its interval; how many there are stands beside it.

    Parameters
    ----------
    table
        Index: the groups; `mean`, `low`, `high`, `queries`.
    measure
        What the fraction is of.
    """
    figure, axes = new_figure(8.0, 0.45 * len(table) + 1.5)
    ax = axes[0, 0]
    for at, row in enumerate(table.itertuples()):
        ax.plot([row.low, row.high], [at, at], color=BLUE, lw=2.5)
        ax.plot(row.mean, at, "o", color=BLUE, mec="black", ms=8)
        count = f"{row.queries:,.0f} queries"
        ax.annotate(count, (row.high, at), (8, -3), textcoords="offset points", fontsize="small")
    ax.set_yticks(range(len(table)), list(table.index))
    ax.set(ylim=(len(table) - 0.5, -0.5), xlabel=f"{measure} (fraction of queries)", title=f"{title} ({data})")
    ax.set_xlim(0, 1.25 * table["high"].max())
    ax.grid(axis="x", alpha=0.4)
    return figure


#: Colours of the classes of a point, in their order.
CLASSES = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, YELLOW, GREY)


def scatter_map(
    panels: Mapping[str, np.ndarray],
    classes: np.ndarray,
    title: str,
    data: str,
    lines: int = 0,
    method: str = "UMAP",
) -> Figure:
    """Projected features, a panel per encoder or projection.

    Parameters
    ----------
    panels
        Points `(2 N, 2)` by title: `N` of SAR, then the `N` optical ones of the same places.
    classes
        Name of the class of each point `(2 N,)`; SAR is a dot, optical a triangle.
    title, data
        Of the figure; `simulated` or `real`.
    lines
        So many true pairs are joined.
    method
        Names the axes, which have no unit.
    """
    names = list(dict.fromkeys(classes))
    figure, axes = new_figure(4.4 * len(panels), 4.5, 1, len(panels))
    for ax, (name, points) in zip(axes[0], panels.items(), strict=True):
        half = len(points) // 2
        if lines:
            at = np.linspace(0, half - 1, lines).astype(int)
            segments = np.stack([points[:half][at], points[half:][at]], axis=1)
            ax.add_collection(LineCollection(segments, colors=GREY, linewidths=0.6, alpha=0.7))
        for colour, of_class in zip(CLASSES, names, strict=False):
            for part, marker in ((slice(0, half), "o"), (slice(half, None), "^")):
                chosen = points[part][classes[part] == of_class]
                ax.scatter(*chosen.T, s=9, color=colour, marker=marker, alpha=0.7, lw=0)
        ax.set(xticks=[], yticks=[], title=method_words(name))
        ax.set(xlabel=f"{method} 1 (no unit)", ylabel=f"{method} 2 (no unit)")
    handles = [
        Line2D([], [], color=c, marker="s", linestyle="", label=n) for c, n in zip(CLASSES, names, strict=False)
    ] + [Line2D([], [], color=GREY, marker=m, linestyle="", label=t) for t, m in (("SAR", "o"), ("optical", "^"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(f"{title} ({data})")
    return figure
