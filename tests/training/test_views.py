"""A cross-view set runs through the project's loop, search and evaluation like a scene."""

from pathlib import Path

import numpy as np
import pytest
import torch

import sarmatch as sm
from sarmatch.encoders import create_encoder, image_sizes
from sarmatch.experiments.report import write_report
from sarmatch.patches import list_transforms, pair_overlap
from sarmatch.training.runs import checked_scene
from sarmatch.training.views import TILE_PX, ViewPairs, Views

TINY = {
    "image_size": 16,
    "encoder_options": {"query_size": (16, 32), "widths": (8, 16), "strides": (2, 2), "feature_dim": 16},
    "epochs": 2,
    "batch_size": 8,
    "select": "recall@5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    small = {"tiles": 5, "tile_px": 32, "panorama": (16, 32), "view_m": 5.0}
    return sm.simulate_crossview(tmp_path_factory.mktemp("views") / "vigor", seed=3, **small)


def config(folder: Path, **changes) -> sm.Config:
    return sm.recipe("panorama", **{**TINY, "scene": str(folder), **changes})


def test_a_run_trains_and_tests_two_branches_of_different_input(folder, tmp_path):
    run = sm.run(config(folder), tmp_path / "run", report=lambda _: None)
    view = sm.load_crossview(folder, "cross_area", "test")
    row = run.metrics.set_index("method").loc["plain"]
    assert (row["queries"], row["gallery"]) == (len(view.queries), len(view.references)) == (row["queries"], 50)
    assert {"recall@1", "recall@5", "recall@10", "recall@1%", "hit_rate", "median_m", "within_25m"} <= set(row.index)
    assert row["hit_rate"] >= row["recall@1"]
    assert row["ceiling_median_m"] < 20  # within a quarter of a tile, which a hit in another town would not be
    assert row["data"] == "simulated"
    assert run.encoder.inputs["query"].image_size == (16, 32)
    page = write_report(run).read_text()
    assert "One of the panoramas" in page and "simulated" in page
    with pytest.raises(ValueError, match="no map"):
        run.lists("cross_area", "arbitrary")
    assert len(run.history) == 2


def test_same_area_and_polar_tiles_by_one_changed_field_each(folder, tmp_path):
    polar = {"reference_view": "polar", "encoder_options": {**TINY["encoder_options"], "reference_size": (16, 32)}}
    changed = config(folder, protocols=("same_area",), epochs=1, **polar)
    run = sm.run(changed, tmp_path / "run", report=lambda _: None)
    assert run.metrics["gallery"].unique().tolist() == [100]
    assert run.encoder.inputs["reference"].image_size == (16, 32)


def test_pairs_lie_where_the_labels_say(folder):
    views = Views(folder, "cross_area")
    encoder = create_encoder("plain", 16, 3, query_size=(16, 32))
    pairs = ViewPairs(views, config(folder), image_sizes(encoder))
    batch = [pairs[i] for i in range(len(pairs))]
    assert batch[0]["query"].shape == (3, 16, 32) and batch[0]["reference"].shape == (3, 16, 16)
    place, offset = (torch.stack([b[name] for b in batch]) for name in ("place", "offset"))
    assert offset.abs().max() <= TILE_PX / 4 + 0.1
    own = (1 - offset.abs() / TILE_PX).prod(1)
    torch.testing.assert_close(pair_overlap(place, TILE_PX).diagonal(), own, atol=2 / TILE_PX, rtol=0)
    first, second = (pairs.draw(epoch) or pairs.place.copy() for epoch in (0, 1))
    assert (first != second).any() and sorted(map(tuple, first)) == sorted(map(tuple, second))


@pytest.mark.parametrize("protocol", ["same_area", "cross_area"])
def test_training_keeps_away_from_validation(folder, protocol):
    views = Views(folder, protocol)
    (train, tiles), (val, _) = views.task("train"), views.task("val")
    assert min(len(train), len(val)) > 5
    xy = tiles[["x", "y"]].to_numpy()
    apart = np.abs(xy[train.positive][:, None] - xy[val.positive]).max(2)
    assert apart.min() > 0
    assert np.abs(train[["x", "y"]].to_numpy()[:, None] - val[["x", "y"]].to_numpy()).max(2).min() > 50
    if protocol == "cross_area":
        test, _ = views.task("test")
        assert not set(test.area) & {*train.area, *val.area}


def test_an_encoder_that_sees_the_place_finds_everything_and_one_that_sees_nothing_is_at_chance(folder):
    views, asked_for = Views(folder, "cross_area"), config(folder)

    class Oracle(torch.nn.Module):
        """Embeds the number of the tile that it is told."""

        inputs = create_encoder("plain", 16, 3, query_size=(16, 32)).inputs
        feature_dim = 50

        def __init__(self, answers: list[int]) -> None:
            super().__init__()
            self.answers = iter(answers)

        def encode_query(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(50)[[next(self.answers) for _ in images]]

        def encode_reference(self, images: torch.Tensor) -> torch.Tensor:
            self.at = getattr(self, "at", 0) + len(images)
            return torch.eye(50)[self.at - len(images) : self.at]

    asked, _ = views.task("test")
    report, _ = sm.evaluate(Oracle(asked.positive.tolist()), views, asked_for, "cross_area", "arbitrary")
    assert report["recall@1"] == report["hit_rate"] == 1
    assert report["median_m"] == report["ceiling_median_m"]
    semi, _ = sm.evaluate(Oracle([s[0] for s in asked.semi]), views, asked_for, "cross_area", "arbitrary")
    assert semi["recall@1"] == 0 and semi["median_m"] < 50


def test_colours_of_tiles_may_change_and_panoramas_turn_with_them(folder, tmp_path):
    names = tuple(list_transforms(views=True))
    assert names == ("channel_exchange", "grey", "intermediate", "one_channel", "turn_views")
    run = sm.run(config(folder, augment=names, epochs=1), tmp_path / "run", report=lambda _: None)
    assert np.isfinite(run.history["loss"]).all()
    plain = sm.run(config(folder, augment=(), epochs=1), tmp_path / "plain", report=lambda _: None)
    assert run.history["loss"].tolist() != plain.history["loss"].tolist()


def test_pairs_without_places_train_too(tmp_path):
    small = {"tiles": 4, "tile_px": 32, "zoom_px": 480, "panorama": (16, 64), "view_m": 5.0}
    cvact = sm.simulate_crossview(tmp_path / "cvact", "cvact", **small)
    changed = config(cvact, kinds=("aligned",), batch_size=4, epochs=1)
    run = sm.run(changed, tmp_path / "run", report=lambda _: None)
    assert "median_m" not in run.metrics and run.metrics["recall@1"].between(0, 1).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocols": ("same_area", "cross_area")}, "a run takes one"),
        ({"kinds": ("aligned",)}, "kinds is"),
        ({"bands": "first"}, "panoramas have three"),
        ({"augment": ("grey", "dihedral")}, r"\['dihedral'\], made for SAR.*'channel_exchange', 'grey'"),
        ({"augment": ("respeckle", "turn_views")}, r"\['respeckle'\], made for SAR"),
        ({"stride": 100}, "stride is 100"),
        ({"batch_size": 1000}, "batch_size is 1000"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, changes, said):
    with pytest.raises(ValueError, match=said):
        checked_scene(config(folder, **changes))
