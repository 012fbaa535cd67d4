"""Searches by name: what finds the places of a query on a map."""

from collections.abc import Callable
from typing import Any, Protocol

from sarmatch.registry import Registry
from sarmatch.search.candidates import Candidates


class Search(Protocol):
    """What finds places: made of a gallery and an encoder, takes queries and gives candidates."""

    def search(self, queries: Any, k: int) -> Candidates:
        """The `k` best places of each query, given as batches of images or as `encode` makes of them."""
        ...

    def encode(self, images: Any) -> Any:
        """What this search compares, of batches of images."""
        ...


#: Searches by name: `(gallery, encoder)` to a `Search`.
SEARCHES: Registry[Callable[..., Search]] = Registry("search")
register_search = SEARCHES.register


def list_searches() -> list[str]:
    """Names that `create_search` knows, sorted."""
    return sorted(SEARCHES)


def create_search(name: str, gallery: Any, encoder: Any = None, **options: Any) -> Search:
    """A search by name: `vector` compares one vector per tile, `dense`, `coarse_to_fine` and `turned` maps
    of features.

    Parameters
    ----------
    name
        One of `list_searches()`.
    gallery
        What the map has become under the encoder, see `sarmatch.search.build_gallery`.
    encoder
        Makes of images what the search compares.
    options
        Of the search.

    Raises
    ------
    ValueError
        For a name nobody knows, or an option that the search does not take.
    """
    return SEARCHES.create(name, gallery, encoder, **options)
