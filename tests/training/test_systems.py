"""Recipes of published systems: each trains, learns something of ground never seen, and goes on where it stopped."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sarmatch as sm
from sarmatch.datasets import registry
from sarmatch.encoders import list_encoders
from sarmatch.localization.location import LocationWarning
from sarmatch.refinement import LearnedRefiner
from sarmatch.training.checkpoints import WEIGHTS
from sarmatch.training.loop import train
from sarmatch.training.recipes import RECIPES
from tests.localization.test_locate import field, power_of, write

TINY = {
    "scene": "tiny", "epochs": 3, "pairs_per_epoch": 320, "batch_size": 16, "image_size": 32, "augment": (),
    "val_queries": 400,
}  # fmt: skip

#: What a minute of all of them together needs beside it: triplets and mined pairs learn slowly from untrained weights.
CONTRASTIVE = {"loss": "infonce", "loss_options": {}, "sampler": "distinct"}
BESIDE = {
    "saig_s_smd": {},
    "saig_d_smd": {},
    "transgeo": {"sharpness": "none", "sampler": "distinct"},
    "transgeo_zoom": {"sharpness": "none", "sampler": "distinct", "learning_rate": 3e-4},  # no first stage here
    "vigor_vgg16": CONTRASTIVE,
    "vigor_resnet": {"image_size": 64, "epochs": 2, "learning_rate": 3e-3, **CONTRASTIVE},
    "vigor_hybrid": CONTRASTIVE,
    "sample4geo": {},
    "cmpc_published": {},
    "cmpc_mended": {},
    "l2ltr": {"image_size": 64, "epochs": 5, **CONTRASTIVE},
    "cvm_net": {"epochs": 4, **CONTRASTIVE},
}
MATCHERS = {
    "fft_unet": {"stride": 1, "width": 8, "depth": 2},
    "maru_net": {"stride": 1, "width": 8, "depth": 2},
    "osmnet": {"stride": 1, "width": 8, "dilations": (1, 2)},
}


def trained(config, scene, folder):
    """History of a training."""
    kept = []
    train(config, scene, folder, report=kept.append)
    return kept[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", BESIDE)
def test_a_system_learns(tiny_scene, tmp_path, name):
    history = trained(sm.recipe(name, **TINY | BESIDE[name]), tiny_scene, tmp_path)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["recall@10"].max() > 0.14, "chance is 0.10, its standard error 0.015"


@pytest.mark.slow
@pytest.mark.parametrize("name", MATCHERS)
def test_a_matcher_learns(tiny_scene, tmp_path, name):
    changes = {"batch_size": 6, "pairs_per_epoch": 48, "val_queries": 60, "encoder_options": MATCHERS[name]}
    history = trained(sm.recipe(name, **TINY | changes), tiny_scene, tmp_path)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["recall@10"].max() > 0.5, "chance is 0.10"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("transgeo_zoom", {}),  # patches kept, a mining pool, sharpness
        ("saig_s_smd", {}),  # steps to a perturbation and back
        ("sample4geo", {"epochs": 6}),  # neighbours, and after the fourth epoch what looks alike
        ("sample4geo", {"encoder": "x_modality", "encoder_options": {"encoder": "plain"}}),
    ],
)
def test_going_on_equals_never_having_stopped(tiny_scene, tmp_path, name, changes):
    config = sm.recipe(name, **TINY | {"pairs_per_epoch": 64, "val_queries": 40} | changes)

    class PowerCutError(Exception):
        pass

    def cut(history):
        if len(history) == config.epochs - 1:
            raise PowerCutError

    train(config, tiny_scene, tmp_path / "whole", report=lambda history: None)
    with pytest.raises(PowerCutError):
        train(config, tiny_scene, tmp_path / "cut", report=cut)
    train(config, tiny_scene, tmp_path / "cut", report=lambda history: None)
    whole, resumed = (load_file(tmp_path / part / WEIGHTS) for part in ("whole", "cut"))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_a_second_stage_begins_with_the_weights_that_the_first_has_kept(tiny_scene, tmp_path, monkeypatch):
    """At a rate of nothing they stay; the table of positions alone is stretched to the larger reference."""
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
    small = TINY | {"epochs": 1, "pairs_per_epoch": 32, "val_queries": 40, "test_queries": 40}
    small |= {"kinds": ("arbitrary",), "baseline_options": {"cells": 4}, "weight_decay": 0.0, "sharpness": "none"}
    config = sm.recipe("transgeo_zoom", **small)
    still = config.model_copy(
        update={"learning_rate": 1e-30, "first_stage": config.first_stage | {"learning_rate": 1e-3}}
    )
    run = sm.run(still, tmp_path / "second", report=lambda history: None)
    (first,) = (p for p in tmp_path.iterdir() if p != run.path)
    assert sm.load_run(first).config == still.before and not sm.load_run(first).config.first_stage
    assert still.before.encoder_options == still.encoder_options | {"zoom": 1.0}
    begun, kept = load_file(first / WEIGHTS), load_file(run.path / WEIGHTS)
    table = "branch.reference.net.pos_embed"
    assert begun[table].shape != kept[table].shape
    learned = [name for name in begun if name != table and "normalise" not in name]  # which is measured of its images
    assert learned and all(torch.allclose(begun[name], kept[name], atol=1e-6) for name in learned)
    untrained = run.untrained().state_dict()
    assert not all(torch.allclose(value, untrained[name], atol=1e-4) for name, value in kept.items())
    assert config.pairs == 64, "both stages count"
    with pytest.raises(ValueError, match=r"first_stage: weights of the first stage"):
        sm.run(config.model_copy(update={"first_stage": {"encoder_options": {"depth": 1}}}), tmp_path / "other")
    with pytest.raises(ValueError, match=r"first_stage: epochs is 0"):
        sm.recipe("transgeo_zoom", first_stage={"epochs": 0})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saig_s_smd", "saig_d_smd", "cmpc_published", "osmnet"])
def test_a_system_runs_like_any_other(tiny_scene, tmp_path, monkeypatch, name):
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
    changes = {"epochs": 1, "pairs_per_epoch": 48, "val_queries": 40, "test_queries": 60}
    if name in MATCHERS:
        changes |= {"encoder_options": MATCHERS[name], "baseline_options": {}}
    else:
        changes |= {"baseline_options": {"cells": 4}}
    run = sm.run(sm.recipe(name, **TINY | changes), tmp_path / name)
    assert len(run.summary) > 0
    again = sm.load_run(run.path)
    assert again.config == run.config
    weights = {k: v for k, v in again.encoder.state_dict().items() if v.is_floating_point()}
    assert all(torch.equal(v, run.encoder.state_dict()[k]) for k, v in weights.items())

    asked, tiles = again.task(tiny_scene, "cross_area", "arbitrary")
    assert again.find(tiny_scene, asked, tiles, k=5).xy.shape == (60, 5, 2)
    if name not in MATCHERS:  # whose lists are of places
        lists, _, _ = again.lists("cross_area", "arbitrary", k=8, scene=tiny_scene)
        learned = LearnedRefiner("gnn", width=8).fit([lists], epochs=1)
        assert learned.refine(lists.candidates, lists.context).tile.shape == (60, 8)

    ground = field(0, (320, 352))
    chart = write(tmp_path / "map.tif", np.repeat((255 * ground)[None], 3, 0).astype(np.uint8), 0.5)
    strip = write(tmp_path / "strip.tif", power_of(ground[96:224, 64:96]), crs=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LocationWarning)
        located = sm.locate(strip, chart, run.path, pixel_size=0.5)
    posterior = located.fix.posterior
    assert located.method == run.config.encoder and len(located.fix.track) == 4
    assert np.exp(posterior.log_prob).sum() + posterior.absent == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", [*BESIDE, *MATCHERS])
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_both_profiles_of_a_recipe_can_be_built(name, profile):
    config = sm.recipe(name, profile=profile)
    assert name in sm.list_recipes() and config.encoder in list_encoders()
    with torch.device("meta"):
        encoder = sm.create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
    count = sum(p.numel() for p in encoder.parameters())
    assert count < 3_000_000 if profile == "quick" else count > 50_000


def test_the_full_recipes_have_the_published_settings():
    published = {
        "saig_d_smd": {"rho": 2.0, "learning_rate": 1e-4, "weight_decay": 0.03, "batch_size": 32, "warmup": 0.0},
        "transgeo": {"rho": 2.5, "learning_rate": 5e-5, "batch_size": 16, "epochs": 50, "sharpness": "asam"},
        "vigor_vgg16": {"learning_rate": 1e-5, "batch_size": 14, "loss": "soft_margin_triplet", "sampler": "mined"},
        "sample4geo": {"learning_rate": 1e-3, "batch_size": 128, "epochs": 40, "image_size": 384},
        "cmpc_published": {"image_size": 200, "batch_size": 24, "alignment_weight": 0.01, "weight_decay": 5e-4},
    }
    for name, fields in published.items():
        config = sm.recipe(name, profile="full")
        assert {field: getattr(config, field) for field in fields} == fields
    assert "batch_norm" not in RECIPES["vigor_vgg16"].full["encoder_options"]
