"""Exact search for the tiles whose vectors are nearest to a query's."""

import os
from collections.abc import Iterable

import numpy as np
import torch  # before faiss, so that both share one OpenMP runtime
from numpy.typing import NDArray
from torch import nn

import faiss  # isort: skip

from sarmatch.checks import whole_number
from sarmatch.encoders import embed
from sarmatch.search.candidates import Candidates
from sarmatch.search.gallery import Gallery, unit_rows
from sarmatch.search.searches import register_search

# A forked worker inherits the runtime's bookkeeping but not its threads: asking for a second one waits forever.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))

_GPU_LIMIT = 2048  # the longest list that faiss selects on a GPU

Queries = NDArray | torch.Tensor | Iterable[torch.Tensor]


@register_search("vector")
class VectorSearch:
    """One vector per tile, compared exhaustively by cosine.

    Parameters
    ----------
    gallery
        Tiles with their vectors.
    encoder
        Makes vectors of queries that are given as images.

    Notes
    -----
    ``faiss.IndexFlatIP``: exact, so a missed tile is the encoder's fault, never the index's. The search runs on the
    GPUs where faiss reports any.

    Examples
    --------
    >>> search = VectorSearch(Gallery.of_vectors(np.eye(3), [[0, 0], [100, 0], [200, 0]]))
    >>> search.search(np.eye(3)[1:2], k=1).xy
    array([[[100.,   0.]]])
    """

    def __init__(self, gallery: Gallery, encoder: nn.Module | None = None) -> None:
        self.gallery, self.encoder = gallery, encoder
        self._flat = faiss.IndexFlatIP(gallery.vectors.shape[1])
        self._flat.add(gallery.vectors)
        on_gpu = getattr(faiss, "get_num_gpus", lambda: 0)() > 0
        self._fast = faiss.index_cpu_to_all_gpus(self._flat) if on_gpu else self._flat

    def encode(self, images: Iterable[torch.Tensor]) -> NDArray[np.float32]:
        """Vectors `(Q, D)` of batches of SAR images `(B, C, H, W)`.

        Raises
        ------
        ValueError
            Where the search was made without an encoder.
        """
        if self.encoder is None:
            raise ValueError("this search has no encoder: give it one, or search with vectors instead of images")
        return embed(self.encoder, images, "query")

    def search(self, queries: Queries, k: int) -> Candidates:
        """The `k` tiles of highest cosine for each query; its place is the tile's centre.

        Parameters
        ----------
        queries : array or tensor (Q, D), or batches of images (B, C, H, W)
            Vectors L2-normalised to 1e-3, or images that the encoder makes them of.
        k : int
            Length of the lists, from 1 to the size of the gallery.

        Returns
        -------
        Candidates
            Best first. The order of equal scores means nothing: count ties with `sarmatch.evaluation.ranks`.

        Raises
        ------
        ValueError
            If ``k`` does not fit the gallery or ``queries`` do not fit the vectors.
        """
        if not isinstance(queries, (np.ndarray, torch.Tensor)):
            queries = self.encode(queries)
        queries = unit_rows("queries", queries)
        if queries.shape[1] != self._flat.d:
            raise ValueError(f"queries have dimension {queries.shape[1]}, the gallery has {self._flat.d}")
        if not 1 <= whole_number("k", k) <= len(self.gallery):
            raise ValueError(f"k must be between 1 and the gallery size {len(self.gallery)}, got {k}")
        index = self._fast if k <= _GPU_LIMIT else self._flat
        scores, tile = index.search(queries, k)
        gallery = self.gallery
        places = gallery.xy[tile] if gallery.has_coordinates else None
        return Candidates(scores, places, gallery.area[tile], gallery.areas, tile=tile)
