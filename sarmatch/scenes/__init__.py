"""Scenes: areas with an optical map and SAR strips on one pixel grid, whatever data they come from."""

from sarmatch.scenes.scene import Area, NoCoordinatesError, Raster, Scene, Tile

__all__ = ["Area", "NoCoordinatesError", "Raster", "Scene", "Tile"]
