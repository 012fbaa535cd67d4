"""Numbers about a retrieval, from plain arrays: ranks, hits, metres, and intervals. Imports no model."""

from sarmatch.evaluation.bootstrap import block_ids, bootstrap_difference, bootstrap_mean
from sarmatch.evaluation.discrepancy import METRICS, Discrepancy, discrepancy, modality_mixing, wasserstein
from sarmatch.evaluation.metrics import (
    chance_errors,
    error_summary,
    grid_ceiling,
    hit_rate,
    localization_errors,
    mean_reciprocal_rank,
    one_percent,
    ranks,
    recall_at_k,
    retrieval_report,
)
from sarmatch.evaluation.places import candidate_report, list_ranks, tiles_of_places
from sarmatch.evaluation.registration import registered_errors

__all__ = [
    "METRICS",
    "Discrepancy",
    "block_ids",
    "bootstrap_difference",
    "bootstrap_mean",
    "candidate_report",
    "chance_errors",
    "discrepancy",
    "error_summary",
    "grid_ceiling",
    "hit_rate",
    "list_ranks",
    "localization_errors",
    "mean_reciprocal_rank",
    "modality_mixing",
    "one_percent",
    "ranks",
    "recall_at_k",
    "registered_errors",
    "retrieval_report",
    "tiles_of_places",
    "wasserstein",
]
