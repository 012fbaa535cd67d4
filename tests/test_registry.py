"""Registries: names to things, by decorator."""

import pytest

from sarmatch.registry import Registry


def test_a_registered_thing_is_found_and_unchanged():
    registry = Registry("loss")

    def thing():
        return 3

    assert registry.register("three")(thing) is thing
    assert registry["three"]() == 3 and list(registry) == ["three"] and len(registry) == 1 and "three" in registry


def test_an_unknown_name_lists_the_known_ones():
    registry = Registry("loss")
    registry.register("b")(len)
    registry.register("a")(max)
    with pytest.raises(ValueError, match=r"no loss is called 'c'; there are \['a', 'b'\]"):
        registry["c"]


def test_a_cell_may_run_twice_but_a_name_is_not_taken_over():
    registry = Registry("loss")

    def define():
        @registry.register("mine")
        def mine():
            return None

        return mine

    define()
    again = define()
    assert registry["mine"] is again
    with pytest.raises(ValueError, match="already called 'mine'"):
        registry.register("mine")(len)
