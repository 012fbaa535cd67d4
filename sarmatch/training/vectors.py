"""What is learned for vector search: embeddings of whole patches."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sarmatch.encoders import Encoder, embed, image_sizes
from sarmatch.encoders.base import Modality
from sarmatch.evaluation import ranks, recall_at_k, wasserstein
from sarmatch.losses import LOSSES, EmbeddedBatch, OffsetRegression, create_loss
from sarmatch.patches import PatchImages, TrainingPairs, pair_overlap, search_task
from sarmatch.refinement.learned import NETWORKS, LearnedRefiner
from sarmatch.scenes import Scene
from sarmatch.search import Candidates
from sarmatch.training.config import Config
from sarmatch.training.data import training_ground
from sarmatch.training.distributed import gather
from sarmatch.training.joint import MEMORY, RefinerLoss

MEASURED = 500  # patches per modality whose exact distance is taken every epoch


def training_pairs(config: Config, scene: Scene, size: int, encoder: Encoder) -> TrainingPairs:
    """The pairs that a config trains on, of patches with a side of `size` pixels, as the encoder wants them."""
    return TrainingPairs(
        scene,
        training_ground(config, scene, size),
        size,
        image_sizes(encoder),
        config.pairs_per_epoch,
        config.offset,
        config.seed,
        shuffle_pairs=config.control == "shuffled_pairs",
    )


class VectorLearner(nn.Module):
    """Encoder and losses as one module, which is what distributed training needs to wrap.

    Raises
    ------
    ValueError
        Where the encoder makes no vectors, a loss compares none, or the refiner does not learn.
    """

    def __init__(self, encoder: Encoder, config: Config, size: int) -> None:
        super().__init__()
        if not hasattr(encoder, "feature_dim"):
            raise ValueError(
                f"encoder {config.encoder!r} has no head, so an image has no vector: train it by search='dense'"
            )
        for name in (config.loss, *config.auxiliary):
            if getattr(LOSSES[name], "dense", False):
                raise ValueError(f"loss {name!r} compares shifts of feature maps: it is for search='dense'")
        self.encoder, self.size, self.masked = encoder, size, config.neighbours == "mask"
        self.feature_dim = dim = encoder.feature_dim
        self.loss = create_loss(config.loss, dim, **config.loss_options)
        self.auxiliary = nn.ModuleDict({name: create_loss(name, dim) for name in config.auxiliary})
        self.weights = config.auxiliary
        self.refining = None
        if config.refiner != "none":
            if config.refiner not in NETWORKS:
                raise ValueError(f"refiner {config.refiner!r} does not learn; those that do are {sorted(NETWORKS)}")
            refiner = LearnedRefiner(config.refiner, **config.refiner_options)
            memory = max(config.batch_size, min(MEMORY, config.pairs_per_epoch // 2))
            self.refining = RefinerLoss(refiner, dim, size, config.refiner_weight, memory)

    @property
    def offset_head(self) -> OffsetRegression | None:
        """What learns to say where in its tile a query lies; None where nothing does."""
        return next((part for part in self.auxiliary.values() if isinstance(part, OffsetRegression)), None)

    def forward(
        self,
        query: torch.Tensor,
        reference: torch.Tensor,
        offset: torch.Tensor,
        place: torch.Tensor,
        sample: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss of the whole batch and its embeddings `(B, D)`; each process brings its part."""
        vectors = None
        if self.offset_head is None:
            query, reference = (gather(features.float()) for features in self.encoder(query, reference))
        else:
            vectors = self._vectors(query, "query"), self._vectors(reference, "reference")
            query, reference = (F.normalize(of_modality, dim=1) for of_modality in vectors)
        offset, place, sample = gather(offset) / self.size, gather(place), gather(sample)
        overlap = pair_overlap(place, self.size)
        batch = EmbeddedBatch(query, reference, overlap, offset, place, sample, vectors)
        loss = self.loss(batch if self.masked else batch._replace(overlap=None))
        for name, auxiliary in self.auxiliary.items():
            loss = loss + self.weights[name] * auxiliary(batch)
        if self.refining is not None:
            loss = loss + self.refining(query, reference, place)
        return loss, query, reference

    def _vectors(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        return gather(self.encoder.vectors(self.encoder.forward_features(images, modality), modality).float())


class VectorValidation:
    """Arbitrary queries of the first protocol's validation split and their gallery, read once, searched every epoch."""

    def __init__(self, config: Config, scene: Scene, encoder: Encoder) -> None:
        self.scene = scene
        self.queries, self.tiles = search_task(
            scene,
            "arbitrary",
            config.patch_size,
            "val",
            protocol=config.protocols[0],
            stride=config.stride,
            count=config.val_queries,
            seed=config.seed + 1,
        )
        self.images = {
            modality: torch.stack(list(PatchImages(scene, table, image_sizes(encoder))))
            for modality, table in (("query", self.queries), ("reference", self.tiles))
        }

    def embedded(self, encoder: Encoder, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings `(Q, D)` of the queries and `(N, D)` of the tiles they are searched among."""
        query, reference = (embed(encoder, self.images[name].split(batch_size), name) for name in self.images)
        return query, reference

    def measure(self, encoder: Encoder, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5`, `@10` of the encoder as it stands, and the exact `wasserstein_1` of the modalities."""
        query, reference = self.embedded(encoder, batch_size)
        if not (np.isfinite(query).all() and np.isfinite(reference).all()):
            raise FloatingPointError("embeddings of the validation areas are not finite; lower learning_rate")
        found = ranks(query @ reference.T, self.queries["positive"].to_numpy())
        apart = wasserstein(query[:MEASURED], reference[:MEASURED], 1)
        return {**{f"recall@{k}": recall_at_k(found, k) for k in (1, 5, 10)}, "wasserstein_1": apart}

    def features(self, encoder: Encoder, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings `(N, D)` of the queries and of the map, row `i` of both at the place of query `i`."""
        below = PatchImages(self.scene, self.queries.assign(modality="optical"), image_sizes(encoder))
        pairs = {"query": self.images["query"], "reference": torch.stack(list(below))}
        query, reference = (embed(encoder, images.split(batch_size), name) for name, images in pairs.items())
        return query, reference


@torch.no_grad()
def moved(
    candidates: Candidates, query: NDArray, reference: NDArray, side: NDArray, head: OffsetRegression
) -> Candidates:
    """Candidates at the places where an offset head says that each query lies in its tile, no longer at its centre.

    Parameters
    ----------
    candidates
        Tiles that a vector search has found; these and their scores stay as they are.
    query, reference
        Embeddings of all queries `(Q, D)` and of all tiles `(N, D)`, before their normalisation.
    side
        Widths of the tiles in metres `(N,)`.
    head
        Predicts from both embeddings.
    """
    tile = candidates.tile
    pairs = np.repeat(query, tile.shape[1], axis=0), reference[tile.ravel()]
    offset = head.predict(*map(torch.from_numpy, pairs)).numpy().reshape(*tile.shape, 2)
    # from the tile to the query: the other way; and rows count to the south
    shift = offset[..., ::-1] * (-1.0, 1.0) * side[tile][..., None]
    return replace(candidates, places=candidates.xy + shift)
