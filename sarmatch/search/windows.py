"""Scores in windows little larger than they are, with gradients: what a dense encoder learns from."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sarmatch.search.correlate import weighed

LEAST = 1e-6  # energy below which a window has nothing to compare


def window_scores(queries: Tensor, windows: Tensor, centred: bool) -> Tensor:
    """Correlation of every query with every window at every shift at which it lies inside.

    Parameters
    ----------
    queries
        Features `(B, C, h, w)`, or with how much each cell counts as a last channel, `(B, C + 1, h, w)`.
    windows
        Features `(N, C, H, W)`, no smaller.
    centred
        Whether the mean of every channel is taken off, see `Encoder.centred`.

    Returns
    -------
    Tensor (B, N, H - h + 1, W - w + 1), -1 to 1: what `DenseSearch` scores, one shift like another.
    """
    windows = windows.float()
    queries, weights = weighed(queries.float(), windows.shape[1])
    mask = queries.new_ones(1, 1, *queries.shape[2:]) if weights is None else weights[:, None]
    total = mask.sum((2, 3), keepdim=True).clamp(min=LEAST)
    if centred:
        queries = queries - (queries * mask).sum((2, 3), keepdim=True) / total
    length = (queries.square() * mask).sum((1, 2, 3)).clamp(min=LEAST).sqrt()[:, None, None, None]
    product = _correlated("bcf,ncf->bnf", queries * mask, windows)

    def sums(values: Tensor) -> Tensor:
        """Of values `(N, c, H, W)` under the mask at every shift, `(B, N, c, n, m)`."""
        if weights is None:
            return _box(values, *queries.shape[2:])[None]
        return _correlated("bcf,ndf->bndf", mask, values)

    energy = sums(windows.square().sum(1, keepdim=True))[:, :, 0]
    if centred:
        energy = energy - sums(windows).square().sum(2) / total
    return product / (length * energy.clamp(min=LEAST).sqrt())


def _correlated(over: str, queries: Tensor, windows: Tensor) -> Tensor:
    """Products of spectra `(B, c, .)` and `(N, c, .)` as `over` names them, at every shift of a query in a window."""
    sides = windows.shape[2:]
    rows, cols = (side - own + 1 for side, own in zip(sides, queries.shape[2:], strict=True))
    waves, spectra = torch.fft.rfft2(queries, s=sides).conj(), torch.fft.rfft2(windows)
    product = torch.einsum(over, waves.flatten(2), spectra.flatten(2)).unflatten(-1, waves.shape[2:])
    return torch.fft.irfft2(product, s=sides)[..., :rows, :cols]


def _box(images: Tensor, h: int, w: int) -> Tensor:
    """Sums over all boxes of `h` by `w` cells."""
    total = F.pad(images.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
    boxes = total[:, :, h:, w:] - total[:, :, :-h, w:] - total[:, :, h:, :-w] + total[:, :, :-h, :-w]
    return boxes.to(images)
