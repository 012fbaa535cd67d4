"""A map of features on which one points at a place and sees its two patches."""

import base64
import html
import io
from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
from PIL import Image

WIDTH, HEIGHT, THUMB = 620, 460, 150  # pixels of the map and of a patch beside it
STYLE = """<style>
.sarmatch-pair .shown { display: none } .sarmatch-pair:hover .shown { display: inline }
.sarmatch-pair:hover circle { stroke: black; stroke-width: 2 }
</style>"""


def thumbnail(image: np.ndarray, side: int | tuple[int, int] = 64) -> str:
    """A display image, `(H, W)` or `(H, W, 3)` from 0 to 1, as an address that carries a JPEG of `side` (width and
    height where they differ)."""
    size = side if isinstance(side, tuple) else (side, side)
    picture = Image.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8)).resize(size)
    file = io.BytesIO()
    picture.save(file, format="jpeg", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def hover_map(
    points: np.ndarray,
    sar: Sequence[np.ndarray],
    optical: Sequence[np.ndarray],
    colours: Sequence[str],
    captions: Sequence[str],
) -> str:
    """A drawing in SVG: pointing at either end of a pair joins the two and shows both patches beside the map.

    Parameters
    ----------
    points
        `(2 N, 2)`: where the `N` SAR patches lie, then the `N` optical ones of the same places.
    sar, optical
        `N` display images each.
    colours, captions
        Of each pair.

    Returns
    -------
    HTML without any script.
    """
    count = len(points) // 2
    sizes = {"points": len(points) / 2, "sar": len(sar), "optical": len(optical), "colours": len(colours)}
    if set(sizes.values()) != {len(captions)}:
        raise ValueError(
            f"every pair needs two points, two images, a colour and a caption ({len(captions)}), got {sizes}"
        )
    low, high = points.min(0), points.max(0)
    at = 10 + (points - low) / np.maximum(high - low, 1e-9) * (np.array([WIDTH, HEIGHT]) - 20)
    at[:, 1] = HEIGHT - at[:, 1]
    pairs = []
    for i in range(count):
        (x1, y1), (x2, y2) = at[i], at[count + i]
        colour = html.escape(colours[i])
        images = "".join(
            f'<image href="{thumbnail(image)}" x="{WIDTH + 15}" y="{y}" width="{THUMB}" height="{THUMB}"/>'
            for image, y in ((sar[i], 5), (optical[i], THUMB + 12))
        )
        pairs.append(
            f'<g class="sarmatch-pair"><circle cx="{x1:.1f}" cy="{y1:.1f}" r="5" fill="{colour}"/>'
            f'<circle cx="{x2:.1f}" cy="{y2:.1f}" r="5" fill="white" stroke="{colour}" stroke-width="2"/>'
            f'<g class="shown" pointer-events="none"><line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="black"/>{images}<text x="{WIDTH + 15}" y="{2 * THUMB + 34}" font-size="13">'
            f"{html.escape(captions[i])}</text></g></g>"
        )
    size = f'width="{WIDTH + THUMB + 40}" height="{HEIGHT}"'
    return f'{STYLE}<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(pairs)}</svg>'


def explore_features(
    points: np.ndarray,
    sar: Sequence[np.ndarray],
    optical: Sequence[np.ndarray],
    colours: Sequence[str],
    captions: Sequence[str],
) -> widgets.HTML:
    """`hover_map` as a widget: full dots are SAR, rings optical; point at one."""
    return widgets.HTML(hover_map(points, sar, optical, colours, captions))
