"""Refiners by name: what puts candidate lists into a better order."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from sarmatch.checks import checked_options
from sarmatch.refinement.context import RefinementContext, checked_requirements
from sarmatch.refinement.labelled import LabelledLists, reciprocal_rank
from sarmatch.registry import Registry
from sarmatch.search import Candidates

#: Scores `(Q, K)`, and places in metres `(Q, K, 2)` or None where they stay.
Scored = tuple[NDArray, NDArray | None]
#: `(candidates, context, **options)` to scores and places, in the order of the lists.
Score = Callable[..., Scored]


class Refiner(Protocol):
    """What every refiner can do.

    `requires` names what it needs of a context, of `sarmatch.refinement.context.REQUIREMENTS`; `learns` says whether
    `fit` trains something or only chooses options.
    """

    name: str
    requires: Sequence[str]
    learns: ClassVar[bool]

    def fit(
        self, lists: Sequence[LabelledLists], validation: Sequence[LabelledLists] = (), **options: Any
    ) -> "Refiner":
        """Learn, or choose options, from labelled candidate lists, one part a gallery; returns itself."""
        ...

    def refine(self, candidates: Candidates, context: RefinementContext, seed: int = 0) -> Candidates:
        """The lists in a new order, best first."""
        ...


#: Refiners by name: options to a `Refiner`.
REFINERS: Registry[Callable[..., Refiner]] = Registry("refiner")


def register_refiner(name: str, requires: Sequence[str] = ("tiles",), **choices: tuple) -> Callable[[Score], Score]:
    """Decorator that makes a refiner of a function of candidates and context.

    Parameters
    ----------
    name
        Under which `create_refiner` finds it.
    requires
        What the function needs: any of `tiles`, `vectors`, `metres`, `pixels`.
    choices
        Values of options among which `fit` chooses.

    Examples
    --------
    >>> @register_refiner("half")
    ... def half(candidates, context, factor=0.5):
    ...     return factor * candidates.scores, None
    >>> create_refiner("half", factor=0.25).options
    {'factor': 0.25}
    """

    def keep(score: Score) -> Score:
        REFINERS.register(name, score)(
            partial(TrainingFreeRefiner, name, score, checked_requirements(requires), choices)
        )
        return score

    return keep


def list_refiners() -> list[str]:
    """Names that `create_refiner` knows: training-free ones, then those that learn."""
    return list(REFINERS)


def create_refiner(name: str, **options: Any) -> Refiner:
    """A refiner by name.

    Parameters
    ----------
    name
        One of `list_refiners()`.
    options
        Of the function or of the network.

    Raises
    ------
    ValueError
        For a name nobody knows, or an option that the refiner does not take.

    Examples
    --------
    >>> create_refiner("geographic_vote", weight=0.5).options
    {'weight': 0.5}
    """
    return REFINERS.create(name, **options)


class TrainingFreeRefiner:
    """A function of list and context, with the interface of a learned refiner.

    Parameters
    ----------
    name, score, requires, choices
        See `register_refiner`.
    options
        Of the function; `fit` leaves those that are given here alone.
    """

    learns = False

    def __init__(
        self, name: str, score: Score, requires: tuple[str, ...], choices: Mapping[str, tuple], **options: Any
    ) -> None:
        self.name, self.score, self.requires, self.choices = name, score, requires, choices
        self.given = self.options = checked_options(f"refiner {name!r}", score, options)

    def fit(
        self, lists: Sequence[LabelledLists], validation: Sequence[LabelledLists] = (), **unused: Any
    ) -> "TrainingFreeRefiner":
        """Choose options by mean reciprocal rank on what others learn from; ties go to the earlier choice."""
        free = {name: values for name, values in self.choices.items() if name not in self.given}
        if not free:
            return self
        best = -1.0
        for values in product(*free.values()):
            options = {**self.given, **dict(zip(free, values, strict=True))}
            tried = TrainingFreeRefiner(self.name, self.score, self.requires, {}, **options)
            found = reciprocal_rank([tried.refine(part.candidates, part.context) for part in lists], lists)
            if found > best:
                best, self.options = found, options
        return self

    def refine(self, candidates: Candidates, context: RefinementContext, seed: int = 0) -> Candidates:
        """The lists in a new order, best first; `seed` is not used."""
        context.check(candidates, self.requires, self.name)
        return candidates.reorder(*self.score(candidates, context, **self.options))
