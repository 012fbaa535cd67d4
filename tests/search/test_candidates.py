"""The contract of candidate lists: what they refuse, and that every candidate keeps what belongs to it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.scenes import NoCoordinatesError
from sarmatch.search import Candidates

AREAS = ("north", "south")


def good() -> dict:
    return {
        "scores": np.zeros((2, 3), np.float32),
        "places": np.zeros((2, 3, 2)),
        "area": np.zeros((2, 3), np.int64),
        "areas": AREAS,
        "valid": np.ones((2, 3), bool),
        "tile": np.zeros((2, 3), np.int64),
        "log_prob": np.zeros((2, 4), np.float32),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((2, 3))}, "scores must be a float32.*float64"),
        ({"scores": np.zeros(3, np.float32)}, r"\(Q, K\).*\(3,\)"),
        ({"scores": [[0.0, 1.0, 2.0]]}, "scores.*list"),
        ({"tile": np.zeros((2, 3), np.int32)}, "tile must be a int64.*int32"),
        ({"tile": np.zeros((2, 4), np.int64)}, r"\(2, 3\).*\(2, 4\)"),
        ({"tile": np.full((2, 3), -1)}, ">= 0 where a candidate is valid, got -1"),
        ({"places": np.zeros((2, 3, 3))}, r"places.*\(2, 3, 2\).*\(2, 3, 3\)"),
        ({"places": np.zeros((2, 3, 2), np.float32)}, "places must be a float64.*float32"),
        ({"area": np.full((2, 3), 2)}, "2 areas.*north.*got 2"),
        ({"area": np.full((2, 3), -1)}, "2 areas"),
        ({"area": np.zeros((2, 3))}, "area must be a int64"),
        ({"valid": np.ones((2, 3))}, "valid must be a bool"),
        ({"log_prob": np.zeros((2, 3), np.float32)}, r"log_prob.*\(2, 4\).*\(2, 3\)"),
        ({"heading": np.zeros((2, 3), np.float32)}, "heading must be a float64.*float32"),
        ({"scale": np.ones((2, 4))}, r"scale.*\(2, 3\).*\(2, 4\)"),
        ({"log_prob": np.zeros((2, 4))}, "log_prob must be a float32"),
    ],
)
def test_candidates_hold_their_contract(change, message):
    Candidates(**good())
    with pytest.raises(ValueError, match=message):
        Candidates(**(good() | change))


def test_what_is_not_said_is_one_area_and_all_valid():
    lists = Candidates(np.zeros((4, 5), np.float32))
    assert len(lists) == 4
    assert lists.areas == ("map",)
    assert (lists.area == 0).all()
    assert lists.valid.all()
    assert lists.tile is lists.log_prob is None
    with pytest.raises(NoCoordinatesError, match="no coordinates"):
        _ = lists.xy


def test_a_tile_counts_only_where_there_is_a_candidate():
    valid = np.array([[True, False]])
    lists = Candidates(np.zeros((1, 2), np.float32), valid=valid, tile=np.array([[3, -1]]))
    assert lists.tile.tolist() == [[3, -1]]


def test_candidates_do_not_change():
    lists = Candidates(**good())
    with pytest.raises(AttributeError):
        lists.scores = lists.scores


def marked(count: int, k: int, seed: int) -> Candidates:
    """Lists whose every field says of a candidate which one it is: number `n = K q + k`."""
    rng = np.random.default_rng(seed)
    number = np.arange(count * k).reshape(count, k)
    valid = np.arange(k) < rng.integers(0, k + 1, count)[:, None]
    return Candidates(
        rng.normal(size=(count, k)).astype(np.float32),
        np.stack([number, -number], -1).astype(np.float64),
        number % 2,
        AREAS,
        valid,
        number,
        np.concatenate([number, np.full((count, 1), 999)], 1).astype(np.float32),
        heading=number + 0.5,
        scale=number + 1.0,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 10**6))
def test_a_new_order_keeps_what_belongs_to_each_candidate_together(count, k, seed):
    lists = marked(count, k, seed)
    fresh = np.random.default_rng(seed + 1).integers(0, 4, (count, k)).astype(np.float64)  # with ties
    after = lists.reorder(fresh, log_prob=lists.log_prob)
    for q in range(count):
        order = sorted(range(k), key=lambda i, q=q: (not lists.valid[q, i], -fresh[q, i], i))  # stable; invalid last
        real = [i for i in order if lists.valid[q, i]]
        assert after.tile[q, : len(real)].tolist() == lists.tile[q, real].tolist()
        assert after.scores[q, : len(real)].tolist() == fresh[q, real].tolist()
        assert not after.valid[q, len(real) :].any()
        assert (after.scores[q, len(real) :] == -np.inf).all()
    np.testing.assert_array_equal(after.xy[..., 0], after.tile)
    np.testing.assert_array_equal(after.xy[..., 1], -after.tile)
    np.testing.assert_array_equal(after.area, after.tile % 2)
    np.testing.assert_array_equal(after.heading, after.tile + 0.5)
    np.testing.assert_array_equal(after.scale, after.tile + 1.0)
    np.testing.assert_array_equal(after.log_prob[:, :-1], after.tile)
    assert (after.log_prob[:, -1] == 999).all()
    assert after.areas == AREAS
    assert after.log_prob.dtype == np.float32


def test_new_places_come_in_the_order_of_the_old_list():
    lists = Candidates(**(good() | {"tile": np.array([[0, 1, 2], [3, 4, 5]])}))
    places = np.arange(12.0).reshape(2, 3, 2)
    after = lists.reorder(np.array([[0, 1, 2], [2, 1, 0]]), places)
    np.testing.assert_array_equal(after.tile, [[2, 1, 0], [3, 4, 5]])
    np.testing.assert_array_equal(after.xy[0], places[0, ::-1])
    np.testing.assert_array_equal(after.xy[1], places[1])
    assert after.log_prob is None  # the old ones belong to the old scores


def test_scores_that_are_not_one_per_candidate_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        Candidates(**good()).reorder(np.zeros((2, 2)))


def test_first_and_rows_are_parts():
    lists = marked(4, 6, 0)
    few = lists.first(2)
    np.testing.assert_array_equal(few.tile, lists.tile[:, :2])
    np.testing.assert_array_equal(few.xy, lists.xy[:, :2])
    assert few.log_prob is None  # of whole lists
    assert lists.first(None) is lists.first(6) is lists.first(7) is lists
    some = lists.rows([2, 0])
    for name in ("scores", "places", "area", "valid", "tile", "heading", "scale", "log_prob"):
        np.testing.assert_array_equal(getattr(some, name), getattr(lists, name)[[2, 0]])
    assert len(lists.rows(slice(1, 2))) == 1
