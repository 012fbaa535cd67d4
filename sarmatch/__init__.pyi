# The public names: what editors and type checkers read, and what `__init__.py` loads when a name is first used.
from . import (
    alignment,
    datasets,
    encoders,
    evaluation,
    experiments,
    explorer,
    figures,
    losses,
    patches,
    refinement,
    scenes,
    search,
    simulation,
    training,
)
from .alignment import create_alignment, list_alignments
from .datasets import DataCheck, check_data, list_scenes, load_crossview, load_scene
from .encoders import create_encoder, embed, list_encoders
from .evaluation import (
    bootstrap_difference,
    discrepancy,
    hit_rate,
    localization_errors,
    ranks,
    recall_at_k,
    retrieval_report,
)
from .experiments import grid, load_sweep, sweep
from .explorer import explore_features
from .losses import create_loss, list_losses
from .patches import match, queries, read_patch, references, search_task
from .refinement import Evidence, candidate_graphs, create_refiner, list_refiners
from .scenes import Scene
from .search import Candidates, MapIndex
from .training import Config, Run, compare, evaluate, list_recipes, load_run, recipe, run

__version__: str
__all__ = [
    "Candidates",
    "Config",
    "DataCheck",
    "Evidence",
    "MapIndex",
    "Run",
    "Scene",
    "alignment",
    "bootstrap_difference",
    "candidate_graphs",
    "check_data",
    "compare",
    "create_alignment",
    "create_encoder",
    "create_loss",
    "create_refiner",
    "datasets",
    "discrepancy",
    "embed",
    "encoders",
    "evaluate",
    "evaluation",
    "experiments",
    "explore_features",
    "explorer",
    "figures",
    "grid",
    "hit_rate",
    "list_alignments",
    "list_encoders",
    "list_losses",
    "list_recipes",
    "list_refiners",
    "list_scenes",
    "load_crossview",
    "load_run",
    "load_scene",
    "load_sweep",
    "localization_errors",
    "losses",
    "match",
    "patches",
    "queries",
    "ranks",
    "read_patch",
    "recall_at_k",
    "recipe",
    "references",
    "refinement",
    "retrieval_report",
    "run",
    "scenes",
    "search",
    "search_task",
    "simulation",
    "sweep",
    "training",
]
