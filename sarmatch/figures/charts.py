"""Charts of numbers: recall, metres, training, overlaps; and the picture of the pipeline."""

import re
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from sarmatch.figures.style import (
    BLACK,
    GREY,
    OVER_METRES,
    PROTOCOL_WORDS,
    SLATES,
    method_line,
    method_words,
    new_figure,
    task_words,
)
from sarmatch.patches.overlap import best_overlap, iou

#: Stages of the pipeline, in their order, with what each hands on.
STAGES = {
    "scenes": "map, strips",
    "patches": "tiles, queries",
    "encoders": "embeddings",
    "search": "top-K list",
    "refinement": "new order",
    "location": "x, y, error",
}


#: Units of what a quick experiment may change.
FIELD_UNITS = {
    "patch_size": "pixels of 0.5 m",
    "pixel_size": "m",
    "stride": "pixels of 0.5 m",
    "incidence_shift": "degrees",
    "k": "candidates",
    "train_fraction": "fraction of the training area; 0: shipped weights",
}


def pipeline(*highlight: str) -> Figure:
    """The way from a scene to a location, with the present stages highlighted: keys of `STAGES`."""
    unknown = set(highlight) - STAGES.keys()
    if unknown:
        raise ValueError(f"no stage is called {sorted(unknown)}; there are {list(STAGES)}")
    figure, axes = new_figure(10, 1.5)
    ax = axes[0, 0]
    for i, (name, gives) in enumerate(STAGES.items()):
        on = name in highlight
        ax.add_patch(
            FancyBboxPatch(
                (i, 0),
                0.72,
                0.62,
                "round,pad=0.04",
                facecolor=SLATES[0] if on else "white",
                edgecolor=SLATES[0] if on else GREY,
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
    walked = [name for name in STAGES if name in highlight]
    ax.set_title(f"This notebook: {', '.join(walked)} ({len(walked)} of {len(STAGES)} stages)")
    return figure


def overlap_by_stride(overlaps: Mapping[int, np.ndarray], size: int, data: str) -> Figure:
    """Overlap and intersection over union of queries with their best tile, for several strides of the grid.

    Parameters
    ----------
    overlaps
        By stride in pixels, the overlap of each query with its best tile `(Q,)`.
    size
        Side of a patch in pixels.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(10, 3.8, 1, 2, sharey=True)
    colours = dict(zip(sorted(overlaps, reverse=True), (*SLATES, GREY), strict=False))
    lines = dict(zip(colours, ("-", "--", "-.", ":"), strict=False))
    for ax, transform, bound, name in (
        (axes[0, 0], np.asarray, "min", "overlap"),
        (axes[0, 1], iou, "iou_min", "intersection over union"),
    ):
        marked = {}
        for stride, colour in colours.items():
            least = best_overlap(size, stride)[bound]
            line = ax.ecdf(transform(overlaps[stride]), color=colour, linestyle=lines[stride], lw=2)
            bound_of = ax.plot(least, 0, "v", color=colour, mec="black", ms=9, clip_on=False, zorder=3)
            marked[f"stride {stride} px: never below {least:.2f}"] = (line, *bound_of)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=f"{name} with the best tile (0 to 1)")
        ax.legend(marked.values(), marked.keys(), frameon=False, loc="upper left")
    axes[0, 0].set_ylabel("fraction of queries (0 to 1)")
    means = ", ".join(f"{overlaps[stride].mean():.0%}" for stride in colours)
    strides = ", ".join(map(str, colours))
    figure.suptitle(f"A denser grid fits better: mean overlap {means} at strides of {strides} px ({data})")
    return figure


def recall_curves(metrics: pd.DataFrame, ks: tuple[int, ...] = (1, 5, 10), title: str = "") -> Figure:
    """R@k of every method with chance, one panel per protocol and kind of query.

    Parameters
    ----------
    metrics
        A run's `metrics`. Bands are its intervals `recall@k_low` to `recall@k_high`, where it has them.
    ks
        Those the table has.
    title
        What is found; without it, what is drawn.
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
                label=method_words(row["method"]),
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
        ax.set_title(f"{task_words(protocol, kind)}\n{row.queries} queries, {row.gallery} tiles", fontsize="medium")
        ax.grid(axis="y", alpha=0.4)
    axes[0, 0].set_ylabel("R@k (fraction of queries)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if "recall@1_low" in metrics:
        handles.append(Patch(color=GREY, alpha=0.3, lw=0))
        labels.append("95 % interval over spatial blocks")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"{title or 'How often the right tile is among the first k'} ({metrics['data'].iloc[0]})")
    return figure


def error_cdf(
    errors: Mapping[str, np.ndarray], points: Mapping[str, Mapping[float, float]], title: str, data: str
) -> Figure:
    """Fraction of queries placed within a distance.

    Parameters
    ----------
    errors
        Metres `(Q,)` by method; `ceiling` is what a perfect search would leave.
    points
        Where only fractions at thresholds in metres are known: `{method: {metres: fraction}}`, e.g. of `chance`.
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
        ax.ecdf(
            np.maximum(values, 1), lw=2, label=method_words(name), color=style["color"], linestyle=style["linestyle"]
        )
    for name, known in points.items():
        style = method_line(name) | {"linestyle": "none"}  # nothing is known between the points
        ax.plot(known.keys(), known.values(), label=method_words(name), mec="black", mew=0.5, **style)
    ax.set(
        xscale="log",
        xlim=(1, None),
        ylim=(-0.02, 1.02),
        **OVER_METRES,
        title=f"{title} ({data})",
    )
    ax.grid(alpha=0.4)
    ax.legend(frameon=False, loc="upper left")
    return figure


def within_metres(curves: pd.DataFrame, title: str, data: str) -> Figure:
    """Fraction of queries placed within a distance, from the nearest to the farthest, a panel per protocol.

    Parameters
    ----------
    curves
        One row per `protocol`, method (`arm`), `seed` and number of `metres`, with the `fraction`: of one kind of
        query, as `sarmatch.experiments.load_curves` gives them. Seeds are averaged; a fraction of 0 has no point.
    title
        Of the figure.
    data
        `simulated` or `real`.
    """
    protocols = curves["protocol"].unique()
    figure, axes = new_figure(2.9 + 4.3 * len(protocols), 4.2, 1, len(protocols), sharey=True)
    for ax, protocol in zip(axes[0], protocols, strict=True):
        means = curves[curves["protocol"] == protocol].groupby(["arm", "metres"], sort=False)["fraction"].mean()
        for name, of_arm in means.groupby(level="arm", sort=False):
            fraction = of_arm.droplevel("arm")
            ax.plot(fraction.where(fraction > 0), label=method_words(name), **method_line(name))
        ax.set(xscale="log", yscale="log", **OVER_METRES, title=PROTOCOL_WORDS.get(protocol, protocol))
        ax.grid(alpha=0.4)
        ax.label_outer()
    figure.suptitle(f"{title} ({data})")
    axes[0, -1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def fractions_within(numbers: Mapping[str, float], prefix: str = "") -> dict[float, float]:
    """Points of an error distribution, `{metres: fraction}`, from the keys of `sarmatch.evaluation.error_summary`.

    Thresholds relative to a tile (`within_0.5_tile`) are not in metres, and are left out.

    Parameters
    ----------
    numbers
        E.g. a row of a run's metrics.
    prefix
        `chance_` or `ceiling_` for those instead.
    """
    points = {}
    for name, value in dict(numbers).items():
        threshold = re.fullmatch(rf"{prefix}within_([0-9.]+)m", name)
        if threshold and value == value:
            points[float(threshold[1])] = value
    points |= {numbers[f"{prefix}median_m"]: 0.5, numbers[f"{prefix}p90_m"]: 0.9}
    return dict(sorted(points.items()))


def training_curve(
    history: pd.DataFrame, select: str = "recall@5", data: str = "", kept: float | None = None
) -> Figure:
    """Loss, validation recall and the distance of the modalities by epoch; the epoch that was kept is marked.

    The title says from where to where recall and distance went.

    Parameters
    ----------
    history
        A run's `history`: `epoch`, `loss`, `recall@k`, and `wasserstein_1` and the critic's `estimate` where it has
        them.
    select
        The column that chose the epoch.
    data
        `simulated` or `real`.
    kept
        The epoch that was kept; by default the best one by `select`.
    """
    apart = [c for c in ("wasserstein_1", "estimate") if c in history]
    figure, axes = new_figure(7 + 3.5 * len(apart), 3.5, 1, 2 + len(apart))
    left, right = axes[0, :2]
    left.plot(history["epoch"], history["loss"], "-o", color=SLATES[0])
    left.set(xlabel="epoch (count)", ylabel="training loss (nats)", title="loss on training pairs", ylim=(0, None))
    for name, style in zip((c for c in history if c.startswith("recall@")), ("-o", "--s", ":^"), strict=False):
        right.plot(history["epoch"], history[name], style, color=SLATES[0] if name == select else SLATES[1], label=name)
    kept = history.loc[history[select].idxmax(), "epoch"] if kept is None else kept
    right.axvline(kept, color=GREY, lw=4, alpha=0.4, label=f"kept: epoch {kept:.0f}")
    right.set(
        xlabel="epoch (count)",
        ylabel="fraction of queries (0 to 1)",
        title="recall on validation area",
        ylim=(0, 1.4 * right.get_ylim()[1]),  # the legend lies above the lines
    )
    right.legend(frameon=False, loc="upper left", ncols=2)
    # a panel each: the estimate is so much smaller that it would be flat beside the distance
    names = {"wasserstein_1": "exact $W_1$, validation area", "estimate": "the critic's estimate, training pairs"}
    for ax, name in zip(axes[0, 2:], apart, strict=True):
        ax.plot(history["epoch"], history[name], "-o", color=SLATES[0])
        ax.set(xlabel="epoch (count)", ylabel="distance (0 to 2)", title=names[name])
        ax.set_ylim(min(0, 1.1 * history[name].min()), 1.1 * max(history[name].max(), 1e-3))
    for ax in axes[0]:
        ax.xaxis.get_major_locator().set_params(integer=True)
    gone = {name: "from {:z.2f} to {:z.2f}".format(*history[name].iloc[[0, -1]]) for name in (select, *apart)}
    title = f"Validation {select} goes {gone[select]}"
    title += f", exact $W_1$ {gone['wasserstein_1']}" if "wasserstein_1" in gone else ""
    title += f", the critic's estimate {gone['estimate']}" if "estimate" in gone else ""
    figure.suptitle(f"{title} ({data})" if data else title)
    return figure


def loss_curves(
    closeness: np.ndarray,
    losses: Mapping[str, np.ndarray],
    pushes: Mapping[str, np.ndarray],
    own: float,
    title: str,
    data: str,
) -> Figure:
    """What losses say of a query, its own reference and another, as the other comes nearer; and how hard they push it.

    Parameters
    ----------
    closeness
        Cosine of the query and the other reference `(N,)`.
    losses, pushes
        By method, the loss and its derivative by that cosine `(N,)`.
    own
        Cosine of the query and its own reference, marked.
    title, data
        What is seen; `simulated`, `real` or `made up`.
    """
    figure, axes = new_figure(9.6, 3.4, 1, 2)
    for ax, values, label in zip(axes[0], (losses, pushes), ("loss (nats)", "push, its slope (nats)"), strict=True):
        for name, line in values.items():
            style = method_line(name)
            ax.plot(closeness, line, color=style["color"], linestyle=style["linestyle"], lw=2, label=method_words(name))
        ax.axvline(own, color=GREY, linestyle=":", label="its own reference")
        ax.set(xlabel="cosine of query and the other (-1 to 1)", ylabel=label)
        ax.grid(alpha=0.4)
    axes[0, 0].legend(frameon=False, loc="upper left")
    figure.suptitle(f"{title} ({data})")
    return figure


def material_statistics(values: pd.DataFrame, title: str, data: str) -> Figure:
    """How each material backscatters, and how bright it is in the photograph.

    Parameters
    ----------
    values
        One row per place: `material`, `brightness` (0 to 1) and a column of decibels per polarisation.
    title, data
        What is seen; `simulated` or `real`.
    """
    import seaborn as sns  # only this figure needs it

    bands = [c for c in values if c not in ("material", "brightness")]
    values = values.assign(material=values["material"].str.replace("_", " of "))  # roof_tile: roof of tile
    order = list(values.groupby("material")[bands[0]].median().sort_values().index)
    figure, axes = new_figure(11, 4.6, 1, 2, sharey=True)
    style = {"y": "material", "order": order, "showfliers": False, "linewidth": 0.8, "whis": (5, 95)}
    long = values.melt("material", bands, "polarisation", "level")
    palette = dict(zip(bands, SLATES, strict=False))
    sns.boxplot(long, x="level", hue="polarisation", palette=palette, ax=axes[0, 0], **style)
    colours = {m: MATERIAL_COLOURS.get(m, GREY) for m in order}
    sns.boxplot(values, x="brightness", hue="material", palette=colours, legend=False, ax=axes[0, 1], **style)
    axes[0, 0].set(xlabel="SAR intensity (dB)", ylabel="", title="what the radar measures")
    axes[0, 1].set(xlabel="brightness in the photograph (0 to 1)", title="what the eye sees")
    for ax in axes[0]:
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].legend(frameon=False, title=None)
    figure.supxlabel("boxes: the middle half of the places; whiskers: nine of ten", fontsize="small")
    figure.suptitle(f"{title} ({data})")
    return figure


MATERIAL_COLOURS = {
    "water": "#2E5C8A",
    "asphalt": "#444444",
    "concrete": "#B0ABA0",
    "soil": "#A9855C",
    "grass": "#9BBF6B",
    "crop": "#D9C75E",
    "tree": "#2F6B3A",
    "vehicle": "#C3A0C8",
    "roof of tile": "#B5533C",
    "roof of gravel": "#8F8A86",
    "roof of metal": "#C9D6E2",
}


def one_change(table: pd.DataFrame, field: str) -> pd.DataFrame:
    """Of quick experiments those in which nothing but a field was changed, by its values; of equal ones the latest."""
    rows = table[(table["changed"] == "nothing") | table["changed"].str.fullmatch(rf"{field} [^,]+")]
    return rows.drop_duplicates(field, keep="last").sort_values(field)


def _answer(rows: pd.DataFrame, field: str) -> str:
    """Which value changes recall@1 most, of those whose interval is clear of that of nothing changed."""
    words, same = field.replace("_", " "), rows[rows["changed"] == "nothing"]
    if same.empty or not {"recall@1_low", "recall@1_high"} <= set(rows):
        return f"All else equal: {words}"
    low, before, high = same.iloc[0][["recall@1_low", "recall@1", "recall@1_high"]]
    clear = rows[(rows["recall@1_low"] > high) | (rows["recall@1_high"] < low)]
    if clear.empty:
        return f"{words.capitalize()}: no value is told from the present one, intervals overlap"
    most = clear.loc[(clear["recall@1"] - before).abs().idxmax()]
    value = method_words(str(most[field])) + (f" {FIELD_UNITS[field]}" if field in FIELD_UNITS else "")
    return f"{words.capitalize()}: {value} takes recall@1 from {before:.0%} to {most['recall@1']:.0%}"


def what_if_curve(table: pd.DataFrame, field: str) -> Figure:
    """Recall of quick experiments against the one thing that was changed, with intervals and chance.

    The title says what the change did, if it is more than the intervals allow for.

    Parameters
    ----------
    table
        Rows of `sarmatch.what_if`; of equal questions the latest counts.
    field
        The column that was changed: rows in which anything else was, are left out.
    """
    rows = one_change(table, field)
    figure, axes = new_figure(6.4, 3.6)
    ax, at = axes[0, 0], np.arange(len(rows))
    value, ordered = rows["recall@1"].to_numpy(), pd.api.types.is_numeric_dtype(rows[field])
    line = {
        "color": SLATES[0],
        "marker": "o",
        "linestyle": "-" if ordered else "none",
    }  # no way leads from word to word
    if {"recall@1_low", "recall@1_high"} <= set(rows):
        bars = np.abs(rows[["recall@1_low", "recall@1_high"]].to_numpy().T - value)
        ax.errorbar(at, value, yerr=bars, capsize=4, label="recall@1, 95 % interval", **line)
    else:
        ax.plot(at, value, label="recall@1", **line)
    ax.plot(at, rows["recall@1_chance"], label="chance", **method_line("chance"))
    words = [textwrap.fill(method_words(str(v)), 18) for v in rows[field]]
    ax.set(xticks=at, xticklabels=words, ylim=(-0.03, 1.03), xlim=(-0.5, len(rows) - 0.5))
    ax.set(
        xlabel=f"{field.replace('_', ' ')} ({FIELD_UNITS.get(field, 'no unit')})",
        ylabel="recall@1 (fraction of queries)",
    )
    ax.set_title(f"{_answer(rows, field)} (simulated)")
    ax.grid(axis="y")
    ax.legend(frameon=False)
    return figure
