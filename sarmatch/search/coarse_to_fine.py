"""Search from coarse to fine: the peaks of a coarse level, and exact fine scores around each."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sarmatch.checks import Count, whole_number
from sarmatch.encoders import Encoder, device_of, in_use
from sarmatch.search.candidates import Candidates
from sarmatch.search.correlate import BUDGET, FLAT, LEAST, TINY, FeatureMap, prepared, weighed
from sarmatch.search.dense import DenseSearch, batches, candidates_of, fitting_images, given, in_range
from sarmatch.search.maps import DenseGallery
from sarmatch.search.peaks import Block, Peaks, refined, suppress
from sarmatch.search.searches import register_search

KEEP = 30  # coarse peaks
SMALL = 10  # coarse cells along a side: a smaller query has more rivals, and twice as many peaks are kept of it


class Levels(NamedTuple):
    """Features of the same queries at both levels: `(Q, C, h, w)` fine, and coarse."""

    fine: Tensor
    coarse: Tensor


@register_search("coarse_to_fine")
class CoarseToFine:
    """The highest peaks of a coarse map, each looked at again on the fine map.

    It finds what `DenseSearch` finds in a fraction of its time, where the coarse level has the place among its peaks.
    Scores and places around these peaks are those of the exhaustive search.

    Parameters
    ----------
    gallery
        Feature maps with a coarse level.
    encoder
        Makes features of queries that are given as images, of both levels.
    keep
        Coarse peaks per query that are looked at again; as many as candidates are wanted, where that is more. By
        default 30, and 60 of queries that are less than ten coarse cells wide.
    radius
        Two candidates lie more than so many fine cells apart, on one of the axes.
    reach
        Fine cells to each side of a coarse peak that are scored; a coarse cell by default.
    device, budget
        See `DenseSearch`.

    Raises
    ------
    ValueError
        Where the gallery or the encoder has no coarse level, or a number is less than 1.
    """

    def __init__(
        self,
        gallery: DenseGallery,
        encoder: Encoder | None = None,
        keep: Count | None = None,
        radius: Count = 4,
        reach: Count | None = None,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
    ) -> None:
        if encoder is not None and len(encoder.levels) < 2:
            raise ValueError(f"{type(encoder).__name__} has no coarse level: search with DenseSearch")
        if gallery.coarse is None:
            raise ValueError("these feature maps have no coarse level: build them with an encoder that has one")
        self.gallery, self.encoder = gallery, encoder
        self.keep = None if keep is None else whole_number("keep", keep)
        self.ratio = gallery.coarse.stride // gallery.stride
        self.reach = self.ratio if reach is None else whole_number("reach", reach)
        self.device = device_of(encoder) if device is None else device
        self.fine = DenseSearch(gallery, None, radius, self.device, budget)
        self.coarse = DenseSearch(gallery.coarse, None, max(1, radius // self.ratio), self.device, budget)

    def encode(self, images: Iterable[Tensor]) -> Levels:
        """Features of batches of SAR images `(B, C, H, W)` at both levels.

        Raises
        ------
        ValueError
            Where the search was made without an encoder, or images do not fit it.
        """
        encoder = given(self.encoder)
        device = device_of(encoder)
        with in_use(encoder):
            parts = [encoder.forward_levels(fitting_images(b, encoder).to(device), "query")[:2] for b in images]
        return Levels(*(torch.cat([p.float().cpu() for p in level]) for level in zip(*parts, strict=True)))

    @torch.no_grad()
    def search(self, queries: Levels | Iterable[Tensor], k: int, masks: Tensor | None = None) -> Candidates:
        """The `k` best places of each query, as `DenseSearch.search` gives them: one for each coarse peak at most.

        Parameters
        ----------
        queries
            Features of both levels as `encode` makes them, or batches of images `(B, C, H, W)`.
        k
            Length of the lists; filled up with candidates that are not valid where there are fewer.
        masks
            How much each fine cell of a query counts, bool or 0 to 1, `(Q, h, w)`.

        Raises
        ------
        ValueError
            If `k` is no whole number of at least 1, features are not finite or do not fit the maps',
            or masks do not fit the queries.
        """
        if not isinstance(queries, Levels):
            queries = self.encode(queries)
        fine, coarse = self.fine.fitting(queries.fine, k), self.coarse.fitting(queries.coarse, k)
        masks = in_range(masks, fine)
        keep = self.keep or (2 * KEEP if min(coarse.shape[2:]) < SMALL else KEEP)
        parts = []
        for rows in batches(fine):
            some = None if masks is None else masks[rows]
            peaks = self.coarse_peaks(coarse[rows], some, max(keep, k))
            parts.append(suppress(self.fine_peaks(fine[rows], some, peaks), self.fine.radius, k))
        return candidates_of(parts, self.gallery, tuple(fine.shape[2:]), k)

    def coarse_peaks(self, coarse: Tensor, masks: Tensor | None, k: int) -> Peaks:
        """The `k` highest peaks of the coarse level, in fine cells; masks are those of the fine level."""
        if masks is not None:
            high, wide = (n * self.ratio for n in coarse.shape[2:])
            masks = F.avg_pool2d(masks[:, None, :high, :wide].float(), self.ratio)[:, 0]
        peaks = self.coarse.peaks(coarse, masks, k)
        return peaks._replace(at=peaks.at * self.ratio)

    def fine_peaks(self, fine: Tensor, masks: Tensor | None, peaks: Peaks) -> Peaks:
        """The highest fine score around each coarse peak, and where it is to a fraction of a cell."""
        fine, masks = weighed(fine, self.gallery.channels, masks)
        maps = list(self.gallery.maps.values())
        queries = prepared(fine, masks, maps[0].centred).to(self.device)
        weights = torch.ones(1, *fine.shape[2:]).expand(len(fine), -1, -1) if masks is None else masks.float()
        weights = weights.to(self.device)
        scores, at = torch.full_like(peaks.scores, -torch.inf), peaks.at.clone()
        for i, there in enumerate(torch.isfinite(peaks.scores)):
            corners = peaks.at[i, there].round().long() - self.reach
            if not len(corners):
                continue
            part = scores_around(maps, queries[i], weights[i], corners, peaks.area[i, there], 2 * self.reach + 1)
            best, flat = part.flatten(1).max(1, keepdim=True)
            row, col = flat // part.shape[2], flat % part.shape[2]
            scores[i, there] = best[:, 0].cpu()
            at[i, there] = refined(Block(0, 0, part), best, row, col)[:, 0].cpu() + corners
        return Peaks(scores, at, peaks.area)


def scores_around(
    maps: Sequence[FeatureMap], query: Tensor, weights: Tensor, corners: Tensor, area: Tensor, side: int
) -> Tensor:
    """Scores of a query at few shifts in many places: matrix products, as few shifts are too few for Fourier's domain.

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
    side
        Shifts along each axis.

    Returns
    -------
    Tensor (K, side, side); minus infinity where the query would leave the map, or lie on too little data.
    """
    places = [(maps[a], row, col) for a, (row, col) in zip(area.tolist(), corners.tolist(), strict=True)]
    high, wide = (n + side - 1 for n in query.shape[1:])
    cut = query.new_empty(high, len(places), len(query), wide)
    for n, (fmap, row, col) in enumerate(places):
        cut[:, n] = fmap.cut(row, col, high, wide).transpose(0, 1)
    weight = weights.sum().clamp(min=TINY)
    product, spread = _slid(query, cut), _slid(weights[None], cut.square().sum(2, keepdim=True))
    if maps[0].centred:
        sums = _slid(weights[None], cut.flatten(1, 2)[:, :, None]).unflatten(0, cut.shape[1:3])
        spread = spread - sums.square().sum(1) / weight
    scores = torch.where(spread < FLAT**2 * weight, 0.0, product * spread.clamp(min=TINY).rsqrt())
    if any(fmap.valid is not None for fmap in maps):
        data = torch.stack([fmap.data(row, col, high, wide) for fmap, row, col in places], 1)
        scores[_slid(weights[None], data[:, :, None].to(cut)) < (LEAST - 1e-4) * weight] = -torch.inf
    last = torch.tensor([[n - k for n, k in zip(m.features.shape[1:], query.shape[1:], strict=True)] for m in maps])
    shifts = corners[:, :, None] + torch.arange(side)
    gone = (shifts < 0) | (shifts > last[area][:, :, None])
    return scores.masked_fill((gone[:, 0, :, None] | gone[:, 1, None]).to(scores.device), -torch.inf)


def _slid(values: Tensor, windows: Tensor) -> Tensor:
    """Sums of a query's values `(C, h, w)` times windows `(H, K, C, W)` at every shift, `(K, H - h + 1, W - w + 1)`.

    A row of the query at all its shifts to the right, times the windows' rows at all their shifts down: these are one
    view of the windows, as their rows lie one after the other.
    """
    high, count, channels, wide = windows.shape
    down, right = high - values.shape[1] + 1, wide - values.shape[2] + 1
    lines = torch.stack([F.pad(values, (n, right - 1 - n)) for n in range(right)]).permute(2, 0, 1, 3).flatten(2)
    rows = windows.reshape(high * count, channels * wide).unfold(0, down * count, count)
    return torch.bmm(lines, rows).sum(0).unflatten(1, (down, count)).permute(2, 1, 0)
