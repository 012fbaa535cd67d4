"""Search for queries of unknown heading and scale: turned by many headings, each found from coarse to fine."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice, product
from operator import attrgetter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sarmatch.checks import Count, whole_number
from sarmatch.encoders import Encoder
from sarmatch.search.candidates import Candidates
from sarmatch.search.coarse_to_fine import KEEP, CoarseToFine
from sarmatch.search.correlate import BUDGET, TOGETHER
from sarmatch.search.dense import batches, candidates_of, fitting_images
from sarmatch.search.maps import DenseGallery
from sarmatch.search.peaks import Peaks, apart, no_peaks
from sarmatch.search.searches import register_search

#: Degrees. None is a quarter turn: those alone interpolate nothing, and their sharper images scored higher anywhere.
HEADINGS = tuple(range(5, 360, 10))
FINER = (-10 / 3, 0.0, 10 / 3)
#: Power of the scale by which scores are multiplied. The less of the map a query covers, the wider its scores spread,
#: so that scales too small had won. See `sarmatch.experiments.dense.powers_table` for what others do.
EVEN = 0.25


class Pose(NamedTuple):
    """Degrees clockwise from north at which a query's top points, and how much larger its pixels are than the map's."""

    heading: float
    scale: float


@register_search("turned")
class TurnedSearch:
    """Every query at many headings, and at several scales: which way is north is found along with the place.

    A query is turned north up as if its heading were each of `headings`, and encoded; its coarse level is correlated
    with the whole map. The highest peaks of all headings together are looked at again on the fine map, and the `few`
    best of them also at headings between those. A turned image fills a part of its frame only, and a mask leaves out
    the rest: no pixel is lost, and as every heading compares the same pixels, their scores can be compared. Those of
    different scales are multiplied by the fourth root of the scale first.

    Parameters
    ----------
    gallery
        Feature maps with a coarse level.
    encoder
        Makes features of the turned queries, of both levels.
    headings
        Degrees clockwise from north at which a query's top may point.
    scales
        How much larger its pixels may be than those of the map: at 1.1 it shows 1.1 times as much ground along a side.
    finer
        Degrees about their own heading that the `few` best peaks are tried at on the fine map.
    keep, radius, reach, device, budget
        See `CoarseToFine`; `keep` counts the peaks of all headings together.
    few
        Peaks that are tried at `finer` headings, the highest on the fine map; 30 by default, as many as are kept.

    Raises
    ------
    ValueError
        Where the gallery or the encoder has no coarse level, a number is less than 1, no heading or scale is given, or
        a scale is not above 0.

    Notes
    -----
    Its cost is that of encoding and of one coarse search for each heading and scale, 36 of them by default, and that of
    encoding once more at other headings, `few` of them at most for each value of `finer`. What is encoded for the
    coarse search serves the fine map as well: of 16 queries at a time, features of all headings are held in memory.
    """

    def __init__(
        self,
        gallery: DenseGallery,
        encoder: Encoder,
        headings: Sequence[float] = HEADINGS,
        scales: Sequence[float] = (1.0,),
        finer: Sequence[float] = FINER,
        keep: Count = KEEP,
        radius: Count = 4,
        reach: Count | None = None,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
        few: Count = KEEP,
    ) -> None:
        if not (len(headings) and len(scales) and len(finer)):
            raise ValueError(f"headings, scales and finer need one value each, got {headings}, {scales} and {finer}")
        if min(scales) <= 0:
            raise ValueError(f"scales must be above 0, got {min(scales)}")
        self.gallery, self.finer, self.radius = gallery, finer, radius
        self.keep, self.few = keep, whole_number("few", few)
        self.upright = CoarseToFine(gallery, encoder, keep, radius, reach, device, budget)
        self.poses = [Pose(*pose) for pose in product(headings, scales)]

    def encode(self, images: Iterable[Tensor]) -> Tensor:
        """Batches of SAR images `(B, C, H, W)` as one: features are made of each anew at every heading."""
        return torch.cat([fitting_images(b, self.upright.encoder) for b in images])

    @torch.no_grad()
    def search(self, queries: Tensor | Iterable[Tensor], k: int) -> Candidates:
        """The `k` best places of each query with its heading and scale there.

        Parameters
        ----------
        queries : Tensor (Q, C, H, W), or batches of such images
            SAR images.
        k
            Length of the lists, no longer than `keep`; filled up with candidates that are not valid.

        Raises
        ------
        ValueError
            If `k` is no whole number from 1 to `keep`, or images are not finite or do not fit the encoder.
        """
        if whole_number("k", k) > self.keep:
            raise ValueError(f"k must be from 1 to the {self.keep} peaks that are kept, got {k}")
        images = self.encode([queries] if isinstance(queries, Tensor) else queries)
        if not (finite := torch.isfinite(images).flatten(1).all(1)).all():
            raise ValueError(f"query {int(finite.logical_not().nonzero()[0])} has pixels that are not finite")
        parts, posed = [], []
        for rows in batches(images):
            views = _Views(images[rows], self.upright, self.gallery.stride)
            peaks, poses = self._fine(views, *self._coarse(views))
            order = apart(peaks, self.radius, k)
            parts.append(_taken(peaks, order))
            posed.append(_of(poses, order))
        found = candidates_of(parts, self.gallery, (0, 0), k)
        heading, scale = torch.cat([torch.zeros(0, k, 2, dtype=torch.float64), *posed]).unbind(-1)
        return replace(found, heading=heading.numpy() % 360, scale=scale.numpy())

    def _coarse(self, views: "_Views") -> tuple[Peaks, Tensor]:
        """Of some queries the `keep` highest peaks of all poses, at their centres, and the pose of each `(Q, K, 2)`."""
        count = len(views.images)
        found, rows, poses = [], [], []
        for looks, seen in views.of(Look(pose, row) for pose in self.poses for row in range(count)):
            masks = torch.stack([view.mask for view in seen])
            peaks = self.upright.coarse_peaks(torch.stack([view.coarse for view in seen]), masks, self.keep)
            peaks = peaks.and_those(no_peaks(peaks.scores, self.keep), self.keep)
            scores = peaks.scores * _even([look.pose for look in looks])
            found.append(peaks._replace(scores=scores, at=peaks.at + torch.tensor(masks.shape[1:]) / 2))
            rows += [look.row for look in looks]
            poses += [look.pose for look in looks]
        order = torch.tensor(rows).argsort(stable=True).unflatten(0, (count, -1))  # by the query
        peaks = Peaks(*(torch.cat(values)[order].flatten(1, 2) for values in zip(*found, strict=True)))
        posed = torch.tensor(poses, dtype=torch.float64)[order].repeat_interleave(self.keep, 1)
        order = apart(peaks, max(self.radius, self.upright.ratio), self.keep)
        return _taken(peaks, order), _of(posed, order)

    def _fine(self, views: "_Views", coarse: Peaks, poses: Tensor) -> tuple[Peaks, Tensor]:
        """Scores and centres of coarse peaks on the fine map, and their poses `(Q, K, 2)`: all as they were found, and
        the `few` highest of them at the best of the headings about their own."""
        peaks = self._scored(views, coarse, poses)
        order = peaks.scores.argsort(dim=1, descending=True, stable=True)
        peaks, poses = peaks.taken(order), _of(poses, order)
        best, own = Peaks(*(values[:, : self.few] for values in peaks)), poses[:, : self.few].clone()
        for more in filter(None, self.finer):  # their own is known
            tried = own + torch.tensor((more, 0.0))
            found = self._scored(views, best, tried)
            better = found.scores > peaks.scores[:, : self.few]
            for values, new in zip((*peaks[:2], poses), (*found[:2], tried), strict=True):
                values[:, : self.few][better] = new[better]
        return peaks, poses

    def _scored(self, views: "_Views", peaks: Peaks, poses: Tensor) -> Peaks:
        """The highest fine score about the centre of each peak, and where, with its query in the pose of it."""
        scores, at = torch.full_like(peaks.scores, -torch.inf), peaks.at.clone()
        known = torch.isfinite(peaks.scores)
        wanted = (Look(Pose(*p), i) for i, own in enumerate(poses) for p in own[known[i]].unique(dim=0).tolist())
        for looks, seen in views.of(wanted):
            rows = torch.tensor([look.row for look in looks])
            posed = torch.tensor([look.pose for look in looks], dtype=torch.float64)
            here = (poses[rows] == posed[:, None]).all(-1) & known[rows]
            fine, masks = (torch.stack(values) for values in zip(*((v.fine, v.mask) for v in seen), strict=True))
            middle = torch.tensor(masks.shape[1:]) / 2
            those = Peaks(peaks.scores[rows].masked_fill(~here, -torch.inf), peaks.at[rows] - middle, peaks.area[rows])
            found = self.upright.fine_peaks(fine, masks, those)
            which, column = here.nonzero(as_tuple=True)
            scores[rows[which], column] = (found.scores * _even([look.pose for look in looks]))[here]
            at[rows[which], column] = found.at[here] + middle
        return Peaks(scores, at, peaks.area)


class Look(NamedTuple):
    """A query, by its row, in one pose."""

    pose: Pose
    row: int


class Seen(NamedTuple):
    """Features `(C, h, w)` of a turned query, fine and coarse, and how much of each fine cell it fills `(h, w)`."""

    fine: Tensor
    coarse: Tensor
    mask: Tensor


class _Views:
    """Some queries in the poses in which they are looked at, each of them encoded once."""

    def __init__(self, images: Tensor, search: CoarseToFine, stride: int) -> None:
        self.images, self._search, self._stride = images, search, stride
        self._seen: dict[Look, Seen] = {}

    def of(self, looks: Iterable[Look]) -> Iterator[tuple[list[Look], list[Seen]]]:
        """Some looks and what is seen in them, those together whose frames have one size, no more than 16."""

        def size(look: Look) -> tuple[int, int]:
            return frame(self.images, look.pose, self._stride)

        for _, same in groupby(sorted(looks, key=size), size):
            while part := list(islice(same, TOGETHER)):
                self._encode([look for look in part if look not in self._seen])
                yield part, [self._seen[look] for look in part]

    def _encode(self, looks: list[Look]) -> None:
        upright, masks = [], []
        for pose, same in groupby(looks, attrgetter("pose")):
            rows = [look.row for look in same]
            images, inside = turned(self.images[rows], pose, self._stride)
            upright.append(images)
            masks += len(rows) * [F.avg_pool2d(inside.float()[None], self._stride)[0]]
        if looks:
            self._seen |= dict(zip(looks, map(Seen, *self._search.encode(upright), masks), strict=True))


def _even(poses: Sequence[Pose]) -> Tensor:
    """What scores of poses are multiplied by `(B, 1)`, so that those of different scales can be compared."""
    return torch.tensor([pose.scale for pose in poses])[:, None] ** EVEN


def _taken(peaks: Peaks, order: Tensor) -> Peaks:
    """Peaks of these numbers `(Q, K)`; minus infinity where a number is -1."""
    taken = peaks.taken(order.clamp(min=0))
    return taken._replace(scores=taken.scores.masked_fill(order < 0, -torch.inf))


def _of(poses: Tensor, order: Tensor) -> Tensor:
    """Poses `(Q, K, 2)` of these numbers; that of the first where a number is -1."""
    return poses.gather(1, order[..., None].clamp(min=0).expand(-1, -1, 2))


def frame(images: Tensor, pose: Pose, stride: int = 1) -> tuple[int, int]:
    """Height and width in pixels, multiples of `stride`, of what holds an image once it is turned and scaled."""
    high, wide = images.shape[2:]
    cos, sin = (abs(f(math.radians(pose.heading))) * pose.scale for f in (math.cos, math.sin))
    sides = high * cos + wide * sin, wide * cos + high * sin
    return tuple(math.ceil(round(side / stride, 6)) * stride for side in sides)


def turned(images: Tensor, pose: Pose, stride: int = 1, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Images of a pose, north up and of the map's pixel size.

    Parameters
    ----------
    images
        `(B, C, H, W)`.
    pose
        That of all of them: they are turned clockwise by the heading and enlarged by the scale, about their middle.
    stride
        The sides of the result are multiples of it.
    size
        Height and width of the result about the middle of the images, instead of those that hold every pixel.

    Returns
    -------
    images : Tensor (B, C, h, w)
        As large as holds every pixel; mirrored beyond the edges of the images.
    inside : bool (h, w)
        Where it holds them.
    """
    high, wide = frame(images, pose, stride) if size is None else size
    cos, sin = (f(math.radians(pose.heading)) / pose.scale for f in (math.cos, math.sin))
    x, y = (torch.arange(n).to(images) - (n - 1) / 2 for n in (wide, high))  # pixels from the middle
    across, down = cos * x + sin * y[:, None], cos * y[:, None] - sin * x  # those of the image
    grid = torch.stack([across / images.shape[3], down / images.shape[2]], -1) * 2
    inside = (grid.abs() <= 1).all(-1)
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False), inside
