"""Networks over lists: equivariance, edge cases, what they can and cannot learn, and that nothing is lost on disk."""

import numpy as np
import pytest
import torch

from sarmatch.patches import pair_overlap
from sarmatch.refinement import (
    NETWORKS,
    REFINERS,
    LabelledLists,
    LearnedRefiner,
    ListBatch,
    RefinementContext,
    create_refiner,
    label_lists,
    list_refiners,
    network_inputs,
    register_network,
    reorder_labels,
)
from sarmatch.refinement.inputs import concatenated, middle_of_list
from sarmatch.refinement.learned import listwise_loss, place_loss, refiner_loss
from sarmatch.refinement.networks import GraphNetwork, RefinerOutput
from sarmatch.search import Candidates, Gallery
from sarmatch.training.joint import FAR, RefinerLoss
from tests.refinement.worlds import context_of, grid, unit, world

STABLE = [n for n in NETWORKS if n not in ("gnn_random", "gnn_shuffled", "gnn_permuted", "surface")]


def batch(count=3, size=7, dim=16, seed=0, origin=(5e5, 5.7e6), spacing=100):
    rng = np.random.default_rng(seed)
    return ListBatch(
        torch.from_numpy(rng.normal(size=(count, size)).astype(np.float32)),
        torch.from_numpy(unit(rng.normal(size=(count, dim)))),
        torch.from_numpy(unit(rng.normal(size=(count, size, dim)))),
        torch.from_numpy(np.array(origin) + spacing * rng.integers(0, 5, (count, size, 2)).astype(np.float64)),
        torch.zeros(count, size, dtype=torch.int64),
        100.0,
        torch.from_numpy(rng.normal(size=(count, size, 9, 9)).astype(np.float32)),
    )


def network(name, dim=16):
    """With a last layer that is not zero, as it is before training."""
    torch.manual_seed(0)
    net = NETWORKS[name].build(dim, width=16).eval()
    for module in net.modules():
        if hasattr(module, "log_sharpness"):
            torch.nn.init.normal_(module.out.weight)
    return net


@pytest.mark.parametrize("name", [*STABLE, "surface"])
def test_scores_follow_the_nodes(name):
    lists, order = batch(), torch.tensor([3, 0, 6, 2, 1, 5, 4])
    moved = lists._replace(**{f: getattr(lists, f)[:, order] for f in ("score", "reference", "xy", "area", "surface")})
    net = network(name)
    with torch.no_grad():
        for after, before in zip(net(moved), net(lists), strict=True):
            if before is not None:
                torch.testing.assert_close(after, before[:, order], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", STABLE)
def test_lists_do_not_hear_each_other(name):
    lists, net = batch(count=4), network(name)
    alone = lists._replace(**{f: getattr(lists, f)[2:3] for f in ("score", "query", "reference", "xy", "area")})
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
        return [p.shape for p in NETWORKS[name].build(128).parameters()]

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
    assert sum(p.numel() for p in NETWORKS[name].build(128).parameters()) < 1_000_000


def test_a_refiner_that_has_learned_nothing_leaves_the_order_alone():
    for name in ("mlp", "gnn", "deepsets", "attention"):
        lists = batch()
        answer = NETWORKS[name].build(16, width=16).eval()(lists)
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
    refiner = create_refiner("gnn", width=32, dropout=0.0).fit([train], epochs=15, learning_rate=3e-3)
    refined = refiner.refine(test.candidates, test.context)
    centres = test.context.gallery.xy[refined.tile[:, 0]]
    told, centre = (np.median(np.hypot(*(xy - place).T)) for xy in (refined.xy[:, 0], centres))
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
    context = context_of(unit(rng.normal(size=(count, dim))), unit(rng.normal(size=(25, dim))), positions)
    scores = np.take_along_axis(scores, order, 1).astype(np.float32)
    candidates = Candidates(scores, positions[order], tile=order)
    share = (order == target[:, None]).astype(np.float32)
    shift = (positions[target][:, None] - candidates.xy) / 100
    return LabelledLists(candidates, context, share, shift.astype(np.float32)), target


@pytest.mark.slow
def test_a_graph_learns_what_only_neighbours_tell_and_a_perceptron_cannot():
    train, _ = ground_world(0, 600)
    test, target = ground_world(1)
    found = {}
    for name in ("gnn", "gnn_self_loops", "gnn_shuffled"):
        refiner = create_refiner(name, width=32, dropout=0.0).fit([train], epochs=12, learning_rate=3e-3)
        found[name] = (refiner.refine(test.candidates, test.context).tile[:, 0] == target).mean()
    assert found["gnn"] > found["gnn_self_loops"] + 0.15
    assert found["gnn"] > found["gnn_shuffled"] + 0.15


def test_shuffled_targets_teach_nothing():
    train, _ = ground_world(0, 600)
    rng = np.random.default_rng(5)
    wrong = train._replace(overlap=rng.permuted(train.overlap, axis=1))
    test, target = ground_world(1)
    refined = create_refiner("gnn", width=32).fit([wrong], epochs=4).refine(test.candidates, test.context)
    coarse = (test.candidates.tile[:, 0] == target).mean()
    assert (refined.tile[:, 0] == target).mean() < coarse + 0.1


def test_fit_is_repeatable_and_chooses_its_epoch_on_validation():
    lists, _ = world(count=60)
    other, _ = world(count=30, seed=1)
    seen = []
    fits = [
        create_refiner("gnn", width=16).fit([lists], [other], epochs=3, seed=4, report=lambda *row: seen.append(row))
        for _ in range(2)
    ]
    first, second = (f.answers(other.candidates, other.context) for f in fits)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert len(seen) == 6
    scores, none = torch.from_numpy(first[0]), torch.tensor(fits[0].none)
    chosen = listwise_loss(scores, none, torch.from_numpy(other.overlap)).item()
    assert chosen == pytest.approx(min(row[2] for row in seen[:3]), abs=1e-5)


def test_probabilities_sum_to_one_with_none_of_these():
    lists, _ = world()
    refiner = create_refiner("mlp", width=16).fit([lists], [lists], epochs=1)
    share, none = refiner.probabilities(refiner.refine(lists.candidates, lists.context))
    np.testing.assert_allclose(share.sum(1) + none, 1, atol=1e-6)
    assert (np.diff(share, axis=1) <= 1e-9).all()


def test_none_rises_where_lists_miss_the_truth():
    lists, _ = world(count=80)
    empty = lists._replace(overlap=np.zeros_like(lists.overlap))
    sure = create_refiner("mlp", width=16).fit([lists], epochs=4, learning_rate=1e-2)
    unsure = create_refiner("mlp", width=16).fit([empty], epochs=4, learning_rate=1e-2)
    none = [r.probabilities(r.refine(lists.candidates, lists.context))[1].mean() for r in (sure, unsure)]
    assert none[1] > none[0]


@pytest.mark.parametrize("name", ["gnn", "cmpc", "mlp_without_xy"])
def test_a_saved_refiner_scores_the_same(name, tmp_path):
    lists, _ = world()
    refiner = create_refiner(name, width=16).fit([lists], epochs=1)
    refiner.save(tmp_path / "refiner.safetensors")
    loaded = type(refiner).load(tmp_path / "refiner.safetensors")
    for before, after in zip(*(r.answers(lists.candidates, lists.context) for r in (refiner, loaded)), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (loaded.none, loaded.temperature) == (refiner.none, refiner.temperature)


def test_asking_before_learning_says_so():
    lists, _ = world()
    with pytest.raises(ValueError, match="has learned nothing"):
        create_refiner("gnn").refine(lists.candidates, lists.context)


def test_parts_of_several_galleries_are_learned_from_together():
    """Each part is seen against its own gallery, and asking it alone gives the same answer."""
    a, _ = world(seed=0)
    b, _ = world(side=6, seed=1)
    together = concatenated([network_inputs(part.candidates, part.context) for part in (a, b)])
    for field, alone in zip(together, network_inputs(b.candidates, b.context), strict=True):
        if isinstance(field, torch.Tensor):
            torch.testing.assert_close(field[len(a.overlap) :], alone, atol=0, rtol=0)
    refiner = create_refiner("gnn", width=16).fit([a, b], epochs=1)
    scores, _ = refiner._scored(together)
    alone, _ = refiner.answers(b.candidates, b.context)
    np.testing.assert_allclose(scores[len(a.overlap) :], alone, atol=1e-4)
    shorter = world(k=5)[0]
    with pytest.raises(ValueError, match="one length, embedding and tile size"):
        create_refiner("gnn", width=16).fit([a, shorter], epochs=1)


def test_reordered_labels_follow_their_tiles():
    lists, place = world()
    refined = create_refiner("geographic_vote").refine(lists.candidates, lists.context)
    after, again = reorder_labels(lists, refined), label_lists(refined, lists.context, place)
    np.testing.assert_allclose(after.overlap, again.overlap, atol=1e-6)
    np.testing.assert_allclose(after.shift, again.shift, atol=1e-6)
    assert after.candidates is refined
    with pytest.raises(ValueError, match="do not hold the candidates"):
        reorder_labels(lists, world(seed=5)[0].candidates)
    with pytest.raises(ValueError, match="do not hold the candidates"):
        reorder_labels(lists, lists.candidates.first(3))


def test_published_network_at_its_own_size():
    """As many parameters as run in the released one: 80,660,545 less 5,064,768 that never do."""
    with torch.device("meta"):
        net = NETWORKS["cmpc"].build(2048)
    assert sum(p.numel() for p in net.parameters()) == 80_660_545 - 5_064_768 == 75_595_777


def test_votes_of_the_published_network_learn_what_its_scores_learn():
    lists, net = batch(), network("cmpc")
    fraction, none = torch.eye(7)[:3], torch.tensor(0.3)
    output = net(lists)
    alone = listwise_loss(output.score, none, fraction), listwise_loss(output.vote, none, fraction)
    torch.testing.assert_close(refiner_loss(output, none, fraction, torch.zeros(3, 7, 2)), sum(alone))
    (head,) = torch.autograd.grad(refiner_loss(output, none, fraction, torch.zeros(3, 7, 2)), [net.vote.weight])
    assert head.abs().max() > 0
    with torch.no_grad():
        net.vote.weight += 1
        torch.testing.assert_close(net(lists).score, output.score)


def test_the_published_network_learns_from_a_single_candidate():
    """The released one stops at a batch of one."""
    net, lists = network("cmpc").train(), batch(count=1, size=1)
    refiner_loss(net(lists), torch.tensor(0.0), torch.ones(1, 1), torch.zeros(1, 1, 2)).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.vote.weight.grad.abs().max() > 0


def test_the_shortcut_of_the_published_network_adds_each_node_its_own_score():
    lists, net = batch(), network("cmpc")
    with torch.no_grad():
        before = net(lists).score
        net.shortcut = True
        torch.testing.assert_close(net(lists).score - before, lists.score / net.temperature)


def test_a_network_is_asked_with_the_tile_in_metres():
    """Twice as large a map of twice as large tiles is the same map."""
    lists, net = batch(origin=(0, 0)), network("gnn")
    double = lists._replace(xy=2 * lists.xy, tile_m=200.0)
    with torch.no_grad():
        torch.testing.assert_close(net(lists), net(double))
    assert isinstance(net, GraphNetwork)


def two_areas(apart: float, count=4, size=8, dim=16, seed=0) -> ListBatch:
    """Lists of candidates in two areas, the second `apart` metres from the first."""
    lists = batch(count, size, dim, seed)
    area = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (count, size)))
    area[:, 0], area[:, 1] = 0, 1
    return lists._replace(area=area, xy=lists.xy + apart * area[..., None] * torch.tensor([1.0, -0.5]))


@pytest.mark.parametrize("name", ["mlp", "mlp_without_xy", "deepsets", "gnn_self_loops", "gnn", "gnn_without_xy"])
def test_how_far_areas_lie_apart_means_nothing(name):
    """A network without edges between them gives the same scores when one area is moved a thousand kilometres."""
    net = network(name)
    with torch.no_grad():
        near, far = net(two_areas(1e4)), net(two_areas(1e6))
    torch.testing.assert_close(near.score, far.score, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(near.shift, far.shift, atol=1e-4, rtol=1e-4)


def test_the_middle_of_a_list_is_that_of_its_area_against_plain_loops():
    lists = two_areas(1e5)
    relative = torch.from_numpy(np.random.default_rng(1).normal(size=lists.score.shape).astype(np.float32))
    found = middle_of_list(lists, relative)
    for q in range(len(relative)):
        for k in range(relative.shape[1]):
            own = [j for j in range(relative.shape[1]) if lists.area[q, j] == lists.area[q, k]]
            weight = np.exp(relative[q, own].double().numpy())
            expected = (weight[:, None] * lists.xy[q, own].numpy()).sum(0) / weight.sum()
            np.testing.assert_allclose(found[q, k], expected, atol=1e-6)


def test_inputs_are_those_of_the_candidates():
    """Against plain look-ups, whatever the area, and in the gallery's own axes."""
    lists, _ = world(count=5)
    candidates, context = lists.candidates, lists.context
    area = np.arange(60).reshape(5, 12) % 2
    inputs = network_inputs(
        Candidates(candidates.scores, candidates.xy, area, ("a", "b"), tile=candidates.tile), context
    )
    query, reference = context.whitened
    for q, k in np.ndindex(5, 12):
        assert inputs.score[q, k] == candidates.scores[q, k]
        np.testing.assert_array_equal(inputs.reference[q, k], reference[candidates.tile[q, k]])
        np.testing.assert_array_equal(inputs.xy[q, k], context.gallery.xy[candidates.tile[q, k]])
        assert inputs.area[q, k] == area[q, k]
    np.testing.assert_array_equal(inputs.query, query)
    assert inputs.xy.dtype == torch.float64
    assert inputs.tile_m == 100
    assert inputs.surface is None


def training_batch(count=12, dim=16, size=40, areas=3, seed=0):
    rng = np.random.default_rng(seed)
    place = np.concatenate([rng.integers(0, 400, (count, 4)), rng.integers(0, areas, (count, 1)) + 4], 1)
    vectors = [torch.from_numpy(unit(rng.normal(size=(count, dim)))) for _ in range(2)]
    return *vectors, torch.from_numpy(place)


def test_a_refiner_trained_along_sees_what_it_will_see_in_use():
    """The inputs that a batch makes are those that `network_inputs` makes of its candidates and of a gallery."""
    count, memory, size = 12, 20, 40
    loss = RefinerLoss(LearnedRefiner("mlp", width=16), 16, size, memory=memory)
    earlier, (query, reference, place) = training_batch(seed=1), training_batch(seed=2)
    for part in (earlier, (query, reference, place)):
        loss(*part)
    recent = [torch.cat([old, new])[-memory:].numpy() for old, new in zip(earlier, (query, reference), strict=False)]
    centre = np.stack([place[:, 3] + FAR * place[:, 4], -place[:, 2]], 1).astype(np.float64)
    gallery = Gallery.of_vectors(recent[1], tile_m=float(size))
    context = RefinementContext(gallery, query.numpy(), recent[0].mean(0))
    names, code = np.unique(place[:, 4], return_inverse=True)
    candidates = Candidates(
        (query @ reference.T).numpy(),
        np.repeat(centre[None], count, 0),
        np.repeat(code[None], count, 0),
        tuple(map(str, names)),
        tile=np.repeat(np.arange(memory - count, memory)[None], count, 0),
    )
    expected, found = network_inputs(candidates, context), loss.inputs(query, reference, place)
    for name in ("score", "query", "reference", "xy", "area"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5)
    assert found.tile_m == expected.tile_m == size


def test_the_memory_holds_back_the_loss_until_it_is_full_and_then_holds_the_last():
    loss = RefinerLoss(LearnedRefiner("gnn", width=16), 16, 40, weight=2.0, memory=30)
    parts = [training_batch(seed=seed) for seed in range(4)]
    values = []
    for query, reference, place in parts:
        query.requires_grad_()
        value = loss(query, reference, place)
        value.backward()
        values.append(value.item())
        assert (query.grad is not None and query.grad.abs().sum() > 0) == (value.item() > 0)
        assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)
    assert values[:2] == [0, 0]  # 12 and 24 of 30
    assert values[2] > 0 < values[3]
    for kept, number in zip(loss.recent, (0, 1), strict=True):
        torch.testing.assert_close(kept, torch.cat([part[number].detach() for part in parts])[-30:])
    assert {"recent", "filled"} <= set(loss.state_dict())  # an interrupted training goes on with it


def test_the_targets_of_a_batch_are_its_overlaps():
    """A network that knows the answer has the smallest loss there is: the entropy of the targets."""
    query, reference, place = training_batch(count=10, areas=1)
    place[:, 2:4] = place[:, :2] + 5  # every query overlaps its own reference
    loss = RefinerLoss(LearnedRefiner("mlp", width=16), 16, 40, memory=10)
    target = pair_overlap(place, 40)
    target = target / target.sum(1, keepdim=True).clamp(min=1)
    everything = torch.cat([target, 1 - target.sum(1, keepdim=True)], 1).clamp(min=1e-9)
    shift = (place[:, None, :2] - place[None, :, 2:4]).flip(-1) * torch.tensor([1.0, -1.0]) / 40

    class Oracle(torch.nn.Module):
        def forward(self, batch, seed=0):
            order = (batch.xy[:, :, None] - _corner_xy(place)[None, None]).abs().sum(-1).argmin(2)
            logits = everything.log().gather(1, order) - everything.log()[:, -1:]
            return RefinerOutput(logits, shift.gather(1, order[..., None].expand(-1, -1, 2)).clamp(-0.5, 0.5))

    loss.network = Oracle()
    expected = -(everything * everything.log()).sum(1).mean()
    assert loss(query, reference, place).item() == pytest.approx(expected.item(), abs=1e-4)


def _corner_xy(place: torch.Tensor) -> torch.Tensor:
    return torch.stack([place[:, 3] + FAR * place[:, 4], -place[:, 2].double()], 1)


def test_learning_leaves_the_callers_random_state_alone():
    lists, _ = world(count=20)
    for seed in (0, 7):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002 - the global state is what is looked at
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        create_refiner("gnn", width=16).fit([lists], [lists], epochs=1, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_a_saved_refiner_keeps_its_feature_dim_and_an_old_file_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    lists, _ = world(dim=24)
    path = tmp_path / "refiner.safetensors"
    create_refiner("mlp", width=16).fit([lists], epochs=1).save(path)
    assert LearnedRefiner.load(path).feature_dim == 24
    old = '{"name": "mlp", "resolution": 25, "options": {"width": 16}, "none": 0.0, "temperature": 1.0}'
    save_file(load_file(path), path, {"refiner": old})
    with pytest.raises(ValueError, match=r"refiner.safetensors: .*lacks \['feature_dim'\]; train it anew"):
        LearnedRefiner.load(path)
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="refiner.safetensors: .*'name'"):
        LearnedRefiner.load(path)


def test_a_module_of_a_user_becomes_a_refiner_in_a_cell_that_runs_twice(monkeypatch, tmp_path):
    for registry in (NETWORKS, REFINERS):
        monkeypatch.setattr(registry, "_things", dict(registry._things))
        monkeypatch.setattr(registry, "_origins", dict(registry._origins))

    def cell():
        @register_network("own", requires=("tiles", "vectors"))
        class Own(torch.nn.Module):
            """A factor on the score, and no place."""

            def __init__(self, feature_dim, start=1.0):
                super().__init__()
                self.factor = torch.nn.Parameter(torch.tensor(start))

            def forward(self, batch, seed=0):
                return RefinerOutput(self.factor * batch.score)

        return Own

    cell()
    second = cell()
    assert "own" in list_refiners()
    lists, _ = world(count=80, noise=0.1)
    refiner = create_refiner("own", start=2.0).fit([lists], epochs=2, learning_rate=0.1)
    assert type(refiner.network) is second
    assert refiner.network.factor > 2.1  # the best tiles come first: sharper is better
    assert refiner.requires == ("tiles", "vectors")
    refined = refiner.refine(lists.candidates, lists.context)
    np.testing.assert_array_equal(refined.xy, lists.candidates.xy)  # no places of its own
    refiner.save(tmp_path / "own.safetensors")
    assert LearnedRefiner.load(tmp_path / "own.safetensors").network.factor == refiner.network.factor
    with pytest.raises(ValueError, match="already called 'gnn'"):
        register_network("gnn")(second)
    assert create_refiner("gnn").name == "gnn"


def test_refined_lists_say_where_and_how_likely():
    """Places follow their tile, half a tile from its centre at most; log probabilities follow their candidate."""
    lists, _ = world(count=60)
    refiner = create_refiner("gnn", width=16, dropout=0.0).fit([lists], epochs=4, learning_rate=3e-3)
    scores, places = refiner.answers(lists.candidates, lists.context)
    refined = refiner.refine(lists.candidates, lists.context)
    logits = torch.cat([torch.from_numpy(scores), torch.full((60, 1), refiner.none)], 1)
    log_prob = (logits / refiner.temperature).log_softmax(1).numpy()
    for q in range(60):
        order = [lists.candidates.tile[q].tolist().index(t) for t in refined.tile[q]]
        np.testing.assert_array_equal(refined.scores[q], scores[q, order])
        np.testing.assert_array_equal(refined.xy[q], places[q, order])
        np.testing.assert_allclose(refined.log_prob[q], log_prob[q, [*order, -1]], atol=1e-5)
    apart = np.abs(refined.xy - lists.context.gallery.xy[refined.tile]).max()
    assert 0 < apart <= 50
    with pytest.raises(ValueError, match="no log probabilities"):
        refiner.probabilities(lists.candidates)
