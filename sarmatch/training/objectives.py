"""What there is to learn: for every kind of search the pairs, the loss and the validation that belong to it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from sarmatch.encoders import Encoder
from sarmatch.patches import TrainingPairs
from sarmatch.scenes import Scene
from sarmatch.training import dense, vectors, views
from sarmatch.training.config import Config
from sarmatch.training.data import draw_pairs
from sarmatch.training.views import Views


class Validation(Protocol):
    """Queries of the validation split, searched every epoch."""

    def measure(self, encoder: Encoder, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5`, `@10` of the encoder as it stands, and the exact `wasserstein_1` of the modalities."""
        ...

    def features(self, encoder: Encoder, batch_size: int) -> tuple[NDArray, NDArray]:
        """Features `(N, D)` of the queries and of the map, row `i` of both at the place of query `i`."""
        ...


class Objective(NamedTuple):
    """What a kind of search trains with.

    Attributes
    ----------
    pairs
        `(config, scene, size, encoder)` to the pairs of a patch of `size` pixels, as the encoder wants them.
    learner
        `(encoder, config, size)` to a module from a batch `(query, reference, offset, place, sample)` to its loss and
        the features `(B, D)` of either modality that an alignment works on.
    validation
        `(config, scene, encoder)` to what is searched every epoch.
    draw
        `(config, pairs, encoder, epoch)`: draw the pairs of an epoch, given the encoder as it stands.
    """

    pairs: Callable[[Config, Any, int, Encoder], TrainingPairs | views.ViewPairs]
    learner: Callable[[Encoder, Config, int], Any]
    validation: Callable[[Config, Any, Encoder], Validation]
    draw: Callable[[Config, Any, Encoder, int], None]


OBJECTIVES: dict[str, Objective] = {
    "vector": Objective(vectors.training_pairs, vectors.VectorLearner, vectors.VectorValidation, draw_pairs),
    "dense": Objective(dense.training_pairs, dense.DenseLearner, dense.DenseValidation, dense.draw_pairs),
}
VIEWS = Objective(views.view_pairs, vectors.VectorLearner, views.ViewValidation, views.draw_pairs)


def objective_of(config: Config, scene: Scene | Views) -> Objective:
    """What a config trains with on a scene, or on a cross-view set, which is searched by vectors."""
    return VIEWS if isinstance(scene, Views) else OBJECTIVES[config.search]
