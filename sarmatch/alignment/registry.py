"""Alignments by name."""

from collections.abc import Callable
from typing import Any

from sarmatch.alignment.base import Alignment
from sarmatch.registry import Registry

#: What makes an alignment from the size of an embedding and its options: mostly the class itself.
ALIGNMENTS: Registry[Callable[..., Alignment]] = Registry("alignment")
register_alignment = ALIGNMENTS.register
register_alignment("none")(Alignment)


def list_alignments() -> list[str]:
    """Names that `create_alignment` knows, sorted."""
    return sorted(ALIGNMENTS)


def create_alignment(name: str, feature_dim: int, **options: Any) -> Alignment:
    """Build an alignment by name.

    Parameters
    ----------
    name
        One of `list_alignments()`.
    feature_dim
        Numbers in an embedding.
    options
        Handed to the class; see there.

    Raises
    ------
    ValueError
        If the name is unknown, or the alignment does not take an option or its value.

    Examples
    --------
    >>> import torch
    >>> alignment = create_alignment("coral", feature_dim=4)
    >>> features = torch.randn(8, 4)
    >>> float(alignment.loss(features, features))
    0.0
    """
    return ALIGNMENTS.create(name, feature_dim, **options)
