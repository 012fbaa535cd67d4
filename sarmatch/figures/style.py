"""One look for every figure: colours with a fixed meaning, display scaling, axes in metres."""

import io
import sys
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, cycle, product, repeat
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sarmatch.scenes.radiometry import FLOORS, to_decibels

# A colour has one meaning in all figures. These are of what is no method: images, places, quantities.
BLACK, ORANGE = "#222222", "#E69F00"  # SAR, optical
GREEN, RED, SKY = "#009E73", "#B3001B", "#56B4E9"  # right, wrong, and what nobody has judged
YELLOW = "#F0E442"  # the query: its place, its strip, where it looks
PURPLE = "#CC79A7"  # what has changed between the images
GREY, PALE = "#7F7F7F", "#ABABAB"  # what all is measured against, and methods of which nothing is known
SLATES = ("#34495E", "#6F8AA5", "#B3C2D1")  # quantities, kinds and numbers that are no methods
# A colour for each family of methods, by the sort of thing that they are. Within a family, line style and marker tell
# who is who. That eyes without red or green tell them apart is tested.
FAMILIES = {
    "baseline": GREY,
    "vector": "#0072B2",
    "dense": "#D55E00",
    "gradients": "#A0714A",
    "critic": "#AA1E8C",
    "alignment": "#E87FBC",
    "embeddings": "#AFC23F",
    "map": "#45C7DB",
    "list": "#C9A3FF",
    "graph": "#3A12A0",
    "convolutional": "#7A0040",
    "attention": "#8E7BF0",
}

#: What a place is: colour, line style, marker and sign, so that colour is never the only cue.
PLACES = {
    "true": {"color": GREEN, "linestyle": "-", "marker": "*", "sign": "true tile"},
    "overlaps": {"color": GREEN, "linestyle": ":", "marker": "P", "sign": "overlaps"},
    "wrong": {"color": RED, "linestyle": "--", "marker": "X", "sign": "wrong"},
    "candidate": {"color": SKY, "linestyle": "-.", "marker": "o", "sign": "candidate"},
}
#: The modalities, the same in every figure.
MODALITIES = {
    "SAR": {"color": BLACK, "marker": "o"},
    "optical": {"color": ORANGE, "marker": "^"},
}
MODALITY_COLOURS = {name: style["color"] for name, style in MODALITIES.items()}
# What stands on a place and the town it lies in: Tol's muted palette, and of splits his light one.
LAND_COVER_COLOURS = {
    "water": "#332288",
    "fields and grass": "#DDCC77",
    "trees": "#117733",
    "large roofs": "#882255",
    "small houses": "#CC6677",
}
TOWN_COLOURS = {"north": "#88CCEE", "south": "#44AA99", "unseen": "#AA4499"}
SPLIT_COLOURS = {"train": "#77AADD", "val": "#FFAABB", "test": "#BBCC33", "guard": "#555555"}

#: Both axes of a curve over metres.
OVER_METRES = {"xlabel": "distance between found and true place (m)", "ylabel": "fraction of queries (0 to 1)"}
PROTOCOL_WORDS = {"same_area": "same area", "cross_area": "unseen area"}


class Method(NamedTuple):
    """How a method is called in figures and tables, its line, and what it does."""

    words: str
    line: dict[str, Any]
    about: str = ""


_LINES = (
    *("-", "--", "-.", ":", (0, (6, 2, 2, 2)), (0, (10, 3)), (0, (3, 3)), (0, (5, 1, 1, 1, 1, 1))),
    *((0, (1, 3)), (0, (9, 2, 1, 2)), (0, (2, 4)), (0, (8, 2, 2, 2, 2, 2))),
)
_WHITENED = (0, (1, 1))
#: Corners of a mark and whether it is a star; when all have been given, they are given again and turned.
_SHAPES = ((4, 0), (3, 0), (5, 0), (4, 1), (6, 0), (5, 1), (3, 1), (8, 0), (6, 1))
_MARKS = ((*shape, 22.5 * turn) for turn, shape in product(range(16), _SHAPES))


def _family(name: str, methods: Mapping[str, str | tuple[str, str]], letters: str = "") -> None:
    """Add methods of a family, by their words or by words and what they do.

    All marks differ, and so do the line styles of any twelve that follow each other in a family. A method may have a
    letter as mark: the one that stands at its place in `letters`, where a blank leaves the shape.
    """
    marks = (f"${letter}$" if letter != " " else next(_MARKS) for letter in chain(letters, repeat(" ")))
    for (method, told), line, mark in zip(methods.items(), cycle(_LINES), marks):
        words, about = (told, "") if isinstance(told, str) else told
        style = {"color": FAMILIES[name], "linestyle": line, "marker": mark}
        METHOD_STYLES[method] = Method(words, style, about)


#: Words and line of a method, the same in every figure and table. Names that are not here are shown as they are.
METHOD_STYLES: dict[str, Method] = {}
_family(
    "baseline",
    {
        "coarse": ("search alone", "the cosine of query and tile"),
        "ceiling": "ceiling of the grid",
        "untrained": "before training",
        "chance": "chance",
    },
)
_family(
    "vector",
    {
        "infonce": "InfoNCE alone",
        "neighbours_as_negatives": "neighbours as negatives",
        "semi_positive": "semi-positives by IoU",
        "two_branches": "two branches, nothing shared",
        "large_batches": "batches of 128",
        "three_polarisations": "three polarisations",
        "quarter_of_the_ground": "a quarter of the training area",
        "infonce_96": "images of 96 pixels",
        "infonce_128": "images of 128 pixels",
        "lite0": "EfficientNet-Lite0",
        "lite0_imagenet": "EfficientNet-Lite0 from ImageNet's weights",
        "lite0_imagenet_slow": "the same at a quarter of the rate",
        "plain": "trained encoder",
        "triplet": "triplet loss alone",
        "shared": "one network for both modalities",
        "pooled": "search by one vector per tile, pooled from the dense features",
        "vector": "search by one vector per tile",
        "panorama_polar": "plain encoder, polar tiles",
        "panorama": "plain encoder, InfoNCE",
        "infonce_grey": "half of the optical images grey",
        "infonce_one_channel": "half of the optical images one channel",
        "infonce_channel_exchange": "channels exchanged",
        "infonce_intermediate": "half of the optical images mixed at random",
        "infonce_x_modality": "X modality, a learned generator",
    },
)
# choices of dense search stand after the poses: what one thing is changed to
_family(
    "dense",
    {
        "dense": "dense search, learned",
        "fft_unet": "FFT U-Net, dense",
        "maru_net": "FFT U-Net with MARU-Net's loss, dense",
        "osmnet": "OSMNet, dense",
        "coarse_to_fine": "dense search, coarse to fine",
        "dense, turned by 180 degrees": "dense search, learned; control: query turned by 180 degrees",
        "registered": "dense search, learned; strips registered",
        "unknown_heading": "dense search, heading unknown",
        "pose_known": "dense search, learned; 100 queries, north up",
        "pose_heading": "the same 100, heading unknown",
        "pose_scale_ignored": "the same 100, up to 10 % larger or smaller, which nobody looks for",
        "pose_scale": "the same 100, scale unknown, 0.9 to 1.1",
        "dense_unet": "a small U-Net",
        "dense_shared": "one trunk for both modalities",
        "dense_scales": "five scales",
        "dense_lite0": "maps of an EfficientNet-Lite0",
        "dense_lite0_imagenet": "the same from ImageNet's weights",
        "dense_cross_entropy": "the recipe: cross-entropy over shifts",
        "dense_circle": "circle loss",
        "dense_hinge": "hinge on the hardest shifts",
        "dense_mined": "false peaks mined",
        "dense_towns": "other towns every epoch",
        "dense_confidence": "query confidence",
        "dense_vectors": "vectors learned along",
        "dense_resnet": "maps of a ResNet-18",
    },
)
_family(
    "gradients",
    {
        "cfog": "dense search with CFOG, training-free",
        "hog": "HOG, training-free",
        "correlation": (
            "correlation of pixels",
            "CFOG, oriented gradients at all shifts around a candidate",
        ),
        "surface": ("small CNN on correlation of pixels", "reads the surface of that correlation"),
    },
)
_family(
    "critic",
    {
        "wasserstein": "InfoNCE + Wasserstein critic",
        "clipped": "InfoNCE + clipped critic",
        "quarter_with_wasserstein": "a quarter, with Wasserstein critic",
    },
)
_family(
    "alignment",
    {
        "class_adversary": "InfoNCE + class adversary",
        "sliced": "InfoNCE + sliced Wasserstein",
        "sinkhorn": "InfoNCE + Sinkhorn divergence",
    },
)
_family(
    "embeddings",
    {
        "whitened": (
            "search with whitened embeddings",
            "the cosine after each modality's mean is taken out and the gallery's axes are made equally wide",
        ),
        "query_expansion": ("query expansion", "the query moves towards its first candidates"),
        "k_reciprocal": ("k-reciprocal re-ranking", "who are nearest to each other share their neighbours"),
        "super_global": ("SuperGlobal re-ranking", "query and candidates are pooled with their nearest"),
        "diffusion": ("diffusion", "scores spread over the graph of the most similar tiles"),
        "graph_reranking": ("graph re-ranking by features", "the same by message passing without parameters"),
    },
)
_family(
    "map",
    {
        "geographic_vote": ("vote of neighbours on the map", "the scores of the tiles around count too"),
        "matched_filter": ("matched filter over overlaps", "the place whose overlaps explain the scores of all tiles"),
        "interpolated_map": (
            "embeddings interpolated between tiles",
            "the query against what embeddings would be between the tiles",
        ),
    },
)
_family(
    "list",
    {
        "G0": ("graph network, self-loops only", "a message from itself alone: an MLP, equally large"),
        "M1": ("MLP without coordinates", "each candidate alone"),
        "M2": ("MLP with coordinates", "each candidate alone, with its position in the list's frame"),
        "M3": ("MLP with mean and maximum of the list", "each candidate beside a summary of its list"),
    },
)
_family(
    "graph",
    {
        "G1": ("graph network, edges in metres", "messages from candidates up to two tiles away"),
        "G1e": ("graph network, edges in metres, no coordinates", "nodes are not told where they lie"),
        "G3": ("graph network, all edges", "full attention: messages from every candidate"),
        "G2": ("graph network, edges by features", "messages from the most similar candidates"),
        "angle": ("graph network, edges by angle", "positions without their length, as CMPC's code has it"),
        "G1s": ("graph network, edges shuffled", "as many edges, between others, in training and test"),
        "G1t": ("graph network, edges shuffled at test only", "trained with edges in metres"),
        "G1x": ("graph network, coordinates permuted", "positions of the list exchanged, so edges too"),
    },
)
# published systems carry a letter of their name; changed ones, each beside the one that it is a change of, a shape
_family(
    "convolutional",
    {
        "cmpc_published": "CMPC as published",
        "cmpc_mended": "CMPC, faults mended",
        "cvm_net": "CVM-Net",
        "vigor_vgg16": "VIGOR, SAFA on VGG16",
        "sample4geo": "Sample4Geo",
        "vigor_resnet": "VIGOR, SAFA on a ResNet",
        "vigor_hybrid": "VIGOR, hybrid loss",
        "cmpc_gradient_penalty": "CMPC, gradient penalty",
        "cmpc_retrieves_trained": "CMPC, retrieval by what was trained",
        "cmpc_unaligned": "CMPC, no critic",
        "cmpc_average": "CMPC, average",
        "vigor_polar": "VIGOR, polar tiles",
        "vigor_polar_shared": "VIGOR, polar tiles, one branch",
        "vigor_unknown_heading": "VIGOR, heading unknown",
        "vigor_infonce": "VIGOR, InfoNCE",
        "cmpc": ("CMPC as published", "the published network, which is not given the cosine"),
        "cmpc_metres": ("CMPC, edges in metres", "its messages from the nearest on the map"),
        "cmpc_shortcut": ("CMPC, edges in metres and the cosine", "the search's score added to each node's own"),
        "vigor_unmined": "VIGOR, random pairs",
    },
    "CMNV4RH",
)
_family(
    "attention",
    {
        "transgeo_zoom": "TransGeo, both stages",
        "transgeo": "TransGeo",
        "saig_d_smd": "SAIG-D + SMD",
        "l2ltr": "L2LTR",
        "saig_adam": "SAIG-S, AdamW without ASAM",
        "saig_sam": "SAIG-S, SAM",
        "saig_fast": "SAIG-S, rate 0.003",
        "saig_sgd": "SAIG-S, SGD at AdamW's rate",
        "saig_sgd_fast": "SAIG-S, SGD at rate 0.02",
        "saig_sgd_plain": "SAIG-S, SGD at rate 0.02, no ASAM",
        "saig_slow": "SAIG-S, rate 0.0003",
        "saig_s_smd": "SAIG-S + SMD",
        "saig_unknown_heading": "SAIG-S, heading unknown",
        "saig_average": "SAIG-S, average",
        "saig_gem": "SAIG-S, GeM",
        "saig_safa": "SAIG-S, SAFA",
        "saig_shared": "SAIG-S, one branch",
        "saig_triplet": "SAIG-S, soft-margin triplet",
        "saig_semi_hard": "SAIG-S, near negatives, rate 0.0003",
        "saig_infonce": "SAIG-S, symmetric InfoNCE",
        "saig_semi_positive": "SAIG-S, semi-positives",
        "saig_mined": "SAIG-S, mined pairs",
    },
    "ZTDL       SU",
)
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
#: What an alignment is joined with: words, the family without an alignment, and its line.
_NETWORKS: dict[str, tuple[str, str, Any]] = {
    "shared": ("shared network", "vector", "-"),
    "two_branches": ("two branches", "vector", "--"),
    "triplet": ("triplet loss, shared network", "vector", "-."),
    "dense": ("dense feature maps", "dense", ":"),
    "dense_sentinel": ("dense feature maps of real tiles", "dense", (0, (1, 3))),
}
#: Alignments, with family and corners of their marks.
_ALIGNMENTS = {
    "wasserstein": ("Wasserstein critic", "critic", 4),
    "wasserstein_20_steps": ("Wasserstein critic, 20 steps", "critic", 7),
    "class_adversary": ("class adversary", "alignment", 3),
    "sinkhorn": ("Sinkhorn divergence", "alignment", 5),
}
_WEIGHTS = {"0.1": (0, 40), "1": (1, 10), "10": (0, 10)}  # whether the mark is a star, and turned


def _alignments() -> None:
    """The line says which network, the colour which family, the mark alignment and weight; no two marks are alike."""
    for turn, (network, (words, family, line)) in enumerate(_NETWORKS.items()):
        style = {"linestyle": line, "color": FAMILIES[family], "marker": (9, 1, 3 * turn)}
        METHOD_STYLES[f"{network}_0"] = Method(f"{words}, no alignment", style)
        for (name, (aligned, of, corners)), (weight, (star, angle)) in product(_ALIGNMENTS.items(), _WEIGHTS.items()):
            style = {"linestyle": line, "color": FAMILIES[of], "marker": (corners, star, angle + 3 * turn)}
            METHOD_STYLES[f"{network}_{name}_{weight}"] = Method(f"{words}, {aligned} of weight {weight}", style)


_alignments()
#: Methods of a comparison in the order of every table and figure, under what they have in common.
REFINER_GROUPS = {
    "training-free, from embeddings": (
        *("coarse", "whitened", "query_expansion", "k_reciprocal", "super_global", "diffusion", "graph_reranking"),
    ),
    "training-free, from the map": ("geographic_vote", "matched_filter", "interpolated_map"),
    "learned, without edges": ("M1", "M2", "M3", "G0"),
    "learned, with edges": ("G1", "G1e", "G3", "G2", "angle"),
    "controls of the edges": ("G1s", "G1t", "G1x"),
    "as published, and mended": ("cmpc", "cmpc_metres", "cmpc_shortcut"),
    "from pixels": ("correlation", "surface"),
}
ALIGNMENT_GROUPS = {
    words: (f"{network}_0", *(f"{network}_{name}_{weight}" for name, weight in product(_ALIGNMENTS, _WEIGHTS)))
    for network, (words, *_) in _NETWORKS.items()
}
QUESTION_GROUPS = {
    "the recipe": ("infonce",),
    "positives and negatives": ("neighbours_as_negatives", "semi_positive"),
    "network": ("two_branches",),
    "batches and data": ("large_batches", "three_polarisations", "quarter_of_the_ground", "quarter_with_wasserstein"),
}
SYSTEM_GROUPS = {
    "our vectors": ("infonce", "panorama", "panorama_polar"),
    "published vectors, convolutional": (
        *("cmpc_published", "cmpc_mended", "cvm_net", "vigor_vgg16", "vigor_resnet", "vigor_hybrid", "vigor_polar"),
        *("vigor_polar_shared", "vigor_unknown_heading", "sample4geo"),
    ),
    "published vectors, by attention": (
        *("transgeo", "transgeo_zoom", "l2ltr", "saig_s_smd", "saig_d_smd", "saig_unknown_heading"),
    ),
    "dense matchers": ("dense", "fft_unet", "maru_net", "osmnet"),
    "training-free": ("hog", "cfog"),
}
ABLATION_GROUPS = {
    "as it is": ("saig_s_smd", "vigor_vgg16", "cmpc_published"),
    "network": ("saig_average", "saig_gem", "saig_safa", "saig_shared", "cmpc_average"),
    "loss": ("saig_triplet", "saig_infonce", "saig_semi_positive", "vigor_infonce"),
    "rate": ("saig_slow", "saig_fast"),
    "loss, at the lower rate": ("saig_semi_hard",),
    "critic and retrieval": ("cmpc_unaligned", "cmpc_gradient_penalty", "cmpc_retrieves_trained", "cmpc_mended"),
    "pairs": ("saig_mined", "vigor_unmined"),
    "optimiser": ("saig_adam", "saig_sam"),
    "SGD, step by step": ("saig_sgd", "saig_sgd_fast", "saig_sgd_plain"),
}
MODALITY_GROUPS = {
    "the recipe": ("infonce",),
    "augmentations": ("infonce_grey", "infonce_one_channel", "infonce_channel_exchange", "infonce_intermediate"),
    "a module": ("infonce_x_modality",),
}
_GROUPINGS = (REFINER_GROUPS, ALIGNMENT_GROUPS, QUESTION_GROUPS, SYSTEM_GROUPS, ABLATION_GROUPS, MODALITY_GROUPS)

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
    if name in METHOD_STYLES:
        return METHOD_STYLES[name].line
    first, _, then = name.partition(" + ")
    if then:
        return method_line(first) | {"linestyle": _WHITENED, "markerfacecolor": "white"}
    return {"color": PALE, "linestyle": "-", "marker": (*_SHAPES[sum(map(ord, name)) % len(_SHAPES)], 0)}


def grouped(names: Collection[str]) -> dict[str, list[str]]:
    """Methods in the order of every table and figure, by the words of their group; without a group for all, as given.

    Examples
    --------
    >>> grouped(["saig_d_smd", "sample4geo"])
    {'published vectors, convolutional': ['sample4geo'], 'published vectors, by attention': ['saig_d_smd']}
    """
    for groups in _GROUPINGS:
        found = {group: [name for name in members if name in names] for group, members in groups.items()}
        if sum(map(len, found.values())) == len(set(names)):
            return {group: members for group, members in found.items() if members}
    return {"": list(dict.fromkeys(names))}


def in_order(names: Iterable[str]) -> list[str]:
    """Methods in the order of every table and figure, each once."""
    return [name for members in grouped(list(names)).values() for name in members]


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
