"""Alignments: what brings the feature distributions of two modalities together, by name.

An alignment knows nothing of places or pairs. It sees two clouds of embeddings and makes them alike:

- ``critic_step(query, reference)`` lets an opponent learn to tell the clouds apart, where there is one;
- ``loss(query, reference)`` is what the encoder minimises, a scalar with a gradient to both clouds unless the class
  says otherwise;
- ``estimate(query, reference)`` is how far apart the clouds are in its own eyes, a float.
"""

from collections.abc import Callable
from typing import Any

from sarmatch.alignment.base import Alignment, fit
from sarmatch.alignment.critics import ClassAdversary, ClippedCritic, WassersteinCritic
from sarmatch.alignment.distances import (
    Coral,
    MaximumMeanDiscrepancy,
    SinkhornDivergence,
    SlicedWasserstein,
    sinkhorn_divergence,
)

__all__ = [
    "ALIGNMENTS",
    "Alignment",
    "ClassAdversary",
    "ClippedCritic",
    "Coral",
    "MaximumMeanDiscrepancy",
    "SinkhornDivergence",
    "SlicedWasserstein",
    "WassersteinCritic",
    "create_alignment",
    "fit",
    "list_alignments",
    "sinkhorn_divergence",
]

ALIGNMENTS: dict[str, Callable[..., Alignment]] = {
    "none": Alignment,
    "wasserstein": WassersteinCritic,
    "wasserstein_clipped": ClippedCritic,
    "class_adversary": ClassAdversary,
    "sliced": SlicedWasserstein,
    "sinkhorn": SinkhornDivergence,
    "mmd": MaximumMeanDiscrepancy,
    "coral": Coral,
}


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

    Examples
    --------
    >>> import torch
    >>> alignment = create_alignment("coral", feature_dim=4)
    >>> cloud = torch.randn(8, 4)
    >>> float(alignment.loss(cloud, cloud))
    0.0
    """
    if name not in ALIGNMENTS:
        raise ValueError(f"unknown alignment {name!r}; known: {', '.join(list_alignments())}")
    return ALIGNMENTS[name](feature_dim, **options)
