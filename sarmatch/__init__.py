"""sarmatch: where on this optical map was this SAR patch taken?

Everything a notebook needs is one name away: `import sarmatch as sm`.
"""

# torch comes before faiss: the other way round, a faiss call in a forked worker hangs.
import torch  # noqa: F401

from sarmatch._torchvision import import_torchvision

import_torchvision()

from sarmatch.alignment import create_alignment, list_alignments  # noqa: E402
from sarmatch.datasets import DataCheck, check_data, list_scenes, load_crossview, load_scene  # noqa: E402
from sarmatch.encoders import create_encoder, embed, list_encoders  # noqa: E402
from sarmatch.evaluation import (  # noqa: E402
    bootstrap_difference,
    discrepancy,
    hit_rate,
    localization_errors,
    ranks,
    recall_at_k,
    retrieval_report,
)
from sarmatch.experiments import grid, load_sweep, sweep  # noqa: E402
from sarmatch.explorer import explore_features  # noqa: E402
from sarmatch.losses import create_loss, list_losses  # noqa: E402
from sarmatch.patches import match, queries, read_patch, references, search_task  # noqa: E402
from sarmatch.refinement import (  # noqa: E402
    RefinementContext,
    candidate_graphs,
    create_refiner,
    list_refiners,
    register_network,
    register_refiner,
)
from sarmatch.scenes import Scene  # noqa: E402
from sarmatch.search import (  # noqa: E402
    Candidates,
    Gallery,
    VectorSearch,
    build_gallery,
    create_search,
    register_search,
)
from sarmatch.training import (  # noqa: E402
    Config,
    Run,
    compare,
    evaluate,
    list_recipes,
    load_run,
    recipe,
    run,
)

__version__ = "0.1.0"

__all__ = [
    "Candidates",
    "Config",
    "DataCheck",
    "Gallery",
    "RefinementContext",
    "Run",
    "Scene",
    "VectorSearch",
    "bootstrap_difference",
    "build_gallery",
    "candidate_graphs",
    "check_data",
    "compare",
    "create_alignment",
    "create_encoder",
    "create_loss",
    "create_refiner",
    "create_search",
    "discrepancy",
    "embed",
    "evaluate",
    "explore_features",
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
    "match",
    "queries",
    "ranks",
    "read_patch",
    "recall_at_k",
    "recipe",
    "references",
    "register_network",
    "register_refiner",
    "register_search",
    "retrieval_report",
    "run",
    "search_task",
    "sweep",
]
