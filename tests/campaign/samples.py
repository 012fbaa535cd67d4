"""What cases damage: a folder of pairs, and a finished run on it; a worker makes them when a case first asks."""

import os
import shutil
from functools import cache
from pathlib import Path

import sarmatch as sm
from tests.fake_data import write_pairs

SMALL = {
    "epochs": 1,
    "pairs_per_epoch": 32,
    "batch_size": 16,
    "image_size": 32,
    "test_queries": 20,
    "val_queries": 20,
    "encoder_options": {"shared": True, "widths": [4, 4, 4, 4, 4], "feature_dim": 8},
    "baseline_options": {"cells": 4},
}


def small_config(**changes: object) -> sm.Config:
    """A config that trains in a second."""
    return sm.recipe("own", scene=str(pairs()), **{**SMALL, **changes})


@cache
def pairs() -> Path:
    """The folder of pairs; not to be changed."""
    return write_pairs(_folder() / "pairs")


@cache
def finished_run() -> Path:
    """A finished run on it; not to be changed."""
    return sm.run(small_config(), _folder() / "run", report=lambda history: None).path


def copied_run(folder: Path) -> Path:
    """A copy of the finished run in a case's own folder."""
    return Path(shutil.copytree(finished_run(), folder / "run"))


def _folder() -> Path:
    return Path(os.environ["SARMATCH_CAMPAIGN"])
