"""What a config trains on: areas, and the pairs of an epoch."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from sarmatch.encoders import Encoder
from sarmatch.patches import EpochPairs, TrainingPairs, fold_of, guard_band, training_regions
from sarmatch.progress import progress
from sarmatch.scenes.scene import Scene
from sarmatch.simulation.simulate import PRESETS, simulate_preset
from sarmatch.training.config import Config

FIRST_TOWNS = 101  # on those of smaller numbers refiners learn, from lists of ground that no encoder has trained on

if TYPE_CHECKING:
    from sarmatch.training.views import ViewPairs


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


def draw_pairs(config: Config, pairs: TrainingPairs, encoder: Encoder, epoch: int) -> None:
    """Draw the pairs of an epoch, in the towns of that epoch where training walks through others than the scene's."""
    if config.towns:
        pairs.scene = other_towns(config, epoch)
        pairs.rectangles = training_ground(config, pairs.scene, pairs.size)
    pairs.draw(epoch)


def other_towns(config: Config, epoch: int) -> Scene:
    """The scene that an epoch of a config with `towns` draws its pairs from; nothing is rendered before it is read.

    Raises
    ------
    ValueError
        Where the config's scene is not simulated.
    """
    if config.scene not in PRESETS:
        raise ValueError(
            f"towns is {config.towns}: other towns are simulated, and scene {config.scene!r} is none of {list(PRESETS)}"
        )
    bands = ("HH",) if config.bands == "first" else config.bands
    return simulate_preset(config.scene, config.profile, bands, FIRST_TOWNS + epoch % config.towns)


def epoch_pairs(config: Config, pairs: "TrainingPairs | ViewPairs", encoder: Encoder) -> EpochPairs:
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


def fit_normalisation(encoder: Encoder, pairs: "TrainingPairs | ViewPairs", count: int = 512) -> None:
    """Let an encoder measure mean and spread of both modalities on training patches."""
    samples = [pairs[i] for i in range(min(count, len(pairs)))]
    for modality in ("query", "reference"):
        encoder.fit_normalisation(torch.stack([s[modality] for s in samples]), modality)
