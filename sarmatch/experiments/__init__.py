"""Experiments: sweeps, studies, records and tables, the notebook runner. What only the project itself needs."""

from sarmatch.experiments.provenance import provenance_line
from sarmatch.experiments.sweeps import choose_weights, grid, load_curves, load_robustness, load_sweep, sweep

__all__ = ["choose_weights", "grid", "load_curves", "load_robustness", "load_sweep", "provenance_line", "sweep"]
