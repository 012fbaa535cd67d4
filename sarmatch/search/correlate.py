"""Correlation of queries' feature maps with a whole map's, over all shifts: blocks in the Fourier domain.

Weighted zero-mean normalised cross-correlation over all channels together. With `q` the query's features less their
weighted mean per channel, a window `f` of the map under it, and the query's mask `m`, weights from 0 to 1:

    score = sum m q f / (sqrt(sum m q^2) sqrt(sum m f^2 - sum_c (sum m f_c)^2 / sum m))

which needs no mean of the window in the numerator, as that of `m q` is zero (Lewis, Vision Interface, 1995). Where the
map says that its features are not to be centred, no mean is taken off on either side, and the score is the cosine
`sum m q f / (sqrt(sum m q^2) sqrt(sum m f^2))`.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from sarmatch.search.peaks import Block

BLOCK = 4  # sides of a query along the side of a block that is transformed at once: more, and spectra outgrow the cache
BLOCK_CELLS = 160, 384  # and the least and most cells
TOGETHER = 16  # queries that are correlated at once
GROUP = 8  # blocks that are correlated at once, fewer where they are large
GROUP_BYTES = 128 << 20  # what the products of a group with the queries may take
AT_ONCE = 8  # inverse transforms in one call: as many as one line of cache brings
BUDGET = 1 << 30  # bytes of spectra and lengths that a search keeps between queries
LEAST = 0.5  # of a window's cells that must lie on data
TINY = 1e-12  # keeps a division from one by zero
FLAT = 1e-4  # spread per cell of a window or query below which there is nothing to compare


class FeatureMap(NamedTuple):
    """What the map of an area has become under a dense encoder.

    `features` are `(C, H, W)`, 0 where there is no data; `valid` bool `(H, W)`, or None where all is data; `corner` the
    local metres `(x, y)` of the top left, `metres` the side of a cell; `centred` whether scores take off the means of
    query and window, see `Encoder.centred`; `scale` `(C,)` what features that are kept as int8 are multiplied by, or
    None where they are floats.
    """

    features: Tensor
    valid: Tensor | None
    corner: tuple[float, float]
    metres: float
    centred: bool = True
    scale: Tensor | None = None

    def part(self, rows: slice, cols: slice) -> "FeatureMap":
        """A part of it as a map of its own."""
        x, y = self.metres_of(np.array(rows.start), np.array(cols.start))
        valid = None if self.valid is None else self.valid[rows, cols]
        return self._replace(features=self.features[:, rows, cols], valid=valid, corner=(float(x), float(y)))

    def cut(self, row: int, col: int, height: int, width: int) -> Tensor:
        """Features `(C, height, width)` from a cell on, as floats; zero beyond the map."""
        part = _padded(self.features, row, col, height, width)
        return part if self.scale is None else part * self.scale[:, None, None]

    def data(self, row: int, col: int, height: int, width: int) -> Tensor:
        """Where there is data in the same part, bool `(height, width)`; none beyond the map."""
        valid = torch.tensor(True).expand(self.features.shape[1:]) if self.valid is None else self.valid
        return _padded(valid[None], row, col, height, width)[0]

    def metres_of(self, row: NDArray, col: NDArray) -> NDArray[np.float64]:
        """Cells (edges count from 0) to local metres `(..., 2)`."""
        x, y = self.corner
        return np.stack([x + np.asarray(col) * self.metres, y - np.asarray(row) * self.metres], -1)


def prepared(queries: Tensor, masks: Tensor | None = None, centred: bool = True) -> Tensor:
    """Queries `(B, C, h, w)` as the numerator wants them: `m q / sqrt(sum m q^2)`; 0 for a query without any contrast.

    Parameters
    ----------
    queries
        Features.
    masks
        Weight of every cell, 0 to 1, `(B, h, w)`; 1 where there are none.
    centred
        Whether the weighted mean of each channel is taken off first.
    """
    masks = torch.ones(len(queries), 1, *queries.shape[2:]) if masks is None else masks[:, None].to(queries)
    weight = masks.sum((2, 3), keepdim=True).clamp(min=TINY)
    if centred:
        queries = queries - (queries * masks).sum((2, 3), keepdim=True) / weight
    length = (queries.square() * masks).sum((1, 2, 3), keepdim=True).sqrt()
    return queries * masks / length.clamp(min=TINY) * (length > FLAT * weight.sqrt())


def weighed(queries: Tensor, channels: int, masks: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Features `(B, channels, h, w)` of queries, and how much each of their cells counts `(B, h, w)`, or None.

    Queries of a channel more than `channels` bring a weight of their own as the last one, which masks are multiplied
    by: see `Encoder.channels`.
    """
    if queries.shape[1] == channels:
        return queries, masks
    own = queries[:, channels]
    return queries[:, :channels], own if masks is None else own * masks.to(own)


T = TypeVar("T", bound=tuple[Tensor | None, ...])


class Kept:
    """What is made once and kept as long as there is room for it; what does not fit is made whenever it is asked for.

    Parameters
    ----------
    budget
        Bytes of tensors that may be kept.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.room, self.full = budget, False
        self._things: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[..., T], *given: object) -> T:
        """The thing of this name, a tuple of tensors or None that `make` makes of what is given."""
        if key in self._things:
            return self._things[key]
        thing = make(*given)
        size = sum(t.nbytes for t in thing if t is not None)
        if size <= self.room:
            self.room -= size
            self._things[key] = thing
        else:
            self.full = True
        return thing


def _made(key: Hashable, make: Callable[..., T], *given: object) -> T:
    """As `Kept.get`, where nothing is kept."""
    return make(*given)


class _Spectra(NamedTuple):
    """Of a group of N blocks: of features `(F, N, C)`, of their squares' sum `(F, N)`, of where there is data."""

    features: Tensor
    energy: Tensor
    inside: Tensor | None


class _Lengths(NamedTuple):
    """Of a block: what products are multiplied by `(M, n, m)` for each mask, and what is added, 0 or minus infinity."""

    gain: Tensor
    outside: Tensor | None


class Correlator:
    """A map made ready to be correlated with queries of one size, block by block.

    Parameters
    ----------
    fmap
        The map.
    size
        Height and width of the queries in cells.
    margin
        Shifts by which neighbouring blocks overlap on each side, so that every shift is once inside with all its
        neighbours. Beyond the map, scores are minus infinity.
    block
        Cells that are transformed at once along each side, at most; raised where a query needs more. By default four
        times the query's side, 160 to 384.
    kept
        Where spectra and lengths of windows are kept for the next queries; nothing is kept by default.
    device
        Where it is computed.
    share
        Which of how many shares of the blocks it makes, `(number, count)`: shifts in `rows`, all of them by default.

    Notes
    -----
    Blocks without data are left out. Per frequency, a group of blocks times all queries is one matrix product. The
    lengths of the windows depend on the masks alone, and are computed once for queries of the same mask.
    """

    def __init__(
        self,
        fmap: FeatureMap,
        size: tuple[int, int],
        margin: int = 0,
        block: int | None = None,
        kept: Kept | None = None,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.fmap, self.size, self.margin, self.device = fmap, size, margin, device
        self._kept = Kept(0) if kept is None else kept
        self.shifts = tuple(n - k + 1 for n, k in zip(fmap.features.shape[1:], size, strict=True))
        self.groups: list[list[tuple[int, int]]] = []
        block = min(max(BLOCK * max(size), BLOCK_CELLS[0]), BLOCK_CELLS[1]) if block is None else block
        if min(self.shifts) < 1:
            return
        parts = (_parts(n, k + 2 * margin, block) for n, k in zip(self.shifts, size, strict=True))
        self.steps, self.sides = zip(*parts, strict=True)
        self._frequencies = (self.sides[0], self.sides[1] // 2 + 1)
        starts, (number, count) = range(0, self.shifts[0], self.steps[0]), share
        starts = starts[len(starts) * number // count : len(starts) * (number + 1) // count]
        self.rows = slice(starts.start, min(starts.stop, self.shifts[0]))
        corners = [(r, c) for r in starts for c in range(0, self.shifts[1], self.steps[1])]
        corners = [at for at in corners if fmap.valid is None or fmap.data(*self._part(at)).any()]
        together = GROUP_BYTES // (8 * TOGETHER * self._frequencies[0] * self._frequencies[1])
        together = min(max(together, 1), GROUP)
        self.groups = [corners[i : i + together] for i in range(0, len(corners), together)]

    def blocks(self, queries: Tensor, masks: Tensor | None = None) -> Iterator[Block]:
        """Scores of all shifts of all queries that lie on the map.

        Parameters
        ----------
        queries
            Features `(B, C, h, w)`, or with a weight of their own `(B, C + 1, h, w)`, see `weighed`.
        masks
            How much each cell of a query counts, 0 to 1 or bool, `(B, h, w)`; all alike where there are none.

        Yields
        ------
        Blocks, `margin` included on all sides: shifts from `row - margin`, `col - margin` on.
        """
        if not self.groups:
            return
        queries, masks = weighed(queries, len(self.fmap.features), masks)
        waves = self._waves(prepared(queries, masks, self.fmap.centred)).flatten(2).permute(2, 1, 0).contiguous()
        which = torch.zeros(len(queries), dtype=torch.int64)
        if masks is None:
            masks = torch.ones(1, *self.size)
        else:
            masks, which = masks.cpu().float().unique(dim=0, return_inverse=True)
        room = waves.new_empty(waves.shape[0], len(self.groups[0]), len(queries))
        for group, corners in enumerate(self.groups):
            spectra = self._kept.get((self, group), self._spectra, corners)
            product = room.flatten()[: room[:, : len(corners)].numel()].view(-1, len(corners), len(queries))
            torch.bmm(spectra.features, waves, out=product)
            product = product.unflatten(0, self._frequencies)
            for n, at in enumerate(corners):
                keep = self._kept.get if len(masks) == 1 else _made
                lengths = keep((self, at, masks.numpy().tobytes()), self._lengths, masks, spectra, n, at)
                yield Block(*at, self._scores(product[:, :, n], lengths, which))

    def _waves(self, queries: Tensor) -> Tensor:
        """Conjugate spectra `(B, C, ., .)` of queries or masks."""
        lines = torch.fft.rfft(queries.to(self.device), n=self.sides[1])  # of the query's own rows: the rest is zero
        return torch.fft.fft(lines, n=self.sides[0], dim=-2).conj()

    def _part(self, at: tuple[int, int]) -> tuple[int, int, int, int]:
        """Row, column, height and width of the cells that a block is made of."""
        return at[0] - self.margin, at[1] - self.margin, *self.sides

    def _spectra(self, corners: list[tuple[int, int]]) -> _Spectra:
        parts = torch.stack([self.fmap.cut(*self._part(at)).to(self.device).float() for at in corners])
        features = torch.fft.rfft2(parts).flatten(2).permute(2, 0, 1).contiguous()
        energy = torch.fft.rfft2(parts.square().sum(1)).flatten(1).T
        if self.fmap.valid is None:
            return _Spectra(features, energy, None)
        data = torch.stack([self.fmap.data(*self._part(at)) for at in corners])
        return _Spectra(features, energy, torch.fft.rfft2(data.to(self.device).float()).flatten(1).T)

    def _lengths(self, masks: Tensor, spectra: _Spectra, n: int, at: tuple[int, int]) -> _Lengths:
        """Lengths of the windows of a block under masks `(M, h, w)`."""
        weight = masks.sum((1, 2)).clamp(min=TINY).to(self.device)
        high, wide = (s + 2 * self.margin for s in self.steps)
        waves = self._waves(masks).flatten(1)
        gains, outsides = [], []
        for wave, total in zip(waves, weight, strict=True):

            def sums(spectrum: Tensor, wave: Tensor = wave) -> Tensor:
                product = (wave[:, None] * spectrum).unflatten(0, self._frequencies).permute(2, 0, 1)
                return torch.fft.irfft2(product, s=self.sides)[:, :high, :wide]

            spread = sums(spectra.energy[:, n, None])[0]
            if self.fmap.centred:
                spread = spread - sums(spectra.features[:, n]).square().sum(0) / total
            gains.append(torch.where(spread < FLAT**2 * total, 0.0, spread.clamp(min=TINY).rsqrt()))
            outside = self._outside(at, high, wide)
            if spectra.inside is not None:
                outside = outside | (sums(spectra.inside[:, n, None])[0] / total < LEAST - 1e-4)
            outsides.append(outside)
        outside = torch.stack(outsides)
        return _Lengths(torch.stack(gains), torch.where(outside, -torch.inf, 0.0) if outside.any() else None)

    def _outside(self, at: tuple[int, int], high: int, wide: int) -> Tensor:
        """Which shifts of a block leave the map, bool `(high, wide)`."""
        rows, cols = (
            torch.arange(n, device=self.device) + start - self.margin for n, start in zip((high, wide), at, strict=True)
        )
        rows, cols = ((r < 0) | (r >= n) for r, n in zip((rows, cols), self.shifts, strict=True))
        return rows[:, None] | cols

    def _scores(self, product: Tensor, lengths: _Lengths, which: Tensor) -> Tensor:
        """Scores `(B, n, m)` of a block from the product of spectra `(., ., B)`."""
        high, wide = lengths.gain.shape[1:]
        scores = torch.empty(len(which), high, wide, device=product.device)
        for rows in torch.arange(len(which)).split(AT_ONCE):
            part = scores[rows[0] : rows[-1] + 1]
            lines = torch.fft.ifft(product[..., rows[0] : rows[-1] + 1].permute(2, 0, 1), dim=1)[:, :high]
            of = which[rows] if len(lengths.gain) > 1 else slice(0, 1)
            torch.mul(torch.fft.irfft(lines, n=self.sides[1])[..., :wide], lengths.gain[of], out=part)
            if lengths.outside is not None:
                part += lengths.outside[of]
        return scores


def _padded(values: Tensor, row: int, col: int, height: int, width: int) -> Tensor:
    """Part of `(C, H, W)`, zero beyond it."""
    part = values[:, max(row, 0) : max(row + height, 0), max(col, 0) : max(col + width, 0)]
    left, top = min(max(-col, 0), width), min(max(-row, 0), height)
    around = [left, width - left - part.shape[2], top, height - top - part.shape[1]]
    return F.pad(part, around) if any(around) else part


def _parts(shifts: int, overhang: int, block: int) -> tuple[int, int]:
    """Shifts per block, as even as can be, and the side of a block that holds them: a length that transforms fast."""
    most = max(block - overhang + 1, overhang)
    step = -(-shifts // -(-shifts // most))
    return step, next_fast_len(step + overhang - 1, real=True)
