"""Scenes: an optical map, the SAR strips over it, and where both lie."""

from sarmatch.scenes.registry import list_scenes, load_scene
from sarmatch.scenes.scene import Area, NoCoordinatesError, Raster, Scene, Tile

__all__ = ["Area", "NoCoordinatesError", "Raster", "Scene", "Tile", "list_scenes", "load_scene"]
