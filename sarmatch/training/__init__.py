"""Training: one loop, named configs, run folders."""

from sarmatch.training.comparison import compare
from sarmatch.training.config import Config, list_recipes, recipe
from sarmatch.training.runs import Run, blocks, evaluate, images_of, load_run, run

__all__ = [
    "Config",
    "Run",
    "blocks",
    "compare",
    "evaluate",
    "images_of",
    "list_recipes",
    "load_run",
    "recipe",
    "run",
]
