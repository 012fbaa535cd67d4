"""Search for queries of unknown heading and scale: turned by many headings, each found from coarse to fine."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sarmatch.checks import Count, whole_number
from sarmatch.encoders import Encoder
from sarmatch.search.candidates import Candidates
from sarmatch.search.coarse_to_fine import KEEP, CoarseToFine
from sarmatch.search.correlate import BUDGET
from sarmatch.search.dense import batches, candidates_of, fitting_images
from sarmatch.search.maps import DenseGallery
from sarmatch.search.peaks import Peaks, apart
from sarmatch.search.searches import register_search

HEADINGS = tuple(range(0, 360, 10))  # degrees
FINER = (-10 / 3, 0.0, 10 / 3)


class Pose(NamedTuple):
    """Degrees clockwise from north at which a query's top points, and how much larger its pixels are than the map's."""

    heading: float
    scale: float


@register_search("turned")
class TurnedSearch:
    """Every query at many headings, and at several scales: which way is north is found along with the place.

    A query is turned north up as if its heading were each of `headings`, and encoded; its coarse level is correlated
    with the whole map. The highest peaks of all headings together are looked at again on the fine map. A turned image
    fills a part of its frame only, and a mask leaves out the rest: no pixel is lost, and as every heading compares the
    same pixels, their scores can be compared.

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
        Degrees about the heading of a coarse peak that are tried on the fine map.
    keep, radius, reach, device, budget
        See `CoarseToFine`; `keep` counts the peaks of all headings together.

    Raises
    ------
    ValueError
        Where the gallery or the encoder has no coarse level, a number is less than 1, no heading or scale is given, or
        a scale is not above 0.

    Notes
    -----
    Its cost is that of encoding and of one coarse search for each heading and scale, 36 of them by default, and again
    that of encoding for each heading that is looked at on the fine map.
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
    ) -> None:
        if not (len(headings) and len(scales) and len(finer)):
            raise ValueError(f"headings, scales and finer need one value each, got {headings}, {scales} and {finer}")
        if min(scales) <= 0:
            raise ValueError(f"scales must be above 0, got {min(scales)}")
        self.gallery, self.finer, self.keep, self.radius = gallery, finer, keep, radius
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
            peaks, poses = self._fine(images[rows], *self._coarse(images[rows]))
            order = apart(peaks, self.radius, k)
            parts.append(_taken(peaks, order))
            posed.append(poses.gather(1, order[..., None].clamp(min=0).expand(-1, -1, 2)))
        found = candidates_of(parts, self.gallery, (0, 0), k)
        heading, scale = torch.cat([torch.zeros(0, k, 2, dtype=torch.float64), *posed]).unbind(-1)
        return replace(found, heading=heading.numpy() % 360, scale=scale.numpy())

    def _coarse(self, images: Tensor) -> tuple[Peaks, Tensor]:
        """Of some queries the `keep` highest peaks of all poses, at their centres, and the number of the pose of each.

        Poses whose frames have one size follow each other, as what is kept of the map serves one size.
        """
        found, number = [], []
        for i in sorted(range(len(self.poses)), key=lambda i: frame(images, self.poses[i], self.gallery.stride)):
            (fine, coarse), masks = self._seen(images, self.poses[i])
            peaks = self.upright.coarse_peaks(coarse, masks, self.keep)
            found.append(peaks._replace(at=peaks.at + torch.tensor(fine.shape[2:]) / 2))
            number.append(torch.full_like(peaks.area, i))
        peaks = Peaks(*(torch.cat(values, 1) for values in zip(*found, strict=True)))
        order = apart(peaks, max(self.radius, self.upright.ratio), self.keep)
        return _taken(peaks, order), torch.cat(number, 1).gather(1, order.clamp(min=0))

    def _fine(self, images: Tensor, coarse: Peaks, number: Tensor) -> tuple[Peaks, Tensor]:
        """Scores and centres of coarse peaks on the fine map, each at the best of the headings about its own; and this
        heading and scale `(Q, K, 2)`."""
        best = coarse._replace(scores=torch.full_like(coarse.scores, -torch.inf), at=coarse.at.clone())
        poses = torch.tensor(self.poses, dtype=torch.float64)[number]
        known = torch.isfinite(coarse.scores)
        tried = [
            (i, self.poses[i]._replace(heading=self.poses[i].heading + more))
            for i, more in product(number[known].unique().tolist(), self.finer)
        ]
        for i, pose in sorted(tried, key=lambda one: frame(images, one[1], self.gallery.stride)):
            here = (number == i) & known
            rows = here.any(1)
            (fine, _), masks = self._seen(images[rows], pose)
            middle = torch.tensor(fine.shape[2:]) / 2
            wanted = Peaks(coarse.scores.masked_fill(~here, -torch.inf), coarse.at - middle, coarse.area)
            found = self.upright.fine_peaks(fine, masks, Peaks(*(values[rows] for values in wanted)))
            better = found.scores > best.scores[rows]
            best.scores[rows] = torch.where(better, found.scores, best.scores[rows])
            best.at[rows] = torch.where(better[..., None], found.at + middle, best.at[rows])
            poses[rows] = torch.where(better[..., None], torch.tensor(pose, dtype=torch.float64), poses[rows])
        return best, poses

    def _seen(self, images: Tensor, pose: Pose) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Features of turned images at both levels, and how much of each fine cell they fill `(Q, h, w)`."""
        upright, inside = turned(images, pose, self.gallery.stride)
        mask = F.avg_pool2d(inside.float()[None], self.gallery.stride)
        return self.upright.encode([upright]), mask.expand(len(images), -1, -1)


def _taken(peaks: Peaks, order: Tensor) -> Peaks:
    """Peaks of these numbers `(Q, K)`; minus infinity where a number is -1."""
    taken = peaks.taken(order.clamp(min=0))
    return taken._replace(scores=taken.scores.masked_fill(order < 0, -torch.inf))


def frame(images: Tensor, pose: Pose, stride: int = 1) -> tuple[int, int]:
    """Height and width in pixels, multiples of `stride`, of what holds an image once it is turned and scaled."""
    high, wide = images.shape[2:]
    cos, sin = (abs(f(math.radians(pose.heading))) * pose.scale for f in (math.cos, math.sin))
    sides = high * cos + wide * sin, wide * cos + high * sin
    return tuple(math.ceil(round(side / stride, 6)) * stride for side in sides)


def turned(images: Tensor, pose: Pose, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Images of a pose, north up and of the map's pixel size.

    Parameters
    ----------
    images
        `(B, C, H, W)`.
    pose
        That of all of them: they are turned clockwise by the heading and enlarged by the scale, about their middle.
    stride
        The sides of the result are multiples of it.

    Returns
    -------
    images : Tensor (B, C, h, w)
        As large as holds every pixel; mirrored beyond the edges of the images.
    inside : bool (h, w)
        Where it holds them.
    """
    high, wide = frame(images, pose, stride)
    down, across = high / images.shape[2], wide / images.shape[3]
    ratio = images.shape[2] / images.shape[3]
    cos, sin = (f(math.radians(pose.heading)) / pose.scale for f in (math.cos, math.sin))
    affine = torch.tensor([[cos * across, sin * down * ratio, 0], [-sin * across / ratio, cos * down, 0]])
    grid = F.affine_grid(affine[None].to(images), [1, 1, high, wide], align_corners=False)
    inside = (grid[0].abs() <= 1).all(-1)
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False), inside
