"""Refinement: candidate lists put into a better order, by what the map knows, by what is learned, or by pixels.

A refiner takes `Candidates` and `Evidence` and gives `Candidates`, whoever it is.
"""

from typing import Any

from sarmatch.refinement.correlation import cfog, peaks, surfaces
from sarmatch.refinement.evidence import (
    Evidence,
    Lists,
    expanded,
    joined,
    lists_of,
    mean_reciprocal_rank,
    relisted,
    reordered,
)
from sarmatch.refinement.graphs import EDGES, candidate_graphs
from sarmatch.refinement.learned import NETWORKS, LearnedRefiner
from sarmatch.refinement.training_free import METHODS, TrainingFreeRefiner

__all__ = [
    "EDGES",
    "METHODS",
    "NETWORKS",
    "Evidence",
    "LearnedRefiner",
    "Lists",
    "TrainingFreeRefiner",
    "candidate_graphs",
    "cfog",
    "create_refiner",
    "expanded",
    "joined",
    "list_refiners",
    "lists_of",
    "mean_reciprocal_rank",
    "peaks",
    "relisted",
    "reordered",
    "surfaces",
]


def list_refiners() -> list[str]:
    """Names that `create_refiner` knows: training-free ones, then those that learn."""
    return [*METHODS, *NETWORKS]


def create_refiner(name: str, **options: Any) -> LearnedRefiner | TrainingFreeRefiner:
    """A refiner by name.

    Parameters
    ----------
    name
        One of `list_refiners()`.
    options
        Of the function or of the network.

    Returns
    -------
    Object with `.fit(lists, validation)` and `.refine(candidates, evidence)`.

    Raises
    ------
    ValueError
        For a name nobody knows.

    Examples
    --------
    >>> create_refiner("geographic_vote", weight=0.5).options
    {'weight': 0.5}
    """
    if name in METHODS:
        return TrainingFreeRefiner(name, **options)
    if name in NETWORKS:
        return LearnedRefiner(name, **options)
    raise ValueError(f"no refiner is called {name!r}; there are {list_refiners()}")
