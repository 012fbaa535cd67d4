"""Dense search: a query's map of features, correlated with the whole map's over all shifts."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sarmatch.checks import Count, whole_number
from sarmatch.encoders import Encoder, device_of, in_use
from sarmatch.progress import progress
from sarmatch.search.candidates import Candidates
from sarmatch.search.correlate import BUDGET, TOGETHER, Correlator, FeatureMap, Kept, weighed
from sarmatch.search.keeping import exchanged, processes, zeros
from sarmatch.search.maps import DenseGallery
from sarmatch.search.peaks import Peaks, find_peaks, no_peaks, suppress
from sarmatch.search.searches import register_search


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
    device
        Where features are correlated; by default where the encoder's weights are.
    budget
        Bytes of the map's spectra that are kept between queries of one size; what does not fit is computed anew for
        every 16 queries.

    Notes
    -----
    Exhaustive, and exact up to the precision of kept maps: what is missed is missed by the features.
    """

    def __init__(
        self,
        gallery: DenseGallery,
        encoder: Encoder | None = None,
        radius: Count = 4,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
    ) -> None:
        self.gallery, self.encoder = gallery, encoder
        self.radius, self.budget = whole_number("radius", radius), whole_number("budget", budget, 0)
        self.device = device_of(encoder) if device is None else device
        self._kept = Kept(self.budget)
        self._ready: dict[tuple, list[Correlator]] = {}

    def encode(self, images: Iterable[Tensor]) -> Tensor:
        """Features `(Q, C, h, w)` of batches of SAR images `(B, C, H, W)`, at the pixel size of the map.

        They have a channel more, how much each cell counts, where the encoder says so: see `Encoder.channels`.

        Raises
        ------
        ValueError
            Where the search was made without an encoder, or images do not fit it.
        """
        encoder = given(self.encoder)
        device = device_of(encoder)
        with in_use(encoder):
            return torch.cat(
                [encoder.forward_features(fitting_images(b, encoder).to(device), "query").float().cpu() for b in images]
            )

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
            If `k` is no whole number of at least 1, features are not finite or do not fit the map's,
            or masks do not fit the queries.
        """
        queries = self.fitting(queries if isinstance(queries, Tensor) else self.encode(queries), k)
        masks = in_range(masks, queries)
        parts = [self.peaks(queries[rows], None if masks is None else masks[rows], k) for rows in batches(queries)]
        return candidates_of(parts, self.gallery, tuple(queries.shape[2:]), k)

    def fitting(self, queries: Tensor, k: int) -> Tensor:
        """Features that can be searched for; a ValueError says what does not fit."""
        whole_number("k", k)
        channels = self.gallery.channels
        if queries.ndim != 4 or queries.shape[1] not in (channels, channels + 1):
            raise ValueError(f"queries must be (Q, {channels}, h, w) as the map's features, got {tuple(queries.shape)}")
        if not queries.isfinite().all():
            raise ValueError("queries must be finite, and some features of them are not")
        in_range(weighed(queries, channels)[1], queries)
        return queries

    def peaks(self, queries: Tensor, masks: Tensor | None, k: int) -> Peaks:
        """The `k` highest peaks of some queries' correlation surfaces: where their top left corner lies, in cells.

        Apart from one another by more than `radius` cells; minus infinity where there are fewer.
        """
        kept = no_peaks(queries.to(self.device), 2 * k)  # some of equal height may be suppressed
        for area, correlator in enumerate(self._correlators(tuple(queries.shape[2:]))):
            for block in correlator.blocks(queries, masks):
                kept = kept.and_those(find_peaks(block, self.radius, 2 * k, kept.scores[:, -1], area), 2 * k)
        return Peaks(*(values.cpu() for values in suppress(kept, self.radius, k)))

    def surfaces(self, queries: Tensor, masks: Tensor | None = None, room: Path | None = None) -> Iterator[Tensor]:
        """Scores of all queries `(Q, C, h, w)` at every shift of each area's map: `(Q, H - h + 1, W - w + 1)` each.

        Minus infinity where a query would lie on too little data. Large ones are files in the folder `room`, where
        there is one; then the processes of an `accelerate launch` share the work, so that all of them have to ask, and
        see the same folder.
        """
        masks, state = in_range(masks, self.fitting(queries, 1)), processes()
        share = (0, 1) if room is None else (state.process_index, state.num_processes)
        for correlator in self._correlators(tuple(queries.shape[2:]), share):
            whole = pasted(correlator, queries, masks, room)
            if share != (0, 1):
                own = {f"{n} {correlator.rows.start}": one[correlator.rows] for n, one in enumerate(whole)}
                for at, rows in exchanged(own, room):
                    n, first = map(int, at.split())
                    whole[n, first : first + len(rows)] = rows
            yield whole

    def _correlators(self, size: tuple[int, int], share: tuple[int, int] = (0, 1)) -> list[Correlator]:
        """One per area, kept for the next queries of the same size; those of other sizes go when there is no room."""
        if (size, share) not in self._ready:
            if self._kept.full:
                self._kept, self._ready = Kept(self.budget), {}
            self._ready[size, share] = [
                Correlator(m, size, self.radius, kept=self._kept, device=self.device, share=share)
                for m in self.gallery.maps.values()
            ]
        return self._ready[size, share]


def batches(queries: Tensor) -> Iterator[slice]:
    """Rows of queries that are correlated at once, with a bar of progress."""
    with progress(total=len(queries), desc="dense search", unit="query") as bar:
        for start in range(0, len(queries), TOGETHER):
            yield slice(start, start + TOGETHER)
            bar.update(min(TOGETHER, len(queries) - start))


def candidates_of(parts: Iterable[Peaks], gallery: DenseGallery, size: tuple[int, int], k: int) -> Candidates:
    """Candidates `(Q, k)` of the peaks of several batches of queries of `size` cells."""
    filled = no_peaks(torch.zeros(0, 0), k)
    peaks = [filled, *(p.and_those(no_peaks(p.scores, k), k) for p in parts)]
    scores, at, area = (torch.cat(values).numpy() for values in zip(*peaks, strict=True))
    places = np.zeros_like(at)
    for code, fmap in enumerate(gallery.maps.values()):
        here = area == code
        places[here] = fmap.metres_of(*np.moveaxis(at[here] + np.array(size) / 2, -1, 0))
    return Candidates(scores, places, area, gallery.areas, np.isfinite(scores))


def given(encoder: Encoder | None) -> Encoder:
    """The encoder of a search; a ValueError where it was made without one."""
    if encoder is None:
        raise ValueError("this search has no encoder: give it one, or search with features instead of images")
    return encoder


def fitting_images(images: Tensor, encoder: Encoder) -> Tensor:
    """SAR images that an encoder can make features of; a ValueError says what does not fit."""
    bands, least = encoder.inputs["query"].channels, max(encoder.levels)
    if images.ndim != 4 or images.shape[1] != bands or min(images.shape[2:]) < least:
        raise ValueError(f"images must be (B, {bands}, H, W) of at least {least} px, got {tuple(images.shape)}")
    return images


def in_range(masks: Tensor | None, queries: Tensor) -> Tensor | None:
    """Masks that fit the queries, weights from 0 to 1; a ValueError says what does not fit."""
    wanted = (len(queries), *queries.shape[2:])
    if masks is None:
        return None
    if tuple(masks.shape) != wanted:
        raise ValueError(f"masks must be (Q, h, w), {wanted} as the queries' features, got {tuple(masks.shape)}")
    if masks.numel() and not (masks.min() >= 0 and masks.max() <= 1):
        raise ValueError(f"masks must be weights from 0 to 1, got {float(masks.min()):g} to {float(masks.max()):g}")
    return masks


def surface(fmap: FeatureMap, query: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scores of one query `(C, h, w)` at every shift of a map `(H - h + 1, W - w + 1)`: the picture of a search."""
    correlator = Correlator(fmap, tuple(query.shape[1:]))
    return pasted(correlator, query[None], None if mask is None else mask[None])[0]


def pasted(correlator: Correlator, queries: Tensor, masks: Tensor | None = None, room: Path | None = None) -> Tensor:
    """The blocks of some queries' scores put together, `(Q, H - h + 1, W - w + 1)`; large ones in a file in `room`."""
    if min(correlator.shifts) < 1:
        raise ValueError(f"queries of {correlator.size} cells do not fit into a map of fewer cells")
    margin = correlator.margin
    whole = zeros((len(queries), *correlator.shifts), torch.float32, room).fill_(-torch.inf)
    for block in correlator.blocks(queries, masks):
        inside = block.scores[:, margin:, margin:][:, : correlator.steps[0], : correlator.steps[1]]
        part = whole[:, block.row :, block.col :][:, : inside.shape[1], : inside.shape[2]]
        part.copy_(inside[:, : part.shape[1], : part.shape[2]])
    return whole
