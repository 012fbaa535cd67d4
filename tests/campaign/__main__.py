"""`python -m tests.campaign`: try all bad inputs and print the table of what came of them."""

import sys

from tests.campaign.runner import all_cases, table, try_all

if __name__ == "__main__":  # workers import this module as well
    words = sys.argv[1:]  # parts of names of doors; all doors without any
    cases = [case for case in all_cases() if not words or any(word in case.door for word in words)]
    outcomes = try_all(cases)
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome != "good":
            print(f"{outcome:10} {case.door}: {case.name}")
    print(table(cases, outcomes))
    sys.exit(any(outcome != "good" for outcome in outcomes))
