"""Scores of queries in windows little larger than they are, with gradients: what a dense encoder learns from."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-6  # energy below which a window has nothing to compare


def window_scores(queries: Tensor, windows: Tensor, centred: bool) -> Tensor:
    """Correlation of every query with every window at every shift at which it lies inside.

    Parameters
    ----------
    queries
        Features `(B, C, h, w)`.
    windows
        Features `(N, C, H, W)`, no smaller.
    centred
        Whether the mean of every channel is taken off, see `Encoder.centred`.

    Returns
    -------
    Tensor (B, N, H - h + 1, W - w + 1), -1 to 1: what `DenseSearch` scores, one shift like another.
    """
    queries, windows = queries.float(), windows.float()
    h, w = queries.shape[2:]
    sides = windows.shape[2:]
    if centred:
        queries = queries - queries.mean((2, 3), keepdim=True)
    waves = torch.fft.rfft2(queries, s=sides).conj()
    spectra = torch.fft.rfft2(windows)
    product = torch.einsum("bcf,ncf->bnf", waves.flatten(2), spectra.flatten(2)).unflatten(2, waves.shape[2:])
    product = torch.fft.irfft2(product, s=sides)[:, :, : sides[0] - h + 1, : sides[1] - w + 1]
    energy = _box(windows.square().sum(1, keepdim=True), h, w)[:, 0]
    if centred:
        energy = energy - _box(windows, h, w).square().sum(1) / (h * w)
    length = queries.square().sum((1, 2, 3)).clamp(min=LEAST).sqrt()[:, None, None, None]
    return product / (length * energy.clamp(min=LEAST).sqrt())


def _box(images: Tensor, h: int, w: int) -> Tensor:
    """Sums over all boxes of `h` by `w` cells."""
    total = F.pad(images.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
    boxes = total[:, :, h:, w:] - total[:, :, :-h, w:] - total[:, :, h:, :-w] + total[:, :, :-h, :-w]
    return boxes.to(images)
