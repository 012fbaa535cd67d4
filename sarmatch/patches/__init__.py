"""Patches: the reference grid, the queries, which belong together, and which area is for what."""

from sarmatch.patches.check import DataCheck, check_data
from sarmatch.patches.images import (
    GreyMap,
    PatchImages,
    ScenePixels,
    TrainingPairs,
    grey_map,
    grey_queries,
    pair_overlap,
    read_patch,
    to_input,
)
from sarmatch.patches.overlap import best_overlap, iou, overlap, overlapping_references
from sarmatch.patches.ready import require_splits
from sarmatch.patches.samplers import BatchSampler, EpochPairs, create_sampler, list_samplers, register_sampler
from sarmatch.patches.splits import PROTOCOLS, fold_of, inside, protocols_of, regions, training_regions
from sarmatch.patches.tables import (
    KINDS,
    MODALITIES,
    draw_windows,
    guard_band,
    match,
    positions,
    queries,
    references,
    search_task,
)
from sarmatch.patches.transforms import Pairs, augment, list_transforms, register_transform
from sarmatch.patches.views import polar_transform

__all__ = [
    "KINDS",
    "MODALITIES",
    "PROTOCOLS",
    "BatchSampler",
    "DataCheck",
    "EpochPairs",
    "GreyMap",
    "Pairs",
    "PatchImages",
    "ScenePixels",
    "TrainingPairs",
    "augment",
    "best_overlap",
    "check_data",
    "create_sampler",
    "draw_windows",
    "fold_of",
    "grey_map",
    "grey_queries",
    "guard_band",
    "inside",
    "iou",
    "list_samplers",
    "list_transforms",
    "match",
    "overlap",
    "overlapping_references",
    "pair_overlap",
    "polar_transform",
    "positions",
    "protocols_of",
    "queries",
    "read_patch",
    "references",
    "regions",
    "register_sampler",
    "register_transform",
    "require_splits",
    "search_task",
    "to_input",
    "training_regions",
]
