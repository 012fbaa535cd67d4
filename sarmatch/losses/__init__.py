"""Losses that pull a query to its own reference and away from the others, by name.

Every loss is a module called as ``loss(query, reference, **context)`` on L2-normalised ``(B, D)`` embeddings and
returns a scalar. The context may hold ``overlap`` (B, B), how much ground each pair shares, so that a neighbour is
never pushed away, and ``offset`` (B, 2), where the reference lies as seen from its query in patch widths.
"""

from typing import Any

from torch import nn

from sarmatch.losses.contrastive import JointInfoNCE, SoftLabelInfoNCE, SymmetricInfoNCE
from sarmatch.losses.geometry import IoUSemiPositive, OffsetRegression
from sarmatch.losses.triplet import BatchHardTriplet, SemiHardTriplet, SoftMarginTriplet

__all__ = [
    "LOSSES",
    "BatchHardTriplet",
    "IoUSemiPositive",
    "JointInfoNCE",
    "OffsetRegression",
    "SemiHardTriplet",
    "SoftLabelInfoNCE",
    "SoftMarginTriplet",
    "SymmetricInfoNCE",
    "create_loss",
    "list_losses",
]

LOSSES: dict[str, type[nn.Module]] = {
    "infonce": SymmetricInfoNCE,
    "joint_infonce": JointInfoNCE,
    "soft_label_infonce": SoftLabelInfoNCE,
    "soft_margin_triplet": SoftMarginTriplet,
    "batch_hard_triplet": BatchHardTriplet,
    "semi_hard_triplet": SemiHardTriplet,
    "iou_semi_positive": IoUSemiPositive,
    "offset_regression": OffsetRegression,
}


def list_losses() -> list[str]:
    """Names that `create_loss` knows, sorted."""
    return sorted(LOSSES)


def create_loss(name: str, feature_dim: int | None = None, **options: Any) -> nn.Module:
    """Build a loss by name.

    Parameters
    ----------
    name : str
        One of `list_losses`.
    feature_dim : int, optional
        Numbers in an embedding; only a loss that has a network of its own needs it.
    **options
        Handed to the loss; see the class for what it takes.

    Returns
    -------
    nn.Module
        Called as ``(query (B, D), reference (B, D), *, overlap=(B, B), offset=(B, 2)) -> scalar``; what a loss
        does not use may be left out.

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
    if getattr(LOSSES[name], "needs_feature_dim", False):
        options = {"feature_dim": feature_dim, **options}
    return LOSSES[name](**options)
