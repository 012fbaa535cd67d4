"""The simulated city: a procedural town, its optical map and SAR strips, scenes of them, and a close look at one."""

from sarmatch.simulation.city import City, Grid
from sarmatch.simulation.closeup import lone_building, material_fractions, material_values
from sarmatch.simulation.optical import render_map
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
    "PRESETS",
    "Acquisition",
    "City",
    "Grid",
    "Pass",
    "Preset",
    "Town",
    "lone_building",
    "material_fractions",
    "material_values",
    "render_map",
    "render_strip",
    "simulate_preset",
    "with_acquisition",
    "with_other_towns",
]
