"""Pictures of feature distributions: how far two modalities are apart, what that is worth, and what they look like."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sarmatch.figures.style import (
    BLACK,
    FAMILIES,
    GREY,
    MODALITIES,
    PLACES,
    SLATES,
    grouped,
    method_line,
    method_words,
    new_figure,
    task_words,
)


class Discrepancy(NamedTuple):
    """How a discrepancy is called, and what it measures."""

    words: str
    about: str


#: Discrepancies in words, and what each measures.
DISCREPANCIES = {
    "wasserstein_1": Discrepancy("Wasserstein-1, exact", "mean length of the ways of the cheapest plan"),
    "wasserstein_2": Discrepancy("Wasserstein-2, exact", "their root mean square, by the plan that makes it least"),
    "sliced": Discrepancy("sliced Wasserstein-2", "the same on random lines, root mean square over lines"),
    "sinkhorn": Discrepancy("Sinkhorn divergence", "the same by a blurred plan, without the bias of the blur"),
    "mmd": Discrepancy("maximum mean discrepancy", "how much more alike points are within than across, by a kernel"),
    "bures": Discrepancy("Fréchet distance (Gaussian)", "the same between Gaussians of equal means and covariances"),
    "centroid": Discrepancy("distance of the means", "how far the centres are apart, whatever lies around them"),
    "probe": Discrepancy("linear classifier", "how often it tells the modality; chance 0.5"),
}


def transport(x: np.ndarray, y: np.ndarray, plans: Mapping[str, np.ndarray], title: str, data: str) -> Figure:
    """Two samples in the plane and what is moved where, a panel per plan.

    Parameters
    ----------
    x, y
        `(N, 2)` and `(M, 2)`.
    plans
        Mass `(N, M)` by title; lines are as strong as the fraction of a point that goes along them.
    title, data
        Of the figure; `data` says what the points are.
    """
    figure, axes = new_figure(3.8 * len(plans), 3.6, 1, len(plans), sharex=True, sharey=True)
    for ax, (name, plan) in zip(axes[0], plans.items(), strict=True):
        fractions = plan * max(plan.shape) / plan.sum()  # of the mass of one point
        rows, columns = np.nonzero(fractions > 0.01)
        strength = np.minimum(fractions[rows, columns], 1)
        segments = np.stack([x[rows], y[columns]], axis=1)
        colours = np.zeros((len(rows), 4))
        colours[:, 3] = 0.75 * strength
        ax.add_collection(LineCollection(segments, colors=colours, linewidths=0.3 + 1.2 * strength))
        _both_samples(ax, x, y)
        ax.set(xlabel="across (unit of the features)", title=name, aspect="equal")
    axes[0, 0].set_ylabel("up (unit of the features)")
    _legend_below(figure, axes[0, 0])
    figure.suptitle(f"{title} ({data})")
    return figure


def critic_surfaces(
    x: np.ndarray,
    y: np.ndarray,
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray]],
    extent: tuple[float, float, float, float],
    title: str,
    data: str,
) -> Figure:
    """A critic in the plane, a column per critic: its values above, its slope below.

    Parameters
    ----------
    x, y
        Samples `(N, 2)` and `(M, 2)`: the critic is to be high on the one and low on the other.
    surfaces
        By title: values and slopes `(H, W)` on a grid over the extent, from the bottom up.
    extent
        Left, right, bottom and top of the grid.
    title, data
        Of the figure.
    """
    figure, axes = new_figure(4.6 * len(surfaces), 6.4, 2, len(surfaces), sharex=True, sharey=True)
    steepest = max(2.0, *(slopes.max() for _, slopes in surfaces.values()))
    levels = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, steepest + 1e-9] if steepest > 2 else np.linspace(0, 2, 9)
    for column, (name, (values, slopes)) in zip(axes.T, surfaces.items(), strict=True):
        grid = [np.linspace(*ends, size) for ends, size in zip((extent[:2], extent[2:]), values.T.shape, strict=True)]
        drawn = column[0].contourf(*grid, values, 14, cmap="cividis")
        figure.colorbar(drawn, ax=column[0], label="value of f (unit of the features)")
        drawn = column[1].contourf(*grid, slopes, levels, cmap="PRGn", norm=TwoSlopeNorm(1, 0, 2))
        column[1].contour(*grid, slopes, [1.0], colors=BLACK, linewidths=1)
        figure.colorbar(drawn, ax=column[1], label="slope of f (no unit)", ticks=[0, 0.5, 1, 1.5, 2])
        column[0].set_title(name)
        for ax in column:
            _both_samples(ax, x, y)
            ax.set(aspect="equal", xlim=extent[:2], ylim=extent[2:], ylabel="up (unit of the features)")
            ax.set_xlabel("across (unit of the features)")
    _legend_below(figure, axes[0, 0])
    figure.suptitle(f"{title} ({data})")
    return figure


def _both_samples(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    for (label, style), points in zip(MODALITIES.items(), (x, y), strict=True):
        marks = {"color": style["color"], "marker": style["marker"], "edgecolor": "white"}
        ax.scatter(points[:, 0], points[:, 1], 28, label=label, zorder=3, lw=0.6, **marks)


def _legend_below(figure: Figure, ax: Axes, columns: int = 4) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns))


def layers(table: pd.DataFrame, measures: Mapping[str, str], title: str, data: str) -> Figure:
    """Discrepancies layer by layer, a panel per measure and a line per encoder.

    Parameters
    ----------
    table
        `encoder`, `layer` (in their order) and a column per measure, with its band where there are `..._low` and
        `..._high`. A measure called `ratio` has a logarithmic axis, on which 1 is no difference.
    measures
        Column to axis label.
    title, data
        Of the figure; `simulated` or `real`.
    """
    figure, axes = new_figure(5.2 * len(measures), 4.8, 1, len(measures))
    names = list(dict.fromkeys(table["layer"]))
    for ax, (column, label) in zip(axes[0], measures.items(), strict=True):
        for encoder, rows in table.groupby("encoder", sort=False):
            at, style = [names.index(name) for name in rows["layer"]], method_line(encoder)
            ax.plot(at, rows[column], lw=2, label=method_words(encoder), **style)
            if f"{column}_low" in rows:
                band = (rows[f"{column}_low"], rows[f"{column}_high"])
                ax.fill_between(at, *band, color=style["color"], alpha=0.2, lw=0)
        if column == "ratio":
            ax.set_yscale("log", base=2)
            ax.yaxis.set_major_formatter("{x:g}")
        chance = {"ratio": 1.0, "probe": 0.5}.get(column)
        if chance is not None:
            ax.axhline(chance, color=GREY, linestyle=":", label="one distribution")
        ax.set(xlabel="layer (count)", ylabel=label)
        ax.set_xticks(range(len(names)), [name.removeprefix("layer ").replace("embedding", "out") for name in names])
        ax.grid(axis="y", alpha=0.4)
    _legend_below(figure, axes[0, 0], 3)
    figure.suptitle(f"{title} ({data})")
    return figure


def ratios(table: pd.DataFrame, title: str, data: str) -> Figure:
    """How many times its null a discrepancy is, a panel per metric and a row per encoder, with its band.

    Parameters
    ----------
    table
        `metric`, `encoder`, `ratio`, `low` and `high`, in the order in which they are shown. An encoder of which there
        is no method is shown by its name.
    title, data
        Of the figure.
    """
    metrics, encoders = (list(dict.fromkeys(table[column])) for column in ("metric", "encoder"))
    size = (2.5 * len(metrics) + 2.2, 0.42 * len(encoders) + 1.9)
    figure, axes = new_figure(*size, 1, len(metrics), sharey=True)
    for ax, metric in zip(axes[0], metrics, strict=True):
        for row in table[table["metric"] == metric].itertuples():
            at = encoders.index(row.encoder)
            style = method_line(row.encoder)
            ax.plot([row.low, row.high], [at, at], color=style["color"], lw=2.5)
            ax.plot(row.ratio, at, color=style["color"], marker=style["marker"], mec="black", ms=8)
        ax.axvline(1, color=GREY, linestyle=":")
        words = DISCREPANCIES[metric].words if metric in DISCREPANCIES else metric
        ax.set(xlabel="over its null (count of times)", title=words, xlim=(min(0.8, table["low"].min()), None))
        ax.grid(axis="x", alpha=0.4)
    axes[0, 0].set_yticks(range(len(encoders)), [method_words(name) for name in encoders])
    axes[0, 0].set_ylim(len(encoders) - 0.5, -0.5)
    figure.suptitle(f"{title} ({data})")
    return figure


#: Colour and line of an estimate of a distance; the critic's is that of the alignment by it.
ESTIMATES = (
    {"color": SLATES[0], "marker": "o", "linestyle": "-"},
    {"color": GREY, "marker": "v", "linestyle": ":"},
    {"color": FAMILIES["critic"], "marker": "D", "linestyle": "-"},
    {"color": FAMILIES["critic"], "marker": "d", "linestyle": "--"},
    {"color": SLATES[1], "marker": "s", "linestyle": "-."},
)


def estimates(table: pd.DataFrame, title: str, data: str) -> Figure:
    """Estimates of one distance as the sample grows.

    Parameters
    ----------
    table
        `points`, a row per draw of so many, and a column per estimate: lines are means over draws, bands reach from the
        smallest to the largest.
    title, data
        Of the figure.
    """
    figure, axes = new_figure(8.4, 4.6)
    ax, by_points = axes[0, 0], table.groupby("points")
    middle, low, high = by_points.mean(), by_points.min(), by_points.max()
    for style, column in zip(ESTIMATES, middle, strict=False):
        ax.plot(middle.index, middle[column], lw=2, label=column, **style)
        ax.fill_between(middle.index, low[column], high[column], color=style["color"], alpha=0.15, lw=0)
    ax.set(
        xscale="log",
        ylim=(min(0.0, low.to_numpy().min()), None),
        xlabel="points in each sample (count)",
        ylabel="distance (unit of the features)",
    )
    ax.set_xticks(middle.index, [f"{n:,}" for n in middle.index])
    ax.minorticks_off()
    ax.grid(alpha=0.4)
    _legend_below(figure, ax, 2)
    figure.suptitle(f"{title} ({data})")
    return figure


def apart_and_found(
    table: pd.DataFrame,
    data: str,
    measure: str = "recall@10",
    title: str = "A point is a run",
    notes: Mapping[tuple[str, str], str] | None = None,
) -> Figure:
    """Discrepancy against recall over runs: is what brings the distributions together also what finds the place?

    Parameters
    ----------
    table
        `arm`, `ratio`, `protocol`, `kind` and the measure, one row per run.
    data
        `simulated` or `real`.
    measure
        A column.
    title
        What the figure shows.
    notes
        Text below the title of the panel of a protocol and kind.
    """
    groups = list(table.groupby(["protocol", "kind"], sort=False))
    columns = min(2, len(groups))
    rows_of = -(-len(groups) // columns)
    figure, axes = new_figure(4.8 * columns, 3.0 * rows_of + 1, rows_of, columns, sharex=True)
    for ax, ((protocol, kind), rows) in zip(axes.ravel(), groups, strict=False):
        for arm, points in rows.groupby("arm", sort=False):
            style = method_line(arm)
            marks = {"color": style["color"], "marker": style["marker"], "alpha": 0.85, "lw": 0}
            ax.scatter(points["ratio"], points[measure], label=method_words(arm), s=55, **marks)
        note = (notes or {}).get((protocol, kind))
        ax.set_xscale("log", base=2)  # an adversary that fails drives the modalities far apart
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set(
            xlabel="$W_1$ over its null on validation area (count of times)",
            title=task_words(protocol, kind) + _below(note),
        )
        ax.set_ylabel(f"{measure} (fraction of queries)")
        ax.grid(alpha=0.4)
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    for ax in axes[:, 1:].ravel():
        ax.set_ylabel("")
    for ax in axes.ravel()[len(groups) :]:
        ax.remove()
    _legend_below(figure, axes[0, 0], 3)
    figure.suptitle(f"{title} ({data})")
    return figure


def _below(note: str | None) -> str:
    return f"\n{note}" if note else ""


def forest(gaps: pd.DataFrame, measure: str | Sequence[str], data: str, title: str = "") -> Figure:
    """Each method against the control with its interval, a panel per protocol, kind and measure.

    They stand in the groups and the order of `grouped`, whatever the order of the table is.

    Parameters
    ----------
    gaps
        `arm`, `control`, `protocol`, `kind`, `measure`, `difference`, `low`, `high`; intervals are over spatial blocks.
    measure
        One or several of the table's.
    data
        `simulated` or `real`.
    title
        What is found; without it, what is compared.
    """
    rows = gaps[gaps["measure"].isin([measure] if isinstance(measure, str) else measure)]
    panels = list(rows.groupby(["protocol", "kind", "measure"], sort=False))
    lines = _lines(dict.fromkeys(rows["arm"]))
    longest = max(len(words) for words, _ in lines)
    size = 2.6 * len(panels) + 0.8 + 0.07 * longest, 0.36 * len(lines) + 1.9
    figure, axes = new_figure(*size, 1, len(panels), sharex=True, sharey=True)
    at = {arm: place for place, (_, arm) in enumerate(lines) if arm}
    for ax, ((protocol, kind, of), of_panel) in zip(axes[0], panels, strict=True):
        for row in of_panel.itertuples():
            y, style = at[row.arm], method_line(row.arm)
            ax.plot([100 * row.low, 100 * row.high], [y, y], color=style["color"], lw=2.5)
            at_x, mark = 100 * row.difference, {"color": style["color"], "mec": "black", "ms": 8}
            if str(style["marker"]).startswith("$"):  # a letter is read above its line
                ax.plot(at_x, y - 0.3, marker=style["marker"], ms=8, color=style["color"], mew=0.5)
                style = {"marker": "|"}
            ax.plot(at_x, y, marker=style["marker"], **mark)
        ax.axvline(0, color=BLACK, lw=1)
        ax.set(title=task_words(protocol, kind), xlabel=f"{of} (percentage points)")
        ax.grid(axis="x", alpha=0.4)
    axes[0, 0].set_yticks(range(len(lines)), [words for words, _ in lines])
    for label, (_, arm) in zip(axes[0, 0].get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if arm else "bold")
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    control, *others = dict.fromkeys(rows["control"])
    compared = f"Difference to {'its own control' if others else method_words(control)}, 95 % intervals ({data})"
    figure.suptitle(f"{title}\n{compared}" if title else compared)
    return figure


def _lines(arms: Collection[str]) -> list[tuple[str, str | None]]:
    """Words and method of every line, under headings that are no methods."""
    lines: list[tuple[str, str | None]] = []
    for group, members in grouped(arms).items():
        lines += [(group, None)] * bool(group)
        lines += [(method_words(arm).removeprefix(f"{group}, "), arm) for arm in members]
    return lines


def robustness(table: pd.DataFrame, data: str, measure: str = "recall@10", title: str = "") -> Figure:
    """Recall as the acquisition departs from what training saw, and below it the differences to the first method.

    A column per change. Differences are paired: of the same seed on the same queries, so that what all methods share
    does not hide them. A point is a seed, a line the mean.

    Parameters
    ----------
    table
        `change`, `value`, `arm`, `seed`, the measure and its chance, a row per run.
    data
        `simulated` or `real`.
    measure
        A column.
    title
        What the figure shows.
    """
    groups = list(table.groupby("change", sort=False))
    figure, axes = new_figure(3.3 * len(groups) + 0.8, 6.0, 2, len(groups), sharex="col", sharey="row")
    for (upper, lower), (change, rows) in zip(axes.T, groups, strict=True):
        values = list(dict.fromkeys(rows["value"]))
        control, *others = dict.fromkeys(rows["arm"])
        runs = rows.pivot(index=["value", "seed"], columns="arm", values=measure)
        for arm in (control, *others):
            means = runs[arm].groupby("value").mean()[values]
            upper.plot(range(len(values)), means, lw=2, label=method_words(arm), **method_line(arm))
        upper.axhline(rows[f"{measure}_chance"].iloc[0], color=GREY, linestyle=":", label="chance")
        lower.axhline(0, color=method_line(control)["color"], lw=2)
        for number, arm in enumerate(others):
            gaps = 100 * (runs[arm] - runs[control])
            shift = 0.16 * (number - (len(others) - 1) / 2)
            line = method_line(arm)
            at = [values.index(value) + shift for value, _ in gaps.index]
            lower.scatter(at, gaps, color=line["color"], marker=line["marker"], s=22, alpha=0.7, lw=0)
            means = gaps.groupby("value").mean()[values]
            at = [i + shift for i in range(len(values))]
            lower.plot(at, means, color=line["color"], linestyle=line["linestyle"], lw=1.5)
        lower.set_xticks(range(len(values)), [str(v) for v in values])
        lower.set(xlabel=change, xlim=(-0.4, len(values) - 0.6))
        for ax in (upper, lower):
            ax.grid(axis="y", alpha=0.4)
    axes[0, 0].set(ylabel=f"{measure} (fraction of queries)", ylim=(0, 1.1 * table[measure].max()))
    axes[1, 0].set(ylabel=f"to {method_words(table['arm'].iloc[0])}\n(percentage points)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3))
    figure.suptitle(f"{title or 'Other acquisitions; a point is a seed'} ({data})")
    return figure


def levels(table: pd.DataFrame, measure: str, title: str, data: str) -> Figure:
    """Recall of every method beside chance, a panel per protocol and kind; a point is a seed, a bar the mean.

    Parameters
    ----------
    table
        `arm`, `protocol`, `kind`, the measure and its chance, a row per run.
    measure
        A column.
    title, data
        Of the figure; `simulated` or `real`.
    """
    groups = list(table.groupby(["protocol", "kind"], sort=False))
    arms = list(dict.fromkeys(table["arm"]))
    longest = max(len(method_words(arm)) for arm in arms)
    size = 3.2 * len(groups) + 0.6 + 0.07 * longest, 0.45 * len(arms) + 1.9
    figure, axes = new_figure(*size, 1, len(groups), sharex=True, sharey=True)
    for ax, ((protocol, kind), rows) in zip(axes[0], groups, strict=True):
        for at, arm in enumerate(arms):
            values, line = rows.loc[rows["arm"] == arm, measure], method_line(arm)
            ax.plot([values.mean()] * 2, [at - 0.25, at + 0.25], color=line["color"], lw=3)
            ax.scatter(values, [at] * len(values), color=line["color"], marker=line["marker"], s=36, ec="black", lw=0.5)
        ax.axvline(rows[f"{measure}_chance"].iloc[0], color=GREY, linestyle=":", lw=2, label="chance")
        ax.set(title=task_words(protocol, kind), xlabel=f"{measure} (fraction of queries)")
        ax.grid(axis="x", alpha=0.4)
    axes[0, 0].set_yticks(range(len(arms)), [method_words(arm) for arm in arms])
    axes[0, 0].set(ylim=(len(arms) - 0.5, -0.5), xlim=(0, 1.12 * table[measure].max()))
    _legend_below(figure, axes[0, 0])
    figure.suptitle(f"{title} ({data})")
    return figure


def by_weight(table: pd.DataFrame, measures: Mapping[str, str], by: str, title: str, data: str) -> Figure:
    """What the weight of a critic changes: a row per measure, a column per network or task.

    A point is a run and a line the mean over seeds; a thin bar is the band of a run's own value, where the table has
    `MEASURE_low` and `MEASURE_high`. Dashed is the mean at a weight of 0, which is the control.

    Parameters
    ----------
    table
        One row per run: `weight`, the measures, and the column `by`.
    measures
        Columns, and what their axes say.
    by
        Column whose values, in words, are the titles of the panels.
    title, data
        Of the figure; `simulated` or `real`.
    """
    groups = list(table.groupby(by, sort=False))
    weights, color = sorted(table["weight"].unique()), method_line("wasserstein")["color"]
    size = (2.9 * len(groups) + 1.0, 2.3 * len(measures) + 0.9)
    figure, axes = new_figure(*size, len(measures), len(groups), sharex=True, sharey="row")
    for column, (name, rows) in zip(axes.T, groups, strict=True):
        at = rows["weight"].map(weights.index)
        for ax, measure in zip(column, measures, strict=True):
            means = rows.groupby("weight")[measure].mean()
            ax.axhline(means.iloc[0], color=GREY, linestyle="--", label="mean at weight 0")
            ax.plot([weights.index(w) for w in means.index], means, color=color, lw=2, label="mean over seeds")
            if f"{measure}_low" in rows:
                ax.vlines(at, rows[f"{measure}_low"], rows[f"{measure}_high"], color=color, lw=1)
            marks = {"color": color, "marker": "D", "s": 30, "ec": "black", "lw": 0.5, "zorder": 3}
            ax.scatter(at, rows[measure], label="a run with its band", **marks)
            ax.grid(axis="y", alpha=0.4)
        column[0].set_title(str(name))
        column[-1].set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
        column[-1].set_xlabel("weight (no unit)")
    for ax, (measure, label) in zip(axes[:, 0], measures.items(), strict=True):
        ax.set(ylabel=label, ylim=(0, 1.15 * table[measure].max()))
    _legend_below(figure, axes[0, 0])
    figure.suptitle(f"{title} ({data})")
    return figure


def groups(table: pd.DataFrame, measure: str, title: str, data: str) -> Figure:
    """A bar for each of several groups of queries with its interval, if any; how many there are stands beside it.

    Parameters
    ----------
    table
        Index: the groups; `mean`, `low`, `high`, `queries`, and the number of `blocks` they lie in.
    measure
        What the fraction is of.
    """
    figure, axes = new_figure(8.0, 0.45 * len(table) + 1.5)
    ax = axes[0, 0]
    for at, row in enumerate(table.itertuples()):
        ax.barh(at, row.mean, 0.6, color=SLATES[1], alpha=0.7)
        ax.plot([row.low, row.high], [at, at], color=BLACK, lw=2)
        count = f"{row.queries:,.0f} queries in {row.blocks:.0f} blocks"
        ax.annotate(count, (np.fmax(row.mean, row.high), at), (8, -3), textcoords="offset points", fontsize="small")
    ax.set_yticks(range(len(table)), list(table.index))
    ax.set(ylim=(len(table) - 0.5, -0.5), xlabel=f"{measure} (fraction of queries)", title=f"{title} ({data})")
    ax.set_xlim(0, 1.4 * table[["mean", "high"]].max(axis=None))
    ax.set_xticks([tick for tick in ax.get_xticks() if tick <= 1])
    ax.grid(axis="x", alpha=0.4)
    return figure


def scatter_map(
    panels: Mapping[str, np.ndarray],
    classes: np.ndarray,
    colours: Mapping[str, str],
    title: str,
    data: str,
    lines: int = 0,
    columns: int = 3,
) -> Figure:
    """Projected features, a panel per encoder or projection.

    Parameters
    ----------
    panels
        Points `(2 N, 2)` by title: `N` of SAR, then the `N` optical ones of the same places.
    classes
        Name of the class of each point `(2 N,)`; SAR is a dot, optical a triangle.
    colours
        Of the classes, in the order of the legend.
    title, data
        Of the figure; `simulated` or `real`.
    lines
        So many true pairs are joined.
    columns
        Panels in a row.

    Raises
    ------
    ValueError
        For a class without a colour.
    """
    if unknown := {str(name) for name in classes} - set(colours):
        raise ValueError(f"no colour for the classes {sorted(unknown)}; there are colours for {list(colours)}")
    figure, axes = _panels(panels, columns)
    for ax, (name, points) in zip(axes, panels.items(), strict=True):
        half = len(points) // 2
        if lines:
            at = np.linspace(0, half - 1, lines).astype(int)
            segments = np.stack([points[:half][at], points[half:][at]], axis=1)
            ax.add_collection(LineCollection(segments, colors=GREY, linewidths=0.6, alpha=0.7))
        for part, marker in ((slice(0, half), "o"), (slice(half, None), "^")):
            of_point = [colours[name] for name in classes[part]]
            ax.scatter(*points[part].T, s=13, c=of_point, marker=marker, alpha=0.75, lw=0)
        ax.set_title(method_words(name))
    if colours.keys() == MODALITIES.keys():  # colour and shape say the same thing once
        handles = [Line2D([], [], linestyle="", label=name, **style) for name, style in MODALITIES.items()]
    else:
        shown = [name for name in colours if name in set(classes)]
        handles = [Line2D([], [], color=colours[n], marker="s", linestyle="", label=n) for n in shown]
        shapes = ((name, style["marker"]) for name, style in MODALITIES.items())
        handles += [Line2D([], [], color="none", marker=m, mec=BLACK, linestyle="", label=t) for t, m in shapes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(f"{title} ({data})")
    return figure


def outcome_map(
    panels: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    correct: Mapping[str, np.ndarray],
    title: str,
    data: str,
) -> Figure:
    """Which queries are answered rightly, on a map of their features: a panel per encoder.

    Parameters
    ----------
    panels
        Points of the queries `(Q, 2)` by title.
    others
        All other points `(N, 2)` of the same map, drawn in grey.
    correct
        Whether the first answer to each query `(Q,)` was the true one.
    title, data
        Of the figure.
    """
    figure, axes = _panels(panels, 3)
    for ax, (name, points) in zip(axes, panels.items(), strict=True):
        ax.scatter(*others[name].T, s=8, color="#DDDDDD", lw=0, label="other places")
        for place, label in (("true", "top-1 correct"), ("wrong", "top-1 wrong")):
            chosen = points[correct[name] == (place == "true")]
            style = {key: PLACES[place][key] for key in ("color", "marker")}
            size = 110 if place == "true" else 55  # a star of one size looks smaller
            ax.scatter(*chosen.T, s=size, edgecolor="white", lw=0.5, label=label, **style)
        ax.set_title(method_words(name))
    _legend_below(figure, axes[0])
    figure.suptitle(f"{title} ({data})")
    return figure


def _panels(panels: Mapping[str, np.ndarray], columns: int) -> tuple[Figure, np.ndarray]:
    """Square panels without ticks for projections, whose axes have no unit and no direction."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(4.0 * columns, 3.6 * rows + 0.9, rows, columns)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[], xlabel="first axis (no unit)", ylabel="second axis (no unit)")
    for ax in axes.ravel()[len(panels) :]:
        ax.remove()
    return figure, axes.ravel()[: len(panels)]
