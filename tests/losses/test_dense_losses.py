"""Losses over shifts against restatements in words: plain loops over every shift of every window."""

import math

import pytest
import torch

from sarmatch.losses import LOSSES, DenseBatch, create_loss

DENSE = [name for name in sorted(LOSSES) if getattr(LOSSES[name], "dense", False)]


def batch(count=3, windows=4, side=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.rand(count, windows, side, side, generator=generator) - 1
    shift = torch.rand(count, 2, generator=generator) * (side - 1)
    allowed = torch.ones(count, windows, dtype=torch.bool)
    allowed[0, 1] = False
    return DenseBatch(scores, shift, allowed)


def split(given, i, radius):
    """Scores of query i that are right and that are wrong, and how far each right one is from the truth."""
    right, wrong = [], []
    for j in range(given.scores.shape[1]):
        for r in range(given.scores.shape[2]):
            for c in range(given.scores.shape[3]):
                apart = math.dist((r, c), given.shift[i].tolist())
                score = given.scores[i, j, r, c].item()
                if i == j and apart <= radius:
                    right.append((score, apart))
                elif i == j or given.allowed[i, j]:
                    wrong.append(score)
    return right, wrong


def test_they_are_three():
    assert DENSE == ["disc_hinge", "shift_circle", "shift_cross_entropy"]


def test_cross_entropy_is_the_probability_of_the_disc():
    given, expected = batch(), 0.0
    for i in range(3):
        right, wrong = split(given, i, 1.5)
        own = sum(math.exp(s / 0.1) for s, _ in right)
        expected -= math.log(own / (own + sum(math.exp(s / 0.1) for s in wrong))) / 3
    loss = create_loss("shift_cross_entropy", temperature=0.1, queries=0.0)
    assert loss(given).item() == pytest.approx(expected, rel=1e-5)
    across = 0.0
    for j in range(3):
        r, c = given.shift[j].round().int().tolist()
        among = [given.scores[i, j, r, c].item() / 0.1 for i in range(3) if i == j or given.allowed[i, j]]
        own = given.scores[j, j, r, c].item() / 0.1
        across -= math.log(math.exp(own) / sum(map(math.exp, among))) / 3
    both = create_loss("shift_cross_entropy", temperature=0.1, queries=2.0)
    assert both(given).item() == pytest.approx(expected + 2 * across, rel=1e-5)


def test_circle_is_as_published():
    given, expected = batch(), 0.0
    for i in range(3):
        right, wrong = split(given, i, 1.5)
        pull = sum(math.exp(-32 * max(1.25 - s, 0) * (s - 0.75)) for s, _ in right)
        push = sum(math.exp(32 * max(s + 0.25, 0) * (s - 0.25)) for s in wrong)
        expected += math.log1p(pull * push) / 3
    assert create_loss("shift_circle")(given).item() == pytest.approx(expected, rel=1e-4)


def test_hinge_compares_a_soft_disc_with_the_hardest():
    given, expected = batch(), 0.0
    for i in range(3):
        right, wrong = split(given, i, 2.0)
        weights = [1 - apart / 2 for _, apart in right]
        inside = sum(w * s for w, (s, _) in zip(weights, right, strict=True)) / sum(weights)
        expected += max(0.0, 0.2 + sum(sorted(wrong)[-16:]) / 16 - inside) / 3
    assert create_loss("disc_hinge")(given).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", DENSE)
def test_a_peak_in_the_right_place_costs_less_than_one_elsewhere(name):
    scores = torch.full((2, 2, 7, 7), 0.1)
    shift = torch.tensor([[3.0, 3.0], [2.0, 4.0]])
    right, wrong = scores.clone(), scores.clone()
    for i, (r, c) in enumerate(shift.int().tolist()):
        right[i, i, r, c], wrong[i, i, (r + 3) % 7, c] = 0.9, 0.9
    loss = create_loss(name)
    assert loss(DenseBatch(right, shift)) < loss(DenseBatch(scores, shift)) < loss(DenseBatch(wrong, shift))


@pytest.mark.parametrize("name", DENSE)
def test_gradients_lift_the_truth_and_push_the_rest(name):
    given = batch()
    scores = given.scores.clone().requires_grad_()
    gradient = torch.autograd.grad(create_loss(name)(given._replace(scores=scores)), scores)[0]
    assert torch.isfinite(gradient).all()
    assert (gradient[0, 1] == 0).all() or name == "shift_cross_entropy", "what is no negative is left alone"
    for i, (r, c) in enumerate(given.shift.round().int().tolist()):
        assert gradient[i, i, r, c] <= 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shift_cross_entropy", {"radius": 0.0}, "option radius is 0.0"),
        ("shift_cross_entropy", {"temperature": -1.0}, "option temperature is -1.0"),
        ("disc_hinge", {"hardest": 0}, "option hardest is 0"),
    ],
)
def test_options_out_of_range_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_loss(name, **options)
