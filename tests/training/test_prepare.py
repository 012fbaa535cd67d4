"""What a run looks at before it trains, what it takes from another run, and folders that are damaged."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sarmatch as sm
from sarmatch.datasets import registry
from sarmatch.encoders import DualEncoder
from sarmatch.experiments.report import better_baseline, write_report
from sarmatch.training import loop, runs
from sarmatch.training.checkpoints import save_weights
from sarmatch.training.config import NOT_OF_TRAINING, Config, recipe

SMALL = {
    "scene": "tiny",
    "image_size": 16,
    "epochs": 2,
    "pairs_per_epoch": 64,
    "batch_size": 32,
    "augment": (),
    "val_queries": 40,
    "test_queries": 60,
    "baseline_options": {"cells": 4},
    "encoder_options": {"widths": (8, 8, 8, 8, 8), "feature_dim": 16},
}

DENSE = {"search": "dense", "encoder": "dense", "loss": "shift_cross_entropy", "baseline": "cfog"}
DENSE = DENSE | {"encoder_options": {}, "baseline_options": {}}


@pytest.fixture(autouse=True)
def _tiny_is_a_preset(tiny_scene, monkeypatch, tmp_path):
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
    monkeypatch.setenv("SARMATCH_RUNS", str(tmp_path / "runs"))


def config(**changes) -> Config:
    return Config(**(SMALL | changes))


def run(**changes):
    return sm.run(config(**changes), report=lambda history: None)


@pytest.fixture
def no_training(monkeypatch):
    """Nothing is trained, or the test fails."""

    def forbidden(*arguments):
        raise AssertionError("it trains")

    monkeypatch.setattr(loop, "run_epoch", forbidden)


class TestConfig:
    def test_what_is_evaluated_is_not_of_the_training(self):
        changed = config(name="x", kinds=("aligned",), test_queries=7, baseline="cfog", baseline_options={})
        assert changed.key != config().key
        assert changed.training_key == config().training_key
        for name in set(Config.model_fields) - set(NOT_OF_TRAINING) - {"workers"}:
            assert name in Config().model_dump()
        for change in ({"seed": 1}, {"val_queries": 41}, {"select": "recall@1"}, {"scene": "easy"}):
            assert config(**change).training_key != config().training_key

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kinds": ()}, r"kinds is \(\): "),
            ({"kinds": ("aligned", "aligned")}, "kinds is .*a name stands twice"),
            ({"auxiliary": {"infonce": np.nan}}, "auxiliary.infonce is nan: .*finite"),
            ({"test_queries": 10**12}, "test_queries is 1000000000000: "),
            ({"image_size": 10**7}, "image_size is 10000000: "),
            ({"learning_rate": 1e30}, r"learning_rate is 1e\+30: "),
            ({"epochs": True}, "epochs is True"),
            ({"name": "../up"}, r"name is '\.\./up': "),
            ({"scene": ""}, "scene is '': "),
            ({"epocks": 3}, "no field is called 'epocks'; did you mean 'epochs'?"),
        ],
    )
    def test_mistakes_name_field_and_value_without_links(self, change, message):
        with pytest.raises(ValueError, match=message) as caught:
            config(**change)
        assert "http" not in str(caught.value)

    def test_a_recipe_may_be_given_a_name(self):
        assert recipe("demo", name="mine").name == "mine"


class TestBeforeTraining:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"baseline": "nope"}, "baseline: .*'nope'"),
            ({"baseline": "plain"}, "baseline: 'plain' is the encoder itself"),
            ({"baseline_options": {"cells": 0}}, "baseline: encoder 'hog': option cells is 0"),
            ({"baseline_options": {"image_size": 3}}, "baseline: .*image_size"),
            ({"encoder": "hog", "encoder_options": {}}, "encoder: encoder 'hog' has nothing to train"),
            ({"encoder_options": {"junk": 1}}, "encoder: .*junk"),
            ({"loss": "nope"}, "loss: no loss is called 'nope'"),
            ({"loss_options": {"junk": 1}}, "loss 'infonce' has no option 'junk'"),
            ({"auxiliary": {"nope": 1.0}}, "auxiliary: .*nope"),
            ({"alignment": "wasserstein", "alignment_options": {"junk": 1}}, "alignment: .*junk"),
            ({"sampler": "nope"}, "sampler: .*nope"),
            ({"augment": ("nope",)}, "augment: .*nope"),
            ({"refiner": "geographic_vote"}, "refiner 'geographic_vote' does not learn"),
            ({"refiner": "gnn", "refiner_options": {"junk": 1}}, "refiner 'gnn' has no option 'junk'"),
            ({"patch_size": 4000}, "4000"),
        ],
    )
    def test_mistakes_are_found(self, no_training, tmp_path, change, message):
        with pytest.raises(ValueError, match=message):
            run(**change)
        assert not list(tmp_path.rglob("config.json"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"window": 1.01}, "window is 1.01, in whole cells of 8 px 32 px: no more than the 32 px of a query"),
            ({"window": 16.0}, "'tiny': no training strip holds a window of 512 x 512 px around a patch of 32 x 32 px"),
            (
                {"encoder_options": {"stride": 16}},
                "encoder: the cells of 'dense' are up to 64 px wide.* as 32 px",
            ),
            ({"encoder_options": {"coarse": 15}, "augment": ("crop",)}, "encoder: .* 30 px .* as small as 16 px"),
            ({"encoder_options": {"stride": 1000}}, "encoder: cells of 4000 px|encoder: .*4000 px wide"),
            (
                {"baseline_options": {"stride": 64}},
                "baseline: the cells of 'cfog' are up to 64 px .* as 32 px",
            ),
            ({"baseline_options": {"stride": 5000}}, "baseline: .*stride is 5000"),
            ({"encoder_options": {"channels": 0}}, "encoder: .*channels is 0"),
            ({"loss_options": {"radius": 0.1}}, "loss 'shift_cross_entropy': option radius is 0.1"),
            ({"patch_size": 4000}, "4000"),
        ],
    )
    def test_mistakes_of_dense_search_are_found(self, no_training, tmp_path, change, message):
        with pytest.raises(ValueError, match=message):
            run(**{**DENSE, **change})
        assert not list(tmp_path.rglob("config.json"))

    def test_a_folder_that_cannot_be_written_to_is_found_before_the_scene_is_read(self, tmp_path, monkeypatch):
        (tmp_path / "runs").write_text("in the way")
        monkeypatch.setattr(runs, "scene_of", lambda config: pytest.fail("the scene is read"))
        with pytest.raises(OSError, match="runs"):
            run()

    def test_a_name_that_is_not_utf8_is_found(self, tiny_scene, no_training):
        tables = sm.search_task(tiny_scene, "aligned", None, "test", protocol="cross_area")[0]
        with pytest.raises(ValueError, match=r"strip 'a\\udcff': this name is not UTF-8"):
            runs.check_names(tables.assign(strip="a\udcff"))


class TestTakenOver:
    def test_a_corrected_evaluation_trains_nothing_and_gives_what_training_would(self, tmp_path, monkeypatch, capsys):
        first = run()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "run_epoch", lambda *arguments: pytest.fail("it trains"))
            second = run(test_queries=50, baseline_options={"cells": 2})
        assert first.path.name in capsys.readouterr().out
        assert second.path != first.path
        assert second.metrics["queries"].iloc[0] <= 50 < first.metrics["queries"].iloc[0]
        fresh = sm.run(second.config, tmp_path / "apart" / "run", report=lambda history: None)
        for name in ("metrics.json", "model.safetensors", "training.safetensors", "history.csv"):
            assert (fresh.path / name).read_bytes() == (second.path / name).read_bytes()

    def test_a_training_cut_off_is_gone_on_with(self, monkeypatch):
        calls = []
        real = loop.run_epoch

        def stops(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(loop, "run_epoch", stops)
        with pytest.raises(KeyboardInterrupt):
            run()
        run(test_queries=50)
        assert len(calls) == 3  # the second epoch alone is done again

    def test_other_trainings_are_left_alone(self):
        first, second = run(), run(seed=1)
        weights = [load_file(r.path / "model.safetensors") for r in (first, second)]
        assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_a_folder_of_ones_own_takes_a_correction_until_it_is_finished(self, tmp_path):
        done = sm.run(config(), tmp_path / "own", report=lambda history: None)
        with pytest.raises(ValueError, match="own: holds a run of another config"):
            sm.run(config(test_queries=50), done.path)
        (done.path / "metrics.json").unlink()
        again = sm.run(config(test_queries=50), done.path, report=lambda history: None)
        assert again.config.test_queries == 50
        assert json.loads((done.path / "config.json").read_text())["test_queries"] == 50

    def test_the_commit_of_the_training_is_kept_where_it_is_another(self, monkeypatch):
        first = run()
        known = json.loads((first.path / "environment.json").read_text())
        (first.path / "environment.json").write_text(json.dumps(known | {"commit": "abc"}))
        second = json.loads((run(test_queries=50).path / "environment.json").read_text())
        assert second["trained_at"] == "abc" and second["commit"] == known["commit"]


def test_precisions_follow_each_other_in_one_process():
    assert len(run(epochs=1).metrics) == len(run(epochs=1, precision="bf16").metrics)


def test_an_error_in_the_first_epoch_claims_no_file(monkeypatch):
    real = DualEncoder.forward_features

    def broken(self, images, modality):
        return real(self, images, modality) * (torch.nan if self.training else 1)

    monkeypatch.setattr(DualEncoder, "forward_features", broken)
    with pytest.raises(FloatingPointError) as caught:
        run()
    assert "at step 0 of epoch 1" in str(caught.value) and "training.safetensors" not in str(caught.value)


def test_equal_weights_give_equal_bytes_whatever_they_share(tmp_path):
    for shared in (True, False):
        torch.manual_seed(0)
        encoder = sm.create_encoder("plain", 16, shared=shared, widths=(4, 4, 4, 4, 4))
        save_weights(encoder, tmp_path / "weights")
        names = load_file(tmp_path / "weights").keys()
        header = (tmp_path / "weights").read_bytes()[8:].split(b"}}")[0]
        assert b"__metadata__" not in header  # its order is one of chance
        assert any(name.startswith("reference_branch") for name in names) != shared


class TestDamaged:
    @pytest.mark.parametrize("name", ["config.json", "metrics.json", "history.csv", "model.safetensors"])
    def test_a_truncated_file_is_named(self, name):
        path = run().path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=str(path)):
            found = sm.load_run(path.parent)
            _ = found.metrics, found.history, found.encoder

    def test_a_truncated_training_state_is_named_and_how_to_go_on(self):
        path = run().path / "training.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
        (path.parent / "metrics.json").unlink()
        with pytest.raises(ValueError, match=r"training\.safetensors: a damaged training state .*delete it"):
            run()

    def test_weights_that_are_not_finite_are_named(self):
        path = run().path / "model.safetensors"
        weights = load_file(path)
        weights["query_branch.1.bias"].fill_(torch.nan)
        save_file(weights, path)
        with pytest.raises(ValueError, match=r"model\.safetensors: weights are not finite: query_branch\.1\.bias"):
            _ = sm.load_run(path.parent).encoder


class TestBetterBaseline:
    @pytest.fixture
    def worse(self):
        """A run of one step at a tiny rate: the descriptor beside it is the better one."""
        return run(epochs=1, pairs_per_epoch=32, learning_rate=1e-9)

    def test_it_is_said_with_what_is_best_on_validation(self, worse):
        table = worse.metrics.set_index(["kind", "method"])["recall@1"]
        tasks = [kind for kind in worse.config.kinds if table[kind, "plain"] < table[kind, "hog"]]
        assert tasks
        sentences = better_baseline(worse)
        assert len(sentences) == len(tasks)
        assert set(worse.validation["kind"]) == set(tasks)
        validation = worse.validation.set_index(["kind", "method"])["recall@1"]
        for kind, sentence in zip(tasks, sentences, strict=True):
            best = validation[kind].idxmax()
            assert f"{table[kind, 'plain']:.1%}" in sentence and f"{table[kind, 'hog']:.1%}" in sentence
            assert f".{'encoder' if best == 'plain' else 'baseline'}`" in sentence
        page = write_report(worse).read_text()
        assert page.count("<strong>Note.</strong>") == len(tasks)

    def test_the_better_baseline_is_ready_to_search_with(self, worse, tiny_scene):
        asked, tiles = worse.task(tiny_scene, "cross_area", "aligned")
        numbers, _ = sm.evaluate(worse.baseline, tiny_scene, worse.config, "cross_area", "aligned")
        row = worse.metrics.set_index(["kind", "method"]).loc[("aligned", "hog")]
        assert numbers["recall@1"] == row["recall@1"]

    def test_nothing_is_said_of_a_run_that_is_better(self, worse):
        rows = [row | {"recall@1": float(row["method"] == "plain")} for row in worse.metrics.to_dict("records")]
        (worse.path / "metrics.json").write_text(json.dumps(rows))
        assert better_baseline(sm.load_run(worse.path)) == []
