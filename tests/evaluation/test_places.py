"""Which tile a place lies on, and the numbers of candidate lists: one rule for tiles and for peaks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sarmatch as sm
from sarmatch.evaluation import candidate_report, list_ranks, ranks, tiles_of_places
from sarmatch.patches import overlap, positions
from sarmatch.search import Candidates, Gallery, VectorSearch

SIDE = 16.0  # metres, of a tile of the tiny scene


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def grid_tiles(side: int, step: float, origin=(5e5, 5.7e6), area: str = "map") -> pd.DataFrame:
    line = step * np.arange(side)
    x, y = (v.ravel() for v in np.meshgrid(line + origin[0], line + origin[1]))
    return pd.DataFrame({"area": area, "x": x, "y": y})


def at(xy, **more) -> Candidates:
    """One list of candidates at some places."""
    xy = np.asarray(xy, np.float64)[None]
    return Candidates(np.zeros(xy.shape[:2], np.float32), xy, **more)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.sampled_from([1.0, 0.5, 1.5]), st.booleans(), st.integers(0, 10**6))
def test_a_place_lies_on_the_tile_that_a_patch_there_overlaps_most(side, stride, from_tiles, seed):
    """Against a plain loop over all tiles, on grids without gaps, with overlap, and with gaps."""
    rng = np.random.default_rng(seed)
    size = 100.0
    tiles = grid_tiles(side, stride * size)
    centres = tiles[["x", "y"]].to_numpy()
    places = centres[0] + rng.uniform(-size, (side * stride + 0.5) * size, (20, 2))
    tile = rng.integers(0, len(tiles), (1, 20)) if from_tiles else None
    found = tiles_of_places(at(places, tile=tile), tiles, size)[0]
    for place, own in zip(places, found, strict=True):
        best, most = -1, 0.0
        for number, centre in enumerate(centres):
            if np.abs(place - centre).max() <= size / 2 and overlap(place, centre, size) > most:
                best, most = number, float(overlap(place, centre, size))
        assert own == best


def test_on_the_edge_a_place_belongs_to_the_candidates_own_tile():
    tiles = grid_tiles(3, 100.0)
    middle = tiles[["x", "y"]].to_numpy()[4]
    for corner in ([50, 0], [-50, 0], [0, 50], [50, 50], [-50, 50]):
        east, north = np.sign(corner)
        neighbours = {4, 4 + int(east), 4 + 3 * int(north), 4 + int(east) + 3 * int(north)}
        for own in neighbours:
            assert tiles_of_places(at([middle + corner], tile=np.array([[own]])), tiles, 100.0) == own
        assert int(tiles_of_places(at([middle + corner]), tiles, 100.0)[0, 0]) in neighbours
    # a hair beyond it is still the edge, a metre is not
    for beyond, expected in ((1e-5, 4), (1.0, 5)):
        found = tiles_of_places(at([middle + [50 + beyond, 0]], tile=np.array([[4]])), tiles, 100.0)
        assert found == expected


def test_beside_the_map_there_is_no_tile():
    tiles = grid_tiles(2, 100.0, (0.0, 0.0))
    found = tiles_of_places(at([[-49, 0], [-51, 0], [0, 151], [1e9, 1e9], [149, 149]]), tiles, 100.0)
    assert found.tolist() == [[0, -1, -1, -1, 3]]


def test_an_area_owns_its_places_and_lists_that_are_filled_up_own_none():
    tiles = pd.concat([grid_tiles(2, 100.0, (0, 0), "a"), grid_tiles(2, 100.0, (50, 0), "b")], ignore_index=True)
    places = [[10, 0], [40, 0], [60, 0], [60, 0]]
    lists = at(places, areas=("b", "a", "nowhere"), area=np.array([[1, 0, 1, 2]]))
    assert tiles_of_places(lists, tiles, 100.0).tolist() == [[0, 4, 1, -1]]
    filled = at(places, areas=("b", "a"), area=np.array([[1, 0, 1, 0]]), valid=np.array([[True, True, False, False]]))
    assert tiles_of_places(filled, tiles, 100.0).tolist() == [[0, 4, -1, -1]]


def test_without_coordinates_candidates_are_their_tiles():
    tiles = pd.DataFrame({"area": ["a"] * 4})
    lists = Candidates(np.zeros((1, 3), np.float32), tile=np.array([[2, 0, 1]]), valid=np.array([[True, True, False]]))
    assert tiles_of_places(lists, tiles, np.inf).tolist() == [[2, 0, -1]]
    with pytest.raises(ValueError, match="neither places nor tiles"):
        tiles_of_places(Candidates(np.zeros((1, 3), np.float32)), tiles, np.inf)


def test_ranks_in_lists_count_ties_against_us_and_absence_as_last():
    tile = np.array([[1, 2, 3, 4]] * 4)
    scores = np.array([[0.9, 0.5, 0.5, 0.1]] * 4, np.float32)
    assert list_ranks(tile, scores, np.array([1, 2, 3, 7]), 9).tolist() == [0, 2, 2, 9]
    # several candidates on the true tile: its best counts, and none of them is ahead of it
    assert list_ranks(np.array([[5, 1, 1, 6]]), scores[:1], np.array([1]), 9).tolist() == [1]
    assert list_ranks(np.array([[1, 1, 5, 6]]), scores[:1], np.array([1]), 9).tolist() == [0]


@pytest.fixture(scope="module")
def asked(tiny_scene):
    return sm.search_task(tiny_scene, "arbitrary", None, "test", protocol="cross_area", count=200)


def searched(asked, noise: float = 1.0, seed: int = 0):
    """Vectors of queries that resemble their tile, and the search's lists of all tiles."""
    queries, tiles = asked
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(len(tiles), 16)))
    query = unit(vectors[queries["positive"]] + noise * rng.normal(size=(len(queries), 16)) / 4)
    return query @ vectors.T, VectorSearch(Gallery(tiles, vectors, SIDE)).search(query, len(tiles))


def test_ranks_of_whole_lists_are_those_of_the_whole_gallery(asked):
    queries, tiles = asked
    scores, lists = searched(asked)
    found = list_ranks(tiles_of_places(lists, tiles, SIDE), lists.scores, queries["positive"], len(tiles))
    np.testing.assert_array_equal(found, ranks(scores, queries["positive"].to_numpy(), tolerance=0))


def test_dense_candidates_at_tile_centres_count_exactly_as_those_of_a_vector_search(asked):
    queries, tiles = asked
    _, lists = searched(asked, noise=4.0)
    lists = lists.first(20)
    dense = Candidates(lists.scores, lists.places, lists.area, lists.areas)
    reports = [
        candidate_report(c, queries["positive"].to_numpy(), tiles, SIDE, positions(queries)) for c in (lists, dense)
    ]
    assert reports[0] == reports[1]
    assert 0.05 < reports[0]["recall@1"] < reports[0]["oracle"] < 1


def test_the_report_by_hand():
    tiles = grid_tiles(2, 100.0, (0.0, 0.0))
    places = np.array([[[100.0, 3.0], [0, 0]], [[0, 0], [100, 140.0]], [[0, 100], [-500, 0]]])
    lists = Candidates(np.array([[0.9, 0.1]] * 3, np.float32), places)
    where = np.array([[100.0, 0.0], [100.0, 100.0], [10.0, 0.0]])
    report = candidate_report(lists, np.array([1, 3, 0]), tiles, 100.0, where, ks=(1, 2), thresholds=(10, 150))
    assert report == {
        "queries": 3,
        "gallery": 4,
        "k": 2,
        "oracle": pytest.approx(2 / 3),
        "recall@1": pytest.approx(1 / 3),
        "recall@1_chance": 0.25,
        "recall@2": pytest.approx(2 / 3),
        "recall@2_chance": 0.5,
        "median_m": pytest.approx(np.hypot(10, 100)),
        "p90_m": pytest.approx(np.quantile([3, np.hypot(100, 100), np.hypot(10, 100)], 0.9)),
        "within_10m": pytest.approx(1 / 3),
        "within_150m": 1.0,
        **{f"within_{share}_tile": pytest.approx(1 / 3) for share in ("0.1", "0.25", "0.5", "1")},
    }


def test_columns_are_the_same_for_scenes_of_different_tile_size():
    reports = []
    for size in (100.0, 31.0):
        tiles = grid_tiles(3, size)
        xy = tiles[["x", "y"]].to_numpy()
        lists = at(xy[:5], tile=np.arange(5)[None])
        reports.append(candidate_report(lists, np.array([0]), tiles, size, xy[:1]))
    assert list(reports[0]) == list(reports[1])


def test_a_set_without_coordinates_is_reported_without_metres():
    tiles = pd.DataFrame({"area": ["a"] * 8})
    lists = VectorSearch(Gallery(tiles, np.eye(8, dtype=np.float32))).search(np.eye(8)[:3], 4)
    report = candidate_report(lists, np.array([0, 1, 2]), tiles)
    assert report["recall@1"] == report["oracle"] == 1
    assert not [name for name in report if name.endswith("m")]


def test_what_fills_a_list_up_is_never_ahead():
    """Its score means nothing, however high it is."""
    tiles = pd.DataFrame({"area": ["a"] * 8})
    lists = Candidates(
        np.array([[-0.9, 0.0, 0.0]], np.float32), tile=np.array([[2, 0, 0]]), valid=np.array([[True, False, False]])
    )
    assert candidate_report(lists, np.array([2]), tiles)["recall@1"] == 1


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_collapsed_scores_give_chance(asked, noise):
    queries, tiles = asked
    rng = np.random.default_rng(0)
    vectors = unit(np.ones((len(tiles), 16)) + noise * rng.normal(size=(len(tiles), 16)))
    lists = VectorSearch(Gallery(tiles, vectors, SIDE)).search(unit(np.ones((len(queries), 16))), 30)
    for candidates in (lists, lists.reorder(np.zeros_like(lists.scores))):
        report = candidate_report(candidates, queries["positive"].to_numpy(), tiles, SIDE, positions(queries))
        for k in (1, 5, 10):
            assert report[f"recall@{k}"] <= report[f"recall@{k}_chance"]
        assert report["oracle"] == pytest.approx(0.3, abs=0.15)
