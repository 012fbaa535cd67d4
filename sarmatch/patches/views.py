"""Panoramas and aerial tiles as tensors: the polar transform, and turns that keep a pair together."""

import math

import torch
import torch.nn.functional as F

from sarmatch.patches.transforms import Pairs, register_transform


def polar_transform(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Aerial tiles unrolled about their centre, so that they are laid out like panoramas that look north.

    Parameters
    ----------
    images
        North-up tiles `(B, C, S, S)`.
    size
        Height `h` and width `w` of the result.

    Returns
    -------
    Tensor `(B, C, h, w)`. Pixel `(r, c)` is the tile at the distance `(1 - (r + 1/2) / h) S / 2` from its centre in the
    direction `360 ((c + 1/2) / w - 1/2)` degrees clockwise from north: the centre at the bottom, north in the middle.

    Notes
    -----
    SAFA (Shi et al., NeurIPS 2019) has north at the left edge, which is this result rolled by half of its width: here
    it lies where the panoramas have it.
    """
    height, width = size
    radius = 1 - (torch.arange(height, device=images.device) + 0.5) / height
    azimuth = 2 * math.pi * ((torch.arange(width, device=images.device) + 0.5) / width - 0.5)
    grid = torch.stack([radius[:, None] * azimuth.sin(), -radius[:, None] * azimuth.cos()], -1).to(images.dtype)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), padding_mode="border", align_corners=False)


@register_transform("turn_views", views=True)
def turn_views(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """A quarter turn per pair, of the panorama and of its tile, as if both had another north.

    A tile that is no square is taken to be polar, and rolled like the panorama.
    """
    choice = torch.randint(4, (len(pairs.query),), generator=generator)
    query, reference, offset = (values.clone() for values in pairs)
    for quarters in range(1, 4):
        rows = torch.nonzero(choice == quarters)[:, 0].to(query.device)
        query[rows] = _rolled(query[rows], quarters)
        tiles = reference[rows]
        square = tiles.shape[2] == tiles.shape[3]
        reference[rows] = tiles.rot90(quarters, (2, 3)) if square else _rolled(tiles, quarters)
        for _ in range(quarters):
            offset[rows] = torch.stack([-offset[rows, 1], offset[rows, 0]], 1)
    return Pairs(query, reference, offset)


def _rolled(panoramas: torch.Tensor, quarters: int) -> torch.Tensor:
    """Panoramas after the ground was turned anticlockwise by so many quarters."""
    return panoramas.roll(-quarters * panoramas.shape[3] // 4, 3)
