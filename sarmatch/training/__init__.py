"""Training: one loop, named configs, run folders."""

from sarmatch.training.config import Config, list_recipes, recipe
from sarmatch.training.runs import Run, compare, evaluate, images_of, load_run, run
from sarmatch.training.sweeps import grid, load_sweep, sweep

__all__ = [
    "Config",
    "Run",
    "compare",
    "evaluate",
    "grid",
    "images_of",
    "list_recipes",
    "load_run",
    "load_sweep",
    "recipe",
    "run",
    "sweep",
]
