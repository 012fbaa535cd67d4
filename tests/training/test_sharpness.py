"""Sharpness-aware steps against their closed forms."""

import pytest
import torch

from sarmatch.training.sharpness import perturb, restore


def weights() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    found = [
        torch.nn.Parameter(torch.randn(3, 2)),
        torch.nn.Parameter(torch.randn(4)),
        torch.nn.Parameter(torch.ones(2)),
    ]
    for w in found[:2]:
        w.grad = torch.randn_like(w)
    return found


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_the_step_is_the_closed_form(rho):
    for form in ("sam", "asam"):
        parameters = weights()
        before = [p.detach().clone() for p in parameters]
        perturb(parameters, form, rho)
        w = torch.cat([b.ravel() for b in before[:2]])
        g = torch.cat([p.grad.ravel() for p in parameters[:2]])
        expected = rho * g / g.norm() if form == "sam" else rho * w**2 * g / (w * g).norm()
        moved = torch.cat([(p - b).detach().ravel() for p, b in zip(parameters[:2], before, strict=False)])
        torch.testing.assert_close(moved, expected)
        length = moved.norm() if form == "sam" else (moved / w.abs()).norm()
        assert length.item() == pytest.approx(rho, rel=1e-4), "the radius, in the norm of the form"
        assert torch.equal(parameters[2], before[2]), "no gradient, no step"


def test_restoring_restores_the_weights_and_keeps_the_new_gradient():
    parameters = weights()
    before = [p.detach().clone() for p in parameters]
    kept = perturb(parameters, "asam", 1.0)
    gradient = torch.randn(3, 2)
    parameters[0].grad = gradient.clone()
    restore(kept)
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    assert torch.equal(parameters[0].grad, gradient)


def test_it_perturbs():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

    def loss():
        return (w**4).sum()

    value = loss()
    value.backward()
    perturb([w], "sam", 0.1)
    assert loss() > value


def test_a_gradient_of_zero_is_no_division_by_zero():
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.zeros(2)
    perturb([w], "sam", 0.1)
    assert torch.equal(w, torch.ones(2))


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="'gsam'"):
        perturb([], "gsam", 0.1)
