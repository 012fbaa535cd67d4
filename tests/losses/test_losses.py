"""Losses against plain loops, against pytorch-metric-learning, and where a mean has nothing to hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import NTXentLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer

from sarmatch.losses import LOSSES, EmbeddedBatch, create_loss, list_losses, register_loss
from sarmatch.training.config import recipe

#: Those that push negatives away and leave a pair that shares ground alone.
PUSHING = ["batch_hard_triplet", "infonce", "joint_infonce", "semi_hard_triplet", "soft_margin_triplet"]


def batch(size: int, dim: int = 8, seed: int = 0, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    reference = query + noise * torch.randn(size, dim, generator=generator, dtype=torch.float64)
    return F.normalize(query, dim=1), F.normalize(reference, dim=1)


def grid_overlap(size: int, pairs: list[tuple[int, int]]) -> torch.Tensor:
    overlap = torch.eye(size, dtype=torch.float64)
    for i, j in pairs:
        overlap[i, j] = 0.25
    return overlap


def triplet_by_loops(query, reference, alpha, overlap):
    terms = []
    for i in range(len(query)):
        for j in range(len(query)):
            if i == j or overlap[i, j] > 0:
                continue
            d2_neg = float(((query[i] - reference[j]) ** 2).sum())
            for k in (i, j):  # query i has its own reference, reference j its own query
                d2_pos = float(((query[k] - reference[k]) ** 2).sum())
                terms.append(math.log(1 + math.exp(alpha * (d2_pos - d2_neg))))
    return sum(terms) / len(terms)


def infonce_by_loops(query, reference, temperature, smoothing, overlap):
    def one_way(scores, shared):
        losses = []
        for i, row in enumerate(scores):
            kept = [j for j in range(len(row)) if j == i or shared[i][j] <= 0]
            total = sum(math.exp(row[j] / temperature) for j in kept)
            log_p = {j: row[j] / temperature - math.log(total) for j in kept}
            losses.append(-(1 - smoothing) * log_p[i] - smoothing * sum(log_p.values()) / len(kept))
        return sum(losses) / len(losses)

    scores = query @ reference.T
    forth = one_way(scores.tolist(), overlap.tolist())
    return (forth + one_way(scores.T.tolist(), overlap.T.tolist())) / 2


NEIGHBOURS = [(0, 1), (1, 0), (2, 4), (5, 3)]  # the last two in one direction only: a mask is not symmetric


@pytest.mark.parametrize("pairs", [[], NEIGHBOURS])
@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_triplet_is_the_loop(pairs, alpha):
    query, reference = batch(7)
    overlap = grid_overlap(7, pairs)
    loss = create_loss("soft_margin_triplet", alpha=alpha)(EmbeddedBatch(query, reference, overlap=overlap))
    assert loss.item() == pytest.approx(triplet_by_loops(query, reference, alpha, overlap), rel=1e-12)


@pytest.mark.parametrize("pairs", [[], NEIGHBOURS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_infonce_is_the_loop(pairs, smoothing):
    query, reference = batch(7)
    overlap = grid_overlap(7, pairs)
    loss = create_loss("infonce", temperature=0.1, label_smoothing=smoothing)
    expected = infonce_by_loops(query, reference, 0.1, smoothing, overlap)
    assert loss(EmbeddedBatch(query, reference, overlap=overlap)).item() == pytest.approx(expected, rel=1e-12)


def test_infonce_is_ntxent_in_both_directions():
    query, reference = batch(12)
    labels = torch.arange(12)
    oracle = NTXentLoss(temperature=0.07)
    # The clone matters: given one object twice, the oracle takes away each row's own pair and says 0.
    forth = oracle(query, labels, ref_emb=reference, ref_labels=labels.clone())
    back = oracle(reference, labels, ref_emb=query, ref_labels=labels.clone())
    assert create_loss("infonce")(EmbeddedBatch(query, reference)).item() == pytest.approx(
        ((forth + back) / 2).item(), rel=1e-12
    )


def test_infonce_is_not_the_joint_cross_entropy():
    query, reference = batch(12)
    scores = query @ reference.T / 0.07
    others = scores.T[~torch.eye(12, dtype=torch.bool)].view(12, 11)
    joint = F.cross_entropy(torch.cat([scores, others], dim=1), torch.arange(12))
    assert joint.item() > create_loss("infonce")(EmbeddedBatch(query, reference)).item() + 0.1


def test_infonce_smoothing_is_that_of_torch():
    query, reference = batch(9)
    scores, labels = query @ reference.T / 0.07, torch.arange(9)
    expected = sum(F.cross_entropy(s, labels, label_smoothing=0.1) for s in (scores, scores.T)) / 2
    loss = create_loss("infonce", label_smoothing=0.1)(EmbeddedBatch(query, reference))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_triplet_at_alpha_one_half_is_the_margin_free_smooth_triplet():
    query, reference = batch(9)
    labels = torch.arange(9)
    oracle = TripletMarginLoss(
        margin=0,
        smooth_loss=True,
        distance=CosineSimilarity(),
        reducer=MeanReducer(),
        triplets_per_anchor="all",
    )
    forth = oracle(query, labels, ref_emb=reference, ref_labels=labels.clone())
    back = oracle(reference, labels, ref_emb=query, ref_labels=labels.clone())
    loss = create_loss("soft_margin_triplet", alpha=0.5)(
        EmbeddedBatch(query, reference)
    )  # d2 = 2 - 2 cos: alpha counts twice
    assert loss.item() == pytest.approx(((forth + back) / 2).item(), rel=1e-12)


def test_triplet_at_ten_is_the_cosine_form_at_twenty():
    query, reference = batch(9)
    cosine = query @ reference.T
    own, off = cosine.diagonal(), ~torch.eye(9, dtype=torch.bool)
    forth, back = F.softplus(20 * (cosine - own[:, None])), F.softplus(20 * (cosine - own[None, :]))
    expected = (forth[off].mean() + back[off].mean()) / 2
    assert create_loss("soft_margin_triplet")(EmbeddedBatch(query, reference)).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_triplet_with_its_diagonal_is_higher_by_a_constant():
    query, reference = batch(9)
    plain, safa = (create_loss("soft_margin_triplet", include_diagonal=flag) for flag in (False, True))
    assert (safa(EmbeddedBatch(query, reference)) - plain(EmbeddedBatch(query, reference))).item() == pytest.approx(
        math.log(2) / 8, abs=1e-12
    )
    gradients = []
    for loss in (plain, safa):
        leaf = query.clone().requires_grad_()
        loss(EmbeddedBatch(leaf, reference)).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", PUSHING)
def test_a_false_negative_leaves_no_trace(name):
    """A masked pair may not reach the gradient: with one negative left, only that one pushes."""
    query, reference = batch(2)
    leaf = query.clone().requires_grad_()
    loss = create_loss(name, **({"margin": 4.0} if name == "batch_hard_triplet" else {}))  # none is easy
    loss(EmbeddedBatch(leaf, reference, overlap=grid_overlap(2, [(0, 1)]))).backward()
    free = leaf.grad.clone()
    leaf.grad = None
    loss(EmbeddedBatch(leaf, reference)).backward()
    assert not torch.allclose(free, leaf.grad)
    # Query 0 has no negative as an anchor; the pull on it comes from reference 0 as an anchor alone.
    moved = reference.clone()
    moved[1] = -moved[1]
    leaf.grad = None
    loss(EmbeddedBatch(leaf, moved, overlap=grid_overlap(2, [(0, 1)]))).backward()
    torch.testing.assert_close(leaf.grad[0], free[0])
    assert not torch.allclose(leaf.grad[1], free[1])


@pytest.mark.parametrize("name", PUSHING)
def test_unknown_overlap_is_no_negative(name):
    query, reference = batch(4)
    known, unknown = grid_overlap(4, [(0, 1)]), grid_overlap(4, [])
    unknown[0, 1] = math.nan
    loss = create_loss(name)
    assert loss(EmbeddedBatch(query, reference, overlap=unknown)) == loss(
        EmbeddedBatch(query, reference, overlap=known)
    )


OPTIONS = [
    ("soft_margin_triplet", {}),
    ("soft_margin_triplet", {"include_diagonal": True}),
    ("infonce", {}),
    ("infonce", {"label_smoothing": 0.1, "learnable_temperature": True}),
    ("joint_infonce", {"temperature": 0.07}),
    ("batch_hard_triplet", {}),
    ("semi_hard_triplet", {}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@pytest.mark.parametrize(("size", "masked"), [(1, False), (1, True), (3, True)])
def test_nothing_to_push_away_is_zero_with_a_gradient(name, options, size, masked):
    query, reference = (z.requires_grad_() for z in batch(size))
    overlap = torch.ones(size, size) if masked else None
    loss = create_loss(name, **options)(EmbeddedBatch(query, reference, overlap=overlap))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(query.grad, torch.zeros_like(query))
    assert torch.equal(reference.grad, torch.zeros_like(reference))


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_gradients_are_those_of_finite_differences(name, options):
    query, reference = (z.requires_grad_() for z in batch(4, dim=3))
    loss = create_loss(name, **options).double()
    overlap = grid_overlap(4, [(0, 1), (2, 3)])
    assert torch.autograd.gradcheck(lambda q, r: loss(EmbeddedBatch(q, r, overlap=overlap)), (query, reference))


@pytest.mark.parametrize("name", [*PUSHING, "soft_label_infonce"])
def test_order_within_the_batch_and_direction_mean_nothing(name):
    query, reference = batch(6)
    overlap = grid_overlap(6, NEIGHBOURS)
    loss, order = create_loss(name), torch.tensor([3, 1, 5, 0, 4, 2])
    value = loss(EmbeddedBatch(query, reference, overlap=overlap))
    torch.testing.assert_close(
        value, loss(EmbeddedBatch(query[order], reference[order], overlap=overlap[order][:, order]))
    )
    torch.testing.assert_close(value, loss(EmbeddedBatch(reference, query, overlap=overlap.T)))


@pytest.mark.parametrize("name", [*PUSHING, "soft_label_infonce"])
def test_better_pairs_cost_less(name):
    values = [create_loss(name)(EmbeddedBatch(*batch(8, noise=noise))).item() for noise in (0.2, 1.0, 10.0)]
    assert values == sorted(values)
    assert values[0] < 0.5 * values[2]


@pytest.mark.parametrize("name", [*PUSHING, "soft_label_infonce"])
def test_half_precision_keeps_the_value(name):
    """Under autocast the cosine stays in float32: near-equal pairs would else round to one bfloat16 value."""
    query, reference = (z.float() for z in batch(16, noise=0.05))
    loss = create_loss(name)
    exact = loss(EmbeddedBatch(query, reference))
    assert exact.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (query @ reference.T).dtype == torch.bfloat16  # the control: autocast is on
        torch.testing.assert_close(loss(EmbeddedBatch(query, reference)), exact)


def test_learned_temperature_starts_where_told_and_moves():
    loss = create_loss("infonce", temperature=0.2, learnable_temperature=True).double()
    query, reference = batch(8)
    assert loss(EmbeddedBatch(query, reference)).item() == pytest.approx(
        create_loss("infonce", temperature=0.2)(EmbeddedBatch(query, reference)).item(), rel=1e-6
    )
    (scale,) = loss.parameters()
    loss(EmbeddedBatch(query, reference)).backward()
    assert scale.grad.abs() > 1e-3
    assert list(create_loss("infonce").parameters()) == []


def test_registry_names_what_it_knows():
    assert list_losses() == sorted(LOSSES)
    with pytest.raises(ValueError, match="'tripplet'.*infonce.*soft_margin_triplet"):
        create_loss("tripplet")
    with pytest.raises(ValueError, match="margin"):
        create_loss("infonce", margin=1)


@pytest.fixture
def own_names():
    """Losses registered in a test are gone after it."""
    before = dict(LOSSES)
    yield
    LOSSES._things = before


def test_a_loss_of_ones_own_is_a_class_and_a_name(own_names):
    @register_loss("own")
    class Own(torch.nn.Module):
        def __init__(self, feature_dim, scale=1.0):
            super().__init__()
            self.scale = scale * feature_dim

        def forward(self, batch):
            return self.scale * (1 - (batch.query * batch.reference).sum(1)).mean()

    query, reference = batch(5)
    loss = create_loss("own", 8, scale=2.0)
    expected = 16 * sum(1 - float(q @ r) for q, r in zip(query, reference, strict=True)) / 5
    assert loss(EmbeddedBatch(query, reference)).item() == pytest.approx(expected, rel=1e-12)
    assert "own" in list_losses()
    assert create_loss("infonce", 8).temperature == 0.07  # one that has no use for the size is not given it


def test_a_loss_that_remembers_its_pairs_needs_nothing_but_the_batch(own_names):
    """A mining pool: the references of earlier batches are negatives too, unless they are the same pair's."""

    @register_loss("pool")
    class Pool(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = {}

        def forward(self, batch):
            older = [z for number, z in self.kept.items() if number not in batch.sample.tolist()]
            self.kept |= dict(zip(batch.sample.tolist(), batch.reference.detach(), strict=True))
            return (batch.query @ torch.stack(older).T).mean() if older else 0 * batch.query.sum()

    loss, (query, reference) = create_loss("pool"), batch(4)
    assert loss(EmbeddedBatch(query[:2], reference[:2], sample=torch.tensor([7, 3]))) == 0
    value = loss(EmbeddedBatch(query[2:], reference[2:], sample=torch.tensor([3, 5])))
    assert value.item() == pytest.approx(float((query[2:] @ reference[0]).mean()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("infonce", {"temperature": 0.0}, "temperature.*0.0"),
        ("infonce", {"label_smoothing": 1.0}, "label_smoothing.*1.0"),
        ("soft_margin_triplet", {"alpha": -1}, "alpha.*-1"),
        ("semi_hard_triplet", {"alpha": 0}, "alpha.*0"),
        ("batch_hard_triplet", {"margin": 0}, "margin.*0"),
        ("joint_infonce", {"temperature": -1}, "temperature.*-1"),
        ("soft_label_infonce", {"temperature": 0}, "temperature.*0"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_loss(name, **options)


@pytest.mark.parametrize("name", PUSHING)
def test_bad_shapes_are_named(name):
    query, reference = batch(4)
    loss = create_loss(name)
    with pytest.raises(ValueError, match=r"\(4, 8\) and \(3, 8\)"):
        loss(EmbeddedBatch(query, reference[:3]))
    with pytest.raises(ValueError, match=r"\(0, 8\)"):
        loss(EmbeddedBatch(query[:0], reference[:0]))
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4,\)"):
        loss(EmbeddedBatch(query, reference, overlap=torch.ones(4)))


def negatives_of(i: int, overlap: torch.Tensor) -> list[int]:
    return [j for j in range(len(overlap)) if j != i and overlap[i, j] <= 0]


def squared(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b) ** 2).sum())


@pytest.mark.parametrize("pairs", [[], NEIGHBOURS])
def test_batch_hard_is_the_loop(pairs):
    query, reference = batch(7)
    overlap = grid_overlap(7, pairs)
    terms = []
    for anchors, others, shared in ((query, reference, overlap), (reference, query, overlap.T)):
        for i in range(7):
            near = min(squared(anchors[i], others[j]) for j in negatives_of(i, shared))
            terms.append(max(0.0, squared(anchors[i], others[i]) - near + 0.5))
    loss = create_loss("batch_hard_triplet", margin=0.5)(EmbeddedBatch(query, reference, overlap=overlap))
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_batch_hard_is_that_of_pytorch_metric_learning():
    query, reference = batch(9)
    labels = torch.arange(9)
    miner = BatchHardMiner(distance=LpDistance(power=2))
    oracle = TripletMarginLoss(margin=0.5, distance=LpDistance(power=2), reducer=MeanReducer())
    values = []
    for anchors, others in ((query, reference), (reference, query)):
        found = miner(anchors, labels, others, labels.clone())
        values.append(oracle(anchors, labels, found, others, labels.clone()).item())
    assert create_loss("batch_hard_triplet")(EmbeddedBatch(query, reference)).item() == pytest.approx(
        sum(values) / 2, rel=1e-9
    )


@pytest.mark.parametrize("pairs", [[], NEIGHBOURS])
@pytest.mark.parametrize("size", [7, 9])
def test_semi_hard_is_the_loop(pairs, size):
    query, reference = batch(size)
    overlap = grid_overlap(size, pairs)
    terms = []
    for anchors, others, shared in ((query, reference, overlap), (reference, query, overlap.T)):
        for i in range(size):
            near = sorted(squared(anchors[i], others[j]) for j in negatives_of(i, shared))
            for distance in near[: int(math.sqrt(size))]:
                terms.append(math.log(1 + math.exp(10 * (squared(anchors[i], others[i]) - distance))))
    loss = create_loss("semi_hard_triplet")(EmbeddedBatch(query, reference, overlap=overlap))
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-10)


@pytest.mark.parametrize("pairs", [[], NEIGHBOURS])
def test_joint_infonce_is_the_loop(pairs):
    query, reference = batch(7)
    overlap = grid_overlap(7, pairs)
    scores, terms = (query @ reference.T / 0.1).tolist(), []
    for i in range(7):
        against = [scores[i][j] for j in negatives_of(i, overlap)] + [scores[j][i] for j in negatives_of(i, overlap.T)]
        terms.append(math.log(math.exp(scores[i][i]) + sum(map(math.exp, against))) - scores[i][i])
    loss = create_loss("joint_infonce", temperature=0.1)(EmbeddedBatch(query, reference, overlap=overlap))
    assert loss.item() == pytest.approx(sum(terms) / 7, rel=1e-12)


def test_soft_labels_are_the_loop():
    query, reference = batch(6)
    overlap = grid_overlap(6, [(0, 1), (0, 2), (3, 4)])
    overlap[0, 0] = 0.5
    scores = query @ reference.T / 0.1
    terms = []
    for side, shared in ((scores, overlap), (scores.T, overlap.T)):
        for i in range(6):
            log_p = side[i] - math.log(sum(math.exp(v) for v in side[i].tolist()))
            shares = shared[i] / shared[i].sum()
            terms.append(-sum(float(w * v) for w, v in zip(shares, log_p, strict=True)))
    loss = create_loss("soft_label_infonce", temperature=0.1)(EmbeddedBatch(query, reference, overlap=overlap))
    assert loss.item() == pytest.approx(sum(terms) / 12, rel=1e-12)


def test_soft_labels_without_neighbours_are_hard_ones():
    query, reference = batch(6)
    expected = create_loss("infonce")(EmbeddedBatch(query, reference)).item()
    loss = create_loss("soft_label_infonce")
    assert loss(EmbeddedBatch(query, reference)).item() == pytest.approx(expected, rel=1e-12)
    assert loss(EmbeddedBatch(query, reference, overlap=0.7 * torch.eye(6))).item() == pytest.approx(
        expected, rel=1e-12
    )
    nothing = torch.zeros(6, 6)  # shuffled pairs share no ground with themselves
    assert loss(EmbeddedBatch(query, reference, overlap=nothing)).item() == pytest.approx(expected, rel=1e-12)


def test_the_semi_positive_ratio_is_the_loop():
    query, reference = batch(5, noise=0.3)
    overlap = grid_overlap(5, [(0, 1), (2, 3)])
    scores, terms = query @ reference.T, []
    for i, j in ((0, 1), (2, 3)):
        iou = 0.25 / (2 - 0.25)
        terms.append((float(scores[i, j]) / max(float(scores[i, i]), 0.1) - iou) ** 2)
    loss = create_loss("iou_semi_positive")
    assert loss(EmbeddedBatch(query, reference, overlap=overlap)).item() == pytest.approx(sum(terms) / 2, rel=1e-9)
    assert loss(EmbeddedBatch(query, reference, overlap=torch.eye(5))).item() == 0
    with pytest.raises(ValueError, match="needs overlap"):
        loss(EmbeddedBatch(query, reference))


def test_the_hybrid_loss_of_vigor_is_its_three_published_terms():
    """Triplets weighted by 10, semi-positives over 10, offsets in half tiles over 100; the recipe's weights."""
    query, reference = batch(5, noise=0.3)
    offset = torch.rand(5, 2, generator=torch.Generator().manual_seed(2), dtype=query.dtype) - 0.5  # tile widths
    overlap = grid_overlap(5, [(0, 1), (2, 3)])
    head = create_loss("offset_regression", query.shape[1], width=6).to(query.dtype)
    squared_distance = 2 - 2 * query @ reference.T
    triplets, semi, offsets = 0.0, [], []
    for i in range(5):
        for j in range(5):
            if not (i != j and overlap[i, j] > 0):
                for own in (squared_distance[i, i], squared_distance[j, j]):
                    triplets += math.log1p(math.exp(10 * (own - squared_distance[i, j])))
        delta = 2 * head.head(torch.cat([query[i], reference[i]]))  # of 320 px, half a tile
        offsets.append(float((delta - 2 * offset[i]).square().sum()))
    for i, j in ((0, 1), (2, 3)):
        ratio = (2 - squared_distance[i, j]) / (2 - squared_distance[i, i]).clamp(min=0.2)
        semi.append(float(ratio - 0.25 / 1.75) ** 2)
    kept = 5 * 4 - 2
    published = triplets / (2 * kept) + sum(semi) / 2 / 10 + sum(offsets) / 5 / 100
    config = recipe("vigor_hybrid")
    given = EmbeddedBatch(query, reference, overlap, offset)
    value = create_loss(config.loss, **config.loss_options)(given)
    parts = {"iou_semi_positive": create_loss("iou_semi_positive"), "offset_regression": head}
    value = value + sum(weight * parts[name](given) for name, weight in config.auxiliary.items())
    assert value.item() == pytest.approx(published, rel=1e-9)


def test_the_semi_positive_ratio_is_zero_where_similarity_is_proportional():
    iou = 0.25 / 1.75
    query = torch.eye(3, dtype=torch.float64)
    reference = query.clone()
    reference[1] = torch.tensor([iou, math.sqrt(1 - iou**2), 0.0])
    query[1] = reference[1]
    loss = create_loss("iou_semi_positive")(EmbeddedBatch(query, reference, overlap=grid_overlap(3, [(0, 1)])))
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_offsets_are_learnt_where_features_hold_them():
    torch.manual_seed(0)
    offset = torch.rand(256, 2) - 0.5
    features = F.normalize(torch.cat([offset, torch.ones(256, 1)], dim=1), dim=1)
    blank = F.normalize(torch.ones(256, 3), dim=1)
    loss = create_loss("offset_regression", 3, width=32)
    with pytest.raises(ValueError, match=r"needs offset \(256, 2\), got None"):
        loss(EmbeddedBatch(features, blank))
    expected = ((loss.head(torch.cat([features, blank], 1)) - offset) ** 2).mean().item()
    assert loss(EmbeddedBatch(features, blank, offset=offset)).item() == pytest.approx(expected, rel=1e-6)
    longer = (3 * features, 0.5 * blank)  # where embeddings have a length, the head reads it
    expected = ((loss.head(torch.cat(longer, 1)) - offset) ** 2).mean().item()
    told = EmbeddedBatch(features, blank, offset=offset, vectors=longer)
    assert loss(told).item() == pytest.approx(expected, rel=1e-6)
    values = {}
    for name, cloud in (("told", features), ("blind", blank)):
        model = create_loss("offset_regression", 3, width=32)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            value = model(EmbeddedBatch(cloud, blank, offset=offset))
            value.backward()
            optimizer.step()
        values[name] = value.item()
    assert values["told"] < 0.01 * values["blind"]
