"""Training that walks through towns without end: each epoch on ground of its own, validation where it was."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import sarmatch as sm
from sarmatch.datasets import registry
from sarmatch.encoders import create_encoder
from sarmatch.simulation.simulate import EXTENT_PX, PRESETS, Pass, Town, simulate_preset
from sarmatch.training import vectors
from sarmatch.training.checkpoints import HISTORY, STATE, WEIGHTS
from sarmatch.training.config import Config
from sarmatch.training.data import draw_pairs
from sarmatch.training.loop import train

WHOLE = (0.0, 1.0)
TOWNS = (
    Town("north", 1, "mixed", (Pass("n1", "train", WHOLE, 40.0), Pass("n2", "val", WHOLE, 45.0))),
    Town("unseen", 2, "mixed", (Pass("u1", "test", WHOLE, 40.0),)),
)


@pytest.fixture(autouse=True)
def _small_towns(monkeypatch, tmp_path):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(EXTENT_PX, "quick", 384)
    monkeypatch.setitem(PRESETS, "small", PRESETS["easy"]._replace(towns=TOWNS))
    monkeypatch.setitem(registry.SIMULATED, "small", partial(simulate_preset, "small"))


def config(**changes) -> Config:
    fields = {
        "scene": "small",
        "patch_size": 32,
        "image_size": 16,
        "encoder_options": {"widths": (8, 8, 8, 8, 8), "feature_dim": 8},
        "epochs": 3,
        "pairs_per_epoch": 32,
        "batch_size": 16,
        "augment": (),
        "val_queries": 20,
        "towns": 2,
    }
    return Config(**fields | changes)


def test_every_epoch_has_its_own_ground():
    scene, settings = simulate_preset("small", "quick"), config()
    encoder = create_encoder(settings.encoder, 16, 1, **settings.encoder_options)
    pairs = vectors.training_pairs(settings, scene, 32, encoder)
    ground, corners = [], []
    for epoch in range(3):
        draw_pairs(settings, pairs, encoder, epoch)
        assert set(pairs.query["area"]) == {"north"}
        assert pairs[0]["query"].isfinite().all()
        ground.append(pairs.scene.area("north").map.read(100, 100, 64, 64))
        corners.append(pairs.query[["row", "col"]].to_numpy())
    own = scene.area("north").map.read(100, 100, 64, 64)
    assert np.array_equal(ground[0], ground[2])  # two sets of towns, over and over
    assert not np.array_equal(corners[0], corners[2])
    assert not np.array_equal(ground[0], ground[1])
    assert not any(np.array_equal(own, other) for other in ground)


def test_going_on_equals_never_having_stopped_and_validation_stays(tmp_path):
    class PowerCutError(Exception):
        pass

    def cut(history):
        raise PowerCutError

    scene = simulate_preset("small", "quick")
    train(config(), scene, tmp_path / "whole", report=lambda history: None)
    with pytest.raises(PowerCutError):
        train(config(), scene, tmp_path / "cut", report=cut)
    train(config(), scene, tmp_path / "cut", report=lambda history: None)
    whole, resumed = ((tmp_path / name / STATE).read_bytes() for name in ("whole", "cut"))
    assert whole == resumed
    train(config(towns=0), scene, tmp_path / "own", report=lambda history: None)
    own, walked = (load_file(tmp_path / name / WEIGHTS) for name in ("own", "whole"))
    assert any(not torch.equal(own[k], walked[k]) for k in own)
    slow = {"learning_rate": 1e-9, "epochs": 1}  # nothing is learned: what is measured is the ground of validation
    for towns in (0, 1):
        train(config(**slow, towns=towns), scene, tmp_path / str(towns), report=lambda history: None)
    a, b = (pd.read_csv(tmp_path / str(towns) / HISTORY) for towns in (0, 1))
    assert a["recall@10"].equals(b["recall@10"])
    assert not a["loss"].equals(b["loss"])


def test_a_scene_that_is_not_simulated_has_no_other_towns(sentinel_folder):
    for scene in ("nowhere", str(sentinel_folder)):
        with pytest.raises(ValueError, match=r"towns is 2: other towns are simulated, and scene '.*' is none of"):
            sm.run(config(scene=scene), report=lambda history: None)
