"""Scores in windows are those of the search, with gradients."""

import pytest
import torch

from sarmatch.search import DenseGallery, DenseSearch, FeatureMap, surface
from sarmatch.search.windows import window_scores


def loop(query, window, centred, mask=None):
    h, w = query.shape[1:]
    mask = torch.ones(h, w) if mask is None else mask
    scores = torch.empty(window.shape[1] - h + 1, window.shape[2] - w + 1)
    for r in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            under = window[:, r : r + h, c : c + w]
            q, f = query, under
            if centred:
                q, f = (v - ((mask * v).sum((1, 2)) / mask.sum())[:, None, None] for v in (q, f))
            scores[r, c] = (mask * q * f).sum() / ((mask * q * q).sum() * (mask * f * f).sum()).sqrt()
    return scores


@pytest.mark.parametrize("centred", [True, False])
def test_every_query_in_every_window_at_every_shift(centred):
    torch.manual_seed(0)
    queries, windows = torch.randn(2, 3, 5, 4) + 1, torch.randn(3, 3, 9, 11) + 1
    scores = window_scores(queries, windows, centred)
    assert scores.shape == (2, 3, 5, 8)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(scores[i, j], loop(queries[i], windows[j], centred), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
def test_cells_count_as_much_as_a_query_says(centred):
    torch.manual_seed(4)
    queries, windows, weights = torch.randn(2, 3, 5, 4) + 1, torch.randn(3, 3, 9, 11) + 1, torch.rand(2, 1, 5, 4)
    scores = window_scores(torch.cat([queries, weights], 1), windows, centred)
    for i in range(2):
        for j in range(3):
            slow = loop(queries[i], windows[j], centred, weights[i, 0])
            torch.testing.assert_close(scores[i, j], slow, atol=1e-5, rtol=1e-4)
    alike = window_scores(torch.cat([queries, torch.full((2, 1, 5, 4), 0.3)], 1), windows, centred)
    torch.testing.assert_close(alike, window_scores(queries, windows, centred), atol=1e-5, rtol=1e-4)
    assert (alike - scores).abs().max() > 0.05


@pytest.mark.parametrize("centred", [True, False])
def test_the_search_counts_cells_as_a_query_says_and_as_a_mask_does(centred):
    torch.manual_seed(5)
    fmap = FeatureMap(torch.randn(4, 20, 17), None, (0.0, 0.0), 1.0, centred)
    query, own, mask = torch.randn(4, 6, 6), torch.rand(1, 6, 6), (torch.rand(6, 6) > 0.3).float()
    search = DenseSearch(DenseGallery({"a": fmap}, 1))
    (searched,) = search.surfaces(torch.cat([query, own])[None])
    (masked,) = search.surfaces(query[None], own)
    torch.testing.assert_close(searched, masked)
    learned = window_scores(torch.cat([query, own])[None], fmap.features[None], centred)[0]
    torch.testing.assert_close(learned, searched, atol=1e-5, rtol=1e-4)
    (both,) = search.surfaces(torch.cat([query, own])[None], mask[None])
    (product,) = search.surfaces(query[None], own * mask)
    torch.testing.assert_close(both, product)
    with pytest.raises(ValueError, match="weights from 0 to 1, got 0 to 2"):
        search.search(torch.cat([query, 2 * mask[None]])[None], 1)


def test_they_are_what_the_search_sees():
    torch.manual_seed(1)
    query, window = torch.randn(4, 6, 6), torch.randn(4, 20, 17)
    searched = surface(FeatureMap(window, None, (0.0, 0.0), 1.0), query)
    torch.testing.assert_close(window_scores(query[None], window[None], True)[0, 0], searched, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_loop():
    torch.manual_seed(2)
    query, window = torch.randn(2, 3, 3, requires_grad=True), torch.randn(2, 5, 5, requires_grad=True)
    weight = torch.randn(3, 3)
    fast = torch.autograd.grad((window_scores(query[None], window[None], False)[0, 0] * weight).sum(), (query, window))
    total = sum(
        weight[r, c]
        * (query * window[:, r : r + 3, c : c + 3]).sum()
        / (query.norm() * window[:, r : r + 3, c : c + 3].norm())
        for r in range(3)
        for c in range(3)
    )
    for a, b in zip(fast, torch.autograd.grad(total, (query, window)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_nothing_to_compare_scores_nothing():
    scores = window_scores(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 6, 6), True)
    assert torch.equal(scores, torch.zeros(1, 1, 4, 4))
