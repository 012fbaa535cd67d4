"""Names for things that a config or a user asks for: one registry a kind, filled by a decorator."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from sarmatch.checks import build

T = TypeVar("T")


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
