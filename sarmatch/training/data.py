"""What a config trains and validates on: areas, pairs and the validation search."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from sarmatch.encoders import Encoder, embed, image_sizes
from sarmatch.evaluation import ranks, recall_at_k, wasserstein
from sarmatch.patches import (
    EpochPairs,
    PatchImages,
    TrainingPairs,
    fold_of,
    guard_band,
    search_task,
    training_regions,
)
from sarmatch.progress import progress
from sarmatch.scenes.scene import Scene
from sarmatch.training.config import Config

MEASURED = 500  # patches per modality whose exact distance is taken every epoch


def training_ground(config: Config, scene: Scene, size: int) -> pd.DataFrame:
    """Rectangles that a config trains on."""
    guard = guard_band(scene, size)
    ground = training_regions(scene, config.protocols, guard)
    if config.fold is not None:
        ground, _ = fold_of(ground, config.fold, guard)
    return thinned(ground, config.train_fraction, size)


def thinned(rectangles: pd.DataFrame, fraction: float, size: int) -> pd.DataFrame:
    """The upper part of every training rectangle; never less than one patch high."""
    height = (rectangles["row1"] - rectangles["row0"]).to_numpy()
    kept = np.minimum(height, np.maximum(size, np.round(fraction * height))).astype(int)
    return rectangles.assign(row1=rectangles["row0"] + kept)


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


def epoch_pairs(config: Config, pairs: TrainingPairs, encoder: Encoder) -> EpochPairs:
    """The pairs of this epoch as a sampler sees them; their embeddings are made by the encoder as it stands."""

    @torch.no_grad()
    def features() -> tuple[np.ndarray, np.ndarray]:
        device = next(encoder.parameters()).device
        encoder.eval()
        images = torch.utils.data.DataLoader(pairs, config.batch_size)
        both = [
            [encoder.encode_query(b["query"].to(device)), encoder.encode_reference(b["reference"].to(device))]
            for b in progress(images, desc=f"features for {config.sampler}", unit="batch")
        ]
        query, reference = (torch.cat(side).float().cpu().numpy() for side in zip(*both, strict=True))
        return query, reference

    return EpochPairs(pairs.place, pairs.size, pairs.scene.pixel_size or 1.0, features)


def fit_normalisation(encoder: Encoder, pairs: TrainingPairs, count: int = 512) -> None:
    """Let an encoder measure mean and spread of both modalities on training patches."""
    samples = [pairs[i] for i in range(min(count, len(pairs)))]
    for modality in ("query", "reference"):
        encoder.fit_normalisation(torch.stack([s[modality] for s in samples]), modality)


class Validation:
    """Arbitrary queries of the first protocol's validation split and their gallery, read once, searched every epoch."""

    def __init__(self, config: Config, scene: Scene, encoder: Encoder) -> None:
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

    def measure(self, encoder: nn.Module, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5`, `@10` of the encoder as it stands, and the exact `wasserstein_1` of the modalities."""
        query, reference = (
            embed(encoder, images.split(batch_size), modality) for modality, images in self.images.items()
        )
        found = ranks(query @ reference.T, self.queries["positive"].to_numpy())
        apart = wasserstein(query[:MEASURED], reference[:MEASURED], 1)
        return {**{f"recall@{k}": recall_at_k(found, k) for k in (1, 5, 10)}, "wasserstein_1": apart}
