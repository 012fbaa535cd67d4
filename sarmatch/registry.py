"""Names for things that a config or a user asks for: one registry a kind, filled by a decorator."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")

# Annotations of options, for the ranges that most of them have.
Count = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

_CHECKS = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping of names to things; `register` adds to it.

    Parameters
    ----------
    kind
        What is registered, for messages: "loss", "encoder".

    Examples
    --------
    >>> greetings = Registry("greeting")
    >>> @greetings.register("hello")
    ... def hello(name):
    ...     return f"hello {name}"
    >>> greetings["hello"]("you")
    'hello you'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._origins: dict[str, tuple[str, str]] = {}

    def register(self, name: str, origin: Any = None) -> Callable[[Any], Any]:
        """Decorator that gives `name` to what it decorates, and returns it unchanged.

        A second thing of one name takes the place of the first only where both have one origin (module and qualified
        name), so that a notebook cell may run twice and a typo cannot replace what is there.

        Parameters
        ----------
        name
            What it will be called.
        origin
            Whose origin counts, where the thing itself is wrapped around it.

        Raises
        ------
        ValueError
            Where the name belongs to something else already.
        """

        def keep(thing: Any) -> Any:
            own = _origin(thing if origin is None else origin)
            if name in self._things and self._origins[name] != own:
                raise ValueError(f"a {self.kind} is already called {name!r}: {self._things[name]}")
            self._things[name], self._origins[name] = thing, own
            return thing

        return keep

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise ValueError(f"no {self.kind} is called {name!r}; there are {sorted(self._things)}")
        return self._things[name]

    def create(self, name: str, *args: Any, **options: Any) -> Any:
        """What the thing called `name` makes of its arguments; its options are checked, see `build`."""
        return build(f"{self.kind} {name!r}", self[name], *args, **options)

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def _origin(thing: Any) -> tuple[str, str]:
    return getattr(thing, "__module__", ""), getattr(thing, "__qualname__", repr(thing))


def build(what: str, factory: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`factory(*args, **options)`, with an error that names what was to be made and the option that is wrong.

    Parameters
    ----------
    what
        For the error, e.g. `loss 'infonce'`.
    factory
        Its annotations say what options may be.
    args, options
        What it is called with.

    Raises
    ------
    ValueError
        For an option that is unknown or missing, or of a value that its annotation or the factory refuses.
    """
    options = checked_options(what, factory, options)
    said = f"{what} with {options}" if options else what
    try:
        inspect.signature(factory).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"{said}: {error}") from error
    try:
        return factory(*args, **options)
    except OSError:
        raise  # it names its file
    except Exception as error:
        raise ValueError(f"{said}: {error}") from error


def checked_options(what: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the annotations of a function want them: known, of their type, and finite where they are numbers.

    Lists, which JSON has, become the tuples that are asked for. What has no annotation is taken as it is.

    Raises
    ------
    ValueError
        With the name of the option, and what it may be.
    """
    known = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()) and (unknown := sorted(set(options) - set(known))):
        own = sorted(name for name, p in known.items() if p.default is not p.empty)
        raise ValueError(f"{what} has no option {unknown[0]!r}; it has {own or 'none'}")
    checked = dict(options)
    for name in set(options) & set(known):
        annotation = known[name].annotation
        if annotation is not inspect.Parameter.empty and not isinstance(annotation, str):
            checked[name] = checked_value(f"{what}: option {name}", options[name], annotation)
    return checked


def checked_value(what: str, value: Any, annotation: Any) -> Any:
    """A value as an annotation wants it; a ValueError that says what is wrong with it otherwise."""
    number = annotation in (int, float, Count, Positive, NonNegative)
    if number and isinstance(value, bool):
        raise ValueError(f"{what} is {value!r}: it should be a number")
    try:
        return TypeAdapter(annotation, config=_CHECKS).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what} is {shortened(value)}: {first_error(error)}") from None


def first_error(error: ValidationError) -> str:
    """What the first thing is that is wrong, in one sentence without a link."""
    message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def shortened(value: Any, length: int = 80) -> str:
    """A value as it is written in code, cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."
