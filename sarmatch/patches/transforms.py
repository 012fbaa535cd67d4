"""Augmentations of a batch of pairs. Geometry moves both images of a pair together, never one alone."""

from collections.abc import Callable, Sequence

import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def dihedral(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """One of the eight symmetries of the square per pair, the same for both images.

    A turned SAR image has its shadows on another side: it is what another flight line would have seen, roughly.
    """
    choice = torch.randint(8, (len(query),), generator=generator)
    query, reference = query.clone(), reference.clone()
    for code in range(1, 8):
        rows = torch.nonzero(choice == code)[:, 0].to(query.device)
        for images in (query, reference):
            turned = images[rows].rot90(code % 4, (2, 3))
            images[rows] = turned.flip(3) if code >= 4 else turned
    return query, reference


def radiometry(query: torch.Tensor, reference: torch.Tensor, generator: torch.Generator) -> Pair:
    """A gain of up to 1.5 dB on SAR; contrast, gain and colour balance of up to 20 % on the optical image."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(query.device)

    batch = len(query)
    query = query + uniform(-1.5, 1.5, batch, 1, 1, 1)
    mean = reference.mean((1, 2, 3), keepdim=True)
    reference = (reference - mean) * uniform(0.8, 1.2, batch, 1, 1, 1) + mean * uniform(0.8, 1.2, batch, 3, 1, 1)
    return query, reference


TRANSFORMS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Generator], Pair]] = {
    "dihedral": dihedral,
    "radiometry": radiometry,
}


def augment(query: torch.Tensor, reference: torch.Tensor, names: Sequence[str], generator: torch.Generator) -> Pair:
    """Apply named transforms in their order to `query (B, 1, H, W)` and `reference (B, 3, H, W)`."""
    for name in names:
        if name not in TRANSFORMS:
            raise ValueError(f"no transform is called {name!r}; there are {sorted(TRANSFORMS)}")
        query, reference = TRANSFORMS[name](query, reference, generator)
    return query, reference
