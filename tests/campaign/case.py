"""A case of the campaign: one bad input through one door, and how a call or a command line is judged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from typer.testing import CliRunner

#: good: the right answer, or an error that names file or field and value. silent: a wrong answer without a word.
#: traceback: an error of a kind that no caller expects. unclear: an error that names neither. hang: no answer in time.
Outcome = Literal["good", "silent", "traceback", "unclear", "hang"]
OUTCOMES: tuple[Outcome, ...] = ("good", "silent", "traceback", "unclear", "hang")
EXPECTED = (ValueError, TypeError, OSError, FloatingPointError)  # what a clear error may be


class Case(NamedTuple):
    """One bad input.

    Attributes
    ----------
    door : str
        What it goes through: "data folder", "command line", "call", "run folder", "cache".
    name : str
        What is bad about it; unique within its door.
    run : callable
        Is given an empty folder of its own, tries the input, and returns the outcome.
    """

    door: str
    name: str
    run: Callable[[Path], Outcome]


def judge_call(call: Callable[[], Any], *said: str, right: Callable[[Any], bool] | None = None) -> Outcome:
    """The outcome of a call that must fail, or that may answer rightly.

    Parameters
    ----------
    call
        Without arguments.
    said
        Words that the error must hold, all of them: the file, or the field and its value.
    right
        Whether an answer is right; without it any answer is a silent one.
    """
    try:
        answer = call()
    except EXPECTED as error:
        return _judge_message(str(error), said)
    except Exception:
        return "traceback"
    return "good" if right is not None and right(answer) else "silent"


def judge_command(words: Sequence[str], *said: str, right: Callable[[str], bool] | None = None) -> Outcome:
    """The outcome of a line `sarmatch WORDS`, as of `judge_call`; `right` is given what it printed."""
    from sarmatch.cli import app

    answer = CliRunner().invoke(app, list(words))
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        return "traceback"
    if answer.exit_code:
        return _judge_message(answer.output, said)
    return "good" if right is not None and right(answer.output) else "silent"


def _judge_message(message: str, said: Sequence[str]) -> Outcome:
    if "Traceback (most recent call last)" in message:
        return "traceback"
    plain = " ".join(message.replace("│", " ").split())  # the frame that a usage error is printed in wraps its lines
    foreign = "https://errors.pydantic.dev" in message
    return "good" if plain and not foreign and all(word in plain for word in said) else "unclear"
