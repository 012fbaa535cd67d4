"""Displacement of a strip as a whole is told from errors of the search."""

import numpy as np
import pytest

from sarmatch.evaluation import registered_errors


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_a_turned_and_shifted_strip_leaves_the_errors_of_the_search(wrong):
    rng = np.random.default_rng(0)
    claimed = rng.uniform(0, 2000, (400, 2))
    strip = np.repeat(["a", "b"], 200)
    own = rng.normal(0, 1.0, claimed.shape)
    turn = np.deg2rad(1.5)
    displaced = {"a": (claimed - 1000) @ np.array([[0, turn], [-turn, 0]]) + (3, -5), "b": np.array([[-6.0, 2.0]])}
    moved = np.where((strip == "a")[:, None], displaced["a"], displaced["b"])
    bad = rng.random(400) < wrong
    found = np.where(bad[:, None], rng.uniform(0, 2000, claimed.shape), claimed + moved + own)
    errors = registered_errors(found, claimed, strip, 60.0)
    np.testing.assert_allclose(errors[~bad], np.linalg.norm(own[~bad], axis=1), atol=0.5)
    assert (errors[bad] > 30).sum() >= 0.97 * bad.sum(), "what is wrong does not become right"


def test_answers_at_random_are_not_made_right():
    rng = np.random.default_rng(1)
    claimed, found = rng.uniform(0, 2000, (2, 300, 2))
    errors = registered_errors(found, claimed, np.zeros(300, int), 100.0)
    assert (errors <= 25).mean() < 0.02


def test_a_strip_of_few_answers_keeps_its_errors():
    claimed = np.zeros((3, 2))
    found = np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]])
    assert registered_errors(found, claimed, np.zeros(3), 50.0).tolist() == [5, 10, 1]
