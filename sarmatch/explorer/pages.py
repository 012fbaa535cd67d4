"""The explorer's pictures as HTML: JPEG inside, every name escaped, nothing for a browser to run."""

import html

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from sarmatch.explorer.features import thumbnail
from sarmatch.explorer.finders import HeatMap
from sarmatch.explorer.state import Answer
from sarmatch.figures.maps import overview
from sarmatch.figures.style import PLACES, RED
from sarmatch.scenes import Scene

MAP_SIDE, QUERY_SIDE, CARD_SIDE = 460, 260, 84  # pixels on the screen
BORDERS = {"-": "solid", ":": "dotted", "--": "dashed", "-.": "double"}
SIGNS = {"true": "✓", "overlaps": "≈", "wrong": "✗", "candidate": "?"}  # colour is never the only cue
NUMBERED = 10  # results that carry their rank on the map


def card(image: NDArray, caption: str, place: str | None = None, side: int = CARD_SIDE) -> str:
    """A picture with words under it, framed by what its place is: a key of `sarmatch.figures.PLACES`."""
    frame, sign = "border:4px solid transparent", ""
    if place is not None:
        style = PLACES[place]
        frame = f"border:4px {BORDERS[style['linestyle']]} {style['color']}"
        sign = f'<b style="color:{style["color"]}">{SIGNS[place]}</b> '
    words = html.escape(caption)
    return (
        f'<div style="text-align:center;line-height:1.2;font-size:12px"><img src="{thumbnail(image, side)}" '
        f'alt="{words}" width="{side}" height="{side}" style="{frame}"><br>{sign}{words}</div>'
    )


def results(answer: Answer) -> list[str]:
    """What is said under each result: rank, score, and metres from the true place where it is known."""
    scores = answer.candidates.scores[0]
    metres = [""] * len(scores) if answer.errors is None else [f", {error:,.0f} m" for error in answer.errors]
    return [f"{i + 1}: {score:.3f}{far}" for i, (score, far) in enumerate(zip(scores, metres, strict=True))]


def headline(answer: Answer, method: str) -> str:
    """The answer in a sentence."""
    first = answer.places[0] if answer.places else "candidate"
    where = "" if answer.errors is None else f", {answer.errors[0]:,.0f} m from the true place"
    colour = PLACES[first]["color"]
    return (
        f"<b>{html.escape(answer.source.label)}</b>: {html.escape(method)} answers in {1000 * answer.seconds:,.0f} ms; "
        f'its first place is <b style="color:{colour}">{SIGNS[first]} {PLACES[first]["sign"]}</b>{where}.'
    )


def message(text: str, colour: str = RED) -> str:
    """A sentence on what is wrong, or what goes on."""
    return f'<span style="color:{colour}">{html.escape(text)}</span>'


def map_background(scene: Scene, area: str) -> NDArray[np.float32]:
    """The map of an area `(h, w, 3)`, white where it has no data."""
    image = np.moveaxis(overview(scene.area(area).map, MAP_SIDE), 0, -1)
    return np.nan_to_num(np.clip(image, 0, 1), nan=1.0)


def warmed(background: NDArray, extent: tuple[float, float, float, float], heat: HeatMap) -> NDArray[np.float32]:
    """A map with scores laid over it: nothing below their median, full colour at the highest.

    Parameters
    ----------
    background
        `(h, w, 3)`, 0 to 1.
    extent
        Its left, right, bottom and top in local metres.
    heat
        Scores; where several fall on a pixel the highest counts, so that no peak is lost.
    """
    scores = np.where(np.isfinite(heat.scores), heat.scores, -np.inf)
    if not np.isfinite(scores).any():
        return background
    (height, width), (left, right, bottom, top) = background.shape[:2], extent
    step = (right - left) / width / heat.metres
    pooled = maximum_filter(scores, max(1, round(step)))
    x = left + (np.arange(width) + 0.5) * (right - left) / width
    y = top - (np.arange(height) + 0.5) * (top - bottom) / height
    col = np.round((x - heat.corner[0]) / heat.metres).astype(int)
    row = np.round((heat.corner[1] - y) / heat.metres).astype(int)
    inside = ((row >= 0) & (row < scores.shape[0]))[:, None] & ((col >= 0) & (col < scores.shape[1]))
    at = pooled[row.clip(0, scores.shape[0] - 1)[:, None], col.clip(0, scores.shape[1] - 1)]
    low, high = np.median(scores[np.isfinite(scores)]), scores.max()
    level = np.where(inside & np.isfinite(at), (at - low) / max(high - low, 1e-6), 0).clip(0, 1)
    alpha = 0.85 * level[..., None]
    return ((1 - alpha) * background + alpha * colormaps["magma"](level)[..., :3]).astype(np.float32)


def map_picture(scene: Scene, answer: Answer, background: NDArray) -> tuple[NDArray, tuple[float, float, float, float]]:
    """The map of an area with its scores, and its left, right, bottom and top in local metres."""
    row0, col0, row1, col1 = scene.area(answer.area).map.bounds
    (left, top), (right, bottom) = scene.metres(answer.area, np.array([row0, row1]), np.array([col0, col1]))
    extent = (left, right, bottom, top)
    return background if answer.heat is None else warmed(background, extent, answer.heat), extent


def map_page(scene: Scene, answer: Answer, background: NDArray) -> str:
    """The map of an area with its scores, where the query lies (a ring) and the places found (their signs)."""
    picture, (left, right, bottom, top) = map_picture(scene, answer, background)
    height = round(MAP_SIDE * (top - bottom) / (right - left))
    address = thumbnail(picture, (MAP_SIDE, height))

    def pixel(xy: NDArray) -> tuple[float, float]:
        return (xy[0] - left) / (right - left) * MAP_SIDE, (top - xy[1]) / (top - bottom) * height

    marks = []
    found = answer.candidates
    for i in range(found.scores.shape[1])[::-1]:  # the best on top
        if found.areas[found.area[0, i]] == answer.area:
            text = f"{i + 1}{SIGNS[answer.places[i]]}" if i < NUMBERED else SIGNS[answer.places[i]]
            marks.append(_mark(pixel(found.xy[0, i]), text, PLACES[answer.places[i]]["color"], 13 if i else 18))
    if answer.true is not None:
        x, y = pixel(answer.true)
        ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="12" fill="none"'
        lines = (("white", 5), (PLACES["true"]["color"], 3))
        marks += [f'{ring} stroke="{colour}" stroke-width="{width}"/>' for colour, width in lines]
    words = html.escape(f"Map of {answer.area} ({scene.label}); ring: where the query lies; numbers: places found")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{MAP_SIDE}" viewBox="0 0 {MAP_SIDE} {height}" '
        f'style="max-width:100%;height:auto" role="img" aria-label="{words}">'
        f'<image href="{address}" width="{MAP_SIDE}" height="{height}"/>{"".join(marks)}</svg>'
        f'<div style="font-size:12px;max-width:{MAP_SIDE}px">{words}. Bright: high scores of the search.</div>'
    )


def _mark(at: tuple[float, float], text: str, colour: str, size: int) -> str:
    return (
        f'<text x="{at[0]:.1f}" y="{at[1] + size / 3:.1f}" font-size="{size}" font-weight="bold" text-anchor="middle" '
        f'fill="{colour}" stroke="white" stroke-width="3" paint-order="stroke">{text}</text>'
    )


HELP = """<b>Explore a run.</b> Choose a query by its button; its answer comes at once. <b>Search with</b> and
<b>then</b> choose the method and the refiner that follows it. The sliders disturb the query: more speckle, a window
beside its place, a turn. Frames and signs say what a place is: ✓ solid green, the true place; ≈ dotted green, overlaps
it; ✗ dashed red, wrong; ? nobody knows. Metres are those from the true place. <b>Ask with it</b> under a result
searches for the SAR image of that place. <b>Failures only</b> lists the queries that this method gets wrong. An image
that you upload must be SAR, north up, with the pixel size of this map; it is read in memory and kept nowhere."""
