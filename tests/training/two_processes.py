"""A small training in as many processes as `accelerate launch` starts; its history goes to the folder named first."""

import sys
from pathlib import Path

from accelerate import PartialState

from sarmatch.datasets import registry
from sarmatch.training.config import Config
from sarmatch.training.loop import train
from tests.fake_data import tiny_scene

scene = tiny_scene()
registry.SIMULATED["tiny"] = lambda profile, bands: scene
config = Config(
    scene="tiny",
    image_size=16,
    epochs=2,
    pairs_per_epoch=128,
    batch_size=32,
    learning_rate=3e-3,
    augment=(),
    val_queries=60,
    auxiliary={"offset_regression": 0.5},
    loss_options={"learnable_temperature": True},
    alignment="wasserstein",
    alignment_weight=1.0,
    encoder_options={"widths": (8, 16, 32, 32, 32), "feature_dim": 16, "groups": 4},
)
if __name__ == "__main__":
    train(config, scene, Path(sys.argv[1]))
    print(PartialState().num_processes, "processes")
