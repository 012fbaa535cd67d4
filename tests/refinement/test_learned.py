"""Networks over lists: equivariance, edge cases, what they can and cannot learn, and that nothing is lost on disk."""

import numpy as np
import pytest
import torch

from sarmatch.refinement import NETWORKS, Evidence, create_refiner, joined, lists_of, relisted
from sarmatch.refinement.evidence import Lists
from sarmatch.refinement.learned import listwise_loss, place_loss
from sarmatch.refinement.networks import Batch, GraphNetwork
from sarmatch.search import Candidates
from tests.refinement.worlds import grid, unit, world

STABLE = [n for n in NETWORKS if n not in ("gnn_random", "gnn_shuffled", "gnn_permuted", "surface")]


def batch(count=3, size=7, dim=16, seed=0, origin=(5e5, 5.7e6), spacing=100):
    rng = np.random.default_rng(seed)
    return Batch(
        torch.from_numpy(rng.normal(size=(count, size)).astype(np.float32)),
        torch.from_numpy(unit(rng.normal(size=(count, dim)))),
        torch.from_numpy(unit(rng.normal(size=(count, size, dim)))),
        torch.from_numpy(np.array(origin) + spacing * rng.integers(0, 5, (count, size, 2)).astype(np.float64)),
        100.0,
        torch.from_numpy(rng.normal(size=(count, size, 9, 9)).astype(np.float32)),
    )


def network(name, dim=16):
    """With a last layer that is not zero, as it is before training."""
    torch.manual_seed(0)
    net = NETWORKS[name](dim, width=16).eval()
    for module in net.modules():
        if hasattr(module, "log_sharpness"):
            torch.nn.init.normal_(module.out.weight)
    return net


@pytest.mark.parametrize("name", [*STABLE, "surface"])
def test_scores_follow_the_nodes(name):
    lists, order = batch(), torch.tensor([3, 0, 6, 2, 1, 5, 4])
    moved = lists._replace(**{f: getattr(lists, f)[:, order] for f in ("score", "reference", "xy", "surface")})
    net = network(name)
    with torch.no_grad():
        for after, before in zip(net(moved), net(lists), strict=True):
            if before is not None:
                torch.testing.assert_close(after, before[:, order], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", STABLE)
def test_lists_do_not_hear_each_other(name):
    lists, net = batch(count=4), network(name)
    alone = lists._replace(**{f: getattr(lists, f)[2:3] for f in ("score", "query", "reference", "xy")})
    with torch.no_grad():
        torch.testing.assert_close(net(alone).score, net(lists).score[2:3], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("gnn_angle", "surface")])
def test_moving_the_whole_map_changes_nothing(name):
    """Positions as large as UTM's, against the same ones near the origin: only what is relative may matter."""
    near, far = batch(origin=(0, 0)), batch(origin=(5e5, 5.7e6))
    net = network(name)
    with torch.no_grad():
        torch.testing.assert_close(net(near, seed=1), net(far, seed=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("size", [1, 2])
def test_short_lists_and_a_batch_of_one(name, size):
    scores = network(name)(batch(count=1, size=size)).score
    assert scores.shape == (1, size)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_equal_positions_and_equal_candidates(name):
    lists = batch(spacing=0)
    lists = lists._replace(reference=lists.reference[:, :1].expand_as(lists.reference))
    assert torch.isfinite(network(name)(lists).score).all()


def test_self_loops_make_a_perceptron_of_exactly_as_many_parameters():
    def sizes(name):
        return [p.shape for p in NETWORKS[name](128).parameters()]

    assert sizes("gnn") == sizes("gnn_self_loops") == sizes("attention")
    lists, net = batch(), network("gnn_self_loops")
    aside = lists.reference.clone()
    aside[:, 1:] = aside[:, 1:].roll(1, dims=1)  # means over the list stay
    with torch.no_grad():
        before, after = net(lists).score, net(lists._replace(reference=aside)).score
    torch.testing.assert_close(before[:, 0], after[:, 0])  # what others are does not reach it
    with torch.no_grad():
        heard = [network("gnn")(given).score[:, 0] for given in (lists, lists._replace(reference=aside))]
    assert not torch.allclose(*heard)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_all_stay_under_a_million_parameters(name):
    assert sum(p.numel() for p in NETWORKS[name](128).parameters()) < 1_000_000


def test_a_refiner_that_has_learned_nothing_leaves_the_order_alone():
    for name in ("mlp", "gnn", "deepsets", "attention"):
        lists = batch()
        answer = NETWORKS[name](16, width=16).eval()(lists)
        torch.testing.assert_close(answer.score.argsort(1), lists.score.argsort(1))
        assert (answer.shift == 0).all()


def test_listwise_loss_against_plain_loops():
    rng = np.random.default_rng(0)
    logits, none = rng.normal(size=(5, 4)), 0.3
    share = rng.dirichlet(np.ones(5), 5)[:, :4]
    total = 0.0
    for row, target in zip(logits, share, strict=True):
        bottom = sum(np.exp(v) for v in row) + np.exp(none)
        for value, t in zip([*row, none], [*target, 1 - target.sum()], strict=True):
            total -= t * np.log(np.exp(value) / bottom)
    ours = listwise_loss(torch.from_numpy(logits), torch.tensor(none, dtype=torch.float64), torch.from_numpy(share))
    assert float(ours) == pytest.approx(total / 5, rel=1e-9)


def test_place_loss_against_plain_loops():
    rng = np.random.default_rng(0)
    share = rng.uniform(size=(3, 4)) * (rng.uniform(size=(3, 4)) > 0.5)
    said, true = rng.uniform(-0.5, 0.5, (3, 4, 2)), rng.uniform(-1, 1, (3, 4, 2))
    total = sum(
        share[q, k] * sum(abs(said[q, k, a] - min(max(true[q, k, a], -0.5), 0.5)) for a in range(2))
        for q in range(3)
        for k in range(4)
    )
    ours = place_loss(*(torch.from_numpy(v) for v in (said, true, share)))
    assert float(ours) == pytest.approx(total / share.sum())
    assert float(place_loss(None, torch.from_numpy(true), torch.from_numpy(share))) == 0


def test_a_graph_learns_where_in_its_tile_a_query_lies():
    """Similarities of the neighbours say it; the centre of the tile is the answer of whoever does not listen."""
    train, _ = world(side=10, count=600, k=25, noise=0.2, dim=64)
    test, place = world(side=10, count=200, k=25, noise=0.2, seed=1, dim=64)
    refiner = create_refiner("gnn", width=32, dropout=0.0).fit(train, epochs=15, learning_rate=3e-3)
    refined = refiner.refine(test.candidates, test.evidence)
    told, centre = (np.median(np.hypot(*(xy - place).T)) for xy in (refined.places[:, 0], refined.xy[:, 0]))
    assert told < 0.7 * centre


def ground_world(seed, count=300):
    """Every tile scores at random but for the four around the query, which agree: only neighbours can tell."""
    rng = np.random.default_rng(seed)
    positions = grid(5)
    truth = rng.integers(0, 5, (count, 2))
    truth = np.clip(truth, 1, 3)
    target = truth[:, 1] * 5 + truth[:, 0]
    apart = np.abs(positions[None] / 100 - truth[:, None])
    near = (apart.sum(-1) == 1) | (apart.max(-1) == 0)
    scores = np.where(near, 0.4, 0.0) + 0.35 * rng.normal(size=near.shape)
    order = np.argsort(-scores, axis=1)
    dim = 8
    evidence = Evidence(unit(rng.normal(size=(count, dim))), unit(rng.normal(size=(25, dim))), 100.0)
    candidates = Candidates(order, np.take_along_axis(scores, order, 1).astype(np.float32), positions)
    share = (order == target[:, None]).astype(np.float32)
    shift = (positions[target][:, None] - candidates.xy) / 100
    return Lists(candidates, evidence, share, shift.astype(np.float32)), target


@pytest.mark.slow
def test_a_graph_learns_what_only_neighbours_tell_and_a_perceptron_cannot():
    train, _ = ground_world(0, 600)
    test, target = ground_world(1)
    found = {}
    for name in ("gnn", "gnn_self_loops", "gnn_shuffled"):
        refiner = create_refiner(name, width=32, dropout=0.0).fit(train, epochs=12, learning_rate=3e-3)
        found[name] = (refiner.refine(test.candidates, test.evidence).indices[:, 0] == target).mean()
    assert found["gnn"] > found["gnn_self_loops"] + 0.15
    assert found["gnn"] > found["gnn_shuffled"] + 0.15


def test_shuffled_targets_teach_nothing():
    train, _ = ground_world(0, 600)
    rng = np.random.default_rng(5)
    wrong = train._replace(share=rng.permuted(train.share, axis=1))
    test, target = ground_world(1)
    refined = create_refiner("gnn", width=32).fit(wrong, epochs=4).refine(test.candidates, test.evidence)
    coarse = (test.candidates.indices[:, 0] == target).mean()
    assert (refined.indices[:, 0] == target).mean() < coarse + 0.1


def test_fit_is_repeatable_and_chooses_its_epoch_on_validation():
    lists, _ = world(count=60)
    other, _ = world(count=30, seed=1)
    seen = []
    fits = [
        create_refiner("gnn", width=16).fit(lists, other, epochs=3, seed=4, report=lambda *row: seen.append(row))
        for _ in range(2)
    ]
    first, second = (f.answers(other.candidates, other.evidence) for f in fits)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert len(seen) == 6
    scores, none = torch.from_numpy(first[0]), torch.tensor(fits[0].none)
    chosen = listwise_loss(scores, none, torch.from_numpy(other.share)).item()
    assert chosen == pytest.approx(min(row[2] for row in seen[:3]), abs=1e-5)


def test_probabilities_sum_to_one_with_none_of_these():
    lists, _ = world()
    refiner = create_refiner("mlp", width=16).fit(lists, lists, epochs=1)
    share, none = refiner.probabilities(refiner.refine(lists.candidates, lists.evidence))
    np.testing.assert_allclose(share.sum(1) + none, 1, atol=1e-6)
    assert (np.diff(share, axis=1) <= 1e-9).all()


def test_none_rises_where_lists_miss_the_truth():
    lists, _ = world(count=80)
    empty = lists._replace(share=np.zeros_like(lists.share))
    sure = create_refiner("mlp", width=16).fit(lists, epochs=4, learning_rate=1e-2)
    unsure = create_refiner("mlp", width=16).fit(empty, epochs=4, learning_rate=1e-2)
    none = [r.probabilities(r.refine(lists.candidates, lists.evidence))[1].mean() for r in (sure, unsure)]
    assert none[1] > none[0]


@pytest.mark.parametrize("name", ["gnn", "cmpc", "mlp_without_xy"])
def test_a_saved_refiner_scores_the_same(name, tmp_path):
    lists, _ = world()
    refiner = create_refiner(name, width=16).fit(lists, epochs=1)
    refiner.save(tmp_path / "refiner.safetensors")
    loaded = type(refiner).load(tmp_path / "refiner.safetensors")
    for before, after in zip(*(r.answers(lists.candidates, lists.evidence) for r in (refiner, loaded)), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (loaded.none, loaded.temperature) == (refiner.none, refiner.temperature)


def test_asking_before_learning_says_so():
    lists, _ = world()
    with pytest.raises(ValueError, match="has learned nothing"):
        create_refiner("gnn").refine(lists.candidates, lists.evidence)


def test_joined_lists_keep_to_their_own_gallery():
    a, _ = world(seed=0)
    b, _ = world(side=6, seed=1)
    both = joined([a, b])
    assert both.candidates.indices[: len(a.share)].max() < len(a.evidence.reference)
    assert both.candidates.indices[len(a.share) :].min() >= len(a.evidence.reference)
    refiner = create_refiner("gnn", width=16).fit(both, epochs=1)
    scores, _ = refiner.answers(both.candidates, both.evidence)
    alone, _ = refiner.answers(b.candidates, b.evidence)
    np.testing.assert_allclose(scores[len(a.share) :], alone, atol=1e-4)


def test_relisted_shares_follow_their_tiles():
    lists, place = world()
    refined = create_refiner("geographic_vote").refine(lists.candidates, lists.evidence)
    after, again = relisted(lists, refined), lists_of(refined, lists.evidence, place)
    np.testing.assert_allclose(after.share, again.share, atol=1e-6)
    np.testing.assert_allclose(after.shift, again.shift, atol=1e-6)
    with pytest.raises(ValueError, match="do not hold the candidates"):
        relisted(lists, world(seed=5)[0].candidates)


def test_published_network_at_its_own_size():
    """About the 75.6 million parameters that run in the published one (80.7 less 5.1 that never do)."""
    with torch.device("meta"):
        net = NETWORKS["cmpc"](2048, width=2048)
    assert 70e6 < sum(p.numel() for p in net.parameters()) < 100e6


def test_a_network_is_asked_with_the_tile_in_metres():
    """Twice as large a map of twice as large tiles is the same map."""
    lists, net = batch(origin=(0, 0)), network("gnn")
    double = lists._replace(xy=2 * lists.xy, tile_m=200.0)
    with torch.no_grad():
        torch.testing.assert_close(net(lists), net(double))
    assert isinstance(net, GraphNetwork)
