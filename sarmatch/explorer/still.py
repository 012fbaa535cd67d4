"""The explorer as a figure: what an export shows in the place of the panel, which needs a kernel."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sarmatch.explorer.pages import map_background, map_picture, results
from sarmatch.explorer.state import Answer, Explorer
from sarmatch.figures.style import GREEN, PLACES, WHITE_EDGE, Picture, bare, frame, scale_bar, show


def still(state: Explorer, answer: Answer, method: str, rows: int = 2) -> Figure:
    """The query, the map with the posterior where there is one, and the first places.

    Parameters
    ----------
    state, answer
        What was asked, and what it answered.
    method
        What it was asked with, in words.
    rows
        Of two places each, beside query and map.
    """
    found, px = answer.candidates, state.scene.pixel_size
    beside = ["query", "map"] if state.scene.has_coordinates else ["query"]
    layout = [[name for name in beside for _ in range(rows)] + [str(2 * r), str(2 * r + 1)] for r in range(rows)]
    figure = Picture(figsize=(1.7 * len(layout[0]), 2.05 * rows + 0.4), layout="constrained", dpi=110)
    axes = figure.subplot_mosaic(layout)
    show(axes["query"], answer.image, px)
    scale_bar(axes["query"], "m" if px else "px")
    axes["query"].set_title("SAR query")
    if "map" in axes:
        _draw_map(axes["map"], state, answer, 2 * rows)
    for i, (words, place) in enumerate(zip(results(answer)[: 2 * rows], answer.places, strict=False)):
        ax = axes[str(i)]
        show(ax, state.tile_image(*state.window_of(found, i)))
        ax.set_title(f"{words}\n{PLACES[place]['sign']}", fontsize="small")
        frame(ax, place)
    for ax in axes.values():
        bare(ax)
    off = "" if answer.errors is None else f"{answer.errors[0]:,.0f} m off by "
    title = f"Query {answer.source.label}: {off}{method}"
    figure.suptitle(f"{title} ({state.scene.label})")
    return figure


def _draw_map(ax: Axes, state: Explorer, answer: Answer, count: int) -> None:
    """The map with its scores, a ring where the query lies, and the numbers of the first places."""
    picture, extent = map_picture(state.scene, answer, map_background(state.scene, answer.area))
    ax.imshow(picture, extent=extent)
    found = answer.candidates
    for i in range(min(count, len(answer.places)))[::-1]:  # the best on top
        if found.areas[found.area[0, i]] == answer.area:
            colour = PLACES[answer.places[i]]["color"]
            style = {"color": colour, "fontweight": "bold", "path_effects": WHITE_EDGE, "zorder": 6}
            ax.annotate(str(i + 1), found.xy[0, i], (6, 5), textcoords="offset points", **style)
    if answer.true is not None:
        ax.plot(*answer.true, "o", ms=18, mfc="none", mec=GREEN, mew=2.5, path_effects=WHITE_EDGE)
    ax.set_title(f"map of {answer.area}; ring: the query")
