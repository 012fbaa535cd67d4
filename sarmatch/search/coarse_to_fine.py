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
        Coarse peaks per query that are looked at again; as many as candidates are wanted, where that is more.
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
        keep: Count = KEEP,
        radius: Count = 4,
        reach: Count | None = None,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
    ) -> None:
        if encoder is not None and len(encoder.levels) < 2:
            raise ValueError(f"{type(encoder).__name__} has no coarse level: search with DenseSearch")
        if gallery.coarse is None:
            raise ValueError("these feature maps have no coarse level: build them with an encoder that has one")
        self.gallery, self.encoder, self.keep = gallery, encoder, whole_number("keep", keep)
        self.ratio = gallery.coarse.stride // gallery.stride
        self.reach = self.ratio if reach is None else whole_number("reach", reach)
        self.device = device_of(encoder) if device is None else device
        self.fine = DenseSearch(gallery, None, radius, self.device, budget)
        self.coarse = DenseSearch(gallery.coarse, None, max(1, radius // self.ratio), self.device, budget)
        self._ready: Neighbourhoods | None = None

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
        parts = []
        for rows in batches(fine):
            some = None if masks is None else masks[rows]
            peaks = self.coarse_peaks(coarse[rows], some, max(self.keep, k))
            parts.append(suppress(self.fine_peaks(fine[rows], some, peaks), self.fine.radius, k))
        return candidates_of(parts, self.gallery, tuple(fine.shape[2:]), k)

    def coarse_peaks(self, coarse: Tensor, masks: Tensor | None, k: int) -> Peaks:
        """The `k` highest peaks of the coarse level, in fine cells; masks are those of the fine level."""
        if masks is not None:
            high, wide = (n * self.ratio for n in coarse.shape[2:])
            masks = F.avg_pool2d(masks[:, None, :high, :wide].float(), self.ratio)[:, 0]
        peaks = self.coarse.peaks(coarse, masks, k)
        return peaks._replace(at=peaks.at * self.ratio)

    def _neighbourhoods(self, size: tuple[int, int, int], count: int) -> "Neighbourhoods":
        """Made once for queries of one size: most of its time goes into memory that is new."""
        if self._ready is None or self._ready.size != size or self._ready.count < count:
            self._ready = Neighbourhoods(list(self.gallery.maps.values()), size, self.reach, count, self.device)
        return self._ready

    def fine_peaks(self, fine: Tensor, masks: Tensor | None, peaks: Peaks) -> Peaks:
        """The highest fine score around each coarse peak, and where it is to a fraction of a cell."""
        fine, masks = weighed(fine, self.gallery.channels, masks)
        around = self._neighbourhoods(tuple(fine.shape[1:]), peaks.scores.shape[1])
        queries = prepared(fine, masks, around.maps[0].centred)
        weights = torch.ones(1, *fine.shape[2:]).expand(len(fine), -1, -1) if masks is None else masks.float()
        scores, at = torch.full_like(peaks.scores, -torch.inf), peaks.at.clone()
        for i, there in enumerate(torch.isfinite(peaks.scores)):
            corners = peaks.at[i, there].round().long() - self.reach
            if not len(corners):
                continue
            part = around.scores(queries[i], weights[i], corners, peaks.area[i, there])
            best, flat = part.flatten(1).max(1, keepdim=True)
            row, col = flat // part.shape[2], flat % part.shape[2]
            scores[i, there] = best[:, 0].cpu()
            at[i, there] = refined(Block(0, 0, part), best, row, col)[:, 0].cpu() + corners
        return Peaks(scores, at, peaks.area)


class Neighbourhoods:
    """Scores of a query at few shifts in many places: matrix products, as few shifts are too few for Fourier's domain.

    Parameters
    ----------
    maps
        One per area.
    size
        Channels, height and width of the queries' features.
    reach
        Shifts to either side of the middle one.
    count
        Places at once, at most.
    device
        Where it is computed.
    """

    def __init__(
        self,
        maps: Sequence[FeatureMap],
        size: tuple[int, int, int],
        reach: int,
        count: int,
        device: torch.device | str = "cpu",
    ) -> None:
        channels = size[0]
        self.maps, self.size, self.side, self.count = maps, size, 2 * reach + 1, count
        self.window = tuple(n + 2 * reach for n in size[1:])
        self._windows = torch.empty(count, channels, *self.window, device=device)
        self._features, self._weights = (
            torch.zeros(self.side, self.side, n, *self.window, device=device) for n in (channels, 1)
        )

    def scores(self, query: Tensor, weights: Tensor, corners: Tensor, area: Tensor) -> Tensor:
        """Scores at all shifts around some places.

        Parameters
        ----------
        query
            Features `(C, h, w)` as `prepared` makes them.
        weights
            How much each of its cells counts `(h, w)`.
        corners, area
            First shift of each place `(K, 2)`, rows and columns, and its map `(K,)`.

        Returns
        -------
        Tensor (K, 2 reach + 1, 2 reach + 1); minus infinity where the query would leave the map, or lie on too little
        data.
        """
        places = [(self.maps[a], row, col) for a, (row, col) in zip(area.tolist(), corners.tolist(), strict=True)]
        cut = self._windows[: len(places)]
        for window, (fmap, row, col) in zip(cut, places, strict=True):
            window.copy_(fmap.cut(row, col, *self.window))
        product = cut.flatten(1) @ self._shifted(query, self._features)
        sums = self._shifted(weights[None], self._weights)
        weight = weights.sum().clamp(min=TINY).to(cut)
        energy = cut[:, 0].square()
        for channel in range(1, cut.shape[1]):  # without a second array as large as the windows
            energy.addcmul_(cut[:, channel], cut[:, channel])
        spread = energy.flatten(1) @ sums
        if self.maps[0].centred:
            spread = spread - (cut.flatten(2) @ sums).square().sum(1) / weight
        scores = torch.where(spread < FLAT**2 * weight, 0.0, product * spread.clamp(min=TINY).rsqrt())
        if any(fmap.valid is not None for fmap in self.maps):
            data = torch.stack([fmap.data(row, col, *self.window) for fmap, row, col in places]).to(cut)
            scores[data.flatten(1) @ sums < (LEAST - 1e-4) * weight] = -torch.inf
        return scores.unflatten(1, (self.side, self.side)).masked_fill(
            self._outside(corners, area).to(scores.device), -torch.inf
        )

    def _shifted(self, values: Tensor, room: Tensor) -> Tensor:
        """A query's values `(C, h, w)` at all shifts inside a window, as the columns of a matrix.

        They are written into `room`, whose other cells stay zero for the next query.
        """
        row, col, *rest = room.stride()
        view = room.as_strided(
            (self.side, self.side, len(values), *self.size[1:]), (row + rest[1], col + rest[2], *rest)
        )
        view.copy_(values.expand_as(view))
        return room.flatten(2).flatten(0, 1).T

    def _outside(self, corners: Tensor, area: Tensor) -> Tensor:
        """Which shifts leave the map, bool `(K, 2 reach + 1, 2 reach + 1)`."""
        last = torch.tensor(
            [[n - k for n, k in zip(m.features.shape[1:], self.size[1:], strict=True)] for m in self.maps]
        )
        shifts = corners[:, :, None] + torch.arange(self.side)
        gone = (shifts < 0) | (shifts > last[area][:, :, None])
        return gone[:, 0, :, None] | gone[:, 1, None]
