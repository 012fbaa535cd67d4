"""Small panels for where a notebook teaches one thing: a slider over pictures, each of which is a figure by itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import ipywidgets as widgets
import numpy as np
import ot
import pandas as pd
from matplotlib.figure import Figure

from sarmatch.explorer.sources import Disturbance, asked
from sarmatch.explorer.state import Explorer
from sarmatch.figures import annotated_pair, by_weight, to_display, transport
from sarmatch.figures.style import SLATES, YELLOW, bare, embedded, new_figure, show
from sarmatch.scenes import Scene
from sarmatch.search import VectorSearch
from sarmatch.simulation.closeup import closeup, lone_building

T = TypeVar("T")
WINDOW = 240  # pixels around a building


class Stills(widgets.VBox):
    """A slider over some values, and the picture of the chosen one.

    Parameters
    ----------
    words
        What the slider changes, with its unit.
    values
        Of the slider, each with a picture.
    draw
        The figure of a value: what an export shows in the panel's place.

    Raises
    ------
    ValueError
        Where there is no value.
    """

    def __init__(self, words: str, values: Sequence[T], draw: Callable[[T], Figure]) -> None:
        if not len(values):
            raise ValueError(f"{words}: no value to choose from")
        self.still = draw
        self._drawn: dict[T, bytes] = {}
        options = [(f"{value:g}" if isinstance(value, (int, float)) else str(value), value) for value in values]
        self.slider = widgets.SelectionSlider(
            options=options, description=words, continuous_update=False, style={"description_width": "initial"}
        )
        self.slider.layout.width = "500px"
        self.picture = widgets.Image(format="jpeg")
        self.slider.observe(lambda change: self._show(change["new"]), "value")
        super().__init__([self.slider, self.picture])
        self._show(values[0])

    def _show(self, value: T) -> None:
        if value not in self._drawn:
            figure = self.still(value)
            kind = "png" if embedded(figure, "jpeg") is None else "jpeg"
            self._drawn[value] = embedded(figure, kind)[0]
        self.picture.value = self._drawn[value]


def layover_panel(scene: Scene, area: str, angles: Sequence[float] = (25, 35, 45, 55)) -> Stills:
    """Incidence angle against layover: a lone building of a simulated town, seen ever more from the side.

    Parameters
    ----------
    scene, area
        A simulated town.
    angles
        Incidence angles, degrees.

    Raises
    ------
    ValueError
        Where the area is no simulated town, see `sarmatch.simulation.lone_building`.
    """
    building = lone_building(scene, area)
    corner = building.row - WINDOW // 2, building.col - WINDOW // 2

    def draw(angle: float) -> Figure:
        near = closeup(scene, area, *corner, WINDOW, angle)
        reach = building.height_m / np.tan(np.deg2rad(angle))
        title = f"Incidence {angle:g} degrees: {building.height_m:.0f} m of height lie {reach:.0f} m over"
        return annotated_pair(near.sar, near.optical, near.effects, "intensity", scene.pixel_size, title, scene.label)

    return Stills("incidence angle (degrees)", angles, draw)


def overlap_panel(state: Explorer, number: int = 0, steps: int = 8) -> Stills:
    """Overlap against similarity: the window of the map slides off the query, and the cosine falls.

    Parameters
    ----------
    state
        Of a run of search by vectors.
    number
        Of the query.
    steps
        To the east, of an eighth of a patch by default, so that the last shares nothing.

    Raises
    ------
    ValueError
        For a run whose encoder has no vectors, or a query too near to the edge of its map.
    """
    search, source = getattr(state.finder(state.methods[0]), "search", None), state.queries[number]
    if not isinstance(search, VectorSearch):
        raise ValueError(f"{state.run.path}: needs a run of search by vectors")
    raster, size = state.scene.area(source.area).map, source.size
    inward = 1 if source.col + 2 * size <= raster.bounds[3] else -1
    shifts = inward * np.round(np.arange(steps + 1) * size / steps).astype(int)
    windows = state.tiles.iloc[[0] * len(shifts)].assign(area=source.area, row=source.row, col=source.col + shifts)
    query, reference = state.run.embed(state.scene, _row_of(state, number), windows)
    cosine, fraction = reference @ query[0], 1 - np.abs(shifts) / size
    left = state.display(asked(source, Disturbance()))

    def draw(i: int) -> Figure:
        figure, axes = new_figure(10.5, 3.6, 1, 3)
        show(axes[0, 0], left)
        show(axes[0, 1], to_display(raster.read(source.row, source.col + shifts[i], size, size), raster.scale))
        for ax, title in zip(axes[0], ("SAR query", f"the map, {fraction[i]:.0%} overlap"), strict=False):
            bare(ax)
            ax.set_title(title)
        curve = axes[0, 2]
        curve.plot(fraction, cosine, color=SLATES[0], marker="o", ms=4)
        curve.plot(fraction[i], cosine[i], "*", ms=16, color=YELLOW, mec="black")
        curve.set(xlabel="overlap (fraction of the query)", ylabel="cosine (no unit)", xlim=(1.04, -0.04))
        title = f"{fraction[i]:.0%} of the query lie in the window: cosine {cosine[i]:.2f}"
        figure.suptitle(f"{title} ({state.scene.label})")
        return figure

    return Stills("window of the map slides by (steps)", list(range(len(shifts))), draw)


def _row_of(state: Explorer, number: int) -> pd.DataFrame:
    """A query of the explorer as a patch table of one row."""
    source = state.queries[number]
    row = {"area": source.area, "strip": source.raster.name, "row": source.row, "col": source.col}
    return pd.DataFrame([row | {"size": source.size, "modality": "sar"}])


def blur_panel(x: np.ndarray, y: np.ndarray, data: str, blurs: Sequence[float] = (0, 0.1, 0.2, 0.5, 1)) -> Stills:
    """Blur in optimal transport: the plan between two samples, sharp first, and everything to everything at last.

    Parameters
    ----------
    x, y
        `(N, 2)` and `(M, 2)` points of the plane.
    data
        What they are.
    blurs
        Roots of the entropic regularisation, in the unit of the points (Cuturi, NeurIPS 2013); 0 is the exact plan.
    """
    cost = ot.dist(x, y)
    weights = [np.full(len(points), 1 / len(points)) for points in (x, y)]

    def draw(blur: float) -> Figure:
        if blur:
            plan = ot.sinkhorn(*weights, cost, blur**2, method="sinkhorn_log", numItermax=2000, warn=False)
        else:
            plan = ot.emd(*weights, cost)
        paid = np.sqrt((plan * cost).sum())
        return transport(x, y, {f"blur {blur:g}": plan}, f"Transport at blur {blur:g} costs {paid:.2f}", data)

    return Stills("blur (unit of the points)", blurs, draw)


def weight_panel(table: pd.DataFrame, measures: Mapping[str, str], by: str, data: str) -> Stills:
    """A critic's weight: what recorded runs reached up to a weight, one weight more at every step.

    Parameters
    ----------
    table, measures, by
        See `sarmatch.figures.by_weight`.
    data
        Simulated or real.
    """

    def draw(weight: float) -> Figure:
        title = f"Weights up to {weight:g}"
        return by_weight(table[table["weight"] <= weight], measures, by, title, data)

    return Stills("weight of the critic (no unit)", sorted(table["weight"].unique())[1:], draw)
