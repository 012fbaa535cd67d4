"""Dense search: a query's map of features, correlated with the whole map's over all shifts."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sarmatch.encoders import Encoder
from sarmatch.progress import progress
from sarmatch.search.candidates import Candidates
from sarmatch.search.correlate import FeatureMap, Peaks, find_peaks, score_blocks, suppress
from sarmatch.search.maps import DenseGallery
from sarmatch.search.searches import register_search

TOGETHER = 16  # queries that are correlated at once


@register_search("dense")
class DenseSearch:
    """Every place of the map compared with every query: zero-mean normalised correlation of feature maps.

    Parameters
    ----------
    gallery
        Feature maps of the areas.
    encoder
        Makes features of queries that are given as images.
    radius
        Two candidates lie more than so many cells apart, on one of the axes.

    Notes
    -----
    Exhaustive, and exact up to the half precision of kept maps: what is missed is missed by the features.
    """

    def __init__(self, gallery: DenseGallery, encoder: Encoder | None = None, radius: int = 4) -> None:
        if radius < 1:
            raise ValueError(f"radius is {radius} cells, expected at least 1")
        self.gallery, self.encoder, self.radius = gallery, encoder, radius

    @torch.no_grad()
    def encode(self, images: Iterable[Tensor]) -> Tensor:
        """Features `(Q, C, h, w)` of batches of SAR images `(B, C, H, W)`, at the pixel size of the map.

        Raises
        ------
        ValueError
            Where the search was made without an encoder.
        """
        if self.encoder is None:
            raise ValueError("this search has no encoder: give it one, or search with features instead of images")
        device = next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        return torch.cat([self.encoder.forward_features(b.to(device), "query").float().cpu() for b in images])

    def search(self, queries: Tensor | Iterable[Tensor], k: int, masks: Tensor | None = None) -> Candidates:
        """The `k` best places of each query.

        Parameters
        ----------
        queries : Tensor (Q, C, h, w), or batches of images (B, C, H, W)
            Features as `encode` makes them, or images.
        k
            Length of the lists; filled up with candidates that are not valid where a map has fewer peaks.
        masks
            How much each cell of a query counts, bool or 0 to 1, `(Q, h, w)`: nothing for nodata and beyond the edge
            of a strip, and as much as one trusts it elsewhere.

        Returns
        -------
        Candidates
            Best first; scores are correlations, -1 to 1. A place is the query's centre, finer than a cell.

        Raises
        ------
        ValueError
            If `k` is less than 1, features do not fit the map's, or masks do not fit the queries.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if not isinstance(queries, Tensor):
            queries = self.encode(queries)
        channels = next(iter(self.gallery.maps.values())).features.shape[0]
        if queries.ndim != 4 or queries.shape[1] != channels:
            raise ValueError(f"queries must be (Q, {channels}, h, w) as the map's features, got {tuple(queries.shape)}")
        if masks is not None:
            _check_masks(masks, queries)
        bar = progress(total=len(queries), desc="dense search", unit="query")
        parts = []
        for rows in torch.arange(len(queries)).split(TOGETHER):
            parts.append(self._together(queries[rows], None if masks is None else masks[rows], k))
            bar.update(len(rows))
        bar.close()
        scores, places, area = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Candidates(scores, places, area, self.gallery.areas, np.isfinite(scores))

    def _together(self, queries: Tensor, masks: Tensor | None, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores, places and areas of some queries."""
        found = []
        for code, fmap in enumerate(self.gallery.maps.values()):
            peaks = best_of(fmap, queries, masks, k, self.radius)
            middle = peaks.at.numpy() + np.array(queries.shape[2:]) / 2
            found.append((peaks.scores.numpy(), fmap.metres_of(middle[..., 0], middle[..., 1]), code))
        scores = np.concatenate([s for s, _, _ in found], axis=1)
        places = np.concatenate([p for _, p, _ in found], axis=1)
        area = np.concatenate([np.full(s.shape, code, np.int64) for s, _, code in found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, area = (np.take_along_axis(v, order, 1) for v in (scores, area))
        places = np.take_along_axis(places, order[..., None], 1)
        missing = k - scores.shape[1]
        if missing > 0:
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
            places, area = np.pad(places, ((0, 0), (0, missing), (0, 0))), np.pad(area, ((0, 0), (0, missing)))
        return scores.astype(np.float32), places, area


def _check_masks(masks: Tensor, queries: Tensor) -> None:
    wanted = (len(queries), *queries.shape[2:])
    if tuple(masks.shape) != wanted:
        raise ValueError(f"masks must be (Q, h, w), {wanted} as the queries' features, got {tuple(masks.shape)}")
    if masks.numel() and not (masks.min() >= 0 and masks.max() <= 1):
        raise ValueError(f"masks must be weights from 0 to 1, got {float(masks.min()):g} to {float(masks.max()):g}")


def best_of(fmap: FeatureMap, queries: Tensor, masks: Tensor | None, k: int, radius: int) -> Peaks:
    """The `k` highest peaks of every query on one map, apart by more than `radius` cells."""
    kept = Peaks(torch.full((len(queries), k), -torch.inf), torch.zeros(len(queries), k, 2, dtype=torch.float64))
    for block in score_blocks(fmap, queries, masks, margin=radius):
        found = find_peaks(block, radius, k)
        both = Peaks(torch.cat([kept.scores, found.scores], 1), torch.cat([kept.at, found.at], 1))
        kept = suppress(both, radius, k)
    return kept


def surface(fmap: FeatureMap, query: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scores of one query `(C, h, w)` at every shift of a map `(H - h + 1, W - w + 1)`: the picture of a search."""
    height, width = fmap.features.shape[1:]
    whole = torch.full((height - query.shape[1] + 1, width - query.shape[2] + 1), -torch.inf)
    for block in score_blocks(fmap, query[None], None if mask is None else mask[None]):
        high, wide = block.scores.shape[1:]
        whole[block.row : block.row + high, block.col : block.col + wide] = block.scores[0]
    return whole
