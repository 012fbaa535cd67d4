"""Figures: plain arrays and tables in, a matplotlib `Figure` out. No model; nothing computed but display scaling."""

from sarmatch.figures.charts import (
    STAGES,
    error_cdf,
    material_bars,
    offset_errors,
    overlap_histograms,
    pipeline,
    recall_curves,
    shares_within,
    training_curve,
)
from sarmatch.figures.maps import map_of_outcomes, map_with_places, overview, split_map
from sarmatch.figures.panels import annotated_pair, images_row, pair, place_of, retrieval_rows, tiling
from sarmatch.figures.style import PLACES, SPLIT_COLOURS, decibels, method_line, to_display, use_style

__all__ = [
    "PLACES",
    "SPLIT_COLOURS",
    "STAGES",
    "annotated_pair",
    "decibels",
    "error_cdf",
    "images_row",
    "map_of_outcomes",
    "map_with_places",
    "material_bars",
    "method_line",
    "offset_errors",
    "overlap_histograms",
    "overview",
    "pair",
    "pipeline",
    "place_of",
    "recall_curves",
    "retrieval_rows",
    "shares_within",
    "split_map",
    "tiling",
    "to_display",
    "training_curve",
    "use_style",
]
