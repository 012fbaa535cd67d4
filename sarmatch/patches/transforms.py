"""Augmentations of a batch of pairs: geometry keeps where the two images of a pair lie to each other known."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sarmatch.registry import Registry
from sarmatch.scenes.radiometry import STANDARD_WINDOW

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LOOKS = 4.0  # of the speckle that `respeckle` adds
WINDOW_DB = 6.0  # how much `window` may cut off at either end

TURN_DEGREES, ZOOM = 4.0, 0.04  # how much `jitter` turns and scales at most
CROPS = (1.0, 1.0, 0.75, 0.5)  # of the side of a query that `crop` leaves, one as likely as another


class Pairs(NamedTuple):
    """A batch of pairs on their way through the transforms.

    Attributes
    ----------
    query, reference : Tensor (B, C, H, W)
        SAR in decibels, and reflectance from 0 to 1.
    offset : Tensor (B, 2)
        From the middle of each query to that of its reference, rows and columns, in a unit of one's own.
    """

    query: torch.Tensor
    reference: torch.Tensor
    offset: torch.Tensor


Transform = Callable[[Pairs, torch.Generator], Pairs]

#: `(pairs, generator) -> pairs`; all chance comes from the generator.
TRANSFORMS: Registry[Transform] = Registry("transform")
_OF_VIEWS: dict[str, bool] = {}  # by name: whether it fits panoramas and their tiles


def register_transform(name: str, views: bool = False) -> Callable[[Transform], Transform]:
    """Decorator that gives a transform its name.

    Parameters
    ----------
    name
        What it will be called.
    views
        Whether it fits street panoramas and their tiles as well: it neither takes a query to be in decibels, nor turns
        one image of a pair without the other.
    """

    def keep(transform: Transform) -> Transform:
        TRANSFORMS.register(name)(transform)
        _OF_VIEWS[name] = views
        return transform

    return keep


def list_transforms(views: bool = False) -> list[str]:
    """Names that `augment` knows, sorted; with `views` those that fit street panoramas and their tiles."""
    return sorted(name for name in TRANSFORMS if _OF_VIEWS.get(name) or not views)


@register_transform("dihedral")
def dihedral(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """One of the eight symmetries of the square per pair, the same for both images and for their offset.

    A turned SAR image has its shadows on another side: it is what another look direction would have seen, roughly.
    """
    choice = torch.randint(8, (len(pairs.query),), generator=generator)
    query, reference, offset = (values.clone() for values in pairs)
    for code in range(1, 8):
        rows = torch.nonzero(choice == code)[:, 0].to(query.device)
        for images in (query, reference):
            turned = images[rows].rot90(code % 4, (2, 3))
            images[rows] = turned.flip(3) if code >= 4 else turned
        for _ in range(code % 4):
            offset[rows] = torch.stack([-offset[rows, 1], offset[rows, 0]], 1)
        if code >= 4:
            offset[rows, 1] = -offset[rows, 1]
    return Pairs(query, reference, offset)


@register_transform("jitter")
def jitter(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """The query is turned by up to 4 degrees and scaled by up to 4 % about its middle, the reference is not.

    What a strip of unsure heading or pixel size looks like; beyond its edge a query is mirrored.
    """
    batch = len(pairs.query)
    turn, zoom = 2 * torch.rand(2, batch, generator=generator) - 1
    angle, scale = turn * math.radians(TURN_DEGREES), 1 + zoom * ZOOM
    cos, sin, zero = scale * angle.cos(), scale * angle.sin(), torch.zeros(batch)
    affine = torch.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(batch, 2, 3).to(pairs.query)
    grid = F.affine_grid(affine, list(pairs.query.shape), align_corners=False)
    query = F.grid_sample(pairs.query, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return pairs._replace(query=query)


@register_transform("crop")
def crop(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """Half of the batches have smaller queries: three quarters or half of their side, about the same middle."""
    fraction = CROPS[int(torch.randint(len(CROPS), (1,), generator=generator))]
    side = pairs.query.shape[-1]
    cut = round((1 - fraction) * side / 2)
    return pairs._replace(query=pairs.query[:, :, cut : side - cut, cut : side - cut])


@register_transform("gamma")
def gamma(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """Contrast of SAR about its mean by a factor from 0.8 to 1.25, and a gamma of that range on the optical image."""
    power = (1.25 ** (2 * torch.rand(2, len(pairs.query), 1, 1, 1, generator=generator) - 1)).to(pairs.query)
    mean = pairs.query.mean((1, 2, 3), keepdim=True)
    query = (pairs.query - mean) * power[0] + mean
    return pairs._replace(query=query, reference=pairs.reference.clamp(min=0) ** power[1])


@register_transform("radiometry")
def radiometry(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """A gain of up to 1.5 dB on SAR; contrast, gain and colour balance of up to 20 % on the optical image."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(pairs.query.device)

    query, reference, batch = pairs.query, pairs.reference, len(pairs.query)
    query = query + uniform(-1.5, 1.5, batch, 1, 1, 1)
    mean = reference.mean((1, 2, 3), keepdim=True)
    reference = (reference - mean) * uniform(0.8, 1.2, batch, 1, 1, 1) + mean * uniform(0.8, 1.2, batch, 3, 1, 1)
    return pairs._replace(query=query, reference=reference)


@register_transform("grey", views=True)
def grey(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """Half of the optical images lose their colour."""
    reference = pairs.reference
    grey = _weighted(reference, torch.tensor(LUMA).expand(len(reference), 3))
    return pairs._replace(reference=_in_half(reference, grey, generator))


@register_transform("one_channel", views=True)
def one_channel(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """Half of the optical images show one of red, green, blue and grey in all channels (the four types of DCMHN)."""
    kinds = torch.cat([torch.eye(3), torch.tensor([LUMA])])
    reference = pairs.reference
    choice = torch.randint(4, (len(reference),), generator=generator)
    return pairs._replace(reference=_in_half(reference, _weighted(reference, kinds[choice]), generator))


@register_transform("channel_exchange", views=True)
def channel_exchange(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """The colours of each optical image are randomly permuted, in one of six orders."""
    reference = pairs.reference
    order = torch.rand(len(reference), 3, generator=generator).argsort(1).to(reference.device)
    return pairs._replace(reference=reference.gather(1, order[:, :, None, None].expand_as(reference)))


@register_transform("intermediate", views=True)
def intermediate(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """Half of the optical images become something between the modalities: a random mix of colours, bent by a gamma.

    The X modality (Li et al., AAAI 2020) trains its generator, one mix and a ReLU; here every image gets a random one.
    """
    reference = pairs.reference
    weights = torch.rand(len(reference), 3, generator=generator)
    mixed = _weighted(reference, weights / weights.sum(1, keepdim=True))
    power = (0.5 + 1.5 * torch.rand(len(reference), 1, 1, 1, generator=generator)).to(reference)
    return pairs._replace(reference=_in_half(reference, mixed.clamp(min=1e-6) ** power, generator))


@register_transform("respeckle")
def respeckle(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """SAR gets fresh multiplicative speckle of four looks on top of its own: an offset in decibels."""
    exponential = -torch.log(torch.rand(int(LOOKS), *pairs.query.shape, generator=generator).clamp(min=1e-12))
    return pairs._replace(query=pairs.query + 10 * torch.log10(exponential.mean(0)).to(pairs.query))


@register_transform("window")
def window(pairs: Pairs, generator: torch.Generator) -> Pairs:
    """SAR is clipped to a window of decibels that is up to 6 dB narrower at either end."""
    query = pairs.query
    cut = (WINDOW_DB * torch.rand(2, len(query), 1, 1, 1, generator=generator)).to(query)
    low, high = STANDARD_WINDOW
    return pairs._replace(query=torch.minimum(torch.maximum(query, low + cut[0]), high - cut[1]))


def _weighted(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """One mix of the three channels `(B, 3)`, in all of them."""
    return (images * weights.to(images)[:, :, None, None]).sum(1, keepdim=True).expand_as(images)


def _in_half(images: torch.Tensor, others: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator).to(images) < 0.5
    return torch.where(chosen, others, images)


def augment(pairs: Pairs, names: Sequence[str], generator: torch.Generator) -> Pairs:
    """Apply named transforms in their order."""
    for name in names:
        pairs = TRANSFORMS[name](pairs, generator)
    return pairs
