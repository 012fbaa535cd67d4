"""Panels for notebooks: thin shells of ipywidgets around what the package computes."""

from sarmatch.explorer.features import explore_features, hover_map
from sarmatch.explorer.panel import ExplorerPanel, explore
from sarmatch.explorer.sources import Disturbance
from sarmatch.explorer.state import Answer, Explorer, Settings

__all__ = [
    "Answer",
    "Disturbance",
    "Explorer",
    "ExplorerPanel",
    "Settings",
    "explore",
    "explore_features",
    "hover_map",
]
