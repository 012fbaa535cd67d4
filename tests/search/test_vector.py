"""The map index against brute force, and the contract of a candidate list."""

import multiprocessing
import os

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.search import Candidates, MapIndex


def unit(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 7, 300])
def test_search_is_the_top_k_of_all_products(k):
    gallery, queries = unit(300), unit(20, seed=1)
    found = MapIndex(gallery).search(queries, k)
    scores, indices = torch.topk(torch.from_numpy(queries) @ torch.from_numpy(gallery).T, k)
    assert found.indices.dtype == np.int64
    assert found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.indices, indices.numpy())
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(2, 12), st.integers(0, 10**6), st.data())
def test_search_gives_the_best_in_order(count, asked, dim, seed, data):
    gallery, queries = unit(count, dim, seed), unit(asked, dim, seed + 1)
    k = data.draw(st.integers(1, count))
    found = MapIndex(gallery).search(queries, k)
    products = queries @ gallery.T
    assert (np.diff(found.scores, axis=1) <= 0).all()
    np.testing.assert_allclose(found.scores, np.take_along_axis(products, found.indices, axis=1), atol=1e-5)
    for row, indices in zip(products, found.indices, strict=True):
        assert len(set(indices)) == k
        left_out = np.delete(row, indices)
        assert left_out.size == 0 or left_out.max() <= row[indices].min() + 1e-5


def test_each_reference_finds_itself_with_its_position():
    positions = np.random.default_rng(2).uniform(0, 1000, (50, 2))
    index = MapIndex(torch.from_numpy(unit(50)), positions)
    found = index.search(torch.from_numpy(unit(50)), 3)
    assert len(index) == 50
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(50))
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=1e-5)
    np.testing.assert_array_equal(found.positions, positions)
    assert found.xy.shape == (50, 3, 2)
    np.testing.assert_array_equal(found.xy[:, 0], positions)


def test_tensors_of_half_precision_that_carry_a_gradient_are_taken():
    rows = torch.from_numpy(unit(20)).half().requires_grad_()
    np.testing.assert_array_equal(MapIndex(rows).search(rows, 1).indices[:, 0], np.arange(20))


def test_no_queries_give_an_empty_list():
    found = MapIndex(unit(5), np.zeros((5, 2))).search(unit(5)[:0], 2)
    assert found.indices.shape == found.scores.shape == (0, 2)


def test_a_set_without_coordinates_has_no_metres():
    with pytest.raises(ValueError, match="no coordinates"):
        _ = MapIndex(unit(5)).search(unit(2), 1).xy


def test_gpus_are_asked_for_and_long_lists_stay_off_them(monkeypatch):
    class Gpu:
        asked = 0

        def search(self, queries, k):
            self.asked = k
            return np.ones((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)

    gpu = Gpu()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: gpu, raising=False)
    index = MapIndex(unit(2100))
    index.search(unit(1), 2048)
    assert gpu.asked == 2048
    assert len(set(index.search(unit(1), 2049).indices[0])) == 2049
    assert gpu.asked == 2048
    monkeypatch.delattr(faiss, "get_num_gpus")  # a build that does not know the word
    np.testing.assert_array_equal(MapIndex(unit(3)).search(unit(3), 1).indices[:, 0], np.arange(3))


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_worker_can_search():
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        index = MapIndex(unit(3000))
        index.search(unit(200), 3)  # starts the threads that the worker will miss
        worker = multiprocessing.get_context("fork").Process(target=index.search, args=(unit(200), 3), daemon=True)
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0  # None: it hangs
    finally:
        worker.kill()
        faiss.omp_set_num_threads(threads)


def with_value(rows: np.ndarray, value: float) -> np.ndarray:
    rows = rows.copy()
    rows[3, 1] = value
    return rows


@pytest.mark.parametrize(
    ("embeddings", "positions", "message"),
    [
        (unit(5)[:0], None, "empty"),
        (unit(5)[0], None, r"matrix.*\(16,\)"),
        (with_value(unit(5), np.nan), None, "finite, row 3"),
        (with_value(unit(5), np.inf), None, "finite, row 3"),
        (1.01 * unit(5), None, "L2-normalised.*norm 1.01"),
        (0 * unit(5), None, "L2-normalised.*norm 0"),
        (unit(5), np.zeros((4, 2)), r"\(5, 2\).*\(4, 2\)"),
        (unit(5), np.zeros((5, 3)), r"\(5, 2\).*\(5, 3\)"),
        (unit(5), with_value(np.zeros((5, 2)), np.nan), "finite, row 3"),
    ],
)
def test_a_bad_gallery_is_refused(embeddings, positions, message):
    with pytest.raises(ValueError, match=message):
        MapIndex(embeddings, positions)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (unit(2), 6, "between 1 and the gallery size 5, got 6"),
        (unit(2), 0, "got 0"),
        (unit(2, dim=8), 1, "dimension 8, the gallery has 16"),
        (unit(2)[0], 1, "matrix"),
        (with_value(unit(5), np.nan), 1, "queries must be finite, row 3"),
        (2 * unit(2), 1, "queries must be L2-normalised.*norm 2"),
    ],
)
def test_a_bad_search_is_refused(queries, k, message):
    with pytest.raises(ValueError, match=message):
        MapIndex(unit(5)).search(queries, k)


def test_rounding_within_the_tolerance_is_taken():
    assert len(MapIndex(1.0009 * unit(5))) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.zeros((2, 3), np.int32)}, "indices must be a int64.*int32"),
        ({"indices": np.zeros(3, np.int64)}, r"\(Q, K\).*\(3,\)"),
        ({"indices": [[0, 1, 2]]}, "indices.*list"),
        ({"indices": np.full((2, 3), -1)}, ">= 0, got -1"),
        ({"indices": np.full((2, 3), 4)}, "index 4 lies outside a gallery of 4"),
        ({"scores": np.zeros((2, 3))}, "scores must be a float32.*float64"),
        ({"scores": np.zeros((2, 4), np.float32)}, r"\(2, 3\).*\(2, 4\)"),
        ({"positions": np.zeros((4, 3))}, r"\(N, 2\).*\(4, 3\)"),
        ({"positions": np.zeros((4, 2), np.float32)}, "positions must be a float64.*float32"),
    ],
)
def test_candidates_hold_their_contract(change, message):
    good = {
        "indices": np.zeros((2, 3), np.int64),
        "scores": np.zeros((2, 3), np.float32),
        "positions": np.zeros((4, 2)),
    }
    Candidates(**good)
    with pytest.raises(ValueError, match=message):
        Candidates(**(good | change))


def test_candidates_do_not_change():
    found = MapIndex(unit(5)).search(unit(2), 1)
    with pytest.raises(AttributeError):
        found.scores = found.scores
