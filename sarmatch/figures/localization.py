"""Pictures of a located strip: where it lies, how sure that is, and what it looks like there."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from sarmatch.figures.style import (
    DARK_EDGE,
    GREEN,
    GREY,
    SKY,
    bare,
    method_line,
    method_words,
    new_figure,
    scale_bar,
    show,
    to_display,
)

SHOWN = 12.0  # natural logarithms below the peak down to which a posterior is drawn
HEAT = LinearSegmentedColormap.from_list("heat", [(1, 0.6, 0, 0.0), (1, 0.5, 0, 0.55), (0.9, 0, 0, 0.95)])
KILOMETRE = 1000.0


def located_strip(
    chart: NDArray,
    extent: Sequence[float],
    log_prob: NDArray,
    posterior_extent: Sequence[float],
    title: str,
    data: str = "",
    footprint: NDArray | None = None,
    track: NDArray | None = None,
    runners_up: NDArray | None = None,
    strip: NDArray | None = None,
    scale: str = "intensity",
    under: NDArray | None = None,
    pixel_size: float = 1.0,
    true: NDArray | None = None,
) -> Figure:
    """A strip on its map: the posterior as heat, the footprint, and the strip beside what lies under it.

    Parameters
    ----------
    chart, extent
        The map `(H, W, 3)` and its ends `(x0, x1, y0, y1)`, local metres.
    log_prob, posterior_extent
        Log-probability of the places of the strip's middle `(H, W)`, and its ends.
    title, data
        What is said above it; simulated or real, where that is known.
    footprint, track, runners_up
        Corners `(4, 2)`, centres of the windows `(W, 2)`, and other places with their probability `(K, 3)`; without a
        footprint the strip is not on this map, and none of the rest is drawn.
    strip, scale, under, pixel_size
        The strip on the map's grid `(C, H, W)`, what its numbers are, the map under it `(H, W, 3)`, metres a pixel.
    true
        Where the middle of the strip really lies `(2,)`, where that is known.
    """
    tall = strip is not None and strip.shape[1] > strip.shape[2]
    rows, columns, ratios = (1, 3, (3, 1, 1)) if tall else (2, 2, (3, 2))
    figure, axes = new_figure(9.6, 5.4, rows, columns, width_ratios=ratios)
    ax, *below = axes[:, 0]
    for hidden in below:
        hidden.remove()
    ax.set_subplotspec(ax.get_gridspec()[:, 0])
    shape = {"extent": np.array(extent) / KILOMETRE, "interpolation": "nearest"}
    ax.imshow(0.35 + 0.65 * chart, **shape)  # faded, so that what is drawn on it is seen
    _heat(ax, log_prob, posterior_extent)
    if footprint is not None:
        ax.add_patch(Polygon(footprint / KILOMETRE, fill=False, ec=SKY, lw=2, label="footprint"))
        ax.plot(*(track / KILOMETRE).T, ".-", color=SKY, ms=5, lw=1)
        for number, (x, y, mass) in enumerate(runners_up, start=2):
            if mass >= 0.005:
                at = (x / KILOMETRE, y / KILOMETRE)
                ax.plot(*at, "x", color=SKY, ms=8, mew=2)
                text = f"{number}: {mass:.2f}"
                ax.annotate(text, at, (6, 4), textcoords="offset points", color="white", path_effects=DARK_EDGE)
    if true is not None:
        ax.plot(*(np.asarray(true) / KILOMETRE), "o", ms=16, mfc="none", mec=GREEN, mew=2.5, label="truth")
    ax.set(xlim=np.array(extent[:2]) / KILOMETRE, ylim=np.array(extent[2:]) / KILOMETRE)
    ax.set(xlabel="east (km)", ylabel="north (km)")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left")
    for panel, image, words in zip(
        axes[:, 1:].flat, (None if strip is None else to_display(strip, scale), under), ("strip", "map under it"),
        strict=True,
    ):  # fmt: skip
        if image is None:
            panel.axis("off")
            continue
        show(panel, np.where(np.isfinite(strip[0]), image, 1.0) if image.ndim == 2 else image, pixel_size)
        panel.set_title(words)
        scale_bar(panel)
        bare(panel)
    figure.suptitle(f"{title} ({data})" if data else title)
    return figure


def _heat(ax, log_prob: NDArray, extent: Sequence[float], unit: float = KILOMETRE) -> None:
    """A posterior as heat over what is drawn already, in logarithms down to `SHOWN` below its peak."""
    factor = max(1, -(-max(log_prob.shape) // 500))
    high, wide = (n // factor * factor for n in log_prob.shape)
    small = log_prob[:high, :wide].reshape(high // factor, factor, wide // factor, factor).max((1, 3))
    shown = ((small - log_prob.max()) / SHOWN + 1).clip(0, 1)
    ax.imshow(shown, extent=np.array(extent) / unit, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")


def sharpening(
    posteriors: Sequence[tuple[str, NDArray]],
    extent: Sequence[float],
    true: NDArray,
    title: str,
    data: str,
) -> Figure:
    """The posterior of a strip after each window: one panel for each, with what is said of it above.

    Parameters
    ----------
    posteriors
        Words and log-probabilities `(H, W)`.
    extent
        Their ends `(x0, x1, y0, y1)`, local metres.
    true
        Where the strip really lies `(2,)`.
    title, data
        What is seen; simulated or real.
    """
    columns = min(4, len(posteriors))
    rows = -(-len(posteriors) // columns)
    figure, axes = new_figure(2.5 * columns + 0.6, 2.75 * rows + 1.2, rows, columns, sharex=True, sharey=True)
    for ax in axes.flat[len(posteriors) :]:
        ax.axis("off")
    for ax, (words, log_prob) in zip(axes.flat, posteriors, strict=False):
        ax.set_facecolor("0.93")
        _heat(ax, log_prob, extent)
        ring = ax.plot(*(np.asarray(true) / KILOMETRE), "o", ms=14, mfc="none", mec=GREEN, mew=2)
        ax.set_title(words, fontsize="medium")
        ax.set(xlim=np.array(extent[:2]) / KILOMETRE, ylim=np.array(extent[2:]) / KILOMETRE)
        ax.set(xlabel="east (km)", ylabel="north (km)")
        ax.label_outer()
    figure.legend(ring, ["where the strip lies"], loc="outside lower center")
    figure.suptitle(f"{title} ({data})")
    return figure


def by_windows(table: pd.DataFrame, measures: Mapping[str, str], title: str) -> Figure:
    """Fractions of strips against the number of their windows that are fused, with intervals, by method.

    Parameters
    ----------
    table
        `method`, `windows`, the measures, and `MEASURE_low`, `MEASURE_high`.
    measures
        Columns of the table, a panel for each, and their titles.
    title
        With whether the data are simulated or real.
    """
    figure, axes = new_figure(3.3 * len(measures) + 0.4, 3.7, 1, len(measures), sharey=True)
    for ax, (measure, words) in zip(axes[0], measures.items(), strict=True):
        for i, (method, rows) in enumerate(table.groupby("method", sort=False)):
            value, low, high = (rows[name].to_numpy() for name in (measure, f"{measure}_low", f"{measure}_high"))
            line = {**method_line(str(method)), "ms": 6}
            bars = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
            at = rows["windows"] + 0.1 * i
            ax.errorbar(at, value, yerr=bars, capsize=2, label=method_words(str(method)), **line)
        ax.set(xlabel="windows fused (count)", title=words, ylim=(0, 1.02), xticks=sorted(table["windows"].unique()))
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("fraction of strips, 95 % intervals (0 to 1)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(title)
    return figure


def ambiguity(
    chart: NDArray, extent: Sequence[float], places: NDArray, alike: NDArray, title: str, data: str
) -> Figure:
    """How much the rest of a map looks like each of its places.

    Parameters
    ----------
    chart, extent
        The map `(H, W, 3)` and its ends, local metres.
    places
        Local metres of squares on a grid `(N, 2)`.
    alike
        The highest correlation of each with another place of the map `(N,)`.
    title, data
        What is seen; simulated or real.
    """
    figure, axes = new_figure(9.2, 4.3, 1, 2)
    for ax in axes[0]:
        ax.imshow(chart, extent=np.array(extent) / KILOMETRE, interpolation="nearest")
        ax.set(xlabel="east (km)", ylabel="north (km)")
    columns, rows = (np.unique(places[:, i].round(1)) for i in (0, 1))
    grid = np.full((len(rows), len(columns)), np.nan)
    grid[np.searchsorted(rows, places[:, 1].round(1)), np.searchsorted(columns, places[:, 0].round(1))] = alike
    half = (columns[1] - columns[0]) / 2
    ends = np.array([columns[0] - half, columns[-1] + half, rows[0] - half, rows[-1] + half]) / KILOMETRE
    drawn = axes[0, 1].imshow(grid, extent=ends, origin="lower", cmap="magma", interpolation="nearest")
    axes[0, 0].set_title("the map")
    axes[0, 1].set_title("its ambiguity")
    figure.colorbar(drawn, ax=axes[0, 1], label="correlation with the place most like it (0 to 1)", shrink=0.85)
    figure.suptitle(f"{title} ({data})")
    return figure


def drift_of(offsets: Mapping[str, NDArray], title: str, data: str) -> Figure:
    """How far the windows of a strip lie from where rigid navigation puts them.

    Parameters
    ----------
    offsets
        By words, metres east and north `(W, 2)` of each window from where it would lie without any drift.
    title, data
        What is seen; simulated or real.
    """
    figure, axes = new_figure(8.0, 3.3, 1, 2, sharey=True)
    looks = ({"color": GREEN, "marker": "o", "ls": "-"}, {"color": SKY, "marker": "s", "ls": "--"},
             {"color": GREY, "marker": "v", "ls": ":"})  # fmt: skip
    for ax, axis, words in zip(axes[0], (0, 1), ("east", "north"), strict=True):
        for (name, values), look in zip(offsets.items(), looks, strict=False):
            ax.plot(np.arange(1, len(values) + 1), values[:, axis], label=name, **look)
        ax.set(xlabel="window along the strip (count)", ylabel=f"displacement to the {words} (m)")
        ax.grid()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"{title} ({data})")
    return figure
