"""Panels for notebooks: thin shells of ipywidgets around what the package computes."""

from sarmatch.explorer.features import explore_features, hover_map
from sarmatch.explorer.panel import ExplorerPanel, explore
from sarmatch.explorer.sources import Disturbance
from sarmatch.explorer.state import Answer, Explorer, Settings
from sarmatch.explorer.teaching import blur_panel, layover_panel, overlap_panel, weight_panel

__all__ = [
    "Answer",
    "Disturbance",
    "Explorer",
    "ExplorerPanel",
    "Settings",
    "explore",
    "explore_features",
    "hover_map",
    "blur_panel",
    "layover_panel",
    "overlap_panel",
    "weight_panel",
]
