"""Arguments and options that people give: what they may be, and an error that names them where they are not."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

# Annotations of options, for the ranges that most of them have.
Count = Annotated[int, Field(ge=1, le=100_000)]
Size = Count | tuple[Count, Count]  # pixels of an image: its side, or height and width
Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Hundreds = Annotated[int, Field(ge=1, le=1024)]
Few = Annotated[int, Field(ge=1, le=64)]
Radius = Annotated[float, Field(ge=0.75, le=64)]  # cells; within less there may be no whole shift

_CHECKS = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)


def whole_number(name: str, value: int, least: int = 1) -> int:
    """A whole number of at least `least`, whichever type it comes in; a ValueError with its name otherwise."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


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
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if plain in (int, float) and isinstance(value, bool):
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
