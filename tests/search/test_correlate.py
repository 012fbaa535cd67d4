"""Correlation over all shifts against a plain loop, and peaks against a plain search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.search.correlate import Correlator, FeatureMap, Kept
from sarmatch.search.peaks import Block, Peaks, find_peaks, no_peaks, suppress


def by_loop(fmap, query, mask):
    """Weighted normalised correlation of one query at every shift, by its definition."""
    height, width = fmap.features.shape[1:]
    h, w = query.shape[1:]
    mask = mask.double()
    scores = torch.full((height - h + 1, width - w + 1), -torch.inf)
    for row in range(height - h + 1):
        for col in range(width - w + 1):
            if fmap.valid is not None and (fmap.valid[row : row + h, col : col + w] * mask).sum() < 0.5 * mask.sum():
                continue
            a, b = query.double(), fmap.features[:, row : row + h, col : col + w].double()
            if fmap.centred:
                a, b = (v - ((mask * v).sum((1, 2)) / mask.sum())[:, None, None] for v in (a, b))
            scores[row, col] = (mask * a * b).sum() / ((mask * a * a).sum() * (mask * b * b).sum()).sqrt()
    return scores


def whole(fmap, queries, masks=None, **options):
    correlator = Correlator(fmap, tuple(queries.shape[2:]), **options)
    found = torch.full((len(queries), *correlator.shifts), -torch.inf)
    margin = options.get("margin", 0)
    for block in correlator.blocks(queries, masks):
        inside = block.scores[:, margin:, margin:][:, : correlator.steps[0], : correlator.steps[1]]
        part = found[:, block.row :, block.col :][:, : inside.shape[1], : inside.shape[2]]
        part.copy_(inside[:, : part.shape[1], : part.shape[2]])
    return found


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("masked", ["nowhere", "here and there", "softly"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("margin", "block"), [(0, 16), (3, 24), (2, 512)])
def test_scores_are_those_of_a_loop_over_shifts_across_block_borders(holes, centred, masked, margin, block):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 41, 53, generator=generator)
    valid = None
    if holes:
        valid = torch.ones(41, 53, dtype=torch.bool)
        valid[:15, 20:40] = False
        features = features * valid
    fmap = FeatureMap(features, valid, (0.0, 0.0), 1.0, centred)
    queries = torch.randn(2, 3, 9, 7, generator=generator)
    soft = torch.rand(2, 9, 7, generator=generator)
    masks = {"nowhere": None, "here and there": soft > 0.3, "softly": soft}[masked]
    found = whole(fmap, queries, masks, margin=margin, block=block)
    for i, query in enumerate(queries):
        true = by_loop(fmap, query, torch.ones(9, 7, dtype=torch.bool) if masks is None else masks[i])
        assert torch.equal(torch.isfinite(found[i]), torch.isfinite(true))
        kept = torch.isfinite(true)
        torch.testing.assert_close(found[i][kept], true[kept], atol=1e-5, rtol=0)


def test_a_query_cut_from_the_map_scores_one_where_it_lies_whatever_its_gain_and_level():
    features = torch.randn(4, 60, 60, generator=torch.Generator().manual_seed(1))
    query = 3.0 * features[None, :, 13:25, 31:43] + torch.tensor([5.0, -1.0, 2.0, 0.0])[None, :, None, None]
    found = whole(FeatureMap(features, None, (0.0, 0.0), 1.0), query)[0]
    assert divmod(int(found.argmax()), found.shape[1]) == (13, 31)
    assert found.max() == pytest.approx(1, abs=1e-5)


def test_only_the_ratio_of_weights_counts():
    generator = torch.Generator().manual_seed(2)
    fmap = FeatureMap(torch.randn(3, 30, 30, generator=generator), None, (0.0, 0.0), 1.0)
    query, mask = torch.randn(1, 3, 8, 8, generator=generator), torch.rand(1, 8, 8, generator=generator)
    torch.testing.assert_close(whole(fmap, query, 0.01 * mask), whole(fmap, query, mask), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole(fmap, query, torch.full_like(mask, 0.3)), whole(fmap, query), atol=1e-5, rtol=0)
    assert whole(fmap, query, 0 * mask).abs().max() == 0  # no trust, no score


@pytest.mark.parametrize("flat", ["query", "map"])
def test_what_has_no_contrast_scores_nothing_anywhere(flat):
    features, queries = torch.randn(2, 30, 30), torch.randn(1, 2, 8, 8)
    if flat == "query":
        queries[:] = 0.7
    else:
        features[:] = 0.7
    assert whole(FeatureMap(features, None, (0.0, 0.0), 1.0), queries).abs().max() < 1e-3


def test_a_query_larger_than_the_map_has_no_place():
    fmap = FeatureMap(torch.randn(2, 10, 10), None, (0.0, 0.0), 1.0)
    assert list(Correlator(fmap, (11, 4)).blocks(torch.randn(1, 2, 11, 4))) == []


def test_blocks_without_data_are_left_out():
    valid = torch.ones(60, 60, dtype=torch.bool)
    valid[:, 25:] = False
    fmap = FeatureMap(torch.randn(2, 60, 60) * valid, valid, (0.0, 0.0), 1.0)
    corners = {(block.row, block.col) for block in Correlator(fmap, (6, 6), block=20).blocks(torch.randn(1, 2, 6, 6))}
    everywhere = Correlator(fmap._replace(valid=None), (6, 6), block=20)
    assert corners == {at for group in everywhere.groups for at in group if at[1] < 25} and len(corners) > 4


@pytest.mark.parametrize("budget", [0, 100_000, 10**9])
def test_what_is_kept_changes_nothing_and_stays_in_the_budget(budget):
    fmap = FeatureMap(torch.randn(2, 60, 60), None, (0.0, 0.0), 1.0)
    queries, masks = torch.randn(3, 2, 6, 6), torch.rand(1, 6, 6).expand(3, -1, -1)
    kept = Kept(budget)
    correlator = Correlator(fmap, (6, 6), block=20, kept=kept)
    for some, mask in 2 * [(queries, None), (queries, masks), (queries[:1], masks[:1]), (queries, torch.rand(3, 6, 6))]:
        fresh = Correlator(fmap, (6, 6), block=20).blocks(some, mask)
        for one, other in zip(correlator.blocks(some, mask), fresh, strict=True):
            torch.testing.assert_close(one.scores, other.scores, atol=1e-6, rtol=0)
    held = sum(t.nbytes for thing in kept._things.values() for t in thing if t is not None)
    assert held == budget - kept.room <= budget
    assert (held > 0) == (budget > 0)


def test_more_tiles_are_looked_at_until_there_are_enough_peaks():
    away = (torch.arange(44.0) - 22).abs()
    scores = 100 - torch.maximum(away[:, None], away)  # one peak with long slopes
    scores[6, 6] = 90.0  # another, lower than a hundred tiles
    found = find_peaks(Block(0, 0, scores[None]), 2, 3)
    assert found.scores[0, :2].tolist() == [100, 90] and not torch.isfinite(found.scores[0, 2:]).any()
    assert found.at[0, :2].round().tolist() == [[20, 20], [4, 4]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_peaks_are_the_highest_in_their_neighbourhood(seed, radius):
    features = torch.randn(1, 26, 31, generator=torch.Generator().manual_seed(seed))
    fmap, query = FeatureMap(features, None, (0.0, 0.0), 1.0), torch.randn(1, 1, 5, 5)
    scores = whole(fmap, query)[0]
    kept = no_peaks(query, 200)
    for block in Correlator(fmap, (5, 5), margin=radius, block=20).blocks(query):
        found = find_peaks(block, radius, 200)
        kept = kept.and_those(found, 400)
    kept = suppress(kept, radius, 200)
    found = {tuple(p) for p, s in zip(kept.at[0].round().int().tolist(), kept.scores[0], strict=True) if s > -torch.inf}
    true = set()
    for row in range(scores.shape[0]):
        for col in range(scores.shape[1]):
            around = scores[max(0, row - radius) : row + radius + 1, max(0, col - radius) : col + radius + 1]
            if scores[row, col] == around.max():
                true.add((row, col))
    assert {tuple(map(int, p)) for p in found} == true
    finite = kept.scores[0][torch.isfinite(kept.scores[0])]
    assert (finite.diff() <= 0).all()


def test_suppression_keeps_the_higher_and_a_suppressed_peak_suppresses_nobody():
    at = torch.tensor([[[0.0, 0.0], [0.0, 3.0], [0.0, 6.0], [9.0, 9.0]]], dtype=torch.float64)
    kept = suppress(Peaks(torch.tensor([[0.9, 0.8, 0.7, 0.1]]), at, torch.zeros(1, 4, dtype=torch.int64)), 4, 4)
    assert kept.scores[0].tolist() == pytest.approx([0.9, 0.7, 0.1, -np.inf])
    assert kept.at[0, 1].tolist() == [0.0, 6.0]
    elsewhere = suppress(Peaks(torch.tensor([[0.9, 0.8, 0.7, 0.1]]), at, torch.tensor([[0, 1, 0, 0]])), 4, 4)
    assert elsewhere.area[0].tolist() == [0, 1, 0, 0] and torch.isfinite(elsewhere.scores).all()
