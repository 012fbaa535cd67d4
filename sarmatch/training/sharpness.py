"""Sharpness-aware minimisation: the gradient is taken where the loss is worst nearby, not where the weights are.

Both named forms; the literature calls more than one thing ASAM. Restated here in a few lines instead of an optimiser
that wraps another one, because what is kept between steps would otherwise have to be saved and restored with the
training state.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def perturb(parameters: Iterable[nn.Parameter], form: str, rho: float) -> list[tuple[nn.Parameter, Tensor]]:
    """Move weights to where the loss is worst nearby, to first order, given their gradients.

    Parameters
    ----------
    parameters
        Those without a gradient stay.
    form
        `sam`: ``rho g / |g|`` (Foret et al., ICLR 2021). `asam`: ``rho w^2 g / |w g|``, element by element (Kwon et
        al., ICML 2021, without their eta; the form of TransGeo and SAIG).
    rho
        Radius.

    Returns
    -------
    The weights that moved, with their old values: what `restore` takes.
    """
    if form not in ("sam", "asam"):
        raise ValueError(f"no form of sharpness-aware minimisation is called {form!r}; there are 'asam' and 'sam'")
    moved = [p for p in parameters if p.grad is not None]
    scale = [p.abs() if form == "asam" else torch.ones_like(p) for p in moved]
    norm = torch.stack([(s * p.grad).norm() for s, p in zip(scale, moved, strict=True)]).norm()
    before = [(p, p.clone()) for p in moved]
    for p, s in zip(moved, scale, strict=True):
        p.add_(s.square() * p.grad, alpha=float(rho / (norm + 1e-12)))
    return before


@torch.no_grad()
def restore(before: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Put the weights back; their gradients are kept for the optimiser."""
    for parameter, value in before:
        parameter.copy_(value)
