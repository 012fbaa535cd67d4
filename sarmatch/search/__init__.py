"""The index of a map and the candidate lists that a search in it gives."""

from sarmatch.search.vector import Candidates, MapIndex

__all__ = ["Candidates", "MapIndex"]
