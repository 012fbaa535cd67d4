"""Published systems as pictures of their data flow, and what a transformer looks at."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import NDArray

from sarmatch.figures.style import BLACK, GREY, SLATES, bare, in_order, method_words, new_figure, show


class Flow(NamedTuple):
    """What happens to a pair of images in a system: the boxes of its picture."""

    trunk: str
    branches: int  # 1: the same weights for both modalities
    aggregator: str
    vector: str
    loss: str
    pairs: str  # which pairs meet in a batch, and how weights are moved


#: Sizes as published.
FLOWS: dict[str, Flow] = {
    "cmpc_published": Flow("ResNet-50, last stride 1", 1, "maximum", "2048", "batch-hard triplet + critic", "SGD"),
    "vigor_vgg16": Flow("VGG16", 2, "SAFA, 8 weightings", "4096", "soft-margin triplet", "mined; Adam"),
    "vigor_hybrid": Flow("VGG16", 2, "SAFA, 8 weightings", "4096", "triplet + IoU + offset", "mined, near; Adam"),
    "transgeo": Flow("DeiT-S", 2, "class tokens", "1000", "soft-margin triplet", "mined; ASAM"),
    "saig_s_smd": Flow("stem + 11 x attention", 2, "SMD, 8 mixtures", "3072", "joint InfoNCE", "random; ASAM"),
    "saig_d_smd": Flow("stem + 22 x attention", 2, "SMD, 8 mixtures", "3072", "joint InfoNCE", "random; ASAM"),
    "sample4geo": Flow("ConvNeXt-B", 1, "mean", "1024", "symmetric InfoNCE", "near, then alike; AdamW"),
    "l2ltr": Flow("ResNet stem + ViT-B", 2, "class token", "768", "soft-margin triplet", "random; AdamW"),
    "cvm_net": Flow("VGG16", 2, "NetVLAD, 64 centres", "4096", "soft-margin triplet", "random; Adam"),
    "fft_unet": Flow("U-Net", 1, "none: 4 maps", "per cell", "cross-entropy of shifts", "windows; AdamW"),
    "osmnet": Flow("residual, full size", 2, "none: 9 maps", "per cell", "circle loss of shifts", "windows; AdamW"),
}
#: Left edge and width of each column of boxes.
COLUMNS = {
    "trunk": (2.4, 2.2),
    "aggregator": (5.0, 1.9),
    "vector": (7.3, 0.9),
    "loss": (8.6, 2.5),
    "pairs": (11.5, 2.3),
}


def systems_flow(names: Sequence[str] = tuple(in_order(FLOWS))) -> Figure:
    """The data flow of systems, a row each: trunk, what makes a vector of its map, loss, and how pairs are drawn.

    Two boxes above each other are two branches without a common weight, one box is shared by both modalities.

    Parameters
    ----------
    names
        Keys of `FLOWS`.
    """
    unknown = sorted(set(names) - FLOWS.keys())
    if unknown:
        raise ValueError(f"no system is called {unknown}; there are {list(FLOWS)}")
    figure, axes = new_figure(10.4, 0.66 * len(names) + 0.5)
    ax = axes[0, 0]
    heads = {
        "trunk": "trunk",
        "aggregator": "aggregator",
        "vector": "numbers",
        "loss": "loss",
        "pairs": "pairs; optimiser",
    }
    for column, words in heads.items():
        left, width = COLUMNS[column]
        ax.text(left + width / 2, 0.75, words, ha="center", va="center", color=GREY, fontweight="bold")
    for row, name in enumerate(names):
        _draw_flow(ax, -row, name, FLOWS[name])
    ax.set(xlim=(-0.3, 13.9), ylim=(-len(names) + 0.45, 1.0))
    ax.set_axis_off()
    twice = sum(FLOWS[name].branches == 2 for name in names)
    ax.set_title(
        f"{twice} of {len(names)} published systems have two branches (two boxes), the others share one (one box)"
    )
    # labels of axes that are switched off are seen by nobody, and said to who cannot see the picture
    rows = (f"{method_words(name)} ({', '.join(map(str, FLOWS[name]))})" for name in names)
    ax.set(xlabel="trunk, branches, aggregator, numbers, loss, pairs and optimiser", ylabel="; ".join(rows))
    return figure


def _draw_flow(ax: Axes, y: float, name: str, flow: Flow) -> None:
    ax.text(2.2, y, method_words(name), ha="right", va="center", fontsize=8.6)
    for column, (left, width) in COLUMNS.items():
        split = column in ("trunk", "aggregator") and flow.branches == 2
        edge = SLATES[{"vector": 1, "pairs": 2}.get(column, 0)]
        for at, height in ((y + 0.22, 0.24), (y - 0.22, 0.24)) if split else ((y, 0.5),):
            box = FancyBboxPatch(
                (left, at - height / 2), width, height, "round,pad=0.05", facecolor="white", edgecolor=edge, lw=1.4
            )
            ax.add_patch(box)
            ax.text(left + width / 2, at, getattr(flow, column), ha="center", va="center", fontsize=7.4)
        if column not in ("trunk", "pairs"):
            ax.annotate("", (left - 0.06, y), (left - 0.34, y), arrowprops={"arrowstyle": "-|>", "color": BLACK})


def attended(images: Sequence[NDArray], attention: Mapping[str, Sequence[NDArray]], keep: float, data: str) -> Figure:
    """Tiles, what systems attend to in them, and the patches that attend-and-zoom keeps of the first system.

    The title says how much of the attention those have, in the mean over images.

    Parameters
    ----------
    images
        Display images `(H, W, 3)`.
    attention
        By system, for each image a map `(h, w)`; from its least to its largest it goes from dark to bright.
    keep
        Fraction of patches that is kept: those with the largest attention.
    data
        `simulated` or `real`.
    """
    figure, axes = new_figure(2.1 * len(images) + 0.6, 2.15 * (1 + len(attention)), 1 + len(attention), len(images))
    for column, image in enumerate(images):
        show(axes[0, column], image)
        if column:
            bare(axes[0, column])
        for row, (name, maps) in enumerate(attention.items(), start=1):
            ax, of_image = axes[row, column], np.asarray(maps[column])
            show(ax, image)
            height, width = image.shape[:2]
            ax.imshow(of_image, cmap="magma", alpha=0.6, extent=(0, width, height, 0))
            bare(ax)
            if column == 0:
                ax.set_title(name, loc="left")
            if row == 1:
                _frame_kept(ax, of_image, keep, (height, width))
    axes[0, 0].set_title("tile", loc="left")
    patches = np.sort([np.ravel(of_image) for of_image in next(iter(attention.values()))])[:, ::-1]
    kept, count = int(keep * patches.shape[1]), patches.shape[1]
    part = np.mean(patches[:, :kept].sum(1) / patches.sum(1))
    figure.suptitle(
        f"The {kept / count:.1%} of patches that {next(iter(attention))} keeps (framed) have {part:.1%} of its "
        f"attention ({data})"
    )
    return figure


def _frame_kept(ax: Axes, attention: NDArray, keep: float, sides: tuple[int, int]) -> None:
    rows, columns = attention.shape
    high, wide = sides[0] / rows, sides[1] / columns
    for cell in np.argsort(-attention.ravel(), kind="stable")[: int(keep * attention.size)]:
        row, column = divmod(int(cell), columns)
        corner = (column * wide, row * high)
        ax.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="white", linewidth=0.8))
