"""The simulated city: a procedural town, its optical map, SAR strips and street panoramas, scenes, close looks."""

from sarmatch.simulation.city import City, Grid
from sarmatch.simulation.closeup import lone_building, material_fractions, material_values, roof_heights
from sarmatch.simulation.crossview import CROSSVIEWS, ViewPreset, simulate_crossview
from sarmatch.simulation.optical import render_map
from sarmatch.simulation.panorama import Survey, render_panorama, street_places, survey
from sarmatch.simulation.sar import Acquisition, render_strip
from sarmatch.simulation.simulate import (
    PRESETS,
    Pass,
    Preset,
    Town,
    simulate_preset,
    with_acquisition,
    with_other_towns,
)

__all__ = [
    "CROSSVIEWS",
    "PRESETS",
    "Acquisition",
    "City",
    "Grid",
    "Pass",
    "Preset",
    "Survey",
    "Town",
    "ViewPreset",
    "lone_building",
    "roof_heights",
    "material_fractions",
    "material_values",
    "render_map",
    "render_panorama",
    "render_strip",
    "simulate_crossview",
    "simulate_preset",
    "street_places",
    "survey",
    "with_acquisition",
    "with_other_towns",
]
