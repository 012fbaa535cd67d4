"""Exact search of vectors against brute force, with vectors and with images."""

import multiprocessing
import os

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sarmatch as sm
from sarmatch.encoders import create_encoder, embed
from sarmatch.scenes import NoCoordinatesError
from sarmatch.search import SEARCHES, Candidates, Gallery, VectorSearch, create_search, list_searches, register_search


def unit(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def search_of(vectors, xy=None) -> VectorSearch:
    return VectorSearch(Gallery.of_vectors(vectors, xy))


@pytest.mark.parametrize("k", [1, 7, 300])
def test_search_is_the_top_k_of_all_products(k):
    gallery, queries = unit(300), unit(20, seed=1)
    found = search_of(gallery).search(queries, k)
    scores, indices = torch.topk(torch.from_numpy(queries) @ torch.from_numpy(gallery).T, k)
    assert found.tile.dtype == np.int64
    assert found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.tile, indices.numpy())
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(2, 12), st.integers(0, 10**6), st.data())
def test_search_gives_the_best_in_order(count, asked, dim, seed, data):
    gallery, queries = unit(count, dim, seed), unit(asked, dim, seed + 1)
    k = data.draw(st.integers(1, count))
    found = search_of(gallery).search(queries, k)
    products = queries @ gallery.T
    assert (np.diff(found.scores, axis=1) <= 0).all()
    np.testing.assert_allclose(found.scores, np.take_along_axis(products, found.tile, axis=1), atol=1e-5)
    for row, indices in zip(products, found.tile, strict=True):
        assert len(set(indices)) == k
        left_out = np.delete(row, indices)
        assert left_out.size == 0 or left_out.max() <= row[indices].min() + 1e-5


def test_each_reference_finds_itself_with_its_position():
    positions = np.random.default_rng(2).uniform(0, 1000, (50, 2))
    search = search_of(torch.from_numpy(unit(50)), positions)
    found = search.search(torch.from_numpy(unit(50)), 3)
    assert len(search.gallery) == 50
    np.testing.assert_array_equal(found.tile[:, 0], np.arange(50))
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=1e-5)
    np.testing.assert_array_equal(search.gallery.xy, positions)
    assert found.xy.shape == (50, 3, 2)
    np.testing.assert_array_equal(found.xy[:, 0], positions)


def test_tensors_of_half_precision_that_carry_a_gradient_are_taken():
    rows = torch.from_numpy(unit(20)).half().requires_grad_()
    np.testing.assert_array_equal(search_of(rows).search(rows, 1).tile[:, 0], np.arange(20))


def test_no_queries_give_an_empty_list():
    found = search_of(unit(5), np.zeros((5, 2))).search(unit(5)[:0], 2)
    assert found.tile.shape == found.scores.shape == (0, 2)


def test_a_set_without_coordinates_has_no_metres():
    found = search_of(unit(5)).search(unit(2), 1)
    assert found.places is None
    with pytest.raises(NoCoordinatesError, match="no coordinates"):
        _ = found.xy


def test_gpus_are_asked_for_and_long_lists_stay_off_them(monkeypatch):
    class Gpu:
        asked = 0

        def search(self, queries, k):
            self.asked = k
            return np.ones((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)

    gpu = Gpu()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: gpu, raising=False)
    search = search_of(unit(2100))
    search.search(unit(1), 2048)
    assert gpu.asked == 2048
    assert len(set(search.search(unit(1), 2049).tile[0])) == 2049
    assert gpu.asked == 2048
    monkeypatch.delattr(faiss, "get_num_gpus")  # a build that does not know the word
    np.testing.assert_array_equal(search_of(unit(3)).search(unit(3), 1).tile[:, 0], np.arange(3))


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_worker_can_search():
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        search = search_of(unit(3000))
        search.search(unit(200), 3)  # starts the threads that the worker will miss
        worker = multiprocessing.get_context("fork").Process(target=search.search, args=(unit(200), 3), daemon=True)
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
        (unit(5), with_value(np.zeros((5, 2)), np.nan), "positions must be finite, tile 3"),
    ],
)
def test_a_bad_gallery_is_refused(embeddings, positions, message):
    with pytest.raises(ValueError, match=message):
        Gallery.of_vectors(embeddings, positions)


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
        search_of(unit(5)).search(queries, k)


def test_rounding_within_the_tolerance_is_taken():
    assert len(Gallery.of_vectors(1.0009 * unit(5))) == 5


def test_places_and_areas_are_those_of_the_tiles(tiny_scene):
    tiles = sm.references(tiny_scene)
    gallery = Gallery(tiles, unit(len(tiles)), 16.0)
    found = VectorSearch(gallery).search(unit(7, seed=3), 20)
    assert found.areas == ("one", "two", "unseen")
    for row in range(7):
        for tile, xy, area in zip(found.tile[row], found.xy[row], found.area[row], strict=True):
            assert xy.tolist() == tiles.loc[tile, ["x", "y"]].tolist()
            assert found.areas[area] == tiles.loc[tile, "area"]


def test_a_search_asked_with_images_equals_one_asked_with_vectors():
    encoder = create_encoder("plain", image_size=32, feature_dim=16, widths=(8, 8, 16, 16, 16))
    images = torch.randn(10, 1, 32, 32).split(4)
    search = create_search("vector", Gallery.of_vectors(unit(30)), encoder)
    vectors = embed(encoder, images, "query")
    np.testing.assert_array_equal(search.encode(images), vectors)
    by_images, by_vectors = search.search(images, 5), search.search(vectors, 5)
    np.testing.assert_array_equal(by_images.tile, by_vectors.tile)
    np.testing.assert_array_equal(by_images.scores, by_vectors.scores)
    with pytest.raises(ValueError, match="no encoder"):
        search_of(unit(30)).search(images, 5)


def test_searches_are_made_by_name_and_a_user_adds_one_in_a_cell_that_runs_twice(monkeypatch):
    monkeypatch.setattr(SEARCHES, "_things", dict(SEARCHES._things))
    monkeypatch.setattr(SEARCHES, "_origins", dict(SEARCHES._origins))

    def cell():
        @register_search("everything")
        class Everything:
            """All tiles for every query, in gallery order."""

            def __init__(self, gallery, encoder=None, score=0.0):
                self.gallery, self.score = gallery, score

            def encode(self, images):
                return np.zeros((sum(map(len, images)), 1))

            def search(self, queries, k):
                tile = np.tile(np.arange(k), (len(queries), 1))
                return Candidates(np.full(tile.shape, self.score, np.float32), tile=tile)

        return Everything

    cell()
    second = cell()
    assert {"everything", "vector"} <= set(list_searches())
    gallery = Gallery.of_vectors(unit(5))
    assert isinstance(create_search("vector", gallery), VectorSearch)
    own = create_search("everything", gallery, score=0.5)
    assert type(own) is second
    assert (own.search(own.encode([torch.zeros(2, 1)]), 3).scores == 0.5).all()
    with pytest.raises(ValueError, match="'vektor'.*vector"):
        create_search("vektor", gallery)
    with pytest.raises(ValueError, match="already called 'vector'"):
        register_search("vector")(second)


def test_an_index_that_looks_into_all_cells_finds_what_the_exact_search_finds():
    gallery, queries = Gallery.of_vectors(unit(900)), unit(30, seed=1)
    exact, all_cells = VectorSearch(gallery), VectorSearch(gallery, index="IVF8,Flat", probes=8)
    np.testing.assert_array_equal(all_cells.search(queries, 7).tile, exact.search(queries, 7).tile)
    few = VectorSearch(gallery, index="IVF8,PQ4", probes=1).search(queries, 7)
    found = (few.tile == exact.search(queries, 1).tile).any(1).mean()
    assert 0.05 < found < 1, "a cell of eight, and four bytes a vector: more than chance, less than all"


def test_what_an_index_does_not_find_is_not_valid():
    found = VectorSearch(Gallery.of_vectors(unit(200)), index="IVF4,Flat", probes=1).search(unit(5, seed=1), 200)
    assert not found.valid.all() and found.valid[:, 0].all()
    assert np.isneginf(found.scores[~found.valid]).all() and (found.tile >= 0).all()


@pytest.mark.parametrize(("index", "said"), [("Hat", "index is 'Hat'"), ("IVF64,Flat", "learned from 20 vectors")])
def test_an_index_that_cannot_be_made_is_named(index, said):
    with pytest.raises(ValueError, match=said):
        VectorSearch(Gallery.of_vectors(unit(20)), index=index)
