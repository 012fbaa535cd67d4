"""Figures: plain arrays and tables in, a matplotlib `Figure` out. No model; nothing computed but display scaling."""

from sarmatch.figures.charts import (
    STAGES,
    error_cdf,
    material_statistics,
    overlap_by_stride,
    pipeline,
    recall_curves,
    shares_within,
    training_curve,
)
from sarmatch.figures.clouds import (
    CLASSES,
    apart_and_found,
    estimates,
    forest,
    groups,
    layers,
    nulls,
    robustness,
    scatter_map,
    transport,
)
from sarmatch.figures.maps import map_of_outcomes, map_with_places, overview, split_map
from sarmatch.figures.panels import annotated_pair, image_grid, pair, place_of, retrieval_rows, tiling
from sarmatch.figures.style import PLACES, SPLIT_COLOURS, decibels, method_line, to_display, use_style

__all__ = [
    "CLASSES",
    "PLACES",
    "SPLIT_COLOURS",
    "STAGES",
    "annotated_pair",
    "apart_and_found",
    "decibels",
    "error_cdf",
    "estimates",
    "forest",
    "groups",
    "image_grid",
    "layers",
    "map_of_outcomes",
    "map_with_places",
    "material_statistics",
    "method_line",
    "nulls",
    "overlap_by_stride",
    "overview",
    "pair",
    "pipeline",
    "place_of",
    "recall_curves",
    "retrieval_rows",
    "robustness",
    "scatter_map",
    "shares_within",
    "split_map",
    "tiling",
    "to_display",
    "training_curve",
    "transport",
    "use_style",
]
