"""What dense search finds, beside what needs no training: the table of a run, on the tasks that its scene allows."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sarmatch.atomic_io import write
from sarmatch.encoders import Encoder, create_encoder
from sarmatch.evaluation import (
    bootstrap_difference,
    candidate_report,
    list_ranks,
    localization_errors,
    registered_errors,
    tiles_of_places,
)
from sarmatch.experiments.provenance import made_with
from sarmatch.patches import PatchImages, positions
from sarmatch.patches.images import raster_of
from sarmatch.scenes import Scene
from sarmatch.search.turned import EVEN, Pose, turned
from sarmatch.training.runs import TOP, Run, blocks, dense_search, intervals, map_of, task

QUARTERS = ("least", "less", "more", "most")  # contrast of a query
LEAST = 8  # pixels of a query, as for `Config.patch_size`
NEAR_TILES = 0.6  # tile widths within which an answer shows its strip's displacement at first


class Task(NamedTuple):
    """Queries and what was found for them."""

    asked: pd.DataFrame
    tiles: pd.DataFrame
    images: Tensor


def table_of(
    run: Run,
    folder: Path,
    scenes: Mapping[str, Scene] | None = None,
    sizes: Sequence[int | None] = (None,),
) -> pd.DataFrame:
    """Dense search by the encoder of a run, by CFOG on the same queries, and their paired difference; kept as CSV.

    Where the encoder has a coarse level, the search from coarse to fine has rows as well.

    Parameters
    ----------
    run
        Of dense search.
    folder
        Where `table.csv` and `differences.csv` are kept.
    scenes
        Where the queries are from, by name: unseen areas of other scenes as well; that of the run by default.
    sizes
        Sides of the queries in pixels, the side of a tile by default; smaller ones are the middle of the same queries.

    Returns
    -------
    DataFrame
        A row per scene, size, method and group of queries (`all`, and quarters by contrast): recall with its interval,
        metres with and without the displacement of the strips, and what a query takes.

    Raises
    ------
    ValueError
        For a run of another search, or a size that the middle of a query cannot have.
    """
    if run.config.search != "dense":
        raise ValueError(f"{run.path}: search is {run.config.search!r}, expected a run of 'dense'")
    baseline = create_encoder(
        run.config.baseline, run.config.image_size, run.config.sar_bands, **run.config.baseline_options
    )
    least = max(LEAST, *run.encoder.levels, *baseline.levels)  # a query holds a cell at least
    methods = [("dense", run.encoder, "dense"), (run.config.baseline, baseline, "dense")]
    if len(run.encoder.levels) > 1:
        methods.append(("coarse_to_fine", run.encoder, "coarse_to_fine"))
    rows, gaps = [], []
    for name, scene in (scenes or {run.config.scene: map_of(run.config)}).items():
        asked, tiles = task(run.config, scene, "cross_area", "arbitrary")
        images = torch.stack(list(PatchImages(scene, asked, None)))
        for size in sizes:
            given = Task(asked, tiles, middle_of(images, size, least))
            about = {"scene": Path(name).name, "data": scene.label, "size": given.images.shape[-1]}
            hits: dict[str, np.ndarray] = {}
            for method, encoder, search in methods:
                for row, hit in rows_of(encoder, scene, given, search):
                    rows.append({**about, "method": method, **row})
                    hits.setdefault(method, hit)
            turned = given._replace(images=given.images.rot90(2, (2, 3)))
            control = next(rows_of(run.encoder, scene, turned))[0]
            rows.append({**about, "method": "dense, turned by 180 degrees", **control})
            gap = bootstrap_difference(hits["dense"], hits[run.config.baseline], blocks(scene, asked))
            gaps.append({**about, "measure": "recall@1", **dict(zip(("difference", "low", "high"), gap, strict=True))})
    made = _kept(rows, folder)
    write(folder / "differences.csv", partial(pd.DataFrame(gaps).assign(**made_with()).to_csv, index=False))
    return made


def middle_of(images: Tensor, size: int | None, least: int = 1) -> Tensor:
    """The middle of images `(Q, C, S, S)`, `size` pixels wide; they themselves for None.

    Raises
    ------
    ValueError
        Where that is less than `least` or more than they have, or odd where theirs is even: there is no such middle.
    """
    side = images.shape[-1]
    if size is not None and (not least <= size <= side or (side - size) % 2):
        raise ValueError(f"size is {size} px, expected {least} to {side}, and {'odd' if side % 2 else 'even'} as that")
    cut = 0 if size is None else (side - size) // 2
    return images[..., cut : images.shape[-2] - cut, cut : images.shape[-1] - cut]


class Unknown(NamedTuple):
    """What nobody tells a search about a query, and how it is looked for."""

    headings: tuple[float, float]  # degrees, the ends of what is drawn from
    scales: tuple[float, float]
    search: str
    options: dict[str, Sequence[float]]


_TURNED, _SCALED = (0.0, 360.0), (0.9, 1.1)
_NORTH, _OWN = (0.0, 0.0), (1.0, 1.0)
SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
#: Rows of `poses_table`; that of a scale which is not looked for says what looking for it is worth.
UNKNOWN: dict[str, Unknown] = {
    "pose_known": Unknown(_NORTH, _OWN, "dense", {}),
    "pose_heading": Unknown(_TURNED, _OWN, "turned", {}),
    "pose_scale_ignored": Unknown(_NORTH, _SCALED, "dense", {}),
    "pose_scale": Unknown(_NORTH, _SCALED, "turned", {"headings": (0.0,), "scales": SCALES, "finer": (0.0,)}),
}


def poses_table(
    run: Run,
    folder: Path,
    scenes: Mapping[str, Scene] | None = None,
    count: int = 100,
) -> pd.DataFrame:
    """Dense search for queries of unknown heading and scale, beside the same queries north up; kept as CSV.

    Parameters
    ----------
    run
        Of dense search, with a coarse level.
    folder
        Where `table.csv` is kept.
    scenes
        Where the queries are from, by name; that of the run by default.
    count
        The first so many queries around which their strip goes on far enough.

    Returns
    -------
    DataFrame
        A row per scene and method, as of `table_of`, with `heading_median_deg` and `scale_median`, by how much heading
        and scale of those that were found are off.

    Raises
    ------
    ValueError
        For a run of another search, or where no strip goes on far enough.
    """
    if run.config.search != "dense":
        raise ValueError(f"{run.path}: search is {run.config.search!r}, expected a run of 'dense'")
    rows = []
    for name, scene in (scenes or {run.config.scene: map_of(run.config)}).items():
        asked, tiles = task(run.config, scene, "cross_area", "arbitrary")
        for method, unknown in UNKNOWN.items():
            posed = posed_queries(scene, Task(asked, tiles, torch.empty(0)), count, unknown.headings, unknown.scales)
            about = {"scene": Path(name).name, "data": scene.label, "size": posed.images.shape[-1], "method": method}
            row = next(rows_of(run.encoder, scene, posed, unknown.search, **unknown.options))[0]
            rows.append({**about, **row})
    return _kept(rows, folder)


#: Powers of the scale that scores were multiplied by, to choose `EVEN` among.
POWERS = (0.0, 0.125, EVEN, 0.375, 0.5)


def powers_table(
    run: Run,
    folder: Path,
    scenes: Mapping[str, Scene] | None = None,
    count: int = 100,
) -> pd.DataFrame:
    """How much too large the scale that is found is, by the power of it that scores are multiplied by; kept as CSV.

    On validation areas, with the best place of every scale alone: what `EVEN` was chosen by.

    Parameters
    ----------
    run, scenes, count
        As for `poses_table`.
    folder
        Where `powers.csv` is kept.

    Returns
    -------
    DataFrame
        A row per scene and power: `recall@1`, and of the queries that were found the mean and the median of the scale
        that was found over the true one, less 1: `bias` and `bias_median`.
    """
    rows = []
    for name, scene in (scenes or {run.config.scene: map_of(run.config)}).items():
        asked, tiles = task(run.config, scene, "cross_area", "arbitrary", "val")
        asked, _, images = posed_queries(scene, Task(asked, tiles, torch.empty(0)), count, _NORTH, _SCALED)
        of_scale = []
        for scale in SCALES:
            options: dict[str, Sequence[float]] = {"headings": (0.0,), "scales": (scale,), "finer": (0.0,)}
            of_scale.append(dense_search(run.encoder, scene, tiles, "turned", **options).search(images, 1))
        scores = np.stack([f.scores[:, 0] / s**EVEN for f, s in zip(of_scale, SCALES, strict=True)])
        side = int(tiles["size"].iloc[0]) * scene.pixel_size
        at = np.stack([tiles_of_places(f, tiles, side)[:, 0] for f in of_scale])
        for power in POWERS:
            best = (scores * np.array(SCALES)[:, None] ** power).argmax(0)
            right = at[best, np.arange(len(asked))] == asked["positive"].to_numpy()
            off = np.array(SCALES)[best][right] / asked["scale"].to_numpy()[right] - 1
            about = {"scene": Path(name).name, "data": scene.label, "power": power, "queries": len(asked)}
            found = {"recall@1": right.mean(), "bias": off.mean(), "bias_median": np.median(off)}
            rows.append(about | {k: float(v) for k, v in found.items()})
    return _kept(rows, folder, "powers.csv")


def posed_queries(
    scene: Scene, given: Task, count: int, headings: tuple[float, float], scales: tuple[float, float], seed: int = 0
) -> Task:
    """The first `count` queries whose strip goes on far enough around them, each at a heading and a scale of its own.

    They are cut from the strip at their `heading` and `scale`, drawn between the ends that are given, so that nothing
    of a turned image is made up, and they are the same queries whatever is drawn.
    """
    asked = given.asked
    side = int(asked["size"].iloc[0])
    around = math.ceil(side * (math.sqrt(2) * max(_SCALED) - 1) / 2)
    wide = asked.assign(row=asked["row"] - around, col=asked["col"] - around, size=side + 2 * around)
    holds = [
        raster_of(scene, q).covers(np.array([q.row]), np.array([q.col]), q.size)[0]
        for q in wide.itertuples(index=False)
    ]
    at = np.flatnonzero(holds)[:count]
    if not len(at):
        raise ValueError(f"scene {scene.name!r}: no strip goes on {around} px around a query, as far as to turn it")
    rng = np.random.default_rng(seed)
    heading, scale = (rng.uniform(*ends, len(at)) for ends in (headings, scales))
    images = torch.stack(list(PatchImages(scene, wide.iloc[at], None)))
    poses = [Pose(-h, 1 / s) for h, s in zip(heading, scale, strict=True)]
    posed = [middle_of(turned(image[None], pose, 2)[0], side) for image, pose in zip(images, poses, strict=True)]
    return Task(
        asked.iloc[at].reset_index(drop=True).assign(heading=heading, scale=scale), given.tiles, torch.cat(posed)
    )


def _kept(rows: Sequence[Mapping[str, float | str]], folder: Path, file: str = "table.csv") -> pd.DataFrame:
    made = pd.DataFrame(rows).assign(**made_with())
    write(folder / file, partial(made.to_csv, index=False))
    return made


def rows_of(
    encoder: Encoder, scene: Scene, given: Task, name: str = "dense", **options: Sequence[float]
) -> Iterator[tuple[dict[str, float | str], np.ndarray]]:
    """The numbers of a search and whether each query was found at first `(Q,)`: of all, then of each quarter."""
    asked, tiles, images = given
    search = dense_search(encoder, scene, tiles, name, **options)
    features = search.encode(images.split(64))
    search.search([images[:1]], 1)  # what is made once is not what a query takes
    began = time.perf_counter()
    found = search.search(features, TOP)
    took = 1000 * (time.perf_counter() - began) / len(asked)
    side = int(tiles["size"].iloc[0]) * scene.pixel_size
    xy, positive = positions(asked), asked["positive"].to_numpy()
    rank = list_ranks(tiles_of_places(found, tiles, side), found.scores, positive, len(tiles))
    registered = registered_errors(found.xy[:, 0], xy, asked["strip"].to_numpy(), NEAR_TILES * side)
    errors = localization_errors(found.xy[:, 0], xy)
    contrast = images.std((1, 2, 3)).numpy()
    quarter = np.searchsorted(np.quantile(contrast, (0.25, 0.5, 0.75)), contrast)
    groups = {"all": np.ones(len(asked), bool), **{f"{name} contrast": quarter == i for i, name in enumerate(QUARTERS)}}
    for group, chosen in groups.items():
        at = np.flatnonzero(chosen)
        report = candidate_report(found.rows(at), positive[at], tiles, side, xy[at])
        ends = intervals(rank[at], blocks(scene, asked)[at])
        metres = {f"registered_within_{t}m": float((registered[at] <= t).mean()) for t in (5, 10, 25, 50, 100)}
        more = {"within_66m": float((errors[at] <= 66).mean()), "registered_median_m": float(np.median(registered[at]))}
        if found.heading is not None and found.scale is not None:
            off = np.abs((found.heading[at, 0] - asked["heading"].to_numpy()[at] + 180) % 360 - 180)
            larger = np.abs(found.scale[at, 0] - asked["scale"].to_numpy()[at])
            for error, values in {"heading_median_deg": off, "scale_median": larger}.items():
                more[error] = float(np.median(values[rank[at] < 1])) if (rank[at] < 1).any() else math.nan
        yield {"queries_of": group, **report, **ends, **metres, **more, "ms_per_query": took}, (rank < 1).astype(float)
