"""Losses that pull a query to its own reference and away from the others, by name.

Every loss is a module called as ``loss(query, reference, overlap=None)`` on L2-normalised ``(B, D)``
embeddings and returns a scalar. ``overlap`` (B, B) says how much ground each pair shares, so that a
neighbour is never pushed away.
"""

from typing import Any

from torch import nn

from sarmatch.losses.contrastive import SymmetricInfoNCE
from sarmatch.losses.triplet import SoftMarginTriplet

__all__ = ["LOSSES", "SoftMarginTriplet", "SymmetricInfoNCE", "create_loss", "list_losses"]

LOSSES: dict[str, type[nn.Module]] = {
    "infonce": SymmetricInfoNCE,
    "soft_margin_triplet": SoftMarginTriplet,
}


def list_losses() -> list[str]:
    """Names that `create_loss` knows, sorted."""
    return sorted(LOSSES)


def create_loss(name: str, **options: Any) -> nn.Module:
    """Build a loss by name.

    Parameters
    ----------
    name : str
        One of `list_losses`.
    **options
        Handed to the loss; see the class for what it takes.

    Returns
    -------
    nn.Module
        Called as ``(query (B, D), reference (B, D), *, overlap (B, B) | None) -> scalar``.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If the loss does not take an option.

    Examples
    --------
    >>> create_loss("infonce", temperature=0.02)
    SymmetricInfoNCE(temperature=0.02, learned=False, label_smoothing=0.0)
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; known: {', '.join(list_losses())}")
    return LOSSES[name](**options)
