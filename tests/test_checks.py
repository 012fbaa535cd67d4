"""Options are what annotations say; an error names what was made, the option and its value."""

import math

import numpy as np
import pytest

import sarmatch as sm
from sarmatch.checks import Count, Positive, build, checked_options, whole_number


class Thing:
    def __init__(self, size: int, widths: tuple[Count, ...] = (1,), rate: Positive = 1.0, free=None):
        self.size, self.widths, self.rate, self.free = size, widths, rate, free
        if rate > 100:
            raise KeyError("too fast")


def test_json_lists_become_tuples_and_what_has_no_annotation_is_taken():
    thing = build("thing", Thing, 3, widths=[2, 3], free=[1])
    assert (thing.size, thing.widths, thing.rate, thing.free) == (3, (2, 3), 1.0, [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"junk": 1}, r"thing has no option 'junk'; it has \['free', 'rate', 'widths'\]"),
        ({"widths": [0]}, r"thing: option widths is \[0\]: .*greater than or equal to 1"),
        ({"rate": math.nan}, "thing: option rate is nan"),
        ({"rate": math.inf}, "thing: option rate is inf"),
        ({"rate": True}, "thing: option rate is True: it should be a number"),
        ({"rate": "x" * 500}, r"option rate is 'x{79}\.\.\."),
        ({"rate": 101}, "thing with .*'rate': 101.*: 'too fast'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build("thing", Thing, 3, **options)


def test_a_missing_or_repeated_argument_is_named():
    with pytest.raises(ValueError, match="thing: missing a required argument: 'size'"):
        build("thing", Thing)
    with pytest.raises(ValueError, match="thing .*multiple values for argument 'size'"):
        build("thing", Thing, 3, size=4)


def test_options_of_a_function_that_takes_any_are_left_alone():
    def anything(first: int, **rest):
        return first, rest

    assert checked_options("it", anything, {"other": "x"}) == {"other": "x"}


def test_whole_numbers_come_in_many_types():
    assert [whole_number("k", k) for k in (1, np.int64(2), np.uint8(3))] == [1, 2, 3]
    for k in (0, -1, 1.0, 1.5, math.nan, True, "1", None):
        with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
            whole_number("k", k)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sm.create_encoder("plain", image_size=-5), "encoder 'plain': option image_size is -5"),
        (lambda: sm.create_encoder("hog", cells=0), "encoder 'hog': option cells is 0"),
        (lambda: sm.create_encoder("plain", widths=[0]), "backbone 'plain': option widths"),
        (lambda: sm.create_encoder("resnet18", junk=1), "encoder 'resnet18' .*junk"),
        (lambda: sm.create_refiner("geographic_vote", junk=1), "refiner 'geographic_vote' has no option 'junk'"),
        (lambda: sm.create_refiner("gnn", junk=1), "refiner 'gnn' has no option 'junk'"),
        (lambda: sm.create_loss("infonce", temperature=math.nan), "loss 'infonce': option temperature is nan"),
        (lambda: sm.create_alignment("wasserstein", 8, critic_steps=0), "alignment 'wasserstein': option critic_steps"),
        (lambda: sm.create_encoder("cfog", stride=5000), "encoder 'cfog': option stride is 5000"),
        (lambda: sm.create_encoder("dense", stride=True), "encoder 'dense': option stride is True: it should be a num"),
        (lambda: sm.create_encoder("dense", width=0), "encoder 'dense': option width is 0"),
        (lambda: sm.create_encoder("dense", channels=10**5), "encoder 'dense': option channels is 100000"),
        (lambda: sm.create_encoder("dense", dilations=[0]), r"encoder 'dense': option dilations is \[0\]"),
        (lambda: sm.create_encoder("dense", coarse=0), "encoder 'dense': option coarse is 0"),
        (lambda: sm.create_loss("shift_cross_entropy", radius=0.5), "'shift_cross_entropy': option radius is 0.5"),
        (lambda: sm.create_loss("shift_cross_entropy", radius=math.nan), "'shift_cross_entropy': option radius is nan"),
        (lambda: sm.create_loss("shift_cross_entropy", queries=-1), "'shift_cross_entropy': option queries is -1"),
        (lambda: sm.create_loss("shift_circle", margin=9), "'shift_circle': option margin is 9"),
        (lambda: sm.create_loss("shift_circle", gamma=0), "'shift_circle': option gamma is 0"),
        (lambda: sm.create_loss("disc_hinge", hardest=1.5), "'disc_hinge': option hardest is 1.5"),
    ],
)
def test_what_is_made_by_name_checks_its_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
