"""Training: one loop, named configs, run folders."""

from sarmatch.training.config import Config, list_recipes, recipe
from sarmatch.training.runs import Run, blocks, compare, evaluate, images_of, load_run, run
from sarmatch.training.sweeps import grid, load_robustness, load_sweep, sweep

__all__ = [
    "Config",
    "Run",
    "blocks",
    "compare",
    "evaluate",
    "grid",
    "images_of",
    "list_recipes",
    "load_robustness",
    "load_run",
    "load_sweep",
    "recipe",
    "run",
    "sweep",
]
