"""Alignments against closed forms, against exact transport, and with the clouds made alike by their own gradient."""

import math

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F

from sarmatch.alignment import ALIGNMENTS, Alignment, create_alignment, fit, list_alignments, register_alignment
from sarmatch.alignment.critics import ReverseGradient, gradient_penalty, lipschitz_bound, mlp
from sarmatch.evaluation import wasserstein

DIM = 4
CRITICS = [name for name in list_alignments() if hasattr(ALIGNMENTS[name](DIM), "critic")]
DISTANCES = ["coral", "mmd", "sinkhorn", "sliced"]


def clouds(shift: float = 1.0, count: int = 256, dim: int = DIM, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two Gaussian clouds whose means are `shift` apart."""
    generator = torch.Generator().manual_seed(seed)
    query, reference = torch.randn(2, count, dim, generator=generator)
    return query + shift * F.normalize(torch.ones(1, dim)), reference


def trained(name: str, shift: float, steps: int = 400, **options):
    torch.manual_seed(0)
    alignment = create_alignment(name, DIM, **options)
    for step in range(steps):
        alignment.critic_step(*clouds(shift, seed=step))
    return alignment


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "penalty"), [(1.0, 10.0), (3.0, 10.0), (3.0, 100.0)])
def test_the_critic_finds_the_shift_of_two_gaussians(shift, penalty):
    """Between N(m, I) and N(0, I) the Wasserstein-1 distance is the length of m.

    A soft penalty lets the slope grow to where ``s |m| - penalty (s - 1)^2`` is largest: ``s = 1 + |m| / (2 penalty)``.
    """
    critic = trained("wasserstein", shift, penalty=penalty, critic_rate=1e-3)
    value = critic.estimate(*clouds(shift, 20_000, seed=-1))
    assert value == pytest.approx(shift * (1 + shift / (2 * penalty)), rel=0.05)


def test_the_critic_never_says_more_than_its_slope_allows():
    """By the dual form: at most the exact distance of the same points times the Lipschitz bound."""
    critic = trained("wasserstein", 1.0, steps=30, critic_rate=1e-3)
    bound = lipschitz_bound(critic.critic)
    for shift in (0.0, 0.5, 2.0):
        query, reference = clouds(shift, 200, seed=7)
        exact = wasserstein(query.numpy(), reference.numpy(), 1)
        assert abs(critic.estimate(query, reference)) <= exact * bound
    assert bound < 50, "a bound that cannot bind tests nothing"


def test_the_bound_is_the_slope_of_a_linear_critic():
    critic = mlp((DIM, 1))
    assert lipschitz_bound(critic) == pytest.approx(float(critic[0].weight.norm()), rel=1e-6)


def test_the_penalty_of_a_linear_critic_is_its_slope_minus_one_squared():
    query, reference = clouds()
    fraction = torch.rand(len(query), 1)
    for length in (1.0, 3.0):
        critic = torch.nn.Linear(DIM, 1)
        with torch.no_grad():
            critic.weight.copy_(length * F.normalize(torch.randn(1, DIM)))
        assert float(gradient_penalty(critic, query, reference, fraction)) == pytest.approx((length - 1) ** 2, abs=1e-5)


def test_the_norm_of_the_penalty_is_taken_per_sample():
    """A critic whose slope is 1 at half of the points and 3 at the others: the mean is (0 + 4) / 2."""
    query = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])

    def critic(z):
        return torch.where(z[:, :1] > 0, z[:, :1], 3 * z[:, :1])

    assert float(gradient_penalty(critic, query, query, torch.zeros(2, 1))) == pytest.approx(2.0)


def test_the_penalty_lies_between_the_clouds():
    seen = []

    def critic(z):
        seen.append(z.detach())
        return z.sum(1, keepdim=True)

    query, reference = clouds(count=8)
    fraction = torch.rand(8, 1)
    gradient_penalty(critic, query, reference, fraction)
    torch.testing.assert_close(seen[0], (1 - fraction) * query + fraction * reference)


@pytest.mark.parametrize("name", [n for n in list_alignments() if n != "none"])
class TestEvery:
    def test_the_encoder_side_brings_the_clouds_together(self, name):
        """Moving the points down the loss makes the exact distance smaller."""
        torch.manual_seed(0)
        alignment = create_alignment(name, DIM, **({"critic_rate": 1e-2} if name in CRITICS else {}))
        query, reference = (z.clone().requires_grad_() for z in clouds(2.0, 64))
        before = wasserstein(query.detach().numpy(), reference.detach().numpy(), 1)
        optimizer = torch.optim.Adam([query, reference], lr=0.02)
        for _ in range(100):
            alignment.critic_step(query, reference)
            optimizer.zero_grad()
            alignment.loss(query, reference).backward()
            optimizer.step()
        assert wasserstein(query.detach().numpy(), reference.detach().numpy(), 1) < 0.8 * before

    def test_who_gets_a_gradient(self, name):
        query, reference = (z.requires_grad_() for z in clouds(count=16))
        alignment = create_alignment(name, DIM)
        alignment.critic_step(query, reference)
        assert query.grad is None
        assert reference.grad is None, "the critic's step reached the encoder"
        weights = [p.clone() for p in alignment.parameters()]
        alignment.loss(query, reference).backward()
        assert reference.grad.abs().sum() > 0
        assert (query.grad is None) == (name == "wasserstein_clipped"), "the published form moves optical samples alone"
        assert all(torch.equal(a, b) for a, b in zip(weights, alignment.parameters(), strict=True))

    def test_only_the_critics_own_gradient_moves_it(self, name):
        """What the encoder's backward pass leaves on the critic's weights must not enter its next step."""
        states = []
        for polluted in (False, True):
            torch.manual_seed(0)
            alignment = create_alignment(name, DIM)
            query, reference = (z.requires_grad_() for z in clouds(count=16))
            if polluted:
                (1000 * alignment.loss(query, reference)).backward()
            torch.manual_seed(1)
            alignment.critic_step(query, reference)
            states.append([p.detach().clone() for p in alignment.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_none_does_nothing():
    query, reference = clouds()
    alignment = create_alignment("none", DIM)
    assert alignment.estimate(query, reference) == 0
    assert float(alignment.loss(query, reference)) == 0
    assert list(alignment.parameters()) == []


class TestClipped:
    def test_weights_stay_within_the_clip(self):
        critic = trained("wasserstein_clipped", 2.0, steps=20)
        largest = max(float(p.abs().max()) for p in critic.critic.parameters())
        assert largest == pytest.approx(0.1, abs=1e-6)

    def test_anchors_are_the_halves_that_are_hard_to_tell(self):
        alignment = create_alignment("wasserstein_clipped", 1)
        alignment.critic = torch.nn.Identity()
        query, reference = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([[-1.0], [0.0], [1.5], [2.5]])
        assert alignment.estimate(query, reference) == pytest.approx((1 + 2) / 2 - (1.5 + 2.5) / 2)
        assert float(alignment.loss(query, reference)) == pytest.approx(-(1.5 + 2.5) / 2)

    @pytest.mark.slow
    def test_its_estimate_is_in_no_known_unit(self):
        """The negative control of the penalty: ten times the clip, another number for the same clouds."""
        values = [trained("wasserstein_clipped", 2.0, steps=60, clip=c).estimate(*clouds(2.0)) for c in (0.1, 1.0)]
        assert values[1] > 5 * values[0]


class TestClassAdversary:
    def test_a_loss_of_one_bit_is_guessing(self):
        torch.manual_seed(0)
        alignment = create_alignment("class_adversary", DIM)
        with torch.no_grad():
            for p in alignment.parameters():
                p.zero_()
        assert float(alignment.loss(*clouds())) == pytest.approx(1.0)
        assert alignment.estimate(*clouds()) == pytest.approx(0.0, abs=1e-6)

    def test_clouds_far_apart_are_told_and_equal_ones_are_not(self):
        far, same = (
            trained("class_adversary", s, steps=200, critic_rate=1e-3).estimate(*clouds(s)) for s in (8.0, 0.0)
        )
        assert far > 0.95
        assert abs(same) < 0.1

    def test_the_gradient_is_reversed(self):
        values = torch.randn(3, requires_grad=True)
        (ReverseGradient.apply(values) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert values.grad.tolist() == [-1.0, -2.0, -3.0]


class TestDistances:
    @pytest.mark.parametrize("name", DISTANCES)
    def test_equal_clouds_are_at_zero(self, name):
        cloud = clouds()[0]
        assert float(create_alignment(name, DIM).loss(cloud, cloud)) == pytest.approx(0, abs=2e-4)

    @pytest.mark.parametrize("name", DISTANCES)
    def test_further_is_more(self, name):
        alignment = create_alignment(name, DIM)
        values = []
        for shift in (0.0, 0.5, 1.0, 2.0):
            torch.manual_seed(0)
            values.append(float(alignment.loss(*clouds(shift))))
        assert values == sorted(values)
        assert all(v >= 0 for v in values)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["coral", "sinkhorn", "sliced"])
    def test_a_pure_shift_costs_its_squared_length(self, name):
        cloud = clouds()[1].double()
        shift = torch.tensor([0.3, -0.4, 0.0, 1.2], dtype=torch.float64)
        options = {"sliced": {"projections": 20_000}, "sinkhorn": {"blur": 0.3, "iterations": 300}}.get(name, {})
        value = float(create_alignment(name, DIM, **options).loss(cloud + shift, cloud))
        assert value == pytest.approx(float(shift.square().sum()), rel=0.02)

    def test_sliced_is_the_sort_along_each_direction(self):
        query, reference = (z[:, :1] for z in clouds(1.0, 50, dim=1))
        value = float(create_alignment("sliced", 1).loss(query, reference))
        assert value == pytest.approx(
            float((query.sort(0).values - reference.sort(0).values).square().mean()), rel=1e-5
        )

    def test_sinkhorn_with_little_blur_is_exact_transport(self):
        query, reference = (z.double() for z in clouds(1.0, 40))
        exact = ot.emd2([], [], ot.dist(query.numpy(), reference.numpy()))
        value = float(create_alignment("sinkhorn", DIM, blur=0.15, iterations=2000).loss(query, reference))
        assert value == pytest.approx(exact, rel=0.05)

    def test_sinkhorns_gradient_is_that_of_its_value(self):
        """The plan is held fixed; by the envelope theorem nothing is lost."""
        query, reference = (z.double() for z in clouds(1.0, 6))
        alignment = create_alignment("sinkhorn", DIM, blur=0.5, iterations=2000)
        leaf = query.clone().requires_grad_()
        alignment.loss(leaf, reference).backward()
        step = torch.zeros_like(query)
        step[2, 1] = 1e-5
        slope = (alignment.loss(query + step, reference) - alignment.loss(query - step, reference)) / 2e-5
        assert float(leaf.grad[2, 1]) == pytest.approx(float(slope), rel=1e-4)

    def test_mmd_is_the_double_loop(self):
        query, reference = (z.double() for z in clouds(1.0, 12))
        both = torch.cat([query, reference])
        gaps = [float((a - b).square().sum()) for i, a in enumerate(both) for j, b in enumerate(both) if i != j]
        width = float(np.sort(gaps)[(len(gaps) - 1) // 2])

        def kernel(a, b):
            return math.exp(-float((a - b).square().sum()) / (2 * width))

        def mean(x, y):
            return sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))

        expected = mean(query, query) + mean(reference, reference) - 2 * mean(query, reference)
        value = float(create_alignment("mmd", DIM, widths=(1.0,)).loss(query, reference))
        assert value == pytest.approx(expected, rel=1e-9)

    def test_coral_sees_means_and_covariances_and_nothing_else(self):
        cloud = clouds(count=4000)[0].double()
        coral = create_alignment("coral", DIM)
        assert float(coral.loss(2 * cloud - cloud.mean(0), cloud)) == pytest.approx(
            9 * float(torch.cov(cloud.T).square().sum()), rel=1e-6
        )
        flat = torch.randint(0, 2, cloud.shape, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
        gauss = torch.linalg.solve(torch.linalg.cholesky(torch.cov(cloud.T)), (cloud - cloud.mean(0)).T).T
        assert float(coral.loss(flat, gauss)) < 0.05, "another shape, the same moments"


@pytest.mark.slow
def test_fitting_to_two_clouds_finds_their_distance_and_leaves_chance_alone():
    query, reference = clouds(1.0, 2000)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    found = fit(create_alignment("wasserstein", DIM, critic_rate=1e-3), query, reference, steps=300)
    torch.manual_seed(5)
    fit(found, query, reference, steps=2)
    assert torch.equal(torch.rand(1), expected)
    assert found.estimate(*clouds(1.0, 2000, seed=1)) == pytest.approx(1.05, rel=0.1)


def test_bad_names_are_named():
    with pytest.raises(ValueError, match="'wasserstien'.*there are .*wasserstein"):
        create_alignment("wasserstien", DIM)
    with pytest.raises(ValueError, match="projections"):
        create_alignment("wasserstein", DIM, projections=3)


def test_an_alignment_of_ones_own_is_a_class_and_a_name():
    @register_alignment("means")
    class Means(Alignment):
        def loss(self, query, reference):
            return (query.mean(0) - reference.mean(0)).square().sum()

    try:
        query, reference = clouds(2.0)
        expected = float((query.mean(0) - reference.mean(0)).square().sum())
        assert create_alignment("means", DIM).estimate(query, reference) == pytest.approx(expected)
    finally:
        del ALIGNMENTS._things["means"]
