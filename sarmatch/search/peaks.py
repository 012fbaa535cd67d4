"""Peaks of correlation surfaces: the highest local maxima, to a fraction of a cell, apart from one another."""

from typing import NamedTuple

import torch
from torch import Tensor


class Block(NamedTuple):
    """Scores of some queries where their top left corner lies in a part of the map: `(B, n, m)` from `row`, `col`."""

    row: int
    col: int
    scores: Tensor


class Peaks(NamedTuple):
    """Highest scores of each query, best first: float32 `(B, K)`; where, float64 `(B, K, 2)`, rows and columns; and in
    which area, int64 `(B, K)`."""

    scores: Tensor
    at: Tensor
    area: Tensor

    def and_those(self, others: "Peaks", k: int) -> "Peaks":
        """The `k` highest of both."""
        return Peaks(*(torch.cat(both, 1) for both in zip(self, others, strict=True))).highest(k)

    def highest(self, k: int | None = None) -> "Peaks":
        """The `k` highest in order, all of them by default; of equal ones the first comes first."""
        order = self.scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        return self.taken(order)

    def taken(self, order: Tensor) -> "Peaks":
        """Those of these numbers `(B, K)`."""
        at = self.at.gather(1, order[..., None].expand(-1, -1, 2))
        return Peaks(self.scores.gather(1, order), at, self.area.gather(1, order))


def no_peaks(queries: Tensor, k: int) -> Peaks:
    """A list of `k` peaks for every query, none of which is there."""
    scores = queries.new_full((len(queries), k), -torch.inf)
    at = torch.zeros(*scores.shape, 2, dtype=torch.float64, device=scores.device)
    return Peaks(scores, at, at[..., 0].long())


def find_peaks(block: Block, margin: int, k: int, above: Tensor | None = None, area: int = 0) -> Peaks:
    """The `k` highest local maxima of every query in the inside of a block, refined within the cell by parabolas.

    A local maximum is no lower than anything within `margin` shifts; of equal ones the first counts. Where there are
    fewer, scores are minus infinity.

    Parameters
    ----------
    block
        Scores with `margin` more shifts on all sides.
    margin
        Reach of a local maximum.
    k
        Peaks per query.
    above
        Score `(B,)` that a peak has to exceed, where one is known.
    area
        The block's area.

    Notes
    -----
    Two local maxima are more than `margin` shifts apart, so a tile of `margin + 1` shifts holds one at most, and it is
    the tile's maximum. Only the highest tiles are looked at, more of them until enough of them hold one.
    """
    side = margin + 1
    down, right = (-(-(n - 2 * margin) // side) for n in block.scores.shape[1:])
    tiles = block.scores[:, margin : margin + down * side, margin : margin + right * side]
    tiles = tiles.unflatten(1, (down, side)).amax(2).unflatten(2, (right, side)).amax(3).flatten(1)
    if above is not None:
        tiles = torch.where(tiles > above[:, None], tiles, -torch.inf)
    there = max(1, int((tiles > -torch.inf).sum(1).max()))
    count = min(2 * k, there)
    while True:
        value, tile = tiles.topk(count, dim=1)
        row, col, value = _local_maxima(block.scores, margin, value, tile // right, tile % right)
        if count == there or bool((torch.isfinite(value).sum(1) >= k).all()):
            break
        count = min(4 * count, there)
    value, order = value.topk(min(k, count), dim=1)
    row, col = row.gather(1, order), col.gather(1, order)
    return Peaks(value, refined(block, value, row, col) - margin, torch.full_like(row, area))


def _local_maxima(
    scores: Tensor, margin: int, value: Tensor, tile_row: Tensor, tile_col: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where in a block tiles `(B, n)` have their maximum, and its score; minus infinity where it is not a local one."""
    side = margin + 1
    high, wide = scores.shape[1:]
    each = torch.arange(len(scores), device=scores.device)[:, None, None, None]

    def around(row: Tensor, col: Tensor, reach: int) -> Tensor:
        steps = torch.arange(reach, device=scores.device)
        rows, cols = row[..., None, None] + steps[:, None], col[..., None, None] + steps
        return scores[each, rows.clamp(max=high - 1), cols.clamp(max=wide - 1)]

    row, col = margin + tile_row * side, margin + tile_col * side
    first = around(row, col, side).flatten(2).argmax(2)
    row, col = row + first // side, col + first % side
    inside = (row < high - margin) & (col < wide - margin)
    row, col = row.clamp(max=high - 1 - margin), col.clamp(max=wide - 1 - margin)
    highest = around(row - margin, col - margin, 2 * margin + 1).amax((2, 3))
    return row, col, torch.where(inside & (value >= highest), value, -torch.inf)


def refined(block: Block, value: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Places of peaks on the map `(B, K, 2)`, by a parabola through each and its neighbours along either axis."""
    scores = block.scores
    each = torch.arange(len(scores), device=scores.device)[:, None].expand_as(row)

    def between(down: int, right: int) -> Tensor:
        known = (row >= down) & (row < scores.shape[1] - down) & (col >= right) & (col < scores.shape[2] - right)
        r, c = row.clamp(down, scores.shape[1] - 1 - down), col.clamp(right, scores.shape[2] - 1 - right)
        before, after = scores[each, r - down, c - right], scores[each, r + down, c + right]
        bend = 2 * value - before - after
        known &= torch.isfinite(before) & torch.isfinite(after) & (bend > 1e-9)
        return torch.where(known, 0.5 * (after - before) / bend.clamp(min=1e-9), 0.0).clamp(-0.5, 0.5)

    return torch.stack([block.row + row + between(1, 0).double(), block.col + col + between(0, 1).double()], -1)


def suppress(peaks: Peaks, radius: float, k: int) -> Peaks:
    """The `k` highest peaks of every query, `radius` cells or more from a higher one of their area on one axis.

    Local maxima are `radius + 1` shifts apart, and the parabola moves each by half a cell at most: only those of equal
    height that touch each other are left to suppress.
    """
    there = max(1, int(torch.isfinite(peaks.scores).sum(1).max())) if len(peaks.scores) else 1
    scores, at, area = peaks.highest(there)
    near = ((at[:, :, None] - at[:, None]).abs().amax(-1) < radius) & (area[:, :, None] == area[:, None])
    gone = ~torch.isfinite(scores)
    for i in range(scores.shape[1]):  # a peak that is gone suppresses nobody
        gone[:, i + 1 :] |= near[:, i, i + 1 :] & ~gone[:, i : i + 1]
    return Peaks(scores.masked_fill(gone, -torch.inf), at, area).highest(k)


def apart(peaks: Peaks, radius: float, k: int) -> Tensor:
    """Numbers `(B, k)` of the highest peaks, best first, `radius` cells or more from one another, as in `suppress`.

    Of however many peaks, in whatever order; -1 where there are fewer.
    """
    scores = peaks.scores.clone()
    each = torch.arange(len(scores), device=scores.device)
    chosen = []
    for _ in range(k):
        value, highest = scores.max(1)
        chosen.append(torch.where(torch.isfinite(value), highest, -1))
        near = (peaks.at - peaks.at[each, highest][:, None]).abs().amax(-1) < radius
        scores.masked_fill_(near & (peaks.area == peaks.area[each, highest][:, None]), -torch.inf)
    return torch.stack(chosen, 1)
