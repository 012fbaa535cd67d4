"""The table of dense search: rows of every method on the same queries, a control at chance, and where it was made."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from sarmatch.datasets import registry
from sarmatch.experiments import lists, studies
from sarmatch.experiments.dense import POWERS, Task, middle_of, posed_queries, poses_table, powers_table, table_of
from sarmatch.patches import PatchImages, positions
from sarmatch.refinement import create_refiner, rank_of_best
from sarmatch.search.turned import EVEN, Pose, turned
from sarmatch.training.config import Config
from sarmatch.training.runs import Run, run, task


@pytest.fixture(scope="module")
def kept(tiny_scene, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
        folder = tmp_path_factory.mktemp("dense")
        options = {"width": 8, "channels": 8, "dilations": (1,), "coarse": 2}
        config = Config(
            scene="tiny", search="dense", encoder="dense", encoder_options=options, loss="shift_cross_entropy",
            baseline="cfog", epochs=1, pairs_per_epoch=16, batch_size=8, kinds=("arbitrary",), test_queries=60,
            val_queries=10,
        )  # fmt: skip
        finished = run(config, folder / "run", report=lambda history: None)
        table_of(finished, folder / "kept", sizes=(None, 16))
        poses_table(finished, folder / "poses", count=20)
        powers_table(finished, folder / "poses", count=20)
        return finished, folder / "kept"


def test_rows_are_those_of_the_run_where_they_are_the_same(kept):
    finished, folder = kept
    table = pd.read_csv(folder / "table.csv")
    whole = table.query("size == 32 and queries_of == 'all'").set_index("method")
    for method in ("dense", "cfog"):
        known = finished.metrics.set_index("method").loc[method]
        assert whole.loc[method, "recall@1"] == pytest.approx(known["recall@1"])
        assert whole.loc[method, "median_m"] == pytest.approx(known["median_m"])
    assert (table["commit"].notna()).all() and set(table["size"]) == {32, 16}


def test_the_search_from_coarse_to_fine_has_rows_beside_the_exhaustive_one(kept):
    table = pd.read_csv(kept[1] / "table.csv").query("size == 32 and queries_of == 'all'").set_index("method")
    gap = table.loc["coarse_to_fine", "recall@1"] - table.loc["dense", "recall@1"]
    assert abs(gap) <= 0.1 and table.loc["coarse_to_fine", "ms_per_query"] > 0


def test_quarters_add_up_and_the_turned_control_is_at_chance(kept):
    table = pd.read_csv(kept[1] / "table.csv").query("size == 32")
    for _, rows in table.groupby("method"):
        parts = rows[rows["queries_of"] != "all"]
        if len(parts):
            whole = rows.set_index("queries_of").loc["all"]
            assert parts["queries"].sum() == whole["queries"]
            assert np.average(parts["recall@1"], weights=parts["queries"]) == pytest.approx(whole["recall@1"])
    control = table[table["method"].str.contains("turned")].iloc[0]
    found = table.query("method == 'dense' and queries_of == 'all'").iloc[0]
    assert control["recall@1"] < 0.4 * found["recall@1"], "so small a town has roofs that look alike upside down"


def test_what_is_unknown_has_a_row_beside_the_same_queries_north_up(kept):
    table = pd.read_csv(kept[1].parent / "poses" / "table.csv").set_index("method")
    assert (table["queries"] == 20).all() and (table["size"] == 32).all() and table["commit"].notna().all()
    known, looked_for = table.loc["pose_known"], table.loc[["pose_heading", "pose_scale"]]
    assert (looked_for["recall@1"] <= known["recall@1"] + 0.2).all()
    assert np.isnan(known["heading_median_deg"]) and table.loc["pose_scale", "heading_median_deg"] == 0
    assert looked_for.loc["pose_heading", "scale_median"] == 0 and looked_for["scale_median"].max() <= 0.2


def test_the_larger_the_power_the_larger_the_scale_that_is_found(kept):
    table = pd.read_csv(kept[1].parent / "poses" / "powers.csv")
    assert list(table["power"]) == sorted(POWERS) and EVEN in POWERS and (table["queries"] == 20).all()
    assert table["bias"].iloc[-1] >= table["bias"].iloc[0] - 0.02 and table["bias"].abs().max() <= 0.25
    assert table["recall@1"].between(0, 1).all() and table["commit"].notna().all()


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_queries_are_turned_and_scaled_within_their_strip(kept, tiny_scene, scale):
    asked, tiles = task(kept[0].config, tiny_scene, "cross_area", "arbitrary")
    given = Task(asked, tiles, torch.empty(0))
    north = posed_queries(tiny_scene, given, 6, (0, 0), (1, 1))
    posed = posed_queries(tiny_scene, given, 6, (0, 360), (scale, scale))
    assert len(north.asked) == 6 and north.images.shape == posed.images.shape == (6, 1, 32, 32)
    torch.testing.assert_close(
        north.images, torch.stack(list(PatchImages(tiny_scene, north.asked, None))), atol=1e-3, rtol=0
    )
    assert posed.asked["heading"].nunique() == 6 and (posed.asked["scale"] == scale).all()
    for query, upright, image in zip(posed.asked.itertuples(), north.images, posed.images, strict=True):
        back, _ = turned(image[None], Pose(query.heading, scale), 2)
        cut = (back.shape[-1] - 16) // 2
        near = back[0, 0, cut : cut + 16, cut : cut + 16].flatten(), upright[0, 8:24, 8:24].flatten()
        assert torch.corrcoef(torch.stack(near))[0, 1] > 0.8, "but for what two interpolations take"


def test_the_difference_is_paired(kept):
    folder = kept[1]
    table, gaps = pd.read_csv(folder / "table.csv"), pd.read_csv(folder / "differences.csv")
    rows = table.query("size == 32 and queries_of == 'all'").set_index("method")["recall@1"]
    gap = gaps.query("size == 32").iloc[0]
    assert gap["difference"] == pytest.approx(rows["dense"] - rows["cfog"])
    assert gap["low"] <= gap["difference"] <= gap["high"]


def test_the_middle_of_an_image():
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert torch.equal(middle_of(image, 2), image[..., 2:4, 2:4])
    for size in (0, -2, 3, 8):
        with pytest.raises(ValueError, match=f"size is {size} px, expected 1 to 6, and even as that"):
            middle_of(image, size)
    assert middle_of(image, None) is image or torch.equal(middle_of(image, None), image)


def test_a_run_of_vectors_has_no_table(kept, tmp_path):
    of_vectors = kept[0].config.model_copy(update={"search": "vector"})
    with pytest.raises(ValueError, match="search is 'vector', expected a run of 'dense'"):
        table_of(Run(tmp_path, of_vectors), tmp_path)


def test_lists_of_dense_search_are_those_that_refiners_of_tiles_take(kept, tiny_scene):
    found, asked, tiles = lists.peaks_of(kept[0], tiny_scene, 6, count=30)
    at = found.overlap.argmax(1)[:, None]
    apart = np.abs(np.take_along_axis(found.candidates.xy, at[..., None], 1)[:, 0] - asked[["x", "y"]].to_numpy())
    held = found.overlap.any(1)
    assert held.any() and (apart.max(1)[held] <= 0.1 * found.context.tile_m).all()
    assert (found.overlap.sum(1)[held] == 1).all(), "one peak of a list is the query's own"
    first = rank_of_best(create_refiner("coarse").refine(found.candidates, found.context), found) < 1
    assert first.sum() == found.overlap[:, 0].sum()


@pytest.mark.slow
def test_refiners_of_dense_lists_learn_on_other_towns_and_are_counted_as_the_search_is(kept, tiny_scene, monkeypatch):
    finished = kept[0]
    monkeypatch.setattr(lists, "other_town", lambda preset, seed: (tiny_scene, positions))
    monkeypatch.setattr(studies, "peak_lists", partial(lists.peak_lists, count=30))
    monkeypatch.setattr(studies, "runs_dir", lambda: kept[1].parent / "refined")
    monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: tiny_scene)
    study = studies.STUDIES["peaks_standard"]._replace(
        run=str(finished.path), lengths=(6,), arms=("coarse", "G0", "G1")
    )
    table = studies.run_study(study, kept[1].parent / "peaks")
    searched = finished.metrics.query("method == 'dense' and protocol == 'cross_area'").iloc[0]
    alone = table.query("arm == 'coarse' and protocol == 'cross_area'").iloc[0]
    assert alone["recall@1"] == pytest.approx(searched["recall@1"]) and alone["gallery"] == searched["gallery"]
    assert table.groupby("arm")["parameters"].first()[["G0", "G1"]].nunique() == 1
    gaps = pd.read_csv(kept[1].parent / "peaks" / "differences.csv")
    assert {"coarse", "G0"} == set(gaps["control"])


def test_peaks_to_learn_from_are_labelled_by_the_ground_that_a_strip_shows():
    scene, places = lists.other_town("standard", 2)
    strip = scene.area("unseen").strips[0]
    xy = scene.metres("unseen", np.array([600.0, 2400.0]), np.array([500.0, 900.0]))
    asked = pd.DataFrame({"area": "unseen", "strip": strip.name, "x": xy[:, 0], "y": xy[:, 1]})
    off = np.hypot(*(places(asked) - xy).T)
    assert (off > 1).all() and (off < 60).all(), "navigation and heading are off, by no more than they may be"
    scene, places = lists.other_town("easy", 2)
    asked = asked.assign(strip=scene.area("unseen").strips[0].name)
    np.testing.assert_allclose(places(asked), xy, atol=1e-6, err_msg="here nothing is")
