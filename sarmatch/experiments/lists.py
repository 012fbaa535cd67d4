"""Cross-fitted candidate lists: lists to learn from that look like those of areas nobody knows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarmatch.patches import fold_of, guard_band, inside, positions, search_task, training_regions
from sarmatch.refinement import LabelledLists, RefinementContext, label_lists, label_peaks
from sarmatch.scenes import Scene
from sarmatch.search import Gallery, pooled, pooled_at
from sarmatch.search.correlate import weighed
from sarmatch.simulation.simulate import simulate_preset, true_places, with_other_towns
from sarmatch.training.config import Config
from sarmatch.training.runs import LIST_LENGTH, Run, dense_search, images_of, search, task


def fold_config(run_of: Run, number: int, count: int = 2) -> Config:
    """The run's config but for one fold of its training regions, which is left out."""
    return Config(**run_of.config.model_dump() | {"fold": (number, count)})


def cross_fitted(
    run_of: Run, folds: Sequence[Run], kind: str, k: int = LIST_LENGTH, count: int = 2000, seed: int = 0
) -> tuple[list[LabelledLists], list[LabelledLists]]:
    """Lists over training regions by encoders that have not trained on them, as a test list is of an unseen area.

    Each fold's encoder embeds the fold it has left out. Its axes are not those of the run's own encoder, nor need they
    be: refiners see embeddings in the axes of their gallery, see `RefinementContext.whitened`.

    Parameters
    ----------
    run_of
        The run whose lists will be refined.
    folds
        Runs of its config that leave out folds 0, 1, ... of the training regions.
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
        A part per fold: to learn from, and to choose epoch, temperature and thresholds by. The latter are queries on
        the last quarter of every fold, a tile's width apart from the others. Both are searched in the whole fold: lists
        of a smaller gallery would look better than test lists do.
    """
    scene, config = run_of.scene(), run_of.config
    size = config.patch_size or scene.patch_size
    guard = guard_band(scene, size)
    learn: list[LabelledLists] = []
    check: list[LabelledLists] = []
    for other in folds:
        if other.config.fold is None:
            raise ValueError(f"{other.path.name}: this run leaves out no fold of its training regions")
        _, held = fold_of(training_regions(scene, config.protocols, guard), other.config.fold, guard)
        queries, tiles = search_task(
            scene,
            kind,
            config.patch_size,
            held,
            protocol=config.protocols[0],
            stride=config.stride,
            count=count // len(folds),
            seed=seed,
        )
        for parts, rectangles in zip((learn, check), fold_of(held, (3, 4), size, bands=True), strict=True):
            asked = queries[inside(queries, rectangles, size)].reset_index(drop=True)
            if asked.empty:
                raise ValueError(f"{other.path.name}: the fold it leaves out is too small to learn and to choose by")
            context = other.context(scene, asked, tiles)
            parts.append(label_lists(search(context, k), context, positions(asked)))
    return learn, check


def peaks_of(
    run_of: Run,
    scene: Scene,
    k: int = LIST_LENGTH,
    protocol: str = "cross_area",
    count: int | None = None,
    places: Callable[[pd.DataFrame], NDArray | None] = positions,
) -> tuple[LabelledLists, pd.DataFrame, pd.DataFrame]:
    """Labelled lists of dense search on the test areas of a scene, with the tables of their queries and tiles.

    `places` says of the queries where they lie `(Q, 2)`, for the labels: where their strips claim to be by default.

    The gallery of their context holds a row for every candidate: its place, and a vector of the map's features under
    it (`sarmatch.search.pooled_at`), so that refiners of tiles take them as they are.
    """
    asked, tiles = task(run_of.config, scene, protocol, "arbitrary", count=count)
    side = int(tiles["size"].iloc[0]) * scene.pixel_size
    finder = dense_search(run_of.encoder, scene, tiles)
    features = finder.encode(images_of(scene, asked, run_of.config, run_of.encoder))
    found = finder.search(features, k)
    vectors = pooled_at(finder.gallery, found, tuple(features.shape[2:]))
    rows = pd.DataFrame(found.xy.reshape(-1, 2), columns=["x", "y"])
    rows["area"] = np.array(found.areas)[found.area.ravel()]
    found = replace(found, tile=np.arange(len(rows)).reshape(found.scores.shape))
    gallery = Gallery(rows, vectors.reshape(len(rows), -1), side)
    own, weights = weighed(features, finder.gallery.channels)
    query = pooled(own, centred=run_of.encoder.centred, masks=weights).numpy()
    context = RefinementContext(gallery, query)
    return label_peaks(found, context, places(asked)), asked, tiles


def peak_lists(
    run_of: Run, preset: str, k: int = LIST_LENGTH, count: int = 1200, towns: Sequence[int] = (1, 2), known: int = 3
) -> tuple[list[LabelledLists], list[LabelledLists]]:
    """Lists of dense search to learn from and to choose by, of `count` queries in each of some towns of a preset.

    They are towns that the encoder has not trained on, see `sarmatch.simulation.with_other_towns`; `known` numbers the
    one to choose by. Peaks are labelled by the ground that a strip really shows: it claims to be up to 35 m elsewhere
    in `standard`, and the right peak would count as wrong.
    """

    def lists_of(seed: int) -> LabelledLists:
        scene, places = other_town(preset, seed)
        return peaks_of(run_of, scene, k, count=count, places=places)[0]

    return [lists_of(seed) for seed in towns], [lists_of(known)]


def other_town(preset: str, seed: int) -> tuple[Scene, Callable[[pd.DataFrame], NDArray]]:
    """A scene of other towns of a preset, and what the queries of a table of it really show, in metres `(Q, 2)`."""
    towns = with_other_towns(preset, seed)
    scene = simulate_preset(preset, "quick", towns=seed)

    def places(asked: pd.DataFrame) -> NDArray:
        xy = positions(asked).astype(np.float64)
        for (area, strip), rows in asked.groupby(["area", "strip"]).indices.items():
            xy[rows] = true_places(towns, scene, area, strip, xy[rows])
        return xy

    return scene, places
