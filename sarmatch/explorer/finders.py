"""How each method of a run answers: one interface for vectors with their refiners and for maps of features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sarmatch.encoders import Encoder, image_sizes
from sarmatch.explorer.sources import Asked
from sarmatch.localization.fusion import Likelihood, log_likelihood
from sarmatch.patches import grey_map
from sarmatch.refinement import RefinementContext, Refiner, create_refiner, list_refiners
from sarmatch.scenes import Scene
from sarmatch.search import (
    Candidates,
    CoarseToFine,
    DenseSearch,
    TurnedSearch,
    VectorSearch,
    build_gallery,
    galleries_dir,
)
from sarmatch.training import Run
from sarmatch.training.checkpoints import REFINER
from sarmatch.training.runs import dense_search

ALONE = "coarse"  # the refiner that leaves the search as it is
#: At unknown heading: wider steps and fewer finer ones than the search has by default, for an answer in half a second.
QUICK = {"headings": tuple(np.arange(7.5, 360, 15).tolist()), "finer": (-5.0, 0.0, 5.0), "few": 5}


class HeatMap(NamedTuple):
    """Scores `(h, w)` of places of an area, NaN or minus infinity where there is none.

    Of dense search they are logarithms of a posterior but for a constant, see `sarmatch.localization.fusion`.

    `corner` are the local metres `(x, y)` of the middle of the first score, `metres` how far scores lie apart.
    """

    scores: NDArray[np.float32]
    corner: tuple[float, float]
    metres: float


class Finder(Protocol):
    """A method that finds places, with the refiners that can follow it."""

    @property
    def refiners(self) -> Mapping[str, Refiner]:
        """What can follow it, by name."""
        ...

    def find(self, queries: Sequence[Asked], k: int, refiner: str = ALONE) -> Candidates:
        """The `k` best places of each query, fewer where there are no more."""
        ...

    def heat(self, query: Asked, area: str) -> HeatMap | None:
        """How likely every place of an area is, before any refinement; None where the method cannot say it."""
        ...


class DenseFinder:
    """Dense search, exhaustive or from coarse to fine or at any heading; no refiner fits lists without tiles."""

    def __init__(self, name: str, encoder: Encoder, scene: Scene, tiles: pd.DataFrame) -> None:
        self.search = dense_search(encoder, scene, tiles, name, **(QUICK if name == "turned" else {}))
        self.refiners = {ALONE: create_refiner(ALONE)}

    def find(self, queries: Sequence[Asked], k: int, refiner: str = ALONE) -> Candidates:
        """See `Finder`."""
        most = self.search.keep if isinstance(self.search, TurnedSearch) else k
        return self.search.search([torch.cat([q.image(None) for q in queries])], min(k, most))

    def heat(self, query: Asked, area: str) -> HeatMap | None:
        """See `Finder`: the posterior of one window; from coarse to fine it is that of the coarse map."""
        if isinstance(self.search, TurnedSearch):
            return None
        features = self.search.encode([query.image(None)])
        search: DenseSearch = self.search.coarse if isinstance(self.search, CoarseToFine) else self.search
        feature = (features.coarse if isinstance(self.search, CoarseToFine) else features)[0]
        fmap = search.gallery.maps[area]
        x, y = fmap.metres_of(*(np.array(feature.shape[1:]) / 2))
        scores = dict(zip(search.gallery.maps, search.surfaces(feature[None]), strict=True))[area][0]
        likely = log_likelihood(scores.numpy(), Likelihood()).astype(np.float32)
        return HeatMap(likely, (float(x), float(y)), fmap.metres)


class VectorFinder:
    """One vector per tile, and every refiner that needs no training or was trained along with the encoder.

    With `whiten`, vectors are compared in the gallery's own axes, as `sarmatch.Run.find` does.
    """

    def __init__(
        self,
        encoder: Encoder,
        scene: Scene,
        tiles: pd.DataFrame,
        query_mean: NDArray[np.float32] | None = None,
        learned: Mapping[str, Refiner] | None = None,
        whiten: bool = False,
    ) -> None:
        self.size = image_sizes(encoder)
        gallery = build_gallery(encoder, scene, tiles, self.size["optical"], keep=galleries_dir())
        self.search = VectorSearch(gallery, encoder)
        self.context = RefinementContext(gallery, query_mean=query_mean)
        self.axes = self.context.whitening if whiten else None
        vectors = gallery.vectors if self.axes is None else self.axes.whitened(gallery.vectors, "reference")
        self.compared = VectorSearch(replace(gallery, vectors=vectors))
        self.map = lru_cache(maxsize=None)(partial(grey_map, scene, size=int(tiles["size"].iloc[0])))
        placed = scene.has_coordinates
        self.refiners = {
            name: refiner
            for name, refiner in ((name, create_refiner(name)) for name in list_refiners())
            if not refiner.learns and (placed or not {"metres", "pixels"} & set(refiner.requires))
        } | dict(learned or {})

    def find(self, queries: Sequence[Asked], k: int, refiner: str = ALONE) -> Candidates:
        """See `Finder`."""
        vectors = self.search.encode([torch.cat([q.image(self.size["sar"]) for q in queries])])
        found = self.compared.search(self._asked(vectors), min(k, len(self.search.gallery)))
        context = replace(self.context, query=vectors, pixels=_Pixels(queries, self.map))
        return self.refiners[refiner].refine(found, context)

    def heat(self, query: Asked, area: str) -> HeatMap | None:
        """See `Finder`; a score per tile."""
        gallery = self.search.gallery
        if not gallery.has_coordinates:
            return None
        here = np.flatnonzero(gallery.tiles["area"].to_numpy() == area)
        vector = self._asked(self.search.encode([query.image(self.size["sar"])]))[0]
        scores = (self.compared.gallery.vectors[here] @ vector).astype(np.float32)
        corner = gallery.tiles[["row", "col"]].to_numpy()[here]
        at = [np.unique(line, return_inverse=True) for line in corner.T]
        steps = [np.diff(line).min() for line, _ in at if len(line) > 1] or [1]
        cells = (corner - corner.min(0)) // min(steps)
        heat = np.full(cells.max(0) + 1, np.nan, np.float32)
        heat[tuple(cells.T)] = scores
        first = gallery.xy[here]
        metres = (gallery.tile_m or 0.0) * min(steps) / int(gallery.tiles["size"].iloc[0])
        return HeatMap(heat, (float(first[:, 0].min()), float(first[:, 1].max())), metres)

    def _asked(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of queries as they are compared with those of tiles."""
        return vectors if self.axes is None else self.axes.whitened(vectors, "query")


class _Pixels:
    """Grey pixels of queries at hand, and of maps that are kept; see `sarmatch.refinement.context.Pixels`."""

    def __init__(self, queries: Sequence[Asked], grey: Callable) -> None:
        self._queries, self.map = queries, grey

    def queries(self, resolution: int) -> torch.Tensor:
        return torch.cat([q.image(resolution) for q in self._queries]).mean(1)


def finders(run: Run, scene: Scene, tiles: pd.DataFrame) -> dict[str, Callable[[], Finder]]:
    """What a run can answer with, by the method's name; each is made when it is first asked for.

    For a run of dense search its own encoder, exhaustive, from coarse to fine and at any heading; for one of vectors
    its encoder with every refiner. Beside either stands its training-free baseline.
    """
    config, with_head = run.config, hasattr(run.baseline, "feature_dim")
    made: dict[str, Callable[[], Finder]] = {}
    if config.search == "dense":
        more = {"coarse_to_fine": "coarse_to_fine", "unknown_heading": "turned"} if len(run.encoder.levels) > 1 else {}
        for name, search in ({"dense": "dense"} | more).items():
            made[name] = partial(DenseFinder, search, run.encoder, scene, tiles)
    else:
        made[config.encoder] = partial(_own, run, scene, tiles)
    baseline = partial(VectorFinder, run.baseline) if with_head else partial(DenseFinder, "dense", run.baseline)
    made[config.baseline] = partial(baseline, scene, tiles)
    return made


def _own(run: Run, scene: Scene, tiles: pd.DataFrame) -> VectorFinder:
    """The run's vectors, compared as it does, with its own refiner where it trained one."""
    learned = {run.config.refiner: run.refiner} if (run.path / REFINER).is_file() else {}
    return VectorFinder(run.encoder, scene, tiles, run.query_mean, learned, run.whitens(scene, tiles))
