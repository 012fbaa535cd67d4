"""Configs, the loop and run folders: determinism, resuming, controls, and nothing half-written."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import sarmatch as sm
from sarmatch import atomic_io
from sarmatch.alignment import Alignment
from sarmatch.alignment.registry import ALIGNMENTS
from sarmatch.datasets import registry
from sarmatch.encoders import DualEncoder, Encoder, Inputs, create_encoder, register_encoder
from sarmatch.encoders.base import ENCODERS
from sarmatch.experiments import sweeps
from sarmatch.experiments.records import keep_run, record_whitening
from sarmatch.figures import training_curve
from sarmatch.paths import ROOT, runs_dir
from sarmatch.simulation.simulate import passes_table, with_acquisition
from sarmatch.training import checkpoints, data, runs, step, vectors
from sarmatch.training.comparison import alignment_effects, compare
from sarmatch.training.config import Config, load_config, recipe
from sarmatch.training.dense import DenseValidation, matching_cells
from sarmatch.training.loop import is_best, train
from sarmatch.training.prepare import searched_with
from sarmatch.training.runs import choose_whitening, evaluate, intervals, load_run, query_mean, run
from sarmatch.training.schedule import Schedule
from sarmatch.training.step import parameter_groups
from sarmatch.training.vectors import VectorLearner
from tests import fake_data
from tests.launch import launched

SMALL = {
    "scene": "tiny",
    "image_size": 16,
    "epochs": 3,
    "pairs_per_epoch": 128,
    "batch_size": 32,
    "learning_rate": 3e-3,
    "augment": (),
    "val_queries": 60,
    "test_queries": 150,
    "baseline_options": {"cells": 4},
    "encoder_options": {"widths": (8, 16, 32, 32, 32), "feature_dim": 16},
}


#: Dense search on the tiny scene.
DENSE = {
    "search": "dense",
    "encoder": "dense",
    "encoder_options": {"width": 8, "channels": 8, "dilations": (1,), "coarse": 2},
    "loss": "shift_cross_entropy",
    "baseline": "cfog",
    "baseline_options": {},
}

TINY_CMPC = {"backbone": "resnet10t", "channels": (4, 4, 8, 8), "feature_dim": 8}


@pytest.fixture(autouse=True)
def _tiny_is_a_preset(tiny_scene, monkeypatch):
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)


def config(**changes) -> Config:
    return Config(**(SMALL | changes))


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / checkpoints.WEIGHTS)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class TestConfig:
    @pytest.mark.parametrize(
        "change",
        [{"epocks": 3}, {"epochs": 0}, {"loss_options": 3}, {"control": "x"}, {"protocols": ()}, {"offset": 0.7}],
    )
    def test_mistakes_name_their_field(self, change):
        with pytest.raises(ValueError, match=next(iter(change))):
            config(**change)

    def test_a_batch_must_fit_into_an_epoch(self):
        with pytest.raises(ValueError, match="batch_size is 256, more than pairs_per_epoch = 128"):
            config(batch_size=256)

    def test_the_key_stands_for_the_numbers(self):
        assert config().key == config().key == config(workers=2).key
        assert config().key != config(seed=1).key
        options = SMALL["encoder_options"]
        turned = config(encoder_options=dict(reversed(options.items())))
        assert turned == config()
        assert turned.key == config().key

    def test_the_key_hashes_what_differs_from_the_defaults(self, monkeypatch):
        assert Config().key == Config(loss_options={}, seed=0, bands="first").key
        keys = {Config(**c).key for c in ({}, {"bands": ("HH",)}, {"bands": ("HH", "VV")}, {"fold": (0, 2)})}
        assert len(keys) == 4
        before = Config().key
        monkeypatch.setattr("sarmatch.training.config.SCHEMA", 3)
        assert Config().key != before

    def test_old_words_are_understood_with_a_warning(self):
        old = {"floor": "hog", "floor_options": {"cells": 4}, "train_share": 0.5, "bands": None}
        new = {"baseline": "hog", "baseline_options": {"cells": 4}, "train_fraction": 0.5, "bands": "first"}
        for make in (Config, lambda **fields: recipe("infonce", **fields)):
            with pytest.warns(DeprecationWarning, match="floor_options is now baseline_options") as seen:
                found = make(**old)
            assert found == make(**new)
            assert seen[0].filename == __file__
            with pytest.warns(DeprecationWarning, match="bands=None is now bands='first'"):
                make(bands=None)

    def test_bands_are_named_or_the_first(self):
        assert Config().sar_bands == Config(bands=("VV",)).sar_bands == 1
        assert Config(bands=["HH", "VV"]).sar_bands == 2
        for wrong in ((), "all", 3):
            with pytest.raises(ValueError, match="bands"):
                Config(bands=wrong)

    @pytest.mark.parametrize("path", sorted(ROOT.glob("data/**/config.json")), ids=lambda path: path.parent.name)
    def test_recorded_configs_load_in_silence(self, path):
        recorded, found = json.loads(path.read_text()), load_config(path)
        assert found.bands == "first"
        words = {"baseline": "floor", "baseline_options": "floor_options", "train_fraction": "train_share"}
        for name, old in words.items():  # older records have the old words, the oldest not all of them
            assert found.model_dump(mode="json")[name] == recorded.get(name, recorded.get(old, getattr(Config(), name)))
        for name in recorded.keys() & found.model_fields_set - {"bands"}:
            assert found.model_dump(mode="json")[name] == recorded[name]
        assert Config(**found.model_dump()) == found

    def test_recipes_change_by_name_and_profile(self, monkeypatch):
        assert recipe("demo", epochs=2).epochs == 2
        monkeypatch.setenv("SARMATCH_PROFILE", "full")
        assert recipe("demo").profile == "full"
        assert recipe("demo").epochs > recipe("demo", profile="quick").epochs
        with pytest.raises(ValueError, match="'demmo'.*demo"):
            recipe("demmo")


def scheduled(settings: Config, steps: list[int]) -> list[float]:
    """The learning rates of epochs with so many steps each."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = Schedule(optimizer, settings), []
    for epoch, count in enumerate(steps):
        schedule.start(epoch, count)
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    return rates


def closed_form(settings: Config, step: int, total: int) -> float:
    warmup = settings.warmup * total
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def test_the_learning_rate_rises_and_then_falls_to_zero():
    rates = scheduled(config(warmup=0.1, epochs=10), [10] * 10)
    top = int(np.argmax(rates))
    assert 9 <= top <= 11
    assert rates[top] == pytest.approx(3e-3)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.37])
@pytest.mark.parametrize("steps", [[7, 7, 7], [7, 5, 6]])
def test_the_learning_rate_is_the_closed_form_whatever_a_sampler_fills(warmup, steps):
    settings = config(warmup=warmup, epochs=len(steps))
    expected = [closed_form(settings, e * n + i, len(steps) * n) for e, n in enumerate(steps) for i in range(n)]
    np.testing.assert_allclose(scheduled(settings, steps), expected, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("steps", [[6, 6, 6, 6], [7, 5, 6, 4]])
def test_the_learning_rate_falls_to_a_tenth_where_a_config_says_so(steps):
    constant = scheduled(config(warmup=0.0, decay=(), epochs=4), steps)
    assert set(constant) == {3e-3}
    falling = scheduled(config(warmup=0.0, decay=(0.5, 0.75), epochs=4), steps)
    expected = [3e-3 * (1, 1, 0.1, 0.01)[epoch] for epoch, count in enumerate(steps) for _ in range(count)]
    np.testing.assert_allclose(falling, expected, rtol=1e-12)


def test_a_trunk_may_learn_at_a_rate_of_its_own():
    """One step of plain descent: every weight moves by its rate times its gradient."""
    changes = {"encoder": "cmpc", "encoder_options": TINY_CMPC, "optimizer": "sgd", "weight_decay": 0, "warmup": 0}
    settings = config(**changes, trunk_rate=0.1)
    learner = VectorLearner(create_encoder("cmpc", 32, **TINY_CMPC), settings, 32)
    optimizer = torch.optim.SGD(parameter_groups(learner, settings), lr=1.0)
    Schedule(optimizer, settings).start(0, 1)
    before = {name: weights.detach().clone() for name, weights in learner.named_parameters()}
    for weights in learner.parameters():
        weights.grad = torch.ones_like(weights)
    optimizer.step()
    moves = {name: (before[name] - weights).mean().item() for name, weights in learner.named_parameters()}
    for name, move in moves.items():
        assert move == pytest.approx(3e-3 * (0.1 if ".trunk." in name else 1), rel=1e-2), name
    assert {".trunk." in name for name in moves} == {True, False}
    with pytest.raises(ValueError, match="trunk_rate is 0.1, and encoder 'plain' has no trunk"):
        parameter_groups(VectorLearner(create_encoder("plain", 32), config(), 32), config(trunk_rate=0.1))


@pytest.mark.parametrize(("field", "largest"), [("clip_norm", 1e-3), ("clip_value", 1e-5)])
def test_gradients_are_clipped_where_a_config_says_so(field, largest, tiny_scene, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []

    def looked_at(self, closure=None) -> None:
        seen.append(torch.cat([weights.grad.ravel() for weights in self.param_groups[0]["params"]]))

    monkeypatch.setattr(torch.optim.SGD, "step", looked_at)
    for limit in (None, largest):
        train(config(optimizer="sgd", epochs=1, **{field: limit}), tiny_scene, tmp_path / str(limit))
    sizes = [gradient.norm().item() if field == "clip_norm" else gradient.abs().max().item() for gradient in seen]
    free, clipped = np.split(np.array(sizes), 2)
    assert free.min() > largest, "the control: they would have been larger"
    np.testing.assert_allclose(clipped, largest, rtol=1e-3)


def test_auxiliary_losses_may_join_later(tiny_scene, tmp_path):
    """Until then an encoder learns as without them, and afterwards otherwise."""
    late = {"auxiliary": {"iou_semi_positive": 0.1}, "auxiliary_from": 0.5, "sampler": "cluster", "epochs": 2}
    losses = {}
    for name, changes in {"late": late, "without": late | {"auxiliary": {}}}.items():
        train(config(**changes), tiny_scene, tmp_path / name)
        losses[name] = pd.read_csv(tmp_path / name / checkpoints.HISTORY)["loss"]
    assert losses["late"][0] == losses["without"][0]
    assert losses["late"][1] > losses["without"][1]


def test_the_epoch_that_is_kept_knows_the_losses_that_joined_later(tmp_path):
    """Recall fell when they joined: the best of the epochs before must not be kept."""
    recall = [0.2, 0.9, 0.3, 0.5, 0.4]
    history = [{"recall@5": value} for value in recall]
    late = config(epochs=5, auxiliary={"iou_semi_positive": 0.1}, auxiliary_from=0.4)
    best = [[is_best(settings, history[: n + 1]) for n in range(5)] for settings in (late, config(epochs=5))]
    assert best == [[True, True, True, True, False], [True, True, False, False, False]]
    pd.DataFrame(history).assign(epoch=range(1, 6), loss=1.0).to_csv(tmp_path / checkpoints.HISTORY, index=False)
    assert [runs.Run(tmp_path, settings).kept["epoch"] for settings in (late, config(epochs=5))] == [4, 2]
    panel = training_curve(runs.Run(tmp_path, late).history, late.select, kept=4).axes[1]
    assert "kept: epoch 4" in panel.get_legend_handles_labels()[1]


def test_a_training_state_of_another_version_is_named(tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 1)
    train(config(epochs=1), tiny_scene, tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"training\.safetensors: a training state of version 1, expected 2"):
        train(config(epochs=1), tiny_scene, tmp_path)


def test_two_trainings_agree_to_the_last_bit_and_a_seed_changes_them(tiny_scene, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(seed=seed), tiny_scene, tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_processes_that_read_images_change_no_number(tiny_scene, tmp_path):
    for workers in (0, 2):
        train(config(workers=workers, epochs=2), tiny_scene, tmp_path / str(workers))
    assert same(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_going_on_equals_never_having_stopped(tiny_scene, tmp_path, monkeypatch):
    train(config(), tiny_scene, tmp_path / "whole")

    class PowerCutError(Exception):
        pass

    def cut(self, encoder, batch_size, measure=vectors.VectorValidation.measure):
        if (tmp_path / "cut" / checkpoints.STATE).is_file():
            raise PowerCutError
        return measure(self, encoder, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(vectors.VectorValidation, "measure", cut)
        with pytest.raises(PowerCutError):
            train(config(), tiny_scene, tmp_path / "cut")
    assert len(pd.read_csv(tmp_path / "cut" / checkpoints.HISTORY)) == 1
    train(config(), tiny_scene, tmp_path / "cut")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "whole" / checkpoints.HISTORY), pd.read_csv(tmp_path / "cut" / checkpoints.HISTORY)
    )
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_the_best_epoch_is_kept_not_the_last(tiny_scene, tmp_path, monkeypatch):
    recalls = iter([0.1, 0.9, 0.2])
    kept = []

    def scripted(self, encoder, batch_size):
        kept.append({k: v.clone() for k, v in encoder.state_dict().items()})
        return dict.fromkeys(("recall@1", "recall@5", "recall@10"), next(recalls))

    monkeypatch.setattr(vectors.VectorValidation, "measure", scripted)
    encoder = train(config(), tiny_scene, tmp_path)
    assert same(dict(encoder.state_dict()), kept[1])


def test_a_loss_that_is_not_finite_stops_with_its_name_and_step(tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "create_loss", lambda name, dim, **options: Broken())
    with pytest.raises(FloatingPointError, match=r"loss 'infonce' is nan at step 0 of epoch 1"):
        train(config(), tiny_scene, tmp_path)


class Broken(torch.nn.Module):
    def forward(self, batch):
        return batch.query.sum() * float("nan")


@pytest.fixture(scope="module")
def trained(tiny_scene, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        patch.setenv("SARMATCH_RUNS", str(tmp_path_factory.mktemp("runs")))
        return run(config(epochs=8, pairs_per_epoch=512, protocols=("same_area", "cross_area")))


def test_learning_beats_chance_on_ground_never_seen(trained):
    rows = trained.metrics.query("method == 'plain' and kind == 'arbitrary'").set_index("protocol")
    assert rows["gallery"].eq(100).all()
    for protocol in ("same_area", "cross_area"):
        assert rows.loc[protocol, "recall@10"] > 2 * rows.loc[protocol, "recall@10_chance"]
        assert rows.loc[protocol, "recall@10_low"] > rows.loc[protocol, "recall@10_chance"]
        assert rows.loc[protocol, "ceiling_median_m"] < rows.loc[protocol, "median_m"]


def test_shuffled_pairs_stay_at_chance(tiny_scene, tmp_path):
    control = run(
        config(epochs=8, pairs_per_epoch=512, control="shuffled_pairs", kinds=("arbitrary",), test_queries=400),
        tmp_path,
    )
    row = control.metrics.query("method == 'plain'").iloc[0]
    # the interval over blocks of ground is what an honest reader would look at
    assert row["recall@10_low"] <= row["recall@10_chance"]
    assert row["recall@10"] < 2 * row["recall@10_chance"]


def test_whitened_vectors_are_a_row_and_what_a_run_can_find_by(trained, tiny_scene):
    rows = trained.metrics.query("protocol == 'cross_area' and kind == 'arbitrary'").set_index("method")
    assert list(rows.index) == ["plain", "hog", "plain + whitened", "hog + whitened"]
    asked, tiles = trained.task(tiny_scene, "cross_area", "arbitrary")
    query, reference = trained.embed(tiny_scene, asked, tiles)
    spread, axes = np.linalg.eigh(np.cov(reference.T))
    turn = axes / np.sqrt(np.maximum(np.sqrt(spread.clip(0)), 0.01 * np.sqrt(spread.max())))
    sides = [(query - trained.query_mean) @ turn, (reference - reference.mean(0)) @ turn]
    one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    cosine = one @ other.T
    right = (cosine.argmax(1) == asked["positive"]).mean()
    assert right == pytest.approx(rows.loc["plain + whitened", "recall@1"], abs=0.02)
    found = trained.find(tiny_scene, asked, tiles, k=1, whiten=True)
    assert (found.tile[:, 0] == cosine.argmax(1)).mean() > 0.95
    few = tiles.iloc[:20]
    plain = trained.find(tiny_scene, asked, few, k=1)
    assert np.array_equal(plain.tile[:, 0], (query @ reference[:20].T).argmax(1)), "few tiles have no axes to speak of"


def test_a_run_of_vectors_finds_on_another_map_without_the_ground_it_was_trained_on(trained, tiny_scene, tmp_path):
    folder = shutil.copytree(trained.path, tmp_path / "moved")
    settings = json.loads((folder / "config.json").read_text()) | {"scene": str(tmp_path / "gone")}
    (folder / "config.json").write_text(json.dumps(settings))
    asked, tiles = trained.task(tiny_scene, "cross_area", "arbitrary")
    found = sm.load_run(folder).find(tiny_scene, asked, tiles, k=3)
    assert np.array_equal(found.tile, trained.find(tiny_scene, asked, tiles, k=3).tile)
    np.testing.assert_array_equal(trained.query_mean, query_mean(trained.encoder, tiny_scene, trained.config))
    (folder / "query_mean.json").write_text("[0.5]")
    with pytest.raises(ValueError, match=r"query_mean\.json: expected \d+ finite numbers"):
        sm.load_run(folder).find(tiny_scene, asked, tiles, k=3)
    (folder / "query_mean.json").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="gone"):
        sm.load_run(folder).find(tiny_scene, asked, tiles, k=3)


class TestWhiteningIsChosen:
    """On validation areas, by the measure that chose the epoch."""

    SIGNAL, REST, TILES = 4, 28, 200

    def chosen(self, monkeypatch, query, reference, centre):
        class Known(vectors.VectorValidation):
            def __init__(self, *_):
                self.queries = pd.DataFrame({"positive": np.arange(len(query))})
                self.tiles = pd.DataFrame(index=range(len(reference)))

            def embedded(self, *_):
                return query, reference

        monkeypatch.setattr(runs, "VectorValidation", Known)
        return choose_whitening(config(select="recall@1"), None, None, centre)

    def unit(self, *sides):
        return [(side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in sides]

    def right_as_they_are(self, query, reference):
        return ((query @ reference.T).argmax(1) == np.arange(self.TILES)).mean()

    def test_where_it_harms_vectors_stay_as_they_are(self, monkeypatch):
        """Axes in which tiles hardly differ hold nothing but the queries' noise, which whitening raises."""
        rng = np.random.default_rng(0)
        spread = np.r_[np.ones(self.SIGNAL), np.full(self.REST, 0.05)]
        reference = rng.standard_normal((self.TILES, len(spread))) * spread
        query = reference + 0.1 * rng.standard_normal(reference.shape)
        query, reference = self.unit(query, reference)
        found = self.chosen(monkeypatch, query, reference, query.mean(0))
        assert found["plain"] == self.right_as_they_are(query, reference) > found["whitened"]
        assert (found["measure"], found["queries"], found["tiles"]) == ("recall@1", self.TILES, self.TILES)

    def test_where_it_helps_vectors_are_whitened(self, monkeypatch):
        """An axis that sets the modalities apart, and tiles among themselves, drowns what they have in common."""
        rng = np.random.default_rng(0)
        reference = 0.1 * rng.standard_normal((self.TILES, self.REST))
        query = reference + 0.02 * rng.standard_normal(reference.shape)
        reference[:, 0] += 1 + 0.5 * rng.standard_normal(self.TILES)
        query[:, 0] += -1 + 0.5 * rng.standard_normal(self.TILES)
        query, reference = self.unit(query, reference)
        found = self.chosen(monkeypatch, query, reference, query.mean(0))
        assert found["plain"] == self.right_as_they_are(query, reference) < found["whitened"]

    @pytest.fixture
    def copied(self, trained, tmp_path):
        folder = shutil.copytree(trained.path, tmp_path / "copied")

        def of(**known: float):
            (folder / "whitening.json").unlink(missing_ok=True)
            if known:
                atomic_io.write_json(folder / "whitening.json", trained.whitening | known)
            return sm.load_run(folder)

        return of

    def test_a_run_keeps_it_and_follows_it_and_an_argument_overrides(self, trained, copied, tiny_scene, tmp_path):
        asked, tiles = trained.task(tiny_scene, "cross_area", "arbitrary")
        plain, whitened = (trained.find(tiny_scene, asked, tiles, 1, whiten=w).tile.tolist() for w in (False, True))
        assert plain != whitened, "or this shows nothing"
        few = tiles.iloc[:20]
        for known, expected in (
            ({"plain": 0.2, "whitened": 0.3}, whitened),
            ({"plain": 0.3, "whitened": 0.2}, plain),
            ({"plain": 0.3, "whitened": 0.3}, plain),
            ({}, whitened),  # as runs did before it was chosen
        ):
            run = copied(**known)
            assert run.find(tiny_scene, asked, tiles, 1).tile.tolist() == expected
            for whiten, other in ((False, plain), (True, whitened)):
                assert run.find(tiny_scene, asked, tiles, 1, whiten=whiten).tile.tolist() == other
            assert not run.whitens(tiny_scene, few)
        keep_run(copied(plain=0.25), tmp_path / "kept", weights=True)
        assert sm.load_run(tmp_path / "kept").whitening == trained.whitening | {"plain": 0.25}
        with pytest.raises(ValueError, match=r"whitening\.json: expected numbers `plain` and `whitened`"):
            copied(plain=None).find(tiny_scene, asked, tiles)

    def test_the_number_as_they_are_is_that_by_which_the_epoch_was_chosen(self, trained):
        assert trained.whitening["plain"] == trained.history[trained.config.select].max()
        assert trained.whitening["measure"] == trained.config.select

    def test_a_run_that_does_not_know_it_is_told(self, trained, copied):
        known = record_whitening(copied())
        assert known.whitening == trained.whitening
        assert known.whitening == json.loads((known.path / "whitening.json").read_text())

    def test_test_areas_are_not_looked_at(self, trained, tiny_scene, monkeypatch):
        """Negative control: with another town in the place of the one that is tested on, numbers stay what they are."""
        splits = []
        search_task = vectors.search_task
        monkeypatch.setattr(vectors, "search_task", lambda *a, **k: splits.append(a[3]) or search_task(*a, **k))
        monkeypatch.setattr(runs, "search_task", None)
        others = fake_data.tiny_scene(seed=1)
        areas = [others.area(a.name) if a.name in tiny_scene.test_areas else a for a in tiny_scene.areas]
        blind = dataclasses.replace(tiny_scene, areas=tuple(areas))
        assert sum(a is not b for a, b in zip(blind.areas, tiny_scene.areas, strict=True)) == 1
        for protocols in (("same_area",), ("cross_area",)):
            of = trained.config.model_copy(update={"protocols": protocols})
            seen, unseen = (choose_whitening(of, s, trained.encoder, trained.query_mean) for s in (tiny_scene, blind))
            assert seen == unseen
        assert set(splits) == {"val"}

    def test_dense_search_has_nothing_to_whiten(self, tiny_scene, tmp_path):
        dense = runs.Run(tmp_path, config(**DENSE))
        with pytest.raises(ValueError, match="search is 'dense', and only vectors can be whitened"):
            dense.find(tiny_scene, pd.DataFrame(), pd.DataFrame(), whiten=True)
        with pytest.raises(ValueError, match="search is 'dense', and only vectors can be whitened"):
            record_whitening(dense)


@pytest.mark.parametrize("centre", [None, np.full(8, 8**-0.5, np.float32)])
def test_a_collapsed_encoder_scores_no_better_than_chance(tiny_scene, centre):
    class Collapsed(Encoder):
        inputs = {"query": Inputs(1, 16), "reference": Inputs(3, 16)}
        feature_dim = 8

        def encode_query(self, images):
            return torch.nn.functional.normalize(torch.ones(len(images), 8) + 1e-9 * torch.rand(len(images), 8), dim=1)

        encode_reference = encode_query

    report, _ = evaluate(Collapsed(), tiny_scene, config(), "cross_area", "arbitrary", centre=centre)
    for k in (1, 5, 10):
        assert report[f"recall@{k}"] <= report[f"recall@{k}_chance"]
    assert report["hit_rate"] <= report["hit_rate_chance"]
    assert report["median_m"] >= report["chance_median_m"]


@pytest.mark.parametrize("spread", [0.0, 1e-9])
@pytest.mark.parametrize("centred", [True, False])
def test_collapsed_feature_maps_score_no_better_than_chance(tiny_scene, spread, centred):
    class Constant(Encoder):
        inputs = {"query": Inputs(1, None), "reference": Inputs(3, None)}
        stride, reach = 4, 0

        def forward_features(self, images, modality):
            count, _, height, width = images.shape
            return torch.ones(count, 8, height // 4, width // 4) + spread * torch.rand(
                count, 8, height // 4, width // 4
            )

    Constant.centred = centred
    report, _ = evaluate(Constant(), tiny_scene, config(), "cross_area", "arbitrary")
    for k in (1, 5, 10):
        assert report[f"recall@{k}"] <= 2 * report[f"recall@{k}_chance"]
    assert report["within_0.25_tile"] < 0.1


def test_a_finished_run_is_not_run_again_and_loads(trained, monkeypatch):
    monkeypatch.setattr("sarmatch.training.runs.train", None)
    again = run(trained.config, trained.path)
    assert again == trained
    assert load_run(trained.path).metrics.equals(trained.metrics)
    assert len(trained.history) == 8


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_config_is_refused(trained, tmp_path, finished):
    for name in ("config.json", "metrics.json") if finished else ("config.json",):
        shutil.copy(trained.path / name, tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path.name}: holds a run of another config"):
        run(trained.config.model_copy(update={"seed": 5}), tmp_path)


def test_results_say_where_each_query_was_found(trained, tiny_scene):
    results = trained.results("cross_area", "arbitrary")
    asked, tiles = trained.task(tiny_scene, "cross_area", "arbitrary")
    assert results[["row", "col", "positive"]].equals(asked[["row", "col", "positive"]])
    first = np.array([f[0] for f in results["found"]])
    errors = np.hypot(*(tiles[["x", "y"]].to_numpy()[first] - asked[["x", "y"]].to_numpy()).T)
    assert results["error_m"].to_numpy() == pytest.approx(errors, abs=1e-4)
    assert ((results["rank"] == 0) == (first == results["positive"])).all()


def test_the_summary_sets_every_number_beside_chance_and_ceiling(trained):
    summary = trained.summary
    assert list(summary.columns) == ["plain", "hog", "plain + whitened", "hog + whitened", "chance", "ceiling"]
    assert not summary.isna().any(axis=None)
    assert len(summary) == 4 * 6


def test_runs_compare_as_rows(trained, tmp_path):
    other = sm.Run(trained.path, trained.config.model_copy(update={"seed": 7}))
    table = compare([trained, other])
    assert list(table.columns)[0] == "seed"
    assert len(table) == 2 * len(trained.metrics)


def test_runs_record_how_far_the_modalities_are_apart(trained, tiny_scene):
    found = trained.discrepancy
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    validation = vectors.VectorValidation(trained.config, tiny_scene, trained.encoder)
    query, reference = validation.features(trained.encoder, 32)
    again = sm.discrepancy(query, reference, repeats=20)
    assert (again.value, again.ratio) == pytest.approx((found["wasserstein_1"], found["ratio"]))
    # row i of both is of one place: a true pair is more alike than two of different places
    assert (query * reference).sum(1).mean() > (query * np.roll(reference, 1, 0)).sum(1).mean() + 0.05


class Means(Alignment):
    """The alignment of README's example."""

    def loss(self, query, reference):
        return (query.mean(0) - reference.mean(0)).square().sum()


@pytest.fixture(scope="module")
def two_branches(tiny_scene, tmp_path_factory):
    """Runs of two unshared branches, far apart, by the weight of an alignment of their means; and one of weight 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        patch.setitem(ALIGNMENTS._things, "means", Means)
        options = SMALL["encoder_options"] | {"shared": False}
        settings = {"encoder_options": options, "kinds": ("arbitrary",), "alignment": "means", "alignment_warmup": 0.0}
        return {
            weight: run(config(**settings, alignment_weight=weight), tmp_path_factory.mktemp("means") / "run")
            for weight in (0.0, 1e-9, 100.0)
        }


class TestAlignmentEffects:
    def test_a_weight_that_moves_nothing_is_reported_as_ineffective(self, two_branches):
        words = alignment_effects(list(two_branches.values()))
        assert words[0] == "no alignment"
        assert words[1].startswith("ineffective: ")
        assert words[2].startswith("effective: ")

    def test_compare_says_so_beside_ratio_and_recall(self, two_branches):
        table = compare(list(two_branches.values())).query("method == 'plain'").set_index("alignment_weight")
        assert table.loc["1e-09", "effect"].startswith("ineffective: ")
        assert table.loc["100.0", "ratio"] < table.loc["0.0", "ratio_low"]
        assert {"recall@10", "ratio_high"} <= set(table)

    def test_without_a_control_nothing_is_known(self, two_branches):
        strong, none = two_branches[100.0], two_branches[0.0]
        assert alignment_effects([strong])[0].startswith("unknown: no run without")
        other = sm.Run(none.path, none.config.model_copy(update={"learning_rate": 1e-4}))
        assert alignment_effects([strong, other])[0].startswith("unknown: no run without")

    def test_a_run_older_than_the_record_is_known_to_know_nothing(self, two_branches, tmp_path):
        shutil.copytree(two_branches[0.0].path, tmp_path / "old")
        (tmp_path / "old" / runs.DISCREPANCY).unlink()
        old = load_run(tmp_path / "old")
        assert old.discrepancy == {}
        assert alignment_effects([two_branches[100.0], old])[0].startswith("unknown: not every run")
        assert "ratio" not in compare([old])

    def test_every_seed_of_the_control_has_to_lie_above(self, two_branches):
        strong, none = two_branches[100.0], two_branches[0.0]
        lucky = sm.Run(none.path, none.config.model_copy(update={"seed": 1}))
        lucky.__dict__["discrepancy"] = none.discrepancy | {"ratio": 0.9}
        assert alignment_effects([strong, none])[0].startswith("effective")
        assert alignment_effects([strong, none, lucky])[0].startswith("ineffective")


def test_an_unaligned_config_differs_in_the_alignment_alone():
    aligned = config(alignment="coral", alignment_weight=3.0, alignment_warmup=0.5, seed=4)
    assert aligned.unaligned == config(seed=4)
    assert aligned.aligned
    assert not config(alignment="coral", alignment_weight=0).aligned
    assert not config().aligned


def test_pairs_without_coordinates_give_no_metres(pairs_folder, tmp_path):
    finished = run(config(scene=str(pairs_folder), epochs=1, kinds=("aligned",), image_size=24), tmp_path)
    assert not [c for c in finished.metrics if c.endswith("_m")]
    assert "error_m" not in finished.results("cross_area", "aligned")


def test_intervals_need_two_blocks():
    assert intervals(np.zeros(10), np.zeros(10)) == {}
    both = intervals(np.array([0, 9] * 50), np.arange(100) // 10, ks=(1,))
    assert both["recall@1_low"] == both["recall@1_high"] == 0.5  # every block is half right


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "metrics.json"
    atomic_io.write_json(path, {"old": 1})

    def fail(temporary):
        temporary.write_text("{half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_io.write(path, fail)
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.slow
def test_two_processes_get_the_losses_of_one(tmp_path):
    """Batches are divided, embeddings gathered: the loss sees the same whole batch. (Without batch norm, which would
    see only its half on CPUs; on GPUs it is synchronised.)"""
    script = Path(__file__).with_name("two_processes.py")
    for count in (1, 2):
        told = launched(count, script, tmp_path / str(count))
        assert f"{count} processes" in told and told.count("epoch 1 ") == 1, "the main one speaks"
    one, two = (pd.read_csv(tmp_path / str(count) / checkpoints.HISTORY) for count in (1, 2))
    np.testing.assert_allclose(one[["loss", "estimate"]], two[["loss", "estimate"]], rtol=2e-3)
    np.testing.assert_allclose(one["recall@10"], two["recall@10"], atol=0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"alignment": "wasserstein"},
        {"alignment": "wasserstein_clipped", "encoder_options": SMALL["encoder_options"] | {"shared": True}},
        {"alignment": "class_adversary", "optimizer": "sgd"},
        {"alignment": "sliced", "sampler": "mined", "auxiliary": {"iou_semi_positive": 0.1}},
        {"sharpness": "asam", "rho": 0.5, "loss_options": {"learnable_temperature": True}},
        {"refiner": "gnn", "refiner_options": {"width": 16, "dropout": 0.0}, "sampler": "cluster"},
        DENSE | {"alignment": "wasserstein", "augment": ("dihedral", "radiometry", "jitter")},
        DENSE
        | {"mined": 12, "augment": ("dihedral", "respeckle"), "epochs": 2, "pairs_per_epoch": 32, "val_queries": 20},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_going_on_equals_never_having_stopped_with_every_part(tiny_scene, tmp_path, change):
    """The critic and its optimiser, momentum, a learnt temperature: all of it is kept."""
    settings = {"epochs": 3, "pairs_per_epoch": 64, "batch_size": 16} | change

    class PowerCutError(Exception):
        pass

    def cut(history):
        raise PowerCutError

    train(config(**settings), tiny_scene, tmp_path / "whole", report=lambda history: None)
    with pytest.raises(PowerCutError):
        train(config(**settings), tiny_scene, tmp_path / "cut", report=cut)
    train(config(**settings), tiny_scene, tmp_path / "cut", report=lambda history: None)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    whole, resumed = ((tmp_path / name / checkpoints.STATE).read_bytes() for name in ("whole", "cut"))
    assert whole == resumed


def test_a_collapsed_encoder_stops_and_says_under_what(tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "create_alignment", lambda name, dim, **options: Pull(dim))
    with pytest.raises(FloatingPointError, match=r"collapsed: all .*'infonce' and alignment 'coral' at step \d+"):
        train(config(alignment="coral", alignment_weight=1e4, learning_rate=0.03, epochs=40), tiny_scene, tmp_path)


class Pull(Alignment):
    """Draws every embedding to one spot."""

    def loss(self, query, reference):
        spot = torch.eye(self.feature_dim)[0]
        return (query - spot).square().sum() + (reference - spot).square().sum()


def test_an_alignment_that_is_not_finite_is_named(tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr(Alignment, "loss", lambda self, query, reference: query.sum() * float("inf"))
    with pytest.raises(FloatingPointError, match=r"alignment 'none' is (nan|inf|-inf) at step 0 of epoch 1"):
        train(config(alignment_warmup=1.0), tiny_scene, tmp_path)


def test_masked_neighbours_are_not_pushed_away(tiny_scene, tmp_path):
    """The tiny ground is crowded: with neighbours as negatives the loss is higher from the first epoch on."""
    losses = {}
    for neighbours in ("mask", "negatives"):
        train(config(neighbours=neighbours, epochs=1), tiny_scene, tmp_path / neighbours)
        losses[neighbours] = pd.read_csv(tmp_path / neighbours / checkpoints.HISTORY)["loss"].iloc[0]
    assert losses["negatives"] > losses["mask"] + 0.05


def test_less_ground_is_the_upper_part_of_each_rectangle():
    whole = pd.DataFrame({"row0": [0, 100], "row1": [1000, 150], "col0": 0, "col1": 500})
    part = data.thinned(whole, 0.25, 100)
    assert part["row1"].tolist() == [250, 150]
    pd.testing.assert_frame_equal(data.thinned(whole, 1.0, 100), whole)


class TestDense:
    """Dense search in the one loop: it learns, its control does not, and what does not go together is said."""

    @pytest.fixture(scope="class")
    def learned(self, tiny_scene, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
            folder = tmp_path_factory.mktemp("dense")
            changes = DENSE | {"epochs": 3, "pairs_per_epoch": 256, "batch_size": 8}
            yield run(config(**changes, kinds=("arbitrary",)), folder, report=lambda history: None)

    def test_it_learns_and_finds_on_ground_never_seen(self, learned):
        assert learned.history["loss"].iloc[-1] < learned.history["loss"].iloc[0]
        rows = learned.metrics.set_index("method")
        assert set(rows.index) == {"dense", "cfog"}
        assert rows.loc["dense", "recall@1_low"] > 5 * rows.loc["dense", "recall@1_chance"]
        assert rows.loc["dense", "gallery"] == rows.loc["cfog", "gallery"] == 100
        summary = learned.summary.loc[("cross_area", "arbitrary", 100, "median_m")]
        assert summary["ceiling"] == 0 < summary["dense"] < summary["chance"]

    def test_its_results_say_where_each_answer_lies(self, learned):
        results = learned.results("cross_area", "arbitrary")
        right = results["error_m"] < 16
        assert right.mean() > 0.2
        xy = np.stack(results["found_xy"].to_numpy())[:, 0]
        np.testing.assert_allclose(np.hypot(*(xy - results[["x", "y"]].to_numpy()).T), results["error_m"], atol=1e-3)

    def test_a_run_finds_places_with_what_it_has_learned(self, learned, tiny_scene):
        asked, tiles = learned.task(tiny_scene, "cross_area", "arbitrary")
        found = learned.find(tiny_scene, asked, tiles, k=3)
        assert found.xy.shape == (len(asked), 3, 2)
        results = learned.results("cross_area", "arbitrary")
        np.testing.assert_allclose(found.xy[:, 0], np.stack(results["found_xy"].to_numpy())[:, 0], atol=1e-4)

    def test_what_another_run_has_learned_is_tested_anew_without_training(self, learned, tmp_path, monkeypatch):
        monkeypatch.setattr(runs, "train", lambda *arguments: pytest.fail("it trains"))
        fewer = learned.config.model_copy(update={"test_queries": 40})
        again = run(fewer, tmp_path / "fewer", report=lambda history: None, trained=learned.path)
        assert list(again.metrics["queries"]) == [40, 40]
        assert again.history.equals(learned.history)
        other = fewer.model_copy(update={"seed": 5})
        with pytest.raises(ValueError, match=f"{learned.path}: trained by another config .*seed: 0, not 5"):
            run(other, tmp_path / "other", report=lambda history: None, trained=learned.path)

    def test_shuffled_pairs_do_not_find_better_than_what_is_not_trained(self, tiny_scene, tmp_path):
        """The control starts at the quality of orientation channels; learning from wrong answers must not raise it."""
        changes = DENSE | {"epochs": 2, "pairs_per_epoch": 128, "batch_size": 8, "control": "shuffled_pairs"}
        control = run(config(**changes, kinds=("arbitrary",)), tmp_path, report=lambda history: None)
        rows = control.metrics.set_index("method")
        assert rows.loc["dense", "recall@1"] < rows.loc["cfog", "recall@1"] + 0.1

    @pytest.mark.parametrize(
        ("encoder", "options"),
        [
            ("dense", {"width": 8, "channels": 8, "dilations": (1,), "coarse": 2, "confidence": True}),
            ("dense_timm", {"backbone": "resnet10t", "stride": 2, "coarse": 2}),
        ],
    )
    def test_other_maps_of_features_are_trained_and_searched_by_their_name(
        self, tiny_scene, tmp_path, monkeypatch, encoder, options
    ):
        monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        small = {"epochs": 1, "batch_size": 8, "pairs_per_epoch": 32, "val_queries": 20, "test_queries": 40}
        change = {"scene": "tiny", "protocols": ("cross_area",), "baseline_options": {}, **small}
        learned = run(
            recipe("dense", encoder=encoder, encoder_options=options, **change), tmp_path, report=lambda history: None
        )
        assert list(learned.metrics["method"]) == [encoder, "cfog"]
        before, after = (e.state_dict() for e in (learned.untrained(), learned.encoder))
        moved = [k for k, v in before.items() if v.is_floating_point() and not torch.equal(v, after[k])]
        assert any("branch.query" in k for k in moved) and any("branch.reference" in k for k in moved)
        assert not options.get("confidence") or any("trust" in k for k in moved)

    @pytest.mark.slow
    def test_one_network_gives_maps_of_features_and_vectors_pooled_from_them(self, tiny_scene, tmp_path, monkeypatch):
        monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        options = DENSE["encoder_options"] | {"pooling": "smd"}
        small = {"epochs": 2, "pairs_per_epoch": 192, "batch_size": 8, "kinds": ("arbitrary",), "mined": 16}
        change = DENSE | small | {"encoder_options": options, "auxiliary": {"infonce": 1.0}}
        learned = run(config(**change), tmp_path, report=lambda history: None)
        rows = learned.metrics.set_index("method")
        assert list(rows.index) == ["dense", "cfog", "pooled"]
        assert rows.loc["dense", "recall@1"] > rows.loc["pooled", "recall@1"]
        assert rows.loc["pooled", "recall@10_low"] > rows.loc["pooled", "recall@10_chance"]
        asked, tiles = learned.task(tiny_scene, "cross_area", "arbitrary")
        found = sm.search.VectorSearch(learned.gallery(tiny_scene, tiles), learned.encoder).search(
            runs.images_of(tiny_scene, asked, learned.config, learned.encoder), 1
        )
        right = (found.tile[:, 0] == asked["positive"]).mean()
        assert right == pytest.approx(rows.loc["pooled", "recall@1"], abs=0.02)
        assert learned.find(tiny_scene, asked[:3], tiles, k=2).tile is None
        blind = learned.encoder
        for parameter in blind.parameters():  # the control: features that are zero everywhere
            parameter.data.zero_()
        assert searched_with(learned.config, blind) == "dense"
        for search in ("vector", "dense"):
            report, _ = evaluate(blind, tiny_scene, learned.config, "cross_area", "arbitrary", search=search)
            assert report["recall@10"] < 0.2, "chance is 0.1"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"encoder": "plain", "encoder_options": {}}, "encoder 'plain' learns no map of features"),
            ({"loss": "infonce"}, "loss 'infonce' compares vectors.*'shift_cross_entropy'"),
            ({"auxiliary": {"triplet": 1.0}}, "triplet"),
            ({"refiner": "gnn"}, "refiner 'gnn' learns along with vectors only"),
        ],
    )
    def test_what_does_not_go_together_is_said(self, tiny_scene, tmp_path, change, message):
        with pytest.raises(ValueError, match=message):
            train(config(**DENSE | change), tiny_scene, tmp_path)

    def test_a_dense_loss_is_refused_where_vectors_are_learned(self, tiny_scene, tmp_path):
        with pytest.raises(ValueError, match="loss 'disc_hinge' compares shifts"):
            train(config(loss="disc_hinge"), tiny_scene, tmp_path)

    def test_queries_at_the_edge_of_a_map_are_validated_too(self):
        """Seven tiles of 40 px are eight cells of 32 px and a rest, in which the middle of a query may lie."""
        encoder = create_encoder("dense", stride=32, coarse=1, width=8, channels=8, dilations=(1,))
        validation = DenseValidation(
            config(**DENSE | {"patch_size": 40, "val_queries": 200}), fake_data.tiny_scene(300), encoder
        )
        assert (validation.queries["row"] + 20 >= 256).any()
        assert 0 <= validation.measure(encoder, 64)["recall@1"] <= 1

    def test_cells_that_an_alignment_is_given_lie_over_each_other(self):
        torch.manual_seed(0)
        window = torch.randn(3, 4, 30, 30)
        shift = torch.tensor([[2.0, 5.0], [0.0, 14.0], [7.3, 3.6]])
        query = torch.stack(
            [w[:, r : r + 16, c : c + 16] for w, (r, c) in zip(window, shift.round().int(), strict=True)]
        )
        own, under = matching_cells(query, window, shift, step=4)
        assert own.shape == (3 * 16, 4)
        assert torch.equal(own, under)
        torch.testing.assert_close(own.norm(dim=1), torch.ones(48))


@pytest.fixture(scope="module")
def arms(tiny_scene, tmp_path_factory):
    """Two arms of two seeds, run twice; the second time must train nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        patch.setenv("SARMATCH_RUNS", str(tmp_path_factory.mktemp("sweep")))
        settings = {"epochs": 6, "pairs_per_epoch": 384}
        controls = {"learnt": "none", "shuffled": "shuffled_pairs"}
        plan = {name: config(name=name, control=control, **settings) for name, control in controls.items()}
        patch.setitem(sweeps.SWEEPS, "tiny", sweeps.Sweep("a test", lambda scene: plan, seeds=(0, 1)))
        folder = tmp_path_factory.mktemp("kept")
        table = sweeps.run_sweep("tiny", folder=folder / "data" / "results" / "tiny")
        before = {p: p.stat().st_mtime_ns for p in runs_dir().rglob("*") if p.is_file()}
        again = sweeps.run_sweep("tiny", folder=folder / "data" / "results" / "tiny")
        assert before == {p: p.stat().st_mtime_ns for p in runs_dir().rglob("*") if p.is_file()}, "trained again"
        pd.testing.assert_frame_equal(table, again)
        yield {a: [run(Config(**c.model_dump() | {"seed": s})) for s in (0, 1)] for a, c in plan.items()}, folder


class TestSweeps:
    def test_the_table_has_every_arm_and_seed(self, arms):
        table, gaps = sweeps.load_sweep("tiny", arms[1])
        assert len(table) == 2 * 2 * 2
        expected = {(arm, seed) for arm in ("learnt", "shuffled") for seed in (0, 1)}
        assert set(zip(table["arm"], table["seed"], strict=True)) == expected
        assert set(gaps["arm"]) == {"shuffled"}
        assert (table["gallery"] == 100).all()
        commits = set(table["commit"])
        assert set(gaps["commit"]) == set(sweeps.load_curves("tiny", arms[1])["commit"]) == {", ".join(sorted(commits))}

    def test_the_table_says_what_was_trained_and_training_free_rows_stand_beside(self, arms):
        table, _ = sweeps.load_sweep("tiny", arms[1])
        finished = arms[0]["learnt"][0]
        assert set(table["parameters"]) == {sum(p.numel() for p in finished.encoder.parameters())}
        assert set(table["pairs"]) == {6 * 384}
        every = [r for of_arm in arms[0].values() for r in of_arm]
        rows = sweeps.with_baselines(table, every).query("arm == 'hog'")
        assert len(rows) == 2 * 2, "a row per seed and kind, however many methods"
        own = finished.metrics.query("method == 'hog' and kind == 'arbitrary'")["recall@1"].item()
        assert rows.query("seed == 0 and kind == 'arbitrary'")["recall@1"].item() == own
        assert (rows["parameters"] == 0).all()

    def test_differences_are_those_of_the_hits_seed_by_seed(self, arms):
        runs, folder = arms
        _, gaps = sweeps.load_sweep("tiny", folder)
        row = gaps.query("kind == 'arbitrary' and measure == 'recall@10'").iloc[0]
        means = {
            arm: np.mean([(r.results("cross_area", "arbitrary")["rank"] < 10).mean() for r in of_arm])
            for arm, of_arm in runs.items()
        }
        assert row["difference"] == pytest.approx(means["shuffled"] - means["learnt"], abs=1e-6)
        assert row["low"] <= row["difference"] <= row["high"] < 0, "a control that learnt nothing must show"
        assert row["seeds_better"] == 0

    def test_curves_over_metres_are_those_of_the_answers_beside_chance_and_ceiling(self, arms):
        runs, folder = arms
        curves = sweeps.load_curves("tiny", folder).set_index(["arm", "seed", "kind", "metres"])["fraction"]
        assert len(curves) == (2 + 2) * 2 * 2 * len(sweeps.METRES)
        for seed, finished in enumerate(runs["shuffled"]):
            error = finished.results("cross_area", "arbitrary")["error_m"]
            for metres in (10, 100):
                assert curves["shuffled", seed, "arbitrary", metres] == pytest.approx(
                    (error <= metres).mean(), abs=1e-6
                )
        own = runs["learnt"][1].metrics.query("kind == 'arbitrary'").iloc[0]
        for name in ("chance", "ceiling"):
            assert curves[name, 1, "arbitrary", 25] == pytest.approx(own[f"{name}_within_25m"], rel=1e-5)

    def test_what_is_finished_is_recorded_without_training(self, arms, tmp_path, monkeypatch):
        table = pd.read_csv(arms[1] / "data/results/tiny/table.csv")
        plan = {arm: of_arm[0].config for arm, of_arm in arms[0].items()}
        monkeypatch.setattr("sarmatch.training.runs.train", None)
        monkeypatch.setitem(sweeps.SWEEPS, "tiny", sweeps.Sweep("a test", lambda scene: plan, seeds=(0, 1, 2)))
        partial = sweeps.run_sweep("tiny", folder=tmp_path / "kept", finished=True)
        assert list(partial["run"]) == list(table["run"])
        monkeypatch.setitem(sweeps.SWEEPS, "tiny", sweeps.Sweep("a test", lambda scene: plan, seeds=(7,)))
        with pytest.raises(ValueError, match="'tiny': none of its runs is finished"):
            sweeps.run_sweep("tiny", folder=tmp_path / "none", finished=True)

    def test_a_method_is_paired_with_the_seeds_that_both_have(self, arms):
        runs, _ = arms
        both, one = (
            sweeps.differences({"learnt": runs["learnt"][:n], "shuffled": runs["shuffled"][:1]}) for n in (2, 1)
        )
        pd.testing.assert_frame_equal(both, one)

    def test_a_grid_is_all_combinations_and_checks_its_values(self):
        found = sweeps.grid(config(), seed=[0, 1], loss=["infonce", "soft_margin_triplet"])
        assert [(c.seed, c.loss) for c in found] == [(s, n) for s in (0, 1) for n in ("infonce", "soft_margin_triplet")]
        with pytest.raises(ValueError, match="seed"):
            sweeps.grid(config(), seed=[-1])

    def test_unknown_names_and_missing_records(self, tmp_path):
        with pytest.raises(ValueError, match="'alignmint'.*alignment"):
            sweeps.run_sweep("alignmint")
        with pytest.raises(FileNotFoundError, match="sarmatch sweep alignment"):
            sweeps.load_sweep("alignment", tmp_path)
        with pytest.raises(FileNotFoundError, match="sarmatch sweep alignment --finished"):
            sweeps.load_curves("alignment", tmp_path)

    def test_every_network_of_a_search_for_weights_has_its_control(self):
        vectors, dense, look = {0.1, 1.0, 10.0}, {1.0, 10.0}, {1.0}
        tried = {"alignment": [vectors, vectors, dense], "alignment_dense": [dense], "alignment_sentinel": [dense]}
        for name, weights in {**tried, "one_look_direction": [look, look]}.items():
            configs = sweeps.SWEEPS[name].arms("")
            networks: dict[str, list[Config]] = {}
            for settings in configs.values():
                networks.setdefault(settings.unaligned.key, []).append(settings)
            assert not any(of_network[0].aligned for of_network in networks.values())
            assert [{c.alignment_weight for c in of_network[1:]} for of_network in networks.values()] == weights

    def test_the_other_look_direction_is_a_shift_where_training_has_but_one(self):
        assert {c.scene for c in sweeps.SWEEPS["one_look_direction"].arms("").values()} == {"easy"}
        own = passes_table("easy")
        assert set(own["look_direction"]) == {"right"}
        assert set(own["view_deg"]) == {90.0}
        other = with_acquisition("easy", "quick", opposite_look=True)
        assert {s.details["side"] for area in other.areas for s in area.strips} == {"left"}
        assert passes_table("standard").query("role == 'train'")["look_direction"].nunique() == 2

    def test_arms_of_a_comparison_differ_in_what_they_are_named_for(self):
        for name in ("wasserstein", "class_adversary", "sliced", "sinkhorn"):
            control, arm = recipe("infonce").model_dump(), recipe(name).model_dump()
            assert {k for k in control if control[k] != arm[k]} <= {"name", "alignment", "alignment_options"}


class TestChooseWeights:
    """The rule, on made-up tables: validation recall by seed, and the ratio to the null."""

    @staticmethod
    def table(rows: dict[tuple[str, float], tuple[list[float], float]], network: str = "n") -> pd.DataFrame:
        return pd.DataFrame(
            {
                "arm": f"{alignment}_{weight:g}{'_b' * (i % 2)}",
                "seed": seed,
                "network": network,
                "alignment": alignment,
                "weight": weight,
                "validation_recall@10": recall,
                "ratio": ratio,
                "kind": kind,
            }
            for i, ((alignment, weight), (recalls, ratio)) in enumerate(rows.items())
            for seed, recall in enumerate(recalls)
            for kind in ("arbitrary", "aligned")
        )

    def test_the_largest_that_loses_no_more_than_seeds_differ(self):
        rows = {
            ("none", 0.0): ([0.50, 0.44, 0.47], 1.3),
            ("critic", 0.1): ([0.55, 0.55, 0.55], 1.3),
            ("critic", 1.0): ([0.43, 0.45, 0.45], 1.2),  # 0.4433 on average, above the worst seed of the control
            ("critic", 10.0): ([0.44, 0.43, 0.44], 1.0),
        }
        (row,) = sweeps.choose_weights(self.table(rows)).to_dict("records")
        assert row["weight"] == 1.0
        assert (row["least"], row["ratio"], row["ratio_without"], row["seeds"]) == (0.44, 1.2, 1.3, 3)

    def test_of_equal_weights_that_with_the_smaller_ratio(self):
        more = self.table({("none", 0.0): ([0.4], 1.3), ("critic", 1.0): ([0.4], 1.2)})
        steps = self.table({("critic", 1.0): ([0.5], 1.1)})
        assert sweeps.choose_weights(pd.concat([more, steps])).iloc[0]["arm"] == "critic_1"
        steps["ratio"] = 1.25
        assert sweeps.choose_weights(pd.concat([more, steps])).iloc[0]["arm"] == "critic_1_b"

    def test_none_is_chosen_where_all_lose(self):
        row = sweeps.choose_weights(self.table({("none", 0.0): ([0.5, 0.4], 1.3), ("critic", 0.1): ([0.3, 0.4], 1.0)}))
        assert row[["arm", "weight", "ratio"]].iloc[0].tolist() == ["none_0", 0.0, 1.3]

    def test_each_network_has_its_own(self):
        near = self.table({("none", 0.0): ([0.5], 1.1), ("critic", 1.0): ([0.4], 1.0)}, "shared")
        far = self.table({("none", 0.0): ([0.3], 3.0), ("critic", 1.0): ([0.4], 2.0)}, "two")
        chosen = sweeps.choose_weights(pd.concat([near, far])).set_index("network")
        assert chosen["weight"].to_dict() == {"shared": 0.0, "two": 1.0}
        with pytest.raises(ValueError, match="'lone' has no run without"):
            sweeps.choose_weights(self.table({("critic", 1.0): ([0.4], 1.0)}, "lone"))


def test_parts_of_ones_own_are_a_name_in_a_config(tiny_scene, tmp_path):
    """What a user registers in a notebook trains at once: loss, alignment, encoder, sampler and transform."""

    @sm.losses.register_loss("own")
    class OwnLoss(torch.nn.Module):
        def forward(self, batch):
            assert batch.sample.sort().values.unique().numel() == len(batch.query)
            assert batch.overlap.shape == (len(batch.query),) * 2
            return (1 - (batch.query * batch.reference).sum(1)).mean()

    @sm.alignment.register_alignment("own")
    class OwnAlignment(Alignment):
        def loss(self, query, reference):
            return (query.mean(0) - reference.mean(0)).square().sum()

    @sm.encoders.register_encoder("own")
    class OwnEncoder(sm.encoders.Encoder):
        def __init__(self, image_size, sar_bands):
            super().__init__()
            self.inputs = {m: sm.encoders.Inputs(c, image_size) for m, c in (("query", sar_bands), ("reference", 3))}
            self.query, self.reference = torch.nn.Conv2d(sar_bands, 8, 4, 4), torch.nn.Conv2d(3, 8, 4, 4)
            self.feature_dim, self.stride = 8, 4

        def forward_features(self, images, modality):
            return getattr(self, modality)(images)

        def forward_head(self, features, modality):
            return torch.nn.functional.normalize(features.mean((2, 3)), dim=1)

    @sm.patches.register_sampler("own")
    def own_sampler(pairs, batch_size, rng):
        return rng.permutation(len(pairs.place))[: 3 * batch_size].reshape(3, batch_size)

    @sm.patches.register_transform("own")
    def own_transform(pairs, generator):
        return pairs._replace(reference=1 - pairs.reference)

    registries = (
        sm.losses.LOSSES,
        sm.alignment.ALIGNMENTS,
        sm.encoders.base.ENCODERS,
        sm.patches.samplers.SAMPLERS,
        sm.patches.transforms.TRANSFORMS,
    )
    try:
        own = {"loss": "own", "alignment": "own", "encoder": "own", "sampler": "own", "augment": ("own",)}
        encoder = train(config(**own, encoder_options={}, epochs=2), tiny_scene, tmp_path)
    finally:
        for registry_of_a_kind in registries:
            del registry_of_a_kind._things["own"]
    assert isinstance(encoder, OwnEncoder)
    assert pd.read_csv(tmp_path / checkpoints.HISTORY)["estimate"].notna().all()


def test_what_makes_no_vector_cannot_be_trained_for_vectors(tiny_scene, tmp_path):
    with pytest.raises(ValueError, match="encoder 'dense' has no head.*search='dense'"):
        train(config(encoder="dense", encoder_options={}), tiny_scene, tmp_path)


def test_an_encoder_may_want_images_of_two_sizes(tiny_scene, tmp_path, monkeypatch):
    """Each modality comes at the size that the encoder says, in training, in validation and in use."""
    seen = set()

    class TwoSizes(DualEncoder):
        def __init__(self, image_size, sar_bands, **options):
            super().__init__("plain", image_size, sar_bands=sar_bands, feature_dim=16, **options)
            self.inputs = {"query": Inputs(sar_bands, 16, "measured"), "reference": Inputs(3, 24, "measured")}

        def forward_features(self, images, modality):
            seen.add((modality, *images.shape[2:]))
            return super().forward_features(images, modality)

    monkeypatch.setattr(ENCODERS, "_things", dict(ENCODERS._things))
    register_encoder("two_sizes")(TwoSizes)
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
    finished = run(config(encoder="two_sizes", encoder_options={}, epochs=1), tmp_path, report=lambda history: None)
    assert seen == {("query", 16, 16), ("reference", 24, 24)}
    queries, tiles = finished.task(tiny_scene, "cross_area", "arbitrary")
    query, reference = finished.embed(tiny_scene, queries[:4], tiles[:4])
    assert query.shape == reference.shape == (4, 16)
    assert seen == {("query", 16, 16), ("reference", 24, 24)}
