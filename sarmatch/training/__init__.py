"""Training: one loop, named configs, run folders."""

from sarmatch.training.config import Config, list_recipes, recipe
from sarmatch.training.runs import Run, compare, evaluate, load_run, run

__all__ = ["Config", "Run", "compare", "evaluate", "list_recipes", "load_run", "recipe", "run"]
