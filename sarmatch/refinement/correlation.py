"""Correlation of a query with the ground around each candidate, over all shifts: the pixels have a say.

Channel features of orientated gradients (CFOG; Ye et al., IEEE TGRS 57, 2019), correlated in the Fourier domain.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sarmatch.progress import progress
from sarmatch.refinement.evidence import Evidence
from sarmatch.search import Candidates

ORIENTATIONS = 9
PAIRS = 256  # of query and candidate that are correlated at once
SIGMA = 0.8  # pixels, of the smoothing of each channel, as published


def cfog(images: Tensor) -> Tensor:
    """Orientation channels of grey images `(B, H, W)`, float32 `(B, 9, H, W)`.

    Of the gradient `(gx, gy)`, the channel at angle t is `|gx cos t + gy sin t|`: a bright edge and a dark one are
    alike, as they have to be between SAR and optical. Channels are smoothed in space (Gaussian, 0.8 pixels) and over
    angles (1 2 1, around the circle), and scaled to length one at every pixel. The mean over the image is taken out.
    """
    grey = images.double().numpy()
    down, right = np.gradient(grey, axis=1), np.gradient(grey, axis=2)
    angle = np.arange(ORIENTATIONS)[:, None, None] * math.pi / ORIENTATIONS
    channels = np.abs(np.cos(angle) * right[:, None] + np.sin(angle) * down[:, None])
    channels = gaussian_filter(channels, (0, 0, SIGMA, SIGMA))
    channels = (np.roll(channels, 1, 1) + 2 * channels + np.roll(channels, -1, 1)) / 4
    # the floor keeps what has no gradient at all from being scaled up
    channels /= np.sqrt((channels**2).sum(1, keepdims=True)) + 1e-6 * channels.max() + 1e-12
    channels -= channels.mean((2, 3), keepdims=True)
    return torch.from_numpy(channels.astype(np.float32))


def surfaces(candidates: Candidates, evidence: Evidence, resolution: int = 50) -> Iterator[Tensor]:
    """Correlation of every query with the ground around each of its candidates.

    Parameters
    ----------
    candidates
        Lists of K.
    evidence
        With `images`.
    resolution
        Pixels per tile, r.

    Yields
    ------
    For some queries after others, float32 `(B, K, r + 1, r + 1)`: the cosine of the query's channels and those of the
    window that lies shifted by `(row - r // 2, column - r // 2)` pixels from the candidate, -1 to 1.

    Raises
    ------
    ValueError
        Where the evidence holds no images.
    """
    if evidence.images is None:
        raise ValueError("this refiner looks at pixels, and the evidence holds no images")
    evidence.check(candidates)
    query, ground = evidence.images(resolution)
    query, ground = cfog(query), cfog(ground)
    side = 2 * resolution
    spectrum = torch.fft.rfft2(ground)
    box = torch.zeros(side, side)
    box[:resolution, :resolution] = 1
    energy = torch.fft.irfft2(torch.fft.rfft2(ground.square().sum(1)) * torch.fft.rfft2(box).conj(), s=(side, side))
    length = energy[:, : resolution + 1, : resolution + 1].clamp(min=1e-6).sqrt()
    own = query.square().sum((1, 2, 3)).clamp(min=1e-6).sqrt()
    waves = torch.fft.rfft2(F.pad(query, (0, resolution, 0, resolution))).conj()
    some = max(1, PAIRS // max(1, candidates.indices.shape[1]))
    rows = torch.arange(len(query)).split(some)
    for chunk in progress(rows, desc="correlation", unit=f"{some} queries"):
        listed = torch.from_numpy(candidates.indices[chunk.numpy()])
        product = torch.einsum("qchw,qkchw->qkhw", waves[chunk], spectrum[listed])
        product = torch.fft.irfft2(product, s=(side, side))[..., : resolution + 1, : resolution + 1]
        yield product / (length[listed] * own[chunk, None, None, None])


def peaks(surface: Tensor, tile_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Highest value of each surface `(..., S, S)` and where it lies.

    Returns
    -------
    values float32 `(...)`, and offsets float64 `(..., 2)` in metres east and north of the tile's centre, refined
    within the pixel by a parabola through the neighbours of the peak.
    """
    side = surface.shape[-1]
    flat = surface.flatten(0, -3) if surface.ndim > 2 else surface[None]
    value, at = flat.flatten(1).max(1)
    row, column = at // side, at % side
    pixel = tile_m / (side - 1)
    each = torch.arange(len(flat))

    def between(axis_row: int, axis_column: int) -> Tensor:
        before = flat[each, (row - axis_row).clamp(0, side - 1), (column - axis_column).clamp(0, side - 1)]
        after = flat[each, (row + axis_row).clamp(0, side - 1), (column + axis_column).clamp(0, side - 1)]
        bend = 2 * value - before - after
        return torch.where(bend > 1e-9, 0.5 * (after - before) / bend.clamp(min=1e-9), 0.0).clamp(-0.5, 0.5)

    north = -(row + between(1, 0) - side // 2).double() * pixel
    east = (column + between(0, 1) - side // 2).double() * pixel
    shape = surface.shape[:-2]
    return value.view(shape).numpy(), torch.stack([east, north], -1).view(*shape, 2).numpy()
