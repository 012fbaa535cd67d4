"""Search from coarse to fine: the peaks of a coarse level, and exact fine scores around each."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sarmatch.encoders import Encoder
from sarmatch.search.candidates import Candidates
from sarmatch.search.correlate import BUDGET, FLAT, LEAST, TINY, FeatureMap, prepared
from sarmatch.search.dense import DenseSearch, batches, candidates_of, in_range
from sarmatch.search.maps import DenseGallery
from sarmatch.search.peaks import Block, Peaks, refined, suppress
from sarmatch.search.searches import register_search


class Levels(NamedTuple):
    """Features of the same queries at both levels: `(Q, C, h, w)` fine, and coarse."""

    fine: Tensor
    coarse: Tensor


@register_search("coarse_to_fine")
class CoarseToFineSearch:
    """The highest peaks of a coarse map, each looked at again on the fine map: what `DenseSearch` does, in a tenth of
    its time, where the coarse level has the place among its peaks.

    Parameters
    ----------
    gallery
        Feature maps with a coarse level.
    encoder
        Makes features of queries that are given as images; its `coarse` those of the coarse level.
    peaks
        Coarse peaks per query that are looked at again.
    radius
        Two candidates lie more than so many fine cells apart, on one of the axes.
    reach
        Fine cells to each side of a coarse peak that are scored; a coarse cell and one more by default.
    device, budget
        See `DenseSearch`.

    Raises
    ------
    ValueError
        Where the gallery has no coarse level.
    """

    def __init__(
        self,
        gallery: DenseGallery,
        encoder: Encoder | None = None,
        peaks: int = 100,
        radius: int = 4,
        reach: int | None = None,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
    ) -> None:
        if gallery.coarse is None:
            raise ValueError("these feature maps have no coarse level; build them with an encoder that has one")
        if peaks < 1:
            raise ValueError(f"peaks must be at least 1, got {peaks}")
        self.gallery, self.count = gallery, peaks
        self.ratio = gallery.coarse.stride // gallery.stride
        self.reach = self.ratio + 1 if reach is None else reach
        self.fine = DenseSearch(gallery, encoder, radius, device, budget)
        coarse = None if encoder is None else encoder.coarse
        self.coarse = DenseSearch(gallery.coarse, coarse, max(1, radius // self.ratio), device, budget)

    def encode(self, images: Iterable[Tensor]) -> Levels:
        """Features of batches of SAR images `(B, C, H, W)` at both levels; a ValueError without an encoder."""
        images = list(images)
        return Levels(self.fine.encode(images), self.coarse.encode(images))

    @torch.no_grad()
    def search(self, queries: Levels | Iterable[Tensor], k: int, masks: Tensor | None = None) -> Candidates:
        """The `k` best places of each query, as `DenseSearch.search` gives them.

        Parameters
        ----------
        queries
            Features of both levels as `encode` makes them, or batches of images `(B, C, H, W)`.
        k
            Length of the lists, at most `peaks` of which are valid.
        masks
            How much each fine cell of a query counts, bool or 0 to 1, `(Q, h, w)`.

        Raises
        ------
        ValueError
            If `k` is less than 1, features do not fit the maps', or masks do not fit the queries.
        """
        if not isinstance(queries, Levels):
            queries = self.encode(queries)
        fine, coarse = self.fine.fitting(queries.fine, k), self.coarse.fitting(queries.coarse, k)
        masks = in_range(masks, fine)
        parts = []
        for rows in batches(fine):
            some = None if masks is None else masks[rows]
            peaks = self.coarse_peaks(coarse[rows], some, self.count)
            parts.append(suppress(self.fine_peaks(fine[rows], some, peaks), self.fine.radius, k))
        return candidates_of(parts, self.gallery, tuple(fine.shape[2:]), k)

    def coarse_peaks(self, coarse: Tensor, masks: Tensor | None, k: int) -> Peaks:
        """The `k` highest peaks of the coarse level, in fine cells; masks are those of the fine level."""
        if masks is not None:
            masks = F.interpolate(masks[:, None].float(), coarse.shape[2:], mode="area")[:, 0]
        peaks = self.coarse.peaks(coarse, masks, k)
        return peaks._replace(at=peaks.at * self.ratio)

    def fine_peaks(self, fine: Tensor, masks: Tensor | None, peaks: Peaks) -> Peaks:
        """The highest fine score around each coarse peak, and where it is to a fraction of a cell."""
        maps = list(self.gallery.maps.values())
        centred = maps[0].centred
        waves = prepared(fine, masks, centred).to(self.fine.device)
        weights = torch.ones(1, *fine.shape[2:]).expand(len(fine), -1, -1) if masks is None else masks.float()
        scores, at = torch.full_like(peaks.scores, -torch.inf), peaks.at.clone()
        for i, there in enumerate(torch.isfinite(peaks.scores)):
            corners = peaks.at[i, there].round().long() - self.reach
            if not len(corners):
                continue
            around = scores_around(maps, waves[i], weights[i], corners, peaks.area[i, there], self.reach)
            best, flat = around.flatten(1).max(1, keepdim=True)
            row, col = flat // around.shape[2], flat % around.shape[2]
            scores[i, there] = best[:, 0].cpu()
            at[i, there] = refined(Block(0, 0, around), best, row, col)[:, 0].cpu() + corners
        return Peaks(scores, at, peaks.area)


def scores_around(
    maps: Sequence[FeatureMap], query: Tensor, weights: Tensor, corners: Tensor, area: Tensor, reach: int
) -> Tensor:
    """Scores of one query at few shifts in many places: two matrix products.

    Parameters
    ----------
    maps
        One per area.
    query
        Features `(C, h, w)` as `prepared` makes them.
    weights
        How much each of its cells counts `(h, w)`.
    corners, area
        First shift of each place `(K, 2)`, rows and columns, and its map `(K,)`.
    reach
        Shifts to either side of the middle one.

    Returns
    -------
    Tensor (K, 2 reach + 1, 2 reach + 1); minus infinity where the query would leave the map, or lie on too little data.
    """
    side, (h, w) = 2 * reach + 1, query.shape[1:]
    high, wide = h + 2 * reach, w + 2 * reach
    places = [(maps[a], row, col) for a, (row, col) in zip(area.tolist(), corners.tolist(), strict=True)]
    windows = torch.stack([fmap.cut(row, col, high, wide) for fmap, row, col in places]).to(query.device)
    product = windows.flatten(1) @ _shifted(query, side)
    sums = _shifted(weights[None].to(query), side)
    weight = weights.sum().clamp(min=TINY)
    spread = windows.square().sum(1).flatten(1) @ sums
    if maps[0].centred:
        spread = spread - (windows.flatten(2) @ sums).square().sum(1) / weight
    scores = torch.where(spread < FLAT**2 * weight, 0.0, product * spread.clamp(min=TINY).rsqrt())
    if any(fmap.valid is not None for fmap in maps):
        data = torch.stack([fmap.data(row, col, high, wide) for fmap, row, col in places]).to(query)
        scores[data.flatten(1) @ sums < (LEAST - 1e-4) * weight] = -torch.inf
    scores = scores.unflatten(1, (side, side))
    steps = torch.arange(side)
    last = torch.tensor([[n - k for n, k in zip(m.features.shape[1:], (h, w), strict=True)] for m in maps])[area]
    rows, cols = ((corners[:, i, None] + steps) for i in (0, 1))
    rows, cols = ((s < 0) | (s > last[:, i, None]) for i, s in ((0, rows), (1, cols)))
    return scores.masked_fill_((rows[:, :, None] | cols[:, None]).to(scores.device), -torch.inf)


def _shifted(query: Tensor, side: int) -> Tensor:
    """A query `(C, h, w)` at `side` by `side` shifts inside a window, as the columns of a matrix."""
    channels, h, w = query.shape
    high, wide = h + side - 1, w + side - 1
    shifted = query.new_zeros(side, side, channels, high, wide)
    each, row, *rest = shifted.stride()
    view = shifted.as_strided((side, side, channels, h, w), (each + wide, row + 1, *rest))
    view.copy_(query.expand_as(view))
    return shifted.flatten(2).flatten(0, 1).T
