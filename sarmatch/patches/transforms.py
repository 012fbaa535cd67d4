"""Augmentations of a batch of pairs. Geometry moves both images of a pair together, never one alone."""

from collections.abc import Callable, Sequence

import torch

from sarmatch.registry import Registry
from sarmatch.scenes.radiometry import STANDARD_WINDOW

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LOOKS = 4.0  # of the speckle that `respeckle` adds
WINDOW_DB = 6.0  # how much `window` may cut off at either end

Pair = tuple[torch.Tensor, torch.Tensor]

#: `(query, reference, generator) -> (query, reference)`; all chance comes from the generator.
TRANSFORMS: Registry[Callable[[torch.Tensor, torch.Tensor, torch.Generator], Pair]] = Registry("transform")
register_transform = TRANSFORMS.register


def list_transforms() -> list[str]:
    """Names that `augment` knows, sorted."""
    return sorted(TRANSFORMS)


@register_transform("dihedral")
def dihedral(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """One of the eight symmetries of the square per pair, the same for both images.

    A turned SAR image has its shadows on another side: it is what another look direction would have seen, roughly.
    """
    choice = torch.randint(8, (len(query),), generator=generator)
    query, reference = query.clone(), reference.clone()
    for code in range(1, 8):
        rows = torch.nonzero(choice == code)[:, 0].to(query.device)
        for images in (query, reference):
            turned = images[rows].rot90(code % 4, (2, 3))
            images[rows] = turned.flip(3) if code >= 4 else turned
    return query, reference


@register_transform("radiometry")
def radiometry(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """A gain of up to 1.5 dB on SAR; contrast, gain and colour balance of up to 20 % on the optical image."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(query.device)

    batch = len(query)
    query = query + uniform(-1.5, 1.5, batch, 1, 1, 1)
    mean = reference.mean((1, 2, 3), keepdim=True)
    reference = (reference - mean) * uniform(0.8, 1.2, batch, 1, 1, 1) + mean * uniform(0.8, 1.2, batch, 3, 1, 1)
    return query, reference


@register_transform("grey")
def grey(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """Half of the optical images lose their colour."""
    return query, _in_half(reference, _weighted(reference, torch.tensor(LUMA).expand(len(reference), 3)), generator)


@register_transform("one_channel")
def one_channel(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """Half of the optical images show one of red, green, blue and grey in all channels (the four types of DCMHN)."""
    kinds = torch.cat([torch.eye(3), torch.tensor([LUMA])])
    choice = torch.randint(4, (len(reference),), generator=generator)
    return query, _in_half(reference, _weighted(reference, kinds[choice]), generator)


@register_transform("channel_exchange")
def channel_exchange(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """The colours of each optical image are randomly permuted, in one of six orders."""
    order = torch.rand(len(reference), 3, generator=generator).argsort(1).to(reference.device)
    return query, reference.gather(1, order[:, :, None, None].expand_as(reference))


@register_transform("intermediate")
def intermediate(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """Half of the optical images become something between the modalities: a random mix of colours, bent by a gamma.

    The X modality (Li et al., AAAI 2020) trains its generator, one mix and a ReLU; here every image gets a random one.
    """
    weights = torch.rand(len(reference), 3, generator=generator)
    mixed = _weighted(reference, weights / weights.sum(1, keepdim=True))
    gamma = (0.5 + 1.5 * torch.rand(len(reference), 1, 1, 1, generator=generator)).to(reference)
    return query, _in_half(reference, mixed.clamp(min=1e-6) ** gamma, generator)


@register_transform("respeckle")
def respeckle(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """SAR gets fresh multiplicative speckle of four looks on top of its own: an offset in decibels."""
    exponential = -torch.log(torch.rand(int(LOOKS), *query.shape, generator=generator).clamp(min=1e-12))
    return query + 10 * torch.log10(exponential.mean(0)).to(query), reference


@register_transform("window")
def window(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """SAR is clipped to a window of decibels that is up to 6 dB narrower at either end."""
    cut = (WINDOW_DB * torch.rand(2, len(query), 1, 1, 1, generator=generator)).to(query)
    low, high = STANDARD_WINDOW
    return torch.minimum(torch.maximum(query, low + cut[0]), high - cut[1]), reference


def _weighted(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """One mix of the three channels `(B, 3)`, in all of them."""
    return (images * weights.to(images)[:, :, None, None]).sum(1, keepdim=True).expand_as(images)


def _in_half(images: torch.Tensor, others: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator).to(images) < 0.5
    return torch.where(chosen, others, images)


def augment(query: torch.Tensor, reference: torch.Tensor, names: Sequence[str], generator: torch.Generator) -> Pair:
    """Apply named transforms in their order to `query (B, C, H, W)` in decibels and `reference (B, 3, H, W)`."""
    for name in names:
        query, reference = TRANSFORMS[name](query, reference, generator)
    return query, reference
