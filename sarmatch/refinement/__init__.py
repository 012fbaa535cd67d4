"""Refinement: candidate lists put into a better order, by what the map knows, by what is learned, or by pixels.

A refiner takes `Candidates` and a `RefinementContext` and gives `Candidates`, whoever it is.
"""

from sarmatch.refinement.context import REQUIREMENTS, RefinementContext
from sarmatch.refinement.correlation import cfog, peaks, surfaces
from sarmatch.refinement.graphs import EDGES, candidate_graphs
from sarmatch.refinement.inputs import ListBatch, network_inputs
from sarmatch.refinement.labelled import (
    LabelledLists,
    expanded,
    label_lists,
    label_peaks,
    rank_of_best,
    reciprocal_rank,
    reorder_labels,
)
from sarmatch.refinement.refiners import REFINERS, Refiner, create_refiner, list_refiners, register_refiner

from sarmatch.refinement import training_free  # noqa: F401, isort: skip - registers what it defines, in this order
from sarmatch.refinement.learned import NETWORKS, LearnedRefiner, register_network  # isort: skip

__all__ = [
    "EDGES",
    "NETWORKS",
    "REFINERS",
    "REQUIREMENTS",
    "LabelledLists",
    "LearnedRefiner",
    "ListBatch",
    "RefinementContext",
    "Refiner",
    "candidate_graphs",
    "cfog",
    "create_refiner",
    "expanded",
    "label_lists",
    "label_peaks",
    "list_refiners",
    "network_inputs",
    "peaks",
    "rank_of_best",
    "reciprocal_rank",
    "register_network",
    "register_refiner",
    "reorder_labels",
    "surfaces",
]
