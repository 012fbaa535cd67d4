"""A sample of the campaign of bad inputs (`python -m tests.campaign` tries all of them)."""

from collections import Counter

from tests.campaign.case import Case, judge_call
from tests.campaign.runner import all_cases, table, try_all

EVERY = 10


def test_names_of_cases_are_unique():
    counts = Counter((case.door, case.name) for case in all_cases())
    assert [which for which, count in counts.items() if count > 1] == []


def test_every_tenth_bad_input_is_answered_well():
    sample = all_cases()[::EVERY]
    outcomes = try_all(sample, limit=60)
    bad = {f"{c.door}: {c.name}": outcome for c, outcome in zip(sample, outcomes, strict=True) if outcome != "good"}
    assert bad == {}


def test_outcomes_are_told_apart():
    def raises(error: Exception):
        def call():
            raise error

        return call

    assert judge_call(lambda: 3) == "silent"
    assert judge_call(lambda: 3, right=lambda answer: answer == 3) == "good"
    assert judge_call(raises(ValueError("epochs is 0")), "epochs") == "good"
    assert judge_call(raises(ValueError("oh no")), "epochs") == "unclear"
    assert judge_call(raises(ValueError("epochs: see https://errors.pydantic.dev/1")), "epochs") == "unclear"
    assert judge_call(raises(KeyError("epochs")), "epochs") == "traceback"


def test_the_table_counts_by_door():
    cases = [Case(door, str(i), lambda folder: "good") for i, door in enumerate(("call", "call", "cache"))]
    lines = [line.split() for line in table(cases, ["good", "silent", "hang"]).splitlines()]
    assert lines[1:] == [
        ["call", "2", "1", "0", "0", "0"],
        ["cache", "1", "0", "0", "0", "1"],
        ["all", "3", "1", "0", "0", "1"],
    ]
