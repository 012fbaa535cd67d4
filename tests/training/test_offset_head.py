"""An offset head moves the answers of a run: the right way, by the right length, and nothing else of it."""

import math

import numpy as np
import pytest
import torch

import sarmatch as sm
from sarmatch.datasets import registry
from sarmatch.experiments.records import keep_run
from sarmatch.experiments.systems import moved_answers
from sarmatch.losses import OffsetRegression
from sarmatch.patches import positions
from sarmatch.search import Candidates
from sarmatch.training import loop
from sarmatch.training.checkpoints import OFFSET_HEAD
from sarmatch.training.runs import embed_tables, tile_widths
from sarmatch.training.vectors import moved
from sarmatch.training.views import Views

HYBRID = {"auxiliary": {"offset_regression": 0.5}}
SAR = {
    "scene": "tiny", "image_size": 16, "epochs": 2, "pairs_per_epoch": 64, "batch_size": 16, "augment": ("dihedral",),
    "val_queries": 40, "test_queries": 80, "baseline_options": {"cells": 4}, "kinds": ("arbitrary",),
    "encoder_options": {"widths": (8, 16, 32, 32, 32), "feature_dim": 16},
}  # fmt: skip
STREET = {
    "image_size": 16, "epochs": 1, "batch_size": 8,
    "encoder_options": {"query_size": (16, 32), "widths": (8, 16), "strides": (2, 2), "feature_dim": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Towns of several latitudes, whose tiles differ in width."""
    small = {"tiles": 5, "tile_px": 32, "panorama": (16, 32), "view_m": 5.0}
    return sm.simulate_crossview(tmp_path_factory.mktemp("views") / "vigor", seed=3, **small)


@pytest.fixture(autouse=True)
def _tiny_is_a_preset(tiny_scene, monkeypatch):
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)


@pytest.fixture(params=["sar", "street"])
def task(request, tiny_scene, street):
    """A config and its scene: SAR over a map, then panoramas over tiles."""
    if request.param == "sar":
        return sm.Config(**SAR), tiny_scene
    return sm.recipe("panorama", scene=str(street), **STREET), Views(street, "cross_area")


class Told(OffsetRegression):
    """A head that is told the answers, in the order in which it is asked: rows of queries, then of their lists."""

    def __init__(self, offsets):
        super().__init__(1)
        self.offsets = torch.from_numpy(offsets)

    def predict(self, query, reference):
        assert len(query) == len(reference) == len(self.offsets)
        return self.offsets


class Ordered(torch.nn.Module):
    """Embeds the number of a tile, of queries that of their right one."""

    def __init__(self, positive, inputs):
        super().__init__()
        self.inputs, self.feature_dim, self.trainable = inputs, 128, False
        self.rows = {"query": list(positive), "reference": list(range(128))}

    def _next(self, modality, images):
        taken = [self.rows[modality].pop(0) for _ in images]
        return torch.eye(128)[taken]

    def encode_query(self, images):
        return self._next("query", images)

    def encode_reference(self, images):
        return self._next("reference", images)

    def forward_features(self, images, modality):
        return images

    def vectors(self, images, modality):
        return 3 * self._next(modality, images)  # of another length than one, which a search does not see


def true_offsets(scene, asked, tiles, lists):
    """Rows and columns from each query to each tile of its list, in widths of that tile, one after the other."""
    widths = tile_widths(scene, tiles)
    offsets = []
    for query, row in zip(asked.to_dict("records"), lists, strict=True):
        for tile in row:
            east, north = tiles["x"][tile] - query["x"], tiles["y"][tile] - query["y"]
            offsets.append((-north / widths[tile], east / widths[tile]))
    return np.array(offsets)


def test_a_query_north_east_of_the_centre_of_its_tile():
    """Rows count to the south: the tile lies a quarter of its 80 m below the query, and an eighth to its left."""
    found = Candidates(np.ones((1, 1), np.float32), np.array([[[100.0, 200.0]]]), tile=np.array([[1]]))
    vectors = np.eye(2, dtype=np.float32)
    answer = moved(found, vectors[:1], vectors, np.array([7.0, 80.0]), Told(np.array([[0.25, -0.125]])))
    np.testing.assert_array_equal(answer.xy, [[[110.0, 220.0]]])
    assert answer.tile is found.tile and answer.scores is found.scores


def test_a_head_is_asked_with_each_query_and_each_tile_of_its_list():
    query, reference = np.arange(2, dtype=np.float32)[:, None], np.arange(10, 14, dtype=np.float32)[:, None]
    head = OffsetRegression(1)
    head.predict = lambda q, r: torch.cat([r, q], 1)
    tile = np.array([[3, 0, 1], [2, 2, 0]])
    found = Candidates(np.zeros((2, 3), np.float32), np.zeros((2, 3, 2)), tile=tile)
    xy = moved(found, query, reference, np.ones(4), head).xy
    for i in range(2):
        for k in range(3):
            assert tuple(xy[i, k]) == (-i, 10 + tile[i, k])


def test_the_true_offset_leaves_no_error_and_recall_as_it_is(task):
    config, scene = task
    asked, tiles = sm.training.runs.task(config, scene, "cross_area", "arbitrary")
    inputs = sm.create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options).inputs
    oracle = lambda: Ordered(asked["positive"], inputs)  # noqa: E731 - one for each evaluation
    plain, without = sm.evaluate(oracle(), scene, config, "cross_area", "arbitrary")
    offsets = true_offsets(scene, asked, tiles, without["found"])
    report, results = sm.evaluate(oracle(), scene, config, "cross_area", "arbitrary", head=Told(offsets))
    assert plain["median_m"] > 1
    assert report["median_m"] == pytest.approx(0, abs=1e-9) and report["within_10m"] == 1
    assert results["error_m"].max() < 1e-9
    for places, query in zip(results["found_xy"], positions(asked), strict=True):
        assert np.abs(np.array(places) - query).max() < 1e-9
    errors = {name for name in plain if f"centre_{name}" in report}
    assert {"median_m", "p90_m", "within_10m", "within_0.1_tile"} <= errors
    assert all(report[f"centre_{name}"] == plain[name] for name in errors)
    assert all(report[name] == value for name, value in plain.items() if name not in errors)
    assert not any(name.startswith("centre_") for name in plain) and "found_xy" not in without
    assert results["found"].tolist() == without["found"].tolist()


def test_what_trains_the_head_is_the_offset_that_moves_the_answer_to_the_query(task):
    """Pairs say how far apart they were cut: the centre of the reference, moved by it, is the query's."""
    config, scene = task
    size = scene.patch_size
    objective = sm.training.objectives.objective_of(config, scene)
    encoder = sm.create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
    pairs = objective.pairs(config, scene, size, encoder)
    batch = [pairs[i] for i in range(8)]
    place, offset = (torch.stack([b[name] for b in batch]).double().numpy() for name in ("place", "offset"))
    middles = [np.stack([place[:, k + 1], -place[:, k]], 1) for k in (0, 2)]  # one metre a pixel, rows to the south
    found = Candidates(np.zeros((8, 1), np.float32), middles[1][:, None], tile=np.arange(8)[:, None])
    none = np.zeros((8, 1), np.float32)
    xy = moved(found, none, none, np.full(8, float(size)), Told(offset / size)).xy[:, 0]
    np.testing.assert_allclose(xy, middles[0], atol=1.01)  # corners of panoramas are whole pixels
    assert np.abs(offset).max() > 2


class TestRun:
    @pytest.fixture
    def hybrid(self, task, tmp_path):
        config, _ = task
        return sm.run(config.model_copy(update=HYBRID), tmp_path / "hybrid", report=lambda _: None)

    def test_its_head_is_kept_and_moves_what_it_finds(self, task, hybrid, tmp_path):
        config, scene = task
        assert (hybrid.path / OFFSET_HEAD).is_file()
        loaded = sm.load_run(hybrid.path)
        asked, tiles = loaded.task(scene, "cross_area", "arbitrary")
        found = loaded.find(scene, asked, tiles, k=2)
        query, reference = map(torch.from_numpy, embed_tables(loaded.encoder, scene, asked, tiles, config, False))
        unit, _ = loaded.embed(scene, asked, tiles)
        np.testing.assert_allclose(torch.nn.functional.normalize(query, dim=1), unit, atol=1e-6)
        assert query.norm(dim=1).std() > 0  # the head reads lengths too, as VIGOR's
        widths = tile_widths(scene, tiles)
        with torch.no_grad():
            for i in (0, len(asked) - 1):
                for k in range(2):
                    tile = found.tile[i, k]
                    row, col = loaded.offset_head.head(torch.cat([query[i], reference[tile]])).tolist()
                    x, y = positions(tiles)[tile]
                    assert found.xy[i, k] == pytest.approx((x - col * widths[tile], y + row * widths[tile]), abs=1e-3)
        whitened = f"{config.encoder} + whitened" if loaded.whitens(scene, tiles) else config.encoder
        row = loaded.metrics.set_index("method").loc[whitened]
        error = np.hypot(*(found.xy[:, 0] - positions(asked)).T)
        assert row["median_m"] == pytest.approx(np.median(error), abs=1e-3)
        assert row["median_m"] != row["centre_median_m"]
        keep_run(loaded, tmp_path / "kept", weights=True)
        half = sm.training.runs.Run(tmp_path / "kept", loaded.config)
        np.testing.assert_allclose(
            half.offset_head.head[0].bias.detach(), loaded.offset_head.head[0].bias.detach(), atol=1e-3
        )

    def test_the_baseline_and_a_run_without_a_head_answer_with_centres(self, task, hybrid, tmp_path):
        config, _ = task
        rows = hybrid.metrics.set_index("method")
        assert math.isnan(rows.loc[config.baseline, "centre_median_m"])
        plain = sm.run(config, tmp_path / "plain", report=lambda _: None)
        assert plain.offset_head is None and not (plain.path / OFFSET_HEAD).exists()
        assert not any(name.startswith("centre_") for name in plain.metrics)

    def test_what_is_told_of_another_query_is_the_control(self, hybrid):
        table = moved_answers(hybrid).set_index(["tile", "answer"])
        own = hybrid.metrics.iloc[0]
        assert table.loc[("first", "centre"), "median_m"] == pytest.approx(own["centre_median_m"])
        assert table.loc[("first", "moved"), "median_m"] == pytest.approx(own["median_m"])
        assert table.loc[("right", "centre"), "median_m"] == pytest.approx(own["ceiling_median_m"])
        assert (
            len(table) == 6 and table.loc[("right", "control"), "median_m"] != table.loc[("right", "moved"), "median_m"]
        )


def test_a_training_cut_off_goes_on_to_the_same_head_and_a_correction_takes_it_along(tmp_path, monkeypatch):
    config = sm.Config(**SAR | HYBRID | {"epochs": 3})
    whole = sm.run(config, tmp_path / "whole" / "run", report=lambda _: None)

    class PowerCutError(Exception):
        pass

    def cut(history):
        if len(history) == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        sm.run(config, tmp_path / "cut" / "run", report=cut)
    resumed = sm.run(config, tmp_path / "cut" / "run", report=lambda _: None)
    monkeypatch.setattr(loop, "run_epoch", lambda *arguments: pytest.fail("it trains"))
    corrected = sm.run(
        config.model_copy(update={"test_queries": 40}), tmp_path / "cut" / "other", report=lambda _: None
    )
    for one in (resumed, corrected):
        assert (one.path / OFFSET_HEAD).read_bytes() == (whole.path / OFFSET_HEAD).read_bytes()
    assert whole.metrics.equals(resumed.metrics)


def test_a_head_that_is_gone_is_missed(tmp_path):
    run = sm.run(sm.Config(**SAR | HYBRID | {"epochs": 1}), tmp_path / "run", report=lambda _: None)
    (run.path / OFFSET_HEAD).unlink()
    with pytest.raises(FileNotFoundError, match=f"{OFFSET_HEAD}: no offset head here"):
        _ = sm.load_run(run.path).offset_head
    plain = sm.run(sm.Config(**SAR | {"epochs": 1}), tmp_path / "plain", report=lambda _: None)
    with pytest.raises(ValueError, match="auxiliary is {}, expected 'offset_regression'"):
        moved_answers(plain)
