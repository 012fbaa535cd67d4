"""One look for every figure: colours with a fixed meaning, display scaling, axes in metres."""

import io
import sys
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sarmatch.scenes.radiometry import FLOORS, to_decibels

# Okabe and Ito's palette, told apart by every kind of colour vision; and a red that nobody calls orange.
BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PURPLE, GREY, BLACK = "#E69F00", "#D55E00", "#CC79A7", "#7F7F7F", "#222222"
RED = "#B3001B"  # what is wrong, and no method

#: What a place is: colour, line style, marker and sign, so that colour is never the only cue.
PLACES = {
    "true": {"color": GREEN, "linestyle": "-", "marker": "*", "sign": "true tile"},
    "overlaps": {"color": GREEN, "linestyle": ":", "marker": "P", "sign": "overlaps"},
    "wrong": {"color": RED, "linestyle": "--", "marker": "X", "sign": "wrong"},
    "candidate": {"color": ORANGE, "linestyle": "-.", "marker": "o", "sign": "candidate"},
}
#: The modalities, the same in every figure.
MODALITIES = {
    "SAR": {"color": BLACK, "marker": "o"},
    "optical": {"color": ORANGE, "marker": "^"},
}
MODALITY_COLOURS = {name: style["color"] for name, style in MODALITIES.items()}
# What stands on a place and the town it lies in: Tol's muted palette, so that no colour of a modality, of right and
# wrong or of a method is met again with another meaning.
LAND_COVER_COLOURS = {
    "water": "#332288",
    "fields and grass": "#DDCC77",
    "trees": "#117733",
    "large roofs": "#882255",
    "small houses": "#CC6677",
}
TOWN_COLOURS = {"north": "#88CCEE", "south": "#44AA99", "unseen": "#AA4499"}
SPLIT_COLOURS = {"train": BLUE, "val": PURPLE, "test": YELLOW, "guard": GREY}

#: Both axes of a curve over metres.
OVER_METRES = {"xlabel": "distance between found and true place (m)", "ylabel": "fraction of queries (0 to 1)"}
PROTOCOL_WORDS = {"same_area": "same area", "cross_area": "unseen area"}


class Method(NamedTuple):
    """How a method is called in figures and tables, its line where it has one of its own, and what it does."""

    words: str
    line: dict[str, Any] | None = None
    about: str = ""


def _method(words: str, color: str, linestyle: str, marker: object, about: str = "") -> Method:
    return Method(words, {"color": color, "linestyle": linestyle, "marker": marker}, about)


#: Words and line of a method, the same in every figure and table. Names that are not here are shown as they are.
METHOD_STYLES: dict[str, Method] = {
    "plain": _method("trained encoder", BLUE, "-", "o"),
    "hog": _method("HOG, training-free", ORANGE, "-.", "s"),
    "untrained": _method("before training", GREY, "--", "*"),
    "chance": _method("chance", GREY, ":", "v"),
    "ceiling": _method("ceiling of the grid", BLACK, "--", "^"),
    # dense search
    "cfog": _method("dense search with CFOG, training-free", ORANGE, "--", (4, 0, 0)),
    "dense": _method("dense search, learned", VERMILION, "-", (5, 0, 0)),
    "coarse_to_fine": _method("dense search, coarse to fine", PURPLE, "-.", (6, 0, 0)),
    "pooled": Method("search by one vector per tile, pooled from the dense features"),
    "unknown_heading": Method("dense search, heading unknown"),
    "dense, turned by 180 degrees": Method("dense search, learned; control: query turned by 180 degrees"),
    "pose_known": Method("dense search, learned; 100 queries, north up"),
    "pose_heading": Method("the same 100, heading unknown"),
    "pose_scale_ignored": Method("the same 100, up to 10 % larger or smaller, which nobody looks for"),
    "pose_scale": Method("the same 100, scale unknown, 0.9 to 1.1"),
    "vector": _method("search by one vector per tile", BLUE, "-", "."),
    # losses and alignments
    "infonce": _method("InfoNCE alone", BLUE, "-", "p"),
    "triplet": _method("triplet loss alone", SKY, "--", "h"),
    "wasserstein": _method("InfoNCE + Wasserstein critic", VERMILION, "-", "D"),
    "clipped": _method("InfoNCE + clipped critic", VERMILION, ":", "d"),
    "class_adversary": _method("InfoNCE + class adversary", PURPLE, "--", "<"),
    "sliced": _method("InfoNCE + sliced Wasserstein", GREEN, ":", "P"),
    "sinkhorn": _method("InfoNCE + Sinkhorn divergence", YELLOW, "-.", "X"),
    "cmpc": _method("CMPC as published", BLACK, "-.", ">", "the published network, which is not given the cosine"),
    "neighbours_as_negatives": Method("neighbours as negatives"),
    "semi_positive": Method("semi-positives by IoU"),
    "two_branches": _method("two branches, nothing shared", ORANGE, "--", (4, 0, 20)),
    "shared": _method("one network for both modalities", BLUE, "-", (12, 0, 0)),
    "large_batches": Method("batches of 128"),
    "three_polarisations": Method("three polarisations"),
    "quarter_of_the_ground": Method("a quarter of the training area"),
    "quarter_with_wasserstein": Method("a quarter, with Wasserstein critic"),
    # refinement without training
    "coarse": _method("search alone", GREY, "-", "8", "the cosine of query and tile"),
    "whitened": _method(
        "search with whitened embeddings",
        BLACK,
        ":",
        (7, 1, 0),
        "the cosine after each modality's mean is taken out and the gallery's axes are made equally wide",
    ),
    "query_expansion": Method("query expansion", about="the query moves towards its first candidates"),
    "k_reciprocal": Method("k-reciprocal re-ranking", about="who are nearest to each other share their neighbours"),
    "super_global": Method("SuperGlobal re-ranking", about="query and candidates are pooled with their nearest"),
    "diffusion": Method("diffusion", about="scores spread over the graph of the most similar tiles"),
    "graph_reranking": Method("graph re-ranking by features", about="the same by message passing without parameters"),
    "geographic_vote": _method(
        "vote of neighbours on the map", SKY, "--", "H", "the scores of the tiles around count too"
    ),
    "matched_filter": _method(
        "matched filter over overlaps", SKY, "-.", "1", "the place whose overlaps explain the scores of all tiles"
    ),
    "interpolated_map": _method(
        "embeddings interpolated between tiles",
        GREEN,
        "-",
        (4, 1, 0),
        "the query against what embeddings would be between the tiles",
    ),
    "correlation": _method(
        "correlation of pixels", ORANGE, "-", (6, 1, 0), "CFOG, oriented gradients at all shifts around a candidate"
    ),
    # refinement that learns: methods of the comparison, and refiners by their own names
    "surface": _method(
        "small CNN on correlation of pixels", YELLOW, "-", (5, 0, 36), "reads the surface of that correlation"
    ),
    "M1": Method("MLP without coordinates", about="each candidate alone"),
    "M2": Method("MLP with coordinates", about="each candidate alone, with its position in the list's frame"),
    "M3": Method("MLP with mean and maximum of the list", about="each candidate beside a summary of its list"),
    "G0": _method(
        "graph network, self-loops only", PURPLE, "--", (3, 1, 0), "a message from itself alone: an MLP, equally large"
    ),
    "G1": _method(
        "graph network, edges in metres", VERMILION, "-", (8, 1, 0), "messages from candidates up to two tiles away"
    ),
    "G1e": Method("graph network, edges in metres, no coordinates", about="nodes are not told where they lie"),
    "G2": Method("graph network, edges by features", about="messages from the most similar candidates"),
    "G3": Method("graph network, all edges", about="full attention: messages from every candidate"),
    "G1s": Method("graph network, edges shuffled", about="as many edges, between others, in training and test"),
    "G1t": Method("graph network, edges shuffled at test only", about="trained with edges in metres"),
    "G1x": Method("graph network, coordinates permuted", about="positions of the list exchanged, so edges too"),
    "angle": Method("graph network, edges by angle", about="positions without their length, as CMPC's code has it"),
}
_ARMS = {
    "mlp_without_xy": "M1",
    "mlp": "M2",
    "deepsets": "M3",
    "gnn_self_loops": "G0",
    "gnn": "G1",
    "gnn_without_xy": "G1e",
    "gnn_features": "G2",
    "attention": "G3",
    "gnn_shuffled": "G1s",
    "gnn_permuted": "G1x",
    "gnn_angle": "angle",
}
METHOD_STYLES |= {name: METHOD_STYLES[arm] for name, arm in _ARMS.items()}
#: Refiners in the order of every table and figure, under what they have in common.
REFINER_GROUPS = {
    "training-free, from embeddings": (
        *("coarse", "whitened", "query_expansion", "k_reciprocal", "super_global", "diffusion", "graph_reranking"),
    ),
    "training-free, from the map": ("geographic_vote", "matched_filter", "interpolated_map"),
    "learned, without edges": ("M1", "M2", "M3", "G0"),
    "learned, with edges": ("G1", "G1e", "G3", "G2", "angle"),
    "controls of the edges": ("G1s", "G1t", "G1x"),
    "as published": ("cmpc",),
    "from pixels": ("correlation", "surface"),
}
#: What an alignment is joined with, and its line.
_NETWORKS: dict[str, tuple[str, Any]] = {
    "shared": ("shared network", "-"),
    "two_branches": ("two branches", "--"),
    "triplet": ("triplet loss, shared network", "-."),
    "dense": ("dense feature maps", ":"),
    "dense_sentinel": ("dense feature maps of real tiles", (0, (1, 3))),
}
#: Alignments, with colour and corners of their marks.
_ALIGNMENTS = {
    "wasserstein": ("Wasserstein critic", VERMILION, 4),
    "wasserstein_20_steps": ("Wasserstein critic, 20 steps", BLACK, 7),
    "class_adversary": ("class adversary", PURPLE, 3),
    "sinkhorn": ("Sinkhorn divergence", YELLOW, 5),
}
_MARKS = {"0.1": (0, 40), "1": (1, 10), "10": (0, 10)}  # of a weight: whether its mark is a star, and turned
#: Choices of dense search: what one thing is changed to.
_CHOICES = {
    "cross_entropy": "the recipe: cross-entropy over shifts",
    "circle": "circle loss",
    "hinge": "hinge on the hardest shifts",
    "mined": "false peaks mined",
    "towns": "other towns every epoch",
    "confidence": "query confidence",
    "vectors": "vectors learned along",
    "resnet": "maps of a ResNet-18",
    "unet": "a small U-Net",
    "shared": "one trunk for both modalities",
    "scales": "five scales",
    "lite0": "maps of an EfficientNet-Lite0",
    "lite0_imagenet": "the same from ImageNet's weights",
}
METHOD_STYLES |= {f"dense_{name}": Method(words) for name, words in _CHOICES.items()}
#: What lifts a search by vectors cheaply.
_LIFTS = {
    "infonce_96": "images of 96 pixels",
    "infonce_128": "images of 128 pixels",
    "lite0": "EfficientNet-Lite0",
    "lite0_imagenet": "EfficientNet-Lite0 from ImageNet's weights",
    "lite0_imagenet_slow": "the same at a quarter of the rate",
}
METHOD_STYLES |= {name: Method(words) for name, words in _LIFTS.items()}


def _alignments() -> dict[str, Method]:
    """The line says which network, the colour which alignment, the mark its weight; no two marks are the same."""
    found = {}
    for turn, (network, (words, line)) in enumerate(_NETWORKS.items()):
        found[f"{network}_0"] = _method(f"{words}, no alignment", BLUE, line, (9, 1, 3 * turn))
        for (name, (aligned, color, corners)), (weight, (star, angle)) in product(_ALIGNMENTS.items(), _MARKS.items()):
            style = color, line, (corners, star, angle + 3 * turn)
            found[f"{network}_{name}_{weight}"] = _method(f"{words}, {aligned} of weight {weight}", *style)
    return found


METHOD_STYLES |= _alignments()
#: Alignments under the network that they are joined with.
ALIGNMENT_GROUPS = {
    words: tuple(f"{network}_{name}_{weight}" for name, weight in product(_ALIGNMENTS, _MARKS))
    for network, (words, *_) in _NETWORKS.items()
}
#: Published systems: what they are called, and those with one thing changed.
_SYSTEMS = {
    "cmpc_published": "CMPC as published",
    "cmpc_mended": "CMPC, faults mended",
    "vigor_vgg16": "VIGOR, SAFA on VGG16",
    "vigor_resnet": "VIGOR, SAFA on a ResNet",
    "vigor_hybrid": "VIGOR, hybrid loss",
    "vigor_polar": "VIGOR, polar tiles",
    "vigor_polar_shared": "VIGOR, polar tiles, one branch",
    "vigor_unknown_heading": "VIGOR, heading unknown",
    "transgeo": "TransGeo",
    "saig_s_smd": "SAIG-S + SMD",
    "saig_d_smd": "SAIG-D + SMD",
    "sample4geo": "Sample4Geo",
    "l2ltr": "L2LTR",
    "cvm_net": "CVM-Net",
    "panorama": "plain encoder, InfoNCE",
    "panorama_polar": "plain encoder, polar tiles",
    "fft_unet": "FFT U-Net, dense",
    "osmnet": "OSMNet, dense",
    "saig_unknown_heading": "SAIG-S, heading unknown",
    "saig_average": "SAIG-S, average",
    "saig_gem": "SAIG-S, GeM",
    "saig_safa": "SAIG-S, SAFA",
    "saig_triplet": "SAIG-S, soft-margin triplet",
    "saig_infonce": "SAIG-S, symmetric InfoNCE",
    "saig_adam": "SAIG-S, AdamW without ASAM",
    "saig_sam": "SAIG-S, SAM",
    "saig_sgd": "SAIG-S, SGD",
    "saig_mined": "SAIG-S, mined pairs",
    "saig_shared": "SAIG-S, one branch",
    "saig_semi_positive": "SAIG-S, semi-positives",
    "vigor_infonce": "VIGOR, InfoNCE",
    "vigor_unmined": "VIGOR, random pairs",
}
METHOD_STYLES |= {name: Method(words) for name, words in _SYSTEMS.items()}
#: Lines of the systems whose curves stand in one picture.
_LINES: dict[str, tuple[str, str, object]] = {
    "panorama": (BLUE, "-", (8, 0, 0)),
    "vigor_vgg16": (ORANGE, "--", "$V$"),
    "transgeo": (YELLOW, "-.", "$T$"),
    "saig_s_smd": (VERMILION, "-", "$S$"),
    "saig_d_smd": (PURPLE, "--", "$D$"),
    "sample4geo": (GREEN, "-.", "$4$"),
}
METHOD_STYLES |= {name: _method(_SYSTEMS[name], *line) for name, line in _LINES.items()}
_OTHERS = (PURPLE, SKY, GREEN, VERMILION)

WHITE_EDGE = [patheffects.withStroke(linewidth=2.5, foreground="white")]
DARK_EDGE = [patheffects.withStroke(linewidth=2.5, foreground="black")]


#: What differs from matplotlib's own look.
_LOOK: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": ".15",
    "axes.labelcolor": ".15",
    "axes.labelsize": 10.2,
    "axes.linewidth": 1.25,
    "axes.titlesize": 10.2,
    "font.sans-serif": ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"],
    "font.size": 10.2,
    "grid.color": ".8",
    "grid.linewidth": 1.0,
    "legend.fontsize": 9.35,
    "legend.title_fontsize": 10.2,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "text.color": ".15",
    **{f"{axis}tick.{what}": size for axis in "xy" for what, size in (("color", ".15"), ("labelsize", 9.35))},
    **{f"{axis}tick.major.{what}": size for axis in "xy" for what, size in (("size", 6.0), ("width", 1.25))},
    **{f"{axis}tick.minor.{what}": size for axis in "xy" for what, size in (("size", 4.0), ("width", 1.0))},
}


class Picture(Figure):
    """A figure that a notebook embeds as `embedded` says."""


def use_style() -> None:
    """Set the look of all figures; a notebook embeds them as `embedded` says."""
    rcParams.update(_LOOK)
    ipython = sys.modules.get("IPython")  # there already where a notebook is, and else of no use
    if ipython is not None and (shell := ipython.get_ipython()) is not None:
        for kind in ("png", "jpeg"):
            formatter = shell.display_formatter.formatters[f"image/{kind}"]
            formatter.for_type(Picture, lambda figure, kind=kind: embedded(figure, kind))


def embedded(figure: Figure, kind: str) -> tuple[bytes, dict[str, str]] | None:
    """A figure as a notebook keeps it, with its alternative text; None where it is better kept as the other kind.

    `jpeg` takes figures that show images, which as PNG would be five times as large; `png` takes line art, whose edges
    stay sharp.
    """
    if kind != ("jpeg" if any(axes.images for axes in figure.axes) else "png"):
        return None
    file = io.BytesIO()
    options = {"pil_kwargs": {"quality": 72}} if kind == "jpeg" else {}
    figure.savefig(file, format=kind, dpi=100, bbox_inches="tight", **options)
    if kind == "png":  # a palette: line art has few colours, and is a third as large
        image = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        file = io.BytesIO()
        image.save(file, format="png", optimize=True)
    return file.getvalue(), {"alt": alternative_text(figure)}


def alternative_text(figure: Figure) -> str:
    """What a figure shows, in words, for whoever cannot see it: its titles, panels and axes, a diagram's own words."""
    titles = [axes.get_title() for axes in figure.axes]
    titles += [text.get_text() for axes in figure.axes if not axes.axison for text in axes.texts]  # of a diagram
    parts = [figure.get_suptitle(), "; ".join(filter(None, titles))]
    for name, letter in (("Horizontal", "x"), ("Vertical", "y")):
        labels = dict.fromkeys(getattr(axes, f"get_{letter}label")() for axes in figure.axes)
        parts.append(f"{name}: {words}" if (words := ", ".join(filter(None, labels))) else "")
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part) + "."


def method_line(name: str) -> dict[str, Any]:
    """Colour, line style and marker of a method; the same name always gives the same ones."""
    style = METHOD_STYLES.get(name)
    if style is not None and style.line is not None:
        return style.line
    first, _, then = name.partition(" + ")
    if then:
        return method_line(first) | {"linestyle": ":", "markerfacecolor": "white"}
    return {"color": _OTHERS[sum(map(ord, name)) % len(_OTHERS)], "linestyle": "-", "marker": "D"}


def method_words(name: str) -> str:
    """What a method is called where people read it; a name that is not known is shown as it is.

    `ENCODER + REFINER` is how a run names what stands behind its encoder.
    """
    first, _, then = name.partition(" + ")
    if then:
        return f"{method_words(first)}, " + ("whitened" if then == "whitened" else f"then {method_words(then)}")
    return METHOD_STYLES[name].words if name in METHOD_STYLES else name


def method_about(name: str) -> str:
    """What a method does, in half a sentence; empty where nobody has said so."""
    return METHOD_STYLES[name].about if name in METHOD_STYLES else ""


def task_words(protocol: str, kind: str) -> str:
    """A test in words: "unseen area, arbitrary"."""
    return f"{PROTOCOL_WORDS.get(protocol, protocol)}, {kind}"


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
    figure = Picture(figsize=(width, height), layout="constrained", dpi=110)
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
    width = length / (right - left)
    axes.add_patch(
        Rectangle((x - width, y), width, 0.018, transform=axes.transAxes, facecolor="white", edgecolor="black", lw=0.8)
    )
    text = f"{length / 1000:g} km" if unit == "m" and length >= 1000 else f"{length:g} {unit}"
    axes.text(
        x - width / 2,
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
