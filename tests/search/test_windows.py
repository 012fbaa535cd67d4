"""Scores in windows are those of the search, with gradients."""

import pytest
import torch

from sarmatch.search import FeatureMap, surface
from sarmatch.search.windows import window_scores


def loop(query, window, centred):
    h, w = query.shape[1:]
    scores = torch.empty(window.shape[1] - h + 1, window.shape[2] - w + 1)
    for r in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            under = window[:, r : r + h, c : c + w]
            q, f = query, under
            if centred:
                q, f = q - q.mean((1, 2), keepdim=True), f - f.mean((1, 2), keepdim=True)
            scores[r, c] = (q * f).sum() / (q.norm() * f.norm())
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
