"""Candidate lists of a run: what a search gives to a refiner, and lists to learn from."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from sarmatch.patches import (
    fold_of,
    grey_queries,
    ground_windows,
    guard_band,
    inside,
    positions,
    search_task,
    training_regions,
)
from sarmatch.refinement import Evidence, Lists, joined, lists_of
from sarmatch.scenes import Scene
from sarmatch.search import Candidates, MapIndex
from sarmatch.training.config import Config
from sarmatch.training.runs import Run


def evidence_of(run: Run, scene: Scene, queries: pd.DataFrame, tiles: pd.DataFrame) -> Evidence:
    """All a refiner may look at: embeddings by the run's encoder, and pixels where it asks for them."""
    query, reference = run.embed(scene, queries, tiles)

    @lru_cache(maxsize=2)
    def images(resolution: int):
        return grey_queries(scene, queries, resolution), ground_windows(scene, tiles, resolution)

    return Evidence(query, reference, int(tiles["size"].iloc[0]) * scene.pixel_size, images, run.query_mean)


def search(evidence: Evidence, tiles: pd.DataFrame, k: int) -> Candidates:
    """The first `k` tiles of every query, all of them where the gallery holds less."""
    return MapIndex(evidence.reference, positions(tiles)).search(evidence.query, min(k, len(tiles)))


def lists(
    run: Run,
    protocol: str,
    kind: str,
    split: str = "test",
    k: int = 50,
    count: int | None = None,
    seed: int | None = None,
    scene: Scene | None = None,
) -> tuple[Lists, pd.DataFrame, pd.DataFrame]:
    """Candidate lists of a run on a split, with the tables of their queries and tiles."""
    scene = scene or run.scene()
    config = run.config
    queries, tiles = search_task(
        scene,
        kind,
        config.patch_size,
        split,
        protocol=protocol,
        stride=config.stride,
        count=count or config.test_queries,
        seed=config.seed + 2 if seed is None else seed,
    )
    evidence = evidence_of(run, scene, queries, tiles)
    return lists_of(search(evidence, tiles, k), evidence, positions(queries)), queries, tiles


def fold_config(run_of: Run, number: int, count: int = 2) -> Config:
    """The run's config but for one fold of the training ground, which is left out."""
    return Config(**run_of.config.model_dump() | {"fold": (number, count)})


def cross_fitted(
    run_of: Run, folds: Sequence[Run], kind: str, k: int = 50, count: int = 2000, seed: int = 0
) -> tuple[Lists, Lists]:
    """Lists over training ground by encoders that have not trained on it, as a test list is over ground nobody knows.

    Each fold's encoder embeds the fold it has left out. Its axes are not those of the run's own encoder, nor need they
    be: refiners see embeddings in the axes of their gallery, see `Evidence.whitened`.

    Parameters
    ----------
    run_of
        The run whose lists will be refined.
    folds
        Runs of its config that leave out folds 0, 1, ... of the training ground.
    kind
        Of the queries.
    k
        Length of the lists.
    count
        Arbitrary queries in all.
    seed
        Of their places.

    Returns
    -------
    learn, check
        To learn from, and to choose epoch, temperature and thresholds by: queries on the last quarter of every fold, a
        tile's width apart from the others. Both are searched in the whole fold: lists of a smaller gallery would look
        better than test lists do.
    """
    scene, config = run_of.scene(), run_of.config
    size = config.patch_size or scene.patch_size
    guard = guard_band(scene, size)
    parts = [], []
    for other in folds:
        if other.config.fold is None:
            raise ValueError(f"{other.path.name}: this run leaves out no fold of its training ground")
        _, ground = fold_of(training_regions(scene, config.protocols, guard), other.config.fold, guard)
        queries, tiles = search_task(
            scene,
            kind,
            config.patch_size,
            ground,
            protocol=config.protocols[0],
            stride=config.stride,
            count=count // len(folds),
            seed=seed,
        )
        for part, rectangles in zip(parts, fold_of(ground, (3, 4), size, bands=True), strict=True):
            asked = queries[inside(queries, rectangles, size)].reset_index(drop=True)
            if asked.empty:
                raise ValueError(f"{other.path.name}: the ground it leaves out is too small to learn and to choose by")
            evidence = evidence_of(other, scene, asked, tiles)
            part.append(lists_of(search(evidence, tiles, k), evidence, positions(asked)))
    return joined(parts[0]), joined(parts[1])


def list_ranks(refined: Candidates, positive: np.ndarray) -> np.ndarray:
    """Place of the true tile in refined lists `(Q,)`, ties against us; the size of the gallery where it is in none."""
    found = refined.indices == np.asarray(positive)[:, None]
    own = np.where(found, refined.scores, -np.inf).max(1)
    ahead = ((refined.scores >= own[:, None]) & ~found).sum(1)
    return np.where(found.any(1), ahead, len(refined.positions))
