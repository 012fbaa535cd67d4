"""Panels for notebooks: thin shells of ipywidgets around what the package computes."""

from sarmatch.explorer.features import explore_features, hover_map

__all__ = ["explore_features", "hover_map"]
