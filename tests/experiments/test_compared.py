"""Refined lists side by side: the numbers are those of `studies`, the differences paired."""

import numpy as np
import pandas as pd
import pytest

from sarmatch.experiments.compared import by_group, compare_candidates, whitening_by_gallery
from sarmatch.experiments.records import baseline_of
from sarmatch.experiments.studies import Task, judge, measures
from sarmatch.refinement import RefinementContext, create_refiner, label_lists
from sarmatch.search import Gallery, VectorSearch


@pytest.fixture(scope="module")
def task() -> Task:
    """Forty queries on a grid of 25 tiles, whose embeddings share a large common part."""
    rng = np.random.default_rng(0)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(5.0), np.arange(5.0)))
    tiles = pd.DataFrame({"x": 100 * x, "y": 100 * y, "area": "one"})
    own = rng.normal(size=(25, 16)).astype(np.float32)
    positive = rng.integers(0, 25, 40)
    common = 4 * rng.normal(size=(2, 16))
    reference, query = own + common[0], own[positive] + 0.5 * rng.normal(size=(40, 16)) + common[1]
    reference, query = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (reference, query))
    gallery = Gallery(tiles, reference.astype(np.float32), tile_m=100.0)
    context = RefinementContext(gallery, query.astype(np.float32), query_mean=query.mean(0))
    xy = tiles[["x", "y"]].to_numpy()[positive]
    lists = label_lists(VectorSearch(gallery).search(context.query, 25), context, xy)
    return Task("cross_area", "aligned", lists, positive, xy, np.arange(40) // 5)


def test_a_row_is_what_the_recorded_comparison_has_and_a_difference_is_one_of_rows(task):
    refined = {
        name: create_refiner(name).refine(task.lists.candidates, task.lists.context) for name in ("coarse", "whitened")
    }
    table, gaps = compare_candidates(refined, task)
    for name, lists in refined.items():
        expected = measures(judge(lists, task), task)
        assert table.set_index("arm").loc[name, list(expected)].to_dict() == pytest.approx(expected)
    found = gaps.set_index("measure").loc["recall@1"]
    coarse, whitened = table["recall@1"]
    assert found["difference"] == pytest.approx(coarse - whitened)
    assert found["low"] <= found["difference"] <= found["high"]
    assert set(gaps["arm"]) == {"coarse"}


def test_a_whitened_copy_of_the_same_embeddings_is_the_baseline_that_a_common_part_asks_for(task):
    """Negative control: by cosine alone a refiner that only whitens looks like one that has learned."""
    lists, context = task.lists.candidates, task.lists.context
    refined = {name: create_refiner(name).refine(lists, context) for name in ("coarse", "whitened")}
    _, gaps = compare_candidates(refined | {"a refiner": refined["whitened"]}, task, "coarse")
    assert gaps.query("arm == 'a refiner' and measure == 'recall@1'")["low"].item() > 0
    _, gaps = compare_candidates(refined | {"a refiner": refined["whitened"]}, task)
    assert (gaps.query("arm == 'a refiner'")[["difference", "low", "high"]] == 0).all(axis=None)


def test_a_control_that_is_not_there_is_named(task):
    with pytest.raises(ValueError, match=r"the control 'whitened' is not among the refined lists \['coarse'\]"):
        compare_candidates({"coarse": task.lists.candidates}, task)


def test_older_comparisons_are_read_against_the_search():
    assert baseline_of(pd.DataFrame({"control": ["coarse", "G0"]})) == "coarse"
    assert baseline_of(pd.DataFrame({"control": ["coarse", "whitened"]})) == "whitened"
    row = {"arm": "coarse", "control": "whitened", "protocol": "cross_area", "kind": "arbitrary", "measure": "recall@1"}
    for difference, stronger in ((-0.03, "whitened"), (0.02, "coarse")):
        assert baseline_of(pd.DataFrame([row | {"difference": difference}])) == stronger


def test_a_group_is_counted_by_its_own_queries_and_blocks():
    hit, block = np.array([1.0, 0, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    found = by_group(hit, {"all": hit >= 0, "first": np.arange(6) < 4}, block)
    assert found["mean"].tolist() == [0.5, 0.75]
    assert found["queries"].tolist() == [6, 4]
    assert found["blocks"].tolist() == [3, 2]
    assert (found["low"] <= found["mean"]).all() and (found["mean"] <= found["high"]).all()


def test_a_group_in_one_block_has_no_interval_and_an_empty_one_no_row():
    hit, block = np.array([1.0, 0, 1]), np.array([0, 0, 1])
    found = by_group(hit, {"one block": block == 0, "none": block == 7}, block)
    assert list(found.index) == ["one block"]
    assert found["mean"].item() == 0.5
    assert found[["low", "high"]].isna().all(axis=None)


def test_the_whole_gallery_is_one_of_the_sizes_and_a_part_is_easier(task):
    context = task.lists.context
    found = whitening_by_gallery(context.query, context.reference, task.positive, context.query_mean, (5, 25), 8)
    refined = {n: create_refiner(n).refine(task.lists.candidates, context) for n in ("coarse", "whitened")}
    table, _ = compare_candidates(refined, task)
    assert found.loc[25, ["cosine", "whitened"]].tolist() == pytest.approx(table["recall@1"].tolist())
    assert found.loc[5, "cosine"] > found.loc[25, "cosine"]
    assert found["queries"].tolist() == pytest.approx([8, 40], abs=4)
