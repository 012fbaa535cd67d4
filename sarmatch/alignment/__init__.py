"""Alignments: what brings the feature distributions of two modalities together, by name.

An alignment knows nothing of places or pairs. It sees the embeddings of either modality and makes their distributions
alike. Every one is an `Alignment`:

- ``critic_step(query, reference)`` lets a critic learn to tell the two apart, where there is one;
- ``loss(query, reference)`` is what the encoder minimises, a scalar with a gradient to both unless the class says
  otherwise;
- ``estimate(query, reference)`` is how far apart the two are in its own eyes, a float.

One of your own is a subclass with a name, ``@register_alignment("mine")``, made as ``Mine(feature_dim, **options)``.
"""

from sarmatch.alignment.base import Alignment, fit
from sarmatch.alignment.critics import ClassAdversary, ClippedCritic, WassersteinCritic
from sarmatch.alignment.distances import (
    Coral,
    MaximumMeanDiscrepancy,
    SinkhornDivergence,
    SlicedWasserstein,
    sinkhorn_divergence,
)
from sarmatch.alignment.registry import ALIGNMENTS, create_alignment, list_alignments, register_alignment

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
    "register_alignment",
    "sinkhorn_divergence",
]
