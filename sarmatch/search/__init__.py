"""Search: galleries of a map, candidates for a query's place, and what finds them."""

from sarmatch.search.candidates import Candidates
from sarmatch.search.coarse_to_fine import CoarseToFine
from sarmatch.search.correlate import FeatureMap
from sarmatch.search.dense import DenseSearch, surface
from sarmatch.search.gallery import Gallery, build_gallery, galleries_dir
from sarmatch.search.maps import DenseGallery, build_maps
from sarmatch.search.pooled import pooled, pooled_at
from sarmatch.search.searches import SEARCHES, Search, create_search, list_searches, register_search
from sarmatch.search.turned import TurnedSearch
from sarmatch.search.vector import VectorSearch

__all__ = [
    "SEARCHES",
    "Candidates",
    "CoarseToFine",
    "DenseGallery",
    "DenseSearch",
    "FeatureMap",
    "Gallery",
    "Search",
    "TurnedSearch",
    "VectorSearch",
    "build_gallery",
    "build_maps",
    "create_search",
    "galleries_dir",
    "list_searches",
    "pooled",
    "pooled_at",
    "register_search",
    "surface",
]
