"""Vectors from dense features: what they are to correlation, and whose window they are of."""

import numpy as np
import pytest
import torch

from sarmatch.encoders import create_encoder
from sarmatch.search import Candidates, DenseGallery, DenseSearch, FeatureMap, pooled, pooled_at
from sarmatch.search.correlate import weighed


@pytest.fixture(scope="module")
def maps():
    torch.manual_seed(0)
    areas = {
        name: FeatureMap(torch.randn(3, 30, 34), None, (1000.0 * i, 500.0), 2.0) for i, name in enumerate(("a", "b"))
    }
    return DenseGallery(areas, 1)


def test_with_a_part_per_cell_their_product_is_the_correlation(maps):
    queries = torch.randn(4, 3, 8, 8)
    found = DenseSearch(maps, radius=2).search(queries, 5)
    product = np.einsum("qd,qkd->qk", pooled(queries, 8).numpy(), pooled_at(maps, found, (8, 8), 8))
    whole = np.abs(product - found.scores)  # scores are those of the peak between the cells
    assert whole.max() < 0.15 and (product <= found.scores + 1e-4).all()


def test_the_window_under_a_place_is_the_query_that_was_cut_there(maps):
    rows, cols = np.array([0, 5, 22]), np.array([3, 0, 26])
    areas = np.array([0, 1, 1])
    cut = torch.stack([list(maps.maps.values())[a].cut(r, c, 8, 8) for a, r, c in zip(areas, rows, cols, strict=True)])
    places = np.stack([1000.0 * areas + 2 * (cols + 4), 500.0 - 2 * (rows + 4)], -1)[:, None]
    found = Candidates(np.ones((3, 1), np.float32), places, areas[:, None], maps.areas)
    np.testing.assert_allclose(pooled_at(maps, found, (8, 8), 2)[:, 0], pooled(cut, 2).numpy(), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("confidence", [False, True])
def test_they_are_the_vectors_of_a_dense_encoder_that_pools_a_pyramid(confidence):
    torch.manual_seed(2)
    encoder = create_encoder("dense", pooling="pyramid", confidence=confidence, width=8, channels=3, dilations=(1,))
    encoder = encoder.eval()
    if confidence:
        torch.nn.init.normal_(encoder.branch["query"].trust.weight)
    images = torch.randn(2, 1, 32, 32)
    features = encoder.forward_features(images, "query")
    own, weights = weighed(features, encoder.channels)
    vectors = encoder.encode_query(images)
    assert vectors.shape == (2, encoder.feature_dim) == (2, 48)
    torch.testing.assert_close(vectors, pooled(own, 4, encoder.centred, weights))
    assert confidence == ((vectors - pooled(own, 4, encoder.centred)).abs().max() > 1e-3)


def test_what_has_no_contrast_is_of_length_one_and_like_everything():
    vectors = pooled(torch.ones(1, 3, 8, 8), 2)
    assert vectors.norm() == pytest.approx(1) and vectors.std() < 1e-6
