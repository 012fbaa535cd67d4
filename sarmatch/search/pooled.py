"""Vectors from dense features: what a query, and the map at a place, look like to a network that wants a vector."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarmatch.checks import Count
from sarmatch.encoders.aggregators import Pyramid, unit
from sarmatch.search.candidates import Candidates
from sarmatch.search.correlate import FeatureMap, prepared
from sarmatch.search.maps import DenseGallery


def pooled(features: Tensor, parts: Count = 4, centred: bool = True, masks: Tensor | None = None) -> Tensor:
    """Vectors `(B, C parts^2)`, L2-normalised, of feature maps `(B, C, h, w)`.

    Every channel as correlation compares it, less its mean and times the mask `(B, h, w)`, is averaged in
    `parts` x `parts` parts, as `Pyramid` does. With a part per cell and no mask the product of two vectors is the
    correlation itself. Where there is no contrast, all entries are equal.
    """
    pyramid = Pyramid(features.shape[1], (features.shape[2], features.shape[3]), parts)
    return unit(pyramid(prepared(features, masks, centred)))


def pooled_at(
    gallery: DenseGallery, candidates: Candidates, size: tuple[int, int], parts: Count = 4
) -> NDArray[np.float32]:
    """Such vectors `(Q, K, D)` of the map under each candidate, for queries of `size` cells."""
    maps = list(gallery.maps.values())
    found = []
    for places, areas in zip(candidates.xy, candidates.area, strict=True):
        windows = [_window(maps[area], place, size) for place, area in zip(places, areas, strict=True)]
        found.append(pooled(torch.stack(windows), parts, maps[0].centred))
    return torch.stack(found).numpy()


def _window(fmap: FeatureMap, place: NDArray, size: tuple[int, int]) -> Tensor:
    """Features `(C, h, w)` of the whole cells nearest to a query centred at a place in metres."""
    col, row = (place - fmap.corner) / fmap.metres * (1, -1)
    return fmap.cut(round(row - size[0] / 2), round(col - size[1] / 2), *size).float()
