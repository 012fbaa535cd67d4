"""One look for every figure: colours with a fixed meaning, display scaling, axes in metres."""

import numpy as np
import seaborn as sns
from IPython import get_ipython
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sarmatch.scenes.radiometry import FLOORS, to_decibels

# Okabe and Ito's palette, told apart by every kind of colour vision.
BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, RED, PURPLE, GREY, BLACK = "#E69F00", "#D55E00", "#CC79A7", "#7F7F7F", "#222222"

#: What a place is: colour, line style, marker and sign, so that colour is never the only cue.
PLACES = {
    "true": {"color": GREEN, "linestyle": "-", "marker": "*", "sign": "true tile"},
    "shares ground": {"color": GREEN, "linestyle": ":", "marker": "P", "sign": "shares ground"},
    "wrong": {"color": RED, "linestyle": "--", "marker": "X", "sign": "wrong"},
    "candidate": {"color": ORANGE, "linestyle": "-.", "marker": "o", "sign": "candidate"},
}
SPLIT_COLOURS = {"train": BLUE, "val": PURPLE, "test": YELLOW, "guard": GREY}

#: Line of a method, the same in every figure. Names that are not here share the colours of `_OTHERS`.
METHODS: dict[str, dict] = {
    "plain": {"color": BLUE, "linestyle": "-", "marker": "o"},
    "hog": {"color": ORANGE, "linestyle": "-.", "marker": "s"},
    "infonce": {"color": BLUE, "linestyle": "-", "marker": "p"},
    "triplet": {"color": SKY, "linestyle": "--", "marker": "h"},
    "wasserstein": {"color": RED, "linestyle": "-", "marker": "D"},
    "clipped": {"color": RED, "linestyle": ":", "marker": "d"},
    "class_adversary": {"color": PURPLE, "linestyle": "--", "marker": "<"},
    "sliced": {"color": GREEN, "linestyle": ":", "marker": "P"},
    "sinkhorn": {"color": YELLOW, "linestyle": "-.", "marker": "X"},
    "cmpc": {"color": BLACK, "linestyle": "-.", "marker": ">"},
    "weight_0": {"color": BLUE, "linestyle": "-", "marker": "$0$"},
    "weight_0.1": {"color": BLACK, "linestyle": "-", "marker": "$0.1$"},
    "weight_1": {"color": PURPLE, "linestyle": "-", "marker": "$1$"},
    "weight_10": {"color": RED, "linestyle": "-", "marker": "$10$"},
    "coarse": {"color": GREY, "linestyle": "-", "marker": "8"},
    "geographic_vote": {"color": SKY, "linestyle": "--", "marker": "H"},
    "matched_filter": {"color": SKY, "linestyle": "-.", "marker": "1"},
    "interpolated_map": {"color": GREEN, "linestyle": "-", "marker": (4, 1, 0)},
    "correlation": {"color": ORANGE, "linestyle": "-", "marker": (6, 1, 0)},
    "surface": {"color": YELLOW, "linestyle": "-", "marker": (5, 0, 36)},
    "G0": {"color": PURPLE, "linestyle": "--", "marker": (3, 1, 0)},
    "G1": {"color": RED, "linestyle": "-", "marker": (8, 1, 0)},
    "untrained": {"color": GREY, "linestyle": "--", "marker": "*"},
    "chance": {"color": GREY, "linestyle": ":", "marker": "v"},
    "ceiling": {"color": BLACK, "linestyle": "--", "marker": "^"},
}
_OTHERS = (PURPLE, SKY, GREEN, RED)

WHITE_EDGE = [patheffects.withStroke(linewidth=2.5, foreground="white")]
DARK_EDGE = [patheffects.withStroke(linewidth=2.5, foreground="black")]


def use_style() -> None:
    """Set the look of all figures; in a notebook they are embedded as JPEG, five times smaller than PNG for SAR."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.85)
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 72}, dpi=100)


def method_line(name: str) -> dict:
    """Colour, line style and marker of a method; the same name always gives the same ones."""
    return METHODS.get(name, {"color": _OTHERS[sum(map(ord, name)) % len(_OTHERS)], "linestyle": "-", "marker": "D"})


def decibels(pixels: np.ndarray, scale: str) -> np.ndarray:
    """SAR in dB of power, floored where the encoders floor it."""
    values, floor = to_decibels(pixels, scale), to_decibels(np.float32(FLOORS[scale]), scale)
    return np.where(np.isfinite(values), np.maximum(values, floor), floor)


def to_display(pixels: np.ndarray, scale: str, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Pixels as `imshow` takes them, 0 to 1.

    Parameters
    ----------
    pixels
        `(C, H, W)` in the raster's own scale.
    scale
        `reflectance` is clipped to 0..1 and nothing else; SAR goes through decibels.
    limits
        Decibels shown black and white; the 1st and 99th percentile of the image by default.

    Returns
    -------
    `float32 (H, W, 3)` for reflectance, `(H, W)` for SAR.
    """
    if scale == "reflectance":
        return np.clip(np.moveaxis(np.asarray(pixels, np.float32), 0, -1), 0, 1)
    image = decibels(pixels[0], scale)
    low, high = np.percentile(image, (1, 99)) if limits is None else limits
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure that no pyplot keeps alive, and its axes `(rows, columns)`."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def show(axes: Axes, image: np.ndarray, pixel_size: float | None = None) -> None:
    """Draw a display image from 0 on: in metres where a pixel has a size, else in pixels from the top.

    SAR `(H, W)` is always grey, optical `(H, W, 3)` always in its colours.
    """
    height, width = image.shape[:2]
    if pixel_size:
        extent, labels = (0, width * pixel_size, 0, height * pixel_size), ("east (m)", "north (m)")
    else:
        extent, labels = (0, width, height, 0), ("column (px)", "row (px)")
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest", aspect="equal")
    axes.set(xlabel=labels[0], ylabel=labels[1])


def bare(axes: Axes) -> None:
    """No ticks and no labels: for pictures that carry a scale bar or stand beside one that does."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")


def frame(axes: Axes, place: str, width: float = 4) -> None:
    """Frame a picture by what its place is: a key of `PLACES`."""
    style = PLACES[place]
    for spine in axes.spines.values():
        spine.set(visible=True, color=style["color"], linewidth=width, linestyle=style["linestyle"])


def scale_bar(axes: Axes, unit: str = "m") -> None:
    """A bar of a round length, about a quarter of the picture wide, in its lower right corner."""
    left, right = sorted(axes.get_xlim())
    bottom, top = sorted(axes.get_ylim())
    wish = (right - left) / 4
    power = 10.0 ** np.floor(np.log10(wish))
    length = max(n * power for n in (1, 2, 5) if n * power <= wish)
    x, y = 0.95, 0.06
    share = length / (right - left)
    axes.add_patch(
        Rectangle((x - share, y), share, 0.018, transform=axes.transAxes, facecolor="white", edgecolor="black", lw=0.8)
    )
    text = f"{length / 1000:g} km" if unit == "m" and length >= 1000 else f"{length:g} {unit}"
    axes.text(
        x - share / 2,
        y + 0.03,
        text,
        transform=axes.transAxes,
        ha="center",
        color="white",
        fontsize="small",
        path_effects=DARK_EDGE,
    )


def outline(axes: Axes, corner: tuple[float, float], width: float, height: float, **style) -> Rectangle:
    """A rectangle without a filling; `corner` is its lower left in the unit of the axes."""
    return axes.add_patch(Rectangle(corner, width, height, fill=False, **{"linewidth": 2, **style}))
