"""Scenes: an optical map, the SAR strips over it, and where both lie."""

from sarmatch.scenes.check import DataCheck, check_data
from sarmatch.scenes.crossview import CrossView, load_crossview
from sarmatch.scenes.registry import list_scenes, load_scene
from sarmatch.scenes.scene import Area, NoCoordinatesError, Raster, Scene, Tile

__all__ = [
    "Area",
    "CrossView",
    "DataCheck",
    "NoCoordinatesError",
    "Raster",
    "Scene",
    "Tile",
    "check_data",
    "list_scenes",
    "load_crossview",
    "load_scene",
]
