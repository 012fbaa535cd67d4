"""Data sets: readers of real data, simulated scenes by name, and cross-view sets."""

from sarmatch.datasets.crossview import CrossView, load_crossview
from sarmatch.datasets.registry import list_scenes, load_scene
from sarmatch.datasets.unplaced import with_unplaced_strip

__all__ = ["CrossView", "list_scenes", "load_crossview", "load_scene", "with_unplaced_strip"]
