"""What a located strip is handed on as: GeoJSON, a table, a GeoTIFF on the map, tie points, the arrays of a picture.

Each is written under a temporary name and renamed, so that an interruption leaves the old file or the new one.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.features import shapes
from rasterio.warp import Resampling, reproject

from sarmatch.atomic_io import write
from sarmatch.datasets.rasters import write_geotiff
from sarmatch.localization.location import Location, frame_of
from sarmatch.scenes import Scene

AREA = 0.9  # of the probability, in the search area
PARTS = 60  # polygons of a search area; of more, cells are put together
DIGITS = 7  # of a longitude or latitude: a centimetre
THUMBNAIL = 900  # pixels along the longer side of the map in a picture

Feature = dict[str, Any]


def geojson(found: Location) -> dict[str, Any]:
    """A located strip as a feature collection (RFC 7946): longitude and latitude in WGS 84, outer rings anticlockwise.

    Features carry their `role`: `fix` (with the probabilities), `footprint`, `track`, `window`, `search area`,
    `runner-up`, `tie point`. Of a strip that is not on this map there is the `fix` alone, without a geometry.
    """
    fix = found.fix
    about = {
        "on_map": found.on_map,
        "probability": round(found.probability, 4),
        "within_m": round(fix.near_m, 1),
        "not_on_this_map": round(found.absent, 4),
        "calibrated": found.calibrated,
        "heading_deg": round(fix.pose.heading, 2),
        "scale": round(fix.pose.scale, 4),
        "method": found.method,
        "strip": found.strip.name,
        "map": found.scene.name,
        "warnings": list(found.warnings),
    }
    if not found.on_map:
        return {"type": "FeatureCollection", "features": [_feature("fix", None, **about)]}
    features = [_feature("fix", _point(found, fix.place), **about)]
    features.append(_feature("footprint", _polygon(found, found.footprint)))
    line = {"type": "LineString", "coordinates": _listed(found.to_lonlat(fix.track))}
    if len(fix.track) > 1:
        features.append(_feature("track", line))
    features += _window_features(found)
    features.append(_feature("search area", search_area(found), probability=AREA))
    for x, y, mass in fix.runners_up:
        features.append(_feature("runner-up", _point(found, np.array([x, y])), probability=round(float(mass), 4)))
    for xy, score, agrees in zip(fix.ties.xy, fix.ties.score, fix.ties.agrees, strict=True):
        features.append(
            _feature("tie point", _point(found, xy), correlation=round(float(score), 3), agrees=bool(agrees))
        )
    return {"type": "FeatureCollection", "features": features}


def _window_features(found: Location) -> Iterator[Feature]:
    """The square of each window."""
    side = found.window
    for (row, col), agrees in zip(found.fix.centre, found.fix.agrees, strict=True):
        ring = found.corners(row - side / 2, col - side / 2, side, side)
        yield _feature("window", _polygon(found, ring), agrees=bool(agrees))


def search_area(found: Location, mass: float = AREA) -> dict[str, Any]:
    """The smallest area that holds `mass` of the probability, as a MultiPolygon of longitudes and latitudes."""
    inside: NDArray = found.fix.posterior.area(mass)
    size = 1
    while True:
        parts = [p["coordinates"] for p, _ in shapes(inside.astype(np.uint8), inside, connectivity=8)]
        if len(parts) <= PARTS:
            break
        high, wide = (n + n % 2 for n in inside.shape)
        inside = np.pad(inside, [(0, high - inside.shape[0]), (0, wide - inside.shape[1])])
        inside, size = inside.reshape(high // 2, 2, wide // 2, 2).max((1, 3)), 2 * size
    polygons = []
    for rings in parts:
        placed = []
        for i, ring in enumerate(rings):
            cells = np.array(ring)[:, ::-1] * size - 0.5  # corners of cells, whose middles count as whole numbers
            placed.append(_ring(found.to_lonlat(found.fix.metres_of(cells[:-1])), anticlockwise=i == 0))
        polygons.append(placed)
    return {"type": "MultiPolygon", "coordinates": polygons}


def _feature(role: str, geometry: dict[str, Any] | None, **about: Any) -> Feature:
    return {"type": "Feature", "geometry": geometry, "properties": {"role": role, **about}}


def _point(found: Location, xy: NDArray) -> dict[str, Any]:
    return {"type": "Point", "coordinates": _listed(found.to_lonlat(xy))[0]}


def _polygon(found: Location, ring: NDArray) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [_ring(found.to_lonlat(ring), anticlockwise=True)]}


def _ring(points: NDArray, anticlockwise: bool) -> list[list[float]]:
    """A closed ring wound as the right-hand rule wants it."""
    x, y = points.T
    turned = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) > 0
    points = points if turned == anticlockwise else points[::-1]
    return _listed(np.vstack([points, points[:1]]))


def _listed(points: NDArray) -> list[list[float]]:
    return np.round(points, DIGITS).tolist()


def table(found: Location) -> pd.DataFrame:
    """A row per thing of a located strip: the fix, its windows, runners-up and tie points.

    Returns
    -------
    DataFrame with `role`, `strip_row`, `strip_col` (pixels of the strip as it was read), `x`, `y` (the map's reference
    system), `longitude`, `latitude`, and `probability` or `correlation` and `agrees` where they are known.
    """
    fix, rows = found.fix, []
    middle = fix.centre[len(fix.centre) // 2]
    rows.append({"role": "fix", "at": middle, "xy": fix.place, "probability": found.probability})
    rows += [
        {"role": "window", "at": at, "xy": xy, "agrees": a}
        for at, xy, a in zip(fix.centre, fix.track, fix.agrees, strict=True)
    ]
    rows += [{"role": "runner-up", "xy": r[:2], "probability": r[2]} for r in fix.runners_up]
    rows += [
        {"role": "tie point", "at": at, "xy": xy, "correlation": s, "agrees": a}
        for at, xy, s, a in zip(*fix.ties, strict=True)
    ]
    if not found.on_map:
        rows = [{"role": "not on this map", "probability": found.absent}]
    made = pd.DataFrame(rows)
    for column in ("at", "xy"):
        made[column] = [v if isinstance(v, np.ndarray) else np.full(2, np.nan) for v in made.get(column, [None])]
    xy = np.stack(list(made["xy"]))
    places = {"x": found.scene.to_crs(xy)[:, 0], "y": found.scene.to_crs(xy)[:, 1]}
    lonlat = np.full((len(made), 2), np.nan)
    known = np.isfinite(xy).all(1)
    if known.any():
        lonlat[known] = found.to_lonlat(xy[known])
    at = np.stack(list(made["at"]))
    made = made.drop(columns=["at", "xy"]).assign(strip_row=at[:, 0], strip_col=at[:, 1], **places)
    made = made.assign(longitude=lonlat[:, 0], latitude=lonlat[:, 1])
    first = ["role", "strip_row", "strip_col", "x", "y", "longitude", "latitude"]
    return made[first + [c for c in made if c not in first]]


def save(found: Location, path: Path) -> list[Path]:
    """Write a located strip: GeoJSON under the path itself, and beside it a table, the strip warped onto the map, and
    its tie points as QGIS' georeferencer loads them.

    Returns
    -------
    The files, `NAME.geojson`, `NAME.csv`, `NAME.tif` and `NAME.points`; the last two only where the strip lies on the
    map.
    """
    text = json.dumps(geojson(found), allow_nan=False, indent=1)
    write(path, partial(Path.write_text, data=text, encoding="utf-8"))
    listed = path.with_suffix(".csv")
    write(listed, partial(table(found).to_csv, index=False))
    if not found.on_map:
        return [path, listed]
    picture, ties = path.with_suffix(".tif"), path.with_suffix(".points")
    write(picture, partial(_save_warped, found))
    write(ties, partial(Path.write_text, data=points(found), encoding="utf-8"))
    return [path, listed, picture, ties]


def points(found: Location) -> str:
    """Tie points as QGIS' georeferencer keeps them: the map's reference system, and pixels of the strip's own file.

    Rows count downwards from 0 as negative numbers, as QGIS has them of an image without a place of its own. A point
    that does not agree with the others is not enabled.
    """
    ties = found.fix.ties
    xy = found.scene.to_crs(ties.xy)
    source = ties.at[:, ::-1] * (found.zoom, -found.zoom)
    left = np.stack(~found.affine @ tuple(xy.T), 1) * (found.zoom, -found.zoom) - source
    made = pd.DataFrame(np.hstack([xy, source]), columns=["mapX", "mapY", "sourceX", "sourceY"])
    made = made.assign(enable=ties.agrees.astype(int), dX=left[:, 0], dY=left[:, 1], residual=np.hypot(*left.T))
    return f"#CRS: {found.scene.crs}\n{made.to_csv(index=False, float_format='%.3f', lineterminator=chr(10))}"


def warped(found: Location) -> tuple[NDArray[np.float32], Affine]:
    """The strip on the map's grid `(C, H, W)`, not a number beyond it, and the grid's place in the reference system."""
    frame = frame_of(found.scene)
    step, west, north = frame.a * found.scene.pixel_size, frame.c, frame.f
    xs, ys = found.scene.to_crs(found.footprint).T
    col0, row0 = np.floor((xs.min() - west) / step), np.floor((north - ys.max()) / step)
    col1, row1 = np.ceil((xs.max() - west) / step), np.ceil((north - ys.min()) / step)
    place = Affine(step, 0, west + col0 * step, 0, -step, north - row0 * step)
    top, left, bottom, right = found.strip.bounds
    pixels = found.strip.read(top, left, bottom - top, right - left, fill=np.nan)
    out = np.full((len(pixels), int(row1 - row0), int(col1 - col0)), np.nan, np.float32)
    crs = found.scene.crs
    reproject(
        pixels,
        out,
        src_transform=found.affine @ Affine.translation(left, top),
        dst_transform=place,
        src_crs=crs,
        dst_crs=crs,
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )
    return out, place


def _save_warped(found: Location, path: Path) -> None:
    pixels, place = warped(found)
    about = {"crs": found.scene.crs, "transform": place, "nodata": np.nan, "compress": "deflate", "tiled": True}
    tags = {
        "STRIP": found.strip.name,
        "SAR_SCALE": found.strip.scale,
        "STRIP_TO_MAP": json.dumps(list(found.affine)[:6]),
    }
    write_geotiff(path, pixels, tags, **about)


def thumbnail(scene: Scene, area: str, longest: int = THUMBNAIL) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """The map of an area at few pixels, read in stripes: `(H, W, 3)` and its extent, `(x0, x1, y0, y1)` in metres."""
    chart = scene.area(area).map
    top, left, bottom, right = chart.bounds
    step = max(1, -(-max(bottom - top, right - left) // longest))
    rows = []
    for row in range(top, bottom - step + 1, step):
        line = chart.read(row, left, step, (right - left) // step * step, fill=np.nan)
        known = np.isfinite(line)
        total = [np.where(known, v, 0).reshape(3, step, -1, step).sum((1, 3)) for v in (line, 1.0)]
        rows.append(total[0] / np.maximum(total[1], 1))
    image = np.stack(rows, 1).transpose(1, 2, 0).clip(0, 1)
    last = np.array(image.shape[:2]) * step + (top, left)
    ends = scene.metres(area, np.array([top, last[0]]), np.array([left, last[1]]))
    return image.astype(np.float32), (ends[0, 0], ends[1, 0], ends[1, 1], ends[0, 1])


def picture(found: Location) -> dict[str, Any]:
    """What `sarmatch.figures.located_strip` draws of a located strip."""
    fix = found.fix
    image, extent = thumbnail(found.scene, found.scene.areas[0].name)
    corners = fix.metres_of(np.array([[-0.5, -0.5], np.array(fix.posterior.log_prob.shape) - 0.5]))
    title = str(found) if found.on_map else f"{found.strip.name}: {found}"
    drawn = {
        "chart": image,
        "extent": extent,
        "log_prob": fix.posterior.log_prob,
        "posterior_extent": (corners[0, 0], corners[1, 0], corners[1, 1], corners[0, 1]),
        "title": title,
        "data": found.scene.label if found.scene.simulated else "",
    }
    if not found.on_map:
        return drawn
    pixels, place = warped(found)
    frame = frame_of(found.scene)
    row, col = round((frame.f - place.f) / place.a), round((place.c - frame.c) / place.a)
    height, width = pixels.shape[1:]
    under = found.scene.areas[0].map.read(row, col, height, width, fill=np.nan)
    return drawn | {
        "footprint": found.footprint,
        "track": fix.track,
        "runners_up": fix.runners_up,
        "strip": pixels,
        "scale": found.strip.scale,
        "under": np.nan_to_num(under.transpose(1, 2, 0), nan=1.0).clip(0, 1),
        "pixel_size": found.scene.pixel_size,
    }
